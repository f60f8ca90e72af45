"""Checks of a run's course: drift over its order, throttling inside a cell, spread, cells not comparable (method 3)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET, median_variance
from phaselaw.laws.validity.findings import ALL_PHASES, GROUP_OF_MODEL, Checked, Evidence, Finding, Where
from phaselaw.telemetry import host_differences

DRIFT, THROTTLING, REPETITIONS, COMPARABLE = (
    "drift",
    "throttling",
    "too few repetitions",
    "cells not comparable",
)

ALPHA = 0.01
LEAST = 0.05
"""A drift or a slowdown of less than this over its whole length is left alone."""
WANTED = 0.10
"""A median should be known to this, half the width of its 95 % interval."""
SPREAD_ALPHA = 0.05

_BACKEND = ["backend", "batch_size"]
_CELL = [*GROUP_OF_MODEL, "scenario"]


def drift(evidence: Evidence) -> Checked:
    """Latency that grows or falls with the order of the calls, beyond cells and rounds.

    In order ``rounds``: each call's log latency on its place, with a level of its own for each cell and each round, so
    that what a round does to all cells is no drift. In order ``cells``: each cell's log median on its place, with a
    level for each model and each scenario. A t test of the slope.
    """
    findings, n = [], 0
    for key, rows in _end_to_end(evidence).group_by(_BACKEND, maintain_order=True):
        if evidence.run.order == "rounds":
            slope, p = _drift_in_rounds(rows)
        else:
            slope, p = _drift_over_cells(rows)
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
        false_alarms=f"at most {ALPHA:.0%} a backend",
        not_checked=None if n else "too few cells or rounds to tell a drift from their own levels",
    )


def _end_to_end(evidence: Evidence) -> pl.DataFrame:
    """Measured end-to-end rows in the order they ran."""
    rows = evidence.measured.filter(pl.col("mode") == "e2e_kv")
    if "call_idx" not in rows.columns or rows["call_idx"].null_count():
        return rows.clear().with_columns(pl.lit(0.0).alias("place"))
    return rows.sort("call_idx").with_columns(pl.col("call_idx").cast(pl.Float64).alias("place"))


def _drift_in_rounds(rows: pl.DataFrame) -> tuple[float, float]:
    kept = rows.filter(pl.col("rep").is_not_null())
    return _trend(
        kept["place"].to_numpy(),
        np.log(kept["latency_ms"].to_numpy()),
        [_codes(kept, _CELL), _codes(kept, ["rep"])],
    )


def _drift_over_cells(rows: pl.DataFrame) -> tuple[float, float]:
    cells = rows.group_by(_CELL, maintain_order=True).agg(
        pl.col("place").mean(), pl.col("latency_ms").median().log().alias("log")
    )
    levels = [_codes(cells, ["model"]), _codes(cells, ["scenario", BUDGET])]
    return _trend(cells["place"].to_numpy(), cells["log"].to_numpy(), levels)


def _codes(rows: pl.DataFrame, columns: list[str]) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = rows.select(pl.struct(columns).rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
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
        if np.abs(left - before).max() <= 1e-12 * max(1.0, float(np.abs(values).max())):
            break
    return left


def throttling(evidence: Evidence) -> Checked:
    """Calls that slow down inside their cell, over all cells of a backend whose calls ran back to back."""
    if evidence.run.order != "cells":
        return Checked(
            check=THROTTLING,
            unit="backends",
            n_checked=0,
            false_alarms=f"at most {ALPHA:.0%} a backend",
            not_checked="calls of a cell did not run back to back (order: rounds); a slowdown shows as drift",
        )
    findings, n = [], 0
    for key, rows in _end_to_end(evidence).group_by(_BACKEND, maintain_order=True):
        rises = np.array([rise for _, cell in rows.group_by(_CELL, maintain_order=True) for rise in _rise(cell)])
        if len(rises) < 5:
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
        false_alarms=f"at most {ALPHA:.0%} a backend",
        not_checked=None if n else "fewer than five cells with three calls or more",
    )


def _rise(cell: pl.DataFrame) -> list[float]:
    """The rise of log latency from a cell's first call to its last along a least-squares line; none below 3 calls."""
    if cell.height < 3:
        return []
    place = np.arange(cell.height) - (cell.height - 1) / 2
    log = np.log(cell["latency_ms"].to_numpy())
    return [float(place @ log / (place @ place)) * (cell.height - 1)]


