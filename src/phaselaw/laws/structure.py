"""What models are made of, and which of it explains their latency (TR121 2.6, section 5; method 3).

A model's layers, width and heads are from the best source at hand. In order: its own config, where the run's table
names one that is still there; the columns of ``resolved_model_params.csv``; the shipped ladder, where name and measured
parameter count match; a table that a person gives with ``--models-table``. Latency is then explained by parameters,
depth, width and bytes read: on the aggregates (geometric means over scenarios), on log scales.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from phaselaw import tables as col
from phaselaw.errors import AnalysisError
from phaselaw.files import read_plain
from phaselaw.ladder.spec import ladder_model
from phaselaw.laws import regression
from phaselaw.laws.noise import Kind, Replicates, log_matrices, noise_of
from phaselaw.laws.options import Options
from phaselaw.laws.summary import GROUP, GROUP_COLUMNS, MODEL, ORDER, by_size, floats
from phaselaw.laws.verdicts import verdict
from phaselaw.machine.footprint import Architecture
from phaselaw.machine.model_config import facts_of
from phaselaw.records import Run
from phaselaw.tables import BUDGET, Row, Table, grouped

MEAN, PARAMS, ACTIVE, DEPTH, WIDTH = "mean", "params", "active_params", "depth", "width"
BYTES, BOTH = "bytes_per_token", "params+depth"
ACTIVE_PARAMS = "params_millions_active"

COLUMNS = {
    PARAMS: ("params_millions_effective",),
    ACTIVE: (ACTIVE_PARAMS,),
    DEPTH: ("n_layer",),
    WIDTH: ("n_embd",),
    BYTES: ("read_bytes",),
    BOTH: ("params_millions_effective", "n_layer"),
}
"""Predictors and the columns, taken as logs, that each is made of; `MEAN` has none. `PARAMS` are all of a model's."""

STRUCTURE = ("n_layer", "n_embd", "n_head", "n_inner", "vocab_size", "n_positions")

BITS = {"F32": 32, "F16": 16, "BF16": 16, "Q8": 8.5, "Q6": 6.6, "Q5": 5.6, "Q4": 4.7, "Q3": 3.7, "Q2": 2.8,
        "MXFP4": 4.25, "FP32": 32, "FP16": 16}  # fmt: skip
"""Bits a parameter of number formats and of llama.cpp's quantisations, scales included, by the name's beginning: good
to about 10 %."""


def p_value(value: float | None) -> str:
    """A p-value; what is smaller than a thousandth says so."""
    return "< 0.001" if value is not None and value < 0.001 else col.fixed(value)


_CORRELATED = {
    "params": ("loglog_params", "params_millions_effective"),
    "layers": ("n_layer_vs_log_latency", "n_layer"),
    "width": ("n_embd_vs_log_latency", "n_embd"),
}

