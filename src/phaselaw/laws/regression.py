"""Least squares, ranks and their intervals.

A line is a plane in one column. A bootstrap is matrix arithmetic over all resamples, never a loop.
"""

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plane:
    """``y = b0 + b1 x1 + ...`` by ordinary least squares; all NaN where the points don't determine it."""

    coefficients: Floats
    """Of shape (terms,), the constant first."""
    standard_errors: Floats
    """Of the coefficients, from the scatter of the points; NaN without degrees of freedom."""
    r2: float
    degrees: int
    residual_variance: float
    """Variance of the points about the plane; NaN without degrees of freedom."""
    residuals: Floats
    centred: Floats
    """The columns (points, k) less their means."""
    means: Floats
    inverse_gram: Floats
    """The inverse of the centred columns' sums of squares and products, (k, k)."""

    @property
    def determined(self) -> bool:
        """Whether the points determine it."""
        return bool(np.isfinite(self.coefficients).all())

    @property
    def intercept(self) -> float:
        """The constant."""
        return float(self.coefficients[0])

    @property
    def slope(self) -> float:
        """The coefficient of a line."""
        return float(self.coefficients[1])

    @property
    def slope_se(self) -> float:
        """Its standard error."""
        return float(self.standard_errors[1])

    def leverages(self) -> Floats:
        """The share that each point has in its own value of the plane (Cook and Weisberg, 1982, 2.1)."""
        return np.asarray(
            1 / max(len(self.centred), 1) + ((self.centred @ self.inverse_gram) * self.centred).sum(axis=1)
        )

    def leverage(self, at: Floats) -> float:
        """How far ``at`` (k,) lies from the fitted points: ``x' (X'X)^-1 x``, the constant included."""
        off = at - self.means
        return 1 / len(self.centred) + float(off @ self.inverse_gram @ off)

    def at(self, at: Floats) -> float:
        """The plane's value at ``at`` (k,)."""
        return float(self.coefficients[0] + at @ self.coefficients[1:])

    def new_point_error(self, at: Floats, *, charged: float = 0.0) -> tuple[float, float]:
        """Standard error of a *new point's* value at ``at`` (k,), and its degrees of freedom.

        ``s sqrt(1 + x' (X'X)^-1 x)``: the scatter of points about the plane and the plane's own uncertainty
        (Montgomery, Peck and Vining, Introduction to Linear Regression Analysis, 3.5). ``charged`` are degrees of
        freedom that were spent elsewhere, fewer than there are.
        """
        degrees = self.degrees - charged
        variance = self.residual_variance * self.degrees / degrees if degrees > 0 else np.nan
        return float(np.sqrt(variance * (1 + self.leverage(at)))), degrees


def fit_plane(columns: Floats, y: Floats) -> Plane:
    """Least squares of ``y`` (n,) on a constant and ``columns`` (n, k)."""
    (n, k), means, x, dy = columns.shape, _mean(columns), _centred(columns), _centred(y)
    degrees, determined = n - k - 1, k == 0 or (n > k and np.linalg.matrix_rank(x) == k)
    inverse = np.asarray(np.linalg.inv(x.T @ x) if determined else np.full((k, k), np.nan), dtype=np.float64)
    slopes = inverse @ (x.T @ dy)
    residuals = dy - x @ slopes
    sse, total = float(residuals @ residuals), float(dy @ dy)
    variance = sse / degrees if degrees > 0 else np.nan
    squares = np.append(1 / max(n, 1) + means @ inverse @ means, np.diag(inverse))  # of no points all are NaN
    return Plane(
        coefficients=np.append(_mean(y) - means @ slopes, slopes),
        standard_errors=np.sqrt(np.maximum(squares, 0) * variance),
        r2=1 - sse / total if total > 0 else np.nan,
        degrees=degrees,
        residual_variance=variance,
        residuals=residuals,
        centred=x,
        means=means,
        inverse_gram=inverse,
    )


def fit_line(x: Floats, y: Floats) -> Plane:
    """Least squares of ``y`` (n,) on a constant and ``x`` (n,)."""
    return fit_plane(x[:, None], y)


