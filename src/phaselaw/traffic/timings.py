"""Latencies of production (TR121 9.1): time to first token apart from the decode rate, by kind of request and
by cold and warm starts, and whether it still agrees with the law that was measured.

A decode step is ``(e2e - TTFT) / (output tokens - 1)``, as everywhere here. Cold is what the log calls so; else a
request to a worker younger than `COLD_AGE_S`, or idle for `COLD_IDLE_S` and longer, as far as the log has either (the
time since a worker's last request is found from its rows where they name it).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from phaselaw.laws.options import Options
from phaselaw.laws.rates import draws_of
from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import StepTimes
from phaselaw.traffic.log import Log

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
_BLOCKS = 48
"""Parts of the log, of equally many requests."""
_LEVEL = Options().level
_FETCHED = 200_000
_LAST_SEEN = "max(sent + coalesce(e2e, 0)) OVER (PARTITION BY worker ORDER BY sent ROWS BETWEEN UNBOUNDED PRECEDING "
_LAST_SEEN += "AND 1 PRECEDING)"
_TIMED = f"""
CREATE OR REPLACE VIEW timed AS SELECT sent, prompt, prompt - coalesce(cached, 0) AS fresh, output,
batch_size, ttft, e2e,
CASE WHEN output >= 2 AND e2e > ttft THEN (e2e - ttft) / (output - 1) END AS step,
CASE WHEN called_cold THEN 1 WHEN NOT called_cold THEN 0 WHEN worker_age IS NULL AND idle IS NULL THEN 2
WHEN worker_age < {COLD_AGE_S} OR idle >= {COLD_IDLE_S} THEN 1 ELSE 0 END AS started
FROM (SELECT * REPLACE (%s AS idle) FROM requests) WHERE ttft > 0 OR e2e > 0"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceTimes:
    """The step times of one model that production is compared with, with draws of how far off they may be."""

    name: str
    times: StepTimes
    prefill_factor: Floats | None
    decode_factor: Floats | None


def timings(log: Log, reference: ReferenceTimes | None = None) -> dict[str, Any] | None:
    """The latencies of a log as JSON; ``None`` where it has no times."""
    idle = f"coalesce(idle, sent - {_LAST_SEEN})" if "worker" in log.columns.names else "idle"
    log.ask(_TIMED % idle)
    parts = [
        f"coalesce({' + '.join(f'({name} >= {edge})::INT' for edge in edges)} - 1, -1)"
        for name, edges in zip(("prompt", "output", "batch_size"), EDGES.values(), strict=True)
    ]
    key = f"[{', '.join(parts)}, started]"
    counts = {tuple(at): n for at, n in log.ask(f"SELECT {key}, count(*) FROM timed GROUP BY 1 ORDER BY 1")}
    if not counts:
        return None
    latencies = [_quantiles(log, key, name) for name in ("ttft", "step", "e2e")]
    return {
        "cold_rule": f"called cold by the log, else worker age under {COLD_AGE_S:g} s or idle {COLD_IDLE_S:g} s",
        "batch_size_known": any(at[2] >= 0 for at in counts),
        "buckets": [_bucket_row(at, n, [each.get(at, {}) for each in latencies]) for at, n in counts.items()],
        "against": None if reference is None else _against(log, reference),
    }


def _quantiles(log: Log, key: str, name: str) -> dict[tuple[int, ...], dict[str, float]]:
    """Quantiles by bucket, between the two nearest values in proportion; sorted on disk where they are many."""
    count = f"count(*) OVER (PARTITION BY {key}) AS n"
    rank = f"row_number() OVER (PARTITION BY {key} ORDER BY {name}) - 1 AS rank"
    ranked = f"SELECT {key} AS slot, {name} AS x, {rank}, {count} FROM timed WHERE {name} > 0"
    shares = ", ".join(f"sum(x * greatest(0, 1 - abs(rank - {share} * (n - 1))))" for share in _SHARES.values())
    rows = log.ask(f"SELECT slot, {shares} FROM ({ranked}) GROUP BY slot")
    return {tuple(at): dict(zip(_SHARES, values, strict=True)) for at, *values in rows}


