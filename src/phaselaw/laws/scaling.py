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
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from phaselaw import tables as col
from phaselaw.laws import regression
from phaselaw.laws.noise import KEYS, SLOPE, Kind, Noise, Replicates, log_matrices, noise_of, points_of, units_of
from phaselaw.laws.options import Options
from phaselaw.laws.regression import Floats, Plane, ends, fit_line
from phaselaw.laws.served import BASIS, EARLY_STOP_SUMMARY, by_each_basis, served_rows
from phaselaw.laws.summary import CELLS, GROUP, GROUP_COLUMNS, ORDER, by_cell, by_model, by_size, floats, stated
from phaselaw.laws.verdicts import MIN_MODELS, NARROW, TOO_FEW, TREND, out_of_order, resting_on, verdict
from phaselaw.records import ALL, Run
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


def _laws(name: str, holds: str, extra: Sequence[Col] = (), **more: Any) -> Table:
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
        *col.plain("boot_n_used boot_n_requested", pl.Int64),
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
        *col.plain("incomplete slope_interval_holds between_run_noise", pl.String),
        col.words("verdict", "verdict"),
        col.words("tr121_verdict", "its verdict"),
        col.words("trend_exceptions"),
        col.counted(BUDGET),
    )
    more = {"order": (*ORDER, "scenario"), "shows": f"backend mode n_models {_SHOWN}"} | more
    return Table(name=name, holds=holds, columns=columns, **more)


_SHOWN = "slope slope_t_ci_low r2 verdict"
SCALING_FITS = _laws(
    "scaling_fits",
    "laws with intervals and verdicts, per scenario and over all",
    caption="Each law on one scenario's medians alone.",
    shows="backend mode scenario n_models slope slope_t_ci_low r2 spearman_rho_loglog verdict",
)
SCALING_FITS_BY_FAMILY = _laws(
    "scaling_fits_by_family",
    "a law of each family of models",
    [col.words("family", "family")],
    why_empty="no backend with several families, one of them of three models or more",
    order=(*ORDER, "family"),
    shows=f"backend mode family n_models {_SHOWN}",
)
LENGTH_LIMITED = _laws(
    "scaling_fits_length_limited",
    "laws without decodes that stopped early (TR121's filter)",
    [col.words("filter")],
    why_empty=EARLY_STOP_SUMMARY.why_empty,
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
    order=(*ORDER, BASIS),
    shows=f"backend mode {BASIS} n_models {_SHOWN}",
)


def scaling_fits(points: pl.DataFrame, replicates: Replicates | None, options: Options) -> pl.DataFrame:
    """The table ``scaling_fits``: one law a backend, batch size, budget, phase and scenario.

    ``replicates`` are the runs, or rounds, that the points are from, for the noise between them.
    """
    return SCALING_FITS.frame(_laws_of(points, replicates, options))


