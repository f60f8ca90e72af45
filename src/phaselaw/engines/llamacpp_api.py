"""llama-server's own HTTP API: what is asked, and what a stream's events say (tools/server/README.md of llama.cpp)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from phaselaw.engines.http_client import HttpClient, Limits, Line, quoted
from phaselaw.errors import EngineError

GREEDY = {"temperature": 0, "top_k": 1, "samplers": ["top_k"]}
"""The likeliest token, found by the cheapest chain: nothing else is computed over the vocabulary."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A streamed completion: when its tokens came, in ms since the send, and its last event."""

    arrivals_ms: tuple[float, ...]
    wall_ms: float
    output_sha256: str
    """Of the token ids as 64-bit integers where the stream had them all, else of the text."""
    final: Mapping[str, Any]
    sent_at_ms: float = 0.0
    """When it was sent, by the process's monotonic clock."""
    connect_ms: float | None = None
    """Set-up of its connection, before the send."""

    def timing(self, field: str) -> float | None:
        """A figure of the server's ``timings``; ``None`` where it is absent."""
        value = _mapping(self.final.get("timings") or {}).get(field)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def count(self, field: str) -> int | None:
        """A count of the server's ``timings``; ``None`` where it is absent."""
        value = self.timing(field)
        return None if value is None else int(value)


class LlamacppApi:
    """The calls of one server that measuring needs. All raise `EngineError`."""

    def __init__(self, url: str, *, limits: Limits, ca_file: str | None = None) -> None:
        self._http = HttpClient(url, limits=limits, ca_file=ca_file)
        self._limits = limits

    @property
    def url(self) -> str:
        """The server's address."""
        return self._http.base_url

    def health(self) -> None:
        """Return where the server is ready; error ``http_503`` while it loads."""
        self._http.json("GET", "/health")

    def props(self) -> Mapping[str, Any]:
        """The server's properties: build, model, context."""
        props = _mapping(self._http.json("GET", "/props"))
        if "default_generation_settings" not in props:
            raise EngineError(f"{self.url}: what answers there is no llama-server", kind="bad_reply")
        return props

    def model_meta(self) -> Mapping[str, Any]:
        """What the server counted of its model: parameters, vocabulary, bytes; empty on servers that don't say."""
        models = _mapping(self._http.json("GET", "/v1/models")).get("data")
        entry = models[0] if isinstance(models, list) and models else {}
        return _mapping(_mapping(entry).get("meta") or {})

    def tokenize(self, text: str, *, with_special: bool) -> list[int]:
        """The ids of a text; ``with_special`` reads the names of control tokens as these, as a template has them."""
        asked = {"content": text, "add_special": True, "parse_special": with_special}
        tokens = _mapping(self._http.json("POST", "/tokenize", asked)).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise EngineError(f"{self.url}: /tokenize gave no token ids", kind="bad_reply")
        return tokens

    def apply_template(self, text: str) -> str:
        """The model's chat template around a user's message."""
        asked = {"messages": [{"role": "user", "content": text}]}
        prompt = _mapping(self._http.json("POST", "/apply-template", asked)).get("prompt")
        if not isinstance(prompt, str):
            raise EngineError(f"{self.url}: /apply-template gave no prompt", kind="bad_reply")
        return prompt

    def complete(
        self,
        prompt: Sequence[int],
        gen_tokens: int,
        *,
        ignore_eos: bool,
        before_send: Callable[[], object] | None = None,
    ) -> Reply:
        """One streamed, greedy completion on a new connection that the server's prompt cache must not answer.

        ``before_send`` is called between connecting and sending.
        """
        asked = {
            **GREEDY, "prompt": list(prompt), "n_predict": gen_tokens, "cache_prompt": False, "ignore_eos": ignore_eos,
            "stream": True, "return_tokens": True,
        }  # fmt: skip
        enough = 1_000 + 4 * gen_tokens
        limits = dataclasses.replace(self._limits, reply_bytes=self._limits.reply_bytes + 4_000 * gen_tokens)
        lines: list[Line] = []
        with self._http.open(
            "POST", "/completion", asked, limits=limits, fresh=True, before_send=before_send
        ) as exchange:
            exchange.raise_for_status()
            for line in exchange.lines():
                lines.append(line)
                if len(lines) > enough:
                    raise EngineError(f"{exchange.url}: {len(lines)} lines for {gen_tokens} tokens", kind="endless")
        return dataclasses.replace(
            read_stream(lines, exchange.sent_ns), connect_ms=exchange.connect_ms, sent_at_ms=exchange.sent_ns / 1e6
        )

    def close(self) -> None:
        """Close the kept connections."""
        self._http.close()


def read_stream(lines: Iterable[Line], sent_ns: int) -> Reply:
    """What a stream's events say; raises `EngineError` for an error told mid-stream or a stream without its end."""
    arrivals: list[float] = []
    ids: list[int] = []
    text = ""
    for line in lines:
        field, _, value = line.data.partition(b":")
        if field not in (b"data", b"error") or value.strip() in (b"", b"[DONE]"):
            continue  # blank lines and comments
        said = _event(value)
        told = said if field == b"error" else said.get("error")
        if told:
            raise EngineError(f"the server ended the stream: {quoted(str(told).encode())}", kind="server_error")
        at_ms = (line.received_ns - sent_ns) / 1e6
        if said.get("content") or said.get("tokens"):
            arrivals.append(at_ms)
            text += str(said.get("content") or "")
            ids += [token for token in said.get("tokens") or () if isinstance(token, int)]
        if said.get("stop"):
            whole = len(ids) == said.get("tokens_predicted")
            raw = b"".join(struct.pack("<q", token) for token in ids) if whole else text.encode(errors="replace")
            digest = hashlib.sha256(raw)
            return Reply(arrivals_ms=tuple(arrivals), wall_ms=at_ms, output_sha256=digest.hexdigest(), final=said)
    raise EngineError("the stream ended without its last event", kind="connection_lost")


def _event(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise EngineError(f"an event of the stream is no JSON: {quoted(data)}", kind="bad_reply") from error


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EngineError(f"a JSON object was expected, not {quoted(repr(value).encode())}", kind="bad_reply")
    return value
