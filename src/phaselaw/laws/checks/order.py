"""Checks of a run's course: drift over the order of its calls, throttling inside a cell (method 3)."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from phaselaw.laws import summary
from phaselaw.laws.checks.findings import ALL_PHASES, GROUP_OF_MODEL, Checked, Evidence, Finding, Where
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET

DRIFT, THROTTLING = "drift", "throttling"

FALSE_ALARMS = 0.01
ALPHA = FALSE_ALARMS / 2
"""The tests take noise to be normal; half the stated rate is left to what it is not."""
LEAST = 0.05
"""A drift or a slowdown of less than this over its whole length is left alone."""

_BACKEND = ["backend", "batch_size"]
_CELL = [*GROUP_OF_MODEL, "scenario"]


def drift(evidence: Evidence) -> Checked:
    """Latency that grows or falls with the order of the calls, beyond cells and rounds.

    Where calls ran in rounds: each call's log latency on its place, with a level of its own for each cell and each
    round, so that what a round does to all cells is no drift. Where a cell's calls ran back to back: each cell's log
    median on its place, with a level for each model and each scenario. A t test of the slope.
    """
    findings, n = [], 0
    for key, rows in _end_to_end(evidence).group_by([*_BACKEND, "run"], maintain_order=True):
        slope, p = _drift_over_cells(rows) if back_to_back(rows) else _drift_in_rounds(rows)
        n += math.isfinite(p)
        if p < ALPHA and abs(math.expm1(slope)) >= LEAST:
            findings.append(
                Finding(
                    check=DRIFT,
                    status="found",
                    where=Where(backend=str(key[0]), batch_size=key[1]),
                    modes=ALL_PHASES,
                    value=math.expm1(slope),
                    evidence=f"end-to-end latency changed by {math.expm1(slope):+.0%} from the first call to the last "
                    f"(p {p:.2g})",
                    next_step="look for heat, a busy neighbour or a growing process; measure again on a quiet machine",
                )
            )
    return Checked(
        check=DRIFT,
        unit="backends",
        n_checked=n,
        findings=tuple(findings),
        false_alarm_rate=FALSE_ALARMS,
        rests_on="if calls scatter independently of each other",
        not_checked=None if n else "too few cells or rounds to tell a drift from their own levels",
    )


def _end_to_end(evidence: Evidence) -> pl.DataFrame:
    """Measured end-to-end rows in the order they ran, with their ``place`` among all calls of their run."""
    needed = (*_CELL, "run", "rep", "status", "latency_ms", "concurrency", "is_warmup", "call_idx", "started_at_unix")
    calls = (
        evidence.run.rows.lazy().filter((pl.col("mode") == "e2e_kv") & ~pl.col("is_warmup")).select(needed).collect()
    )
    order = "call_idx" if calls["call_idx"].null_count() == 0 else "started_at_unix"
    if calls[order].null_count():
        return evidence.measured.clear().with_columns(pl.lit(0.0).alias("place"))
    place = pl.col(order).rank("dense")
    placed = calls.with_columns(place.over("run").alias("place"))
    return summary.usable(placed).with_columns(pl.col("place").cast(pl.Float64)).sort("place")


def back_to_back(rows: pl.DataFrame) -> bool:
    """Whether the calls of a cell ran one after the other, as their places tell, whatever a manifest says."""
    place = pl.col("place")
    spans = rows.group_by([*_CELL, "run"]).agg(
        ((place.max() - place.min() + 1) / pl.len()).alias("span"), pl.len().alias("n")
    )
    typical = spans.filter(pl.col("n") > 1)["span"].to_numpy()
    return len(typical) == 0 or float(np.median(typical)) <= 1.5


def _drift_in_rounds(rows: pl.DataFrame) -> tuple[float, float]:
    kept = rows.filter(pl.col("rep").is_not_null())
    return _trend(
        kept["place"].to_numpy(), np.log(kept["latency_ms"].to_numpy()), [_codes(kept, _CELL), _codes(kept, ["rep"])]
    )


def _drift_over_cells(rows: pl.DataFrame) -> tuple[float, float]:
    cells = rows.group_by(_CELL, maintain_order=True).agg(
        pl.col("place").mean(), pl.col("latency_ms").median().log().alias("log")
    )
    levels = [_codes(cells, ["model"]), _codes(cells, ["scenario", BUDGET])]
    return _trend(cells["place"].to_numpy(), cells["log"].to_numpy(), levels)


def _codes(rows: pl.DataFrame, columns: list[str]) -> NDArray[np.int64]:
    """Which level of the columns, taken together, each row has: 0, 1, ..."""
    codes = np.zeros(rows.height, dtype=np.int64)
    for name in columns:
        # Texts by their codes: ranking a million texts takes seconds.
        column = rows[name].cast(pl.Categorical).to_physical() if rows.schema[name] == pl.String else rows[name]
        own = np.unique(column.cast(pl.Float64).fill_null(-1.0).to_numpy(), return_inverse=True)[1]
        codes = np.unique(codes * (own.max(initial=0) + 1) + own, return_inverse=True)[1]
    return codes


def _trend(place: Floats, y: Floats, levels: list[NDArray[np.int64]]) -> tuple[float, float]:
    """Change of ``y`` over the whole span of ``place`` with the levels taken out, and its p; NaN where untestable."""
    n = len(y)
    degrees = n - 1 - sum(int(codes.max(initial=-1)) for codes in levels) - 1
    span = float(np.ptp(place)) if n else 0.0
    if degrees < 3 or span <= 0:
        return math.nan, math.nan
    x, y = _without_levels(place / span, levels), _without_levels(y, levels)
    sxx = float(x @ x)
    if sxx < 1e-9 * n:
        return math.nan, math.nan
    slope = float(x @ y) / sxx
    residual = y - slope * x
    se = math.sqrt(float(residual @ residual) / degrees / sxx)
    return slope, float(2 * stats.t.sf(abs(slope) / se, degrees)) if se > 0 else float(slope == 0)


def _without_levels(values: Floats, levels: list[NDArray[np.int64]]) -> Floats:
    """What is left of values when each level's mean is taken out, of one grouping after the other until it settles."""
    left: Floats = values - values.mean()
    for _ in range(200):
        before = left
        for codes in levels:
            left = left - (np.bincount(codes, left) / np.maximum(np.bincount(codes), 1))[codes]
        if np.abs(left - before).max() <= 1e-9 * max(1.0, float(np.abs(values).max())):
            break
    return left


