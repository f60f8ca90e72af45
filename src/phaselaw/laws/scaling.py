"""Scaling laws: ``latency ~ params^slope`` of each backend and phase, with intervals (TR121 2.4, 2.6; method 3).

TR121's columns come first, its percentile bootstrap among them. Ours follow: the default interval of a slope is the
t interval of least squares over models, which covers at small n, with the noise between runs, or rounds, added where
there are several (`phaselaw.laws.noise`); the verdict is by it. HC2's stands beside, and takes its place where models
are found to scatter unequally about their law: where HC2's variance exceeds that of least squares by what equal
scatter gives in at most three laws of ten (`UNEQUAL`: with few models no sharper test finds anything), and no model's
leverage exceeds `MOST_LEVERAGE`, since a line that must follow a point can't tell its scatter.

A law without the model of greatest leverage stands beside, too. Where that leverage exceeds `DECIDING`, and the
exponent without the model is outside the interval or the verdict another, the verdict rests on that model.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from phaselaw import tables as col
from phaselaw.laws import regression
from phaselaw.laws import served as served_engines
from phaselaw.laws.noise import (
    KEYS,
    SLOPE,
    Noise,
    Replicates,
    call_noise_of_slope,
    log_matrices,
    noise_of,
    points_of,
    replicates_of,
)
from phaselaw.laws.options import Options
from phaselaw.laws.served import BASIS, STEP_TRUE, TR121
from phaselaw.laws.summary import CELLS, GROUP, GROUP_COLUMNS, by_cell, by_model, by_size, floats
from phaselaw.laws.verdicts import MIN_MODELS, NARROW, TOO_FEW, TREND, out_of_order, resting_on, verdict
from phaselaw.records import Run
from phaselaw.tables import BUDGET, MISSING, Col, Row, Table, grouped

HC2 = "HC2"
UNEQUAL = 0.3
MOST_LEVERAGE = 2 / 3
DECIDING = 0.5

_THEIL_SEN = ("theilsen_slope", "theilsen_log10_intercept", "theilsen_slope_ci_low", "theilsen_slope_ci_high")


def _without(row: Row) -> str:
    """The exponent without the model of greatest leverage."""
    if row.get("slope_without") is None:
        return MISSING
    ends = col.bracket(row["slope_without_ci_low"], row["slope_without_ci_high"])
    return f"{col.fixed(row['slope_without'])} {ends} ({row['without_model']})"


def _laws(name: str, holds: str, caption: str, extra: Sequence[Col] = (), **more: Any) -> Table:
    """The declaration of a table of laws, with more columns after ``aggregation``."""
    columns = (
        *GROUP_COLUMNS,
        col.words("scenario", "scenario"),
        col.words("aggregation"),
        *extra,
        col.counted("n_models", "models"),
        col.flag("ok"),
        *col.plain("log10_intercept"),
        col.derived("slope", "exponent", col.fixed),
        col.derived("r2", "R2", col.fixed),
        col.derived("spearman_rho_loglog", "rank correlation", col.fixed),
        *col.plain("spearman_p_loglog"),
        *col.plain(" ".join(_THEIL_SEN)),
        *col.interval("slope_ci_low", "slope_ci_high", "TR121's bootstrap"),
        *col.plain("log10_intercept_ci_low log10_intercept_ci_high"),
        col.counted("boot_n_used"),
        col.counted("boot_n_requested"),
        *col.interval("slope_t_ci_low", "slope_t_ci_high", "interval"),
        *col.plain("slope_se slope_call_noise_se slope_round_noise_se slope_run_noise_se residual_sd_log10"),
        *col.plain("log10_params_mean log10_params_sum_of_squares"),
        *col.interval("slope_hc2_ci_low", "slope_hc2_ci_high", "HC2"),
        *col.plain("slope_hc2_degrees unequal_scatter_p"),
        col.words("slope_interval_by"),
        *col.plain("leverage_max"),
        col.words("without_model"),
        Col("slope_without", "without its most telling model", of_row=_without, provenance="derived"),
        *col.plain("slope_without_ci_low slope_without_ci_high"),
        col.words("incomplete"),
        col.words("slope_interval_holds"),
        col.words("between_run_noise"),
        col.words("verdict", "verdict"),
        col.words("tr121_verdict", "its verdict"),
        col.words("trend_exceptions"),
        col.counted(BUDGET),
    )
    declared: dict[str, Any] = {"columns": columns, "order": _ORDER, "shows": "backend mode n_models " + _SHOWN}
    return Table(name=name, holds=holds, caption=caption, **declared | more)


_ORDER = ("backend", "batch_size", BUDGET, "mode", "scenario")
_SHOWN = "slope slope_t_ci_low r2 verdict"
_NO_REASONS = "no rows say why a generation ended (done_reason): nothing here may stop early"
SCALING_FITS = _laws(
    "scaling_fits",
    "laws with intervals and verdicts, per scenario and over all",
    "Each law on one scenario's medians alone.",
    shows="backend mode scenario n_models slope slope_t_ci_low r2 spearman_rho_loglog verdict",
)
SCALING_FITS_BY_FAMILY = _laws(
    "scaling_fits_by_family",
    "a law of each family of models",
    "The law of each family of models.",
    [col.words("family", "family")],
    why_empty="no backend with several families, one of them of three models or more",
    order=(*_ORDER[:4], "family"),
    shows=f"backend mode family n_models {_SHOWN}",
)
LENGTH_LIMITED = _laws(
    "scaling_fits_length_limited",
    "laws without decodes that stopped early (TR121's filter)",
    "Exponents without the decodes that stopped early.",
    [col.words("filter")],
    why_empty=_NO_REASONS,
)
LENGTH_LIMITED_CALLS = dataclasses.replace(
    LENGTH_LIMITED, name="scaling_fits_length_limited_calls", holds="laws without calls that stopped early"
)
SCALING_FITS_BY_BASIS = dataclasses.replace(
    SCALING_FITS,
    name="scaling_fits_by_basis",
    holds="served engines' laws by the steps that ran and by TR121's projection",
    caption="Exponents by the steps that ran (step_true) and by TR121's projection (tr121).",
    why_empty="no served calls with both a decode step and TR121's projection",
    columns=(*SCALING_FITS.columns, col.words(BASIS, "basis")),
    order=(*_ORDER[:4], BASIS),
    shows=f"backend mode {BASIS} n_models {_SHOWN}",
)


def scaling_fits(
    points: pl.DataFrame, replicates: Replicates | None, options: Options, *, resample_by_name: bool = False
) -> pl.DataFrame:
    """The table ``scaling_fits``: one law a backend, batch size, budget, phase and scenario.

    ``replicates`` are the runs, or rounds, that the points are from, for the noise between them. ``resample_by_name``
    draws the bootstrap's models from their alphabetical order, as TR121 does in its length-limited table, rather than
    from the order of their sizes.
    """
    matrix = None if replicates is None else log_matrices(replicates.points, KEYS)
    rows = []
    for key, models in grouped(by_size(points, KEYS, by_name=resample_by_name), KEYS):
        x, logs = np.log(floats(models, "params_millions_effective")), None if matrix is None else matrix(models)
        noise = noise_of(SLOPE, x[:, None], logs, kind="runs" if replicates is None else replicates.kind)
        found = _law(models, noise, options)
        rows.append(key | found | _said(found, models, noise, options.level) | _noise_words(noise, replicates))
    return SCALING_FITS.frame(rows)


def _noise_words(noise: Noise, replicates: Replicates | None) -> Row:
    """What a slope's default interval holds, and whether the noise between runs was measured."""
    found: Row = {"slope_interval_holds": noise.holds, "between_run_noise": "not measured"}
    if replicates is None:
        return found
    if replicates.kind == "rounds":
        return found | {"slope_round_noise_se": math.sqrt(noise.between)}
    few = f"not measured: no two of {replicates.n} {replicates.kind} are whole"
    measured = f"measured over {noise.n} {replicates.kind}" if noise.n > 1 else few
    return found | {"between_run_noise": measured, "slope_run_noise_se": math.sqrt(noise.between)}


