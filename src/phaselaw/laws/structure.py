"""Which property of a model explains its latency: parameters, depth, width, bytes read (TR121 section 5; method 3).

All on the aggregate (geometric means over scenarios), on log scales, over the models whose layers are known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from phaselaw.laws.architecture import STRUCTURE
from phaselaw.laws.noise import Kind, Replicates, log_matrices, noise_of
from phaselaw.laws.options import Options
from phaselaw.laws.ranks import exact_spearman
from phaselaw.laws.regression import (
    Floats,
    bootstrap_planes,
    exponential,
    fit_plane,
    leave_one_out_errors,
    quantile_interval,
    resamples,
    spearman,
)
from phaselaw.laws.series import Series
from phaselaw.laws.summary import GROUP, MODEL
from phaselaw.laws.verdicts import verdict
from phaselaw.tables import Table

_NO_LAYERS = "no models whose layers are known (config, resolved_model_params.csv, ladder or --models-table)"
MODEL_ARCHITECTURE = Table(
    name="hf_model_architecture", holds="layers, width, heads of each model", why_empty=_NO_LAYERS, columns=()
)
ARCHITECTURE_CORRELATIONS = Table(
    name="hf_architecture_correlations",
    holds="rank correlation of latency with structure",
    why_empty=f"{_NO_LAYERS}, three or more",
    columns=(),
)
MULTIVARIATE_FITS = Table(
    name="hf_multivariate_fits",
    holds="parameters and layers together",
    why_empty=f"{_NO_LAYERS}, three or more that differ in depth and size",
    columns=(),
)
STRUCTURE_PREDICTORS = Table(name="structure_predictors", holds="which property predicts a model left out", columns=())

MEAN, PARAMS, DEPTH, WIDTH, BYTES, BOTH = ("mean", "params", "depth", "width", "bytes_per_token", "params+depth")

COLUMNS = {
    PARAMS: ("params_millions_effective",),
    DEPTH: ("n_layer",),
    WIDTH: ("n_embd",),
    BYTES: ("weights_bytes",),
    BOTH: ("params_millions_effective", "n_layer"),
}
"""Predictors and the columns, taken as logs, that each is made of; `MEAN` has none."""

_FIRST = ["backend", "backend_kind", "batch_size", "mode"]


def model_table(architecture: pl.DataFrame) -> pl.DataFrame:
    """The table ``hf_model_architecture``: TR121's columns, then the parameter count and where the row is from."""
    return architecture.select(
        "model", "config_path", *STRUCTURE, "params_millions_effective", "model_kind", "source"
    ).sort("model", "params_millions_effective")


def structured(per_model: pl.DataFrame, architecture: pl.DataFrame, weights: pl.DataFrame) -> Series:
    """The aggregates of each group, with the structure of each model beside them, empty where it is unknown."""
    known = architecture.select(*MODEL, "n_layer", "n_embd")
    joined = per_model.join(known, on=MODEL, how="left", nulls_equal=True).join(
        weights, on=["backend", "model", "params_millions_effective"], how="left", nulls_equal=True
    )
    return Series.of(joined.with_columns(pl.col("latency_geomean_ms").alias("latency")), GROUP)


def architecture_correlations(series: Series) -> pl.DataFrame:
    """The table ``hf_architecture_correlations``: Spearman of log latency with parameters, depth and width."""
    rows = []
    for key, points in _groups(series):
        points = points.filter(pl.col("n_layer") > 0, pl.col("n_embd") > 0)
        if points.height < 3:
            continue
        row: dict[str, Any] = key | {"n_models": points.height}
        latency = _log(points, "latency")
        for name, column in _CORRELATED.items():
            rho, p = spearman(_log(points, column), latency)
            row[f"spearman_rho_{name}"], row[f"spearman_p_{name}"] = rho, p
        rows.append(row)
    floats = [f"spearman_{figure}_{name}" for name in _CORRELATED for figure in ("rho", "p")]
    return _table(rows, series, {"n_models": pl.Int64} | dict.fromkeys(floats, pl.Float64)).select(
        "backend", "batch_size", "mode", "n_models", *floats, "backend_kind", "gen_tokens_target"
    )


_CORRELATED = {
    "loglog_params": "params_millions_effective",
    "n_layer_vs_log_latency": "n_layer",
    "n_embd_vs_log_latency": "n_embd",
}


def multivariate_fits(series: Series, replicates: Replicates | None, options: Options) -> pl.DataFrame:
    """The table ``hf_multivariate_fits``: ``log lat = alpha + beta log P + gamma log layers``.

    TR121's columns with their percentile bootstrap (one generator a fit, unlike TR121's), then the default intervals:
    over models (n - 3 degrees of freedom) and, where ``replicates`` are known, the noise between runs or rounds; with a
    verdict of each coefficient by it.
    """
    rows = []
    series = Series.of(series.points.filter(pl.col("n_layer") > 0), GROUP)
    kind: Kind = "runs" if replicates is None else replicates.kind
    matrices = None if replicates is None else log_matrices(replicates.by_model(), series)
    for at, (key, points) in enumerate(_groups(series)):
        columns = np.column_stack([_log(points, name) for name in COLUMNS[BOTH]])
        plane = fit_plane(columns, _log(points, "latency")) if points.height >= 3 else None
        if plane is None:
            continue
        counts = resamples(points.height, options.draws, options.seed)
        coefficients, r2 = bootstrap_planes(columns, _log(points, "latency"), counts)
        low, high, used = quantile_interval(np.vstack([coefficients[:, 1:].T, r2]), options.level)
        logs = np.empty((0, points.height)) if matrices is None else matrices[at]
        row: dict[str, Any] = key | {
            "n_models": points.height,
            "beta_log_params": plane.coefficients[1],
            "gamma_log_layers": plane.coefficients[2],
            "r2": plane.r2,
            "boot_n_used": int(used[0]),
            "boot_n_requested": options.draws,
        }
        for index, name in enumerate(("beta", "gamma", "r2")):
            row[f"{name}_ci_low"], row[f"{name}_ci_high"] = low[index], high[index]
        for index, name in enumerate(("beta", "gamma")):
            middle = plane.coefficients[index + 1]
            noise = noise_of(np.eye(3)[index + 1], columns, logs, kind=kind)
            se = plane.standard_errors[index + 1 : index + 2]
            half = float(noise.half_width(se, plane.degrees, options.level)[0])
            row[f"{name}_t_ci_low"], row[f"{name}_t_ci_high"] = middle - half, middle + half
            row[f"{name}_verdict"] = verdict(
                n_models=points.height, low=row[f"{name}_t_ci_low"], high=row[f"{name}_t_ci_high"], r2=plane.r2, rho=1.0
            )
        rows.append(row | {"interval_holds": noise.holds()[0]})
    return _table(rows, series, _MULTIVARIATE).select(*_FIRST, *_MULTIVARIATE, "gen_tokens_target")


