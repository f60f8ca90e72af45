"""Exponents along an axis, and a test of whether the exponent is stable (TR121 6.2).

The test is paired over models. Along the axis each model has a slope ``s`` of log latency on the log of the axis's
value. Were the exponent the same at every value, those slopes would not depend on the model's size; if it moves by
``d`` for each tenfold of the axis, ``s = c + d log10(parameters)``. So ``d`` is a least-squares slope over models, with
a t interval of n - 2 degrees of freedom. What puts a model off the law puts it off at every value alike, and cancels;
a test that took the points for independent would count it as noise at each value and find nothing. It sees a trend,
not an exponent that goes up and comes back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.regression import Floats, fit_lines, t_half_width
from phaselaw.laws.sweep_axes import HELD, along_axes

MOVES, NOT_TOLD, TOO_FEW = "moves", "no trend told", "too few models"

_BY_AXIS = [
    "axis", *HELD, "mode", "value", "n_models", "slope", "slope_t_ci_low", "slope_t_ci_high", "r2", "verdict",
]  # fmt: skip

STABILITY: dict[str, Any] = {
    "n_models": pl.Int64, "n_values": pl.Int64, "value_first": pl.Float64, "value_last": pl.Float64,
    "exponent_first": pl.Float64, "exponent_last": pl.Float64, "change_per_tenfold": pl.Float64,
    "change_ci_low": pl.Float64, "change_ci_high": pl.Float64, "p": pl.Float64, "stability": pl.String,
}  # fmt: skip


def exponent_by_axis(fits: pl.DataFrame, lengths: pl.DataFrame) -> pl.DataFrame:
    """The law at each value of each axis: exponent, t interval, R2, verdict, from ``scaling_fits``."""
    usable = fits.filter(pl.col("slope").is_not_null())
    found = [swept.select(_BY_AXIS) for _, swept in along_axes(usable, lengths, ["mode"])]
    types: dict[str, Any] = {**usable.schema, "axis": pl.String, "value": pl.Float64, "threads": pl.Float64}
    return pl.concat([pl.DataFrame(schema={name: types[name] for name in _BY_AXIS}), *found])


def exponent_stability(points: pl.DataFrame, lengths: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """Whether the exponent moves along each axis; ``points`` are those of the laws (`phaselaw.laws.scaling.points_of`).

    ``change_per_tenfold`` is how much the exponent grows while the axis grows tenfold, over the models that were
    measured at every value.
    """
    keys = ["axis", *HELD, "mode"]
    found: list[dict[str, Any]] = []
    types: dict[str, Any] = {**points.schema, "axis": pl.String, "threads": pl.Float64}
    for _, swept in along_axes(points, lengths, ["mode", "model", "model_kind"]):
        for key, group in swept.group_by(keys, maintain_order=True):
            grid = _complete(group)
            if grid is not None:
                found.append(dict(zip(keys, key, strict=True)) | stability_of(*grid, level=level))
    return pl.DataFrame(found, schema={name: types[name] for name in keys} | STABILITY)


def _complete(group: pl.DataFrame) -> tuple[Floats, Floats, Floats] | None:
    """Values (v,), parameters in millions (m,) and latencies (m, v) of the models that have every value."""
    sound = pl.col("params_millions_effective").is_finite() & (pl.col("params_millions_effective") > 0)
    table = (
        group.filter(sound & (pl.col("latency") > 0))
        .pivot(on="value", index=["model", "model_kind", "params_millions_effective"], values="latency")
        .drop_nulls()
    )
    values = sorted(table.columns[3:], key=float)
    if table.height < 2 or len(values) < 2:
        return None
    sizes, latencies = table["params_millions_effective"].to_numpy(), table.select(values).to_numpy()
    return np.array([float(value) for value in values]), sizes, latencies


def stability_of(values: Floats, params: Floats, latencies: Floats, *, level: float) -> dict[str, Any]:
    """The columns `STABILITY` for an axis's values (v,), the models' parameters (m,) and their latencies (m, v)."""
    models, sizes, logs = len(params), np.log10(params), np.log10(latencies)
    exponents = fit_lines(np.broadcast_to(sizes, logs.T.shape), logs.T).slope
    along = fit_lines(np.broadcast_to(np.log10(values), logs.shape), logs).slope
    line = fit_lines(sizes[None], along[None])
    change, se = float(line.slope[0]), float(line.slope_se[0])
    half = float(t_half_width(line.slope_se, models - 2, level)[0])
    p = float(2 * stats.t.sf(abs(change) / se, models - 2)) if models > 2 and se > 0 else None
    told = p is not None and p < 1 - level
    return {
        "n_models": models,
        "n_values": len(values),
        "value_first": float(values[0]),
        "value_last": float(values[-1]),
        "exponent_first": float(exponents[0]),
        "exponent_last": float(exponents[-1]),
        "change_per_tenfold": change,
        "change_ci_low": change - half if np.isfinite(half) else None,
        "change_ci_high": change + half if np.isfinite(half) else None,
        "p": p,
        "stability": TOO_FEW if models < 3 else MOVES if told else NOT_TOLD,
    }
