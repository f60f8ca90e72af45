"""The phase-split price: what the prefill and the decode of a request take, not what a token costs on average.

TR121's token-linear price pretends that a prompt token costs what a generated one does. Here a worker's seconds are
``prefill_s(prompt) + decode_s(prompt, output)`` of that very request, from the step-time model of the run
(`phaselaw.laws.step_time`). Over the kinds of request of a mixture, input tokens are priced by all prefill seconds and
output tokens by all decode seconds, so that ``input price x input tokens + output price x output tokens`` is the
worker's time x its hourly price, exactly.

It holds inside the measured range and the model's context: elsewhere it is *not measured*, or *extrapolated* where that
is asked for. It is never made from prefill times that a validity check doubts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import StepTimes
from phaselaw.plan.estimate import exact, flat
from phaselaw.plan.workers import Worker
from phaselaw.records import Mix

Status = Literal["derived", "extrapolated", "not measured"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Seconds of one worker that one request takes, by phase; ``None`` where they are not measured."""

    prefill_s: Floats | None
    decode_s: Floats | None
    status: Status
    why: str | None = None
    """Why it is not measured, or in what it is extrapolated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenPrices:
    """Dollars for a million input and output tokens of a mixture."""

    input_usd_per_1m: Floats | None
    """``None`` where the mixture has no input tokens, or it is not measured."""
    output_usd_per_1m: Floats | None
    worker_s: Floats | None
    """Worker seconds of the average request."""
    status: Status
    why: str | None = None


def split(
    worker: Worker, times: StepTimes | None, mix: Mix, *, batch: int | None = None, extrapolate: bool = False
) -> Split:
    """Worker seconds by phase of one request, where ``batch`` of its kind are served at once (default: the worker's).

    A batch shares its decode steps. It shares its prefill as far as batches were measured there, else each prompt is
    prefilled alone.
    """
    batch = batch or worker.batch_size
    if worker.suspect_prefill:
        return _not_measured(f"its prefill times are doubted: {worker.suspect_prefill}")
    if times is None or times.prefill is None or times.decode is None:
        return _not_measured("this run has no step-time model (prompts of several lengths are needed)")
    together = max(1, min(batch, int(times.prefill.batch[1])))
    prefill = times.prefill_s(mix.prompt_tokens, batch=together, extrapolate=True)
    decode = times.decode_s(batch, mix.prompt_tokens, mix.output_tokens, extrapolate=True)
    if prefill is None or decode is None:
        return _not_measured("the step-time model gives no time")
    beyond = _beyond(worker, times, mix, batch, together)
    if beyond and not extrapolate:
        return _not_measured(beyond)
    return Split(
        prefill_s=prefill.seconds / together * _factor(worker.prefill_factor),
        decode_s=decode.seconds / batch * _factor(worker.decode_factor),
        status="extrapolated" if beyond else "derived",
        why=beyond,
    )


def _not_measured(why: str) -> Split:
    return Split(prefill_s=None, decode_s=None, status="not measured", why=why)


def _factor(factor: Floats | None) -> Floats:
    return exact(1.0) if factor is None else factor


def _beyond(worker: Worker, times: StepTimes, mix: Mix, batch: int, together: int) -> str | None:
    """In what a request lies outside what was measured, in words; ``None`` where it does not."""
    said = []
    if worker.context_tokens is not None and mix.tokens > worker.context_tokens:
        said.append(f"{mix.tokens:,.0f} tokens, the model's context is {worker.context_tokens:,}")
    assert times.prefill is not None and times.decode is not None
    last = mix.prompt_tokens + max(mix.output_tokens - 1, 0)
    if not times.prefill.inside(together, mix.prompt_tokens):
        said.append(f"prompt of {mix.prompt_tokens:,.0f} tokens, prefill measured {_range(times.prefill.tokens)}")
    if mix.output_tokens and not all(times.decode.inside(batch, at) for at in (mix.prompt_tokens, last)):
        at = f"decode from {mix.prompt_tokens:,.0f} to {last:,.0f} tokens"
        at += f" at batch {batch}" if batch > 1 else ""
        said.append(
            f"{at}, measured {_range(times.decode.tokens)}"
            + (f" and batch {_range(times.decode.batch)}" if not times.decode.batch[0] <= batch <= times.decode.batch[1]
               else "")
        )  # fmt: skip
    return "; ".join(said) or None


def _range(limits: tuple[float, float]) -> str:
    return f"at {limits[0]:,.0f}" if limits[0] == limits[1] else f"{limits[0]:,.0f} to {limits[1]:,.0f}"


def token_prices(mixes: Sequence[Mix], splits: Sequence[Split], usd_per_hour: float) -> TokenPrices:
    """Prices of input and output tokens over the kinds of request of a mixture, in the order of its splits.

    Not measured where any kind is not; extrapolated where any is.
    """
    lacking = [(mix, each) for mix, each in zip(mixes, splits, strict=True) if each.status == "not measured"]
    total = sum(mix.share for mix in mixes)
    if lacking:
        share = sum(mix.share for mix, _ in lacking) / total
        whose = "" if share == 1 and len({each.why for _, each in lacking}) == 1 else f"{share:.1%} of requests, "
        commonest, doubt = max(lacking, key=lambda each: each[0].share)
        whose += f"such as {commonest.name}: " if whose else ""
        why = f"{whose}{doubt.why}"
        return TokenPrices(input_usd_per_1m=None, output_usd_per_1m=None, worker_s=None, status="not measured", why=why)
    prefill = sum((mix.share * _known(each.prefill_s) for mix, each in zip(mixes, splits, strict=True)), exact(0.0))
    decode = sum((mix.share * _known(each.decode_s) for mix, each in zip(mixes, splits, strict=True)), exact(0.0))
    inputs = sum(mix.share * mix.prompt_tokens for mix in mixes)
    outputs = sum(mix.share * mix.output_tokens for mix in mixes)
    usd_per_s = usd_per_hour / 3600.0
    # A mixture without output has no price of output tokens; what it takes then stands in the input's, and vice versa.
    beyond = [each.why for each in splits if each.status == "extrapolated"]
    return TokenPrices(
        input_usd_per_1m=(prefill if outputs else prefill + decode) * usd_per_s / inputs * 1e6 if inputs else None,
        output_usd_per_1m=(decode if inputs else prefill + decode) * usd_per_s / outputs * 1e6 if outputs else None,
        worker_s=(prefill + decode) / total,
        status="extrapolated" if beyond else "derived",
        why=beyond[0] if beyond else None,
    )


def _known(seconds: Floats | None) -> Floats:
    return exact(np.nan) if seconds is None else seconds


def request_row(worker: Worker, mix: Mix, found: Split, batch: int) -> dict[str, Any]:
    """What a thousand requests of one kind take and cost on one worker, by phases."""
    whole = None if found.prefill_s is None or found.decode_s is None else found.prefill_s + found.decode_s
    return {
        **worker.names,
        "batch_size": batch,
        "gen_tokens": None,
        "mix": mix.name,
        "prompt_tokens": mix.prompt_tokens,
        "output_tokens": mix.output_tokens,
        "status": found.status,
        "why": found.why,
        **flat(
            prefill_s=found.prefill_s,
            decode_s=found.decode_s,
            usd_per_1k_requests=None if whole is None else whole * worker.usd_per_hour / 3.6,
            requests_per_s_per_worker=None if whole is None else 1 / whole,
        ),
    }


def price_row(worker: Worker, found: TokenPrices, batch: int) -> dict[str, Any]:
    """Input and output prices of one worker over the mixture."""
    return {
        **worker.names,
        "batch_size": batch,
        "gen_tokens": None,
        "status": found.status,
        "why": found.why,
        **flat(
            usd_per_1m_input=found.input_usd_per_1m,
            usd_per_1m_output=found.output_usd_per_1m,
            worker_s_per_request=found.worker_s,
        ),
    }


def at_mixture(worker: Worker, found: TokenPrices, tokens_per_request: float) -> Worker | None:
    """The worker with the rate at which it serves this mixture, by phases; ``None`` where that is not measured."""
    if found.worker_s is None:
        return None
    return dataclasses.replace(
        worker, tokens_per_s=tokens_per_request / found.worker_s, rate_status=f"{found.status}, by phases"
    )
