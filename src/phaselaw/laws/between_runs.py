"""Two sides of runs told apart: how far cells and whole backends moved, against how far runs of one side do.

The run is the unit: calls inside one run scatter far less than runs do, and the cells of a run move together. On log
latency, a side's run r and cell c of one backend and phase is ``mean_c + shift_r + noise_rc``: a shift that the cells
of a run share, and noise of each cell in each run (a two-way mixed model with random runs; variances by moments).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phaselaw.laws.regression import Floats

MIN_RUNS = 2
"""Runs a side below which nothing says how far runs of the same thing differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """Log ratios B / A with standard errors and degrees of freedom: arrays of shape (cells,), or (1,) of the whole."""

    log_ratio: Floats
    se: Floats
    degrees: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Both ends of the ratio's t interval, not corrected for many comparisons; NaN without degrees of freedom."""
        half = self.se * _quantile(0.5 + level / 2, self.degrees)
        return np.exp(self.log_ratio - half), np.exp(self.log_ratio + half)

    def p_slower(self, threshold: float) -> Floats:
        """One-sided p of a ratio that is no larger than ``1 + threshold``."""
        return self._p_above_zero(self.log_ratio - np.log1p(threshold))

    def p_faster(self, threshold: float) -> Floats:
        """One-sided p of a ratio that is no smaller than ``1 / (1 + threshold)``."""
        return self._p_above_zero(-self.log_ratio - np.log1p(threshold))

    def _p_above_zero(self, off: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.se > 0, off / self.se, np.where(off > 0, np.inf, -np.inf))
        p: Floats = np.where(self.degrees > 0, stats.t.sf(t, np.maximum(self.degrees, 1e-9)), np.nan)
        return p


def whole(a: Floats, b: Floats) -> Moved:
    """The mean over cells of ``a`` and ``b``, log latencies of shape (runs, cells): a two-sample t over runs.

    Whatever the cells of a run share is in it, since a run counts as one value.
    """
    means = [side.mean(axis=1) for side in (a, b)]
    degrees = len(a) + len(b) - 2
    variance = sum(float(((mean - mean.mean()) ** 2).sum()) for mean in means) / degrees if degrees > 0 else np.nan
    return Moved(
        log_ratio=np.array([means[1].mean() - means[0].mean()]),
        se=np.array([np.sqrt(variance * (1 / len(a) + 1 / len(b)))]),
        degrees=np.array([float(degrees)]),
    )


def cells(a: Floats, b: Floats, models: NDArray[np.int64]) -> Moved:
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
    noise_degrees = degrees * (len(np.unique(models)) - 1)
    own = (residual**2).sum(axis=0) / degrees
    of_model = np.array([own[models == model].mean() for model in models])
    return Moved(
        log_ratio=b.mean(axis=0) - a.mean(axis=0),
        se=np.sqrt(np.maximum(np.maximum(own, of_model), total) * (1 / len(a) + 1 / len(b))),
        degrees=np.full(n, _satterthwaite(of_runs, degrees, total - of_runs, noise_degrees)),
    )


def by_calls(log_ratio: Floats, parts: Floats, degrees: Floats) -> Moved:
    """Ratios with the scatter of calls alone, which says nothing of another run: (k,), from ``parts`` (m, k).

    Each part is a variance that adds to a ratio's, with its degrees of freedom (m, k); Welch's are the ratio's. A part
    of 0 says nothing; a ratio with an unknown part (NaN) has no interval.
    """
    variance = parts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / np.where(parts == 0, 0.0, parts**2 / degrees).sum(axis=0)
    freedom = np.where(variance > 0, freedom, np.where(variance == 0, np.inf, 0.0))
    return Moved(log_ratio=log_ratio, se=np.sqrt(variance), degrees=freedom)


def _satterthwaite(one: float, one_degrees: float, other: float, other_degrees: float) -> float:
    """Degrees of freedom of the sum of two mean squares; those of the first where the second has none."""
    if other_degrees <= 0 or one + other <= 0:
        return one_degrees
    return (one + other) ** 2 / (one**2 / one_degrees + other**2 / other_degrees)


def holm(p: Floats) -> Floats:
    """Holm's adjusted p values, NaN left out (Holm 1979): each times the number still standing, never falling."""
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted


def _quantile(share: float, degrees: Floats) -> Floats:
    found: Floats = np.where(degrees > 0, stats.t.ppf(share, np.maximum(degrees, 1e-9)), np.nan)
    return found
