"""The engine ``openai``: any server that speaks OpenAI's protocol, by the client's clock (method: section 2).

TTFT stands for prefill, since no server-side time is part of the protocol; a decode step is told from the arrivals.
A server's prompt cache is kept out by first words that no call shares, and it is told to have none where it knows how.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phaselaw.engines.http_client import Limits
from phaselaw.engines.openai_api import TURNED_AWAY, OpenaiApi, wait_before_retry
from phaselaw.engines.openai_stream import Reply
from phaselaw.engines.prompt_cache import Verdict, judge_by_count
from phaselaw.engines.prompts import WORDS, text_of
from phaselaw.engines.served_clock import DecodeStep, decode_step
from phaselaw.errors import EngineError, NotReadyError
from phaselaw.records import EngineInfo, ModelInfo, Request, Served, Timing

if TYPE_CHECKING:
    from phaselaw.study.model import ModelEntry, OpenaiBackend

PATHS = {"completions": "completions", "chat": "chat/completions"}
NONCE_WORDS = 3
QUICK = Limits(connect_s=5.0, idle_s=10.0, total_s=20.0)
"""For questions that need no model."""


def create(backend: OpenaiBackend) -> OpenaiEngine:
    """An engine with a backend's settings; `NotReadyError` where no address is known."""
    return OpenaiEngine(backend)


