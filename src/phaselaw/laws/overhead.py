"""Overhead and compute: ``lat = a + b P`` and ``lat = a + b P^s``, in TR121's way and in relative error (TR121 5.2.1).

TR121's least squares in ms are descriptive only: the largest models decide the fit, and the three-parameter form is
ill-determined. Latencies scatter by a share, not by milliseconds, so our fit is least squares of log latency. Its
intervals are those of the profile likelihood with the F quantile (Bates and Watts, Nonlinear Regression Analysis, 1988,
6.1): all values of a parameter for which some choice of the others fits nearly as well as the best. They know no
symmetry and stay inside a, b >= 0 and 0 <= s <= 2; where the data can't tell, they are wide and reach those bounds.

The search is over ``s`` and the logit ``t`` of the overhead's share at the geometric mean of the parameter counts:
given both, the scale of the latencies is a mean of logs, exactly.
"""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, special

from phaselaw import tables as col
from phaselaw.laws.regression import Floats, fit_line
from phaselaw.laws.summary import GROUP, GROUP_COLUMNS, ORDER, by_size
from phaselaw.tables import BUDGET, Row, Table, grouped

LINEAR, POWER = "lat = a + b*P", "lat = a + b*P^s"
MAX_EXPONENT = 2.0
"""TR121's bounds: ``a >= 0`` and ``0 <= s <= 2``, for the form with an exponent."""
_T = 16.0
"""Range of the logit: a share of 1e-7 stands for none, 1 - 1e-7 for all."""

OVERHEAD_COMPUTE_FITS = Table(
    name="overhead_compute_fits",
    holds="overhead and compute told apart",
    columns=(
        *GROUP_COLUMNS,
        col.words("aggregation"),
        col.words("fit", "fit"),
        col.counted("n_models", "models"),
        col.flag("ok"),
        *(col.derived("a_ms", "a (ms)"), col.derived("b_ms_per_million_params", "b (ms a million parameters)")),
        col.derived("r2", "R2, TR121's fit", col.fixed),
        *col.plain("overhead_fraction_at_min_model overhead_fraction_at_max_model b s"),
        col.derived("relative_a_ms", "overhead a (ms)"),
        *col.interval("relative_a_ci_low", "relative_a_ci_high", "interval", col.digits),
        *col.plain("relative_b relative_b_ci_low relative_b_ci_high"),
        col.derived("relative_s", "exponent s", col.fixed),
        *col.interval("relative_s_ci_low", "relative_s_ci_high", "interval"),
        *col.plain("relative_log_r2"),
        col.derived("relative_share_at_median", "share at the median model", col.percent),
        *col.interval("relative_share_at_median_ci_low", "relative_share_at_median_ci_high", "interval", col.percent),
        col.counted(BUDGET),
    ),
    order=(*ORDER, "fit"),
    shows="backend mode fit relative_a_ms relative_a_ci_low relative_s relative_s_ci_low relative_share_at_median "
    "relative_share_at_median_ci_low r2",
)


def overhead_compute_fits(per_model: pl.DataFrame, level: float) -> pl.DataFrame:
    """The table ``overhead_compute_fits``: both forms for each group's aggregate, TR121's columns first, then ours."""
    points = by_size(per_model.with_columns(latency="latency_geomean_ms"), GROUP)
    return OVERHEAD_COMPUTE_FITS.frame(
        key | _row(form, models["params_millions_effective"].to_numpy(), models["latency"].to_numpy(), level)
        for key, models in grouped(points, GROUP)
        for form in (LINEAR, POWER)
    )


def _row(form: str, params: Floats, latency: Floats, level: float) -> Row:
    about = {"aggregation": "geomean_across_scenarios", "fit": form, "n_models": len(params)}
    linear = form == LINEAR
    if len(np.unique(params)) < (2 if linear else 3):
        return about | {"ok": False}
    # TR121's line may have a negative a or b.
    line = fit_line(params, latency)
    a, b, s, r2 = (line.intercept, line.slope, 1.0, line.r2) if linear else _power_fit(params, latency)
    ours = _relative_fit(_Problem(params, latency, *((1.0, 1.0) if linear else (0.0, MAX_EXPONENT))), level)
    # The overhead's share of the fitted latency, where that is positive.
    fitted = {end: a + b * size**s for end, size in (("min", float(params.min())), ("max", float(params.max())))}
    shares = {f"overhead_fraction_at_{end}_model": a / ms if ms > 0 else None for end, ms in fitted.items()}
    theirs = {"ok": True, "a_ms": a, "r2": r2} | ({"b_ms_per_million_params": b} if linear else {"b": b, "s": s})
    return about | theirs | shares | {f"relative_{name}": value for name, value in ours.items()}


