"""Draws of what a model's latency and rate may be, given how they scattered over runs, rounds or repetitions.

Plans push these through their formulas, so that a price made of several measurements has an interval (method 5,
uncertainty). A plain bootstrap of three rounds is too narrow: it knows no more than those three. The draws are
Student's t instead, on the log scale. Over ``n`` units (runs, where several are pooled; else rounds) the models' log
values have a sample covariance, since what slows a round slows all its models; draws share it, and are scaled as a t
with ``n - 1`` degrees of freedom is. So any ratio of two models has exactly the paired t interval, one model's rate
has the interval of ``throughput_intervals``, and sums of several are had to first order.

Where calls were not made in rounds (TR121's order), cells are independent and each model has the t of its own cells.
The draws are a scrambled Sobol sequence: repeatable, and quantiles settle with few of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.intervals import CELLS, NOT_MEASURED, ROUNDS, RUNS, spread_within_cells
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET, by_cell, by_cell_and_run, by_model, variance_for_t

N_DRAWS = 8192
SEED = 42


Key = tuple[str, str, int, int | None, str]
"""Backend, model, batch size, decode budget, phase."""

_KEY = ["backend", "model", "batch_size", BUDGET, "mode"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One model's measured figures in one phase: a point, then draws; NaN draws where noise was not measured."""

    latency_ms: Floats
    """Geometric mean over scenarios of the median latencies, in ms; ``1 + N_DRAWS`` values."""
    tokens_per_s: Floats
    """The same of the median rates."""
    basis: str
    """What the draws hold: noise between runs, between rounds or between repetitions, or `NOT_MEASURED`."""


def draw(rows: pl.DataFrame, *, in_rounds: bool, n: int = N_DRAWS, seed: int = SEED) -> dict[Key, Drawn]:
    """Draws for every model and phase of usable rows (`phaselaw.laws.summary.usable`); ``n`` is a power of two.

    Pooled runs are told apart by the column ``run``; else ``in_rounds`` says whether ``rep`` is a round over all cells.
    """
    cells = by_cell(rows)
    points = by_model(cells)
    if rows["run"].n_unique() > 1:
        # The point is a mean over runs of each run's medians.
        medians = by_cell_and_run(rows).rename({"latency_median_ms": "ms"})
        relative, basis = _in_units(_deviations(medians, "run"), lambda units: 1 / units, n, seed), RUNS
    elif in_rounds:
        calls = rows.filter(pl.col("rep").is_not_null()).rename({"latency_ms": "ms"})
        relative, basis = _in_units(_deviations(calls, "rep"), variance_for_t, n, seed), ROUNDS
    else:
        relative, basis = _in_cells(cells, n, seed), CELLS
    unknown = np.full(n, np.nan)
    drawn = {}
    for row in points.iter_rows(named=True):
        key = _key(row)
        factor = relative.get(key)
        drawn[key] = Drawn(
            latency_ms=_joined(row["latency_geomean_ms"], unknown if factor is None else factor),
            tokens_per_s=_joined(row["tokens_per_s_geomean"], unknown if factor is None else 1 / factor),
            basis=NOT_MEASURED if factor is None else basis,
        )
    return drawn


def _joined(point: float | None, factors: Floats) -> Floats:
    value = np.nan if point is None else float(point)
    return np.concatenate([[value], value * factors])


def _key(row: Mapping[str, object]) -> Key:
    budget = row[BUDGET]
    return (
        str(row["backend"]), str(row["model"]), int(str(row["batch_size"])),
        None if budget is None else int(str(budget)), str(row["mode"]),
    )  # fmt: skip


def _deviations(rows: pl.DataFrame, unit: str) -> dict[Key, dict[object, float]]:
    """Each unit's mean log ``ms`` relative to the mean of its cells, by model and phase.

    Relative to the cell's mean, so that a call that failed does not shift its unit.
    """
    cell = [*_KEY, "scenario"]
    relative = pl.col("ms").log() - pl.col("ms").log().mean().over(cell)
    table = (
        rows.select(*_KEY, unit, relative.alias("log"))
        .group_by([*_KEY, unit], maintain_order=True)
        .agg(pl.col("log").mean())
    )
    found: dict[Key, dict[object, float]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(_key(row), {})[row[unit]] = row["log"]
    return {key: values for key, values in found.items() if len(values) > 1}


def _in_units(
    deviations: Mapping[Key, Mapping[object, float]], variance: Callable[[int], float], n: int, seed: int
) -> dict[Key, Floats]:
    """Factors on the points: joint over models, with the covariance over units, a t's tails for each.

    ``variance`` is that of a point made of so many units, each of variance 1.
    """
    if not deviations:
        return {}
    # Sorted, so that the order of rows changes nothing.
    keys = sorted(deviations, key=str)
    units = {unit: at for at, unit in enumerate(dict.fromkeys(u for values in deviations.values() for u in values))}
    scaled = np.zeros((len(keys), len(units)))
    for at, key in enumerate(keys):
        values = deviations[key]
        centred = np.array(list(values.values())) - np.mean(list(values.values()))
        size = len(values)
        scaled[at, [units[unit] for unit in values]] = centred * np.sqrt(variance(size) / (size - 1))
    uniform = _uniform(n, len(keys) + 1, seed)
    eigenvalues, vectors = np.linalg.eigh(scaled @ scaled.T)
    root = vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))
    # The largest share of the variance to the first dimensions of the sequence, which are its most even ones.
    normal = stats.norm.ppf(uniform[:, :-1]) @ root[:, ::-1].T
    widths = {
        degrees: np.sqrt(degrees / stats.chi2.ppf(uniform[:, -1], degrees))
        for degrees in {len(values) - 1 for values in deviations.values()}
    }
    # With two units the tails are Cauchy's: beyond these limits a draw may as well be at them.
    return {
        key: np.exp(np.clip(normal[:, at] * widths[len(deviations[key]) - 1], -300.0, 300.0))
        for at, key in enumerate(keys)
    }


def _in_cells(cells: pl.DataFrame, n: int, seed: int) -> dict[Key, Floats]:
    """Factors on the points: each model's own t, from its cells alone."""
    spread = spread_within_cells(cells).filter((pl.col("log_se") > 0) & pl.col("degrees").is_finite()).sort(_KEY)
    if spread.is_empty():
        return {}
    uniform = _uniform(n, spread.height, seed)
    return {
        _key(row): np.exp(row["log_se"] * stats.t.ppf(uniform[:, at], row["degrees"]))
        for at, row in enumerate(spread.iter_rows(named=True))
    }


def _uniform(n: int, dimensions: int, seed: int) -> Floats:
    """``n`` points of the open unit cube, evenly spread."""
    points = stats.qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random(n)
    tiny = 0.5 / (2**53)
    return np.clip(points, tiny, 1 - tiny)
