"""A server that is not ours goes away in the middle of a run: it is waited for, and its cells are warmed again."""

import json
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from ollama_standin import OllamaStandIn
from recordings import NEW, SMOLLM2
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, Script, chunk, read_request, reply, scripted

from phaselaw.engines import module_for
from phaselaw.measure.calls import measure
from phaselaw.records import Call, Event, Rewarmed, ServerAwaited
from phaselaw.study.model import Study


def openai_script(connection: socket.socket) -> None:
    while request := read_request(connection):
        if request.startswith(b"GET"):
            connection.sendall(reply(b'{"data": [{"id": "m"}]}'))
            continue
        connection.sendall(CHUNKED_HEAD)
        for text in ("a", "b", "c"):
            said = {"choices": [{"text": text, "finish_reason": "length" if text == "c" else None}]}
            connection.sendall(chunk(b"data: " + json.dumps(said).encode() + b"\n\n"))
        connection.sendall(LAST_CHUNK)


def run_with_an_outage(kind: str, script: Script, model: str, *, back_after_s: float, **settings: Any) -> list[Event]:
    """A run's events; the server goes after the third measured call, and comes back at the same place."""
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        url = first.enter_context(scripted(script))
        study = Study.model_validate({
            "run_name": "t", "gen_tokens": 3, "repetitions": 8, "warmup_repetitions": 1, "replicates": 1,
            "scenarios": [{"name": "s", "prompt": "Why is the sky blue?"}],
            "backends": [{"name": "srv", "kind": kind, "url": url, **settings}],
            "models": [{"name": model, "kind": kind}],
        })  # fmt: skip
        engines = {"srv": module_for(kind).create(study.backends[0])}
        back = threading.Timer(back_after_s, lambda: stack.enter_context(scripted(script, int(url.split(":")[-1]))))
        events: list[Event] = []
        for event in measure(study, engines=engines):
            events.append(event)
            if isinstance(event, Call) and event.rep == 2:
                first.close()
                back.start()
        back.join()
        return events


@pytest.mark.parametrize(("kind", "gone_s"), [("openai", 10.0), ("ollama", 0.7)])
def test_a_server_that_comes_back_is_waited_for_once_and_its_cell_is_warmed_again(kind: str, gone_s: float) -> None:
    script, model = (openai_script, "m") if kind == "openai" else (OllamaStandIn(NEW), SMOLLM2)
    events = run_with_an_outage(kind, script, model, back_after_s=gone_s)
    calls = [event for event in events if isinstance(event, Call)]
    assert [call.status for call in calls] == ["ok"] * 4 + ["error"] + ["ok"] * 4
    assert [call.outages for call in calls] == [0] * 5 + [1] * 4
    [awaited] = [event for event in events if isinstance(event, ServerAwaited)]
    assert awaited.at_most_s == 30 and events.index(awaited) > events.index(calls[4])
    [rewarmed] = [event for event in events if isinstance(event, Rewarmed)]
    assert rewarmed.error is None and events.index(rewarmed) < events.index(calls[5])


def test_a_server_that_stays_away_is_given_up_after_the_time_that_the_study_says() -> None:
    events = run_with_an_outage("openai", openai_script, "m", back_after_s=1.5, reconnect_s=0.3)
    calls = [event for event in events if isinstance(event, Call)]
    assert [call.status for call in calls] == ["ok"] * 4 + ["error"] * 5
    assert "not back after 0.3 s" in str(calls[-1].error)
