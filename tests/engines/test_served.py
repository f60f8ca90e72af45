"""What every served engine shares; the engine that CONTRIBUTING.md shows runs as it stands there."""

import json
import re
import socket
import types
from pathlib import Path

import pytest
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, chunk, read_request, reply, scripted

from phaselaw.engines.http_client import HttpClient
from phaselaw.errors import EngineError
from phaselaw.records import ModelInfo, Request
from phaselaw.study.model import ModelEntry, ServedBackend

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


class TgiBackend(ServedBackend):
    kind: str = "tgi"
    url: str


@pytest.fixture(scope="module")
def tgi() -> types.ModuleType:
    [text] = re.findall(r'```python\n("""The engine ``tgi``.*?)```', CONTRIBUTING.read_text(), re.DOTALL)
    assert text.count("\n") <= 150
    module = types.ModuleType("tgi")
    exec(compile(text, str(CONTRIBUTING), "exec"), module.__dict__)
    return module


def server(connection: socket.socket, *, ends: bool = True) -> None:
    while request := read_request(connection):
        if request.startswith(b"GET /info "):
            connection.sendall(reply(b'{"model_id": "m", "version": "3.0"}'))
            continue
        asked = json.loads(request.partition(b"\r\n\r\n")[2])
        budget = asked["parameters"]["max_new_tokens"]
        details = {"finish_reason": "length", "generated_tokens": budget}
        connection.sendall(CHUNKED_HEAD)
        for number in range(budget):
            said = {"token": {"text": f" {number}"}, "details": details if ends and number == budget - 1 else None}
            connection.sendall(chunk(b"data:" + json.dumps(said).encode() + b"\n\n"))
        connection.sendall(LAST_CHUNK)


def ask(**changes: int) -> Request:
    given = {"gen_tokens": 8, "batch_size": 1, "study_seed": 42, "seed": 1, "round": 0} | changes
    return Request(prompt="Why is the sky blue?", prompt_tokens=None, **given)


def test_the_example_engine_measures_a_call_by_the_clients_clock(tgi: types.ModuleType) -> None:
    with scripted(server) as url:
        engine = tgi.create(TgiBackend(name="t", url=url))
        timing = engine.load(ModelEntry(name="m", kind="openai")).generate(ask())
        assert (engine.describe().kind, engine.describe().version) == ("tgi", "3.0")
        engine.close()
    assert (timing.gen_tokens_raw, timing.done_reason, timing.served.prefill_basis) == (8, "length", "ttft")
    assert len(timing.served.arrivals_ms) == 8 and timing.prefill_ms == timing.served.ttft_ms > 0
    assert (timing.served.cache_check, timing.served.tokens_basis) == ("undecidable", "estimated")


def test_the_example_engine_says_what_is_lacking(tgi: types.ModuleType) -> None:
    with scripted(server) as url:
        backend = TgiBackend(name="t", url=url)
        assert tgi.lacking(backend, [ModelEntry(name="m", kind="openai")]) == []
        assert tgi.lacking(backend, [ModelEntry(name="x", kind="openai")]) == ["model x: the server holds m; name that"]
    [line] = tgi.lacking(backend, ())
    assert "refused" in line


def test_a_reply_without_its_last_event_is_an_early_stop_where_the_transfer_was_whole(tgi: types.ModuleType) -> None:
    with scripted(lambda connection: server(connection, ends=False)) as url:
        timing = tgi.create(TgiBackend(name="t", url=url)).load(ModelEntry(name="m", kind="openai")).generate(ask())
    assert (timing.done_reason, timing.gen_tokens_raw) == ("cut_by_server", 8)


def test_a_reply_that_ends_with_its_connection_is_a_lost_connection(tgi: types.ModuleType) -> None:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        event = b'data:{"token": {"text": "a"}}\n\n'
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + 8 * event)

    with scripted(script) as url:
        model = tgi.TgiModel(HttpClient(url), None, "m", ModelInfo(params_millions_measured=None))
        with pytest.raises(EngineError, match="ended after 8 chunks") as caught:
            model.generate(ask())
    assert caught.value.kind == "connection_lost"
