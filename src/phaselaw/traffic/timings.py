"""Latencies of production (TR121 9.1): time to first token apart from the decode rate, by kind of request and
by cold and warm starts, and whether it still agrees with the law that was measured.

A decode step is ``(e2e - TTFT) / (output tokens - 1)``, as everywhere here. Cold is what the log calls so; else a
request to a worker younger than `COLD_AGE_S`, or idle for `COLD_IDLE_S` and longer, as far as the log has either (the
time since a worker's last request is found from its rows where they name it).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from phaselaw.laws.options import Options
from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import PhaseTime, StepTimes
from phaselaw.traffic.log import Requests
from phaselaw.traffic.sketches import LogQuantiles

COLD_AGE_S = 60.0
COLD_IDLE_S = 300.0
AGREES_WITHIN = 1.25
"""Logged and predicted agree where the interval of their ratio lies between 1 / this and this."""

EDGES = {
    "prompt_tokens": (0, 128, 512, 2048, 8192),
    "output_tokens": (0, 64, 256, 1024),
    "batch_size": (1, 2, 5, 9, 17, 33),
}
"""Where each bucket of lengths and of batch sizes begins."""

_STARTS = ("warm", "cold", "not known")
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_FEWEST_BLOCKS = 32
_LEVEL = Options().level


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceTimes:
    """The step times of one model that production is compared with, with draws of how far off they may be."""

    name: str
    times: StepTimes
    prefill_factor: Floats | None
    decode_factor: Floats | None


class Timings:
    """Takes requests in and keeps their latencies, in a fixed size."""

    def __init__(self, reference: ReferenceTimes | None = None) -> None:
        self._reference = reference
        self._requests: Counter[tuple[int, ...]] = Counter()
        """By kind: where its lengths lie in `EDGES`, and its start."""
        self._latencies = [defaultdict[tuple[int, ...], LogQuantiles](LogQuantiles) for _ in range(3)]
        """The same of times to first token, decode steps and end-to-end times."""
        self._last_seen: dict[str, float] = {}
        self._ratios = {"ttft": _Blocks(), "decode_step": _Blocks()}
        self._outside, self._asked = 0, 0
        self._batch_known = False

    def add(self, chunk: Requests) -> None:
        """Take a chunk of requests; those without any time count for nothing."""
        timed = (chunk.ttft_s > 0) | (chunk.e2e_s > 0)
        starts = self._starts(chunk)
        if not timed.any():
            return
        with np.errstate(invalid="ignore", divide="ignore"):
            step = (chunk.e2e_s - chunk.ttft_s) / (chunk.output_tokens - 1)
            step = np.where((chunk.output_tokens >= 2) & (step > 0), step, math.nan)
        self._batch_known |= bool(np.isfinite(chunk.batch_size).any())
        # The number of the bucket that each value lies in; -1 where it is not known.
        lengths = [(getattr(chunk, name), edges) for name, edges in EDGES.items()]
        parts = [np.where(np.isfinite(of), np.searchsorted(edges, of, side="right") - 1, -1) for of, edges in lengths]
        kinds, of = np.unique(np.stack([*parts, starts.astype(int)]), axis=1, return_inverse=True)
        for at, key in enumerate(kinds.T.tolist()):
            here = (of.reshape(-1) == at) & timed
            if here.any():
                self._requests[tuple(key)] += int(here.sum())
                for values, latencies in zip((chunk.ttft_s, step, chunk.e2e_s), self._latencies, strict=True):
                    latencies[tuple(key)].add(values[here & (values > 0)])
        if self._reference is not None:
            self._compare(self._reference, chunk, step, starts)

    def _starts(self, chunk: Requests) -> Floats:
        """The index in `_STARTS` of each request."""
        idle = chunk.idle_s
        if chunk.worker is not None:
            idle = np.where(np.isfinite(idle), idle, self._idle(chunk.worker, chunk.sent_at, chunk.e2e_s))
        known = np.isfinite(chunk.worker_age_s) | np.isfinite(idle)
        with np.errstate(invalid="ignore"):
            cold = (chunk.worker_age_s < COLD_AGE_S) | (idle >= COLD_IDLE_S)
        by_age = np.where(known, np.where(cold, 1.0, 0.0), 2.0)
        return np.where(np.isfinite(chunk.cold), chunk.cold, by_age)

    def _idle(self, workers: Sequence[str], sent_at: Floats, e2e_s: Floats) -> Floats:
        """Seconds since each worker's last request ended; NaN for the first that the log has of it."""
        idle = np.full(len(sent_at), math.nan)
        for at, (worker, sent, took) in enumerate(zip(workers, sent_at, np.nan_to_num(e2e_s), strict=True)):
            last = self._last_seen.get(worker)
            if last is not None:
                idle[at] = max(0.0, sent - last)
            self._last_seen[worker] = max(last or -math.inf, float(sent + took))
        return idle

    def _compare(self, reference: ReferenceTimes, chunk: Requests, step: Floats, starts: Floats) -> None:
        """Logged over predicted, of requests that are not cold and inside the measured range."""
        times, prompt = reference.times, chunk.prompt_tokens
        batch = np.where(np.isfinite(chunk.batch_size), chunk.batch_size, 1.0)
        more = np.maximum(chunk.output_tokens - 1, 0)
        for name, phase, logged, size, last in (
            ("ttft", times.prefill, chunk.ttft_s, np.ones_like(prompt), prompt),
            ("decode_step", times.decode, step, batch, prompt + more),
        ):
            middle = (prompt + last) / 2
            asked = (starts != 1) & (logged > 0) & np.isfinite(middle)
            self._asked += int(asked.sum())
            if phase is None:
                continue
            inside = asked & _inside(phase, size, prompt) & _inside(phase, size, last)
            self._outside += int((asked & ~inside).sum())
            predicted = phase.ms(size[inside], middle[inside]) / 1000.0
            self._ratios[name].add(np.log(logged[inside] / predicted))

    def document(self) -> dict[str, Any] | None:
        """The latencies as JSON; ``None`` where the log has no times."""
        if not self._requests:
            return None
        against, reference = None, self._reference
        if reference is not None:
            factors = {"ttft": reference.prefill_factor, "decode_step": reference.decode_factor}
            against = {
                "law": reference.name,
                "agrees_within": AGREES_WITHIN,
                "times_compared": self._asked,
                "outside_the_measured_range": self._outside,
                **{name: _ratio_row(blocks, factors[name]) for name, blocks in self._ratios.items()},
            }
        return {
            "cold_rule": f"called cold by the log, else worker age under {COLD_AGE_S:g} s or idle {COLD_IDLE_S:g} s",
            "batch_size_known": self._batch_known,
            "buckets": [self._bucket_row(key) for key in sorted(self._requests)],
            "against": against,
        }

    def _bucket_row(self, key: tuple[int, ...]) -> dict[str, Any]:
        ttft, step, e2e = ([each[key].quantile(share) for share in _SHARES.values()] for each in self._latencies)
        return {
            "start": _STARTS[key[-1]],
            **{name: _limits(at, edges) for at, (name, edges) in zip(key, EDGES.items(), strict=False)},
            "requests": self._requests[key],
            **{f"ttft_s_{name}": value for name, value in zip(_SHARES, ttft, strict=True)},
            "decode_tokens_per_s_p50": None if step[0] is None else 1 / step[0],
            "decode_tokens_per_s_p5": None if step[1] is None else 1 / step[1],
            **{f"e2e_s_{name}": value for name, value in zip(_SHARES, e2e, strict=True)},
        }