_NO_LAYERS = "no models whose layers are known (config, resolved_model_params.csv, ladder or --models-table)"
MODEL_ARCHITECTURE = Table(
    name="hf_model_architecture",
    holds="layers, width, heads of each model",
    why_empty=_NO_LAYERS,
    columns=(
        col.words("model", "model"),
        col.words("config_path"),
        col.measured("n_layer", "layers", col.count),
        col.measured("n_embd", "width", col.count),
        col.measured("n_head", "heads", col.count),
        col.measured("n_inner", "inner width", col.count),
        col.measured("vocab_size", "vocabulary", col.count),
        *col.plain("n_positions"),
        col.measured("params_millions_effective", "params (M)"),
        col.words("model_kind"),
        col.words("source", "from"),
    ),
    order=("model", "params_millions_effective"),
    shows="model params_millions_effective n_layer n_embd n_head n_inner vocab_size source",
)
ARCHITECTURE_CORRELATIONS = Table(
    name="hf_architecture_correlations",
    holds="rank correlation of latency with structure",
    caption="Rank correlation (Spearman's rho) of latency with each property, and its p-value.",
    why_empty="fewer than three models whose layers and width are both known",
    columns=(
        GROUP_COLUMNS[0],
        *GROUP_COLUMNS[2:],
        col.counted("n_models", "models"),
        *(
            column
            for name, (key, _) in _CORRELATED.items()
            for column in (
                col.derived(f"spearman_rho_{key}", name, col.fixed),
                col.derived(f"spearman_p_{key}", f"p, {name}", p_value),
            )
        ),
        col.words("backend_kind"),
        col.counted(BUDGET),
    ),
    order=ORDER,
)
MULTIVARIATE_FITS = Table(
    name="hf_multivariate_fits",
    holds="parameters and layers together",
    caption="Parameters and layers together: log latency = alpha + beta log params + gamma log layers.",
    why_empty=f"{_NO_LAYERS}, three or more that differ in depth and size",
    columns=(
        *GROUP_COLUMNS,
        col.counted("n_models", "models"),
        col.derived("beta_log_params", "params exponent", col.fixed),
        col.derived("gamma_log_layers", "layers exponent", col.fixed),
        col.derived("r2", "R2", col.fixed),
        *col.plain("beta_ci_low beta_ci_high gamma_ci_low gamma_ci_high r2_ci_low r2_ci_high"),
        *col.plain("boot_n_used boot_n_requested", pl.Int64),
        *col.interval("beta_t_ci_low", "beta_t_ci_high", "interval"),
        *col.interval("gamma_t_ci_low", "gamma_t_ci_high", "interval"),
        col.words("beta_verdict", "verdict"),
        col.words("gamma_verdict", "verdict"),
        col.words("interval_holds", "intervals hold"),
        col.counted(BUDGET),
    ),
    order=ORDER,
    shows="backend mode n_models beta_log_params beta_t_ci_low beta_verdict gamma_log_layers gamma_t_ci_low "
    "gamma_verdict r2 interval_holds",
)
STRUCTURE_PREDICTORS = Table(
    name="structure_predictors",
    holds="which property predicts a model that was left out",
    columns=(
        *GROUP_COLUMNS,
        col.words("predictor", "predicted from"),
        col.counted("n_models", "models"),
        *col.plain("loo_rmse_log"),
        col.derived("loo_typical_factor", "typical error", lambda value: f"{col.digits(value)} x"),
        col.derived("r2", "R2", col.fixed),
        col.derived("spearman_rho", "rank correlation", col.fixed),
        col.derived("spearman_p", "p", p_value),
        col.flag("best", "best", show=lambda best: "least error" if best else ""),
        col.words("warning"),
        col.counted(BUDGET),
    ),
    order=ORDER,
)


def architectures(run: Run, models_table: Path | None) -> pl.DataFrame:
    """The table ``hf_model_architecture``: a model of the run whose layers are known, ``source`` naming the source."""
    given, found, columns = _given(models_table), [], run.models.columns
    told = sorted(run.models.to_dicts() if "model" in columns else (), key=lambda row: row.get("n_layer") is None)
    resolved = {(row["model"], row.get("kind")): row for row in reversed(told)}  # the first that knows its layers
    for name, kind, params in run.rows.select(MODEL).unique().sort(pl.all()).iter_rows():
        row = resolved.get((name, kind)) or resolved.get((name, None)) or {}
        about = {"model": name, "model_kind": kind, "params_millions_effective": params}
        for source, stated in _sources(name, params, row, given):
            structure = {key: _number(stated.get(key)) for key in STRUCTURE}
            if structure["n_layer"]:
                found.append(about | structure | {"source": source, "config_path": row.get("config_path")})
                break
    return MODEL_ARCHITECTURE.frame(found)


def with_given_sizes(run: Run, models_table: Path | None) -> Run:
    """The run with the ``params`` of a models table (a count) for models that have no parameter count of their own."""
    sizes = {name: _number(row.get("params")) for name, row in _given(models_table).items()}
    known = {name: params / 1e6 for name, params in sizes.items() if params}
    if not known:
        return run
    given = pl.col("model").replace_strict(known, default=None, return_dtype=pl.Float64)
    filled = pl.col("params_millions_effective").fill_null(given)
    return dataclasses.replace(run, rows=run.rows.with_columns(filled))


def bits_of(label: Any) -> float | None:
    """Bits a parameter of a quantisation or number format; ``None`` for one that is not known."""
    said = str(label or "").upper()
    return next((bits for name, bits in BITS.items() if said.startswith(name)), None)


