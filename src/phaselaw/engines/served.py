"""What every served engine shares: one stream loop, one reply, and the times made of it (method: section 2).

A new served engine is its wire format alone: a `ServedModel` whose ``send`` builds the request and calls `stream` with
a function that reads the server's events, and a `ServedEngine` that asks what a model is (CONTRIBUTING.md has one).
"""

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from phaselaw.engines.http_client import HttpClient, Limits, Line, quoted
from phaselaw.engines.prompts import WORDS, text_of
from phaselaw.errors import EngineError, reading
from phaselaw.records import EngineInfo, ModelInfo, Request, Served, Timing
from phaselaw.servers.caches import Verdict, judge_by_count
from phaselaw.servers.streams import CUT_REASONS, HEAD_TOKENS, settled
from phaselaw.study.model import ModelEntry

NONCE_WORDS = 3
EQUAL_PIECES = 30
"""Ollama ends a reply after about so many pieces of text in a row that are equal but for blanks around."""
TELLING_CHARS = 16
"""So much hidden text, shown once more from its beginning, is no chance."""
DONE = "[DONE]"
_MAX_PARTS = 100
"""Lines of one event: each more has all before it read again."""
Event = Mapping[str, Any]
TimedEvent = tuple[float, Event]
"""An event of a stream, and when its last byte came, in ms since the send."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StreamedReply:
    """A streamed generation, as far as it alone tells; what the server did not say, or what can't be, is ``None``."""

    served: Served
    """When its chunks came, hidden reasoning included, and what the server claims of its times and tokens."""
    output_sha256: str
    done_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """Tokens of the prompt that the server had cached."""
    figures: Mapping[str, float | int | str | None] = dataclasses.field(default_factory=dict)
    """The server's figures as they came, by its own names: kept with the call."""


Read = Callable[[Sequence[Line], int], StreamedReply]
"""Reads a stream's lines; its second argument is when the call was sent, in ns."""


def stream(server: HttpClient, path: str, payload: Event, request: Request, read: Read) -> StreamedReply:
    """One streamed call.

    Lines are read only after the last one came, so that reading takes no time from the clock. Raises `EngineError`.
    """
    gen_tokens = request.gen_tokens
    enough = 1_000 + 8 * gen_tokens
    limits = dataclasses.replace(server.limits, reply_bytes=server.limits.reply_bytes + 4_000 * gen_tokens)
    lines: list[Line] = []
    try:
        with server.open("POST", path, payload, own=limits, before_send=request.before_send) as exchange:
            exchange.raise_for_status()
            for line in exchange.lines():
                lines.append(line)
                if line.data.startswith(b"data:") and line.data[5:].strip() == DONE.encode():
                    break  # some servers keep the connection open after it
                if len(lines) > enough:
                    raise EngineError(f"{exchange.url}: {len(lines)} lines for {gen_tokens} tokens", kind="endless")
    except EngineError as error:
        if error.kind == "connection_lost":
            server.check()
        raise
    with reading(f"{exchange.url}: the reply", partial(EngineError, kind="bad_reply")):
        reply = read(lines, exchange.sent_ns)
    if reply.done_reason in CUT_REASONS and not exchange.framed:
        ended = f"the stream ended after {len(reply.served.arrivals_ms)} chunks, before its end"
        raise EngineError(f"{exchange.url}: {ended}", kind="connection_lost")
    served = dataclasses.replace(reply.served, connect_ms=exchange.connect_ms, sent_at_ms=exchange.sent_ns / 1e6)
    return dataclasses.replace(reply, served=served)


