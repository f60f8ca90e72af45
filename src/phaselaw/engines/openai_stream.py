"""What the events of an OpenAI-compatible stream say (server-sent events), with the oddities of the servers there are.

Seen in the wild and read here: CRLF, no blank after ``data:``, comments that keep the connection alive, an event over
several ``data`` lines, a role-only or empty first chunk, usage of zeros on every chunk and the true one last, a chunk
without choices, several tokens in one chunk, hidden reasoning under two names, and streams without ``[DONE]``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from phaselaw.engines.http_client import Line, quoted
from phaselaw.errors import EngineError

DONE = "[DONE]"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A streamed completion: when its chunks came, in ms since the send, and what the server counted."""

    arrivals_ms: tuple[float, ...]
    """Of the chunks that hold text, hidden reasoning included."""
    wall_ms: float
    thinking_chunks: int
    finish_reason: str | None
    output_sha256: str
    usage: Mapping[str, Any]
    """The server's counts; empty where it gave none."""
    timings: Mapping[str, Any]
    """llama-server's own times; empty elsewhere."""
    sent_at_ms: float = 0.0
    """When it was sent, by the process's monotonic clock."""
    connect_ms: float | None = None
    """Set-up of its connection, before the send."""

    def count(self, field: str) -> int | None:
        """A count of the usage; ``None`` where it is absent."""
        return _count(self.usage.get(field))

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that the server says it had cached; ``None`` where it says nothing."""
        details = self.usage.get("prompt_tokens_details")
        counted = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
        return _count(self.timings.get("cache_n")) if counted is None else counted

    @property
    def decode_ms(self) -> float | None:
        """The decode time that llama-server claims; ``None`` elsewhere."""
        value = self.timings.get("predicted_ms")
        return float(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else None


def read_stream(lines: Iterable[Line], sent_ns: int) -> Reply:
    """What the lines of a stream say; raises `EngineError` for an error told mid-stream or a stream without its end."""
    arrivals: list[float] = []
    text = hashlib.sha256()
    finish: str | None = None
    usage: Mapping[str, Any] = {}
    timings: Mapping[str, Any] = {}
    thinking, wall_ms, ended = 0, 0.0, False
    for received_ns, event in _events(lines):
        wall_ms = (received_ns - sent_ns) / 1e6
        if event is None:
            ended = True
            break
        _raise_if_error(event)
        hidden, shown, reason = _chunk(event)
        if hidden or shown:
            arrivals.append(wall_ms)
            text.update(f"{hidden}\0{shown}".encode("utf-8", "surrogatepass"))
            thinking += bool(hidden)
        finish = reason or finish
        if isinstance(event.get("usage"), dict) and _count(event["usage"].get("total_tokens")) != 0:
            usage = event["usage"]
        if isinstance(event.get("timings"), dict):
            timings = event["timings"]
    if not ended and finish is None:
        raise EngineError(f"the stream ended after {len(arrivals)} chunks, before its end", kind="connection_lost")
    return Reply(
        arrivals_ms=tuple(arrivals),
        wall_ms=wall_ms,
        thinking_chunks=thinking,
        finish_reason=finish,
        output_sha256=text.hexdigest(),
        usage=usage,
        timings=timings,
    )


def is_last(line: bytes) -> bool:
    """Whether a line is the ``[DONE]`` after which nothing more is waited for."""
    return line.startswith(b"data:") and line[5:].strip() == DONE.encode()


def _events(lines: Iterable[Line]) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """Each event with the arrival of its last line; ``None`` for ``[DONE]``."""
    pending = ""
    for received_ns, data in lines:
        line = data.removeprefix(b"\xef\xbb\xbf")
        if not line.startswith(b"data:"):
            if not line and pending:
                raise EngineError(f"an event is no JSON: {quoted(pending.encode())}", kind="bad_reply")
            if line and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                raise EngineError(f"a line is no server-sent event: {quoted(line)}", kind="bad_reply")
            continue
        # An event over several lines is whole once it parses; some servers forget the blank line between two.
        pending = (pending + "\n" + line[5:].decode("utf-8", "replace")).strip()
        if pending == DONE:
            yield received_ns, None
            return
        try:
            event = json.loads(pending) if pending else None
        except (ValueError, RecursionError):
            continue
        pending = ""
        if isinstance(event, dict):
            yield received_ns, event
    if pending:
        raise EngineError(f"the stream ended inside an event: {quoted(pending.encode())}", kind="connection_lost")


def _chunk(event: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Hidden text, shown text and the finish reason of an event; empty where it has no choice."""
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        delta = {}
    hidden = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
    calls = json.dumps(delta["tool_calls"]) if delta.get("tool_calls") else ""
    shown = _text(choice.get("text")) or _text(delta.get("content")) or _text(delta.get("refusal")) or calls
    reason = choice.get("finish_reason")
    return hidden, shown, reason if isinstance(reason, str) and reason else None


def _raise_if_error(event: Mapping[str, Any]) -> None:
    error = event.get("error") or (event if event.get("object") == "error" else None)
    if not error:
        return
    message = error.get("message") if isinstance(error, dict) else error
    raise EngineError(f"the server ended the stream: {quoted(str(message).encode())}", kind="server_error")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
