"""The order of a study's calls, and the drive through them: coldness, failures, going on."""

import math
from collections.abc import Callable, Iterator
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import EngineError, ModelGoneError, redacted
from phaselaw.measure.calls import EQUAL_ERRORS, measure
from phaselaw.measure.order import schedule, schedule_of
from phaselaw.records import (
    COLD_AGAIN,
    BackendEnded,
    Call,
    EngineInfo,
    ModelInfo,
    ModelLoaded,
    PlannedCall,
    Request,
    Rewarmed,
    Timing,
)
from phaselaw.study.model import ModelEntry, Study

TIMING = Timing(prefill_ms=2.0, kv_decode_ms=8.0, prompt_tokens=1, prompt_tokens_total=1, gen_tokens_raw=4)


def study(**changes) -> Study:
    keys = {
        "run_name": "t",
        "gen_tokens": 4,
        "repetitions": 3,
        "warmup_repetitions": 1,
        "seed": 42,
        "scenarios": [{"name": "micro", "prompt_tokens": 1}, {"name": "short", "prompt": "Hello there"}],
        "backends": [{"name": "one", "kind": "simulated"}, {"name": "two", "kind": "simulated"}],
        "models": [{"name": name, "kind": "simulated"} for name in ("small", "big")],
    }
    return Study.model_validate(keys | changes)


class ScriptedModel:
    """A model that answers as its engine's script says, and notes what it is asked."""

    info = ModelInfo(params_millions_measured=1.0)

    def __init__(self, name: str, engine: "ScriptedEngine") -> None:
        self.name, self.engine = name, engine

    def generate(self, request: Request) -> Timing:
        assert self in self.engine.open
        self.engine.requests.append((self.name, request))
        return self.engine.answer(self.name, request)

    def close(self) -> None:
        self.engine.open.discard(self)
        if self.engine.fails_to_close:
            raise RuntimeError("won't let go")


class ScriptedEngine:
    """An engine whose loads and calls do what a test tells."""

    def __init__(
        self,
        *,
        answer: Callable[[str, Request], Timing] = lambda _name, _request: TIMING,
        cant_load: tuple[str, ...] = (),
        cant_describe: bool = False,
        fails_to_close: bool = False,
        most_loaded: int | None = None,
    ) -> None:
        self.answer, self.cant_load, self.cant_describe = answer, cant_load, cant_describe
        self.fails_to_close, self.most = fails_to_close, most_loaded
        self.open: set[ScriptedModel] = set()
        self.requests: list[tuple[str, Request]] = []
        self.loads: list[str] = []
        self.most_open = 0
        self.closed = False

    def most_loaded(self, _models: object) -> int | None:
        return self.most

    def describe(self) -> EngineInfo:
        if self.cant_describe:
            raise RuntimeError("no idea who I am")
        return EngineInfo(kind="simulated", name="scripted", version="1")

    def load(self, model: ModelEntry) -> ScriptedModel:
        self.loads.append(model.name)
        if model.name in self.cant_load:
            raise EngineError(f"{model.name} is no model", kind="load")
        loaded = ScriptedModel(model.name, self)
        self.open.add(loaded)
        self.most_open = max(self.most_open, len(self.open))
        return loaded

    def close(self) -> None:
        self.closed = True
        if self.fails_to_close:
            raise RuntimeError("won't stop")


def drive(asked: Study, *engines: ScriptedEngine, **options) -> list[ModelLoaded | Rewarmed | Call]:
    """All events of a study on these engines, one a backend in its order (one for all where there is but one)."""
    each = engines * len(asked.backends) if len(engines) == 1 else engines
    by_name = {backend.name: engine for backend, engine in zip(asked.backends, each, strict=True)}
    return list(measure(asked, engines=by_name, **options))


def calls(events: list[ModelLoaded | Rewarmed | Call]) -> list[Call]:
    return [event for event in events if isinstance(event, Call)]


def raising(error: Exception) -> Callable[[str, Request], Timing]:
    def answer(_name: str, _request: Request) -> Timing:
        raise error

    return answer


# --- the order ---