def events_of(
    lines: Iterable[Line], sent_ns: int, *, is_last: Callable[[Event], bool], server_sent: bool
) -> list[TimedEvent]:
    """A stream's events up to its last: server-sent ones, else a JSON object a line. Raises for an error among them.

    The end of server-sent events, ``[DONE]``, is the event ``{DONE: True}``.
    """
    found: list[TimedEvent] = []
    for received_ns, event in _server_sent(lines) if server_sent else _json_lines(lines):
        if error := event.get("error") or (event if event.get("object") == "error" else None):
            message = (error.get("message") or error) if isinstance(error, dict) else error
            raise EngineError(f"the server ended the stream: {quoted(str(message).encode())}", kind="server_error")
        found.append(((received_ns - sent_ns) / 1e6, event))
        if is_last(event):
            break
    return found


def reply_of(
    events: Sequence[TimedEvent],
    text_of_event: Callable[[Event], tuple[str, str]],
    *,
    ended: bool,
    tokens_by: Callable[[Event], object] = lambda _: None,
    claims: Mapping[str, Any],
    **said: Any,
) -> StreamedReply:
    """A reply of a stream's events, each with a hidden and a shown text; ``ended``: its last one came.

    One without its last event was cut by the server where the transfer was whole: `stream` knows that.
    ``tokens_by`` is how many tokens there were by an event, where it says. ``claims`` are fields of `Served`, ``said``
    the reply's other ones. Text that was said hidden and is then shown once more is counted once.
    """
    texts = [(at_ms, event, *text_of_event(event)) for at_ms, event in events]
    hidden_text, shown_text = "".join(each[2] for each in texts), "".join(each[3] for each in texts)
    hidden_once, again = hidden_text.strip(), shown_text.lstrip()
    twice = len(hidden_once) >= TELLING_CHARS and again.startswith(hidden_once)
    left, repeated, thinking = len(shown_text) - len(again) + len(hidden_once) if twice else 0, 0, 0
    arrivals: list[float] = []
    numbers: list[int | None] = []
    lengths: list[int] = []
    digest = hashlib.sha256()
    for at_ms, event, hidden, shown in texts:
        if left > 0 and shown and not hidden:
            left, repeated = left - len(shown), repeated + 1
        elif hidden or shown:
            arrivals.append(at_ms)
            numbers.append(count(tokens_by(event)))
            lengths.append(len(hidden + shown))
            digest.update(f"{hidden}\0{shown}".encode("utf-8", "surrogatepass"))
            thinking += bool(hidden)
    if not ended:
        last_texts = {hidden + shown.strip() for *_, hidden, shown in texts[-EQUAL_PIECES:]}
        guarded = len(texts) >= EQUAL_PIECES and len(last_texts) == 1
        said["done_reason"] = "repetition_guard" if guarded else "cut_by_server"
    wall_ms = events[-1][0] if events else 0.0
    first, last = (numbers[0], numbers[-1]) if numbers else (None, None)
    served = Served(
        sent_at_ms=0.0,
        ttft_ms=arrivals[0] if arrivals else wall_ms,
        e2e_ms=arrivals[-1] if arrivals else wall_ms,
        wall_ms=wall_ms,
        connect_ms=None,
        arrivals_ms=tuple(arrivals),
        decode_step_ms=None,
        decode_step_basis=None,
        tokens_between=last - first if first and last and last > first else None,
        first_text_share=lengths[0] / sum(lengths) if lengths else None,
        events_repeated=repeated,
        thinking_tokens=thinking or None,
        **claims,
    )
    return StreamedReply(**{"served": served, "output_sha256": digest.hexdigest(), **said})


def _json_lines(lines: Iterable[Line]) -> Iterator[tuple[int, Event]]:
    for received_ns, data in lines:
        if data.strip():
            try:
                event = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise EngineError(f"a line of the stream is no JSON: {quoted(data)}", kind="bad_reply") from error
            yield received_ns, mapping(event)