_MULTIVARIATE: dict[str, type[pl.DataType]] = {
    "n_models": pl.Int64,
    **dict.fromkeys(
        ("beta_log_params", "gamma_log_layers", "r2", "beta_ci_low", "beta_ci_high", "gamma_ci_low", "gamma_ci_high",
         "r2_ci_low", "r2_ci_high"), pl.Float64),
    "boot_n_used": pl.Int64,
    "boot_n_requested": pl.Int64,
    **dict.fromkeys(("beta_t_ci_low", "beta_t_ci_high", "gamma_t_ci_low", "gamma_t_ci_high"), pl.Float64),
    "beta_verdict": pl.String,
    "gamma_verdict": pl.String,
    "interval_holds": pl.String,
}  # fmt: skip


def structure_predictors(series: Series) -> pl.DataFrame:
    """Each predictor's leave-one-model-out error, R2 and rank correlation, on the same models.

    Where at least three models of a group have known layers, all predictors are compared on those; else parameters and
    the mean on all models. ``loo_rmse_log`` is in natural log units, ``loo_typical_factor`` its exponential (1.10: off
    by about 10 %), the p of the rank correlation exact for few models. ``best`` marks the least error, one law a group;
    ``warning`` says what a small sample can't tell.
    """
    rows = []
    for key, points in _groups(series):
        layered = points.filter(pl.col("n_layer") > 0)
        compared = layered if layered.height >= 3 else points
        group = [key | row for row in _compared(compared)]
        errors = [row["loo_rmse_log"] for row in group if row["loo_rmse_log"] is not None]
        # Bytes in proportion to parameters predict as these do, but for rounding: the first in order is the best.
        best = next((row for row in group if errors and _at_most(row["loo_rmse_log"], min(errors))), None)
        for row in group:
            row["best"] = row is best
        rows += group
    return _table(rows, series, _PREDICTORS).select(*_FIRST, *_PREDICTORS, "gen_tokens_target")


def _at_most(error: float | None, least: float) -> bool:
    return error is not None and error <= least * (1 + 1e-9)


_PREDICTORS: dict[str, type[pl.DataType]] = {
    "predictor": pl.String,
    "n_models": pl.Int64,
    **dict.fromkeys(("loo_rmse_log", "loo_typical_factor", "r2", "spearman_rho", "spearman_p"), pl.Float64),
    "best": pl.Boolean,
    "warning": pl.String,
}


def _compared(points: pl.DataFrame) -> list[dict[str, Any]]:
    """One row for each predictor that all of these models have."""
    latency = _log(points, "latency")
    rows = []
    for predictor, names in {MEAN: (), **COLUMNS}.items():
        if any((points[name].fill_null(0) <= 0).any() for name in names):
            continue
        columns = np.column_stack([_log(points, name) for name in names]) if names else None
        errors = leave_one_out_errors(columns, latency)
        rmse = None if errors is None else float(np.sqrt((errors * errors).mean()))
        plane = None if columns is None else fit_plane(columns, latency)
        rho, p = exact_spearman(columns[:, 0], latency) if columns is not None and len(names) == 1 else (None, None)
        rows.append(
            {
                "predictor": predictor,
                "n_models": points.height,
                "loo_rmse_log": rmse,
                "loo_typical_factor": None if rmse is None else exponential(rmse),
                "r2": None if plane is None else plane.r2,
                "spearman_rho": rho,
                "spearman_p": p,
                "warning": _warning(points.height, len(names)),
            }
        )
    return rows


def _warning(n_models: int, terms: int) -> str | None:
    """What so few models can't tell."""
    if n_models < 2 * (terms + 2):
        return f"{n_models} models for {terms + 1} coefficients: the error of leaving one out is itself uncertain"
    return None


def _groups(series: Series) -> list[tuple[dict[str, Any], pl.DataFrame]]:
    return [
        (key, series.points.slice(int(start), int(n)))
        for key, start, n in zip(series.keys.iter_rows(named=True), series.starts, series.lengths, strict=True)
    ]


def _table(rows: list[dict[str, Any]], series: Series, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Rows with NaN made missing, in the order of the groups."""
    whole = {name: series.keys.schema[name] for name in GROUP} | schema
    table = pl.DataFrame(rows, schema=whole)
    return table.with_columns(pl.selectors.float().fill_nan(None)).sort(
        ["backend", "batch_size", "gen_tokens_target", "mode"], maintain_order=True
    )


def _log(points: pl.DataFrame, column: str) -> Floats:
    values: Floats = np.log(points[column].cast(pl.Float64).to_numpy())
    return values
