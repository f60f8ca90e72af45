"""Scaling laws: ``latency ~ params^slope`` of each backend and phase, with intervals (TR121 2.4, 2.6; method 3).

TR121's columns come first, its percentile bootstrap among them. Ours follow: the default interval of a slope is the
t interval of least squares over models, which covers at small n; the verdict is by it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.options import Options
from phaselaw.laws.regression import (
    Floats,
    bootstrap_lines,
    fit_lines,
    quantile_interval,
    resamples,
    spearman,
    t_half_width,
)
from phaselaw.laws.series import Series
from phaselaw.laws.summary import GROUP, MODEL, median_variance
from phaselaw.laws.verdicts import TREND, out_of_order, verdict

ALL = "__all__"
"""The ``scenario`` of a law on the geometric means over scenarios."""

KEYS = [*GROUP, "scenario", "aggregation"]

_FITTED = (
    "log10_intercept", "slope", "r2", "spearman_rho_loglog", "spearman_p_loglog", "theilsen_slope",
    "theilsen_log10_intercept", "theilsen_slope_ci_low", "theilsen_slope_ci_high", "slope_ci_low", "slope_ci_high",
    "log10_intercept_ci_low", "log10_intercept_ci_high", "boot_n_used",
)  # fmt: skip
_OURS = (
    "slope_t_ci_low", "slope_t_ci_high", "slope_se", "slope_call_noise_se", "slope_round_noise_se",
    "residual_sd_log10", "log10_params_mean", "log10_params_sum_of_squares",
)  # fmt: skip


def points_of(cells: pl.DataFrame, per_model: pl.DataFrame) -> pl.DataFrame:
    """What scaling laws are fitted to: each model's median latency per scenario, and its mean over scenarios."""
    columns = [*GROUP, *MODEL]
    of_scenario = cells.select(
        *columns, "scenario", pl.lit("scenario").alias("aggregation"), pl.col("latency_median_ms").alias("latency"),
        "latency_log_variance",
    )  # fmt: skip
    of_all = per_model.select(
        *columns, pl.lit(ALL).alias("scenario"), pl.lit("geomean_across_scenarios").alias("aggregation"),
        pl.col("latency_geomean_ms").alias("latency"), "latency_log_variance",
    )  # fmt: skip
    return pl.concat([of_all, of_scenario])


def scaling_fits(
    points: pl.DataFrame, rounds: pl.DataFrame | None, options: Options, *, resample_by_name: bool = False
) -> pl.DataFrame:
    """The table ``scaling_fits``: one law a backend, batch size, budget, phase and scenario.

    ``rounds`` has the same points measured in each round alone (column ``rep``), for the rounds' share of the noise;
    ``None`` where the run's rounds are not told apart. ``resample_by_name`` draws the bootstrap's models from their
    alphabetical order, as TR121 does in its length-limited table, rather than from the order of their sizes.
    """
    series = Series.of(points, KEYS, by_name=resample_by_name)
    x, y = np.log10(series.values("params_millions_effective")), np.log10(series.values("latency"))
    variance = series.values("latency_log_variance")
    found = {name: series.blank() for name in (*_FITTED, *_OURS)}
    for which, at in series.by_length():
        if at.shape[1] >= 2:
            for name, value in _fits(x[at], y[at], options).items():
                found[name][which] = value
            found["slope_call_noise_se"][which] = _noise_of_slope(x[at], variance[at])
    if rounds is not None:
        found["slope_round_noise_se"] = _round_noise(series, rounds)
    ok = np.isfinite(found["slope"])
    table = series.keys.with_columns(
        pl.Series("n_models", series.lengths),
        pl.Series("ok", ok),
        *(pl.Series(name, found[name]).fill_nan(None) for name in _FITTED),
        pl.lit(options.draws).alias("boot_n_requested"),
        *(pl.Series(name, found[name]).fill_nan(None) for name in _OURS),
        pl.lit("not measured").alias("between_run_noise"),
    ).with_columns(pl.col("boot_n_used").fill_null(0).cast(pl.Int64))
    table = table.with_columns(*_verdicts(table, series, y))
    first = ["backend", "backend_kind", "batch_size", "mode", "scenario", "aggregation"]
    others = [name for name in table.columns if name not in {*first, "gen_tokens_target"}]
    order = ["backend", "batch_size", "gen_tokens_target", "mode", "scenario"]
    return table.select([*first, *others, "gen_tokens_target"]).sort(order)


