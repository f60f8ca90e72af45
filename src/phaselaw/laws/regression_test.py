"""Runs against runs: what became slower from side A to side B by more than runs of one side differ (``compare``).

The run is the replicate: calls inside one run scatter far less than runs do, and the cells of a run move together. On
log latency, a side's run r and cell c of one backend and phase is ``mean_c + shift_r + noise_rc``: a shift that the
cells of a run share, and noise of each cell in each run (a two-way mixed model with random runs; variances by moments).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from phaselaw import tables as col
from phaselaw.laws.regression import Floats, t_half_width
from phaselaw.laws.series import floats
from phaselaw.laws.summary import by_cell_and_unit, usable
from phaselaw.records import PHASES, Run
from phaselaw.tables import BUDGET, Table

CELL = ["backend", "batch_size", BUDGET, "mode", "model", "scenario"]
"""What one ratio is about."""

MIN_RUNS = 2
"""Runs a side below which nothing says how far runs of the same thing differ."""

SLOWER, FASTER, NEITHER, NOT_JUDGED = "slower", "faster", "not shown", "not judged"

BETWEEN_RUNS, WITHIN_RUNS = "between runs", "calls within runs"
"""What the intervals of a comparison hold."""

_FIGURES = (
    *col.plain("n_runs_a n_runs_b", pl.Int64),
    col.measured("latency_a_ms", "A ms"),
    col.measured("latency_b_ms", "B ms"),
    col.derived("ratio", "B / A", col.fixed),
    *col.interval("ratio_low", "ratio_high", "interval"),
    *col.plain("degrees p_slower p_faster"),
    col.derived("p_slower_holm", "p (Holm)", col.fixed),
    *col.plain("p_faster_holm"),
    col.Col(key="verdict", title="verdict", type=pl.String, show=lambda it: it.upper() if it == SLOWER else it),
)
WHOLE = Table(
    caption="All cells of a backend and phase that every run has, geometric mean.",
    columns=(col.LAW, col.PHASE, col.counted("n_cells", "cells"), *_FIGURES),
)
_SIZES = col.plain(f"batch_size {BUDGET}", pl.Int64)
EACH_CELL = Table(
    caption="Each cell, by phase.",
    columns=(col.LAW, *_SIZES, col.PHASE, col.MODEL, col.words("scenario", "scenario"), *_FIGURES),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionTest:
    """Ratios B / A of latency, each with its interval, and what of it is significant."""

    whole: pl.DataFrame
    """A row a backend and phase: the geometric mean over the cells that every run has."""
    cells: pl.DataFrame
    """A row a cell and phase that both sides have, by `CELL`."""
    only_in_a: pl.DataFrame
    only_in_b: pl.DataFrame
    """Cells that one side lacks: `CELL` without the phase."""
    threshold: float
    level: float
    basis: str
    """`BETWEEN_RUNS`, or `WITHIN_RUNS` where a side has one run and nothing can be judged."""

    @property
    def judged(self) -> bool:
        """Whether significance could be judged: two or more runs a side, and a cell that every run has."""
        return self.basis == BETWEEN_RUNS and self.n_not_judged < self.cells.height

    @property
    def n_not_judged(self) -> int:
        """Ratios of cells without a judgement: those that some run lacks, or all of them."""
        return int((self.cells["verdict"] == NOT_JUDGED).sum())

    @property
    def n_slower(self) -> int:
        """Significant regressions, of backends and of cells."""
        return sum(int((table["verdict"] == SLOWER).sum()) for table in (self.whole, self.cells))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioTest:
    """Log ratios B / A with standard errors and degrees of freedom: arrays of shape (cells,), or (1,) of the whole."""

    log_ratio: Floats
    se: Floats
    degrees: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Both ends of the ratio's t interval, not corrected for many comparisons; NaN without degrees of freedom."""
        half = t_half_width(self.se, self.degrees, level)
        return np.exp(self.log_ratio - half), np.exp(self.log_ratio + half)

    def p_slower(self, threshold: float, *, sign: int = 1) -> Floats:
        """One-sided p of a ratio that is no larger than ``1 + threshold``; with ``sign=-1`` of its inverse."""
        off = sign * self.log_ratio - np.log1p(threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.se > 0, off / self.se, np.where(off > 0, np.inf, -np.inf))
        return np.asarray(stats.t.sf(t, np.where(self.degrees > 0, self.degrees, np.nan)))


