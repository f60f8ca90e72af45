"""The engine ``openai``: any server that speaks OpenAI's protocol, by the client's clock (method: section 2).

TTFT stands for prefill, since no server-side time is part of the protocol; a decode step is taken from the arrivals.
A server's prompt cache is kept out by first words that no call shares, and it is asked to have none.
A key never reaches a message: whatever a server answers is shown with the key cut out.
"""

import dataclasses
import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from phaselaw.engines import Doubt, permits, served
from phaselaw.engines.http_client import QUICK, HttpClient, Limits, Line
from phaselaw.engines.served import Event, ServedEngine, ServedModel, StreamedReply
from phaselaw.errors import HIDDEN, SHORTEST_SECRET, EngineError, NotReadyError
from phaselaw.records import ModelInfo, Request, Timing
from phaselaw.study.model import ModelEntry, OpenaiBackend

PATHS = {"completions": "completions", "chat": "chat/completions"}
WISHES = ("ignore_eos", "min_tokens", "cache_prompt", "cache_salt")
"""Keys that some servers know and others refuse: left away where they are refused."""
OPTIONAL = (*WISHES, "stream_options", "seed", "top_p", "temperature")
RENAMED = {"max_tokens": "max_completion_tokens"}
TURNED_AWAY = frozenset({"refused", "http_429", "http_502", "http_503", "http_504"})
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
SHOWN = ("text", "content", "refusal", "tool_calls", "function_call")
"""Where a stream's events hold their text, by the names that servers give it."""
LONGEST_WAIT_S = 60.0
TRIED = Request(prompt="Hello", prompt_tokens=None, gen_tokens=2, batch_size=1, study_seed=0, seed=0, round=None)
"""The call by which it is found out what a server refuses."""
NOTHING_THERE = frozenset({"refused", "unreachable", "timeout", "tls", "bad_url"})
"""What a server that runs is not answered with."""


def create(backend: OpenaiBackend) -> "OpenaiEngine":
    """An engine with a backend's settings; `NotReadyError` where no address is known."""
    return OpenaiEngine(backend, _server(backend, served.limits_of(backend)))


