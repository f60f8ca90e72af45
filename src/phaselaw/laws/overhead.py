"""Overhead and compute: ``lat = a + b P`` and ``lat = a + b P^s`` in TR121's way, least squares in ms (TR121 5.2.1).

Descriptive only: in ms the largest models decide the fit, and the three-parameter form is ill-determined. Our fit in
relative error, with its intervals, stands beside it (`phaselaw.laws.overhead_interval`).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import polars as pl
from scipy import optimize

from phaselaw.laws.overhead_interval import RelativeFit, relative_fit
from phaselaw.laws.regression import Floats, fit_lines
from phaselaw.laws.series import Series
from phaselaw.laws.summary import GROUP
from phaselaw.tables import Table

OVERHEAD_COMPUTE_FITS = Table(name="overhead_compute_fits", holds="overhead and compute told apart", columns=())

LINEAR, POWER = "lat = a + b*P", "lat = a + b*P^s"
MAX_EXPONENT = 2.0
"""TR121's bounds: ``a >= 0`` and ``0 <= s <= 2``, for the form with an exponent."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OverheadFit:
    """``lat = a + b P^s``, latencies in ms and parameters in millions."""

    a_ms: float
    b: float
    s: float
    r2: float

    def share_at(self, params_millions: float) -> float | None:
        """The overhead's share of the *fitted* latency; ``None`` where that is not positive."""
        fitted = self.a_ms + self.b * params_millions**self.s
        return self.a_ms / fitted if fitted > 0 else None


def linear_fit(params_millions: Floats, latency_ms: Floats) -> OverheadFit:
    """Ordinary least squares of ``a + b P``; a and b may come out negative, as in TR121."""
    line = fit_lines(params_millions[None], latency_ms[None])
    return OverheadFit(a_ms=float(line.intercept[0]), b=float(line.slope[0]), s=1.0, r2=float(line.r2[0]))


def power_fit(params_millions: Floats, latency_ms: Floats) -> OverheadFit:
    """The best least squares of ``a + b P^s`` with a, b >= 0 and 0 <= s <= 2.

    For each s the best a and b are exact; s is searched over a grid and refined in each of its valleys, so that no
    local minimum is mistaken for the best.
    """
    scale = float(params_millions.max())
    relative = params_millions / scale

    def error(s: float) -> float:
        return float(_nonnegative(relative ** np.array([s])[:, None], latency_ms)[2][0])

    grid = np.linspace(0.0, MAX_EXPONENT, 801)
    errors = _nonnegative(relative ** grid[:, None], latency_ms)[2]
    padded = np.concatenate([[np.inf], errors, [np.inf]])
    valleys = np.flatnonzero((errors <= padded[:-2]) & (errors <= padded[2:]))
    candidates = [float(grid[errors.argmin()])]
    for at in valleys[np.argsort(errors[valleys])[:5]]:
        bounds = (float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)]))
        found = optimize.minimize_scalar(error, bounds=bounds, method="bounded", options={"xatol": 1e-12})
        candidates.append(float(found.x))
    s = min(candidates, key=error)
    a, b, sse = (float(value[0]) for value in _nonnegative(relative ** np.array([s])[:, None], latency_ms))
    total = float(((latency_ms - latency_ms.mean()) ** 2).sum())
    return OverheadFit(a_ms=a, b=b / scale**s, s=s, r2=1 - sse / total if total > 0 else math.nan)


def _nonnegative(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Exact least squares of ``a + b x`` with a, b >= 0 for each row of ``x``: a, b and the sum of squares."""
    n = x.shape[1]
    mean, y_mean = x.mean(axis=1), y.mean()
    dx = x - mean[:, None]
    sxx = (dx * dx).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(sxx > 1e-14 * n, dx @ (y - y_mean) / sxx, 0.0)
    slope = np.maximum(slope, 0.0)  # b = 0 leaves a the mean of y, which is positive
    a = y_mean - slope * mean
    through_origin = (x @ y) / (x * x).sum(axis=1)
    b = np.where(a < 0, through_origin, slope)
    a = np.maximum(a, 0.0)
    residual = y - a[:, None] - b[:, None] * x
    return a, b, (residual * residual).sum(axis=1)


def overhead_compute_fits(per_model: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """The table ``overhead_compute_fits``: both forms for each group's aggregate, TR121's columns first, then ours."""
    series = Series.of(per_model.with_columns(pl.col("latency_geomean_ms").alias("latency")), GROUP)
    x, y = series.values("params_millions_effective"), series.values("latency")
    rows = [
        key | _row(form, x[start : start + n], y[start : start + n], level)
        for key, start, n in zip(series.keys.iter_rows(named=True), series.starts, series.lengths, strict=True)
        for form in (LINEAR, POWER)
    ]
    schema = {name: series.keys.schema[name] for name in GROUP} | _SCHEMA
    first = ["backend", "backend_kind", "batch_size", "mode"]
    return (
        pl.DataFrame(rows, schema=schema)
        .select(*first, pl.exclude([*first, "gen_tokens_target"]), "gen_tokens_target")
        .sort(["backend", "batch_size", "gen_tokens_target", "mode", "fit"])
    )


_FLOATS = ("a_ms", "b_ms_per_million_params", "r2", "overhead_fraction_at_min_model", "overhead_fraction_at_max_model",
           "b", "s")  # fmt: skip
_SCHEMA: dict[str, type[pl.DataType]] = {
    "aggregation": pl.String,
    "fit": pl.String,
    "n_models": pl.Int64,
    "ok": pl.Boolean,
    **dict.fromkeys(_FLOATS, pl.Float64),
    **{f"relative_{field.name}": pl.Float64 for field in dataclasses.fields(RelativeFit)},
}


def _row(form: str, params: Floats, latency: Floats, level: float) -> dict[str, object]:
    enough = 2 if form == LINEAR else 3
    row: dict[str, object] = {
        "aggregation": "geomean_across_scenarios",
        "fit": form,
        "n_models": len(params),
        "ok": len(np.unique(params)) >= enough,
    }
    if not row["ok"]:
        return row
    fit = linear_fit(params, latency) if form == LINEAR else power_fit(params, latency)
    row |= {
        "a_ms": fit.a_ms,
        "b_ms_per_million_params" if form == LINEAR else "b": fit.b,
        "r2": None if math.isnan(fit.r2) else fit.r2,
        "overhead_fraction_at_min_model": fit.share_at(float(params.min())),
        "overhead_fraction_at_max_model": fit.share_at(float(params.max())),
    }
    if form == POWER:
        row["s"] = fit.s
    ours = relative_fit(params, latency, fixed_s=1.0 if form == LINEAR else None, level=level)
    return row | {f"relative_{name}": value for name, value in dataclasses.asdict(ours).items()}
