"""What production says of latency (TR121 9.1): time to first token apart from the decode rate, by kind of request and
by cold and warm starts, and whether it still agrees with the law that was measured.

A decode step is ``(e2e - TTFT) / (output tokens - 1)``, as everywhere here. Cold is what the log calls so; else a
request to a worker younger than `COLD_AGE_S`, or idle for `COLD_IDLE_S` and longer, as far as the log has either (the
time since a worker's last request is found from its rows where they name it).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
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

PROMPT_EDGES = (0, 128, 512, 2048, 8192)
OUTPUT_EDGES = (0, 64, 256, 1024)
BATCH_EDGES = (1, 2, 5, 9, 17, 33)
"""Where each bucket of lengths and of batch sizes begins."""

WARM, COLD, UNKNOWN = "warm", "cold", "not known"
_STARTS = (WARM, COLD, UNKNOWN)
_FEWEST_BLOCKS = 32
_LEVEL = Options().level


@dataclasses.dataclass
class _Bucket:
    ttft: LogQuantiles = dataclasses.field(default_factory=LogQuantiles)
    step: LogQuantiles = dataclasses.field(default_factory=LogQuantiles)
    e2e: LogQuantiles = dataclasses.field(default_factory=LogQuantiles)
    requests: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceTimes:
    """The step times of one model that production is held against, with draws of how far off they may be."""

    name: str
    times: StepTimes
    prefill_factor: Floats | None
    decode_factor: Floats | None


class Timings:
    """Takes requests in and tells their latencies; of fixed size."""

    def __init__(self, reference: ReferenceTimes | None = None) -> None:
        self._reference = reference
        self._buckets: dict[tuple[int, int, int, int], _Bucket] = {}
        self._last_seen: dict[str, float] = {}
        self._ratios = {"ttft": _Blocks(), "decode_step": _Blocks()}
        self._outside, self._asked = 0, 0
        self._batch_known = False

    def add(self, chunk: Requests) -> None:
        """Take a chunk of requests; those without any time say nothing."""
        timed = (chunk.ttft_s > 0) | (chunk.e2e_s > 0)
        starts = self._starts(chunk)
        if not timed.any():
            return
        with np.errstate(invalid="ignore", divide="ignore"):
            step = (chunk.e2e_s - chunk.ttft_s) / (chunk.output_tokens - 1)
            step = np.where((chunk.output_tokens >= 2) & (step > 0), step, math.nan)
        self._batch_known |= bool(np.isfinite(chunk.batch_size).any())
        self._into_buckets(chunk, step, starts, timed)
        if self._reference is not None:
            self._hold_against(chunk, step, starts)

    def _into_buckets(self, chunk: Requests, step: Floats, starts: Floats, timed: np.ndarray[Any, Any]) -> None:
        keys = np.stack(
            [
                _bucket(chunk.prompt_tokens, PROMPT_EDGES),
                _bucket(chunk.output_tokens, OUTPUT_EDGES),
                _bucket(chunk.batch_size, BATCH_EDGES),
                starts.astype(np.int64),
            ],
            axis=1,
        )
        kinds, of = np.unique(keys, axis=0, return_inverse=True)
        for at, key in enumerate(kinds):
            here = (of.reshape(-1) == at) & timed
            if not here.any():
                continue
            prompt, output, batch, start = (int(part) for part in key)
            bucket = self._buckets.setdefault((prompt, output, batch, start), _Bucket())
            bucket.requests += int(here.sum())
            for sketch, values in ((bucket.ttft, chunk.ttft_s), (bucket.step, step), (bucket.e2e, chunk.e2e_s)):
                known = values[here]
                sketch.add(known[known > 0])

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
        for at, worker in enumerate(workers):
            last = self._last_seen.get(worker)
            if last is not None:
                idle[at] = max(0.0, sent_at[at] - last)
            duration = e2e_s[at] if math.isfinite(e2e_s[at]) else 0.0
            self._last_seen[worker] = max(last or -math.inf, float(sent_at[at] + duration))
        return idle

    def _hold_against(self, chunk: Requests, step: Floats, starts: Floats) -> None:
        """Logged over predicted, of warm requests inside the measured range."""
        assert self._reference is not None
        warm = starts != 1
        batch = np.where(np.isfinite(chunk.batch_size), chunk.batch_size, 1.0)
        prompt, output = chunk.prompt_tokens, chunk.output_tokens
        middle = prompt + np.maximum(output - 1, 0) / 2
        alone = np.ones_like(prompt)
        for name, phase, logged, size, tokens, last in (
            ("ttft", self._reference.times.prefill, chunk.ttft_s, alone, prompt, prompt),
            ("decode_step", self._reference.times.decode, step, batch, middle, prompt + np.maximum(output - 1, 0)),
        ):
            asked = warm & (logged > 0) & np.isfinite(tokens)
            self._asked += int(asked.sum())
            if phase is None:
                continue
            inside = asked & _inside(phase, size, prompt) & _inside(phase, size, last)
            self._outside += int((asked & ~inside).sum())
            predicted = phase.ms(size[inside], tokens[inside]) / 1000.0
            self._ratios[name].add(np.log(logged[inside] / predicted))

    def document(self) -> dict[str, Any] | None:
        """The latencies as JSON; ``None`` where the log has no times."""
        if not self._buckets:
            return None
        return {
            "cold_rule": f"called cold by the log, else worker age under {COLD_AGE_S:g} s or idle {COLD_IDLE_S:g} s",
            "batch_size_known": self._batch_known,
            "buckets": [_bucket_row(key, bucket) for key, bucket in sorted(self._buckets.items())],
            "against": self._against(),
        }

    def _against(self) -> dict[str, Any] | None:
        if self._reference is None:
            return None
        factors = {"ttft": self._reference.prefill_factor, "decode_step": self._reference.decode_factor}
        return {
            "law": self._reference.name,
            "agrees_within": AGREES_WITHIN,
            "times_compared": self._asked,
            "outside_the_measured_range": self._outside,
            **{name: _ratio_row(blocks, factors[name]) for name, blocks in self._ratios.items()},
        }


def _bucket(values: Floats, edges: Sequence[int]) -> np.ndarray[Any, Any]:
    """The number of the bucket that each value lies in; -1 where there is none."""
    known = np.isfinite(values)
    return np.where(known, np.searchsorted(edges, np.where(known, values, 0), side="right") - 1, -1)


def _bucket_row(key: tuple[int, int, int, int], bucket: _Bucket) -> dict[str, Any]:
    prompt, output, batch, start = key
    step = bucket.step.quantile(0.5)
    slow = bucket.step.quantile(0.95)
    return {
        "start": _STARTS[start],
        "prompt_tokens": _limits(prompt, PROMPT_EDGES),
        "output_tokens": _limits(output, OUTPUT_EDGES),
        "batch_size": _limits(batch, BATCH_EDGES),
        "requests": bucket.requests,
        **{f"ttft_s_{name}": bucket.ttft.quantile(share) for name, share in _SHARES.items()},
        "decode_tokens_per_s_p50": None if step is None else 1 / step,
        "decode_tokens_per_s_p5": None if slow is None else 1 / slow,
        **{f"e2e_s_{name}": bucket.e2e.quantile(share) for name, share in _SHARES.items()},
    }


_SHARES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _limits(at: int, edges: Sequence[int]) -> str | None:
    """A bucket in words; ``None`` where the log does not tell the value."""
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
        self._size = 1
        self._blocks: list[float] = []
        self._rest: list[Floats] = []
        self._held = 0
        self.n = 0

    def add(self, values: Floats) -> None:
        self.n += len(values)
        self._rest.append(values)
        self._held += len(values)
        if self._held < self._size:
            return
        stream = np.concatenate(self._rest)
        while len(stream) >= self._size:
            whole = len(stream) // self._size
            taken = min(whole, 2 * _FEWEST_BLOCKS - len(self._blocks))
            self._blocks += stream[: taken * self._size].reshape(taken, self._size).mean(axis=1).tolist()
            stream = stream[taken * self._size :]
            if len(self._blocks) == 2 * _FEWEST_BLOCKS:
                self._blocks = np.array(self._blocks).reshape(_FEWEST_BLOCKS, 2).mean(axis=1).tolist()
                self._size *= 2
        self._rest, self._held = [stream], len(stream)

    def mean_and_error(self) -> tuple[float, float]:
        """The mean and half the width of its t interval; NaN width of fewer than two blocks."""
        blocks = np.array(self._blocks)
        if len(blocks) < 2:
            return (float(blocks.mean()) if len(blocks) else math.nan), math.nan
        error = blocks.std(ddof=1) / math.sqrt(len(blocks))
        return float(blocks.mean()), float(error * stats.t.ppf(0.5 + _LEVEL / 2, len(blocks) - 1))


def _ratio_row(blocks: _Blocks, factor: Floats | None) -> dict[str, Any]:
    """Logged over predicted, with the noise of both; the verdict goes by the whole interval."""
    mean, error = blocks.mean_and_error()
    if not math.isfinite(mean):
        return {"requests": blocks.n, "ratio": None, "ratio_low": None, "ratio_high": None, "verdict": "not measured"}
    of_reference = 0.0
    if factor is not None and not np.isnan(factor).any():
        low, high = np.quantile(np.log(factor[1:]), [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2])
        of_reference = float(high - low) / 2
    half = math.hypot(error, of_reference)
    row = {"requests": blocks.n, "ratio": math.exp(mean)}
    if not math.isfinite(half):
        return row | {"ratio_low": None, "ratio_high": None, "verdict": "can't be told: too few requests"}
    low, high, limit = mean - half, mean + half, math.log(AGREES_WITHIN)
    verdict = "can't be told: the interval holds both"
    if -limit <= low and high <= limit:
        verdict = "agrees"
    elif low > limit:
        verdict = "disagrees: production is slower"
    elif high < -limit:
        verdict = "disagrees: production is faster"
    return row | {"ratio_low": math.exp(low), "ratio_high": math.exp(high), "verdict": verdict}