def _laws_of(
    points: pl.DataFrame,
    replicates: Replicates | None,
    options: Options,
    *,
    keys: Sequence[str] = KEYS,
    resample_by_name: bool = False,
) -> Iterator[Row]:
    """A row of figures for each law: the models that are alike in ``keys``.

    ``resample_by_name`` draws the bootstrap's models from their alphabetical order, as TR121 does in its length-limited
    table, rather than from the order of their sizes.
    """
    kind: Kind = replicates.kind if replicates else "runs"
    matrix = log_matrices(replicates.points if replicates else None, KEYS)
    for key, models in grouped(by_size(points, keys), keys):
        x, y = (np.log10(floats(models, name)) for name in ("params_millions_effective", "latency"))
        noise, line = noise_of(SLOPE, np.log(10) * x[:, None], matrix(models), kind=kind), fit_line(x, y)
        found = {"n_models": len(x), "ok": line.determined, "slope_interval_by": "t"}
        found |= {"boot_n_used": 0, "boot_n_requested": options.draws}
        if len(x) > 1:
            found |= _figures(x, y, line, noise, options.level)
            log_variance = floats(models, "latency_log_variance")  # of natural logs
            weights = line.centred[:, 0] * line.inverse_gram[0, 0] / math.log(10)
            found["slope_call_noise_se"] = math.sqrt(weights**2 @ log_variance)
        if len(x) > 2:
            order = np.argsort(models["model"].to_list(), kind="stable") if resample_by_name else np.arange(len(x))
            counts = regression.resamples(len(x), options.draws, options.seed)
            draws = regression.bootstrap_lines(x[order], y[order], counts)
            lows, highs, used = regression.quantile_interval(draws, options.level)
            found["boot_n_used"] = used[0]
            for name, low, high in zip(("slope", "log10_intercept"), lows, highs, strict=True):
                found |= {f"{name}_ci_low": low, f"{name}_ci_high": high}
        found |= {"slope_interval_holds": noise.holds, "between_run_noise": "not measured"}
        if kind == "rounds":
            found["slope_round_noise_se"] = math.sqrt(noise.between)
        elif replicates is not None:
            few = f"not measured: no two of {replicates.n} {kind} are whole"
            found["between_run_noise"] = f"measured over {noise.n} {kind}" if noise.n > 1 else few
            found["slope_run_noise_se"] = math.sqrt(noise.between)
        yield key | found | _said(found, models, line, noise, options.level)


def _figures(x: Floats, y: Floats, line: Plane, noise: Noise, level: float) -> Row:
    """The figures of one law of two models or more, but for its bootstrap."""
    half = float(noise.half_width(line.slope_se, line.degrees, level))
    unequal = regression.unequal_scatter(line)
    robust_half = float(noise.half_width(unequal.se, unequal.degrees, level))
    by_hc2 = unequal.p < UNEQUAL and line.leverages().max() <= MOST_LEVERAGE
    rho, p = regression.spearman(x, y)
    return {
        **dict(zip(_THEIL_SEN, regression.theil_sen(x, y, level), strict=True)),
        **ends("slope_t_ci", line.slope, robust_half if by_hc2 else half),
        **ends("slope_hc2_ci", line.slope, robust_half),
        "log10_intercept": line.intercept,
        "slope": line.slope,
        "r2": line.r2,
        "spearman_rho_loglog": rho,
        "spearman_p_loglog": p,
        "slope_se": line.slope_se,
        "residual_sd_log10": math.sqrt(line.residual_variance),
        "log10_params_mean": x.mean(),
        "log10_params_sum_of_squares": (line.centred**2).sum(),
        "slope_hc2_degrees": unequal.degrees,
        "unequal_scatter_p": unequal.p,
        "slope_interval_by": HC2 if by_hc2 else "t",
        "leverage_max": line.leverages().max(),
    }


def _said(law: Row, models: pl.DataFrame, line: Plane, noise: Noise, level: float) -> Row:
    """A law's verdict by our interval and by TR121's, what ours rests on, and the models that are out of order.

    Of three models none is left out for its verdict, since two have none.
    """
    names, n, sizes = models["model"].to_list(), models.height, floats(models, "params_millions_effective")
    low, high, their_low, their_high, r2, rho = (law.get(name, math.nan) for name in _JUDGED)
    shared = {"n_models": n, "r2": r2, "rho": rho, "span": sizes.max() / sizes.min()}
    ours, plain_verdict = (verdict(low=low, high=high, **shared | each) for each in ({}, {"rho": 1.0}))
    others, leverage = regression.left_out(line), line.leverages()
    slopes, halves = others.slopes[:, 0], noise.half_width(others.slopes_se[:, 0], n - 3, level)

    def decides(at: int) -> bool:
        least, most, rest = slopes[at] - halves[at], slopes[at] + halves[at], np.delete(sizes, at)
        span = rest.max() / rest.min()
        other = verdict(n_models=n - 1, low=least, high=most, r2=others.r2[at], rho=1.0, span=span)
        return bool(slopes[at] < low or slopes[at] > high or (n > MIN_MODELS and other != plain_verdict))

    judged = ours not in {TOO_FEW, NARROW}
    by_leverage = [int(at) for at in np.argsort(-leverage, kind="stable")]
    telling = [at for at in by_leverage if judged and leverage[at] > DECIDING and decides(at)]
    shown = (telling or by_leverage)[0]
    rising = floats(models, "latency") * (1 if line.slope >= 0 else -1)
    lacking = zip(names, models["incomplete"].to_list(), strict=True)
    return {
        "verdict": resting_on(ours, [names[at] for at in telling]),
        "tr121_verdict": verdict(low=their_low, high=their_high, **shared),
        "trend_exceptions": "; ".join(out_of_order(names, list(rising))) if ours == TREND else None,
        "incomplete": "; ".join(" ".join(each) for each in lacking if each[1] is not None) or None,
        "without_model": names[shown],
        "slope_without": slopes[shown],
        **ends("slope_without_ci", slopes[shown], halves[shown]),
    }


