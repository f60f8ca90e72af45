"""Runs against runs: what became slower from side A to side B by more than runs of one side differ (``compare``)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from phaselaw.laws import between_runs
from phaselaw.laws.between_runs import MIN_RUNS, Moved, holm
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET, median_variance, usable
from phaselaw.records import PHASES, Run

CELL = ["backend", "batch_size", BUDGET, "mode", "model", "scenario"]
"""What one ratio is about."""

SLOWER, FASTER, NEITHER, NOT_JUDGED = "slower", "faster", "not shown", "not judged"

BETWEEN_RUNS, WITHIN_RUNS = "between runs", "calls within runs"
"""What the intervals of a comparison hold."""

_FIGURES: dict[str, type[pl.DataType]] = {
    "n_runs_a": pl.Int64,
    "n_runs_b": pl.Int64,
    **dict.fromkeys(
        ("latency_a_ms", "latency_b_ms", "ratio", "ratio_low", "ratio_high", "degrees", "p_slower", "p_faster"),
        pl.Float64,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
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


def compare(a: Run, b: Run, *, threshold: float = 0.05, level: float = 0.95) -> Comparison:
    """Compare two sides, each one or more runs pooled (`phaselaw.rundir.read.load_all`).

    With two or more runs a side a ratio is *slower* where it exceeds ``1 + threshold``, *faster* where it is below
    ``1 / (1 + threshold)``, at Holm's corrected level. Half of what may go wrong (1 - level) is given to the backends'
    whole, half to the single cells.
    """
    per_run = {side: _cells_of_runs(run.rows) for side, run in (("a", a), ("b", b))}
    counts = {side: run.rows["run"].n_unique() for side, run in (("a", a), ("b", b))}
    judged = min(counts.values()) >= MIN_RUNS
    parts = [
        _of_phase(key, first, second, counts, judged=judged, threshold=threshold, level=level)
        for key, first, second in _phases(per_run["a"], per_run["b"])
    ]
    keys = {name: per_run["a"].schema[name] for name in CELL}
    whole = pl.DataFrame(
        [part[0] for part in parts if part[0]],
        schema={name: keys[name] for name in ("backend", "mode")} | {"n_cells": pl.Int64()} | dict(_FIGURES),
    )
    cells = pl.DataFrame([row for part in parts for row in part[1]], schema=keys | dict(_FIGURES)).sort(
        "backend", "batch_size", BUDGET, _phase(), "model", "scenario"
    )
    return Comparison(
        whole=_judged(whole.sort("backend", _phase()), level),
        cells=_judged(cells, level),
        only_in_a=_only_in(per_run["a"], per_run["b"]),
        only_in_b=_only_in(per_run["b"], per_run["a"]),
        threshold=threshold,
        level=level,
        basis=BETWEEN_RUNS if judged else WITHIN_RUNS,
    )


def _phase() -> pl.Expr:
    """The phases in their order."""
    return pl.col("mode").replace_strict(PHASES, list(range(len(PHASES))), default=len(PHASES))


def _cells_of_runs(rows: pl.DataFrame) -> pl.DataFrame:
    """Each run's cells: the log of the median latency, its variance from the scatter of its calls, and the degrees."""
    latency = pl.col("latency_ms")
    found = (
        usable(rows)
        .group_by("run", *CELL, maintain_order=True)
        .agg(latency.median().log().alias("log"), latency.log().var().alias("variance"), pl.len().alias("n"))
    )
    factors = {n: median_variance(n) for n in found["n"].unique()}
    return found.with_columns(
        pl.col("variance") * pl.col("n").replace_strict(factors, return_dtype=pl.Float64),
        (pl.col("n") - 1).cast(pl.Float64).alias("degrees"),
    )


def _phases(a: pl.DataFrame, b: pl.DataFrame) -> Iterator[tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]]:
    """The rows of each backend and phase that both sides have."""
    seconds = dict(b.group_by("backend", "mode", maintain_order=True))
    for key, first in a.group_by("backend", "mode", maintain_order=True):
        if key in seconds:
            yield dict(zip(("backend", "mode"), key, strict=True)), first, seconds[key]


_SCATTER = ("variance", "degrees")