def _fits(x: Floats, y: Floats, options: Options) -> dict[str, Any]:
    """Every figure of laws with the same number of models; ``x`` and ``y`` are (laws, models)."""
    n = x.shape[1]
    line = fit_lines(x, y)
    half = t_half_width(line.slope_se, n - 2, options.level)
    ranks = np.array([spearman(*pair) for pair in zip(x, y, strict=True)])
    robust = np.array([_theil_sen(*pair, options.level) for pair in zip(x, y, strict=True)])
    dx = x - x.mean(axis=1, keepdims=True)
    found: dict[str, Any] = {
        "log10_intercept": line.intercept,
        "slope": line.slope,
        "r2": line.r2,
        "spearman_rho_loglog": ranks[:, 0],
        "spearman_p_loglog": ranks[:, 1],
        "theilsen_slope": robust[:, 0],
        "theilsen_log10_intercept": robust[:, 1],
        "theilsen_slope_ci_low": robust[:, 2],
        "theilsen_slope_ci_high": robust[:, 3],
        "slope_t_ci_low": line.slope - half,
        "slope_t_ci_high": line.slope + half,
        "slope_se": line.slope_se,
        "residual_sd_log10": line.residual_sd,
        "log10_params_mean": x.mean(axis=1),
        "log10_params_sum_of_squares": (dx * dx).sum(axis=1),
    }
    if n >= 3:
        slopes, intercepts = bootstrap_lines(x, y, resamples(n, options.draws, options.seed))
        found["slope_ci_low"], found["slope_ci_high"], found["boot_n_used"] = quantile_interval(slopes, options.level)
        found["log10_intercept_ci_low"], found["log10_intercept_ci_high"], _ = quantile_interval(
            intercepts, options.level
        )
    return found


def _theil_sen(x: Floats, y: Floats, level: float) -> tuple[float, float, float, float]:
    """Theil-Sen slope, intercept and the slope's interval; NaN where all x are equal."""
    if len(np.unique(x)) < 2:
        return math.nan, math.nan, math.nan, math.nan
    fit = stats.theilslopes(y, x, level)
    return float(fit.slope), float(fit.intercept), float(fit.low_slope), float(fit.high_slope)


def _noise_of_slope(x: Floats, log_variance: Floats) -> Floats:
    """Standard error that the points' own variances (of natural logs) give a slope; NaN where one is unknown."""
    dx = x - x.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = dx / (dx * dx).sum(axis=1, keepdims=True) / math.log(10)
        se: Floats = np.sqrt((weights * weights * log_variance).sum(axis=1))
    return se


def _round_noise(series: Series, rounds: pl.DataFrame) -> Floats:
    """Standard error of each law's slope from its scatter over rounds, each fitted alone; NaN below two rounds.

    A point is a median over rounds, so the variance of one round is scaled by `median_variance`.
    """
    each = Series.of(rounds, [*KEYS, "rep"])
    x, y = np.log10(each.values("params_millions_effective")), np.log10(each.values("latency"))
    slopes = each.blank()
    for which, at in each.by_length():
        if at.shape[1] >= 2:
            slopes[which] = fit_lines(x[at], y[at]).slope
    alone = each.keys.with_columns(pl.Series("slope", slopes), pl.Series("in_round", each.lengths))
    wanted = series.keys.with_columns(pl.Series("n_models", series.lengths))
    spread = (
        alone.join(wanted, on=KEYS, nulls_equal=True)
        .filter((pl.col("in_round") == pl.col("n_models")) & pl.col("slope").is_finite())
        .group_by(KEYS, maintain_order=True)
        .agg(pl.col("slope").var().alias("variance"), pl.len().alias("n_rounds"))
    )
    joined = series.keys.join(spread, on=KEYS, how="left", nulls_equal=True, maintain_order="left")
    factors = [median_variance(n) if n else math.nan for n in joined["n_rounds"]]
    variance: Floats = joined["variance"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    se: Floats = np.sqrt(variance * np.array(factors, dtype=float))
    return se


def _verdicts(table: pl.DataFrame, series: Series, y: Floats) -> list[pl.Series]:
    """Our verdict, TR121's by its own interval, and the models out of order where the law is but a trend."""
    ours: list[str] = []
    theirs: list[str] = []
    exceptions: list[str | None] = []
    names = series.points["model"].to_list()
    for row, start in zip(table.iter_rows(named=True), series.starts, strict=True):
        shared = {
            "n_models": row["n_models"],
            "r2": _number(row["r2"]),
            "rho": _number(row["spearman_rho_loglog"]),
        }
        ours.append(verdict(low=_number(row["slope_t_ci_low"]), high=_number(row["slope_t_ci_high"]), **shared))
        theirs.append(verdict(low=_number(row["slope_ci_low"]), high=_number(row["slope_ci_high"]), **shared))
        mine = slice(int(start), int(start) + row["n_models"])
        rising = y[mine] if _number(row["slope"]) >= 0 else -y[mine]
        exceptions.append("; ".join(out_of_order(names[mine], list(rising))) if ours[-1] == TREND else None)
    return [
        pl.Series("verdict", ours, dtype=pl.String),
        pl.Series("tr121_verdict", theirs, dtype=pl.String),
        pl.Series("trend_exceptions", exceptions, dtype=pl.String),
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