_JUDGED = ("slope_t_ci_low", "slope_t_ci_high", "slope_ci_low", "slope_ci_high", "r2", "spearman_rho_loglog")


KINDS = {"family": "families", "quantization_level": "quantisations"}
"""Columns of a run's model table that tell models of a kind from others, and their plural in words."""
_MODEL = ["backend", "model", "model_kind"]


def kinds_of(run: Run) -> pl.DataFrame:
    """One row a backend and model of the run, with the columns of `KINDS`, empty where the run does not tell."""
    models = run.rows.select(_MODEL).unique(maintain_order=True)
    told = stated(run.models, ["backend", "model", "kind", *KINDS]).rename({"kind": "model_kind"})
    on = _MODEL if "backend" in run.models.columns else _MODEL[1:]
    told = told.select(*on, *KINDS).unique(on, keep="first")
    return models.join(told, on=on, how="left", nulls_equal=True, maintain_order="left")


def by_family(points: pl.DataFrame, run: Run, options: Options, replicates: Replicates | None) -> pl.DataFrame:
    """The law over all scenarios of each family of three models or more, where a backend has several families."""
    families = kinds_of(run).select(*_MODEL, "family").drop_nulls("family")
    known = points.filter(pl.col("scenario") == ALL).join(families, on=_MODEL, nulls_equal=True)
    known = known.filter(pl.col("family").n_unique().over(GROUP) > 1, pl.len().over([*GROUP, "family"]) >= MIN_MODELS)
    return SCALING_FITS_BY_FAMILY.frame(_laws_of(known, replicates, options, keys=[*KEYS, "family"]))


def length_limited(rows: pl.DataFrame, run: Run, options: Options, *, whole_calls: bool = False) -> pl.DataFrame:
    """The laws over all scenarios of served engines, without what calls that stopped early left (method 3).

    That is without their decode and e2e rows (TR121's filter), or without any of theirs.
    """
    short = pl.col("gen_tokens_raw") < pl.col(BUDGET)
    dropped = short if whole_calls else short & pl.col("mode").is_in(["kv_decode", "e2e_kv"])
    name = "length_limited_calls" if whole_calls else "length_limited_decode_only"
    fits = _of_rows(served_rows(rows).filter(~dropped.fill_null(False)), run, options, resample_by_name=True)
    return LENGTH_LIMITED.frame(row | {"filter": name} for row in fits)


def by_basis(rows: pl.DataFrame, run: Run, options: Options) -> pl.DataFrame:
    """The laws over all scenarios of served engines, by the steps that ran and by TR121's projection (method 3)."""
    parts = by_each_basis(served_rows(rows))
    return SCALING_FITS_BY_BASIS.frame(
        row | {BASIS: basis} for basis, part in parts.items() for row in _of_rows(part, run, options)
    )


def _of_rows(rows: pl.DataFrame, run: Run, options: Options, *, resample_by_name: bool = False) -> Iterator[Row]:
    """The laws over all scenarios of some rows of a run."""
    points = points_of(CELLS.frame(), by_model(by_cell(rows), as_is=True))
    replicates = units_of(rows, in_rounds=run.order == "rounds").for_laws
    return _laws_of(points, replicates, options, resample_by_name=resample_by_name)