def lacking(backend: OpenaiBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server answers, and which models it does not have."""
    try:
        with closing(_server(backend, QUICK)) as server:
            there = server.models()
    except NotReadyError as error:
        return [str(error)]
    except EngineError as error:
        hint = key_hint(error, backend.url or os.environ.get(permits.DEFAULT_ADDRESS, ""), backend.api_key_env)
        if error.kind in NOTHING_THERE:
            return [f"backend {backend.name}: {error}{hint}; start the server, or correct its url"]
        return [Doubt(f"backend {backend.name}: its list of models can't be read, so its calls decide: {error}{hint}")]
    return [
        f"model {model.name}: not on {server.base_url}; name one that it has: {', '.join(list(there)[:5])}"
        for model in models
        if there and model.name not in there
    ]


def key_hint(error: EngineError, url: str, variable: str = permits.DEFAULT_KEY) -> str:
    """What to do where a server refused for want of a key; else nothing."""
    if error.kind not in ("http_401", "http_403"):
        return ""
    return "; no key is sent over plain http: use https" if permits.is_in_the_clear(url) else f"; set {variable}"


def _server(backend: OpenaiBackend, limits: Limits) -> "OpenaiServer":
    url = backend.url or os.environ.get(permits.DEFAULT_ADDRESS, "").strip()
    if not url:
        raise NotReadyError(f"backend {backend.name}: no address; give its url, or set {permits.DEFAULT_ADDRESS}")
    key = permits.key_for(url, backend.api_key_env)
    return OpenaiServer(url, key=key, limits=limits, ca_file=backend.ca_file)


class OpenaiServer(HttpClient):
    """One server, and what has been learnt of what it refuses."""

    def __init__(self, url: str, *, key: str | None, limits: Limits, ca_file: str | None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        base = url if re.match("[A-Za-z]+://[^/]+/+[^/]", url) else f"{url.rstrip('/')}/v1"
        super().__init__(base, headers=headers, limits=limits, ca_file=ca_file)
        self._key = key
        self.refused: set[str] = set()
        """The keys that this server was found to refuse."""

    def models(self) -> dict[str, Mapping[str, Any]]:
        """The server's models by id. Raises `EngineError`."""
        with self._hiding_the_key():
            answer = self.json("GET", "models")
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise EngineError(f"{self.base_url}: what answers there does not speak OpenAI's protocol", kind="bad_reply")
        return {str(entry.get("id")): entry for entry in entries if isinstance(entry, dict)}

    def negotiate(self, path: str, asked: Event, wait_s: float) -> None:
        """Find out, by calls that are not measured, which keys of what is asked this server refuses.

        A refused key is one that the server's answer names; one that names none costs it all of `WISHES`. A server that
        turns a call away, since it loads or has too much to do, is asked again for ``wait_s``.
        """
        until = time.monotonic() + wait_s
        for tries in itertools.count():
            try:
                self.complete(path, asked, TRIED)
                return
            except EngineError as error:
                if error.kind in TURNED_AWAY and error.kind != "refused":
                    pause = pause_s(error, min(tries, 2))
                    if time.monotonic() + pause > until or self.closed.wait(pause):
                        raise
                    continue
                sent = self._accepted(asked)
                named = {key for key in (*OPTIONAL, *RENAMED) if key in sent and key in str(error)}
                unnamed = {key for key in WISHES if key in sent}
                if error.kind not in ("http_400", "http_422") or not (named or unnamed):
                    raise
                self.refused |= named or unnamed

    def complete(self, path: str, asked: Event, request: Request) -> StreamedReply:
        with self._hiding_the_key():
            return served.stream(self, path, self._accepted(asked), request, read_stream)

    def _accepted(self, asked: Event) -> dict[str, Any]:
        refused = {key: RENAMED.get(key) for key in self.refused}
        return {name: value for key, value in asked.items() if (name := refused.get(key, key)) is not None}

    @contextmanager
    def _hiding_the_key(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            text, key = str(error), self._key or ""
            for end in range(len(key), max(0, min(len(key), SHORTEST_SECRET) - 1), -1):  # it may have been cut short
                text = text.replace(key[:end], HIDDEN)
            raise type(error)(text, kind=error.kind) from None


class OpenaiEngine(ServedEngine):
    """One server with a backend's settings; they are described without the key."""

    server: OpenaiServer

    def found(self) -> dict[str, Any]:
        return super().found() | {"refused_keys": sorted(self.server.refused)}

    def load_new(self, model: ModelEntry) -> "OpenaiModel":
        """Ask for the model, and by a short call that is not measured what the server refuses."""
        loaded = OpenaiModel(self.server, self.backend, model.name, ModelInfo(params_millions_measured=None))
        self.server.negotiate(loaded.path, loaded.asked("Hello", TRIED), self.backend.reconnect_s)
        with suppress(EngineError):  # a list that fails says nothing
            meta = self.server.models().get(model.name, {}).get("meta")  # llama-server's
            loaded.info = ModelInfo(**served.counted_by_llama_server(meta if isinstance(meta, dict) else {}))
        return loaded


class OpenaiModel(ServedModel):
    """One model of a server."""

    server: OpenaiServer

    def __init__(self, server: OpenaiServer, backend: OpenaiBackend, name: str, info: ModelInfo) -> None:
        super().__init__(server, backend, name, info)
        self.path = PATHS[backend.api]
        self.head_cached = backend.api == "chat"

    def send(self, prompt: str, request: Request) -> StreamedReply:
        return self.server.complete(self.path, self.asked(prompt, request), request)

    def generate(self, request: Request) -> Timing:
        """One call; raises `EngineError`, also for one that succeeded only when tried again."""
        for tries in itertools.count():
            try:
                timing = super().generate(request)
                break
            except EngineError as error:
                closed = self.server.closed
                if error.kind not in TURNED_AWAY or tries == self.backend.retries or closed.wait(pause_s(error, tries)):
                    raise
                before, request = error, dataclasses.replace(request, before_send=None)
        if tries:
            raise EngineError(f"answered at try {tries + 1}, no measurement; before: {before}", kind="retried")
        return timing

    def asked(self, prompt: str, request: Request) -> dict[str, Any]:
        """What the server is asked, before it was found what it refuses."""
        chat = self.backend.api == "chat"
        asked: dict[str, Any] = {
            "model": self.name,
            **({"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}),
            "max_tokens": request.gen_tokens,
            "temperature": 0,
            "top_p": 1,
            "seed": request.study_seed % 2**31,
            "cache_prompt": False,
            "cache_salt": prompt[:60],
        }
        if self.backend.ignore_eos:
            asked |= {"ignore_eos": True, "min_tokens": request.gen_tokens}
        asked |= self.backend.extra
        return asked | {"stream": True, "stream_options": {"include_usage": True}}


def pause_s(error: EngineError, tries: int) -> float:
    """As long as a server that turned a call away asks for, else longer with each try; at most a minute."""
    asked = re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", str(error).partition("Retry-After: ")[2].partition(")")[0])
    return min(float(asked[0]) if asked else 0.5 * 2**tries, LONGEST_WAIT_S)


def read_stream(lines: Sequence[Line], sent_ns: int) -> StreamedReply:
    """What a stream's lines say; raises `EngineError` for an error in mid-stream or a stream without its end.

    Seen in the wild: a role-only or empty first chunk, usage of zeros on every chunk and the true one last, a chunk
    without choices, several tokens in one chunk, hidden reasoning under two names, and streams without ``[DONE]``.
    """
    events = served.events_of(lines, sent_ns, is_last=lambda event: served.DONE in event, server_sent=True)
    finish: str | None = None
    usage: dict[str, Any] = {}
    timings: dict[str, Any] = {}  # llama-server's own times
    model: str | None = None  # the name of what answered
    for _, event in events:
        model = served.name_or_none(event.get("model")) or model
        finish = served.name_or_none(_choice(event).get("finish_reason")) or finish
        if isinstance(event.get("usage"), dict) and served.count(event["usage"].get("total_tokens")) != 0:
            usage = event["usage"]
        if isinstance(event.get("timings"), dict):
            timings = event["timings"]
    cached, unseen = (
        served.count(details.get(name)) if isinstance(details := usage.get(f"{part}_tokens_details"), dict) else None
        for part, name in (("prompt", "cached_tokens"), ("completion", "reasoning_tokens"))
    )
    return served.reply_of(
        events,
        _texts,
        ended=finish is not None or bool(events and served.DONE in events[-1][1]),
        tokens_by=lambda event: (event.get("usage") or {}).get("completion_tokens"),
        done_reason=finish,
        prompt_tokens=served.count(usage.get("prompt_tokens")) or None,
        cached_tokens=served.count(timings.get("cache_n")) if cached is None else cached,
        claims={
            "tokens_counted": served.count(usage.get("completion_tokens")) or None,
            "tokens_unseen": served.count(usage.get("reasoning_tokens")) if unseen is None else unseen,
            "prefill_ms_server": _claimed_ms(timings, "prompt"),
            "decode_ms_server": _claimed_ms(timings, "predicted"),
        },
        figures={key: value for key, value in timings.items() if served.number(value) is not None}
        | ({"model": model} if model else {}),
    )


def _claimed_ms(timings: Mapping[str, Any], what: str) -> float | None:
    """A duration of llama-server's ``timings``, by its count and rate where it is absent."""
    ms, count, rate = (served.number(timings.get(f"{what}_{unit}")) for unit in ("ms", "n", "per_second"))
    return count / rate * 1e3 if ms is None and count and rate and rate > 0 else ms


def _choice(event: Event) -> Event:
    choices = event.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _texts(event: Event) -> tuple[str, str]:
    """The hidden and the shown text of an event."""
    choice = _choice(event)
    delta = stated if isinstance(stated := choice.get("delta"), dict) else {}
    hidden, shown = (
        next((_text(value) for name in names if (value := {**choice, **delta}.get(name))), "")
        for names in (REASONING, SHOWN)
    )
    return hidden, shown


def _text(value: object) -> str:
    """What holds tokens, as text: parts of a content, or calls of tools, are lists and objects."""
    return value if isinstance(value, str) else json.dumps(value)
