"""Least squares, ranks and their intervals, over many groups and resamples at once.

Arrays have the shape (groups, models) unless said; a bootstrap is matrix arithmetic over all resamples, never a loop.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedLine:
    """``y = intercept + slope x`` by ordinary least squares, one per group; arrays of shape (groups,)."""

    slope: Floats
    intercept: Floats
    r2: Floats
    slope_se: Floats
    """Standard error of the slope from the scatter of the points; NaN with two points."""
    residual_sd: Floats
    """Standard deviation of the points about the line, with n - 2 degrees of freedom; NaN with two points."""


def fit_lines(x: Floats, y: Floats) -> FittedLine:
    """Ordinary least squares for each row of ``x`` and ``y``; NaN where a row's x are all equal."""
    n = x.shape[1]
    dx, dy = _centred(x), _centred(y)
    sxx, sxy, syy = (dx * dx).sum(axis=1), (dx * dy).sum(axis=1), (dy * dy).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(sxx > 0, sxy / sxx, np.nan)
        residual = dy - slope[:, None] * dx
        sse = (residual * residual).sum(axis=1)
        r2 = np.where(syy > 0, 1 - sse / syy, np.nan)
        sd = np.sqrt(sse / (n - 2)) if n > 2 else np.full(len(slope), np.nan)
        se = sd / np.sqrt(sxx)
    intercept = y.mean(axis=1) - slope * x.mean(axis=1)
    return FittedLine(slope=slope, intercept=intercept, r2=r2, slope_se=se, residual_sd=sd)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Each point against the line through the others; arrays (groups, models), NaN where these are all of one size."""

    leverage: Floats
    """The share that a point has in its own value of the line through all (Cook and Weisberg, 1982, 2.1)."""
    off: Floats
    """What the point is off the line through the others."""
    sse: Floats
    """That line's sum of squares, over the others."""
    slope: Floats
    slope_se: Floats
    r2: Floats


