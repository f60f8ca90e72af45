"""The engine ``ollama``: an Ollama server by its native API (docs.ollama.com/api; TR121 2.2; method: section 2).

Greedy unless the study says otherwise. Nothing is ever pulled. Durations are nanoseconds; a field that is zero may be
absent, and one that is negative (down to -2^63 where a server divided by nothing) is no duration. How a call is judged
to be real stands in `phaselaw.engines.prompts`.
"""

import dataclasses
import ipaddress
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from phaselaw.engines import Doubt, served
from phaselaw.engines.gguf_header import architecture
from phaselaw.engines.http_client import QUICK, HttpClient, Line
from phaselaw.engines.prompts import Nonces, text_of
from phaselaw.engines.served import ServedEngine, ServedModel, StreamedReply
from phaselaw.errors import EngineError
from phaselaw.files import amount
from phaselaw.ladder.spec import ladder_model
from phaselaw.records import ModelInfo, Request, Timing
from phaselaw.servers.caches import HIT_SHARE, Verdict, judge_by_count, judged
from phaselaw.servers.streams import CUT_REASONS, settled
from phaselaw.study.model import ModelEntry, OllamaBackend

DEFAULT_PORT = 11434
LONGEST_MS = 1e12
"""Thirty years: what is longer is no duration, nor is infinity."""
UNLOAD_WAIT_S, UNLOAD_POLL_S = 60.0, 0.02
PROBE_WORDS, PROBE_SHORT_WORDS, PROBE_TOKENS, PROBE_TRIES = 640, 16, 8, 4
"""A probe's long and short prompt, what it has generated, and its tries: 640 words are at least 512 tokens anywhere."""


def create(backend: OllamaBackend) -> "OllamaEngine":
    url = address(backend.url, os.environ)
    return OllamaEngine(backend, OllamaServer(url, limits=served.limits_of(backend), ca_file=backend.ca_file))


