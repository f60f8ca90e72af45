"""Draws of what a model's latency and rate may be, given how they scattered over runs, rounds or repetitions.

Plans push these through their formulas, so that a price made of several measurements has an interval (method 5,
uncertainty). A plain bootstrap of three rounds is too narrow: it knows no more than those three. The draws are
Student's t instead, on the log scale. Over ``n`` replicates (`phaselaw.laws.noise`) the models' log values have a
sample covariance, since what slows a round slows all its models; draws share it, and are scaled as a t with ``n - 1``
degrees of freedom is. So any ratio of two models has exactly the paired t interval, one model's rate has the interval
of ``throughput_intervals``, and sums of several are had to first order.

Where calls were not made in rounds (TR121's order), cells are independent and each model has the t of its own cells.
The draws are a scrambled Sobol sequence: repeatable, and quantiles settle with few of them.
"""

from __future__ import annotations

import dataclasses
from operator import itemgetter

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws import noise
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import by_cell, by_model
from phaselaw.tables import BUDGET

N_DRAWS = 8192
"""A power of two, as Sobol's sequence wants it."""
SEED = 42

Key = tuple[str, str, int, int | None, str]
"""Backend, model, batch size, decode budget, phase."""

_KEY = ["backend", "model", "batch_size", BUDGET, "mode"]
_key = itemgetter(*_KEY)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """One model's measured figures in one phase: a point, then draws; NaN draws where noise was not measured."""

    latency_ms: Floats
    """Geometric mean over scenarios of the median latencies, in ms; ``1 + N_DRAWS`` values."""
    tokens_per_s: Floats
    """The same of the median rates."""
    basis: str
    """What the draws hold: noise between runs, between rounds or between repetitions, or `NOT_MEASURED`."""


def draw(rows: pl.DataFrame, *, in_rounds: bool) -> dict[Key, Draws]:
    """Draws for every model and phase of usable rows; ``in_rounds`` says whether ``rep`` is a round over all cells."""
    cells, replicates = by_cell(rows), noise.replicates_of(rows, in_rounds=in_rounds)
    if replicates is None:
        factors, basis = _in_cells(cells), noise.CELLS
    else:
        factors, basis = _in_replicates(replicates), noise.BASIS[replicates.kind]
    found = {}
    for row in by_model(cells).iter_rows(named=True):
        key = _key(row)
        factor = factors.get(key, np.full(N_DRAWS, np.nan))
        found[key] = Draws(
            latency_ms=_with_point(row["latency_geomean_ms"], factor),
            tokens_per_s=_with_point(row["tokens_per_s_geomean"], 1 / factor),
            basis=basis if key in factors else noise.NOT_MEASURED,
        )
    return found


def _with_point(point: float | None, factors: Floats) -> Floats:
    return (np.nan if point is None else point) * np.append(1.0, factors)


def _in_replicates(replicates: noise.Replicates) -> dict[Key, Floats]:
    """Factors on the points: joint over models, with the covariance over replicates, a t's tails for each."""
    logs: dict[Key, dict[object, float]] = {}
    for row in replicates.relative("latency").iter_rows(named=True):
        logs.setdefault(_key(row), {})[row["replicate"]] = row["log"]
    # Sorted, so that the order of rows changes nothing.
    logs = {key: logs[key] for key in sorted(logs, key=str) if len(logs[key]) > 1}
    if not logs:
        return {}
    columns = {name: at for at, name in enumerate(dict.fromkeys(name for values in logs.values() for name in values))}
    scaled = np.zeros((len(logs), len(columns)))
    for at, values in enumerate(logs.values()):
        size, log = len(values), np.array(list(values.values()))
        scale = np.sqrt(noise.point_variance(size, replicates.kind) / (size - 1))
        scaled[at, [columns[name] for name in values]] = (log - np.mean(log)) * scale
    uniform = _uniform(len(logs) + 1)
    eigenvalues, vectors = np.linalg.eigh(scaled @ scaled.T)
    root = vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))
    # The largest share of the variance to the first dimensions of the sequence, which are its most even ones.
    normal = stats.norm.ppf(uniform[:, :-1]) @ root[:, ::-1].T
    degrees = [len(values) - 1 for values in logs.values()]
    widths = {each: np.sqrt(each / stats.chi2.ppf(uniform[:, -1], each)) for each in set(degrees)}
    # With two replicates the tails are Cauchy's: beyond these limits a draw may as well be at them.
    return {key: np.exp(np.clip(normal[:, at] * widths[degrees[at]], -300.0, 300.0)) for at, key in enumerate(logs)}


def _in_cells(cells: pl.DataFrame) -> dict[Key, Floats]:
    """Factors on the points: each model's own t, from its cells alone."""
    spread = noise.spread_within_cells(cells).filter((pl.col("log_se") > 0) & pl.col("degrees").is_finite()).sort(_KEY)
    uniform = _uniform(spread.height)
    return {
        _key(row): np.exp(row["log_se"] * stats.t.ppf(uniform[:, at], row["degrees"]))
        for at, row in enumerate(spread.iter_rows(named=True))
    }


def _uniform(dimensions: int) -> Floats:
    """`N_DRAWS` points of the open unit cube, evenly spread."""
    points = stats.qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(SEED)).random(N_DRAWS)
    tiny = 0.5 / (2**53)
    return np.clip(points, tiny, 1 - tiny)
