"""Scaling laws: ``latency ~ params^slope`` of each backend and phase, with intervals (TR121 2.4, 2.6; method 3).

TR121's columns come first, its percentile bootstrap among them. Ours follow: the default interval of a slope is the
t interval of least squares over models, which covers at small n, with the noise between runs, or rounds, added where
there are several (`phaselaw.laws.noise`); the verdict is by it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from phaselaw.laws import served as served_engines
from phaselaw.laws.noise import ALL, KEYS, Noise, Replicates, call_noise_of_slope, points_of, replicates_of, slope_noise
from phaselaw.laws.options import Options
from phaselaw.laws.ranks import spearman_rows, theil_sen_rows
from phaselaw.laws.regression import Floats, bootstrap_lines, fit_lines, quantile_interval, resamples
from phaselaw.laws.series import Series
from phaselaw.laws.served import BASIS, STEP_TRUE, TR121
from phaselaw.laws.summary import BUDGET, by_cell, by_model
from phaselaw.laws.verdicts import TREND, out_of_order, verdict
from phaselaw.records import Run
from phaselaw.tables import Table

SCALING_FITS = Table(
    name="scaling_fits", holds="laws with intervals and verdicts, per scenario and over all", columns=()
)
LENGTH_LIMITED = Table(
    name="scaling_fits_length_limited",
    holds="laws without decodes that stopped early (TR121's filter)",
    why_empty="no rows say why a generation ended (done_reason): nothing here may stop early",
    columns=(),
)
LENGTH_LIMITED_CALLS = Table(
    name="scaling_fits_length_limited_calls",
    holds="laws without calls that stopped early",
    why_empty="no rows say why a generation ended (done_reason): nothing here may stop early",
    columns=(),
)
SCALING_FITS_BY_BASIS = Table(
    name="scaling_fits_by_basis",
    holds="served engines' laws by the steps that ran and by TR121's projection",
    why_empty="no served calls with both a decode step and TR121's projection",
    columns=(),
)

_FITTED = (
    "log10_intercept", "slope", "r2", "spearman_rho_loglog", "spearman_p_loglog", "theilsen_slope",
    "theilsen_log10_intercept", "theilsen_slope_ci_low", "theilsen_slope_ci_high", "slope_ci_low", "slope_ci_high",
    "log10_intercept_ci_low", "log10_intercept_ci_high", "boot_n_used",
)  # fmt: skip
_OURS = (
    "slope_t_ci_low", "slope_t_ci_high", "slope_se", "slope_call_noise_se", "slope_round_noise_se",
    "slope_run_noise_se",
    "residual_sd_log10", "log10_params_mean", "log10_params_sum_of_squares",
)  # fmt: skip


def scaling_fits(
    points: pl.DataFrame, replicates: Replicates | None, options: Options, *, resample_by_name: bool = False
) -> pl.DataFrame:
    """The table ``scaling_fits``: one law a backend, batch size, budget, phase and scenario.

    ``replicates`` are the runs, or rounds, that the points are from, for the noise between them. ``resample_by_name``
    draws the bootstrap's models from their alphabetical order, as TR121 does in its length-limited table, rather than
    from the order of their sizes.
    """
    series = Series.of(points, KEYS, by_name=resample_by_name)
    x, y = np.log10(series.values("params_millions_effective")), np.log10(series.values("latency"))
    variance = series.values("latency_log_variance")
    found = {name: series.blank() for name in (*_FITTED, *_OURS)}
    noise = Noise.none(len(series.lengths))
    if replicates is not None:
        noise = slope_noise(series, replicates.points, replicates.kind)
    for which, at in series.by_length():
        if at.shape[1] >= 2:
            for name, value in _fits(x[at], y[at], noise.of(which), options).items():
                found[name][which] = value
            found["slope_call_noise_se"][which] = call_noise_of_slope(x[at], variance[at])
    if replicates is not None:
        found[f"slope_{replicates.kind.removesuffix('s')}_noise_se"] = np.sqrt(noise.between)
    table = series.keys.with_columns(
        pl.Series("n_models", series.lengths),
        pl.Series("ok", np.isfinite(found["slope"])),
        *(pl.Series(name, found[name]).fill_nan(None) for name in _FITTED),
        pl.lit(options.draws).alias("boot_n_requested"),
        *(pl.Series(name, found[name]).fill_nan(None) for name in _OURS),
        *_in_words(noise, replicates),
    ).with_columns(pl.col("boot_n_used").fill_null(0).cast(pl.Int64))
    table = table.with_columns(*_verdicts(table, series, y))
    first = ["backend", "backend_kind", "batch_size", "mode", "scenario", "aggregation"]
    others = [name for name in table.columns if name not in {*first, "gen_tokens_target"}]
    order = ["backend", "batch_size", "gen_tokens_target", "mode", "scenario"]
    return table.select([*first, *others, "gen_tokens_target"]).sort(order)


def _in_words(noise: Noise, replicates: Replicates | None) -> list[pl.Series]:
    """What a slope's default interval holds, and whether the noise between runs was measured."""
    runs = ["not measured"] * len(noise.n)
    if replicates is not None and replicates.kind == "runs":
        too_few = f"not measured: no two of {replicates.n} runs are whole"
        runs = [f"measured over {n} runs" if n > 1 else too_few for n in noise.n]
    return [
        pl.Series("slope_interval_holds", noise.holds(), dtype=pl.String),
        pl.Series("between_run_noise", runs, dtype=pl.String),
    ]


