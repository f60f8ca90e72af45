"""One model of an Ollama server: how a call is made real, sent and read (method: section 2)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phaselaw.engines.ollama_api import OllamaApi, Reply, full_name
from phaselaw.engines.prompt_cache import FreshPrompts, Verdict, judge, judge_by_count
from phaselaw.engines.prompts import Nonces, text_of
from phaselaw.engines.served_clock import DecodeStep, decode_step
from phaselaw.errors import EngineError
from phaselaw.records import ModelInfo, Request, Served, Timing

if TYPE_CHECKING:
    from phaselaw.study.model import OllamaBackend

PROBE_WORDS, PROBE_SHORT_WORDS, PROBE_TOKENS = 640, 16, 8
"""A probe's long and short prompt, and what it has generated: 640 words are at least 512 tokens anywhere."""
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class OllamaModel:
    """A model as its server runs it; the same object for the whole run, so that no nonce comes twice."""

    def __init__(self, api: OllamaApi, backend: OllamaBackend, name: str, info: ModelInfo, *, keeps_head: bool) -> None:
        self.info = info
        self.probe: dict[str, Any] | None = None
        """What the cache probe found; ``None`` before it ran."""
        self._api, self._backend, self._name, self._keeps_head = api, backend, name, keeps_head
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
        text = request.prompt if request.prompt is not None else self._synthetic(request)
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

    def _synthetic(self, request: Request) -> str:
        return text_of(max(1, (request.prompt_tokens or 1) - 1), request.study_seed)

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

        Cold calls and spent nonces unload it. A measured call never pays for a load; a warmup may, and the server tells
        its load time apart.
        """
        entry = self._api.loaded().get(full_name(self._name))
        loaded = entry is not None
        self._server_context = None if entry is None else entry.get("context_length")
        if loaded and (self._backend.cold or self._nonces.spent):
            self._api.unload(self._name)
            loaded, self._seen_a_prompt = False, True
        if not loaded:
            if self._seen_a_prompt:
                # Once for an unload: clients that start together find it unloaded one after the other.
                self._nonces.renew()
                self._seen_a_prompt = False
            if load:
                self._api.preload(self._settings(request.study_seed, request.gen_tokens))
                loaded = True
        return loaded

    def _send(
        self, word: str, text: str, study_seed: int, gen_tokens: int, *, before_send: Callable[[], object] | None = None
    ) -> tuple[Reply, str]:
        prompt = f"{word} {text}"
        reply = self._api.generate(
            {**self._settings(study_seed, gen_tokens), "prompt": prompt}, gen_tokens, before_send
        )
        tokens = reply.count("prompt_eval_count")
        if tokens is not None:
            self._nonces.counted(word, text, tokens)
            self._refuse_a_cut_prompt(prompt, tokens)
        return reply, prompt

    def _refuse_a_cut_prompt(self, prompt: str, tokens: int) -> None:
        """Every word is a token at least, and a prompt that fills the context was cut to it."""
        words = len(prompt.split())
        context = self._context()
        if tokens < words or (context is not None and tokens >= context):
            limit = "" if context is None else f", with a context of {context}"
            raise EngineError(
                f"the prompt of {words} words was cut to {tokens} tokens{limit}; give a larger context_length",
                kind="prompt_cut",
            )

    def _context(self) -> int | None:
        """The context in force, in tokens: the study's, else what the server said of the loaded model."""
        stated = self._backend.options.get("num_ctx", self._backend.context_length)
        context = self._server_context if stated is None else stated
        return context if isinstance(context, int) and context > 0 else None

    def _timing(self, reply: Reply, prompt: str, *, was_loaded: bool, alone: bool) -> Timing:
        tokens, generated = reply.count("prompt_eval_count"), reply.count("eval_count")
        if not reply.arrivals_ms and not generated:
            raise EngineError(f"no token came (done_reason {reply.final.get('done_reason')!r})", kind="no_tokens")
        step = step_of(reply)
        prefill_ms = reply.ms("prompt_eval_duration")
        verdict = self._judge(reply, prompt, step, was_loaded=was_loaded)
        if verdict.check == "fresh" and was_loaded and alone and tokens and prefill_ms is not None:
            self._fresh.add(tokens, prefill_ms)
        load_ms = reply.ms("load_duration") or 0.0
        first_ms = reply.arrivals_ms[0] if reply.arrivals_ms else reply.wall_ms
        head_cached = self._keeps_head and was_loaded and self._seen_a_prompt
        self._seen_a_prompt = True
        served = Served(
            sent_at_ms=reply.sent_at_ms,
            ttft_ms=first_ms,
            e2e_ms=reply.arrivals_ms[-1] if reply.arrivals_ms else reply.wall_ms,
            wall_ms=reply.wall_ms,
            connect_ms=reply.connect_ms,
            arrivals_ms=reply.arrivals_ms,
            decode_step_ms=step.ms,
            decode_step_basis=step.basis,
            decode_step_ms_client=step.client_ms,
            decode_step_ms_server=step.server_ms,
            queue_ms=None if prefill_ms is None else max(0.0, first_ms - load_ms - prefill_ms),
            load_ms=load_ms,
            model_was_loaded=was_loaded,
            cache_check=verdict.check,
            cache_reason=verdict.reason,
            head_cached=head_cached,
            tokens_basis="estimated" if tokens is None or generated is None else "server",
            thinking_tokens=reply.thinking_chunks or None,
            faults=faults_of(prefill_ms, step, verdict),
        )
        reason = reply.final.get("done_reason")
        return Timing(
            prefill_ms=prefill_ms,
            kv_decode_ms=reply.ms("eval_duration"),
            prompt_tokens=tokens or len(prompt.split()),
            prompt_tokens_total=tokens or len(prompt.split()),
            gen_tokens_raw=len(reply.arrivals_ms) if generated is None else generated,
            done_reason=reason if isinstance(reason, str) else "unknown",
            output_sha256=reply.output_sha256,
            server=claims_of(reply) | {f"cache_probe_{name}": value for name, value in (self.probe or {}).items()},
            served=served,
        )

    def _judge(self, reply: Reply, prompt: str, step: DecodeStep, *, was_loaded: bool) -> Verdict:
        tokens, cached = reply.count("prompt_eval_count"), reply.count("prompt_eval_cached_count")
        if tokens is not None and cached is not None:
            return judge_by_count(tokens, cached, len(prompt.split()))
        if not was_loaded:
            return Verdict("fresh", "the model was loaded by this very call")
        if tokens is None:
            return Verdict("found", "the server counted no prompt tokens, as servers until mid 2024 did on a hit")
        steps = [ms for ms in (step.client_ms, step.server_ms) if ms is not None]
        # The lesser: a stall of this client makes its own figure too large. A call that stopped at once has none.
        self._last_step_ms = min(steps, default=self._last_step_ms)
        return judge(tokens, reply.ms("prompt_eval_duration"), self._fresh, self._last_step_ms)

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
            again = self._api.generate({**self._settings(seed, PROBE_TOKENS), "prompt": prompt}, PROBE_TOKENS)
        except EngineError as error:
            self.probe = {"failed": f"{error.kind}: {error}"}
            return
        self._seen_a_prompt = True
        for fresh in (short, long):
            tokens, ms = fresh.count("prompt_eval_count"), fresh.ms("prompt_eval_duration")
            if tokens and ms is not None:
                self._fresh.add(tokens, ms)
        verdict = self._judge(again, prompt, step_of(again), was_loaded=True)
        self.probe = {
            "tokens": long.count("prompt_eval_count"),
            "fresh_ms": long.ms("prompt_eval_duration"),
            "repeated_ms": again.ms("prompt_eval_duration"),
            "verdict": verdict.check,
        }


