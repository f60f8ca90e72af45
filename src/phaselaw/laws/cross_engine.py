"""The same weights on several engines: each model's ratio, and whether the law's exponent or only its constant changes.

Models are paired by their stated identity (a study's ``same_as``, else the name), never by position or likeness, and
only where their parameter counts agree. Every engine is compared with one reference, so that what a model does to both
alike cancels: ratios by round, laws by the paired fit ``log10(latency / reference) = a + b log10(params)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.intervals import CELLS, NOT_MEASURED, ROUNDS, RUNS
from phaselaw.laws.regression import Floats, fit_lines, t_half_width
from phaselaw.laws.summary import BUDGET, by_cell, median_variance
from phaselaw.laws.verdicts import MIN_MODELS, TOO_FEW
from phaselaw.records import Run
from phaselaw.tables import Table

ENGINE_RATIOS = Table(
    name="engine_ratios",
    holds="engines on the same weights, model by model",
    why_empty="no model was measured on two backends",
    columns=(),
)
ENGINE_LAWS = Table(
    name="engine_laws",
    holds="whether engines differ in exponent or in constant",
    why_empty="no model was measured on two backends",
    columns=(),
)

EXPONENT, CONSTANT, NOTHING = "exponent", "constant only", "nothing shown"
"""What of a law changes with the engine: the slope's difference leaves out 0; else the ratio leaves out 1; neither."""

SAME_SIZE = 0.01
"""Parameter counts further apart than this share are not those of the same weights, whatever their names say."""

_SIDE = ["batch_size", BUDGET, "mode"]
"""What two engines must have in common, beside the weights and the prompt."""
_PAIR = ["reference", "backend", *_SIDE]
_POINT = [*_PAIR, "identity"]
_WEIGHTS = ("dtype", "quantization_level")


def engine_ratios(rows: pl.DataFrame, run: Run, *, level: float) -> pl.DataFrame:
    """Each model's latency on each engine over that on the reference, per phase: the geometric mean over scenarios.

    ``rows`` are the usable ones. The interval is a t interval on the log: over runs where several were pooled, else
    over rounds, each a pair of both engines, else from the calls' scatter within cells (``interval_basis``).
    ``note`` says where the two did not evaluate prompts of one length.
    """
    known = rows.join(identities(run), on=["backend", "model"], how="left", nulls_equal=True)
    cells = _cells(known)
    reference = _reference(run, cells)
    pairs = _paired(cells, reference)
    points = (
        pairs.group_by(_POINT, maintain_order=True)
        .agg(
            pl.col("params_millions_effective").first(),
            pl.col("weights_reference", "weights").first(),
            pl.len().cast(pl.Int64).alias("n_scenarios"),
            pl.col("latency_reference", "latency").log().mean().exp(),
            pl.col("prompt_tokens_reference", "prompt_tokens").mean(),
            *_scatter_within_cells(),
        )
        .rename({"latency_reference": "latency_reference_ms", "latency": "latency_ms"})
        .join(_over_units(known, pairs, reference, run), on=_POINT, how="left", nulls_equal=True)
    )
    return _with_intervals(points, level).sort([*_SIDE, "backend", "params_millions_effective", "model"])


def identities(run: Run) -> pl.DataFrame:
    """``backend``, ``model``, its ``identity`` across engines and how its weights are kept, one row each."""
    models = run.rows.select("backend", "model").unique(maintain_order=True)
    told = [name for name in ("identity", *_WEIGHTS) if name in run.models.columns]
    if told and {"backend", "model"} <= set(run.models.columns):
        texts = run.models.select(pl.col(["backend", "model", *told]).cast(pl.String)).unique(["backend", "model"])
        models = models.join(texts, on=["backend", "model"], how="left")
    blank = [
        pl.lit(None, dtype=pl.String).alias(name) for name in ("identity", *_WEIGHTS) if name not in models.columns
    ]
    return models.with_columns(blank).select(
        "backend", "model", pl.coalesce("identity", "model").alias("identity"), pl.coalesce(*_WEIGHTS).alias("weights")
    )


def _cells(known: pl.DataFrame) -> pl.DataFrame:
    names = known.select("backend", "model", "identity", "weights").unique()
    return (
        by_cell(known)
        .join(names, on=["backend", "model"], how="left")
        .select(
            "backend", *_SIDE, "identity", "scenario", "params_millions_effective", "weights", "n",
            pl.col("latency_median_ms").alias("latency"), pl.col("prompt_tokens_raw_median").alias("prompt_tokens"),
            pl.col("latency_log_variance").alias("variance"),
        )
    )  # fmt: skip