class LeftOut(NamedTuple):
    """Each point against the plane through the others; NaN where these don't determine one."""

    off: Floats
    """What the point is off that plane, of shape (points,)."""
    sse: Floats
    """That plane's sum of squares, over the others."""
    slopes: Floats
    """Its coefficients but for the constant, (points, k)."""
    slopes_se: Floats
    r2: Floats

    @property
    def root_mean_square(self) -> float:
        """Of what points are off; NaN where one of them can't be left out."""
        return float(np.sqrt((self.off**2).mean()))


def left_out(plane: Plane) -> LeftOut:
    """The plane through the others of each point, from that through all (Cook and Weisberg, 1982, 2.2)."""
    (n, k), leverage, slopes = plane.centred.shape, plane.leverages(), plane.coefficients[1:]
    dy = plane.centred @ slopes + plane.residuals
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(leverage < 1 - 1e-9, 1 - leverage, np.nan)
        off = plane.residuals / rest
        sse = np.maximum((plane.residuals**2).sum() - plane.residuals * off, 0.0)
        pull = plane.centred @ plane.inverse_gram
        squares = np.diag(plane.inverse_gram) + pull**2 / rest[:, None]
        se = np.sqrt(sse[:, None] / (n - k - 2) * squares) if n > k + 2 else np.full((n, k), np.nan)
        r2 = 1 - sse / (dy @ dy - dy**2 * n / (n - 1))
    return LeftOut(off=off, sse=sse, slopes=slopes - pull * off[:, None], slopes_se=se, r2=r2)


class UnequalScatter(NamedTuple):
    """The slope of a line about which models scatter unequally; NaN where that can't be tested."""

    se: float = np.nan
    """HC2's standard error of the slope (MacKinnon and White, J. Econometrics 29, 1985)."""
    degrees: float = np.nan
    """Bell and McCaffrey's degrees of freedom (Survey Methodology 28, 2002)."""
    p: float = np.nan
    """Of HC2's variance exceeding that of least squares by so much where the scatter is equal and normal."""


MOST_EXACT, MOST_PAIRED = 200, 1000
"""Points of which eigenvalues are worked out (their time grows with the cube), and of which all pairs are looked at."""


def unequal_scatter(line: Plane) -> UnequalScatter:
    """HC2 of a line of four points or more, none of which it must go through.

    Both variances are quadratic forms in the residuals, ``e' W e`` and ``e' e / (n - 2) / S``. The eigenvalues of W on
    the residuals' space give Bell and McCaffrey's degrees, and mean and variance of the two's ratio, which a beta
    distribution between the least and the largest eigenvalue has (Durbin and Watson, Biometrika 38, 1951). Of more
    than `MOST_EXACT` points these two are taken for the least and the largest of W's diagonal, which hold them.
    """
    free, leverage, dx = line.degrees, line.leverages(), line.centred[:, 0]
    if free < 2 or not (leverage < 1 - 1e-9).all():
        return UnequalScatter()
    own = (dx * line.inverse_gram[0, 0]) ** 2 / (1 - leverage)
    basis, ends = np.stack([np.full_like(dx, len(dx) ** -0.5), dx / np.linalg.norm(dx)]), own
    if len(dx) <= MOST_EXACT:
        rest = np.eye(len(dx)) - basis.T @ basis
        ends = np.linalg.eigvalsh(np.sqrt(own)[:, None] * rest * np.sqrt(own))[-free:]
    square, robust = line.residuals @ line.residuals, own @ line.residuals**2
    low, span = ends.min(), max(np.ptp(ends), np.finfo(float).tiny)
    total, within = own @ (1 - leverage), (basis * own) @ basis.T
    mean, squares = (total / free - low) / span, own**2 @ (1 - 2 * leverage) + (within**2).sum()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variance = 2 * (squares - total**2 / free) / (free * (free + 2)) / span**2
        both = mean * (1 - mean) / variance - 1
        p = special.betaincc(mean * both, (1 - mean) * both, np.clip((robust / square - low) / span, 0, 1))
    return UnequalScatter(float(np.sqrt(robust)), float(total**2 / squares), float(p))