def throttling(evidence: Evidence) -> Checked:
    """Calls that slow down inside their cell, over all cells of a backend whose calls ran back to back."""
    findings, n = [], 0
    for key, rows in _end_to_end(evidence).group_by(_BACKEND, maintain_order=True):
        cells = rows.group_by([*_CELL, "run"], maintain_order=True)
        rises = np.array([rise for _, cell in cells for rise in _rise(cell)])
        if len(rises) < 5 or not back_to_back(rows):
            continue
        n += 1
        mean, se = float(rises.mean()), float(rises.std(ddof=1)) / math.sqrt(len(rises))
        p = float(stats.t.sf(mean / se, len(rises) - 1)) if se > 0 else float(mean <= 0)
        if p < ALPHA and math.expm1(mean) >= LEAST:
            findings.append(
                Finding(
                    check=THROTTLING,
                    status="found",
                    where=Where(backend=str(key[0]), batch_size=key[1]),
                    modes=ALL_PHASES,
                    value=math.expm1(mean),
                    evidence=f"calls grow {math.expm1(mean):.0%} slower from a cell's first to its last, over "
                    f"{len(rises)} cells (p {p:.2g})",
                    next_step="watch the clock rate and temperature; measure in rounds (order: rounds), with pauses",
                )
            )
    return Checked(
        check=THROTTLING,
        unit="backends",
        n_checked=n,
        findings=tuple(findings),
        false_alarm_rate=FALSE_ALARMS,
        rests_on="if calls scatter independently of each other",
        not_checked=None
        if n
        else "no five cells with three calls or more, back to back (in rounds a slowdown is drift)",
    )


def _rise(cell: pl.DataFrame) -> list[float]:
    """The rise of log latency from a cell's first call to its last along a least-squares line; none below 3 calls."""
    if cell.height < 3:
        return []
    place = np.arange(cell.height) - (cell.height - 1) / 2
    log = np.log(cell["latency_ms"].to_numpy())
    return [float(place @ log / (place @ place)) * (cell.height - 1)]