def regression_test(a: Run, b: Run, *, threshold: float = 0.05, level: float = 0.95) -> RegressionTest:
    """Compare two sides, each one or more runs pooled (`phaselaw.rundir.read.load_all`).

    With two or more runs a side a ratio is *slower* where it exceeds ``1 + threshold``, *faster* where it is below
    ``1 / (1 + threshold)``, at Holm's corrected level. Half of what may go wrong (1 - level) is given to the backends'
    whole, half to the single cells.
    """
    sides = [by_cell_and_unit(usable(run.rows), "run") for run in (a, b)]
    phase = pl.col("mode").replace_strict(PHASES, list(range(len(PHASES))), default=len(PHASES))
    names = sides[0].select(CELL).unique().join(sides[1].select(CELL), on=CELL, how="semi", nulls_equal=True)
    names = names.sort("backend", "batch_size", BUDGET, phase, "model", "scenario")
    runs = [run.rows["run"].unique().sort() for run in (a, b)]
    judged = min(map(len, runs)) >= MIN_RUNS
    settings: dict[str, Any] = {"threshold": threshold, "level": level, "judged": judged}
    whole, cells = [], []
    numbered = names.with_row_index("place").sort("backend", phase, maintain_order=True)
    for part in numbered.partition_by("backend", "mode", maintain_order=True):
        one, other = (_in_runs(part, medians, of_side) for medians, of_side in zip(sides, runs, strict=True))
        full = np.isfinite(np.concatenate([one[0], other[0]])).all(axis=0)
        each, overall = _tests(one, other, full, part["model"].to_numpy(), judged=judged)
        cells.append(part.with_columns(_figures(each, [one[0], other[0]], **settings)))
        if overall is not None:
            logs = [side[0][:, full].mean(axis=1, keepdims=True) for side in (one, other)]
            key = part.head(1).select("backend", "mode", n_cells=pl.lit(int(full.sum())))
            whole.append(key.with_columns(_figures(overall, logs, **settings)))
    missing = [name for name in CELL if name != "mode"]
    lacking = [
        these.select(missing)
        .unique(maintain_order=True)
        .join(others, on=missing, how="anti", nulls_equal=True, maintain_order="left")
        for these, others in (sides, sides[::-1])
    ]
    return RegressionTest(
        whole=WHOLE.frame(_judged(pl.concat(whole), level) if whole else []),
        cells=EACH_CELL.frame(_judged(pl.concat(cells).sort("place"), level) if cells else []),
        only_in_a=lacking[0],
        only_in_b=lacking[1],
        threshold=threshold,
        level=level,
        basis=BETWEEN_RUNS if judged else WITHIN_RUNS,
    )


def _in_runs(names: pl.DataFrame, medians: pl.DataFrame, runs: pl.Series) -> Floats:
    """One side's cells in each of its runs, (3, runs, cells), NaN where a run lacks a cell.

    The log of the median latency, its variance from the scatter of its calls, and that one's degrees of freedom.
    """
    found = names.with_row_index("at").join(medians, on=CELL, nulls_equal=True).with_columns(pl.col("n") - 1)
    matrices = np.full((3, len(runs), names.height), np.nan)
    where = runs.search_sorted(found["run"]).to_numpy(), found["at"].to_numpy()
    logs, variances = np.log(floats(found, "latency_median_ms")), floats(found, "latency_log_variance")
    matrices[:, *where] = logs, variances, floats(found, "n")
    return matrices


def _mean(logs: Floats) -> Floats:
    """Mean over the runs that have a cell."""
    found: Floats = np.nansum(logs, axis=0) / np.isfinite(logs).sum(axis=0)
    return found


def _tests(
    a: Floats, b: Floats, full: NDArray[np.bool_], models: NDArray[Any], *, judged: bool
) -> tuple[RatioTest, RatioTest | None]:
    """The tests of the cells of one backend and phase, and of their whole; ``None`` where no cell is in every run.

    ``a`` and ``b`` as `_in_runs` makes them; ``full`` are the cells that every run has.
    """
    log_ratio, in_all = _mean(b[0]) - _mean(a[0]), [side[0][:, full] for side in (a, b)]
    if judged:
        each = RatioTest(log_ratio=log_ratio, se=np.full(len(full), np.nan), degrees=np.zeros(len(full)))
        if not full.any():
            return each, None
        known = ratios_of_cells(in_all[0], in_all[1], models[full])
        each.se[full], each.degrees[full] = known.se, known.degrees
        return each, ratio_of_whole(in_all[0], in_all[1])
    # What each run's cell adds to the variance of the ratio; 0 where absent.
    found = [np.where(np.isfinite(logs), own / np.isfinite(logs).sum(axis=0) ** 2, 0.0) for logs, own, _ in (a, b)]
    parts, degrees = np.concatenate(found), np.concatenate([a[2], b[2]])
    each = ratios_by_calls(log_ratio, parts, degrees)
    if not full.any():
        return each, None
    # The mean over cells is one ratio whose parts are those of all of its cells.
    all_parts = parts[:, full].reshape(-1, 1) / full.sum() ** 2
    return each, ratios_by_calls(log_ratio[full].mean(keepdims=True), all_parts, degrees[:, full].reshape(-1, 1))