def _limits(at: int, edges: Sequence[int]) -> str | None:
    """A bucket in words; ``None`` where the log lacks the value."""
    if at < 0:
        return None
    return f"{edges[at]} and more" if at + 1 == len(edges) else f"{edges[at]} to {edges[at + 1] - 1}"


def _inside(phase: PhaseTime, batch: Floats, tokens: Floats) -> np.ndarray[Any, Any]:
    (fewest, most), (shortest, longest) = phase.batch, phase.tokens
    return (batch >= fewest) & (batch <= most) & (tokens >= shortest) & (tokens <= longest)


class _Blocks:
    """Means of consecutive blocks of a stream, between 32 and 64 of them: neighbours in time share their noise, so the
    scatter of blocks, not of requests, tells how sure the mean is."""

    def __init__(self) -> None:
        self._size, self.n = 1, 0
        self._blocks: list[float] = []
        self._rest: Floats = np.array([])

    def add(self, values: Floats) -> None:
        self.n += len(values)
        stream = np.concatenate([self._rest, values])
        while len(stream) >= self._size:
            whole = len(stream) // self._size
            taken = min(whole, 2 * _FEWEST_BLOCKS - len(self._blocks))
            self._blocks += stream[: taken * self._size].reshape(taken, self._size).mean(axis=1).tolist()
            stream = stream[taken * self._size :]
            if len(self._blocks) == 2 * _FEWEST_BLOCKS:
                self._blocks = np.array(self._blocks).reshape(_FEWEST_BLOCKS, 2).mean(axis=1).tolist()
                self._size *= 2
        self._rest = stream

    def mean_and_error(self) -> tuple[float, float]:
        """The mean and half the width of its t interval; NaN width of fewer than two blocks."""
        blocks = np.array(self._blocks)
        if len(blocks) < 2:
            return (float(blocks.mean()) if len(blocks) else math.nan), math.nan
        error = blocks.std(ddof=1) / math.sqrt(len(blocks))
        return float(blocks.mean()), float(error * stats.t.ppf(0.5 + _LEVEL / 2, len(blocks) - 1))


def _ratio_row(blocks: _Blocks, factor: Floats | None) -> dict[str, Any]:
    """Logged over predicted, with the noise of both; the verdict goes by the interval."""
    mean, error = blocks.mean_and_error()
    if factor is not None and factor.size > 1 and not np.isnan(factor).any():
        error = math.hypot(error, np.ptp(np.quantile(np.log(factor[1:]), [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2])) / 2)
    low, high, limit = mean - error, mean + error, math.log(AGREES_WITHIN)
    if not math.isfinite(mean):
        verdict = "not measured"
    elif not math.isfinite(error):
        verdict = "can't be told: too few requests"
    elif -limit <= low and high <= limit:
        verdict = "agrees"
    elif low > limit:
        verdict = "disagrees: production is slower"
    else:
        verdict = "disagrees: production is faster" if high < -limit else "can't be told: the interval holds both"
    figures = {"ratio": mean, "ratio_low": low, "ratio_high": high}
    ratios = {name: math.exp(value) if math.isfinite(value) else None for name, value in figures.items()}
    return {"requests": blocks.n, **ratios, "verdict": verdict}
