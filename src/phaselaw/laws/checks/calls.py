"""Checks of calls: drift, throttling, too few repetitions, cells that are not comparable (method 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count, pairwise, product
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from phaselaw.laws import summary
from phaselaw.laws.checks.frame import CELL, GROUP_OF_MODEL, Evidence, Finding, Findings, Where, check
from phaselaw.laws.noise import ALL
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET, GROUP, median_variance
from phaselaw.machine.identity import host_differences
from phaselaw.tables import Row, grouped

FALSE_ALARMS = 0.01
ALPHA = FALSE_ALARMS / 2
"""The tests assume normal noise; the other half of the stated rate allows for noise that is not."""
LEAST = 0.05
"""A drift or a slowdown of less than this from first to last call is not reported."""
WANTED = 0.10
"""A median should be known to this, half the width of its 95 % interval."""
SPREAD_ALPHA = 0.05
_PART = [*CELL, "run", "replicate"]
"""A cell as one process measured it."""
INDEPENDENT = "if calls scatter independently of each other"


@check(
    "drift",
    unit="backends",
    false_alarm_rate=FALSE_ALARMS,
    rests_on=INDEPENDENT,
    not_checked="too few cells or rounds to tell a drift from their own levels",
)
def drift(evidence: Evidence) -> Findings:
    """Latency that grows or falls with the order of the calls, beyond cells and rounds.

    Where calls ran in rounds: each call's log latency on its place, with a level of its own for each cell and each
    round, so that what a round does to all cells is no drift. Where a cell's calls ran back to back: each cell's log
    median on its place, with a level for each model and each scenario. A t test of the slope.
    """
    n = 0
    for key, rows in grouped(_end_to_end(evidence), ["backend", "batch_size", "run"]):
        if not back_to_back(rows):
            slope, p = _trend(rows.filter(pl.col("rep").is_not_null()), CELL, ["replicate", "rep"])
        else:
            cells = rows.group_by(CELL, maintain_order=True).agg(pl.col("place").mean(), pl.col("latency_ms").median())
            slope, p = _trend(cells, ["model"], ["scenario", BUDGET])
        n += math.isfinite(p)
        change = math.expm1(slope)
        if p < ALPHA and abs(change) >= LEAST:
            yield Finding(
                where=Where.of(key),
                value=change,
                evidence=f"end-to-end latency changed by {change:+.0%} from the first call to the last (p {p:.2g})",
                next_step="look for heat, a busy neighbour or a growing process; measure again on a quiet machine",
            )
    return n


def _end_to_end(evidence: Evidence) -> pl.DataFrame:
    """Measured end-to-end rows in the order they ran, with their ``place`` among all calls of their run."""
    needed = (*_PART, "rep", "status", "latency_ms", "concurrency", "is_warmup", "call_idx", "started_at_unix")
    rows = evidence.run.rows.lazy().filter((pl.col("mode") == "e2e_kv") & ~pl.col("is_warmup"))
    calls = rows.select(needed).collect()
    order = "call_idx" if calls["call_idx"].null_count() == 0 else "started_at_unix"
    if calls[order].null_count():
        return evidence.measured.clear().with_columns(pl.lit(0.0).alias("place"))
    place = pl.col(order).rank("dense").over("run").cast(pl.Float64)
    return summary.usable(calls.with_columns(place=place)).sort("place")


def back_to_back(rows: pl.DataFrame) -> bool:
    """Whether the calls of a cell ran one after the other, as their places tell, whatever a manifest says.

    Replicates of one repetition are rounds.
    """
    place = pl.col("place")
    several = rows.group_by(_PART).agg(span=(place.max() - place.min() + 1) / pl.len(), n=pl.len())
    typical = several.filter(pl.col("n") > 1)["span"].median()
    return rows["replicate"].n_unique() < 2 if typical is None else cast(float, typical) <= 1.5


def _trend(rows: pl.DataFrame, *columns: Sequence[str]) -> tuple[float, float]:
    """Change of log latency over the whole span of ``place``, and its p; NaN where untestable.

    Each group of rows that are alike in some columns gets a level of its own, which is taken out first.
    """
    place, y = rows["place"].to_numpy(), rows["latency_ms"].log().to_numpy()
    first = rows.with_row_index("at").select(pl.col("at").first().over(names).alias(str(names)) for names in columns)
    levels = [np.unique(each.to_numpy(), return_inverse=True)[1] for each in first]
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


def _without_levels(values: Floats, levels: Sequence[NDArray[np.int64]]) -> Floats:
    """The values minus the mean of each level, one grouping after the other until nothing changes."""
    left: Floats = values - values.mean()
    for _ in range(200):
        before = left
        for codes in levels:
            left = left - (np.bincount(codes, left) / np.maximum(np.bincount(codes), 1))[codes]
        if np.abs(left - before).max() <= 1e-9 * max(1.0, float(np.abs(values).max())):
            break
    return left


@check(
    "throttling",
    unit="backends",
    false_alarm_rate=FALSE_ALARMS,
    rests_on=INDEPENDENT,
    not_checked="no five cells with three calls or more, back to back (in rounds a slowdown is drift)",
)
def throttling(evidence: Evidence) -> Findings:
    """Calls that slow down inside their cell, over all cells of a backend whose calls ran back to back."""
    n = 0
    for key, rows in grouped(_end_to_end(evidence), ["backend", "batch_size"]):
        rises = _rises(rows)
        if len(rises) < 5 or not back_to_back(rows):
            continue
        n += 1
        mean, se = float(rises.mean()), float(rises.std(ddof=1)) / math.sqrt(len(rises))
        p = float(stats.t.sf(mean / se, len(rises) - 1)) if se > 0 else float(mean <= 0)
        growth = math.expm1(mean)
        if p < ALPHA and growth >= LEAST:
            yield Finding(
                where=Where.of(key),
                value=growth,
                evidence=f"calls grow {growth:.0%} slower from a cell's first to its last, over {len(rises)} cells "
                f"(p {p:.2g})",
                next_step="watch the clock rate and temperature; measure in rounds (order: rounds), with pauses",
            )
    return n


def _rises(rows: pl.DataFrame) -> Floats:
    """Of each cell of 3 calls or more, the rise of log latency from its first to its last along its regression line."""
    at, log = pl.int_range(pl.len()).cast(pl.Float64), pl.col("latency_ms").log()
    rise = (at - at.mean()).dot(log) / (at - at.mean()).dot(at) * (pl.len() - 1)
    cells = rows.group_by(_PART, maintain_order=True).agg(n=pl.len(), rise=rise)
    rises: Floats = cells.filter(pl.col("n") >= 3)["rise"].to_numpy()
    return rises


@check(
    "too few repetitions",
    unit="phases of backends",
    false_alarm_rate=SPREAD_ALPHA,
    rests_on=INDEPENDENT,
    not_checked="no measured calls",
)
def repetitions(evidence: Evidence) -> Findings:
    """Cells, or all cells of a backend and phase, with too few calls for how much these scatter.

    Reported where even the low end of the scatter's interval (chi-square, Bonferroni over the phase and its cells)
    leaves the median's half-width above `WANTED`, and where there is one call a cell, so that the spread is unknown.
    """
    cells = evidence.measured.group_by([*CELL, "mode"], maintain_order=True).agg(
        n=pl.len(), variance=pl.col("latency_ms").log().var()
    )
    groups = 0
    for key, group in grouped(cells, [name for name in GROUP if name != "backend_kind"]):
        groups += 1
        several = group.filter(pl.col("n") > 1)
        if several.is_empty():
            yield Finding(
                status="caution",
                where=Where.of(key),
                modes=(key["mode"],),
                value=1.0,
                evidence="one call a cell: its spread is unknown",
                next_step="give the study 3 repetitions or more",
            )
            continue
        calls, variances = several["n"].to_numpy(), several["variance"].to_numpy()
        degrees = int((calls - 1).sum())
        pooled = key | {"n": int(calls.min()), "variance": float((variances * (calls - 1)).sum() / degrees)}
        if _too_few(pooled, degrees, SPREAD_ALPHA / 2):
            yield _scattered(pooled)
            continue
        alpha = SPREAD_ALPHA / 2 / several.height
        yield from (_scattered(row) for row in several.iter_rows(named=True) if _too_few(row, row["n"] - 1, alpha))
    return groups


def known_to(variance: float, n: int) -> float:
    """Half the width of a 95 % interval of the median of ``n`` calls, as a share; ``variance`` is of log latency."""
    return math.expm1(1.96 * math.sqrt(variance * median_variance(n)))


def _too_few(row: Row, degrees: int, alpha: float) -> bool:
    low = row["variance"] * degrees / float(stats.chi2.ppf(1 - alpha, degrees))
    return known_to(low, row["n"]) > WANTED


def _scattered(row: Row) -> Finding:
    variance, n = row["variance"], row["n"]
    spread = math.expm1(math.sqrt(variance))
    needed = next(calls for calls in count(1) if known_to(variance, calls) <= WANTED or calls == 10_000)
    return Finding(
        status="caution",
        where=Where.of(row),
        modes=(row["mode"],),
        value=spread,
        evidence=f"calls scatter by {spread:.0%} (standard deviation); the median of {n} is known to "
        f"{known_to(variance, n):.0%}",
        next_step=f"about {needed} repetitions would make that {WANTED:.0%}, or a quieter machine",
    )


@check(
    "cells not comparable",
    unit="models",
    rests_on="it is what the manifest and the rows say",
    not_checked="no measured calls",
)
def comparable(evidence: Evidence) -> Findings:
    """Models that lack scenarios, and cells of one model that differ in its size or weights, prompt, host or study."""
    yield from _incomplete(evidence)
    for row, differs, next_step in (*_several_values(evidence), *_changed(evidence)):
        yield Finding(where=Where.of(row), evidence=differs, next_step=next_step)
    return evidence.per_model.select("backend", "batch_size", "model").n_unique()


def _incomplete(evidence: Evidence) -> Iterator[Finding]:
    """Models that lack a scenario which others of the backend have: they failed on it, or it was never asked."""
    lacking = evidence.per_model.filter(pl.col("incomplete").is_not_null())
    for row, phases in grouped(lacking, [*GROUP_OF_MODEL, "incomplete"]):
        failed = evidence.run.rows.filter(
            pl.col("status") != "ok", *(pl.col(key) == row[key] for key in ("backend", "model"))
        )
        said = f"; {failed.height} of its rows failed" if failed.height else ""
        yield Finding(
            where=Where.of(row, scenario=ALL),
            modes=tuple(phases["mode"]),
            evidence=f"it {row['incomplete']}, which others have{said}: its figures over all scenarios are by its own "
            "and by what the others take for the rest",
            next_step="measure what it lacks, or compare single scenarios only (scaling_fits has a law of each)",
        )


Differing = Iterator[tuple[Row, str, str]]
"""The rows that differ, by name; in what; and the next step."""


def _several_values(evidence: Evidence) -> Differing:
    """Models of several sizes, settings or weights under one name, and scenarios of several prompts."""
    per_model, models, measured = evidence.per_model, evidence.run.models, evidence.measured
    for row, group in grouped(per_model, ["backend", "batch_size", "model"]):
        sizes = _distinct(group, "params_millions_effective")
        if len(sizes) > 1:
            listed = ", ".join(f"{size:g} M" for size in sizes)
            yield row, f"one name, {len(sizes)} sizes: {listed}", "give each model a name of its own"
    known = set(per_model.select("backend", "model").iter_rows())
    if "backend" in models.columns:
        for row, group in grouped(models, ["backend", "model"]):
            for name in ("device", "dtype", "quantization_level", "weights_sha256"):
                values = [str(value)[:16] for value in _distinct(group, name)]
                if len(values) > 1 and tuple(row.values()) in known:
                    differs = f"one name, several settings ({name}): {', '.join(values)}"
                    yield row, differs, "measure each setting as a backend of its own"
    if "prompt" in measured.columns:
        for row, group in grouped(measured.filter(pl.col("mode") == pl.col("mode").first()), ["backend", "scenario"]):
            n = group["prompt"].drop_nulls().n_unique()
            if n > 1:
                yield row, f"one scenario, {n} prompts", "give each prompt a scenario of its own"


def _distinct(rows: pl.DataFrame, name: str) -> list[Any]:
    """The values of a column that the rows may lack, each once, in order."""
    return rows[name].drop_nulls().unique().sort().to_list() if name in rows.columns else []


def _changed(evidence: Evidence) -> Differing:
    """What changed between the processes of a resumed run, by its manifest."""
    processes = [entry for entry in evidence.manifest.get("processes") or [] if isinstance(entry, dict)]
    changes: list[str] = []
    for before, after in pairwise(processes):
        changes += host_differences(before.get("host") or {}, after.get("host") or {})
        changes += ["the study"] if before.get("study_sha256") != after.get("study_sha256") else []
    next_step = "measure it again in one go, or compare only cells of one process (column process_idx)"
    backends = evidence.per_model["backend"].unique(maintain_order=True)
    for changed, backend in product(dict.fromkeys(changes), backends):
        yield {"backend": backend}, f"the run was resumed after a change: {changed}", next_step