def sizes(run: Run) -> pl.DataFrame:
    """What one token reads of the weights of each backend's models, in bytes, and the parameters that it needs (M).

    Bytes as `phaselaw.machine.footprint` counts them where the weights were measured, else parameters times the bits of
    their format. Of a model that a table without backends lists in several formats, the format is unknown: a backend
    has one, so that its models' sizes stand in the same proportion by any. Of a mixture whose experts' size is not
    known neither can be told.
    """
    told: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in run.models.iter_rows(named=True):
        told.setdefault((row.get("backend"), row.get("kind"), row.get("model")), []).append(row)
    found = []
    names = ("backend", "backend_kind", "model", "params_millions_effective")
    for backend, kind, model, params in run.rows.select(names).unique().sort(names).iter_rows():
        rows = told.get((backend, kind, model)) or told.get((None, kind, model)) or []
        mixture = any(row.get("n_experts") for row in rows)
        shapes = [shape for shape in map(Architecture.of, rows) if shape is not None and not shape.unsized_experts]
        bits = {bits_of(row.get("quantization_level") or row.get("dtype")) for row in rows}
        read: set[float | None] = {shape.read_bytes() for shape in shapes}
        read = read or {_number(row.get("weights_bytes")) for row in rows}
        size = read.pop() if len(read) == 1 and (shapes or not mixture) else None
        if size is None and params and rows and None not in bits and not mixture:
            size = params * 1e6 * min(each for each in bits if each is not None) / 8
        active = params if not mixture else shapes[0].active_params / 1e6 if shapes else None
        found.append((backend, model, params, size, active))
    schema = {"backend": pl.String, "model": pl.String, "params_millions_effective": pl.Float64}
    return pl.DataFrame(found, schema=schema | dict.fromkeys(("read_bytes", ACTIVE_PARAMS), pl.Float64), orient="row")