def left_out(x: Floats, y: Floats) -> LeftOut:
    """The line through the others of each point, from that through all (Cook and Weisberg, 1982, 2.2)."""
    n, line, dx, dy = x.shape[1], fit_lines(x, y), _centred(x), _centred(y)
    sxx = (dx * dx).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        leverage = 1 / n + dx**2 / sxx
        rest = np.where(leverage < 1 - 1e-9, 1 - leverage, np.nan)
        residual = dy - line.slope[:, None] * dx
        off = residual / rest
        sse = np.maximum((residual**2).sum(axis=1, keepdims=True) - residual * off, 0.0)
        total = (dy * dy).sum(axis=1, keepdims=True) - dy**2 * n / (n - 1)
        se = np.sqrt(sse / (n - 3) / (sxx - dx**2 * n / (n - 1))) if n > 3 else np.full_like(x, np.nan)
        slope, r2 = line.slope[:, None] - dx * off / sxx, 1 - sse / total
    return LeftOut(leverage=leverage, off=off, sse=sse, slope=slope, slope_se=se, r2=r2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnequalScatter:
    """Slopes where models scatter unequally about their line; arrays of shape (groups,), NaN where untestable."""

    se: Floats
    """HC2's standard error of the slope (MacKinnon and White, J. Econometrics 29, 1985)."""
    degrees: Floats
    """Bell and McCaffrey's degrees of freedom (Survey Methodology 28, 2002)."""
    p: Floats
    """Of HC2's variance exceeding that of least squares by so much where the scatter is equal and normal."""


MOST_EXACT = 200
"""Points of which eigenvalues are worked out, whose time grows with the cube of their number."""


def unequal_scatter(x: Floats, y: Floats) -> UnequalScatter:
    """HC2 for each row of ``x`` and ``y``; four points or more, none of which the line must go through.

    Both variances are quadratic forms in the residuals, ``e' W e`` and ``e' e / (n - 2) / S``. The eigenvalues of W on
    the residuals' space give Bell and McCaffrey's degrees, and mean and variance of the two's ratio, which a beta
    distribution between the least and the largest eigenvalue has (Durbin and Watson, Biometrika 38, 1951). Of more
    than `MOST_EXACT` points these two are taken for the least and the largest of W's diagonal, which hold them.
    """
    n, dx = x.shape[1], _centred(x)
    free = n - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = dx / (dx * dx).sum(axis=1, keepdims=True)
        leverage = 1 / n + weights * dx
        root = np.where(leverage < 1 - 1e-9, np.abs(weights) / np.sqrt(1 - leverage), np.nan)
    sound = np.isfinite(root).all(axis=1) & (n > 3)
    se, degrees, p = (np.full(len(x), np.nan) for _ in range(3))
    if sound.any():
        own, leverage, dx, dy = root[sound] ** 2, leverage[sound], dx[sound], _centred(y[sound])
        residual = dy - (weights[sound] * dy).sum(axis=1, keepdims=True) * dx
        square, robust = (residual**2).sum(axis=1), (own * residual**2).sum(axis=1)
        basis = np.stack([np.full_like(dx, n**-0.5), dx / np.linalg.norm(dx, axis=1, keepdims=True)], axis=1)
        ends = own
        if n <= MOST_EXACT:
            rest = np.eye(n) - basis.transpose(0, 2, 1) @ basis
            ends = np.linalg.eigvalsh(root[sound][:, :, None] * rest * root[sound][:, None, :])[:, -free:]
        low, span = ends.min(axis=1), np.maximum(np.ptp(ends, axis=1), np.finfo(float).tiny)
        total, within = (own * (1 - leverage)).sum(axis=1), (basis * own[:, None, :]) @ basis.transpose(0, 2, 1)
        squares = (own**2 * (1 - 2 * leverage)).sum(axis=1) + (within**2).sum(axis=(1, 2))
        mean = (total / free - low) / span
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = 2 * (squares - total**2 / free) / (free * (free + 2)) / span**2
            both = mean * (1 - mean) / variance - 1
            p[sound] = stats.beta.sf((robust / square - low) / span, mean * both, (1 - mean) * both)
        se[sound], degrees[sound] = np.sqrt(robust), total**2 / squares
    return UnequalScatter(se=se, degrees=degrees, p=p)


def exponential(value: float) -> float:
    """``e^value``; infinite where that is too large for a float, as a poorly determined figure can be."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def p_of_zero_at(x: Floats, y: Floats, at: float) -> float:
    """Two-sided p of the least-squares line of ``y`` on ``x``, both (points,), being 0 at ``at``; NaN below 3 points.

    At 0 it tests the intercept a; at 1 it tests a + b, that is whether Fieller's interval of a / b holds -1.
    """
    n, dx = len(x), x - x.mean()
    line, sxx = fit_lines(x[None], y[None]), float((dx * dx).sum())
    if n < 3 or sxx <= 0:
        return np.nan
    se = float(line.residual_sd[0]) * np.sqrt(1 / n + (at - x.mean()) ** 2 / sxx)
    value = abs(float(line.intercept[0]) + at * float(line.slope[0]))
    return float(2 * stats.t.sf(value / se, n - 2)) if se > 0 else float(value == 0)


def _centred(values: Floats) -> Floats:
    """Values less their row's mean; what is but rounding is 0, so that equal values have no spread at all."""
    centred = values - values.mean(axis=1, keepdims=True)
    return np.where(np.abs(centred) < 1e-13 * (1 + np.abs(values)), 0.0, centred)


def t_half_width(se: Floats, degrees: float | Floats, level: float) -> Floats:
    """Half the width of a t interval; NaN without degrees of freedom."""
    half: Floats = se * stats.t.ppf(0.5 + level / 2, np.where(np.asarray(degrees) > 0, degrees, np.nan))
    return half


def log_interval(values: Floats, log_se: Floats, degrees: Floats, level: float) -> tuple[Floats, Floats]:
    """Both ends of a t interval on the log of each value; NaN without degrees of freedom."""
    half = t_half_width(log_se, degrees, level)
    return values * np.exp(-half), values * np.exp(half)


def resamples(n: int, draws: int, seed: int) -> Floats:
    """How often each of ``n`` models stands in each resample, of shape (draws, n).

    The draws are TR121's: a fresh ``default_rng(seed)`` and ``integers(0, n, n)`` for each, models in ascending order
    of parameters (method 3).
    """
    drawn = np.random.default_rng(seed).integers(0, n, (draws, n))
    counts = np.zeros((draws, n))
    np.add.at(counts, (np.arange(draws)[:, None], drawn), 1.0)
    return counts


def bootstrap_lines(x: Floats, y: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Slopes and intercepts of each group's line in each resample, both (groups, draws).

    A degenerate draw, all of one model, says nothing of a slope. TR121 keeps those as flat lines, and so does this;
    but with three models they are a ninth of all draws and the interval is made of them: there they are NaN.
    """
    n = x.shape[1]
    x0, y0 = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    dx, dy = x - x0, y - y0  # centred first, so that the sums of squares don't cancel
    mx, my = dx @ counts.T / n, dy @ counts.T / n
    sxx = (dx * dx) @ counts.T / n - mx * mx
    sxy = (dx * dy) @ counts.T / n - mx * my
    tiny = 1e-12 * np.maximum((dx * dx).mean(axis=1, keepdims=True), np.finfo(float).tiny)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(sxx > tiny, sxy / sxx, 0.0 if n > 3 else np.nan)
    return slope, (my + y0) - slope * (mx + x0)


def quantile_interval(values: Floats, level: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Percentile interval along the last axis, NaN left out, and how many values were used; linear quantiles."""
    used = np.isfinite(values).sum(axis=-1)
    kept = np.where(np.arange(values.shape[-1]) < used[..., None], np.sort(values, axis=-1), np.nan)  # NaN come last
    none = (used == 0)[..., None]  # numpy warns of rows without any value
    low, high = np.nanquantile(np.where(none, 0.0, kept), [0.5 - level / 2, 0.5 + level / 2], axis=-1)
    return np.where(used > 0, low, np.nan), np.where(used > 0, high, np.nan), used


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plane:
    """``y = b0 + b1 x1 + ...`` for one group: coefficients and their standard errors, both (terms,), and R2."""

    coefficients: Floats
    standard_errors: Floats
    r2: float
    degrees: int
    residual_variance: float
    """Variance of the points about the plane; NaN without degrees of freedom."""
    inverse_gram: Floats
    """``(X'X)^-1``, of shape (terms, terms)."""

    def leverage(self, at: Floats) -> float:
        """How far ``at`` (k,) lies from the fitted points: ``x' (X'X)^-1 x``, the constant included."""
        x = np.concatenate([[1.0], at])
        return float(x @ self.inverse_gram @ x)

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


def fit_plane(columns: Floats, y: Floats) -> Plane | None:
    """Least squares of ``y`` (n,) on a constant and ``columns`` (n, k); ``None`` where they don't determine it."""
    n, k = columns.shape
    design = np.column_stack([np.ones(n), columns])
    if n < k + 1 or np.linalg.matrix_rank(design) < k + 1:
        return None
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    sse = float(((y - design @ coefficients) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    degrees = n - k - 1
    variance = sse / degrees if degrees > 0 else np.nan
    return Plane(
        coefficients=coefficients,
        standard_errors=np.sqrt(np.maximum(np.diag(inverse), 0) * variance),
        r2=1 - sse / total if total > 0 else np.nan,
        degrees=degrees,
        residual_variance=variance,
        inverse_gram=inverse,
    )


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
    mean = (counts @ y / counts.sum(axis=1))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - (counts * (y - fitted) ** 2).sum(axis=1) / (counts * (y - mean) ** 2).sum(axis=1)
    return coefficients, r2


def leave_one_out_errors(columns: Floats | None, y: Floats) -> Floats | None:
    """What each point is off when it is predicted from the others, (n,); ``None`` where that can't be fitted.

    ``columns=None`` predicts the mean. By the hat matrix: residual / (1 - leverage).
    """
    n = len(y)
    design = np.ones((n, 1)) if columns is None else np.column_stack([np.ones(n), columns])
    if n < design.shape[1] + 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    inverse = np.linalg.pinv(design)
    leverage = (design * inverse.T).sum(axis=1)
    if (leverage > 1 - 1e-9).any():
        return None
    errors: Floats = (y - design @ (inverse @ y)) / (1 - leverage)
    return errors


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


MOST_PAIRED = 1000
"""Points of which all pairs are looked at."""


def theil_sen_rows(x: Floats, y: Floats, level: float) -> tuple[Floats, Floats, Floats, Floats]:
    """The Theil-Sen line of each row: slope, intercept, and both ends of the slope's interval; NaN where x are equal.

    The slope is the median of those of all pairs, the line goes through the medians, and the interval is by Sen (1968),
    equation 2.6: conservative for few points. Of more than `MOST_PAIRED` points every other one serves, or fewer.
    """
    step = -(-x.shape[1] // MOST_PAIRED) or 1
    with np.errstate(divide="ignore", invalid="ignore"):
        lines = [
            stats.theilslopes(mine, own, level) if len(np.unique(own)) > 1 else (np.nan,) * 4
            for own, mine in zip(x[:, ::step], y[:, ::step], strict=True)
        ]
    slope, intercept, low, high = np.array(lines, dtype=float).reshape(-1, 4).T
    return slope, intercept, low, high