def _power_fit(params_millions: Floats, latency_ms: Floats) -> tuple[float, float, float, float]:
    """The best least squares of ``a + b P^s`` with a, b >= 0 and 0 <= s <= 2: a, b, s and R2.

    For each s the best a and b are exact; s is searched over a grid and refined about the best of it.
    """
    scale = float(params_millions.max())

    def fit(s: float) -> tuple[Floats, float]:
        """The best a and b, and the norm of what they leave."""
        return optimize.nnls(np.stack([np.ones_like(latency_ms), (params_millions / scale) ** s], axis=1), latency_ms)

    grid = np.linspace(0.0, MAX_EXPONENT, 201)
    at = int(np.argmin([fit(s)[1] for s in grid]))
    about = (grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)])
    refined = optimize.minimize_scalar(lambda s: fit(s)[1], bounds=about, method="bounded", options={"xatol": 1e-12})
    s = min(float(grid[at]), float(refined.x), key=lambda s: fit(s)[1])
    (a, b), rest = fit(s)
    total = float(((latency_ms - latency_ms.mean()) ** 2).sum())
    return float(a), float(b) / scale**s, s, 1 - rest**2 / total if total > 0 else math.nan


class _Problem:
    """Log latencies against relative parameter counts, and the range of exponents, of one value where it is given.

    Every array function broadcasts over ``s`` and ``t``.
    """

    def __init__(self, params: Floats, latency: Floats, least: float, most: float) -> None:
        self.exponents = least, most
        self.log_p = np.log(params)
        self.centre = float(self.log_p.mean())
        self.log_y = np.log(latency)
        self.n = len(params)
        self.median = float(np.log(np.median(params)))

    def evaluate(self, s: Floats, t: Floats) -> tuple[Floats, Floats]:
        """Sum of squared log residuals at the best scale, and the log of that scale."""
        share, growing = 1 / (1 + np.exp(-t))[..., None], np.exp(s[..., None] * (self.log_p - self.centre))
        residual = self.log_y - np.log(share + (1 - share) * growing)
        scale = residual.mean(axis=-1)
        return ((residual - scale[..., None]) ** 2).sum(axis=-1), scale

    def best_t(self, s: Floats) -> tuple[Floats, Floats]:
        """For each of ``s`` (k,): the best logit and its sum of squares, by a grid that zooms in."""
        whole = np.broadcast_to(np.linspace(-_T, _T, 33), (len(s), 33))
        return _zoom(whole, lambda t: self.evaluate(s[:, None], t)[0])


def _zoom(t: Floats, cost: Callable[[Floats], Floats]) -> tuple[Floats, Floats]:
    """Of each row of a grid (k, points): where the cost is least and how much that is, by a grid that zooms in."""
    for _ in range(5):
        costs = cost(t)
        rows, at = np.arange(len(t)), costs.argmin(axis=1)
        low, high = t[rows, np.maximum(at - 1, 0)], t[rows, np.minimum(at + 1, t.shape[1] - 1)]
        best, least = t[rows, at], costs[rows, at]
        t = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 9)
    return best, least


def _edge(inside: Floats, outside: Floats, holds: Callable[[Floats], NDArray[np.bool_]]) -> Floats:
    """How far from ``inside``, where a condition holds, towards ``outside`` it does, elementwise, by halving."""
    near, far = inside, outside
    for _ in range(18):
        middle = (near + far) / 2
        within = holds(middle)
        near, far = np.where(within, middle, near), np.where(within, far, middle)
    return np.where(holds(outside), outside, near)


