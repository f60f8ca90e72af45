"""Whatever a server does to one call: an error row with a reason, and the study goes on. The same for all three kinds.

A stand-in speaks each protocol, well but for prompts that hold the word FAULT: to these it does the fault under test.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from measured import calls_of
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, chunk, read_request, reply, scripted

from phaselaw.records import Call
from phaselaw.study.model import Study

KINDS = ("llamacpp", "ollama", "openai")
Fault = bytes | Callable[[socket.socket], None]

TOKENS = ("a", "b", "c", "d")
GENERATES = {"llamacpp": "/completion", "ollama": "/api/generate", "openai": "/v1/completions"}
LISTS = {
    "/health": {"status": "ok"},
    "/props": {"default_generation_settings": {"n_ctx": 2048}, "model_alias": "m"},
    "/v1/models": {"data": [{"id": "m", "meta": {"n_params": 5_000_000}}]},
    "/api/version": {"version": "0.33.0"},
    "/api/tags": {"models": [{"name": "m:latest"}]},
    "/api/ps": {"models": []},
    "/api/show": {"model_info": {"general.parameter_count": 5_000_000}, "details": {}, "template": "{{ .Prompt }}"},
}


def events(kind: str, prompt_tokens: int) -> Iterator[bytes]:
    """The lines of a good reply."""
    if kind == "ollama":
        for text in TOKENS:
            yield json.dumps({"response": text, "done": False}).encode()
        final = {"response": "", "done": True, "done_reason": "length", "prompt_eval_count": prompt_tokens,
                 "eval_count": len(TOKENS), "prompt_eval_duration": 5_000_000, "eval_duration": 6_000_000}  # fmt: skip
        yield json.dumps(final).encode()
    elif kind == "openai":
        for text in TOKENS:
            yield b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n"
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(TOKENS), "total_tokens": 99}
        last = {"choices": [{"text": "", "finish_reason": "length"}], "usage": usage}
        yield b"data: " + json.dumps(last).encode() + b"\n"
        yield b"data: [DONE]\n"
    else:
        for text in TOKENS:
            yield b"data: " + json.dumps({"content": text, "tokens": [1], "stop": False}).encode() + b"\n"
        timings = {"prompt_n": prompt_tokens, "prompt_ms": 5.0, "predicted_n": len(TOKENS), "predicted_ms": 6.0}
        last = {"content": "", "stop": True, "tokens_predicted": len(TOKENS), "timings": timings | {"cache_n": 0}}
        yield b"data: " + json.dumps(last).encode() + b"\n"


def server(kind: str, fault: Fault) -> Callable[[socket.socket], None]:
    """A server of a kind that does the fault to every generation whose prompt holds FAULT."""

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            asked: dict[str, Any] = json.loads(body) if body else {}
            if path == "/tokenize":
                ids = [666] if "FAULT" in asked["content"] else [7, 8]
                connection.sendall(reply(json.dumps({"tokens": ids}).encode()))
            elif path != GENERATES[kind]:
                connection.sendall(reply(json.dumps(LISTS[path]).encode()))
            elif not asked.get("prompt"):
                connection.sendall(reply(b'{"response": "", "done": true, "done_reason": "load"}'))
            elif asked["prompt"] == [666] or "FAULT" in str(asked["prompt"]):
                fault(connection) if callable(fault) else connection.sendall(fault)
                return
            else:
                prompt = asked["prompt"]
                connection.sendall(CHUNKED_HEAD)
                for line in events(kind, len(prompt.split() if isinstance(prompt, str) else prompt)):
                    connection.sendall(chunk(line + b"\n"))
                    time.sleep(0.001)
                connection.sendall(LAST_CHUNK)

    return script


def study(kind: str, url: str, *, beside: bool = False) -> Study:
    """Three scenarios, the fault in the middle one; ``beside``: and a simulated backend after it."""
    served = {"name": "served", "kind": kind, "url": url if kind != "openai" else f"{url}/v1",
              "idle_timeout_s": 0.5, "timeout_s": 3.0}  # fmt: skip
    other = [{"name": "other", "kind": "simulated"}] if beside else []
    return Study.model_validate({
        "run_name": "faults", "gen_tokens": len(TOKENS), "repetitions": 1, "warmup_repetitions": 0,
        "scenarios": [{"name": name, "prompt": f"{name} of it"} for name in ("before", "FAULT", "after")],
        "backends": [served, *other],
        "models": [{"name": "m", "kind": each["kind"]} for each in (served, *other)],
    })  # fmt: skip


def hang(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(3)
        connection.recv(1)


def cut_mid_stream(connection: socket.socket) -> None:
    connection.sendall(CHUNKED_HEAD + chunk(b'{"response": "a", "done": false}\n'))


def hundred_megabytes(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b"x" * 100_000)


def hundred_megabytes_of_lines(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    for _ in range(1000):
        connection.sendall((b": " + b"x" * 49_997 + b"\n") * 2)


def endless(connection: socket.socket) -> None:
    connection.sendall(CHUNKED_HEAD)
    lines = b'data: {"choices": [{"text": "x"}], "content": "x", "response": "x"}\n\n'
    while True:
        connection.sendall(chunk(lines * 50))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def redirect_loop(kind: str) -> bytes:
    return reply(b"", status="307 Temporary Redirect", headers=f"Location: {GENERATES[kind]}\r\n")


FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "404": (reply(b'{"error": "model \'m\' not found"}', status="404 Not Found"), {"http_404", "missing_model"}),
    "500": (reply(b'{"error": "out of memory"}', status="500 Oops"), {"http_500"}),
    "429": (reply(b"{}", status="429 Too Many", headers="Retry-After: 7\r\n"), {"http_429"}),
    "hang": (hang, {"timeout"}),
    "cut mid-stream": (cut_mid_stream, {"connection_lost", "bad_reply"}),
    "dies without a word": (reset, {"connection_lost"}),
    "invalid JSON": (CHUNKED_HEAD + chunk(b"data: {nope\n\n") + LAST_CHUNK, {"bad_reply"}),
    "garbage": (b"\x00\xff\x16garbage\r\n\r\n", {"bad_reply"}),
    "garbage in a stream": (CHUNKED_HEAD + chunk(bytes(range(256)) * 8) + LAST_CHUNK, {"bad_reply", "connection_lost"}),
    "100 MB in one line": (hundred_megabytes, {"too_large"}),
    "100 MB in lines": (hundred_megabytes_of_lines, {"too_large", "endless", "bad_reply"}),
    "endless": (endless, {"endless", "bad_reply", "too_large"}),
}


def outcomes(calls: list[Call]) -> dict[str, Call]:
    return {call.cell.scenario: call for call in calls if call.cell.backend == "served"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "reasons"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_an_error_row_with_a_reason_and_the_study_goes_on(
    kind: str, fault: Fault, reasons: set[str]
) -> None:
    with scripted(server(kind, fault)) as url:
        called = outcomes(calls_of(study(kind, url)))
    assert {name: call.status for name, call in called.items()} == {"before": "ok", "FAULT": "error", "after": "ok"}, {
        name: call.error for name, call in called.items()
    }
    error = called["FAULT"].error
    assert error is not None and error.partition(":")[0] in reasons, error
    assert error.isprintable() and len(error) < 600
    if "http_429" in reasons:
        assert "Retry-After: 7" in error


@pytest.mark.parametrize("kind", KINDS)
def test_a_redirect_loop_is_an_error_row_and_the_study_goes_on(kind: str) -> None:
    with scripted(server(kind, redirect_loop(kind))) as url:
        called = outcomes(calls_of(study(kind, url)))
    assert [called[name].status for name in ("before", "FAULT", "after")] == ["ok", "error", "ok"]
    assert str(called["FAULT"].error).startswith("redirects: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_refuses_every_connection_leaves_error_rows_and_the_other_backend_is_measured(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    calls = calls_of(study(kind, f"http://127.0.0.1:{port}", beside=True))
    assert {(call.cell.backend, call.status) for call in calls} == {("served", "error"), ("other", "ok")}
    assert len(calls) == 6
    assert {str(call.error).partition(":")[0] for call in calls if call.status == "error"} == {"refused"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tls_error_leaves_error_rows_and_the_other_backend_is_measured(kind: str) -> None:
    with scripted(lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as url:
        calls = calls_of(study(kind, url.replace("http:", "https:"), beside=True))
    assert {(call.cell.backend, call.status) for call in calls} == {("served", "error"), ("other", "ok")}
    assert {str(call.error).partition(":")[0] for call in calls if call.status == "error"} == {"tls"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_goes_away_midway_leaves_error_rows_for_the_rest(kind: str) -> None:
    answered = 0
    alive = server(kind, b"")

    def dies(connection: socket.socket) -> None:
        nonlocal answered
        answered += 1
        # Enough for loading, and for Ollama's probe; then every connection is closed at once.
        if answered <= (20 if kind == "ollama" else 12):
            alive(connection)

    with scripted(dies) as url:
        asked = study(kind, url, beside=True)
        many = asked.model_copy(update={"repetitions": 12, "scenarios": asked.scenarios[:1]})
        calls = calls_of(many)
    states = [call.status for call in calls if call.cell.backend == "served"]
    assert states == sorted(states, reverse=True), "ok first, then errors"
    assert set(states) == {"ok", "error"}
    assert all(call.status == "ok" for call in calls if call.cell.backend == "other")
