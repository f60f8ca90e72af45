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

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from phaselaw.laws import regression
from phaselaw.laws import served as served_engines
from phaselaw.laws.noise import KEYS, Noise, Replicates, call_noise_of_slope, points_of, replicates_of, slope_noise
from phaselaw.laws.options import Options
from phaselaw.laws.regression import Floats
from phaselaw.laws.series import Series, floats
from phaselaw.laws.served import BASIS, STEP_TRUE, TR121
from phaselaw.laws.summary import CELLS, GROUP, GROUP_COLUMNS, by_cell, by_model
from phaselaw.laws.verdicts import MIN_MODELS, NARROW, TOO_FEW, TREND, out_of_order, resting_on, verdict
from phaselaw.records import Run
from phaselaw.tables import (
    BUDGET,
    MISSING,
    Col,
    Row,
    Table,
    bracket,
    counted,
    derived,
    fixed,
    flag,
    interval,
    plain,
    words,
)

HC2 = "HC2"
UNEQUAL = 0.3
MOST_LEVERAGE = 2 / 3
DECIDING = 0.5

_THEIL_SEN = ("theilsen_slope", "theilsen_log10_intercept", "theilsen_slope_ci_low", "theilsen_slope_ci_high")


def _without(row: Row) -> str:
    """The exponent without the model of greatest leverage."""
    if row.get("slope_without") is None:
        return MISSING
    ends = bracket(row["slope_without_ci_low"], row["slope_without_ci_high"])
    return f"{fixed(row['slope_without'])} {ends} ({row['without_model']})"