def _server_sent(lines: Iterable[Line]) -> Iterator[tuple[int, Event]]:
    """Each event with the arrival of its last line.

    Seen in the wild and read here: no blank after ``data:``, comments that keep the connection alive, an event over
    several ``data`` lines, none of the blank lines between events, a field or an event ``error``, and streams without
    ``[DONE]``.
    """
    pending, parts, failed = "", 0, False
    for received_ns, data in lines:
        line = data.removeprefix(b"\xef\xbb\xbf")
        field, _, value = line.partition(b":")
        failed = field == b"error" or (b"error" in value if field == b"event" else failed)
        if line.startswith(b"{"):
            raise EngineError(f"the server does not stream: {quoted(line)}", kind="not_streamed")
        if field not in (b"data", b"error"):
            if not line and pending:
                raise EngineError(f"an event is no JSON: {quoted(pending.encode())}", kind="bad_reply")
            if field not in (b"", b"event", b"id", b"retry"):
                raise EngineError(f"a line is no server-sent event: {quoted(line)}", kind="bad_reply")
            continue
        # An event over several lines is complete once it parses.
        pending, parts = (pending + "\n" + value.decode("utf-8", "replace")).strip(), parts + 1
        if parts > _MAX_PARTS:
            raise EngineError(f"an event of more than {_MAX_PARTS} lines", kind="bad_reply")
        if pending == DONE:
            yield received_ns, {DONE: True}
            return
        try:
            event = json.loads(pending) if pending else None
        except (ValueError, RecursionError):
            continue
        pending, parts = "", 0
        if isinstance(event, dict):
            yield received_ns, {"error": event} | event if failed else event
    if pending:
        raise EngineError(f"the stream ended inside an event: {quoted(pending.encode())}", kind="connection_lost")


def timing_of(
    reply: StreamedReply,
    prompt_tokens: int,
    gen_tokens: int,
    verdict: Verdict,
    *,
    server_times: Literal["none", "prefill", "both"],
    most: float = math.inf,
    **seen: Any,
) -> Timing:
    """A reply as a call's times, as far as this call alone tells; raises `EngineError` where no token came.

    ``prompt_tokens`` serves where the server counts none, or more than ``most``. ``server_times`` are the phases that
    its figures serve for. ``seen`` are further fields of `Served`.
    """
    counted = reply.served.tokens_counted
    if not reply.served.arrivals_ms and (server_times == "none" or counted != 1):  # of several no first one is told
        raise EngineError(f"no token came (the server's reason: {reply.done_reason!r})", kind="no_tokens")
    claimed = reply.prompt_tokens if (reply.prompt_tokens or 0) > most else None
    basis = "estimated" if reply.prompt_tokens is None or counted is None or claimed else "server"
    known: dict[str, Any] = {"cache_check": verdict.check, "cache_reason": verdict.reason, "tokens_basis": basis}
    known |= {"prompt_tokens_claimed": claimed}
    served = dataclasses.replace(reply.served, server_times=server_times, **known | seen)
    prompt_tokens = (not claimed and reply.prompt_tokens) or prompt_tokens
    timing = Timing(
        prefill_ms=None,
        kv_decode_ms=None,
        prompt_tokens=prompt_tokens,
        prompt_tokens_total=prompt_tokens,
        gen_tokens_raw=0,
        done_reason=reply.done_reason or "unknown",
        output_sha256=reply.output_sha256,
        server=reply.figures,
        served=served,
    )
    [timing] = settled([timing], gen_tokens, lone=True)
    return timing