def _law(models: pl.DataFrame, noise: Noise, options: Options) -> Row:
    """Every figure of one law; its models in the order in which they are resampled."""
    x, y = (np.log10(floats(models, name)) for name in ("params_millions_effective", "latency"))
    n, line, level = len(x), regression.fit_line(x, y), options.level
    found: Row = {"n_models": n, "ok": line.determined, "boot_n_used": 0, "boot_n_requested": options.draws}
    if n < 2:
        return found | {"slope_interval_by": "t"}
    half = float(noise.half_width(line.slope_se, n - 2, level))
    unequal = regression.unequal_scatter(line)
    robust_half = float(noise.half_width(unequal.se, unequal.degrees, level))
    by_hc2 = unequal.p < UNEQUAL and line.leverages().max() <= MOST_LEVERAGE
    halves = {"slope_t": robust_half if by_hc2 else half, "slope_hc2": robust_half}
    for name, width in halves.items():
        found |= {f"{name}_ci_low": line.slope - width, f"{name}_ci_high": line.slope + width}
    rho, p = regression.spearman(x, y)
    found |= dict(zip(_THEIL_SEN, regression.theil_sen(x, y, level), strict=True)) | {
        "log10_intercept": line.intercept,
        "slope": line.slope,
        "r2": line.r2,
        "spearman_rho_loglog": rho,
        "spearman_p_loglog": p,
        "slope_se": line.slope_se,
        "slope_call_noise_se": call_noise_of_slope(x, floats(models, "latency_log_variance")),
        "residual_sd_log10": math.sqrt(line.residual_variance),
        "log10_params_mean": x.mean(),
        "log10_params_sum_of_squares": (line.centred**2).sum(),
        "slope_hc2_degrees": unequal.degrees,
        "unequal_scatter_p": unequal.p,
        "slope_interval_by": HC2 if by_hc2 else "t",
        "leverage_max": line.leverages().max(),
    }
    if n >= 3:
        draws = regression.bootstrap_lines(x, y, regression.resamples(n, options.draws, options.seed))
        lows, highs, used = regression.quantile_interval(draws, level)
        for name, low, high in zip(("slope", "log10_intercept"), lows, highs, strict=True):
            found |= {f"{name}_ci_low": low, f"{name}_ci_high": high}
        found["boot_n_used"] = used[0]
    return found