def _laws(name: str, holds: str, caption: str, extra: Sequence[Col] = (), **more: Any) -> Table:
    """The declaration of a table of laws, with more columns after ``aggregation``."""
    columns = (
        *GROUP_COLUMNS,
        words("scenario", "scenario"),
        words("aggregation"),
        *extra,
        counted("n_models", "models", detail=True),
        flag("ok"),
        *plain("log10_intercept"),
        derived("slope", "exponent", fixed),
        derived("r2", "R2", fixed),
        derived("spearman_rho_loglog", "rank correlation", fixed, detail=True),
        *plain("spearman_p_loglog"),
        *plain(" ".join(_THEIL_SEN)),
        *interval("slope_ci_low", "slope_ci_high", "TR121's bootstrap", detail=True),
        *plain("log10_intercept_ci_low log10_intercept_ci_high"),
        counted("boot_n_used"),
        counted("boot_n_requested"),
        *interval("slope_t_ci_low", "slope_t_ci_high", "interval"),
        *plain("slope_se slope_call_noise_se slope_round_noise_se slope_run_noise_se residual_sd_log10"),
        *plain("log10_params_mean log10_params_sum_of_squares"),
        *interval("slope_hc2_ci_low", "slope_hc2_ci_high", "HC2", detail=True),
        *plain("slope_hc2_degrees unequal_scatter_p"),
        words("slope_interval_by"),
        *plain("leverage_max"),
        words("without_model"),
        Col("slope_without", "without its most telling model", of_row=_without, detail=True, provenance="derived"),
        *plain("slope_without_ci_low slope_without_ci_high"),
        words("incomplete"),
        words("slope_interval_holds"),
        words("between_run_noise"),
        words("verdict", "verdict"),
        words("tr121_verdict", "its verdict", detail=True),
        words("trend_exceptions"),
        counted(BUDGET),
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
    [words("family", "family")],
    why_empty="no backend with several families, one of them of three models or more",
    order=(*_ORDER[:4], "family"),
    shows=f"backend mode family n_models {_SHOWN}",
)
LENGTH_LIMITED = _laws(
    "scaling_fits_length_limited",
    "laws without decodes that stopped early (TR121's filter)",
    "Exponents without the decodes that stopped early.",
    [words("filter")],
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
    columns=(*SCALING_FITS.columns, words(BASIS, "basis")),
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
    series = Series.of(points, KEYS, by_name=resample_by_name)
    x, y = np.log10(series.values("params_millions_effective")), np.log10(series.values("latency"))
    variance = series.values("latency_log_variance")
    found = {column.key: series.blank() for column in SCALING_FITS.columns if column.type == pl.Float64}
    found["boot_n_used"] = np.zeros(len(series.lengths))
    noise = Noise.none(len(series.lengths))
    if replicates is not None:
        noise = slope_noise(series, replicates.points, replicates.kind)
    said: list[Row] = [{}] * len(series.lengths)
    for which, at in series.by_length():
        if at.shape[1] >= 2:
            for name, value in _fits(x[at], y[at], noise.of(which), options).items():
                found[name][which] = value
            found["slope_call_noise_se"][which] = call_noise_of_slope(x[at], variance[at])
    if replicates is not None:
        found[f"slope_{'round' if replicates.kind == 'rounds' else 'run'}_noise_se"] = np.sqrt(noise.between)
    by_hc2 = (found["unequal_scatter_p"] < UNEQUAL) & (found["leverage_max"] <= MOST_LEVERAGE)
    table = series.keys.with_columns(
        pl.Series("n_models", series.lengths),
        pl.Series("ok", np.isfinite(found["slope"])),
        *(pl.Series(name, values).fill_nan(None) for name, values in found.items()),
        pl.lit(options.draws).alias("boot_n_requested"),
        pl.Series("slope_interval_by", [HC2 if each else "t" for each in by_hc2], dtype=pl.String),
        *_in_words(noise, replicates),
    )
    figures = table.with_columns(pl.col(pl.Float64).fill_null(math.nan)).iter_rows(named=True)
    said = [
        _said(law, points, noise.of(np.array([at])), options.level)
        for at, (law, (_, points)) in enumerate(zip(figures, series, strict=True))
    ]
    schema = {name: kind for name, kind in SCALING_FITS.schema.items() if name in _SAID}
    return SCALING_FITS.frame(table.drop(_SAID, strict=False).hstack(pl.DataFrame(said, schema=schema)))


def _in_words(noise: Noise, replicates: Replicates | None) -> list[pl.Series]:
    """What a slope's default interval holds, and whether the noise between runs was measured."""
    runs = ["not measured"] * len(noise.n)
    if replicates is not None and replicates.kind != "rounds":
        too_few = f"not measured: no two of {replicates.n} {replicates.kind} are whole"
        runs = [f"measured over {n} {replicates.kind}" if n > 1 else too_few for n in noise.n]
    return [
        pl.Series("slope_interval_holds", noise.holds(), dtype=pl.String),
        pl.Series("between_run_noise", runs, dtype=pl.String),
    ]


def _fits(x: Floats, y: Floats, noise: Noise, options: Options) -> dict[str, Any]:
    """Every figure of laws with the same number of models; ``x`` and ``y`` are (laws, models)."""
    n = x.shape[1]
    line = regression.fit_lines(x, y)
    half = noise.half_width(line.slope_se, n - 2, options.level)
    rho, p = regression.spearman_rows(x, y)
    robust = regression.theil_sen_rows(x, y, options.level)
    dx = x - x.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        leverage = 1 / n + (dx * dx).max(axis=1) / (dx * dx).sum(axis=1)
    unequal = regression.unequal_scatter(x, y)
    robust_half = np.array(
        [
            noise.of(np.array([at])).half_width(unequal.se[[at]], float(degrees), options.level)[0]
            for at, degrees in enumerate(unequal.degrees)
        ]
    )
    ends = {"slope_hc2_ci_low": line.slope - robust_half, "slope_hc2_ci_high": line.slope + robust_half}
    half = np.where((unequal.p < UNEQUAL) & (leverage <= MOST_LEVERAGE), robust_half, half)
    found: dict[str, Any] = {
        "log10_intercept": line.intercept,
        "slope": line.slope,
        "r2": line.r2,
        "spearman_rho_loglog": rho,
        "spearman_p_loglog": p,
        **dict(zip(_THEIL_SEN, robust, strict=True)),
        "slope_t_ci_low": line.slope - half,
        "slope_t_ci_high": line.slope + half,
        "slope_se": line.slope_se,
        "residual_sd_log10": line.residual_sd,
        "log10_params_mean": x.mean(axis=1),
        "log10_params_sum_of_squares": (dx * dx).sum(axis=1),
        **ends,
        "slope_hc2_degrees": unequal.degrees,
        "unequal_scatter_p": unequal.p,
        "leverage_max": leverage,
    }
    if n >= 3:
        counts = regression.resamples(n, options.draws, options.seed)
        for name, values in zip(("slope", "log10_intercept"), regression.bootstrap_lines(x, y, counts), strict=True):
            low, high, used = regression.quantile_interval(values, options.level)
            found |= {f"{name}_ci_low": low, f"{name}_ci_high": high}
            found.setdefault("boot_n_used", used)
    return found


_SAID = (
    *("verdict", "tr121_verdict", "trend_exceptions", "incomplete"),
    *("without_model", "slope_without", "slope_without_ci_low", "slope_without_ci_high"),
)


def _said(law: Row, points: pl.DataFrame, noise: Noise, level: float) -> Row:
    """A law's verdict by our interval and by TR121's, what ours rests on, and the models that are out of order.

    Of three models none is left out for its verdict, since two have none.
    """
    points = points.sort("params_millions_effective", maintain_order=True)
    names, n = points["model"].to_list(), points.height
    x, y = (np.log10(floats(points, name)) for name in ("params_millions_effective", "latency"))
    shared = {"n_models": n, "r2": law["r2"], "rho": law["spearman_rho_loglog"], "span": 10 ** np.ptp(x)}
    low, high = law["slope_t_ci_low"], law["slope_t_ci_high"]
    ours, plain_verdict = (verdict(low=low, high=high, **shared | each) for each in ({}, {"rho": 1.0}))
    others = regression.left_out(x[None], y[None])
    leverage, slopes, r2 = others.leverage[0], others.slope[0], others.r2[0]
    halves = noise.half_width(others.slope_se[0], n - 3, level)

    def decides(at: int) -> bool:
        ends = {"low": slopes[at] - halves[at], "high": slopes[at] + halves[at]}
        span = 10 ** np.ptp(np.delete(x, at))
        other = verdict(n_models=n - 1, **ends, r2=r2[at], rho=1.0, span=span)
        return bool(slopes[at] < low or slopes[at] > high or (n > MIN_MODELS and other != plain_verdict))

    judged = ours not in {TOO_FEW, NARROW}
    by_leverage = [int(at) for at in np.argsort(-leverage, kind="stable")]
    telling = [at for at in by_leverage if judged and leverage[at] > DECIDING and decides(at)]
    shown = (telling or by_leverage)[0]
    rising = y if law["slope"] >= 0 else -y
    incomplete = points.filter(pl.col("incomplete").is_not_null())
    return {
        "verdict": resting_on(ours, [names[at] for at in telling]),
        "tr121_verdict": verdict(low=law["slope_ci_low"], high=law["slope_ci_high"], **shared),
        "trend_exceptions": "; ".join(out_of_order(names, list(rising))) if ours == TREND else None,
        "incomplete": "; ".join(map(" ".join, incomplete.select("model", "incomplete").iter_rows())) or None,
        "without_model": names[shown],
        "slope_without": slopes[shown],
        "slope_without_ci_low": slopes[shown] - halves[shown],
        "slope_without_ci_high": slopes[shown] + halves[shown],
    }


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