studies = st.builds(
    study,
    seed=st.integers(0, 2**63 - 1),
    repetitions=st.integers(1, 4),
    warmup_repetitions=st.integers(0, 3),
    order=st.sampled_from(["rounds", "cells"]),
)


@given(studies, st.sets(st.sampled_from(["one", "two"])))
def test_each_cell_has_its_warmups_and_then_each_repetition_once_in_turn(asked: Study, grouped: set[str]) -> None:
    planned = schedule_of(asked, 0, grouped)
    by_cell: dict[str, list[tuple[int | None, int | None]]] = {}
    for call in planned:
        by_cell.setdefault(call.cell.key, []).append((call.warmup_idx, call.rep))
    wanted = [(index, None) for index in range(asked.warmup_repetitions)]
    wanted += [(None, rep) for rep in range(asked.repetitions)]
    assert by_cell == {cell.key: wanted for cell in asked.cells()}
    assert len({call.call_id for call in planned}) == len(planned)


@given(studies)
def test_the_same_study_gives_the_same_order(asked: Study) -> None:
    assert schedule(asked) == schedule(Study.model_validate(asked.resolved()))


def test_another_seed_gives_another_order_of_the_same_calls() -> None:
    one, other = schedule(study(seed=1)), schedule(study(seed=2))
    assert [call.call_id for call in one] != [call.call_id for call in other]
    assert {call.call_id for call in one} == {call.call_id for call in other}


def test_in_rounds_all_warmups_come_first_and_then_a_repetition_of_every_cell_before_the_next() -> None:
    planned = schedule(study(order="rounds"))
    runs = [(rep, len(list(together))) for rep, together in groupby(planned, key=lambda call: call.rep)]
    assert runs == [(None, 8), (0, 8), (1, 8), (2, 8)]


def test_each_round_is_shuffled_anew() -> None:
    planned = schedule(study(order="rounds"))
    orders = {tuple(call.cell.key for call in planned if call.rep == rep) for rep in (None, 0, 1, 2)}
    assert len(orders) == 4


def test_in_cells_a_cells_calls_stand_back_to_back() -> None:
    planned = schedule(study(order="cells"))
    lengths = [len(list(together)) for _, together in groupby(planned, key=lambda call: call.cell.key)]
    assert lengths == [4] * 8
    assert [call.task_idx for call in planned] == sorted(call.task_idx for call in planned)


def models_in_turn(planned: tuple[PlannedCall, ...], backend: str, rep: int) -> list[str]:
    of_round = [call.cell.model for call in planned if call.cell.backend == backend and call.rep == rep]
    return [model for model, _ in groupby(of_round)]


def test_a_backend_that_holds_one_model_changes_it_once_a_round_and_model() -> None:
    asked = study(models=[{"name": f"m{index}", "kind": "simulated"} for index in range(6)])
    grouped, free = (schedule_of(asked, 0, names) for names in ({"one"}, set()))
    for rep in range(3):
        assert len(models_in_turn(grouped, "one", rep)) == 6
        assert len(models_in_turn(free, "one", rep)) > 6
        assert len(models_in_turn(grouped, "two", rep)) > 6


def test_a_call_keeps_its_id_when_the_study_grows() -> None:
    small = study(models=[{"name": "small", "kind": "simulated"}], repetitions=2)
    grown = study(repetitions=4)
    ids = {(call.cell.key, call.warmup_idx, call.rep): call.call_id for call in schedule(grown)}
    assert all(ids[call.cell.key, call.warmup_idx, call.rep] == call.call_id for call in schedule(small))


def test_the_calls_of_two_decode_budgets_have_ids_of_their_own() -> None:
    swept = study(axes={"gen_tokens": [4, 8]})
    assert len({call.call_id for call in schedule(swept)}) == 2 * len(schedule(study()))


def test_each_replicate_makes_every_call_once_more_in_an_order_of_its_own() -> None:
    for order in ("rounds", "cells"):
        asked = study(replicates=3, order=order)
        parts = [[call for call in schedule(asked) if call.replicate == number] for number in range(3)]
        assert [call.replicate for call in schedule(asked)] == sorted(call.replicate for call in schedule(asked))
        what = [[(call.cell.key, call.warmup_idx, call.rep) for call in part] for part in parts]
        assert sorted(what[0], key=str) == sorted(what[1], key=str) == sorted(what[2], key=str)
        assert len({str(part) for part in what}) == 3
        assert len({call.call_id for call in schedule(asked)}) == len(schedule(asked)) == asked.calls_planned()


