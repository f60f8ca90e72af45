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

from phaselaw.laws.noise import BASIS, CELLS, NOT_MEASURED, Replicates, floats, spread, with_ends
from phaselaw.laws.regression import fit_lines, t_half_width
from phaselaw.laws.summary import median_variance
from phaselaw.laws.verdicts import MIN_MODELS, TOO_FEW
from phaselaw.records import Run
from phaselaw.tables import (
    BUDGET,
    LAW,
    PHASE,
    Table,
    counted,
    derived,
    digits,
    fixed,
    interval,
    measured,
    plain,
    two_places,
    words,
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
_PAIR_COLUMNS = (words("reference"), LAW, counted("batch_size"), counted(BUDGET), PHASE)
_NO_PAIR = "no model was measured on two backends"

ENGINE_RATIOS = Table(
    name="engine_ratios",
    holds="engines on the same weights, model by model",
    caption="Each model's latency over the reference's, geometric mean over scenarios.",
    why_empty=_NO_PAIR,
    columns=(
        *_PAIR_COLUMNS,
        words("model", "model"),
        *plain("params_millions_effective"),
        words("weights_reference"),
        words("weights", "weights"),
        counted("n_scenarios"),
        measured("latency_reference_ms", "reference (ms)"),
        measured("latency_ms", "this engine (ms)"),
        derived("ratio", "ratio"),
        *interval("ratio_low", "ratio_high", "95 % CI", digits),
        words("interval_basis", "interval over"),
        counted("n_units"),
        words("note", "note"),
    ),
    order=(*_SIDE, "backend", "params_millions_effective", "model"),
    shows="backend model weights mode latency_reference_ms latency_ms ratio ratio_low interval_basis note",
)
ENGINE_LAWS = Table(
    name="engine_laws",
    holds="whether engines differ in exponent or in constant",
    caption="What of the law changes with the engine, over the models that all engines ran.",
    why_empty=_NO_PAIR,
    columns=(
        *_PAIR_COLUMNS,
        counted("n_models", "models"),
        derived("slope_reference", "reference's exponent", fixed),
        derived("slope", "exponent", fixed),
        derived("slope_difference", "difference", fixed),
        *interval("slope_difference_low", "slope_difference_high", "95 % CI"),
        derived("log10_intercept_difference", "difference of log10 intercepts", fixed),
        *interval("log10_intercept_difference_low", "log10_intercept_difference_high", "95 % CI"),
        *plain("params_millions_mean"),
        derived("ratio_at_mean", "ratio at the mean size", two_places),
        *interval("ratio_at_mean_low", "ratio_at_mean_high", "95 % CI", two_places),
        words("changes", "what changes"),
    ),
    order=(BUDGET, "batch_size", "backend", "mode"),
    shows="backend mode n_models slope slope_reference slope_difference slope_difference_low "
    "log10_intercept_difference log10_intercept_difference_low ratio_at_mean ratio_at_mean_low changes",
)


def engine_ratios(cells: pl.DataFrame, replicates: Replicates | None, run: Run, *, level: float) -> pl.DataFrame:
    """Each model's latency on each engine over that on the reference, per phase: the geometric mean over scenarios.

    ``cells`` and ``replicates`` are of the usable rows. The interval is a t interval on the log: over replicates, each
    a pair of both engines, else from the calls' scatter within cells (``interval_basis``). ``note`` says where the two
    did not evaluate prompts of one length.
    """
    names = identities(run)
    own = cells.join(names, on=["backend", "model"], how="left").with_columns(
        latency="latency_median_ms", prompt_tokens="prompt_tokens_raw_median", variance="latency_log_variance"
    )
    pairs = _paired(own, _reference(run, cells))
    points = (
        pairs.group_by(_POINT, maintain_order=True)
        .agg(
            pl.col("params_millions_effective").first(),
            pl.col("weights_reference", "weights").first(),
            pl.len().alias("n_scenarios"),
            pl.col("latency_reference", "latency").log().mean().exp().name.suffix("_ms"),
            pl.col("prompt_tokens_reference", "prompt_tokens").mean(),
            *_scatter_within_cells(),
        )
        .with_columns(
            basis=pl.lit(CELLS), ratio=pl.col("latency_ms") / pl.col("latency_reference_ms"), model="identity"
        )
    )
    if replicates is not None:
        over = spread(_ratios(replicates.logs.join(names, on=["backend", "model"]), pairs), _POINT, median_variance)
        over = over.filter(pl.col("n") > 1).with_columns(basis=pl.lit(BASIS[replicates.kind]))
        points = points.join(over, on=_POINT, how="left", nulls_equal=True, suffix="_over").with_columns(
            pl.coalesce(f"{name}_over", name).alias(name) for name in ("n", "log_se", "degrees", "basis")
        )
    points = with_ends(points, "ratio", level)
    known = pl.when(pl.col("ratio_low").is_not_null())
    lengths = pl.col("prompt_tokens"), pl.col("prompt_tokens_reference")
    different = pl.format("prompts of {} tokens against {}", lengths[0].round(1), lengths[1].round(1))
    return ENGINE_RATIOS.frame(
        points.with_columns(
            interval_basis=known.then("basis").otherwise(pl.lit(NOT_MEASURED)),
            n_units=pl.col("n").fill_null(0),
            note=pl.when(lengths[0] != lengths[1]).then(different),
        )
    )


def identities(run: Run) -> pl.DataFrame:
    """``backend``, ``model``, its ``identity`` across engines and how its weights are kept, one row each."""
    models = run.rows.select("backend", "model").unique(maintain_order=True)
    stated = [name for name in ("identity", *_WEIGHTS) if name in run.models.columns]
    if stated and {"backend", "model"} <= set(run.models.columns):
        texts = run.models.select(pl.col("backend", "model", *stated).cast(pl.String)).unique(["backend", "model"])
        models = models.join(texts, on=["backend", "model"], how="left")
    identity, weights = (
        [name for name in names if name in models.columns] for names in (("identity", "model"), _WEIGHTS)
    )
    nothing = pl.lit(None, dtype=pl.String)
    return models.select("backend", "model", identity=pl.coalesce(identity), weights=pl.coalesce(*weights, nothing))


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
        pl.when(known).then(total.sqrt() / pl.len()).alias("log_se"),
        pl.when(known).then(total**2 / spent).alias("degrees"),
        pl.min_horizontal(pl.col("n").min(), pl.col("n_reference").min()).cast(pl.Int64).alias("n"),
    ]