def exponential(value: float) -> float:
    """``e^value``; infinite where that is too large for a float, as a poorly determined figure can be."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def p_of_zero_at(x: Floats, y: Floats, at: float) -> float:
    """Two-sided p of the least-squares line of ``y`` on ``x``, both (points,), being 0 at ``at``; NaN below 3 points.

    At 0 it tests the intercept a; at 1 it tests a + b, that is whether Fieller's interval of a / b holds -1.
    """
    line, where = fit_line(x, y), np.array([at])
    if line.degrees < 1 or not line.determined:
        return np.nan
    se, value = math.sqrt(line.residual_variance * line.leverage(where)), abs(line.at(where))
    return float(2 * special.stdtr(line.degrees, -value / se)) if se > 0 else float(value == 0)


def _mean(values: Floats) -> Floats:
    """The mean over points; NaN of none."""
    return np.asarray(values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan))


def _centred(values: Floats) -> Floats:
    """Values less the mean over points; what is but rounding is 0, so that equal values have no spread at all."""
    centred = values - _mean(values)
    return np.where(np.abs(centred) < 1e-13 * (1 + np.abs(values)), 0.0, centred)


def t_half_width(se: Floats, degrees: float | Floats, level: float) -> Floats:
    """Half the width of a t interval; NaN without degrees of freedom."""
    return np.asarray(se * special.stdtrit(np.where(np.asarray(degrees) > 0, degrees, np.nan), 0.5 + level / 2))


def sum_of_variances(parts: Floats, degrees: Floats) -> tuple[Floats, Floats]:
    """The sum of variances (parts, ...) and its degrees of freedom (Satterthwaite, Biometrics Bulletin 2, 1946).

    A part of 0 says nothing, so a sum of 0 is known exactly; with an unknown part (NaN) there are no degrees.
    """
    total = parts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / np.where(parts == 0, 0.0, parts**2 / degrees).sum(axis=0)
    return total, np.where(total > 0, freedom, np.where(total == 0, np.inf, 0.0))


def ends(name: str, middle: float, half: float) -> dict[str, float]:
    """Both ends of an interval, by the name of each."""
    return {f"{name}_low": middle - half, f"{name}_high": middle + half}


def resamples(n: int, draws: int, seed: int) -> Floats:
    """How often each of ``n`` models stands in each resample, of shape (draws, n).

    The draws are TR121's: a fresh ``default_rng(seed)`` and ``integers(0, n, n)`` for each, models in ascending order
    of parameters (method 3).
    """
    drawn = np.random.default_rng(seed).integers(0, n, (draws, n))
    counts = np.zeros((draws, n))
    np.add.at(counts, (np.arange(draws)[:, None], drawn), 1.0)
    return counts


def bootstrap_lines(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Slopes and intercepts of the line in each resample, (2, draws).

    A degenerate draw, all of one model, says nothing of a slope. TR121 keeps those as flat lines, and so does this;
    but with three models they are a ninth of all draws and the interval is made of them: there they are NaN.
    """
    n = len(x)
    dx, dy = x - x.mean(), y - y.mean()  # centred first, so that the sums of squares don't cancel
    mx, my = counts @ dx / n, counts @ dy / n
    sxx, sxy = counts @ (dx * dx) / n - mx * mx, counts @ (dx * dy) / n - mx * my
    tiny = 1e-12 * max((dx * dx).mean(), np.finfo(float).tiny)
    slope = np.divide(sxy, sxx, out=np.full_like(sxx, 0.0 if n > 3 else np.nan), where=sxx > tiny)
    return np.stack([slope, (my + y.mean()) - slope * (mx + x.mean())])