def test_the_first_replicate_is_the_study_of_one() -> None:
    assert schedule(study(replicates=2))[: len(schedule(study()))] == schedule(study())


# --- the drive ---


def test_calls_are_made_in_the_order_of_the_schedule_and_numbered_so() -> None:
    asked = study()
    made = calls(drive(asked, ScriptedEngine(), ScriptedEngine()))
    assert [call.call_id for call in made] == [planned.call_id for planned in schedule(asked)]
    assert [call.call_idx for call in made] == list(range(32))
    assert all(call.status == "ok" and call.error is None and call.timing == TIMING for call in made)


def test_a_request_is_what_its_cell_and_scenario_say() -> None:
    engine = ScriptedEngine()
    backends = [{"name": "one", "kind": "simulated", "batch_size": 3}]
    drive(study(backends=backends, gen_tokens=7), engine)
    assert {(each.prompt, each.prompt_tokens, each.gen_tokens, each.batch_size) for _, each in engine.requests} == {
        (None, 1, 7, 3),
        ("Hello there", None, 7, 3),
    }


def test_every_call_has_a_seed_of_its_own_and_all_share_the_studys() -> None:
    engine = ScriptedEngine()
    drive(study(), engine)
    assert len({request.seed for _, request in engine.requests}) == len(engine.requests) == 32
    assert {request.study_seed for _, request in engine.requests} == {42}


def test_a_request_knows_its_round_and_a_warmup_has_none() -> None:
    engine = ScriptedEngine()
    drive(study(order="rounds"), engine)
    assert [rep for rep, _ in groupby(request.round for _, request in engine.requests)] == [None, 0, 1, 2]


def test_a_model_is_loaded_once_a_backend_before_its_first_call_and_that_call_tells_the_load() -> None:
    engines = ScriptedEngine(), ScriptedEngine()
    events = drive(study(), *engines)
    assert [sorted(engine.loads) for engine in engines] == [["big", "small"]] * 2
    for index, event in enumerate(events):
        if isinstance(event, ModelLoaded):
            first = events[index + 1]
            assert isinstance(first, Call)
            assert (first.cell.backend, first.cell.model) == (event.backend, event.model)
            assert first.load_ms == event.load_ms >= 0
            assert first.calls_since_model_load == 0
    assert sum(call.load_ms is not None for call in calls(events)) == 4


def test_coldness_is_counted_for_the_process_the_model_and_the_shape() -> None:
    made = calls(drive(study(), ScriptedEngine(), ScriptedEngine()))
    assert [call.calls_since_process_start for call in made] == list(range(32))
    for model in {(call.cell.backend, call.cell.model) for call in made}:
        of_model = [call for call in made if (call.cell.backend, call.cell.model) == model]
        assert [call.calls_since_model_load for call in of_model] == list(range(8))
    for cell in {call.cell for call in made}:
        assert [call.calls_since_shape_first_seen for call in made if call.cell == cell] == [0, 1, 2, 3]


def test_an_engine_that_holds_one_model_never_has_two_and_is_cold_again_after_each_load() -> None:
    engine = ScriptedEngine(most_loaded=1)
    made = calls(drive(study(backends=[{"name": "one", "kind": "simulated"}]), engine))
    assert engine.most_open == 1
    assert len(engine.loads) > 2
    assert [call.calls_since_model_load for call in made if call.load_ms is not None] == [0] * len(engine.loads)