def ratio_of_whole(a: Floats, b: Floats) -> RatioTest:
    """The mean over cells of ``a`` and ``b``, log latencies of shape (runs, cells): a two-sample t over runs.

    Whatever the cells of a run share is in it, since a run counts as one value.
    """
    return ratios_of_cells(a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True), np.zeros(1))


def ratios_of_cells(a: Floats, b: Floats, models: NDArray[Any]) -> RatioTest:
    """Each cell of ``a`` and ``b``, log latencies of shape (runs, cells), two runs or more a side.

    A cell's variance between runs is that of all cells of the backend and phase together, shift and noise, or where it
    is larger that of its model's cells, or its own: what jumps from run to run must not pass for a regression. Degrees
    of freedom are Satterthwaite's; since the cells of one of the ``models`` (cells,) may move together, the noise has
    those of models.
    """
    residual = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)])
    degrees, n = len(residual) - 2, residual.shape[1]
    total = float((residual**2).sum()) / (degrees * n)
    of_runs = float((residual.mean(axis=1) ** 2).sum()) / degrees
    noise, noise_degrees = total - of_runs, degrees * (len(np.unique(models)) - 1)
    freedom = float(degrees)
    if noise_degrees > 0 and total > 0:
        freedom = total**2 / (of_runs**2 / degrees + noise**2 / noise_degrees)
    own = (residual**2).sum(axis=0) / degrees
    of_model = np.array([own[models == model].mean() for model in models])
    return RatioTest(
        log_ratio=b.mean(axis=0) - a.mean(axis=0),
        se=np.sqrt(np.maximum(np.maximum(own, of_model), total) * (1 / len(a) + 1 / len(b))),
        degrees=np.full(n, freedom),
    )


def ratios_by_calls(log_ratio: Floats, parts: Floats, degrees: Floats) -> RatioTest:
    """Ratios with the scatter of calls alone, which says nothing of another run: (k,), from ``parts`` (m, k).

    Each part is a variance that adds to a ratio's, with its degrees of freedom (m, k); Welch's are the ratio's. A part
    of 0 says nothing; a ratio with an unknown part (NaN) has no interval.
    """
    variance = parts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / np.where(parts == 0, 0.0, parts**2 / degrees).sum(axis=0)
    freedom = np.where(variance > 0, freedom, np.where(variance == 0, np.inf, 0.0))
    return RatioTest(log_ratio=log_ratio, se=np.sqrt(variance), degrees=freedom)


def holm(p: Floats) -> Floats:
    """Holm's adjusted p values, NaN left out (Holm 1979): each times the number still standing, never falling."""
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted


def _figures(test: RatioTest, logs: list[Floats], *, threshold: float, level: float, judged: bool) -> list[pl.Series]:
    """The figures of each ratio; latencies are geometric means over runs (and, of a whole, over its cells)."""
    low, high = test.interval(level)
    figures = {"ratio": np.exp(test.log_ratio), "ratio_low": low, "ratio_high": high, "degrees": test.degrees}
    for name, side in zip("ab", logs, strict=True):
        figures |= {f"n_runs_{name}": np.isfinite(side).sum(axis=0), f"latency_{name}_ms": np.exp(_mean(side))}
    for name, sign in (("p_slower", 1), ("p_faster", -1)):
        figures[name] = test.p_slower(threshold, sign=sign) if judged else np.full(len(low), np.nan)
    return [pl.Series(name, values) for name, values in figures.items()]


def _judged(table: pl.DataFrame, level: float) -> pl.DataFrame:
    """The table with Holm's adjusted p values, times two for the two families, and a verdict by them."""
    slower, faster = (np.minimum(2 * holm(table[name].to_numpy()), 1.0) for name in ("p_slower", "p_faster"))
    cases = [~np.isfinite(slower), slower <= 1 - level, faster <= 1 - level]
    verdicts = np.select(cases, [NOT_JUDGED, SLOWER, FASTER], NEITHER)
    found = table.with_columns(p_slower_holm=slower, p_faster_holm=faster, verdict=pl.Series(verdicts.tolist()))
    return found.with_columns(pl.when(pl.selectors.float().is_finite()).then(pl.selectors.float()))


def prompt_differences(a: Run, b: Run) -> list[str]:
    """Scenarios of one name whose prompts differ in tokens, a line each: where no study says what was asked."""
    names = ["backend", "model", "scenario", "batch_size"]
    asked = [
        run.rows.filter((pl.col("mode") == "prefill") & pl.col("tokens_total").is_finite())
        .group_by(names, maintain_order=True)
        .agg(pl.col("tokens_total").median())
        for run in (a, b)
    ]
    both = asked[0].join(asked[1], on=names, suffix="_b", maintain_order="left")
    return [
        f"prompt of {row['scenario']} for {row['model']} on {row['backend']}: {row['tokens_total']:g} and "
        f"{row['tokens_total_b']:g} tokens"
        for row in both.filter(pl.col("tokens_total") != pl.col("tokens_total_b")).iter_rows(named=True)
    ]
