"""Several clients of a served engine: they send together, each is a row, and one that fails stops the others' wait."""

import json
import threading
import time
from typing import Any

from ollama_standin import OllamaStandIn, standing_in
from recordings import NEW, SMOLLM2

from phaselaw.engines import ollama
from phaselaw.errors import EngineError
from phaselaw.measure.calls import measure
from phaselaw.measure.order import schedule
from phaselaw.records import Call, EngineInfo, ModelInfo, Request, Served, Timing, to_jsonable
from phaselaw.study.model import Study


def study(concurrency: list[int], url: str = "http://127.0.0.1:1") -> Study:
    return Study.model_validate(
        {
            "run_name": "t",
            "gen_tokens": 8,
            "repetitions": 2,
            "scenarios": [{"name": "s", "prompt": "Explain the difference between latency and throughput."}],
            "backends": [{"name": "served", "kind": "ollama", "url": url, "concurrency": concurrency}],
            "models": [{"name": SMOLLM2, "kind": "ollama"}],
        }
    )


class Engine:
    """Calls of 20 ms each; those of the clients in ``fails`` fail before they send."""

    def most_loaded(self, _models: object) -> int | None:
        return None

    def __init__(self, fails: int = 0) -> None:
        self.info = ModelInfo(params_millions_measured=1.0)
        self._left_to_fail = fails
        self._lock = threading.Lock()

    def describe(self) -> EngineInfo:
        return EngineInfo(kind="ollama", name="served", version=None)

    def load(self, _: object) -> Any:
        return self

    def close(self) -> None: ...

    def generate(self, request: Request) -> Timing:
        with self._lock:
            fails = request.before_send is not None and self._left_to_fail > 0
            self._left_to_fail -= fails
        if fails:
            raise EngineError("no connection", kind="refused")
        if request.before_send is not None:
            request.before_send()
        sent = time.perf_counter_ns() / 1e6
        time.sleep(0.02)
        took = time.perf_counter_ns() / 1e6 - sent
        served = Served(sent_at_ms=sent, ttft_ms=1.0, e2e_ms=took, wall_ms=took, connect_ms=None,
                        arrivals_ms=(1.0, took), decode_step_ms=1.0, decode_step_basis="client")  # fmt: skip
        return Timing(prefill_ms=1.0, kv_decode_ms=8.0, prompt_tokens=1, prompt_tokens_total=1, gen_tokens_raw=8,
                      served=served)  # fmt: skip


def calls_of(asked: Study, engine: Any) -> list[Call]:
    return [event for event in measure(asked, engines={"served": engine}) if isinstance(event, Call)]


def test_each_client_makes_a_call_of_its_own() -> None:
    asked = study([1, 3])
    planned = schedule(asked)
    assert len(planned) == asked.calls_planned() == (1 + 3) * 3
    assert len({call.call_id for call in planned}) == 12
    alone = [call for call in planned if call.cell.concurrency == 1]
    assert [call.call_id for call in alone] == [call.call_id for call in schedule(study([1]))], "ids stay as they were"


def test_clients_send_together_and_the_achieved_concurrency_is_near_the_asked() -> None:
    calls = [call for call in calls_of(study([1, 4]), Engine()) if not call.is_warmup]
    together = [call for call in calls if call.cell.concurrency == 4 and call.rep == 0]
    assert [call.client_idx for call in together] == [0, 1, 2, 3]
    sent = [call.timing.served.sent_at_ms for call in together if call.timing and call.timing.served]
    assert max(sent) - min(sent) < 15
    assert all(call.queue_delay_ms is not None and call.queue_delay_ms >= 0 for call in together)
    assert 2 < (together[0].achieved_concurrency or 0) <= 4.0001
    alone = [call for call in calls if call.cell.concurrency == 1]
    assert all(call.achieved_concurrency is None and call.queue_delay_ms is None for call in alone)


def test_a_client_that_fails_leaves_no_other_waiting() -> None:
    started = time.perf_counter()
    calls = calls_of(study([3]), Engine(fails=1))
    assert time.perf_counter() - started < 5
    first = calls[:3]
    assert sorted(str(call.error).partition(":")[0] for call in first) == ["not_together", "not_together", "refused"]
    assert all(call.status == "ok" for call in calls[3:])


def test_a_stop_is_heeded_between_groups_and_a_group_is_finished() -> None:
    asked_to_stop = threading.Event()
    events = measure(study([3]), engines={"served": Engine()}, should_stop=asked_to_stop.is_set)
    assert [next(events) for _ in range(2)]
    asked_to_stop.set()
    assert len([event for event in events if isinstance(event, Call)]) == 2


def test_calls_already_done_are_not_made_again() -> None:
    asked = study([2])
    done = {call.call_id for call in schedule(asked)}
    assert list(measure(asked, engines={"served": Engine()}, done=done)) == []


def test_clients_of_ollama_have_prompts_of_their_own() -> None:
    standin = OllamaStandIn(NEW)
    with standing_in(standin) as url:
        asked = study([4], url)
        calls = calls_of(asked, ollama.create(asked.backends[0]))  # type: ignore[arg-type]
    assert [call.status for call in calls] == ["ok"] * 12, [call.error for call in calls]
    prompts = [sent["prompt"] for sent in standin.requests if sent.get("prompt") and len(sent["prompt"]) < 400]
    assert len(set(prompts)) == len(prompts)
    assert json.dumps([to_jsonable(call) for call in calls], allow_nan=False)


def test_a_call_that_is_made_again_is_made_among_as_many_clients_and_kept_alone() -> None:
    asked = study([3])
    done = {call.call_id for call in schedule(asked)} - {schedule(asked)[-1].call_id}
    [again] = [e for e in measure(asked, engines={"served": Engine()}, done=done) if isinstance(e, Call)]
    assert again.call_id not in done and again.achieved_concurrency is not None and again.achieved_concurrency > 2


def test_clients_that_a_server_turns_away_together_end_no_backend() -> None:
    calls = calls_of(study([1, 12]), Engine(fails=3 * 12))
    alone = [call for call in calls if call.cell.concurrency == 1]
    assert [call.status for call in alone] == ["ok"] * 3
    assert [call.status for call in calls if call.cell.concurrency == 12] == ["error"] * 36
