"""Latency and rate at each value of each axis, with intervals: what a sweep's plots are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import MODEL
from phaselaw.laws.sweep_axes import HELD, along_axes

_COLUMNS = [
    "axis", *HELD, *MODEL, "mode", "value", "n", "latency_ms", "latency_ci_low", "latency_ci_high",
    "tokens_per_s", "tokens_per_s_ci_low", "tokens_per_s_ci_high", "ms_per_token",
]  # fmt: skip


def sweep_curves(cells: pl.DataFrame, per_model: pl.DataFrame, lengths: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """Per axis, model, phase and value: median latency and tokens/s, each with a t interval from its calls' scatter.

    Along every axis but the prompt's a model's figures are its geometric means over prompts, as in the laws. A token of
    ``ms_per_token`` is one of the phase's: a prompt's, a generated one, either.
    """
    own = [*HELD[:5], *MODEL, "mode"]
    variances = ["latency_log_variance", "tokens_per_s_log_variance"]
    of_cells = cells.select(
        *own, "n", pl.col("latency_median_ms").alias("latency_ms"), pl.col("tokens_per_s_median").alias("tokens_per_s"),
        *variances, pl.col("n").cast(pl.Int64).alias("calls"),
    )  # fmt: skip
    calls = cells.group_by([*own[:4], *MODEL, "mode"]).agg(pl.col("n").min().alias("n"), pl.col("n").sum().alias("of"))
    of_models = per_model.join(calls, on=[*own[:4], *MODEL, "mode"], nulls_equal=True).with_columns(
        pl.lit("__all__").alias("scenario")
    ).select(
        *own, "n", pl.col("latency_geomean_ms").alias("latency_ms"),
        pl.col("tokens_per_s_geomean").alias("tokens_per_s"), *variances,
        # Degrees of freedom of a mean over prompts: each prompt's calls have their own median.
        (pl.col("of") - pl.col("n_scenarios") + 1).alias("calls"),
    )  # fmt: skip
    points = pl.concat([of_cells, of_models], how="vertical_relaxed")
    found = []
    for _, swept in along_axes(points, lengths, ["mode", *MODEL]):
        degrees = swept["calls"].to_numpy().astype(float) - 1
        found.append(
            swept.with_columns(
                *_interval(swept, "latency_ms", "latency", degrees, level),
                *_interval(swept, "tokens_per_s", "tokens_per_s", degrees, level),
                (1e3 / pl.col("tokens_per_s")).alias("ms_per_token"),
            ).select(_COLUMNS)
        )
    types: dict[str, Any] = {**points.schema, "axis": pl.String, "threads": pl.Float64}
    empty = pl.DataFrame(schema={name: types.get(name, pl.Float64) for name in _COLUMNS})
    return pl.concat([empty, *found], how="vertical_relaxed")


def _interval(table: pl.DataFrame, value: str, name: str, degrees: Floats, level: float) -> list[pl.Series]:
    """The ends of a t interval on the log of a median, empty where a cell had one call."""
    variance = table[f"{name}_log_variance"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    with np.errstate(invalid="ignore"):
        half = np.sqrt(variance) * stats.t.ppf(0.5 + level / 2, np.where(degrees > 0, degrees, np.nan))
    middle = table[value].cast(pl.Float64).fill_null(np.nan).to_numpy()
    ends = {"low": middle * np.exp(-half), "high": middle * np.exp(half)}
    return [pl.Series(f"{name}_ci_{end}", values).fill_nan(None) for end, values in ends.items()]