def quantile_interval(values: Floats, level: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Percentile interval along the last axis, NaN left out, and how many values were used; linear quantiles."""
    used = np.isfinite(values).sum(axis=-1)
    kept = np.where(np.arange(values.shape[-1]) < used[..., None], np.sort(values, axis=-1), np.nan)  # NaN come last
    none = (used == 0)[..., None]  # numpy warns of rows without any value
    low, high = np.nanquantile(np.where(none, 0.0, kept), [0.5 - level / 2, 0.5 + level / 2], axis=-1)
    return np.where(used > 0, low, np.nan), np.where(used > 0, high, np.nan), used


def bootstrap_planes(columns: Floats, y: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Coefficients (draws, terms) and R2 (draws,) of the plane in each resample.

    A degenerate draw, of fewer models than coefficients, gets the least coefficients that fit it, as in TR121; with as
    few models as coefficients the interval would be made of those: there they are NaN.
    """
    design = np.column_stack([np.ones(len(y)), columns])
    gram = np.einsum("dn,ni,nj->dij", counts, design, design)
    moment = np.einsum("dn,ni,n->di", counts, design, y)
    terms = design.shape[1]
    whole = np.linalg.cond(gram) < 1e10
    coefficients = np.full((len(counts), terms), np.nan)
    coefficients[whole] = np.linalg.solve(gram[whole], moment[whole][..., None])[..., 0]
    if len(y) > terms and not whole.all():
        rest = np.linalg.pinv(gram[~whole], rcond=1e-10, hermitian=True) @ moment[~whole][..., None]
        coefficients[~whole] = rest[..., 0]
    fitted = coefficients @ design.T
    spread = (counts * (y - (counts @ y / counts.sum(axis=1))[:, None]) ** 2).sum(axis=1)
    # A draw all of one model has no spread but rounding, and no R2.
    return coefficients, 1 - (counts * (y - fitted) ** 2).sum(axis=1) / np.where(spread > 1e-24, spread, np.nan)


MOST_PERMUTED = 8
"""Points up to which each order of the ranks is tried: 40,320 orders."""


def spearman(x: Floats, y: Floats, *, exact: bool = False) -> tuple[float, float]:
    """Spearman's rho of ``x`` and ``y`` (n,) and its two-sided p; NaN below 3 points or without spread.

    By the t approximation, which calls rho = 1 impossible by chance whatever n. ``exact``: the share of all orders that
    are as extreme (of three models one in three), up to `MOST_PERMUTED` points.
    """
    n = len(x)
    a, b = (pl.Series(values).rank().to_numpy() - (n + 1) / 2 for values in (x, y))
    size = math.sqrt(float(a @ a) * float(b @ b))
    if n < 3 or size == 0:
        return np.nan, np.nan
    rho = float(a @ b) / size
    if exact and n <= MOST_PERMUTED:
        return rho, float((np.abs(b[_orders(n)] @ a) >= abs(a @ b) - 1e-9).mean())
    with np.errstate(divide="ignore"):
        t = abs(rho) * np.sqrt((n - 2) / np.maximum((1 + rho) * (1 - rho), 0.0))
    return rho, float(2 * special.stdtr(n - 2, -t))


@functools.cache
def _orders(n: int) -> NDArray[np.int64]:
    """Every order of ``n`` things, of shape (n!, n)."""
    return np.array(list(itertools.permutations(range(n))), dtype=np.int64)


def theil_sen(x: Floats, y: Floats, level: float) -> tuple[float, float, float, float]:
    """The Theil-Sen line: slope, intercept, and both ends of the slope's interval; NaN where ``x`` are all equal.

    The slope is the median of those of all pairs, the line goes through the medians, and the interval is by Sen (1968),
    equation 2.6: conservative for few points. Of more than `MOST_PAIRED` points every other one serves, or fewer.
    """
    step = -(-len(x) // MOST_PAIRED) or 1
    x, y = x[::step], y[::step]
    if len(np.unique(x)) < 2:
        return (np.nan,) * 4
    run, rise = ((values - values[:, None])[np.triu_indices(len(x), 1)] for values in (x, y))
    slopes = np.sort(rise[run != 0] / run[run != 0])
    slope, n = float(np.median(slopes)), len(slopes)
    intercept = float(np.median(y) - slope * np.median(x))
    counts = [np.array([len(x)]), *(np.unique(values, return_counts=True)[1] for values in (x, y))]
    all_of, *ties = ((k * (k - 1) * (2 * k + 5)).sum() for k in counts)
    if all_of < sum(ties):
        return slope, intercept, np.nan, np.nan
    reach = special.ndtri(0.5 + level / 2) * math.sqrt((all_of - sum(ties)) / 18)
    low, high = max(round((n - reach) / 2) - 1, 0), min(round((n + reach) / 2), n - 1)
    return slope, intercept, float(slopes[low]), float(slopes[high])