def client_timing(reply: StreamedReply, prompt: str, gen_tokens: int, *, head_cached: bool) -> Timing:
    """The times of a call whose server gives no time of its own: all by the client's clock."""
    words = len(prompt.split())
    verdict = Verdict("undecidable", "the server says nothing of its cache; the prompt's first words were new to it")
    if reply.prompt_tokens is not None and reply.cached_tokens is not None:
        verdict = judge_by_count(reply.prompt_tokens, reply.cached_tokens, words)
    most = len(prompt.encode()) + (HEAD_TOKENS if head_cached else HEAD_TOKENS // 8)
    return timing_of(reply, words, gen_tokens, verdict, server_times="none", most=most, head_cached=head_cached)


class ServedModel:
    """One model of a server, timed by the client's clock; no two prompts begin alike, which keeps its cache out."""

    head_cached = False
    """Whether a chat template's head, the same in each prompt, may be cached."""

    def __init__(self, server: HttpClient, backend: Any, name: str, info: ModelInfo) -> None:
        self.info = info
        self.server, self.backend, self.name = server, backend, name
        # Not seeded: a server may remember the prompts of an earlier run.
        self._draw = random.SystemRandom()
        self._sent: set[str] = set()

    def send(self, prompt: str, request: Request) -> StreamedReply:
        """The wire format: `stream` this prompt. Raises `EngineError`."""
        raise NotImplementedError

    def generate(self, request: Request) -> Timing:
        """One call; raises `EngineError`."""
        text = request.prompt
        if text is None:
            text = text_of(max(1, (request.prompt_tokens or 1) - NONCE_WORDS), request.study_seed)
        while (nonce := " ".join(self._draw.sample(WORDS, NONCE_WORDS))) in self._sent:
            pass
        self._sent.add(nonce)
        prompt = f"{nonce} {text}"
        return client_timing(self.send(prompt, request), prompt, request.gen_tokens, head_cached=self.head_cached)

    def close(self) -> None:
        """Nothing to free."""


class ServedEngine:
    """A server with one backend's settings."""

    def __init__(self, backend: Any, server: HttpClient | None) -> None:
        self.backend = backend
        self.server: Any = server
        self.version: str | None = None
        self.models: dict[str, Any] = {}

    def most_loaded(self, _: Sequence[ModelEntry]) -> int | None:
        """One: a server may hold several, but which ones is its own choice; calls are grouped by model."""
        return 1

    def load_new(self, model: ModelEntry) -> Any:
        """A model that was not loaded before. Raises `EngineError`."""
        raise NotImplementedError

    def found(self) -> dict[str, Any]:
        """What was found of the server so far, beside the backend's settings."""
        return {"url": self.server.base_url}

    def describe(self) -> EngineInfo:
        settings: dict[str, Any] = self.backend.model_dump(mode="json", exclude={"name", "kind"})
        settings |= self.found()
        return EngineInfo(kind=self.backend.kind, name=self.backend.name, version=self.version, settings=settings)

    def load(self, model: ModelEntry) -> Any:
        """A model, asked for once, and again after its server was gone. Raises `EngineError`."""
        if self.server.gone:
            self.server.await_return(self.backend.reconnect_s)
            self.models.clear()
        if model.name not in self.models:
            self.models[model.name] = self.load_new(model)
        return self.models[model.name]

    def close(self) -> None:
        self.server.close()


def limits_of(backend: Any) -> Limits:
    return Limits(connect_s=backend.connect_timeout_s, idle_s=backend.idle_timeout_s, total_s=backend.timeout_s)


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object; raises `EngineError` for anything else."""
    if not isinstance(value, dict):
        raise EngineError(f"a JSON object was expected, not {quoted(repr(value).encode())}", kind="bad_reply")
    return value


def count(value: object) -> int | None:
    """A count; ``None`` for what is no such number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def number(value: object, *, below: float = 1e12) -> float | None:
    """A number whose size is below a bound; ``None`` for anything else, not-a-number included."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < below else None


def name_or_none(value: object) -> str | None:
    """A text that is not empty, cut to 200 characters."""
    return value[:200] if isinstance(value, str) and value else None


def counted_by_llama_server(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What llama-server counts of its model, as fields of `ModelInfo`; what is zero or absent is left out."""
    fields = {"n_embd": "n_embd", "vocab_size": "n_vocab", "n_positions": "n_ctx_train", "weights_bytes": "size"}
    counts = {field: value for field, key in fields.items() if (value := count(meta.get(key)))}
    params = count(meta.get("n_params"))
    return {"params_millions_measured": params / 1e6 if params else None, **counts}
