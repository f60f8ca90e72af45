"""A stand-in for an Ollama server: it replays our recordings of real ones, at their pace or faster. It runs no model.

What it adds to the recordings is which one to replay: it knows what is loaded, remembers the prompts it has seen since
a load (as recent servers do), and cuts a recorded reply to ``num_predict`` tokens. Durations are divided by ``speed``,
like the pace, so that what a server claims and what a client sees agree as they did.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from recordings import GEMMA3, SMOLLM2, Exchange, recorded
from scripted_server import CHUNKED_HEAD, LAST_CHUNK, chunk, read_request, reply, scripted

LONG_WORDS = 400


class OllamaStandIn:
    """The state of one server; ``requests`` keeps what was asked of ``/api/generate``."""

    def __init__(self, version: str, *, speed: float = 100.0, remembers_everything: bool = False) -> None:
        self._recorded, self._speed, self._remembers_everything = recorded(version), speed, remembers_everything
        self.requests: list[dict[str, Any]] = []
        self.loaded: set[str] = set()
        self.lists_fail = False
        self._seen: dict[str, set[str]] = {SMOLLM2: set(), GEMMA3: set()}

    def __call__(self, connection: socket.socket) -> None:
        """Answer the requests of one connection."""
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path == "/api/generate":
                self._generate(connection, json.loads(body))
            else:
                connection.sendall(self._answer(path, json.loads(body) if body else {}))

    def _answer(self, path: str, asked: dict[str, Any]) -> bytes:
        if path == "/api/ps":
            entries = [
                json.loads(self._recorded[f"ps, {model} loaded"].lines[0][1])["models"][0]
                for model in sorted(self.loaded)
            ]
            return reply(json.dumps({"models": entries}).encode())
        if path == "/":
            return reply(b"Ollama is running")
        if path == "/api/tags" and self.lists_fail:
            return reply(b"no route", status="502 Bad Gateway")
        label = {"/api/version": "version", "/api/tags": "tags"}.get(path)
        if path == "/api/show":
            model = asked["model"]
            label = f"show {model}" if model in self._seen else "missing model, show"
        found = self._recorded[label or "unknown path"]
        return reply(found.lines[0][1].encode(), status=f"{found.status} As-Recorded")

    def _generate(self, connection: socket.socket, asked: dict[str, Any]) -> None:
        self.requests.append(asked)
        model, prompt = asked["model"], asked.get("prompt")
        if model not in self._seen:
            missing = self._recorded["missing model, generate"]
            connection.sendall(reply(missing.lines[0][1].encode(), status="404 Not Found"))
        elif not prompt:
            unloads = asked.get("keep_alive") == 0
            (self.loaded.discard if unloads else self.loaded.add)(model)
            if unloads:
                self._seen[model].clear()
            said = {"model": model, "response": "", "done": True, "done_reason": "unload" if unloads else "load"}
            connection.sendall(reply(json.dumps(said).encode()))
        else:
            found = self._recorded[f"{self._label(model, prompt)}, {model}"]
            self.loaded.add(model)
            self._seen[model].add(prompt)
            self._replay(connection, found, asked["options"]["num_predict"], len(prompt.split()))

    def _label(self, model: str, prompt: str) -> str:
        seen = prompt in self._seen[model] or (self._remembers_everything and bool(self._seen[model]))
        if len(prompt.split()) > LONG_WORDS:
            return "long prompt again (prompt cache), raw" if seen else "long prompt 400 words, raw"
        if model not in self.loaded:
            return "cold, short, 64"
        return "same prompt again (prompt cache)" if seen else "warm, medium, 64"

    def _replay(self, connection: socket.socket, found: Exchange, num_predict: int, words: int) -> None:
        *chunks, (end_ms, end) = found.lines
        final = json.loads(end)
        final["prompt_eval_count"] = max(final["prompt_eval_count"], words)
        if num_predict < len(chunks):
            final["eval_duration"] *= (num_predict - 1) / (final["eval_count"] - 1)
            final |= {"eval_count": num_predict, "done_reason": "length"}
            chunks, end_ms = chunks[:num_predict], chunks[num_predict - 1][0]
        scaled = {key: value / self._speed if key.endswith("duration") else value for key, value in final.items()}
        started = time.perf_counter()
        head = CHUNKED_HEAD
        for at_ms, line in [*chunks, (end_ms, json.dumps(scaled))]:
            time.sleep(max(0.0, started + at_ms / 1e3 / self._speed - time.perf_counter()))
            connection.sendall(head + chunk(line.encode() + b"\n"))
            head = b""
        connection.sendall(LAST_CHUNK)


@contextlib.contextmanager
def standing_in(server: OllamaStandIn) -> Iterator[str]:
    """The stand-in on a free loopback port; gives its address."""
    with scripted(server) as url:
        yield url