def _bucket_row(key: tuple[int, ...], requests: int, latencies: Sequence[dict[str, float]]) -> dict[str, Any]:
    ttft, step, e2e = latencies
    return {
        "start": _STARTS[key[-1]],
        **{name: _limits(at, edges) for at, (name, edges) in zip(key, EDGES.items(), strict=False)},
        "requests": requests,
        **{f"ttft_s_{name}": ttft.get(name) for name in _SHARES},
        "decode_tokens_per_s_p50": 1 / step["p50"] if step else None,
        "decode_tokens_per_s_p5": 1 / step["p95"] if step else None,
        **{f"e2e_s_{name}": e2e.get(name) for name in _SHARES},
    }


def _limits(at: int, edges: Sequence[int]) -> str | None:
    """A bucket in words; ``None`` where the log lacks the value."""
    if at < 0:
        return None
    return f"{edges[at]} and more" if at + 1 == len(edges) else f"{edges[at]} to {edges[at + 1] - 1}"


def _against(log: Log, reference: ReferenceTimes) -> dict[str, Any]:
    """Logged over predicted, of requests that are not cold and inside the measured range.

    Prompt tokens that a cache held are not prefilled.
    """
    [(total,)] = log.ask("SELECT count(*) FROM timed")
    statement = "SELECT prompt, fresh, output, batch_size, ttft, step, started FROM timed ORDER BY sent"
    result, seen, asked, outside = log.result(statement), 0, 0, 0
    sums = {name: np.zeros((2, _BLOCKS)) for name in ("ttft", "decode_step")}
    phases = {"ttft": reference.times.get("prefill"), "decode_step": reference.times.get("kv_decode")}
    while rows := result.fetchmany(_FETCHED):
        prompt, fresh, output, batch, *logged, started = np.array(rows, dtype=float).T
        block = (seen + np.arange(len(rows))) * _BLOCKS // total
        seen += len(rows)
        sizes = np.ones_like(prompt), np.nan_to_num(batch, nan=1.0)
        spans = (fresh, fresh), (prompt, prompt + np.maximum(output - 1, 0))
        for (name, phase), values, size, (begin, last) in zip(phases.items(), logged, sizes, spans, strict=True):
            wanted = (started != 1) & (values > 0)
            asked += int(wanted.sum())
            if phase is None:
                continue
            inside = wanted & phase.inside(size, begin) & phase.inside(size, last)
            outside += int((wanted & ~inside).sum())
            ratios = np.log(values[inside] * 1000 / phase.ms(size[inside], (begin + last)[inside] / 2))
            sums[name] += [np.bincount(block[inside], weights, minlength=_BLOCKS) for weights in (None, ratios)]
    factors = {"ttft": reference.prefill_factor, "decode_step": reference.decode_factor}
    return {
        "law": reference.name,
        "agrees_within": AGREES_WITHIN,
        "times_compared": asked,
        "outside_the_measured_range": outside,
        **{name: _ratio_row(of[0], of[1], factors[name]) for name, of in sums.items()},
    }


def _ratio_row(counts: Floats, totals: Floats, factor: Floats | None) -> dict[str, Any]:
    """Logged over predicted, with the noise of both; the verdict goes by the interval.

    Neighbours in time share their noise: the scatter of the log's parts, not of requests, tells how sure the mean is.
    """
    blocks = totals[counts > 0] / counts[counts > 0]
    mean, error = float(blocks.mean()) if len(blocks) else math.nan, math.nan
    if len(blocks) > 1:
        error = float(blocks.std(ddof=1) / math.sqrt(len(blocks)) * special.stdtrit(len(blocks) - 1, 0.5 + _LEVEL / 2))
    known = [] if factor is None else [each for each in draws_of(factor) if each.size and not np.isnan(each).any()]
    if known:  # that of one more run, else of this run only
        error = math.hypot(error, np.ptp(np.quantile(np.log(known[0]), [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2])) / 2)
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
    return {"requests": int(counts.sum()), **ratios, "verdict": verdict}