def _reference(run: Run, cells: pl.DataFrame) -> str | None:
    """The study's first backend that was measured; without a manifest the first by name."""
    measured = cells["backend"].unique().sort().to_list()
    stated = [str(name) for name in (run.manifest or {}).get("backends") or ()]
    return next((name for name in [*stated, *measured] if name in measured), None)


def _paired(cells: pl.DataFrame, reference: str | None) -> pl.DataFrame:
    """Each cell of another backend beside the reference's of the same weights, prompt, batch and budget."""
    base = cells.filter(pl.col("backend") == reference)
    others = cells.filter(pl.col("backend") != reference)
    on = [*_SIDE, "identity", "scenario"]
    pairs = others.join(base, on=on, suffix="_reference", nulls_equal=True, maintain_order="left")
    sizes = pl.col("params_millions_effective"), pl.col("params_millions_effective_reference")
    same = ((sizes[0] - sizes[1]).abs() <= SAME_SIZE * sizes[1]).fill_null(True)
    return pairs.filter(same).with_columns(pl.lit(reference, dtype=pl.String).alias("reference"))


def _scatter_within_cells() -> list[pl.Expr]:
    """Standard error of a point's log ratio from its cells' calls, and degrees of freedom (Welch, Satterthwaite)."""
    each = ("variance", "n"), ("variance_reference", "n_reference")
    total = sum((pl.col(variance).sum() for variance, _ in each), pl.lit(0.0))
    spent = sum(((pl.col(variance) ** 2 / (pl.col(n) - 1)).sum() for variance, n in each), pl.lit(0.0))
    known = pl.all_horizontal(pl.col(variance).null_count() == 0 for variance, _ in each)
    return [
        pl.when(known).then(total.sqrt() / pl.len()).alias("cells_se"),
        pl.when(known).then(total**2 / spent).alias("cells_degrees"),
        pl.min_horizontal(pl.col("n").min(), pl.col("n_reference").min()).cast(pl.Int64).alias("cells_n"),
    ]


def _over_units(known: pl.DataFrame, pairs: pl.DataFrame, reference: str | None, run: Run) -> pl.DataFrame:
    """Standard error of each point's log ratio from its scatter over runs, or rounds; the units and their kind.

    A unit counts where both engines measured all of the point's scenarios in it.
    """
    unit, kind = ("run", RUNS) if len(run.sources) > 1 else ("rep", ROUNDS)
    if kind == ROUNDS and run.order != "rounds":
        known = known.clear()
    on = [*_SIDE, "identity", "scenario"]
    logs = (
        known.filter(pl.col(unit).is_not_null()).group_by("backend", *on, unit).agg(pl.col("latency_ms").log().mean())
    )
    base = logs.filter(pl.col("backend") == reference).drop("backend")
    wanted = pairs.select(*_POINT, "scenario", pl.len().over(_POINT).alias("wanted"))
    each = (
        logs.filter(pl.col("backend") != reference)
        .join(base, on=[*on, unit], suffix="_reference", nulls_equal=True)
        .join(wanted, on=["backend", *on], nulls_equal=True)
        .group_by([*_POINT, unit])
        .agg(
            (pl.col("latency_ms") - pl.col("latency_ms_reference")).mean().alias("log_ratio"),
            pl.len().alias("seen"),
            pl.col("wanted").first(),
        )
        .filter(pl.col("seen") == pl.col("wanted"))
    )
    spread = each.group_by(_POINT).agg(pl.col("log_ratio").std().alias("sd"), pl.len().cast(pl.Int64).alias("n_units"))
    # A point is a ratio of medians over rounds: a median's variance, not a mean's. Runs are pooled as rounds are.
    factors = {n: median_variance(n) ** 0.5 for n in spread["n_units"].unique()}
    return spread.select(
        *_POINT,
        "n_units",
        (pl.col("sd") * pl.col("n_units").replace_strict(factors, return_dtype=pl.Float64)).alias("units_se"),
        pl.lit(kind).alias("units_kind"),
    )