def _said(law: Row, points: pl.DataFrame, noise: Noise, level: float) -> Row:
    """A law's verdict by our interval and by TR121's, what ours rests on, and the models that are out of order.

    Of three models none is left out for its verdict, since two have none.
    """
    points = points.sort("params_millions_effective", maintain_order=True)
    names, n = points["model"].to_list(), points.height
    x, y = (np.log10(floats(points, name)) for name in ("params_millions_effective", "latency"))
    slope, low, high, their_low, their_high, r2, rho = (law.get(name, math.nan) for name in _JUDGED)
    shared = {"n_models": n, "r2": r2, "rho": rho, "span": 10 ** np.ptp(x)}
    ours, plain_verdict = (verdict(low=low, high=high, **shared | each) for each in ({}, {"rho": 1.0}))
    line = regression.fit_line(x, y)
    others, leverage = regression.left_out(line), line.leverages()
    slopes, halves = others.slopes[:, 0], noise.half_width(others.slopes_se[:, 0], n - 3, level)

    def decides(at: int) -> bool:
        ends = {"low": slopes[at] - halves[at], "high": slopes[at] + halves[at]}
        span = 10 ** np.ptp(np.delete(x, at))
        other = verdict(n_models=n - 1, **ends, r2=others.r2[at], rho=1.0, span=span)
        return bool(slopes[at] < low or slopes[at] > high or (n > MIN_MODELS and other != plain_verdict))

    judged = ours not in {TOO_FEW, NARROW}
    by_leverage = [int(at) for at in np.argsort(-leverage, kind="stable")]
    telling = [at for at in by_leverage if judged and leverage[at] > DECIDING and decides(at)]
    shown = (telling or by_leverage)[0]
    rising = y if slope >= 0 else -y
    incomplete = points.filter(pl.col("incomplete").is_not_null())
    return {
        "verdict": resting_on(ours, [names[at] for at in telling]),
        "tr121_verdict": verdict(low=their_low, high=their_high, **shared),
        "trend_exceptions": "; ".join(out_of_order(names, list(rising))) if ours == TREND else None,
        "incomplete": "; ".join(map(" ".join, incomplete.select("model", "incomplete").iter_rows())) or None,
        "without_model": names[shown],
        "slope_without": slopes[shown],
        "slope_without_ci_low": slopes[shown] - halves[shown],
        "slope_without_ci_high": slopes[shown] + halves[shown],
    }


