"""The engine ``ollama``: an Ollama server by its native API (docs.ollama.com/api; TR121 2.2; method: section 2).

Greedy unless the study says otherwise. Nothing is ever pulled. Durations are nanoseconds; a field that is zero may be
absent, and one that is negative (down to -2^63 where a server divided by nothing) is no duration. How a call is judged
to be real stands in `phaselaw.engines.prompts`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from phaselaw.engines import served
from phaselaw.engines.http_client import QUICK, BeforeSend, HttpClient, Line
from phaselaw.engines.prompts import FreshPrompts, Nonces, Verdict, judge, judge_by_count, text_of
from phaselaw.engines.served import ServedEngine, StreamedReply
from phaselaw.errors import EngineError
from phaselaw.ladder.spec import ladder_model
from phaselaw.records import ModelInfo, Request, Timing

if TYPE_CHECKING:
    from phaselaw.study.model import ModelEntry, OllamaBackend

DEFAULT_PORT = 11434
LONGEST_MS = 1e12
"""Thirty years: what is longer is no duration, nor is infinity."""
UNLOAD_WAIT_S, UNLOAD_POLL_S = 60.0, 0.02
PROBE_WORDS, PROBE_SHORT_WORDS, PROBE_TOKENS = 640, 16, 8
"""A probe's long and short prompt, and what it has generated: 640 words are at least 512 tokens anywhere."""


def create(backend: OllamaBackend) -> OllamaEngine:
    """An engine with a backend's settings; asks the server nothing yet."""
    url = address(backend.url, os.environ)
    return OllamaEngine(backend, OllamaServer(url, limits=served.limits_of(backend), ca_file=backend.ca_file))