def test_the_model_not_needed_for_longest_goes_and_its_next_load_is_timed_and_cold() -> None:
    three = [{"name": name, "kind": "simulated"} for name in ("a", "b", "c")]
    engine = ScriptedEngine(most_loaded=2)
    events = drive(study(backends=[{"name": "one", "kind": "simulated"}], models=three, repetitions=5), engine)
    assert engine.most_open == 2
    loads = [event for event in events if isinstance(event, ModelLoaded)]
    made = calls(events)
    assert len([call for call in made if call.load_ms is not None]) == len(loads) == len(engine.loads) > 4
    again = [call for call in made if COLD_AGAIN in call.call_id]
    assert [call.load_ms for call in again] == [event.load_ms for event in loads][3:]
    assert {(call.is_warmup, call.rep, call.calls_since_model_load) for call in again} == {(True, None, 0)}
    measured = [call for call in made if not call.is_warmup]
    assert min(call.calls_since_model_load for call in measured) > 0, "a law stands on warm calls"
    assert len({call.call_id for call in made}) == len(made)


def test_rounds_are_grouped_by_model_where_not_all_stay_loaded() -> None:
    three = [{"name": name, "kind": "simulated"} for name in ("a", "b", "c")]
    engine = ScriptedEngine(most_loaded=1)
    drive(study(backends=[{"name": "one", "kind": "simulated"}], models=three, repetitions=4), engine)
    assert len(engine.loads) <= 3 * (4 + 1), "each model once a round"


def test_all_is_closed_at_the_end() -> None:
    engines = ScriptedEngine(), ScriptedEngine()
    drive(study(), *engines)
    assert all(engine.closed and not engine.open for engine in engines)


def test_all_is_closed_when_the_consumer_stumbles() -> None:
    engine = ScriptedEngine()
    events = measure(study(), engines={"one": engine, "two": engine})
    assert isinstance(events, Iterator)
    next(events)
    events.close()
    assert engine.closed
    assert not engine.open


def test_a_stop_ends_before_the_next_call() -> None:
    kept: list[Call] = []

    def enough() -> bool:
        return len(kept) == 5

    engines = dict.fromkeys(("one", "two"), ScriptedEngine())
    for event in measure(study(), engines=engines, should_stop=enough):
        kept += calls([event])
    assert len(kept) == 5


# --- failures ---


def test_a_call_that_fails_becomes_an_error_row_and_the_study_goes_on() -> None:
    def answer(name: str, request: Request) -> Timing:
        if name == "big" and request.round == 1:
            raise EngineError("the GPU fell off", kind="device")
        return TIMING

    made = calls(drive(study(), ScriptedEngine(answer=answer)))
    failed = [call for call in made if call.status == "error"]
    assert len(made) == 32
    assert {(call.cell.model, call.rep) for call in failed} == {("big", 1)}
    assert {call.error for call in failed} == {"device: the GPU fell off"}
    assert {call.timing for call in failed} == {None}


def test_a_load_that_fails_is_tried_once_and_makes_each_call_of_its_model_an_error() -> None:
    engine = ScriptedEngine(cant_load=("big",))
    events = drive(study(backends=[{"name": "one", "kind": "simulated"}]), engine)
    failed = [call for call in calls(events) if call.status == "error"]
    assert engine.loads.count("big") == 1
    assert len(failed) == 8
    assert {(call.cell.model, call.error) for call in failed} == {("big", "load: big is no model")}
    assert [event.model for event in events if isinstance(event, ModelLoaded)] == ["small"]


def test_calls_that_never_reached_a_model_make_nothing_warm() -> None:
    engine = ScriptedEngine(cant_load=("big",))
    made = calls(drive(study(backends=[{"name": "one", "kind": "simulated"}]), engine))
    assert {call.calls_since_shape_first_seen for call in made if call.cell.model == "big"} == {0}
    assert [call.calls_since_process_start for call in made if call.cell.model == "small"] == list(range(8))


def test_an_engine_that_cant_describe_itself_fails_its_calls_not_the_study() -> None:
    made = calls(drive(study(), ScriptedEngine(cant_describe=True), ScriptedEngine()))
    errors = {call.cell.backend: call.error for call in made}
    assert errors == {"one": "unexpected RuntimeError: no idea who I am", "two": None}


def test_an_engine_that_cant_close_ends_nothing() -> None:
    engine = ScriptedEngine(fails_to_close=True, most_loaded=1)
    assert sum(COLD_AGAIN not in call.call_id for call in calls(drive(study(), engine))) == 32
    assert engine.closed