def lacking(backend: OllamaBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server answers, and which models must be pulled first."""
    try:
        url = address(backend.url, os.environ)
        with closing(OllamaServer(url, limits=QUICK, ca_file=backend.ca_file)) as server:
            server.version()
            try:
                there = set(server.models("tags")) if models else set()
            except EngineError as error:
                lost = f"backend {backend.name}: its list of models can't be read, so its calls decide: {error}"
                return [Doubt(lost)]
    except EngineError as error:
        return [f"backend {backend.name}: no Ollama server: {error}; start one (ollama serve), or set its url"]
    return [
        f"model {model.name}: not on the Ollama server at {url}; {_how_to_get(model)}"
        for model in models
        if full_name(model.name) not in there
    ]


def _how_to_get(model: ModelEntry) -> str:
    """What a person does to have a model: it is pulled, but for one of the ladder, which no registry has."""
    ladder = ladder_model(model.identity)
    if ladder is None:
        return f"fetch it: ollama pull {model.name}"
    return f"make it: phaselaw models export {ladder.name}, and with the Modelfile: ollama create {model.name} -f FILE"


def address(url: str | None, environment: Mapping[str, str]) -> str:
    """The server's address: ``url`` where a study gives one, else from ``OLLAMA_HOST``, else the default port here.

    As Ollama's clients read it: a bare host, ``:port``, IPv6 with or without brackets, a scheme with its own default
    port, a path behind a proxy; blanks and quotes around are ignored, a port that is none becomes the default. An
    address to listen on everywhere (0.0.0.0, ``::``) is reached through the loopback.
    """
    text = (url or environment.get("OLLAMA_HOST", "")).strip().strip("\"'").strip()
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme:
        scheme, rest = ("https", "ollama.com:443") if text == "ollama.com" else ("http", text)
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if has_scheme else DEFAULT_PORT
    host_port, slash, path = rest.partition("/")
    host, port = _split(host_port, default)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{slash}{path}".rstrip("/")


def _split(host_port: str, default: int) -> tuple[str, int]:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host_port.strip("[]"))), default
    host, colon, port = host_port.rpartition(":")
    if not colon:
        return host_port, default
    valid = port.isascii() and port.isdigit() and 0 <= int(port) <= 65535
    return host.strip("[]"), int(port) if valid else default


class OllamaServer(HttpClient):
    """What measuring asks of one server."""

    def version(self) -> str:
        """The server's version; raises `EngineError` where what answers is no Ollama."""
        version = served.mapping(self.json("GET", "/api/version")).get("version")
        if not isinstance(version, str):
            raise EngineError(f"{self.base_url}: what answers there is no Ollama", kind="bad_reply")
        return version[:100]

    def models(self, listing: str) -> dict[str, Mapping[str, Any]]:
        """The models that the server has (``tags``), or holds in memory now (``ps``), by full name."""
        models = served.mapping(self.json("GET", f"/api/{listing}")).get("models") or []
        if not isinstance(models, list):
            raise EngineError("the server's list of models is none", kind="bad_reply")
        entries = [served.mapping(entry) for entry in models]
        return {full_name(str(entry.get("name") or entry.get("model"))): entry for entry in entries}

    def show(self, model: str) -> Mapping[str, Any]:
        """What the server says of a model; `EngineError` with the command to fetch it where it has none such."""
        with self._asking(model):
            return served.mapping(self.json("POST", "/api/show", {"model": model}))

    def unload(self, model: str) -> None:
        """Have a model unloaded, and wait until the server no longer lists it."""
        self.json("POST", "/api/generate", {"model": model, "keep_alive": 0})
        deadline = time.monotonic() + UNLOAD_WAIT_S
        while full_name(model) in self.models("ps"):
            if time.monotonic() > deadline:
                waited = f"{model} is still loaded {UNLOAD_WAIT_S:g} s after its unload was asked"
                raise EngineError(f"{self.base_url}: {waited}", kind="timeout")
            time.sleep(UNLOAD_POLL_S)

    def generate(self, asked: Mapping[str, Any], request: Request) -> StreamedReply:
        with self._asking(asked["model"]):
            return served.stream(self, "/api/generate", {**asked, "stream": True}, request, read_stream)

    @contextmanager
    def _asking(self, model: str) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            if error.kind != "http_404":
                raise
            what = f"{self.base_url} has no model {model}; fetch it: ollama pull {model}"
            raise EngineError(what, kind="missing_model") from error


def read_stream(lines: Sequence[Line], sent_ns: int) -> StreamedReply:
    """What a stream's lines say; raises `EngineError` for an error in mid-stream or a stream without its end."""
    events = served.events_of(lines, sent_ns, is_last=lambda event: event.get("done") is True, server_sent=False)
    final = events[-1][1] if events else {}
    durations_ms = {
        name: ns / 1e6
        for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
        if (ns := served.number(final.get(name), below=2.0**64)) is not None
    }
    valid_ms = {name: ms for name, ms in durations_ms.items() if 0 < ms < LONGEST_MS}
    fields = ("prompt_eval_count", "eval_count", "prompt_eval_cached_count")
    counts = {field: value for field in fields if (value := served.count(final.get(field))) is not None}
    return served.reply_of(
        events,
        lambda event: (event.get("thinking") or "", event.get("response") or ""),
        ended=final.get("done") is True,
        done_reason=served.name_or_none(final.get("done_reason")),
        prompt_tokens=counts.get("prompt_eval_count"),
        cached_tokens=counts.get("prompt_eval_cached_count"),
        claims={
            "tokens_counted": counts.get("eval_count"),
            "prefill_ms_server": valid_ms.get("prompt_eval_duration"),
            "decode_ms_server": valid_ms.get("eval_duration"),
            "load_ms": valid_ms.get("load_duration"),
        },
        figures={f"{name}_ms": ms for name, ms in durations_ms.items()} | counts,
    )


class OllamaEngine(ServedEngine):
    """One Ollama server with a backend's settings."""

    server: OllamaServer

    def found(self) -> dict[str, Any]:
        probes = {name: model.probe for name, model in self.models.items() if model.probe}
        return super().found() | {"cache_probes": probes}

    def load_new(self, model: ModelEntry) -> "OllamaModel":
        """Ask what the model is, and unload it once, so that it has seen no prompt. Raises `EngineError`.

        The weights are loaded by the first call, whose load time the server gives apart.
        """
        self.version = self.server.version()
        described = self.server.show(model.name)
        listed = None
        with suppress(EngineError):  # a list that fails says nothing
            listed = self.server.models("tags").get(full_name(model.name))
        info = model_info(described, listed)
        if full_name(model.name) in self.server.models("ps"):
            self.server.unload(model.name)
        # A model's template puts tokens before the prompt, which then stay cached.
        has_head = str(described.get("template") or "").strip() != "{{ .Prompt }}"
        keeps_head = has_head and not self.backend.raw
        return OllamaModel(self.server, self.backend, model.name, info, keeps_head=keeps_head)


class OllamaModel(ServedModel):
    """A model as its server runs it: how a call is made real, sent and read. The server decides when it is freed."""

    server: OllamaServer

    def __init__(
        self, server: OllamaServer, backend: OllamaBackend, name: str, info: ModelInfo, *, keeps_head: bool
    ) -> None:
        super().__init__(server, backend, name, info)
        self.probe: dict[str, Any] | None = None
        """What the cache probe found; ``None`` before it ran."""
        self._keeps_head = keeps_head
        self._nonces = Nonces()
        self._calls: list[tuple[Timing, bool]] = []
        """The calls so far, and whether each was alone."""
        self._seen_a_prompt = False
        self._server_context: object = None
        self._one_at_a_time = threading.Lock()

    def generate(self, request: Request) -> Timing:
        """One call with a prompt that the server can't have cached. Raises `EngineError`.

        Threads may call it at once: what comes before the send is done one after the other.
        """
        text = request.prompt
        if text is None:
            text = text_of(max(1, (request.prompt_tokens or 1) - 1), request.study_seed)
        measured = request.round is not None and not self.backend.cold
        with self._one_at_a_time:
            if measured and self.probe is None:
                self._run_probe(request)
            was_loaded = self._ready(request, load=measured)
            word = self._nonces.take()
        reply, prompt = self._send(word, text, request)
        probe = {f"cache_probe_{name}": value for name, value in (self.probe or {}).items()}
        reply = dataclasses.replace(reply, figures={**reply.figures, **probe})
        load_ms = None if reply.done_reason in CUT_REASONS else reply.served.load_ms or 0.0
        with self._one_at_a_time:
            head_cached = self._keeps_head and was_loaded and self._seen_a_prompt
            self._seen_a_prompt = True
            observed: dict[str, Any] = {"load_ms": load_ms, "model_was_loaded": was_loaded, "head_cached": head_cached}
            verdict = _stated(reply, prompt, was_loaded=was_loaded)
            words, budget = len(prompt.split()), request.gen_tokens
            timing = served.timing_of(reply, words, budget, verdict, server_times="prefill", **observed)
            self._calls.append((timing, request.before_send is None))
            timings, lone = zip(*self._calls, strict=True)
            [timing] = settled(judged(timings, lone=lone)[-1:], budget, lone=True)
        return timing

    def _asked(self, request: Request, prompt: str) -> dict[str, Any]:
        backend = self.backend
        options = {"temperature": 0, "top_p": 1, "seed": request.study_seed % 2**31}
        if backend.context_length is not None:
            options["num_ctx"] = backend.context_length
        optional = {"keep_alive": backend.keep_alive, "think": backend.think, "raw": backend.raw or None}
        return {
            "model": self.name,
            "prompt": prompt,
            "options": {**options, **backend.options, "num_predict": request.gen_tokens},
            # Servers that know it refuse a prompt longer than the context instead of cutting it silently.
            "truncate": False,
            **{key: value for key, value in optional.items() if value is not None},
        }

    def _ready(self, request: Request, *, load: bool) -> bool:
        """Bring the server into the state the call asks for; whether it then holds the model.

        Cold calls and spent nonces unload it. A measured call never pays for a load; a warmup may, and the server gives
        its load time apart.
        """
        entry = self.server.models("ps").get(full_name(self.name))
        loaded = entry is not None
        self._server_context = None if entry is None else entry.get("context_length")
        if loaded and (self.backend.cold or self._nonces.spent):
            self.server.unload(self.name)
            loaded, self._seen_a_prompt = False, True
        if not loaded:
            if self._seen_a_prompt:
                # Once for an unload: clients that start together find it unloaded one after the other.
                self._nonces.renew()
                self._seen_a_prompt = False
            if load:
                asked = self._asked(request, "") | {"stream": False}
                asked.pop("keep_alive", None)  # no prompt and 0 would unload it
                self.server.json("POST", "/api/generate", asked)
                loaded = True
        return loaded

    def _send(self, word: str, text: str, request: Request) -> tuple[StreamedReply, str]:
        """The reply to a prompt of these, and the prompt; raises `EngineError` for one that the server cut."""
        prompt = f"{word} {text}"
        reply = self.server.generate(self._asked(request, prompt), request)
        tokens, words = reply.prompt_tokens, len(prompt.split())
        if tokens is not None:
            self._nonces.counted(word, text, tokens)
            # The context in force: the study's, else what the server said of the loaded model.
            context = self.backend.options.get("num_ctx", self.backend.context_length)
            context = served.count(self._server_context if context is None else context) or None
            # Every word is a token at least, and a prompt that fills the context was cut to it.
            if tokens < words or (context is not None and tokens >= context):
                limit = "" if context is None else f", with a context of {context}"
                message = f"the prompt of {words} words was cut to {tokens} tokens{limit}; give a larger context_length"
                raise EngineError(message, kind="prompt_cut")
        return reply, prompt

    def _run_probe(self, request: Request) -> None:
        """A short and a long fresh prompt, to judge by, and the long one again: does this server remember prompts?

        Runs once a model and run, before its first measured call. A prompt goes first, so that a template's head is
        cached in those that are judged by. Where the server cuts a reply, another prompt is tried.
        """
        self.probe = {}
        try:
            self._ready(request, load=True)
            request = dataclasses.replace(request, gen_tokens=PROBE_TOKENS, before_send=None)
            self._send(self._nonces.take(), text_of(PROBE_SHORT_WORDS, request.study_seed), request)
            short, _ = self._whole(PROBE_SHORT_WORDS, request)
            long, again = self._whole(PROBE_WORDS, request, twice=True)
        except EngineError as error:
            self.probe = {"failed": f"{error.kind}: {error}"}
            return
        self._seen_a_prompt = True
        short_ms, fresh_ms, repeated_ms = (each.served.prefill_ms_server for each in (short, long, again))
        quick = (repeated_ms or 0.0) < HIT_SHARE * (fresh_ms or 0.0)
        self.probe = {
            "short_tokens": short.prompt_tokens,
            "short_ms": short_ms,
            "tokens": long.prompt_tokens,
            "fresh_ms": fresh_ms,
            "repeated_ms": repeated_ms,
            "verdict": "found" if quick else "fresh",
        }

    def _whole(self, words: int, request: Request, *, twice: bool = False) -> tuple[StreamedReply, StreamedReply]:
        """The replies to a fresh prompt and, ``twice``, to the same one again; of the first try that is not cut."""
        for at in range(1, PROBE_TRIES + 1):
            reply, prompt = self._send(self._nonces.take(), text_of(words, request.study_seed + at), request)
            again = self.server.generate(self._asked(request, prompt), request) if twice else reply
            if not {reply.done_reason, again.done_reason} & set(CUT_REASONS):
                return reply, again
        raise EngineError(f"the server cut the replies to {PROBE_TRIES} prompts", kind="connection_lost")


def _stated(reply: StreamedReply, prompt: str, *, was_loaded: bool) -> Verdict:
    """What is known of the prompt cache without the times of other calls."""
    tokens, cached = reply.prompt_tokens, reply.cached_tokens
    if tokens is not None and cached is not None:
        return judge_by_count(tokens, cached, len(prompt.split()))
    if not was_loaded:
        return Verdict("fresh", "the model was loaded by this very call")
    if reply.done_reason in CUT_REASONS:
        return Verdict("undecidable", "the reply ended without its last line, which has the server's figures")
    if tokens is None:
        return Verdict("found", "the server counted no prompt tokens, as servers until mid 2024 did on a hit")
    return Verdict("undecidable", "not judged yet")


def model_info(described: Mapping[str, Any], listed: Mapping[str, Any] | None) -> ModelInfo:
    """A model as measured: the exact parameter count where the server gives it, else its rounded label."""
    details, info = served.mapping(described.get("details") or {}), served.mapping(described.get("model_info") or {})
    label, exact = served.name_or_none(details.get("parameter_size")), info.get("general.parameter_count")
    params = exact if isinstance(exact, int) and exact > 0 else amount(label or "")
    size = (listed or {}).get("size")
    weights = re.search(r"^FROM .*sha256-([0-9a-f]{64})", str(described.get("modelfile") or ""), re.MULTILINE)
    return ModelInfo(
        params_millions_measured=params / 1e6 if params > 0 else None,
        **architecture(info),
        family=served.name_or_none(details.get("family")),
        quantization_level=served.name_or_none(details.get("quantization_level")),
        parameter_size_raw=label,
        weights_bytes=size if isinstance(size, int) else None,
        weights_sha256=weights.group(1) if weights else None,
    )


def full_name(model: str) -> str:
    """A model's name as the server lists it: the tag ``latest`` where none is given."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"