def repetitions(evidence: Evidence) -> Checked:
    """Cells, and whole backends and phases, whose calls scatter too much for their number.

    Spoken up where even the low end of the scatter (chi-square, Bonferroni over what is looked at) leaves the median
    known to worse than `WANTED`; a spread that can't be seen, from one call a cell, is named too.
    """
    log = pl.col("latency_ms").log()
    cells = evidence.measured.group_by([*_CELL, "mode"], maintain_order=True).agg(
        pl.len().alias("n"), log.var().alias("variance")
    )
    findings, groups = [], 0
    for key, group in cells.group_by(["backend", "batch_size", BUDGET, "mode"], maintain_order=True):
        groups += 1
        where = Where(backend=str(key[0]), batch_size=key[1], gen_tokens_target=key[2])
        several = group.filter(pl.col("n") > 1)
        if several.is_empty():
            findings.append(_single(where, str(key[3])))
            continue
        degrees = (several["n"] - 1).to_numpy()
        fewest = int(several["n"].to_numpy().min())
        pooled = float((several["variance"].to_numpy() * degrees).sum() / degrees.sum())
        if known_to(_low_end(pooled, int(degrees.sum()), SPREAD_ALPHA), fewest) > WANTED:
            findings.append(_scattered(where, str(key[3]), pooled, fewest))
            continue
        for row in several.iter_rows(named=True):
            low = _low_end(row["variance"], row["n"] - 1, SPREAD_ALPHA / cells.height)
            if known_to(low, row["n"]) > WANTED:
                one = Where(**{**_as_dict(where), "model": row["model"], "scenario": row["scenario"]})
                findings.append(_scattered(one, str(key[3]), row["variance"], row["n"]))
    return Checked(
        check=REPETITIONS,
        unit="backends and phases, and their cells",
        n_checked=groups,
        findings=tuple(findings),
        false_alarms=f"at most {SPREAD_ALPHA:.0%} a backend and phase, and {SPREAD_ALPHA:.0%} a run over its cells",
        not_checked=None if groups else "no measured calls",
    )


def _as_dict(where: Where) -> dict[str, Any]:
    return {"backend": where.backend, "batch_size": where.batch_size, "gen_tokens_target": where.gen_tokens_target}


def known_to(variance: float, n: int) -> float:
    """Half the width of a 95 % interval of the median of ``n`` calls, as a share; ``variance`` is of log latency."""
    return math.expm1(1.96 * math.sqrt(variance * median_variance(n)))


def _low_end(variance: float, degrees: int, alpha: float) -> float:
    return variance * degrees / float(stats.chi2.ppf(1 - alpha, degrees))


def _needed(variance: float) -> int:
    """The calls that a cell would take for its median to be known to `WANTED`."""
    n = 1
    while known_to(variance, n) > WANTED and n < 10_000:
        n += 1
    return n


def _single(where: Where, mode: str) -> Finding:
    return Finding(
        check=REPETITIONS,
        status="caution",
        where=where,
        modes=(mode,),
        value=1.0,
        evidence="one call a cell: its spread is unknown",
        next_step="give the study 3 repetitions or more",
    )


def _scattered(where: Where, mode: str, variance: float, n: int) -> Finding:
    spread = math.expm1(math.sqrt(variance))
    return Finding(
        check=REPETITIONS,
        status="caution",
        where=where,
        modes=(mode,),
        value=spread,
        evidence=f"calls scatter by {spread:.0%} (standard deviation); the median of {n} is known to "
        f"{known_to(variance, n):.0%}",
        next_step=f"about {_needed(variance)} repetitions would make that {WANTED:.0%}, or a quieter machine",
    )


def comparable(evidence: Evidence) -> Checked:
    """Models measured under several settings, hosts or sizes, as the manifest and the rows tell."""
    sizes = evidence.measured.group_by([*_BACKEND, "model"], maintain_order=True).agg(
        pl.col("params_millions_effective").drop_nulls().unique().sort()
    )
    findings = [
        Finding(
            check=COMPARABLE,
            status="found",
            where=Where(backend=row["backend"], batch_size=row["batch_size"], model=row["model"]),
            modes=ALL_PHASES,
            value=float(len(row["params_millions_effective"])),
            evidence=f"one name, {len(row['params_millions_effective'])} sizes: "
            + ", ".join(f"{size:g} M" for size in row["params_millions_effective"]),
            next_step="give each model a name of its own",
        )
        for row in sizes.iter_rows(named=True)
        if len(row["params_millions_effective"]) > 1
    ]
    backends = evidence.measured["backend"].unique(maintain_order=True).to_list()
    for changed in _changes(evidence):
        findings += [
            Finding(
                check=COMPARABLE,
                status="found",
                where=Where(backend=backend),
                modes=ALL_PHASES,
                value=None,
                evidence=f"the run was resumed after a change: {changed}",
                next_step="measure it again in one go, or compare only cells of one process (column process_idx)",
            )
            for backend in backends
        ]
    return Checked(
        check=COMPARABLE,
        unit="models",
        n_checked=sizes.height,
        findings=tuple(findings),
        false_alarms="none: it is what the manifest and the rows say",
        not_checked=None if sizes.height else "no measured calls",
    )


def _changes(evidence: Evidence) -> list[str]:
    """What changed between the processes of a resumed run, as its manifest tells."""
    processes = [entry for entry in (evidence.run.manifest or {}).get("processes") or [] if isinstance(entry, dict)]
    changes: list[str] = []
    for before, after in pairwise(processes):
        changes += host_differences(before.get("host") or {}, after.get("host") or {})
        if before.get("study_sha256") != after.get("study_sha256"):
            changes.append("the study")
    return list(dict.fromkeys(changes))