def _sources(
    name: str, params: float | None, resolved: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What may say how a model is built, the best first."""
    with contextlib.suppress(OSError, ValueError):
        config = json.loads(read_plain(Path(resolved.get("config_path") or "")).decode())
        yield "config", facts_of(config) if isinstance(config, dict) else {}
    yield "resolved_model_params.csv", resolved
    ladder = ladder_model(name.replace("\\", "/").rsplit("/", 1)[-1])
    if ladder is not None and params is not None and abs(ladder.params - params * 1e6) < 0.5:
        yield "shipped ladder", {key: getattr(ladder, key) for key in STRUCTURE}
    yield "models table", given.get(name, {})


def _given(path: Path | None) -> dict[str, dict[str, Any]]:
    """The ``--models-table``; raises `AnalysisError` where it can't be read or lacks a column."""
    if path is None:
        return {}
    if not path.is_file():
        raise AnalysisError(f"{path}: no such models table")
    try:
        table = pl.read_csv(path.read_bytes(), schema_overrides={"model": pl.String}, null_values=["", "nan", "NaN"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AnalysisError(f"{path}: not a table that can be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in ("model", "n_layer") if name not in table.columns]
    if missing:
        raise AnalysisError(f"{path}: column(s) missing: {', '.join(missing)}")
    return {row["model"]: row for row in table.iter_rows(named=True)}


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def structured(per_model: pl.DataFrame, architecture: pl.DataFrame, sized: pl.DataFrame) -> pl.DataFrame:
    """The aggregates of each group, with the structure of each model beside them, empty where it is unknown."""
    known = architecture.select(*MODEL, "n_layer", "n_embd")
    joined = per_model.join(known, on=MODEL, how="left", nulls_equal=True).join(
        sized, on=["backend", "model", "params_millions_effective"], how="left", nulls_equal=True
    )
    return by_size(joined.with_columns(latency="latency_geomean_ms"), GROUP)


def architecture_correlations(points: pl.DataFrame) -> pl.DataFrame:
    """The table ``hf_architecture_correlations``: Spearman of log latency with parameters, depth and width."""
    rows = []
    for key, models in grouped(points.filter(pl.col("n_layer") > 0, pl.col("n_embd") > 0), GROUP):
        if models.height >= 3:
            row = key | {"n_models": models.height}
            for name, column in _CORRELATED.values():
                ranks = regression.spearman(*logs_of(models, [column, "latency"]).T)
                row[f"spearman_rho_{name}"], row[f"spearman_p_{name}"] = ranks
            rows.append(row)
    return ARCHITECTURE_CORRELATIONS.frame(rows)


def multivariate_fits(points: pl.DataFrame, replicates: Replicates | None, options: Options) -> pl.DataFrame:
    """The table ``hf_multivariate_fits``: ``log lat = alpha + beta log P + gamma log layers``.

    TR121's columns with their percentile bootstrap (one generator a fit, unlike TR121's), then the default intervals:
    over models (n - 3 degrees of freedom) and, where ``replicates`` are known, the noise between runs or rounds; with a
    verdict of each coefficient by it.
    """
    rows = []
    kind: Kind = replicates.kind if replicates else "runs"
    matrix = log_matrices(replicates.by_model() if replicates else None, GROUP)
    for key, models in grouped(points.filter(pl.col("n_layer") > 0), GROUP):
        columns, latency = logs_of(models, COLUMNS[BOTH]), logs_of(models, ["latency"])[:, 0]
        plane = regression.fit_plane(columns, latency)
        if not plane.determined:
            continue
        counts = regression.resamples(models.height, options.draws, options.seed)
        coefficients, r2 = regression.bootstrap_planes(columns, latency, counts)
        low, high, used = regression.quantile_interval(np.vstack([coefficients[:, 1:].T, r2]), options.level)
        row: Row = key | {
            "n_models": models.height,
            "beta_log_params": plane.coefficients[1],
            "gamma_log_layers": plane.coefficients[2],
            "r2": plane.r2,
            "boot_n_used": int(used[0]),
            "boot_n_requested": options.draws,
        }
        for index, name in enumerate(("beta", "gamma", "r2")):
            row |= {f"{name}_ci_low": low[index], f"{name}_ci_high": high[index]}
        for index, name in enumerate(("beta", "gamma"), start=1):
            noise = noise_of(np.eye(3)[index], columns, matrix(models), kind=kind)
            half = float(noise.half_width(plane.standard_errors[index], plane.degrees, options.level))
            least, most = plane.coefficients[index] - half, plane.coefficients[index] + half
            span = float(np.exp(np.ptp(columns[:, index - 1])))
            said = verdict(n_models=models.height, low=least, high=most, r2=plane.r2, rho=1.0, span=span)
            row |= {f"{name}_t_ci_low": least, f"{name}_t_ci_high": most, f"{name}_verdict": said}
        rows.append(row | {"interval_holds": noise.holds})
    return MULTIVARIATE_FITS.frame(rows)


def structure_predictors(points: pl.DataFrame) -> pl.DataFrame:
    """Each predictor's leave-one-model-out error, R2 and rank correlation, on the same models.

    Where at least three models of a group have known layers, all predictors are compared on those; else parameters and
    the mean on all models. ``loo_rmse_log`` is in natural log units, ``loo_typical_factor`` its exponential (1.10: off
    by about 10 %), the p of the rank correlation exact for few models. ``best`` marks the least error, one law a group;
    ``warning`` says what a small sample can't tell.
    """
    rows = []
    for key, models in grouped(points, GROUP):
        layered = models.filter(pl.col("n_layer") > 0)
        group = [key | row for row in _compared(layered if layered.height >= 3 else models)]
        errors = [row.get("loo_rmse_log", np.inf) for row in group]
        # Bytes in proportion to parameters predict as these do, but for rounding: the first in order is the best.
        least = min(errors, default=np.inf) * (1 + 1e-9)
        best = next((at for at, error in enumerate(errors) if error <= least < np.inf), None)
        rows += [row | {"best": at == best} for at, row in enumerate(group)]
    return STRUCTURE_PREDICTORS.frame(rows)


def _compared(points: pl.DataFrame) -> Iterator[Row]:
    """One row for each predictor that all of these models have."""
    latency, n = logs_of(points, ["latency"])[:, 0], points.height
    for predictor, names in {MEAN: (), **COLUMNS}.items():
        if any((points[name].fill_null(0) <= 0).any() for name in names):
            continue
        if predictor == ACTIVE and (points[ACTIVE_PARAMS] == points["params_millions_effective"]).all():
            continue  # no mixture of experts: it is the same
        row: Row = {"predictor": predictor, "n_models": n}
        columns = logs_of(points, names)
        plane = regression.fit_plane(columns, latency)
        rmse = regression.left_out(plane).root_mean_square
        if math.isfinite(rmse):
            row |= {"loo_rmse_log": rmse, "loo_typical_factor": regression.exponential(rmse)}
        row["r2"] = plane.r2 if names else None
        if len(names) == 1:
            row["spearman_rho"], row["spearman_p"] = regression.spearman(columns[:, 0], latency, exact=True)
        if n < 2 * (len(names) + 2):
            few = f"{n} models for {len(names) + 1} coefficients"
            row["warning"] = f"{few}: the error of leaving one out is itself uncertain"
        yield row


def logs_of(points: pl.DataFrame, names: Sequence[str]) -> regression.Floats:
    """The logs of columns, of shape (points, columns)."""
    values = np.array([floats(points, name) for name in names]).reshape(len(names), points.height)
    return np.asarray(np.log(values.T))
