"""The noise of a law's slope, by where it comes from: calls, rounds of one run, runs (method 3).

A law's points scatter about it by what models are and by their share of the noise, so least squares over models knows
both. What it can't know is noise that tilts all points of one unit (a run, a round) at once: a slope that is another
one in each run. That is estimated from the slopes of units fitted alone. Written for the points y of models i in units
u, ``y = a + b x + model_i + level_u + tilt_u x + rest_iu``, with R units and S the sum of squares of x, the variance of
the pooled slope is ::

    var(model) / S + var(tilt) / R + var(rest) / (R S)  =  scatter + between - shared

where *scatter* is the squared standard error of least squares on the pooled points, *between* the variance of the
units' slopes over R, and *shared* what the rest alone gives, which both of them hold: a crossed design's components
(Searle, Casella and McCulloch, Variance Components, 1992, 4.7).

Both variances are estimated, from ``m = models - 2`` and ``u = R - 1`` degrees of freedom: the problem of Behrens and
Fisher, for which no exact interval is known. Satterthwaite's degrees of freedom fail where u is small, and adding the
half widths of both in quadrature (Banerjee, Sankhya A 23, 1961) is too wide. So quadrature is tempered by the share
that the units have of the variance, ``w = beyond / (scatter + beyond)``::

    half width^2  =  t(m)^2 scatter (1 - w)^(4 / m u)  +  t(u)^2 beyond w^(4 / m + 0.6 / u^2)

which is the t interval of either where it is alone, and adds the variances where m and u are large. ``beyond`` is
``between - shared``, or 0. The exponents are ours: with them coverage stays nearest to the level over numbers of models
and units, and shares of noise (`benchmarks/coverage.py`). Few units can't be helped wholly: where the noise between
them is nearly all there is, the interval is short in the one case of ten in which they agree by luck.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from phaselaw.laws.points import KEYS, UnitKind, Units
from phaselaw.laws.regression import Floats
from phaselaw.laws.series import Series
from phaselaw.laws.summary import variance_for_t

_FEWEST: dict[UnitKind, int] = {"runs": 2, "rounds": 3}
"""Units that an interval takes notice of: two rounds would make every interval of a run with two repetitions wide."""


def interval_holds(n_units: int, kind: UnitKind) -> str:
    """In words, what noise an interval holds of which so many units are whole."""
    return f"models, calls and {n_units} {kind}" if n_units >= _FEWEST[kind] else "models and calls"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitNoise:
    """What units say of the noise of estimates, a slope's or another's, one value a law; NaN below two whole units."""

    n_units: NDArray[np.int64]
    between: Floats
    """Variance of the pooled estimate from that of the units' estimates."""
    shared: Floats
    """What of ``between`` the scatter of the points holds already."""

    def of(self, laws: NDArray[np.int64]) -> UnitNoise:
        """That of some of the laws."""
        of_laws = {name: getattr(self, name)[laws] for name in ("n_units", "between", "shared")}
        return dataclasses.replace(self, **of_laws)

    def noticed(self, kind: UnitKind) -> UnitNoise:
        """The same with the noise of laws that have too few units of this kind taken for none."""
        return dataclasses.replace(self, between=np.where(self.n_units >= _FEWEST[kind], self.between, np.nan))

    def half_width(self, se: Floats, degrees: float, level: float) -> Floats:
        """Half the width of each estimate's interval; ``se`` and ``degrees`` are of least squares over models."""
        if degrees <= 0:
            return np.full_like(se, np.nan)
        scatter, of_units = se**2, np.maximum(self.n_units - 1.0, 1.0)
        beyond = np.nan_to_num(np.maximum(self.between - np.nan_to_num(self.shared), 0.0))
        both = scatter + beyond
        share = np.divide(beyond, both, out=np.zeros_like(both), where=both > 0)
        of_models = _t(degrees, level) ** 2 * scatter * (1 - share) ** (4 / (degrees * of_units))
        apart = _t(of_units, level) ** 2 * beyond * share ** (4 / degrees + 0.6 / of_units**2)
        half: Floats = np.sqrt(of_models + apart)
        return half


def _t(degrees: float | Floats, level: float) -> Floats:
    return np.asarray(stats.t.ppf(0.5 + level / 2, degrees))


def call_noise_of_slope(x: Floats, log_variance: Floats) -> Floats:
    """Standard error that the points' own variances (of natural logs) give a slope; NaN where one is unknown."""
    dx = x - x.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = dx / (dx * dx).sum(axis=1, keepdims=True) / math.log(10)
        se: Floats = np.sqrt((weights * weights * log_variance).sum(axis=1))
    return se


def no_unit_noise(laws: int) -> UnitNoise:
    """The noise of laws of which no units are told apart."""
    unknown = np.full(laws, np.nan)
    return UnitNoise(n_units=np.zeros(laws, dtype=np.int64), between=unknown, shared=unknown.copy())


def unit_noise(series: Series, units: Units) -> UnitNoise:
    """The noise between units of the slope of each law of ``series``, from the units that hold all of its models."""
    found = no_unit_noise(len(series.lengths))
    each = Series.of(units.points, [*KEYS, "unit"])
    x, y = np.log10(each.values("params_millions_effective")), np.log10(each.values("latency"))
    numbered = series.keys.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("law"), pl.Series("models", series.lengths)
    )
    known = each.keys.join(numbered, on=KEYS, how="left", nulls_equal=True, maintain_order="left")
    law = known["law"].fill_null(-1).to_numpy()
    whole = known["models"].fill_null(-1).to_numpy() == each.lengths
    for which, at in each.by_length():
        if at.shape[1] < 2:
            continue
        of_law = np.where(whole[which], law[which], -1)
        for one in np.unique(of_law[of_law >= 0]):
            rows = at[of_law == one]
            noise = noise_of(_SLOPE, x[rows[0]][:, None], y[rows], kind=units.kind)
            for name in ("n_units", "between", "shared"):
                getattr(found, name)[one] = getattr(noise, name)[0]
    return found


_SLOPE = np.array([0.0, 1.0])


def noise_of(at: Floats, columns: Floats, logs: Floats, *, kind: UnitKind) -> UnitNoise:
    """The noise between units of one estimate of one law: ``at`` (k + 1,) times the law's coefficients.

    The law is a plane in ``columns`` (models, k) with a constant before them, fitted to each row of ``logs`` (units,
    models) alone. ``kind`` says what the units are.
    """
    units, models = logs.shape
    if units < 2:
        return no_unit_noise(1)
    design = np.column_stack([np.ones(models), columns])
    weights = np.linalg.pinv(design)
    off = logs - logs.mean(axis=0)
    coefficients = off @ weights.T
    rest = off - coefficients @ design.T
    factor = 1.0 / units if kind == "runs" else variance_for_t(units)  # a point is a mean over runs, a median of rounds
    # Of residuals about the law's means, whose coefficients' mean is 0.
    between = ((coefficients @ at) ** 2).sum() / (units - 1)
    degrees = (units - 1) * (models - design.shape[1])
    shared = (rest**2).sum() / degrees * ((at @ weights) ** 2).sum() if degrees > 0 else np.nan
    return UnitNoise(
        n_units=np.array([units]), between=np.array([between * factor]), shared=np.array([shared * factor])
    )