def lacking(backend: OllamaBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server answers, and which models must be pulled first."""
    try:
        url = address(backend.url, os.environ)
        with closing(OllamaServer(url, limits=QUICK, ca_file=backend.ca_file)) as server:
            server.version()
            there = set(server.tags()) if models else set()
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

    def tags(self) -> dict[str, Mapping[str, Any]]:
        """The models that the server has, by full name."""
        return _by_name(self.json("GET", "/api/tags"))

    def loaded(self) -> dict[str, Mapping[str, Any]]:
        """The models that the server holds in memory now, by full name."""
        return _by_name(self.json("GET", "/api/ps"))

    def show(self, model: str) -> Mapping[str, Any]:
        """What the server says of a model; `EngineError` with the command to fetch it where it has none such."""
        try:
            return served.mapping(self.json("POST", "/api/show", {"model": model}))
        except EngineError as error:
            raise self._missing(error, model) from error

    def unload(self, model: str) -> None:
        """Have a model unloaded, and wait until the server no longer lists it."""
        self.json("POST", "/api/generate", {"model": model, "keep_alive": 0})
        deadline = time.monotonic() + UNLOAD_WAIT_S
        while full_name(model) in self.loaded():
            if time.monotonic() > deadline:
                waited = f"{model} is still loaded {UNLOAD_WAIT_S:g} s after its unload was asked"
                raise EngineError(f"{self.base_url}: {waited}", kind="timeout")
            time.sleep(UNLOAD_POLL_S)

    def generate(self, request: Mapping[str, Any], gen_tokens: int, before_send: BeforeSend = None) -> StreamedReply:
        """One streamed generation; raises `EngineError`."""
        asked = {**request, "stream": True}
        try:
            return served.stream(self, "/api/generate", asked, gen_tokens, read_stream, before_send=before_send)
        except EngineError as error:
            raise self._missing(error, str(request["model"])) from error

    def _missing(self, error: EngineError, model: str) -> EngineError:
        if error.kind != "http_404":
            return error
        return EngineError(f"{self.base_url} has no model {model}; fetch it: ollama pull {model}", kind="missing_model")


def read_stream(lines: Sequence[Line], sent_ns: int) -> StreamedReply:
    """What a stream's lines say; raises `EngineError` for an error in mid-stream or a stream without its end."""
    events = served.events_of(lines, sent_ns, is_last=lambda event: event.get("done") is True, server_sent=False)
    final = events[-1][1] if events else {}
    figures: dict[str, float | int | str | None] = {}
    for field in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        if (duration_ns := served.number(final.get(field), below=2.0**64)) is not None:
            figures[f"{field}_ms"] = duration_ns / 1e6
    fields = ("prompt_eval_count", "eval_count", "prompt_eval_cached_count")
    counts = {field: value for field in fields if (value := served.count(final.get(field))) is not None}
    return served.reply_of(
        events,
        lambda event: (event.get("thinking") or "", event.get("response") or ""),
        ended=final.get("done") is True,
        done_reason=served.name_or_none(final.get("done_reason")),
        prompt_tokens=counts.get("prompt_eval_count"),
        cached_tokens=counts.get("prompt_eval_cached_count"),
        generated=counts.get("eval_count"),
        prefill_ms=_duration(figures.get("prompt_eval_duration_ms")),
        decode_ms=_duration(figures.get("eval_duration_ms")),
        load_ms=_duration(figures.get("load_duration_ms")),
        figures=figures | counts,
    )


def _duration(ms: object) -> float | None:
    valid = served.number(ms, below=LONGEST_MS)
    return valid if valid is not None and valid > 0 else None


class OllamaEngine(ServedEngine):
    """One Ollama server with a backend's settings."""

    server: OllamaServer

    def found(self) -> dict[str, Any]:
        """The address, and what the cache probes have found so far."""
        probes = {name: model.probe for name, model in self.models.items() if model.probe}
        return super().found() | {"cache_probes": probes}

    def load_new(self, model: ModelEntry) -> OllamaModel:
        """Ask what the model is, and unload it once, so that it has seen no prompt. Raises `EngineError`.

        The weights are loaded by the first call, whose load time the server gives apart.
        """
        self.version = self.server.version()
        described = self.server.show(model.name)
        info = model_info(described, self.server.tags().get(full_name(model.name)))
        if full_name(model.name) in self.server.loaded():
            self.server.unload(model.name)
        # A model's template puts tokens before the prompt, which then stay cached.
        has_head = str(described.get("template") or "").strip() != "{{ .Prompt }}"
        keeps_head = has_head and not self.backend.raw
        return OllamaModel(self.server, self.backend, model.name, info, keeps_head=keeps_head)


class OllamaModel:
    """A model as its server runs it: how a call is made real, sent and read."""

    def __init__(
        self, server: OllamaServer, backend: OllamaBackend, name: str, info: ModelInfo, *, keeps_head: bool
    ) -> None:
        self.info = info
        self.probe: dict[str, Any] | None = None
        """What the cache probe found; ``None`` before it ran."""
        self._server, self._backend, self._name, self._keeps_head = server, backend, name, keeps_head
        self._nonces = Nonces()
        self._fresh = FreshPrompts()
        self._seen_a_prompt = False
        self._server_context: object = None
        self._last_step_ms: float | None = None
        self._one_at_a_time = threading.Lock()

    def generate(self, request: Request) -> Timing:
        """One call with a prompt that the server can't have cached. Raises `EngineError`.

        Threads may call it at once: what comes before the send is done one after the other.
        """
        text = request.prompt
        if text is None:
            text = text_of(max(1, (request.prompt_tokens or 1) - 1), request.study_seed)
        measured = request.round is not None and not self._backend.cold
        with self._one_at_a_time:
            if measured and self.probe is None:
                self._run_probe(request)
            was_loaded = self._ready(request, load=measured)
            word = self._nonces.take()
        reply, prompt = self._send(word, text, request.study_seed, request.gen_tokens, before_send=request.before_send)
        with self._one_at_a_time:
            return self._timing(reply, prompt, was_loaded=was_loaded, alone=request.before_send is None)

    def close(self) -> None:
        """Nothing to free: the server decides by its ``keep_alive``."""

    def _settings(self, study_seed: int, gen_tokens: int) -> dict[str, Any]:
        backend = self._backend
        options = {"temperature": 0, "top_p": 1, "seed": study_seed % 2**31}
        if backend.context_length is not None:
            options["num_ctx"] = backend.context_length
        settings: dict[str, Any] = {
            "model": self._name,
            "options": {**options, **backend.options, "num_predict": gen_tokens},
            # Servers that know it refuse a prompt longer than the context instead of cutting it silently.
            "truncate": False,
        }
        optional = {"keep_alive": backend.keep_alive, "think": backend.think, "raw": backend.raw or None}
        return settings | {key: value for key, value in optional.items() if value is not None}

    def _ready(self, request: Request, *, load: bool) -> bool:
        """Bring the server into the state the call asks for; whether it then holds the model.

        Cold calls and spent nonces unload it. A measured call never pays for a load; a warmup may, and the server gives
        its load time apart.
        """
        entry = self._server.loaded().get(full_name(self._name))
        loaded = entry is not None
        self._server_context = None if entry is None else entry.get("context_length")
        if loaded and (self._backend.cold or self._nonces.spent):
            self._server.unload(self._name)
            loaded, self._seen_a_prompt = False, True
        if not loaded:
            if self._seen_a_prompt:
                # Once for an unload: clients that start together find it unloaded one after the other.
                self._nonces.renew()
                self._seen_a_prompt = False
            if load:
                settings = self._settings(request.study_seed, request.gen_tokens)
                self._server.json("POST", "/api/generate", {**settings, "prompt": "", "stream": False})
                loaded = True
        return loaded

    def _send(
        self, word: str, text: str, study_seed: int, gen_tokens: int, *, before_send: BeforeSend = None
    ) -> tuple[StreamedReply, str]:
        prompt = f"{word} {text}"
        asked = {**self._settings(study_seed, gen_tokens), "prompt": prompt}
        reply = self._server.generate(asked, gen_tokens, before_send)
        if reply.prompt_tokens is not None:
            self._nonces.counted(word, text, reply.prompt_tokens)
            self._refuse_a_cut_prompt(prompt, reply.prompt_tokens)
        return reply, prompt

    def _refuse_a_cut_prompt(self, prompt: str, tokens: int) -> None:
        """Every word is a token at least, and a prompt that fills the context was cut to it."""
        words = len(prompt.split())
        # The context in force: the study's, else what the server said of the loaded model.
        context = self._backend.options.get("num_ctx", self._backend.context_length)
        context = served.count(self._server_context if context is None else context) or None
        if tokens < words or (context is not None and tokens >= context):
            limit = "" if context is None else f", with a context of {context}"
            message = f"the prompt of {words} words was cut to {tokens} tokens{limit}; give a larger context_length"
            raise EngineError(message, kind="prompt_cut")

    def _timing(self, reply: StreamedReply, prompt: str, *, was_loaded: bool, alone: bool) -> Timing:
        verdict = self._judge(reply, prompt, was_loaded=was_loaded)
        if verdict.check == "fresh" and was_loaded and alone and reply.prompt_tokens and reply.prefill_ms is not None:
            self._fresh.add(reply.prompt_tokens, reply.prefill_ms)
        head_cached = self._keeps_head and was_loaded and self._seen_a_prompt
        self._seen_a_prompt = True
        probe = {f"cache_probe_{name}": value for name, value in (self.probe or {}).items()}
        reply = dataclasses.replace(reply, figures={**reply.figures, **probe})
        observed: dict[str, Any] = {"load_ms": reply.load_ms or 0.0, "model_was_loaded": was_loaded}
        words, step = len(prompt.split()), served.step_of(reply)
        return served.timing_of(reply, words, step, verdict, head_cached=head_cached, **observed)

    def _judge(self, reply: StreamedReply, prompt: str, *, was_loaded: bool) -> Verdict:
        tokens, cached = reply.prompt_tokens, reply.cached_tokens
        if tokens is not None and cached is not None:
            return judge_by_count(tokens, cached, len(prompt.split()))
        if not was_loaded:
            return Verdict("fresh", "the model was loaded by this very call")
        if tokens is None:
            return Verdict("found", "the server counted no prompt tokens, as servers until mid 2024 did on a hit")
        step = served.step_of(reply)
        steps = [ms for ms in (step.client_ms, step.server_ms) if ms is not None]
        # The lesser: a stall of this client makes its own figure too large. A call that stopped at once has none.
        self._last_step_ms = min(steps, default=self._last_step_ms)
        return judge(tokens, reply.prefill_ms, self._fresh, self._last_step_ms)

    def _run_probe(self, request: Request) -> None:
        """A short and a long fresh prompt, to judge by, and the long one again: does this server remember prompts?

        Runs once a model and run, before its first measured call. A prompt goes first, so that a template's head is
        cached in those that are judged by.
        """
        self.probe = {}
        try:
            self._ready(request, load=True)
            seed = request.study_seed
            self._send(self._nonces.take(), text_of(PROBE_SHORT_WORDS, seed), seed, PROBE_TOKENS)
            short, _ = self._send(self._nonces.take(), text_of(PROBE_SHORT_WORDS, seed + 1), seed, PROBE_TOKENS)
            long, prompt = self._send(self._nonces.take(), text_of(PROBE_WORDS, seed), seed, PROBE_TOKENS)
            again = self._server.generate({**self._settings(seed, PROBE_TOKENS), "prompt": prompt}, PROBE_TOKENS)
        except EngineError as error:
            self.probe = {"failed": f"{error.kind}: {error}"}
            return
        self._seen_a_prompt = True
        for fresh in (short, long):
            if fresh.prompt_tokens and fresh.prefill_ms is not None:
                self._fresh.add(fresh.prompt_tokens, fresh.prefill_ms)
        self.probe = {
            "tokens": long.prompt_tokens,
            "fresh_ms": long.prefill_ms,
            "repeated_ms": again.prefill_ms,
            "verdict": self._judge(again, prompt, was_loaded=True).check,
        }


def model_info(described: Mapping[str, Any], listed: Mapping[str, Any] | None) -> ModelInfo:
    """A model as measured: the exact parameter count where the server gives it, else its rounded label."""
    details, info = served.mapping(described.get("details") or {}), served.mapping(described.get("model_info") or {})

    def of_architecture(key: str) -> int | None:
        value = info.get(f"{info.get('general.architecture')}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    label, exact = details.get("parameter_size"), info.get("general.parameter_count")
    size = (listed or {}).get("size")
    weights = re.search(r"^FROM .*sha256-([0-9a-f]{64})", str(described.get("modelfile") or ""), re.MULTILINE)
    return ModelInfo(
        params_millions_measured=exact / 1e6 if isinstance(exact, int) and exact > 0 else parameter_millions(label),
        n_layer=of_architecture("block_count"),
        n_embd=of_architecture("embedding_length"),
        n_head=of_architecture("attention.head_count"),
        n_inner=of_architecture("feed_forward_length"),
        vocab_size=of_architecture("vocab_size"),
        n_positions=of_architecture("context_length"),
        family=served.name_or_none(details.get("family")),
        quantization_level=served.name_or_none(details.get("quantization_level")),
        parameter_size_raw=served.name_or_none(label),
        weights_bytes=size if isinstance(size, int) else None,
        weights_sha256=weights.group(1) if weights else None,
    )


def parameter_millions(label: object) -> float | None:
    """Millions of parameters of a label such as ``268.10M``, ``7.6B``, ``137M`` or ``1.2T``; ``None`` if it is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMBT]?)\s*", label, re.IGNORECASE) if isinstance(label, str) else None
    if found is None:
        return None
    scale = {"": 1e-6, "K": 1e-3, "M": 1.0, "B": 1e3, "T": 1e6}[found.group(2).upper()]
    return float(found.group(1)) * scale or None


def full_name(model: str) -> str:
    """A model's name as the server lists it: the tag ``latest`` where none is given."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _by_name(answer: object) -> dict[str, Mapping[str, Any]]:
    models = served.mapping(answer).get("models") or []
    if not isinstance(models, list):
        raise EngineError("the server's list of models is none", kind="bad_reply")
    entries = [served.mapping(entry) for entry in models]
    return {full_name(str(entry.get("name") or entry.get("model"))): entry for entry in entries}