def _ratios(logs: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """The ``log`` ratio of each point in each replicate in which both engines measured all of the point's scenarios."""
    key = [*_SIDE, "identity", "scenario"]
    wanted = pairs.select(*_POINT, "scenario", wanted=pl.len().over(_POINT))
    own = logs.select("backend", *key, "replicate", "latency")
    base = own.rename({"backend": "reference", "latency": "base"})
    ratios = wanted.join(own, on=["backend", *key], nulls_equal=True)
    ratios = ratios.join(base, on=["reference", *key, "replicate"], nulls_equal=True)
    log = (pl.col("latency") - pl.col("base")).mean()
    points = ratios.group_by([*_POINT, "replicate"], maintain_order=True)
    return points.agg(pl.col("wanted").first(), log=log, n=pl.len()).filter(pl.col("n") == pl.col("wanted"))


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
    return ENGINE_LAWS.frame(rows)


def _law_change(points: pl.DataFrame, level: float) -> dict[str, Any]:
    """The figures of one engine's law against the reference's; ``points`` are its rows of `engine_ratios`."""
    names = ("params_millions_effective", "latency_reference_ms", "latency_ms")
    x, reference, own = (np.log10(floats(points, name))[None] for name in names)
    n = x.shape[1]
    if n < MIN_MODELS or len(np.unique(x)) < 2:
        return {"changes": TOO_FEW}
    line, mean = fit_lines(x, own - reference), float(x.mean())
    slope_se, mean_se = float(line.slope_se[0]), float(line.residual_sd[0]) / math.sqrt(n)
    middle = np.array([line.slope[0], line.intercept[0], (own - reference).mean()])
    half = t_half_width(np.array([slope_se, math.hypot(mean_se, slope_se * mean), mean_se]), n - 2, level)
    ends = np.stack([middle, middle - half, middle + half])
    ends[:, 2] = 10 ** ends[:, 2]
    found: dict[str, Any] = {
        f"{name}{end}": float(ends[row, column])
        for row, end in enumerate(("", "_low", "_high"))
        for column, name in enumerate(("slope_difference", "log10_intercept_difference", "ratio_at_mean"))
    }
    apart = (ends[1] > [0, 0, 1]) | (ends[2] < [0, 0, 1])
    found["changes"] = EXPONENT if apart[0] else CONSTANT if apart[2] else NOTHING
    slopes = {name: float(fit_lines(x, y).slope[0]) for name, y in (("slope_reference", reference), ("slope", own))}
    return found | slopes | {"params_millions_mean": 10**mean}
