"""How far apart two laws' exponents are, with the default interval of a law (method 3: claim table)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.noise import UnitNoise, no_unit_noise, unit_noise
from phaselaw.laws.points import ALL, KEYS, Units
from phaselaw.laws.regression import fit_lines, t_half_width
from phaselaw.laws.series import Series
from phaselaw.laws.summary import GROUP
from phaselaw.laws.verdicts import MIN_MODELS

_SAME = ["model", "params_millions_effective"]
"""What makes a model of one law the same as one of another's."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlopeDifference:
    """The difference of two slopes with its interval; NaN where it can't be told."""

    difference: float
    low: float
    high: float
    n_models: int

    @property
    def distinct(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def at_most(self) -> float:
        """So far apart the two are at most."""
        return max(abs(self.low), abs(self.high))


def paired_slope_difference(
    first: pl.DataFrame, second: pl.DataFrame, level: float, *, units: Units | None = None
) -> SlopeDifference:
    """Slope of ``first`` minus slope of ``second`` over the models that both have.

    Both are `phaselaw.laws.summary.by_model` rows of one group. It is the slope of log(first / second) on log
    parameters: what a model, or a run, does to both alike cancels. The interval is a law's default one; ``units`` are
    the runs or rounds that the rows are from, for the noise between them.
    """
    kept = (pl.col("params_millions_effective") > 0) & (pl.col("latency") > 0)
    both = _ratio(_points(first), _points(second), _SAME).filter(kept)
    n = both.height
    if n < MIN_MODELS or both["params_millions_effective"].n_unique() < 2:
        return SlopeDifference(difference=math.nan, low=math.nan, high=math.nan, n_models=n)
    series = Series.of(both, KEYS)
    x, y = np.log10(series.values("params_millions_effective")), np.log10(series.values("latency"))
    line = fit_lines(x[None], y[None])
    noise = no_unit_noise(1) if units is None else _noise(series, units, first, second)
    slope, half = float(line.slope[0]), float(noise.half_width(line.slope_se, n - 2, level)[0])
    return SlopeDifference(difference=slope, low=slope - half, high=slope + half, n_models=n)


def _points(per_model: pl.DataFrame) -> pl.DataFrame:
    mean = [pl.lit(ALL).alias("scenario"), pl.lit("geomean_across_scenarios").alias("aggregation")]
    return per_model.with_columns(*mean, pl.col("latency_geomean_ms").alias("latency"))


def _ratio(first: pl.DataFrame, second: pl.DataFrame, on: list[str]) -> pl.DataFrame:
    """The latencies of ``first`` over those of ``second``, under the names of ``first``."""
    others = second.select(*on, pl.col("latency").alias("other"))
    joined = first.select(*dict.fromkeys([*KEYS, "model_kind", *on, "latency"])).join(others, on=on)
    return joined.with_columns(pl.col("latency") / pl.col("other"))


def _noise(series: Series, units: Units, first: pl.DataFrame, second: pl.DataFrame) -> UnitNoise:
    """The noise between units of the slope of the ratio: its own, not that of either law."""
    of_all = units.points.filter(pl.col("scenario") == ALL)
    one, other = (of_all.join(rows.select(GROUP).unique(), on=GROUP, how="semi", nulls_equal=True)
                  for rows in (first, second))  # fmt: skip
    ratios = dataclasses.replace(units, points=_ratio(one, other, [*_SAME, "unit"]))
    return unit_noise(series, ratios).noticed(units.kind)


def unpaired_slope_difference(one: Mapping[str, Any], other: Mapping[str, Any], level: float) -> SlopeDifference:
    """First minus second of two laws over different models, rows of ``scaling_fits``, each with its own interval."""
    laws = [_slope_and_error(law, level) for law in (one, other)]
    if any(math.isnan(error) for _, error, _ in laws):
        return SlopeDifference(difference=math.nan, low=math.nan, high=math.nan, n_models=0)
    return welch_difference(laws[0], laws[1], level)


def _slope_and_error(law: Mapping[str, Any], level: float) -> tuple[float, float, int]:
    """Slope, the standard error that its default interval stands for, and its degrees of freedom."""
    degrees = int(law["n_models"]) - 2
    if law["slope_t_ci_low"] is None or degrees < 1:
        return math.nan, math.nan, degrees
    half = (law["slope_t_ci_high"] - law["slope_t_ci_low"]) / 2
    return float(law["slope"]), half / float(stats.t.ppf(0.5 + level / 2, degrees)), degrees


def welch_difference(one: tuple[float, float, int], other: tuple[float, float, int], level: float) -> SlopeDifference:
    """First minus second of two independent slopes, each (slope, standard error, degrees of freedom)."""
    (a, a_se, a_df), (b, b_se, b_df) = one, other
    variance = a_se**2 + b_se**2
    degrees = variance**2 / (a_se**4 / a_df + b_se**4 / b_df) if variance > 0 else math.inf
    half = float(t_half_width(np.array([math.sqrt(variance)]), degrees, level)[0])
    return SlopeDifference(difference=a - b, low=a - b - half, high=a - b + half, n_models=a_df + b_df + 4)