def _relative_fit(problem: _Problem, level: float) -> dict[str, float | None]:
    """Least squares of log latency on ``a + b P^s``, with profile intervals.

    ``log_r2`` is of log latency, ``share_at_median`` the overhead's share of the fitted latency at the median
    parameter count. No interval where no degree of freedom is left.
    """
    s, t, least = _best(problem)
    a, b, share = (float(each[0]) for each in _parameters(problem, np.array([s]), np.array([t])))
    total = float(((problem.log_y - problem.log_y.mean()) ** 2).sum())
    found = {"a_ms": a, "b": b, "s": s, "log_r2": 1 - least / total if total > 0 else None, "share_at_median": share}
    degrees = problem.n - 1 - len(set(problem.exponents))
    if degrees > 0:
        limit = least * (1 + float(special.fdtri(1, degrees, level)) / degrees) + 1e-24
        for name, (low, high) in _intervals(problem, (s, t), limit).items():
            found |= {f"{name}_ci_low": low, f"{name}_ci_high": high}
    return found


def least_log_error(params_millions: Floats, latency_ms: Floats, *, max_exponent: float) -> float:
    """The least sum of squared residuals of log latency that any ``a + b P^s`` with ``s <= max_exponent`` leaves."""
    return _best(_Problem(params_millions, latency_ms, 0.0, max_exponent))[2]


def _best(problem: _Problem) -> tuple[float, float, float]:
    s = np.unique(np.linspace(*problem.exponents, 41))
    for _ in range(6):
        t, errors = problem.best_t(s)
        at = int(errors.argmin())
        found = float(s[at]), float(t[at]), float(errors[at])
        s = np.unique(np.linspace(s[max(at - 1, 0)], s[min(at + 1, len(s) - 1)], 9))
    return found


def _parameters(problem: _Problem, s: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b and the overhead's share at the median model, at the best scale; beyond the logit's range it is 0 or 1."""
    scale = np.exp(problem.evaluate(s, t)[1])
    share = np.where(t <= -_T, 0.0, np.where(t >= _T, 1.0, 1 / (1 + np.exp(-t))))
    growing = np.exp(s * (problem.median - problem.centre))
    a, rest = scale * share, scale * (1 - share)
    return a, rest * np.exp(-s * problem.centre), a / (a + rest * growing)


def _intervals(problem: _Problem, best: tuple[float, float], limit: float) -> dict[str, tuple[float, float]]:
    """Profile intervals of a, b, s and the share at the median model: the extremes over all fits within ``limit``.

    Given s and t, the log scale may be off its best by sqrt(slack / n) and still stay within the limit.
    """
    s = np.unique(np.append(np.linspace(*problem.exponents, 41), best[0]))
    within = problem.best_t(s)[1] <= limit
    inside = np.flatnonzero(within if within.any() else s == best[0])[[0, -1]]
    beyond = np.clip(inside + np.array([-1, 1]), 0, len(s) - 1)
    s_low, s_high = _edge(s[inside], s[beyond], lambda s: problem.best_t(s)[1] <= limit)
    # Close to its ends a and b change fastest.
    s = np.unique(np.append(s_low + (s_high - s_low) * (1 - np.cos(np.linspace(0, np.pi, 41))) / 2, best[0]))
    t, errors = problem.best_t(s)
    s, t = s[errors <= limit], t[errors <= limit]
    if len(s) == 0:  # the limit is within rounding of the best fit
        s, t = np.array([best[0]]), np.array([best[1]])
    low, high = (_edge(t, np.full_like(t, end), lambda t: problem.evaluate(s, t)[0] <= limit) for end in (-_T, _T))
    grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 31)

    def extreme(which: int, sign: int) -> float:
        """The least (1) or the largest (-1) a (0) or b (1)."""

        def cost(t: Floats) -> Floats:
            slack = np.clip((limit - problem.evaluate(s[:, None], t)[0]) / problem.n, 0, 1e5)  # e^316: no end
            return np.asarray(sign * _parameters(problem, s[:, None], t)[which] * np.exp(-sign * np.sqrt(slack)))

        return sign * float(_zoom(grid, cost)[1].min())

    share = _parameters(problem, np.stack([s, s]), np.stack([low, high]))[2]
    return {
        "a": (extreme(0, 1), extreme(0, -1)),
        "b": (extreme(1, 1), extreme(1, -1)),
        "s": (float(s_low), float(s_high)),
        "share_at_median": (float(share.min()), float(share.max())),
    }