_JUDGED = ("slope", "slope_t_ci_low", "slope_t_ci_high", "slope_ci_low", "slope_ci_high", "r2", "spearman_rho_loglog")


KINDS = {"family": "families", "quantization_level": "quantisations"}
"""Columns of a run's model table that tell models of a kind from others, and their plural in words."""
_MODEL = ["backend", "model", "model_kind"]


def kinds_of(run: Run) -> pl.DataFrame:
    """One row a backend and model of the run, with the columns of `KINDS`, empty where the run does not tell."""
    models = run.rows.select(_MODEL).unique(maintain_order=True)
    nothing = [pl.lit(None, dtype=pl.String).alias(name) for name in KINDS]
    if not {"model", "kind"} <= set(run.models.columns):
        return models.with_columns(nothing)
    missing = [each for each, name in zip(nothing, KINDS, strict=True) if name not in run.models.columns]
    told = run.models.with_columns(missing).rename({"kind": "model_kind"})
    on = _MODEL if "backend" in told.columns else _MODEL[1:]
    told = told.select(*(pl.col(name).cast(pl.String) for name in (*on, *KINDS))).unique(on, keep="first")
    return models.join(told, on=on, how="left", nulls_equal=True, maintain_order="left")


def by_family(per_model: pl.DataFrame, run: Run, options: Options, replicates: Replicates | None) -> pl.DataFrame:
    """The law over all scenarios of each family of three models or more, where a backend has several families."""
    kinds = kinds_of(run).select(*_MODEL, "family")
    known = per_model.join(kinds, on=_MODEL, how="left", nulls_equal=True).filter(pl.col("family").is_not_null())
    known = known.filter(pl.col("family").n_unique().over(GROUP) > 1, pl.len().over([*GROUP, "family"]) >= MIN_MODELS)
    fits = [
        scaling_fits(
            _over_scenarios(of_family), None if replicates is None else replicates.of(of_family), options
        ).with_columns(pl.lit(family).alias("family"))
        for (family,), of_family in known.group_by("family", maintain_order=True)
    ]
    return SCALING_FITS_BY_FAMILY.frame(pl.concat(fits) if fits else ())


def length_limited(served: pl.DataFrame, run: Run, options: Options, *, whole_calls: bool = False) -> pl.DataFrame:
    """The laws over all scenarios, without what calls that stopped early left (method 3)."""
    rows = served_engines.length_limited(served, whole_calls=whole_calls)
    name = "length_limited_calls" if whole_calls else "length_limited_decode_only"
    fits = _of_rows(rows, run, options, resample_by_name=True)
    return LENGTH_LIMITED.frame(fits.with_columns(pl.lit(name).alias("filter")))


def by_basis(served: pl.DataFrame, run: Run, options: Options) -> pl.DataFrame:
    """The laws over all scenarios of served engines, by the steps that ran and by TR121's projection (method 3)."""
    rows = served_engines.by_basis(served)
    fits = [
        _of_rows(rows.filter(pl.col(BASIS) == basis), run, options).with_columns(pl.lit(basis).alias(BASIS))
        for basis in (STEP_TRUE, TR121)
    ]
    return SCALING_FITS_BY_BASIS.frame(pl.concat(fits))


def _of_rows(rows: pl.DataFrame, run: Run, options: Options, *, resample_by_name: bool = False) -> pl.DataFrame:
    """The laws over all scenarios of some rows of a run."""
    per_model = by_model(by_cell(rows), as_is=True)
    replicates = replicates_of(rows, in_rounds=run.order == "rounds")
    return scaling_fits(_over_scenarios(per_model), replicates, options, resample_by_name=resample_by_name)


def _over_scenarios(per_model: pl.DataFrame) -> pl.DataFrame:
    """The points of the laws over all scenarios."""
    return points_of(CELLS.frame(), per_model)