def _with_intervals(points: pl.DataFrame, level: float) -> pl.DataFrame:
    by_units = pl.col("units_se").is_not_null() & (pl.col("n_units") >= 2)
    points = points.with_columns(
        pl.when(by_units).then("units_se").otherwise("cells_se").alias("se"),
        pl.when(by_units).then(pl.col("n_units") - 1.0).otherwise("cells_degrees").alias("degrees"),
        pl.when(by_units).then("units_kind").otherwise(pl.lit(CELLS)).alias("basis"),
        pl.when(by_units).then("n_units").otherwise("cells_n").alias("n_units"),
        (pl.col("latency_ms") / pl.col("latency_reference_ms")).alias("ratio"),
    )
    se, degrees = (points[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("se", "degrees"))
    half = se * stats.t.ppf(0.5 + level / 2, np.where(degrees > 0, degrees, np.nan))
    ratio = points["ratio"].to_numpy()
    lengths = pl.col("prompt_tokens"), pl.col("prompt_tokens_reference")
    return points.select(
        *_PAIR,
        pl.col("identity").alias("model"),
        "params_millions_effective",
        "weights_reference",
        "weights",
        "n_scenarios",
        "latency_reference_ms",
        "latency_ms",
        "ratio",
        pl.Series("ratio_low", ratio * np.exp(-half)).fill_nan(None),
        pl.Series("ratio_high", ratio * np.exp(half)).fill_nan(None),
        pl.when(pl.Series(np.isfinite(half))).then("basis").otherwise(pl.lit(NOT_MEASURED)).alias("interval_basis"),
        pl.col("n_units").fill_null(0).cast(pl.Int64),
        pl.when(lengths[0] != lengths[1])
        .then(pl.format("prompts of {} tokens against {}", lengths[0].round(1), lengths[1].round(1)))
        .alias("note"),
    )


def engine_laws(ratios: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """Whether an engine changes a law's exponent or only its constant, per phase, over the models that all engines ran.

    All engines: those that share `MIN_MODELS` models or more with the reference. By the paired fit: the difference of
    slopes, of log10 intercepts (at a million parameters) and the ratio at the models' geometric mean size, each with a
    t interval over models. ``changes`` is `EXPONENT`, `CONSTANT`, `NOTHING`, or too few models.
    """
    rows: list[dict[str, Any]] = []
    for side, group in ratios.group_by(["reference", *_SIDE], maintain_order=True):
        shares = {str(name): set(part["model"]) for (name,), part in group.group_by("backend", maintain_order=True)}
        many = [models for models in shares.values() if len(models) >= MIN_MODELS]
        common = set.intersection(*many) if many else set()
        for backend, models in shares.items():
            kept = common if len(models) >= MIN_MODELS else models
            part = group.filter((pl.col("backend") == backend) & pl.col("model").is_in(sorted(kept)))
            about = dict(zip(["reference", *_SIDE], side, strict=True)) | {"backend": backend}
            rows.append(about | {"n_models": part.height} | _law_change(part, level))
    types = {name: ratios.schema[name] for name in _PAIR} | {"n_models": pl.Int64()}
    table = pl.DataFrame(rows, schema=types | dict.fromkeys(_FIGURES, pl.Float64()) | {"changes": pl.String()})
    return table.with_columns(pl.col(_FIGURES).fill_nan(None)).sort(BUDGET, "batch_size", "backend", "mode")


_FIGURES = [
    "slope_reference", "slope", "slope_difference", "slope_difference_low", "slope_difference_high",
    "log10_intercept_difference", "log10_intercept_difference_low", "log10_intercept_difference_high",
    "params_millions_mean", "ratio_at_mean", "ratio_at_mean_low", "ratio_at_mean_high",
]  # fmt: skip


def _law_change(points: pl.DataFrame, level: float) -> dict[str, Any]:
    """The figures of one engine's law against the reference's; ``points`` are its rows of `engine_ratios`."""
    x, reference, own = (
        np.log10(points[name].cast(pl.Float64).to_numpy())[None]
        for name in ("params_millions_effective", "latency_reference_ms", "latency_ms")
    )
    n = x.shape[1]
    if n < MIN_MODELS or len(np.unique(x)) < 2:
        return {"changes": TOO_FEW}
    line = fit_lines(x, own - reference)
    mean = float(x.mean())
    sd, slope_se = float(line.residual_sd[0]), float(line.slope_se[0])
    slope = _interval(float(line.slope[0]), slope_se, n, level)
    intercept = _interval(float(line.intercept[0]), math.hypot(sd / math.sqrt(n), slope_se * mean), n, level)
    middle = _interval(float((own - reference).mean()), sd / math.sqrt(n), n, level)
    changes = EXPONENT if slope[1] > 0 or slope[2] < 0 else CONSTANT if middle[1] > 0 or middle[2] < 0 else NOTHING
    of_each = [float(fit_lines(x, y).slope[0]) for y in (reference, own)]
    values = [*of_each, *slope, *intercept, 10**mean, *(10**end for end in middle)]
    return dict(zip(_FIGURES, values, strict=True)) | {"changes": changes}


def _interval(value: float, se: float, n: int, level: float) -> tuple[float, float, float]:
    """A figure of a line over ``n`` models, and the ends of its t interval."""
    errors: Floats = np.array([se])
    half = float(t_half_width(errors, n - 2, level)[0])
    return value, value - half, value + half