def _of_phase(
    key: dict[str, Any],
    a: pl.DataFrame,
    b: pl.DataFrame,
    counts: dict[str, int],
    *,
    judged: bool,
    threshold: float,
    level: float,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of the whole of one backend and phase (empty where no cell is in every run), and those of its cells."""
    names = (
        a.select(CELL)
        .unique(maintain_order=True)
        .join(b.select(CELL).unique(), on=CELL, nulls_equal=True, maintain_order="left")
    )
    y = [_matrix(side, names, "log", n) for side, n in ((a, counts["a"]), (b, counts["b"]))]
    full = np.isfinite(y[0]).all(axis=0) & np.isfinite(y[1]).all(axis=0)
    models = np.unique(names["model"].to_numpy(), return_inverse=True)[1]
    if judged:
        each = _between(y, full, models)
        overall = between_runs.whole(y[0][:, full], y[1][:, full]) if full.any() else None
    else:
        # The mean over cells is one ratio whose parts are those of all of its cells.
        variance, degrees = (
            [_matrix(a, names, of, counts["a"]), _matrix(b, names, of, counts["b"])] for of in _SCATTER
        )
        parts, freedom, log_ratio = _parts(y, variance), np.concatenate(degrees), _mean(y[1]) - _mean(y[0])
        each = between_runs.by_calls(log_ratio, parts, freedom)
        columns = (parts[:, full].reshape(-1, 1) / max(int(full.sum()), 1) ** 2, freedom[:, full].reshape(-1, 1))
        overall = between_runs.by_calls(log_ratio[full].mean(keepdims=True), *columns) if full.any() else None
    whole = [] if overall is None else _figures(overall, [side[:, full] for side in y], threshold, level, judged=judged)
    of_cells = _figures(each, y, threshold, level, judged=judged)
    rows = [name | figures for name, figures in zip(names.iter_rows(named=True), of_cells, strict=True)]
    return (key | {"n_cells": int(full.sum())} | whole[0] if whole else {}), rows


def _matrix(side: pl.DataFrame, names: pl.DataFrame, column: str, n_runs: int) -> Floats:
    """A column by run and cell, of shape (runs, cells); NaN where a run lacks a cell."""
    runs = side["run"].unique(maintain_order=True).to_list()
    found = np.full((n_runs, names.height), np.nan)
    at = names.with_row_index("at").join(side, on=CELL, nulls_equal=True)
    row = at["run"].replace_strict(runs, list(range(len(runs))), return_dtype=pl.Int64).to_numpy()
    found[row, at["at"].to_numpy()] = at[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return found


def _between(y: list[Floats], full: Any, models: Any) -> Moved:
    """Cells judged by the variance between runs; NaN for those that some run lacks."""
    moved = Moved(log_ratio=_mean(y[1]) - _mean(y[0]), se=np.full(len(full), np.nan), degrees=np.zeros(len(full)))
    if full.any():
        told = between_runs.cells(y[0][:, full], y[1][:, full], models[full])
        moved.se[full], moved.degrees[full] = told.se, told.degrees
    return moved


def _parts(y: list[Floats], variances: list[Floats]) -> Floats:
    """What each run's cell adds to its log ratio's variance, (runs of both sides, cells); 0 where absent."""
    each = [
        np.where(np.isfinite(logs), variance / np.isfinite(logs).sum(axis=0) ** 2, 0.0)
        for logs, variance in zip(y, variances, strict=True)
    ]
    return np.concatenate(each)


def _mean(side: Floats) -> Floats:
    """Mean over the runs that have a cell."""
    found: Floats = np.nansum(side, axis=0) / np.isfinite(side).sum(axis=0)
    return found


def _figures(moved: Moved, y: list[Floats], threshold: float, level: float, *, judged: bool) -> list[dict[str, Any]]:
    """One row of figures a ratio; latencies are geometric means, over runs and, of a whole, over its cells."""
    low, high = moved.interval(level)
    slower, faster = (p(threshold) if judged else low * np.nan for p in (moved.p_slower, moved.p_faster))
    of_one = len(moved.log_ratio) == y[0].shape[1]
    latency = [np.exp(_mean(side)) if of_one else np.exp([np.nanmean(side)]) for side in y]
    runs = [np.isfinite(side).sum(axis=0) for side in y]
    return [
        {"n_runs_a": int(runs[0][at]), "n_runs_b": int(runs[1][at]), "latency_a_ms": latency[0][at],
         "latency_b_ms": latency[1][at], "ratio": math.exp(moved.log_ratio[at]), "ratio_low": low[at],
         "ratio_high": high[at], "degrees": moved.degrees[at], "p_slower": slower[at], "p_faster": faster[at]}
        for at in range(len(moved.log_ratio))
    ]  # fmt: skip


def _judged(table: pl.DataFrame, level: float) -> pl.DataFrame:
    """The table with Holm's adjusted p values, times two for the two families, and a verdict by them."""
    adjusted = {name: np.minimum(2 * holm(table[name].to_numpy()), 1.0) for name in ("p_slower", "p_faster")}
    verdicts = [
        NOT_JUDGED if not math.isfinite(slower)
        else SLOWER if slower <= 1 - level
        else FASTER if faster <= 1 - level
        else NEITHER
        for slower, faster in zip(*adjusted.values(), strict=True)
    ]  # fmt: skip
    return table.with_columns(
        *(pl.Series(f"{name}_holm", values, dtype=pl.Float64) for name, values in adjusted.items()),
        pl.Series("verdict", verdicts, dtype=pl.String),
    ).with_columns(pl.when(pl.selectors.float().is_finite()).then(pl.selectors.float()))


def prompt_differences(a: Run, b: Run) -> list[str]:
    """Scenarios of one name whose prompts differ in tokens, a line each: where no study says what was asked."""
    names = ["backend", "model", "scenario", "batch_size"]
    counted = [
        run.rows.filter((pl.col("mode") == "prefill") & pl.col("tokens_total").is_finite())
        .group_by(names, maintain_order=True)
        .agg(pl.col("tokens_total").median())
        for run in (a, b)
    ]
    both = counted[0].join(counted[1], on=names, suffix="_b", maintain_order="left")
    return [
        f"prompt of {row['scenario']} for {row['model']} on {row['backend']}: {row['tokens_total']:g} and "
        f"{row['tokens_total_b']:g} tokens"
        for row in both.filter(pl.col("tokens_total") != pl.col("tokens_total_b")).iter_rows(named=True)
    ]


def _only_in(these: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    names = [name for name in CELL if name != "mode"]
    return (
        these.select(names)
        .unique(maintain_order=True)
        .join(others.select(names), on=names, how="anti", nulls_equal=True, maintain_order="left")
    )