def _fits(x: Floats, y: Floats, noise: Noise, options: Options) -> dict[str, Any]:
    """Every figure of laws with the same number of models; ``x`` and ``y`` are (laws, models)."""
    n = x.shape[1]
    line = fit_lines(x, y)
    half = noise.half_width(line.slope_se, n - 2, options.level)
    rho, p = spearman_rows(x, y)
    robust = theil_sen_rows(x, y, options.level)
    dx = x - x.mean(axis=1, keepdims=True)
    found: dict[str, Any] = {
        "log10_intercept": line.intercept,
        "slope": line.slope,
        "r2": line.r2,
        "spearman_rho_loglog": rho,
        "spearman_p_loglog": p,
        "theilsen_slope": robust.slope,
        "theilsen_log10_intercept": robust.intercept,
        "theilsen_slope_ci_low": robust.low,
        "theilsen_slope_ci_high": robust.high,
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


def _verdicts(table: pl.DataFrame, series: Series, y: Floats) -> list[pl.Series]:
    """Our verdict, TR121's by its own interval, and the models out of order where the law is but a trend."""
    ours: list[str] = []
    theirs: list[str] = []
    exceptions: list[str | None] = []
    names = series.points["model"].to_list()
    for row, start in zip(table.iter_rows(named=True), series.starts, strict=True):
        shared = {"n_models": row["n_models"], "r2": _number(row["r2"]), "rho": _number(row["spearman_rho_loglog"])}
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


def length_limited(served: pl.DataFrame, run: Run, options: Options, *, whole_calls: bool = False) -> pl.DataFrame:
    """The laws over all scenarios, without what calls that stopped early left (method 3)."""
    fits = _over_scenarios(served_engines.length_limited(served, whole_calls=whole_calls), run, options, by_name=True)
    name = "length_limited_calls" if whole_calls else "length_limited_decode_only"
    return fits.with_columns(pl.lit(name).alias("filter")).select(_after_aggregation(fits, "filter"))


def by_basis(served: pl.DataFrame, run: Run, options: Options) -> pl.DataFrame:
    """The laws over all scenarios of served engines, by the steps that ran and by TR121's projection (method 3)."""
    rows = served_engines.by_basis(served)
    fits = [
        _over_scenarios(of_basis, run, options).with_columns(pl.lit(basis).alias(BASIS))
        for basis in (STEP_TRUE, TR121)
        for of_basis in [rows.filter(pl.col(BASIS) == basis)]
    ]
    return pl.concat(fits).sort(["backend", "batch_size", BUDGET, "mode", BASIS])


def _over_scenarios(rows: pl.DataFrame, run: Run, options: Options, *, by_name: bool = False) -> pl.DataFrame:
    """`scaling_fits` of these rows on the geometric means over scenarios."""
    cells = by_cell(rows)
    per_model = by_model(cells)
    points = points_of(cells, per_model).filter(pl.col("scenario") == ALL)
    replicates = replicates_of(rows, in_rounds=run.order == "rounds")
    return scaling_fits(points, replicates, options, resample_by_name=by_name)


def _after_aggregation(fits: pl.DataFrame, name: str) -> list[str]:
    """The columns with one more after ``aggregation``."""
    at = fits.columns.index("aggregation") + 1
    return [*fits.columns[:at], name, *fits.columns[at:]]
