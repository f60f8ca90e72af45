"""One model of a llama-server: a call by the server's own ``timings``, with the client's clock beside it (method 2).

The server counts the first token as prompt time: ``predicted_ms`` spans one step less than ``predicted_n`` says. On a
machine whose cores the server fills, the client may be woken late; the server's clock doesn't see that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from phaselaw.engines.llamacpp_api import LlamacppApi, Reply
from phaselaw.engines.prompts import token_ids
from phaselaw.engines.served_clock import DecodeStep, decode_step
from phaselaw.errors import EngineError
from phaselaw.machine.peak_memory import PeakMemory
from phaselaw.records import ModelInfo, Request, Served, Timing

if TYPE_CHECKING:
    from phaselaw.study.model import LlamacppBackend

CLAIMS = ("cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms")
"""The server's figures that are kept raw."""
_SERVER_GONE = {"refused", "connection_lost"}


class LlamacppModel:
    """A model that a server holds."""

    def __init__(
        self,
        api: LlamacppApi,
        backend: LlamacppBackend,
        name: str,
        info: ModelInfo,
        *,
        context: int | None,
        died: Callable[[], str | None],
        stop: Callable[[], None],
        memory: PeakMemory | None,
    ) -> None:
        """``context`` is in tokens; ``died`` says how a server of ours ended, ``stop`` ends it, ``memory`` is its."""
        self.info = info
        self._api, self._backend, self._name, self._context = api, backend, name, context
        self._died, self._stop, self._memory = died, stop, memory
        self._prompts: dict[str, list[int]] = {}

    def generate(self, request: Request) -> Timing:
        """Time one call. Raises `EngineError`; where the server is gone it says how it ended."""
        try:
            prompt = self._prompt_of(request)
            self._refuse_too_long(len(prompt), request.gen_tokens)
            if self._memory is not None:
                self._memory.reset()  # by each of several clients, all before the first of them sends
            reply = self._api.complete(
                prompt, request.gen_tokens, ignore_eos=self._backend.ignore_eos, before_send=request.before_send
            )
        except EngineError as error:
            end = self._died() if error.kind in _SERVER_GONE else None
            if end is None:
                raise
            raise EngineError(end, kind="server_died") from error
        peak_mb = None if self._memory is None else self._memory.read_mb()
        return replace(timing_of(reply, len(prompt), request.gen_tokens), rss_peak_mb=peak_mb)

    def close(self) -> None:
        """Stop the server where it is ours."""
        self._stop()

    def _prompt_of(self, request: Request) -> list[int]:
        if request.prompt is None:
            return token_ids(request.prompt_tokens or 1, request.study_seed, self.info.vocab_size or 1)
        if request.prompt not in self._prompts:
            text, templated = request.prompt, self._backend.chat_template
            if templated:
                text = self._api.apply_template(text)
            ids = self._api.tokenize(text, with_special=templated)
            if not ids:
                raise EngineError(f"{self._name}'s tokenizer makes no token of this prompt", kind="prompt")
            self._prompts[request.prompt] = ids
        return self._prompts[request.prompt]

    def _refuse_too_long(self, prompt_tokens: int, gen_tokens: int) -> None:
        if self._context is not None and prompt_tokens + gen_tokens > self._context:
            raise EngineError(
                f"{self._name} has a context of {self._context}: a prompt of {prompt_tokens} tokens leaves no room for "
                f"{gen_tokens} more; give a larger context_length",
                kind="too_long",
            )


def timing_of(reply: Reply, prompt_tokens: int, gen_tokens: int) -> Timing:
    """What a reply to a prompt of so many tokens says. Raises `EngineError` where it stands for no call at all."""
    generated = reply.count("predicted_n")
    prefill_ms, decode_ms = reply.timing("prompt_ms"), reply.timing("predicted_ms")
    if generated is None or prefill_ms is None or decode_ms is None:
        raise EngineError("the server gave no timings; is it a llama-server?", kind="bad_reply")
    if not generated or not reply.arrivals_ms:
        raise EngineError("no token came", kind="no_tokens")
    if reply.final.get("truncated"):
        raise EngineError("the server cut the prompt to its context", kind="prompt_cut")
    step = decode_step(reply.arrivals_ms, generated, server_ms=decode_ms, server_steps=generated - 1)
    hit = _cache_hit(reply, prompt_tokens)
    served = Served(
        sent_at_ms=reply.sent_at_ms,
        ttft_ms=reply.arrivals_ms[0],
        e2e_ms=reply.arrivals_ms[-1],
        wall_ms=reply.wall_ms,
        connect_ms=reply.connect_ms,
        arrivals_ms=reply.arrivals_ms,
        decode_step_ms=step.server_ms,
        decode_step_basis=None if step.server_ms is None else "server",
        decode_step_ms_client=_client_step_ms(reply, step),
        decode_step_ms_server=step.server_ms,
        queue_ms=max(0.0, reply.arrivals_ms[0] - prefill_ms),
        model_was_loaded=True,
        cache_check="off" if hit is None else "found",
        cache_reason=hit or "the server was told to use no cache, and evaluated every token of the prompt",
        faults=_faults(step, hit),
    )
    return Timing(
        prefill_ms=prefill_ms,
        kv_decode_ms=decode_ms,
        prompt_tokens=prompt_tokens,
        prompt_tokens_total=prompt_tokens,
        gen_tokens_raw=generated,
        done_reason="length" if generated >= gen_tokens else "stop",
        output_sha256=reply.output_sha256,
        server={name: reply.timing(name) for name in CLAIMS},
        served=served,
    )


def _client_step_ms(reply: Reply, step: DecodeStep) -> float | None:
    """One decode step by the client's clock; ``None`` where it can't be told which tokens came when.

    The server holds tokens back whose text ends inside a character, so that chunks may be fewer than tokens; but each
    chunk says how many tokens there were by then.
    """
    if step.basis == "client":
        return step.client_ms
    arrivals, numbers = reply.arrivals_ms, reply.token_numbers
    if len(numbers) < 2 or numbers[-1] <= numbers[0] or arrivals[-1] <= arrivals[0]:
        return None
    return (arrivals[-1] - arrivals[0]) / (numbers[-1] - numbers[0])


def _cache_hit(reply: Reply, prompt_tokens: int) -> str | None:
    """Why a prompt was answered from the cache all the same; ``None`` where all of it was evaluated."""
    cached, evaluated = reply.count("cache_n"), reply.count("prompt_n")
    if cached:
        return f"{cached} of {prompt_tokens} tokens were cached, by the server's own count"
    if evaluated is not None and evaluated < prompt_tokens:
        return f"the server evaluated {evaluated} of {prompt_tokens} tokens"
    return None


def _faults(step: DecodeStep, cache_hit: str | None) -> dict[str, str]:
    """The phases that a reply can't stand for, each with the reason."""
    faults: dict[str, str] = {}
    if step.server_ms is None:
        faults["kv_decode"] = faults["e2e_kv"] = "no_decode_step: too few tokens came to tell one"
    if cache_hit is not None:
        faults["prefill"] = faults["e2e_kv"] = f"prompt_cache: {cache_hit}"
    return faults
