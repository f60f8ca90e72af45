"""What every engine keeps, whatever runs behind it. A new engine is one more entry of `SUBJECTS`."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest

from phaselaw.engines import Engine, EngineModule, Model, module_for
from phaselaw.errors import EngineError
from phaselaw.ladder.spec import ladder_model
from phaselaw.measure.calls import measure
from phaselaw.records import Call, EngineInfo, Request, from_jsonable, to_jsonable
from phaselaw.study.model import HfBackend, Kind, ModelEntry, SimulatedBackend, Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine under test, with a model that it can load and one that it can't (``None``: it can load any)."""

    backend: Callable[[], Any]
    model: ModelEntry
    params_millions: float
    absent: ModelEntry | None

    @property
    def module(self) -> EngineModule:
        return module_for(self.backend().kind)


def tiny_ladder() -> float:
    found = ladder_model("models/tiny-gpt2")
    assert found is not None
    return found.params / 1e6


SUBJECTS = {
    "simulated": Subject(
        backend=lambda: SimulatedBackend(name="law", kind="simulated"),
        model=ModelEntry(name="any", kind="simulated", params_millions=5.0),
        params_millions=5.0,
        absent=None,
    ),
    "hf": Subject(
        backend=lambda: HfBackend(name="cpu", kind="hf", threads=2),
        model=ModelEntry(name="models/tiny-gpt2", kind="hf"),
        params_millions=tiny_ladder(),
        absent=ModelEntry(name="./no such folder", kind="hf"),
    ),
}

ELSEWHERE: dict[str, str] = {
    "llamacpp": "tests/engines/test_llamacpp.py: it needs llama-server, an extra",
    "ollama": "tests/engines/test_ollama.py: it needs a server, and a stand-in's calls are not free to repeat",
    "openai": "tests/engines/test_openai.py: the same",
}
"""Kinds held to this contract in a file of their own, and why."""


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    request.getfixturevalue("ladder_cache")
    if request.param == "hf":
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    return SUBJECTS[request.param]


@pytest.fixture(scope="module")
def engine(subject: Subject):
    made = subject.module.create(subject.backend())
    yield made
    made.close()


@pytest.fixture(scope="module")
def model(subject: Subject, engine: Engine) -> Model:
    return engine.load(subject.model)


def ask(**changes) -> Request:
    wanted = {"prompt": None, "prompt_tokens": 9, "gen_tokens": 6, "batch_size": 1}
    return Request(**wanted | {"study_seed": 42, "seed": 7, "round": 0} | changes)


def test_every_kind_of_engine_is_a_subject_here_or_elsewhere_says_why() -> None:
    assert SUBJECTS.keys() | ELSEWHERE.keys() == set(get_args(Kind))


def test_nothing_is_lacking_where_the_model_is_there(subject: Subject) -> None:
    assert subject.module.lacking(subject.backend(), [subject.model]) == []


def test_an_absent_model_is_lacking_in_one_line_that_names_it_and_loading_it_fails(
    subject: Subject, engine: Engine
) -> None:
    if subject.absent is None:
        pytest.skip("this engine can load any model")
    [line] = subject.module.lacking(subject.backend(), [subject.absent])
    assert subject.absent.name in line
    assert "\n" not in line
    with pytest.raises(EngineError, match="no such folder") as raised:
        engine.load(subject.absent)
    assert raised.value.kind


def test_a_timing_has_a_time_and_a_count_for_each_phase(model: Model) -> None:
    timing = model.generate(ask())
    assert timing.prefill_ms > 0
    assert timing.kv_decode_ms > 0
    assert math.isfinite(timing.prefill_ms + timing.kv_decode_ms)
    assert (timing.prompt_tokens, timing.prompt_tokens_total, timing.gen_tokens_raw) == (9, 9, 6)


@pytest.mark.parametrize("budget", [1, 2, 17])
def test_decode_runs_exactly_the_asked_steps(model: Model, budget: int) -> None:
    timing = model.generate(ask(gen_tokens=budget))
    assert timing.gen_tokens_raw == budget
    if timing.decode_steps_ms is not None:
        assert len(timing.decode_steps_ms) == budget
        assert sum(timing.decode_steps_ms) <= timing.kv_decode_ms * 1.001


@pytest.mark.parametrize("length", [1, 17])
def test_a_synthetic_prompt_has_exactly_its_length(model: Model, length: int) -> None:
    assert model.generate(ask(prompt_tokens=length)).prompt_tokens == length


def test_a_prompt_as_text_is_counted_in_tokens(model: Model) -> None:
    timing = model.generate(ask(prompt="Why is the sky blue?", prompt_tokens=None))
    assert 1 <= timing.prompt_tokens == timing.prompt_tokens_total <= 21


def test_counts_are_of_one_sequence_and_totals_of_the_batch(model: Model) -> None:
    timing = model.generate(ask(batch_size=3))
    assert (timing.prompt_tokens, timing.prompt_tokens_total, timing.gen_tokens_raw) == (9, 27, 6)


def test_the_same_work_has_the_same_fingerprint_and_other_work_another(model: Model) -> None:
    one, same = model.generate(ask(seed=1)), model.generate(ask(seed=2))
    other = model.generate(ask(gen_tokens=7))
    assert one.output_sha256 == same.output_sha256 is not None
    assert other.output_sha256 != one.output_sha256


def test_parameters_are_measured(subject: Subject, model: Model) -> None:
    assert model.info.params_millions_measured == pytest.approx(subject.params_millions)


def test_what_an_engine_says_survives_the_journal(subject: Subject, engine: Engine, model: Model) -> None:
    said = engine.describe()
    assert (said.kind, said.name) == (subject.backend().kind, subject.backend().name)
    assert from_jsonable(EngineInfo, json.loads(json.dumps(to_jsonable(said)))) == said
    for record in (model.info, model.generate(ask())):
        assert from_jsonable(type(record), json.loads(json.dumps(to_jsonable(record), allow_nan=False))) == record


def test_two_models_side_by_side_answer_in_turn_where_the_engine_says_so(subject: Subject, engine: Engine) -> None:
    if engine.most_loaded((subject.model,) * 2) == 1:
        pytest.skip("this engine holds one model at a time")
    one, other = engine.load(subject.model), engine.load(subject.model)
    first = one.generate(ask()).output_sha256
    assert other.generate(ask()).output_sha256 == first
    other.close()
    assert one.generate(ask()).output_sha256 == first


def test_closing_twice_is_safe(subject: Subject) -> None:
    engine = subject.module.create(subject.backend())
    model = engine.load(subject.model)
    for open_one in (model, model, engine, engine):
        open_one.close()


def test_an_engine_measures_a_study(subject: Subject) -> None:
    study = Study.model_validate(
        {
            "run_name": "contract",
            "gen_tokens": 3,
            "repetitions": 2,
            "scenarios": ({"name": "micro", "prompt_tokens": 1},),
            "backends": (subject.backend().model_dump(),),
            "models": (subject.model.model_dump(),),
        }
    )
    engines = {subject.backend().name: subject.module.create(subject.backend())}
    calls = [event for event in measure(study, engines=engines) if isinstance(event, Call)]
    assert [(call.status, call.error) for call in calls] == [("ok", None)] * 3
