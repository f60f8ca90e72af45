"""Statistics of ranks and of pairs, over many groups at once: Spearman's correlation and the Theil-Sen line.

Arrays have the shape (groups, models). The answers are those of `scipy.stats.spearmanr` and `scipy.stats.theilslopes`,
which take one group a call.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from phaselaw.laws.regression import Floats


def spearman_rows(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Spearman's rho of each row and its two-sided p by the t approximation; NaN below 3 points or without spread."""
    n = x.shape[1]
    if n < 3:
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    a, b = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.where(size > 0, (a * b).sum(axis=1) / size, np.nan)
        t = rho * np.sqrt((n - 2) / np.maximum((1 + rho) * (1 - rho), 0.0))
    p: Floats = 2 * stats.t.sf(np.abs(t), n - 2)
    return rho, p


MOST_PERMUTED = 8
"""Points up to which each order of the ranks is tried: 40,320 orders."""


def exact_spearman(x: Floats, y: Floats) -> tuple[float, float]:
    """Spearman's rho of ``x`` and ``y`` (n,) and its exact two-sided p: the share of all orders that are as extreme.

    The t approximation calls rho = 1 impossible by chance whatever n; of three models one order in three is as extreme.
    Beyond `MOST_PERMUTED` points the approximation serves. NaN below 3 points or without spread.
    """
    rho, p = (float(each[0]) for each in spearman_rows(x[None], y[None]))
    n = len(x)
    if not np.isfinite(rho) or n > MOST_PERMUTED:
        return rho, p
    a, b = stats.rankdata(x) - (n + 1) / 2, stats.rankdata(y) - (n + 1) / 2
    return rho, float((np.abs(b[_orders(n)] @ a) >= abs(a @ b) - 1e-9).mean())


@functools.cache
def _orders(n: int) -> NDArray[np.int64]:
    """Every order of ``n`` things, of shape (n!, n)."""
    return np.array(list(itertools.permutations(range(n))), dtype=np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustLine:
    """The Theil-Sen line of each group, arrays of shape (groups,); NaN where a row's x are all equal."""

    slope: Floats
    """The median of the slopes of all pairs."""
    intercept: Floats
    low: Floats
    """The slope's interval by Sen (1968), equation 2.6: conservative for few points."""
    high: Floats


def theil_sen_rows(x: Floats, y: Floats, level: float) -> RobustLine:
    """Theil-Sen slope, intercept (through the medians) and the slope's interval at ``level`` of each row."""
    first, second = np.triu_indices(x.shape[1], 1)
    dx, dy = x[:, second] - x[:, first], y[:, second] - y[:, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.sort(np.where(dx != 0, dy / dx, np.nan), axis=1)  # NaN come last
    pairs = (dx != 0).sum(axis=1)
    slope = (_at(slopes, (pairs - 1) // 2) + _at(slopes, pairs // 2)) / 2
    variance = _kendall_variance(x, y)
    sigma = np.sqrt(np.maximum(variance, 0))
    z = special.ndtri(0.5 - level / 2)
    upper = np.minimum(np.round((pairs - z * sigma) / 2), pairs - 1)
    lower = np.maximum(np.round((pairs + z * sigma) / 2) - 1, 0)
    return RobustLine(
        slope=slope,
        intercept=np.median(y, axis=1) - slope * np.median(x, axis=1),
        # Where ties leave Kendall's S no variance there is no interval.
        low=np.where(variance >= 0, _at(slopes, lower.astype(np.int64)), np.nan),
        high=np.where(variance >= 0, _at(slopes, upper.astype(np.int64)), np.nan),
    )


def _at(ordered: Floats, index: np.typing.NDArray[np.int64]) -> Floats:
    """Each row's value at its own place."""
    found: Floats = np.take_along_axis(ordered, np.clip(index, 0, ordered.shape[1] - 1)[:, None], axis=1)[:, 0]
    return found


def _kendall_variance(x: Floats, y: Floats) -> Floats:
    """The variance of Kendall's S of each row, ties taken out."""
    n = x.shape[1]
    variance: Floats = n * (n - 1) * (2 * n + 5) - _tied(x) - _tied(y)
    return variance / 18


def _tied(values: Floats) -> Floats:
    """Sum of k (k - 1) (2 k + 5) over each row's groups of k equal values."""
    size = (values[:, :, None] == values[:, None, :]).sum(axis=2)  # each of k equal values counts its group once
    tied: Floats = ((size - 1) * (2 * size + 5)).sum(axis=1).astype(float)
    return tied