def lacking(backend: OpenaiBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server answers, and which models it does not have."""
    try:
        api = _api(backend, QUICK)
        try:
            there = api.models()
        finally:
            api.close()
    except NotReadyError as error:
        return [str(error)]
    except EngineError as error:
        hint = f"; set {backend.api_key_env}" if error.kind in ("http_401", "http_403") else ""
        return [f"backend {backend.name}: {error}{hint}; start the server, or correct its url"]
    return [
        f"model {model.name}: not on {api.url}; name one that it has: {', '.join(list(there)[:5])}"
        for model in models
        if there and model.name not in there
    ]


def _api(backend: OpenaiBackend, limits: Limits) -> OpenaiApi:
    url = backend.url or os.environ.get("OPENAI_BASE_URL", "").strip()
    if not url:
        raise NotReadyError(f"backend {backend.name}: no address; give its url, or set OPENAI_BASE_URL")
    return OpenaiApi(url, key=os.environ.get(backend.api_key_env) or None, limits=limits, ca_file=backend.ca_file)


class OpenaiEngine:
    """One server with a backend's settings."""

    holds_many_models = False
    """Some servers swap models in and out: calls are grouped by model."""

    def __init__(self, backend: OpenaiBackend) -> None:
        self._backend = backend
        limits = Limits(connect_s=backend.connect_timeout_s, idle_s=backend.idle_timeout_s, total_s=backend.timeout_s)
        self._api = _api(backend, limits)
        self._models: dict[str, OpenaiModel] = {}

    def describe(self) -> EngineInfo:
        """The settings, never the key, and what the server was found to refuse."""
        settings: dict[str, Any] = self._backend.model_dump(mode="json", exclude={"name", "kind"})
        settings |= {"url": self._api.url, "refused_keys": sorted(self._api.refused)}
        return EngineInfo(kind="openai", name=self._backend.name, version=None, settings=settings)

    def load(self, model: ModelEntry) -> OpenaiModel:
        """Ask for the model, and by a short call what the server refuses. Raises `EngineError`."""
        if model.name not in self._models:
            listed = (self._api.models() or {}).get(model.name, {})
            loaded = OpenaiModel(self._api, self._backend, model.name, _info(listed.get("meta")))
            loaded.negotiate()
            self._models[model.name] = loaded
        return self._models[model.name]

    def close(self) -> None:
        """Close the connections."""
        self._api.close()


class OpenaiModel:
    """One model of a server."""

    def __init__(self, api: OpenaiApi, backend: OpenaiBackend, name: str, info: ModelInfo) -> None:
        self.info = info
        self._api, self._backend, self._name = api, backend, name
        self._path = PATHS[backend.api]
        # Not seeded: a server may remember the prompts of an earlier run.
        self._draw = random.SystemRandom()
        self._sent: set[str] = set()

    def negotiate(self) -> None:
        """A short call that is not measured: it finds what the server refuses."""
        self._api.negotiate(self._path, self._request("Hello", 2, 0))

    def generate(self, request: Request) -> Timing:
        """One call; raises `EngineError`, also for one that succeeded only when tried again."""
        text = request.prompt if request.prompt is not None else self._synthetic(request)
        turned_away: EngineError | None = None
        for tries in range(self._backend.retries + 1):
            prompt = f"{self._nonce()} {text}"
            asked = self._request(prompt, request.gen_tokens, request.study_seed)
            try:
                reply = self._api.complete(
                    self._path, asked, request.gen_tokens, request.before_send if tries == 0 else None
                )
            except EngineError as error:
                if error.kind not in TURNED_AWAY or tries == self._backend.retries:
                    raise
                turned_away = error
                wait_before_retry(error, tries)
                continue
            if turned_away is not None:
                raise EngineError(f"answered at try {tries + 1}, no measurement; before: {turned_away}", kind="retried")
            return timing_of(reply, prompt, head_cached=self._backend.api == "chat")
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        """Nothing to free."""

    def _synthetic(self, request: Request) -> str:
        return text_of(max(1, (request.prompt_tokens or 1) - NONCE_WORDS), request.study_seed)

    def _nonce(self) -> str:
        while True:
            nonce = " ".join(self._draw.sample(WORDS, NONCE_WORDS))
            if nonce not in self._sent:
                self._sent.add(nonce)
                return nonce

    def _request(self, prompt: str, gen_tokens: int, study_seed: int) -> dict[str, Any]:
        chat = self._backend.api == "chat"
        request: dict[str, Any] = {
            "model": self._name,
            **({"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}),
            "max_tokens": gen_tokens,
            "temperature": 0,
            "top_p": 1,
            "seed": study_seed % 2**31,
            "cache_prompt": False,
            "cache_salt": prompt[:60],
        }
        if self._backend.ignore_eos:
            request |= {"ignore_eos": True, "min_tokens": gen_tokens}
        return request | self._backend.extra | {"stream": True, "stream_options": {"include_usage": True}}


def timing_of(reply: Reply, prompt: str, *, head_cached: bool) -> Timing:
    """A reply as a call's times; raises `EngineError` where no token came."""
    if not reply.arrivals_ms:
        raise EngineError(f"no token came (finish_reason {reply.finish_reason!r})", kind="no_tokens")
    prompt_tokens, generated = reply.count("prompt_tokens"), reply.count("completion_tokens")
    counted = generated or len(reply.arrivals_ms)
    step = decode_step(reply.arrivals_ms, counted, server_ms=reply.decode_ms, server_steps=counted - 1)
    verdict = _judge(reply, prompt)
    first_ms, last_ms = reply.arrivals_ms[0], reply.arrivals_ms[-1]
    served = Served(
        sent_at_ms=reply.sent_at_ms,
        ttft_ms=first_ms,
        e2e_ms=last_ms,
        wall_ms=reply.wall_ms,
        connect_ms=reply.connect_ms,
        arrivals_ms=reply.arrivals_ms,
        decode_step_ms=step.ms,
        decode_step_basis=step.basis,
        decode_step_ms_client=step.client_ms,
        decode_step_ms_server=step.server_ms,
        cache_check=verdict.check,
        cache_reason=verdict.reason,
        head_cached=head_cached,
        prefill_basis="ttft",
        tokens_basis="server" if prompt_tokens and generated else "estimated",
        thinking_tokens=reply.thinking_chunks or None,
        faults=_faults(step, verdict),
    )
    return Timing(
        prefill_ms=first_ms,
        kv_decode_ms=last_ms - first_ms,
        prompt_tokens=prompt_tokens or len(prompt.split()),
        prompt_tokens_total=prompt_tokens or len(prompt.split()),
        gen_tokens_raw=counted,
        done_reason=reply.finish_reason or "unknown",
        output_sha256=reply.output_sha256,
        server={
            key: value for key, value in reply.timings.items() if isinstance(value, (int, float)) and abs(value) < 1e12
        },
        served=served,
    )


def _judge(reply: Reply, prompt: str) -> Verdict:
    tokens, cached = reply.count("prompt_tokens"), reply.cached_tokens
    if tokens is None or cached is None:
        return Verdict("undecidable", "the server says nothing of its cache; the prompt's first words were new to it")
    return judge_by_count(tokens, cached, len(prompt.split()))


def _faults(step: DecodeStep, verdict: Verdict) -> dict[str, str]:
    faults: dict[str, str] = {}
    if step.ms is None:
        faults["kv_decode"] = faults["e2e_kv"] = "no_decode_step: too few tokens came to tell one"
    if verdict.check == "found":
        faults["prefill"] = faults["e2e_kv"] = f"prompt_cache: answered from the server's cache: {verdict.reason}"
    return faults


def _info(meta: object) -> ModelInfo:
    """What llama-server says of its model; nothing elsewhere."""
    found = meta if isinstance(meta, dict) else {}
    params = found.get("n_params")
    counts = {key: value for key, value in found.items() if isinstance(value, int)}
    return ModelInfo(
        params_millions_measured=params / 1e6 if isinstance(params, int) and params > 0 else None,
        n_embd=counts.get("n_embd"),
        vocab_size=counts.get("n_vocab"),
        n_positions=counts.get("n_ctx_train"),
        weights_bytes=counts.get("size"),
    )