def test_an_unforeseen_error_names_its_type_in_one_line_without_control_characters() -> None:
    [call, *_] = calls(drive(study(), ScriptedEngine(answer=raising(ValueError("first\n\x1b[31msecond")))))
    assert call.error == "unexpected ValueError: first [31msecond"


def test_an_endless_error_is_cut() -> None:
    [call, *_] = calls(drive(study(), ScriptedEngine(answer=raising(EngineError("x" * 9999)))))
    assert call.error is not None
    assert len(call.error) < 600


def test_an_error_that_repeats_a_key_is_kept_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "kx-0123456789")
    [call, *_] = calls(drive(study(), ScriptedEngine(answer=raising(EngineError("401: kx-0123456789 is unknown")))))
    assert call.error == "engine: 401: *** is unknown"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("quota; key sk-SECRETSECRETSECRETSECRET1234", "quota; key ***"),
        ("Incorrect API key provided: 1234abcd. Look it up", "Incorrect API key provided: *** Look it up"),
        ("token hf_abcdefghijklmnopqrstuvwx is not valid", "token *** is not valid"),
        ("ghp_0123456789abcdefghij, AKIA0123456789ABCDEF", "***, ***"),
        ("backend hf_gpu_fp16: the task-runner of disk-0123456789abcdef", None),
        ("a-sketch-of-models/hf_decode_of_many_small_models", None),
    ],
)
def test_what_services_give_as_keys_is_kept_nowhere_and_other_names_stay(said: str, kept: str | None) -> None:
    assert redacted(said) == (kept or said)


@pytest.mark.parametrize(
    "impossible",
    [{"prefill_ms": math.nan}, {"kv_decode_ms": math.inf}, {"prefill_ms": -1.0}, {"server": {"load_ms": math.nan}}],
)
def test_a_time_that_is_no_number_or_negative_becomes_an_error_row(impossible: dict[str, object]) -> None:
    broken = Timing(
        **{"prefill_ms": 1.0, "kv_decode_ms": 1.0, "prompt_tokens": 1, "prompt_tokens_total": 1, "gen_tokens_raw": 4}
        | impossible
    )
    [call, *_] = calls(drive(study(), ScriptedEngine(answer=lambda _name, _request: broken)))
    assert call.status == "error"
    assert (call.error or "").startswith("bad_timing: ")


@pytest.mark.parametrize("count", [1e18, math.inf, 10**400])
def test_a_model_whose_server_counts_what_no_table_can_hold_has_error_rows_and_no_record(count: float) -> None:
    engine = ScriptedEngine()
    load = engine.load

    def lying(entry: ModelEntry) -> ScriptedModel:
        model = load(entry)
        model.info = ModelInfo(params_millions_measured=count)
        return model

    engine.load = lying
    events = drive(study(), engine)
    assert not [event for event in events if isinstance(event, ModelLoaded)] and not engine.open
    assert {(call.error or "").partition(": ")[0] for call in calls(events)} == {"bad_model"}


def test_ctrl_c_is_no_failure_of_a_call() -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(study(), ScriptedEngine(answer=raising(KeyboardInterrupt())))


# --- going on ---


def test_what_is_done_is_not_made_again_and_the_rest_keeps_its_order() -> None:
    asked = study()
    ids = [planned.call_id for planned in schedule(asked)]
    done = {*ids[:3], *ids[10:20]}
    made = calls(drive(asked, ScriptedEngine(), done=done, process_idx=1, first_call_idx=13))
    assert [call.call_id for call in made] == [call_id for call_id in ids if call_id not in done]
    assert [call.call_idx for call in made] == list(range(13, 32))
    assert {call.process_idx for call in made} == {1}


def test_a_cell_that_is_entered_again_is_warmed_up_first_and_that_is_no_call() -> None:
    asked = study(warmup_repetitions=2)
    planned = schedule(asked)
    done = {call.call_id for call in planned if call.is_warmup}
    engine = ScriptedEngine()
    events = drive(asked, engine, done=done, process_idx=1)
    warmed: set[str] = set()
    for event in events:
        if isinstance(event, Rewarmed):
            assert (event.calls, event.process_idx, event.error) == (2, 1, None)
            assert event.cell_key not in warmed
            warmed.add(event.cell_key)
        elif isinstance(event, Call):
            assert event.cell.key in warmed
            assert event.calls_since_shape_first_seen >= 2
    assert len(warmed) == 8
    assert len(engine.requests) == len(planned) - len(done) + 2 * 8