def step_of(reply: Reply) -> DecodeStep:
    """The decode step of a reply; the server's figure spans one step less than it counts tokens."""
    generated = reply.count("eval_count")
    count = len(reply.arrivals_ms) if generated is None else generated
    return decode_step(reply.arrivals_ms, count, server_ms=reply.ms("eval_duration"), server_steps=count - 1)


def faults_of(prefill_ms: float | None, step: DecodeStep, verdict: Verdict) -> dict[str, str]:
    """The phases that a reply can't stand for, each with the reason."""
    faults: dict[str, str] = {}
    if step.ms is None:
        faults["kv_decode"] = faults["e2e_kv"] = "no_decode_step: too few tokens came to tell one"
    if prefill_ms is None:
        faults["prefill"] = faults["e2e_kv"] = "no_prefill_time: prompt_eval_duration is absent, zero or negative"
    if verdict.check == "found":
        faults["prefill"] = faults["e2e_kv"] = f"prompt_cache: answered from the server's cache: {verdict.reason}"
    return faults


def claims_of(reply: Reply) -> dict[str, float | int | str | None]:
    """The server's own figures, kept raw but for their unit: ms instead of nanoseconds."""
    claims: dict[str, float | int | str | None] = {}
    for field in DURATIONS:
        value = reply.final.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**64:
            claims[f"{field}_ms"] = value / 1e6
    for field in ("prompt_eval_count", "eval_count", "prompt_eval_cached_count"):
        if (count := reply.count(field)) is not None:
            claims[field] = count
    return claims