def test_a_cell_whose_warmup_is_still_to_come_is_not_warmed_up_twice() -> None:
    asked = study()
    first, *_ = schedule(asked)
    events = drive(asked, ScriptedEngine(), done={first.call_id})
    assert [event.cell_key for event in events if isinstance(event, Rewarmed)] == [first.cell.key]


def test_a_rewarmup_that_fails_is_told_and_ends_nothing() -> None:
    def answer(_name: str, request: Request) -> Timing:
        if request.round is None:
            raise EngineError("not yet")
        return TIMING

    asked = study()
    done = {call.call_id for call in schedule(asked) if call.is_warmup}
    events = drive(asked, ScriptedEngine(answer=answer), done=done)
    assert {event.error for event in events if isinstance(event, Rewarmed)} == {"engine: not yet"}
    assert {call.status for call in calls(events)} == {"ok"}


def test_a_drive_makes_the_calls_of_one_replicate_and_tells_the_engine_which() -> None:
    asked, engine = study(replicates=2), ScriptedEngine()
    done = {call.call_id for call in schedule(asked) if call.replicate == 0}
    events = drive(asked, engine, replicate=1, done=done)
    assert [call.call_id for call in calls(events)] == [c.call_id for c in schedule(asked) if c.replicate == 1]
    assert {request.replicate for _, request in engine.requests} == {call.replicate for call in calls(events)} == {1}
    assert not [event for event in events if isinstance(event, Rewarmed)], "a replicate that begins is no resumed one"


def test_a_study_that_is_done_loads_nothing() -> None:
    asked, engine = study(), ScriptedEngine()
    assert drive(asked, engine, done={call.call_id for call in schedule(asked)}) == []
    assert engine.loads == []


# --- what fails again and again, and what is gone ---


def test_ten_equal_errors_in_a_row_end_a_backend_and_the_others_go_on() -> None:
    numbers = iter(range(1000))

    def refused(_name: str, _request: Request) -> Timing:
        raise EngineError(f"request {next(numbers)} refused", kind="refused")

    events = drive(study(repetitions=5), ScriptedEngine(answer=refused), ScriptedEngine())
    made = calls(events)
    assert sum(call.cell.backend == "one" for call in made) == EQUAL_ERRORS
    assert sum(call.cell.backend == "two" for call in made) == 24
    ended = [event for event in events if isinstance(event, BackendEnded)]
    assert [(event.backend, event.error) for event in ended] == [("one", "refused: request 9 refused")]


def test_errors_that_differ_or_are_interrupted_end_nothing() -> None:
    turns = iter(range(1000))

    def sometimes(_name: str, _request: Request) -> Timing:
        turn = next(turns)
        if turn % 10 < 9:
            raise EngineError("odd" if turn % 2 else "even", kind="server")
        return TIMING

    assert len(calls(drive(study(repetitions=20), ScriptedEngine(answer=sometimes)))) == 2 * 4 * 21


def test_a_model_that_is_gone_is_loaded_again_for_the_next_call_and_its_cells_are_warmed_up_again() -> None:
    turns = iter(range(1000))

    def dies_once(_name: str, _request: Request) -> Timing:
        if next(turns) == 6:
            raise ModelGoneError("ended with exit code -9", kind="server_died")
        return TIMING

    engine = ScriptedEngine(answer=dies_once)
    events = drive(study(backends=[{"name": "one", "kind": "simulated"}]), engine)
    failed = [at for at, event in enumerate(events) if isinstance(event, Call) and event.status == "error"]
    assert len(failed) == 1
    gone = events[failed[0]].cell.model
    assert sorted(engine.loads) == sorted(["small", "big", gone])
    after = [event for event in events[failed[0] + 1 :] if getattr(event, "cell", None) and event.cell.model == gone]
    assert after[0].load_ms is not None and after[0].calls_since_model_load == 1
    assert {event.cell_key for event in events if isinstance(event, Rewarmed)} == {call.cell.key for call in after}
