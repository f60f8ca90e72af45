"""The same weights on several engines: each model's ratio, and whether the law's exponent or only its constant changes.

Models are paired by their stated identity (a study's ``same_as``, else the name), never by position or likeness, and
only where their parameter counts agree. Every engine is compared with one reference, so that what a model does to both
alike cancels: ratios by round, laws by the paired fit ``log10(latency / reference) = a + b log10(params)``.
"""

import numpy as np
import polars as pl

from phaselaw import tables as col
from phaselaw.laws.noise import Kind, Replicates
from phaselaw.laws.rates import NOT_MEASURED, deviations_of, with_ends
from phaselaw.laws.regression import ends, fit_line, t_half_width
from phaselaw.laws.summary import floats, stated
from phaselaw.laws.verdicts import MIN_MODELS, TOO_FEW
from phaselaw.records import Run
from phaselaw.tables import BUDGET, Row, Table, grouped

EXPONENT, CONSTANT, NOTHING = "exponent", "constant only", "nothing shown"
"""What of a law changes with the engine: the slope's difference leaves out 0; else the ratio leaves out 1; neither."""

CALLS = "repetitions within cells, this run only"
UNITS: dict[Kind, str] = {"replicates": "replicates, back to back", "rounds": "rounds, this run only"}
"""What a ratio's interval is over, in words: it is that of the long-run mean, or of this run only."""

SAME_SIZE = 0.01
"""Parameter counts further apart than this share are not those of the same weights, whatever their names say."""

OTHER_PROMPT = 0.10
"""Prompts further apart than this share of their tokens, and than one, are other prompts: other templates are around
them."""
_FIRST_WORDS = {"ollama": 1, "openai": 3}
"""Words that an engine of ours puts before each prompt, a token each: they are not counted."""

_SIDE = ["batch_size", BUDGET, "mode"]
"""What two engines must have in common, beside the weights and the prompt."""
_PAIR = ["reference", "backend", *_SIDE]
_POINT = [*_PAIR, "identity"]
_WEIGHTS = ("dtype", "quantization_level")
_FACTS = ["params_millions_effective", "weights_reference", "weights"]
_PAIR_COLUMNS = (col.words("reference"), col.LAW, *col.plain(f"batch_size {BUDGET}", pl.Int64), col.PHASE)
_NO_PAIR = "no model was measured on two backends"

ENGINE_RATIOS = Table(
    name="engine_ratios",
    holds="engines on the same weights, model by model",
    caption="Each model's latency over the reference's, geometric mean over scenarios.",
    why_empty=_NO_PAIR,
    columns=(
        *_PAIR_COLUMNS,
        col.words("model", "model"),
        *col.plain("params_millions_effective"),
        col.words("weights_reference"),
        col.words("weights", "weights"),
        col.counted("n_scenarios"),
        col.measured("latency_reference_ms", "reference (ms)"),
        col.measured("latency_ms", "this engine (ms)"),
        col.derived("ratio", "ratio"),
        *col.interval("ratio_low", "ratio_high", "95 % CI", col.digits),
        col.words("interval_basis", "interval over"),
        col.counted("n_units"),
        col.words("note", "note"),
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
        col.counted("n_models", "models"),
        col.derived("slope_reference", "reference's exponent", col.fixed),
        col.derived("slope", "exponent", col.fixed),
        col.derived("slope_difference", "difference", col.fixed),
        *col.interval("slope_difference_low", "slope_difference_high", "95 % CI"),
        col.derived("log10_intercept_difference", "difference of log10 intercepts", col.fixed),
        *col.interval("log10_intercept_difference_low", "log10_intercept_difference_high", "95 % CI"),
        *col.plain("params_millions_mean"),
        col.derived("ratio_at_mean", "ratio at the mean size", col.two_places),
        *col.interval("ratio_at_mean_low", "ratio_at_mean_high", "95 % CI", col.two_places),
        col.words("changes", "what changes"),
    ),
    order=(BUDGET, "batch_size", "backend", "mode"),
    shows="backend mode n_models slope slope_reference slope_difference slope_difference_low "
    "log10_intercept_difference log10_intercept_difference_low ratio_at_mean ratio_at_mean_low changes",
)


def engine_ratios(cells: pl.DataFrame, replicates: Replicates | None, run: Run, level: float) -> pl.DataFrame:
    """Each model's latency on each engine over that on the reference, per phase: the geometric mean over scenarios.

    ``cells`` and ``replicates`` are of the usable rows. The interval is a t interval on the log: over replicates, each
    a pair of both engines, else from the calls' scatter within cells (``interval_basis``). ``note`` says where the two
    did not evaluate prompts of one length; scenarios where they are other prompts are left out, but of decode.
    """
    # `backend`, `model`, its `identity` across engines and how its weights are kept, one row each
    on = ["backend", "model"]
    told = stated(run.models, [*on, "identity", *_WEIGHTS]).unique(on)
    models = run.rows.select(on).unique(maintain_order=True).join(told, on=on, how="left")
    names = models.select(*on, identity=pl.coalesce("identity", "model"), weights=pl.coalesce(_WEIGHTS))
    own = cells.join(names, on=on, how="left").with_columns(
        latency="latency_median_ms", prompt_tokens="prompt_tokens_raw_median", variance="latency_log_variance"
    )
    pairs, left_out = _of_one_prompt(_paired(own, run))
    each = ("variance", "n"), ("variance_reference", "n_reference")
    total = sum((pl.col(variance).sum() for variance, _ in each), pl.lit(0.0))
    spent = sum(((pl.col(variance) ** 2 / (pl.col(n) - 1)).sum() for variance, n in each), pl.lit(0.0))
    known = pl.when(pl.all_horizontal(pl.col(variance).null_count() == 0 for variance, _ in each))
    points = (
        pairs.group_by(_POINT, maintain_order=True)
        .agg(
            pl.col(_FACTS).first(),
            pl.col("latency_reference", "latency").log().mean().exp().name.suffix("_ms"),
            pl.col("prompt_tokens_reference", "prompt_tokens").mean(),
            n_scenarios=pl.len(),
            # Standard error of its log ratio from its cells' calls, and degrees of freedom (Welch, Satterthwaite).
            se=known.then(total.sqrt() / pl.len()),
            degrees=known.then(total**2 / spent),
            n=pl.min_horizontal(pl.col("n", "n_reference").min()),
        )
        .with_columns(basis=pl.lit(CALLS), ratio=pl.col("latency_ms") / pl.col("latency_reference_ms"))
    )
    if replicates is not None:
        ratios = _ratios(replicates.logs.join(names, on=on), pairs)
        over = deviations_of(replicates, ratios, _PAIR, ["identity"])
        basis = pl.lit(UNITS.get(replicates.kind, replicates.kind))
        over = over.with_columns(se=pl.coalesce("se_mean", "se_within"), basis=basis).drop_nulls("se")
        points = points.join(over, on=_POINT, how="left", nulls_equal=True, suffix="_over").with_columns(
            pl.coalesce(f"{name}_over", name).alias(name) for name in ("n", "se", "degrees", "basis")
        )
    points = with_ends(points, "ratio", level)
    points = points.join(left_out, on=_POINT, how="full", coalesce=True, nulls_equal=True, suffix="_left")
    points = points.with_columns(pl.coalesce(name, f"{name}_left") for name in _FACTS).with_columns(model="identity")
    lengths = pl.col("prompt_tokens"), pl.col("prompt_tokens_reference")
    different = pl.format("prompts of {} tokens against {}", lengths[0].round(1), lengths[1].round(1))
    return ENGINE_RATIOS.frame(
        points.with_columns(
            interval_basis=pl.when(pl.col("ratio_low").is_not_null()).then("basis").otherwise(pl.lit(NOT_MEASURED)),
            n_units=pl.col("n").fill_null(0),
            n_scenarios=pl.col("n_scenarios").fill_null(0),
            note=pl.coalesce("left_out", pl.when(lengths[0] != lengths[1]).then(different)),
        )
    )


def _paired(cells: pl.DataFrame, run: Run) -> pl.DataFrame:
    """Each cell of another backend beside the reference's of the same weights, prompt, batch and budget.

    The reference is the study's first backend that was measured; without a manifest the first by name.
    """
    measured = cells["backend"].unique().sort().to_list()
    stated = [str(name) for name in run.manifest.get("backends") or ()]
    reference = next((name for name in [*stated, *measured] if name in measured), None)
    is_base = pl.col("backend") == pl.lit(reference, dtype=pl.String)
    base, others = cells.filter(is_base), cells.filter(~is_base)
    on = [*_SIDE, "identity", "scenario"]
    pairs = others.join(base, on=on, suffix="_reference", nulls_equal=True, maintain_order="left")
    sizes = pl.col("params_millions_effective"), pl.col("params_millions_effective_reference")
    same = ((sizes[0] - sizes[1]).abs() <= SAME_SIZE * sizes[1]).fill_null(True)
    return pairs.filter(same).with_columns(pl.lit(reference, dtype=pl.String).alias("reference"))


def _of_one_prompt(pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pairs that read prompts of about one length, or whose decode is compared; and the others by point, named."""
    own, reference = (
        (pl.col(f"prompt_tokens{side}") - pl.col(f"backend_kind{side}").replace_strict(_FIRST_WORDS, default=0))
        .round(0)
        .cast(pl.Int64, strict=False)
        for side in ("", "_reference")
    )
    apart = (own - reference).abs() > pl.max_horizontal(pl.lit(1.0), OTHER_PROMPT * pl.min_horizontal(own, reference))
    other = (apart & (pl.col("mode") != "kv_decode")).fill_null(False)
    named = pl.format("{} ({} tokens against {})", "scenario", own, reference).str.join(", ")
    left_out = pairs.filter(other).group_by(_POINT, maintain_order=True)
    said = pl.format("other prompts, left out: {}", named).alias("left_out")
    return pairs.filter(~other), left_out.agg(pl.col(_FACTS).first(), said)


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


def engine_laws(ratios: pl.DataFrame, level: float) -> pl.DataFrame:
    """Whether an engine changes a law's exponent or only its constant, per phase, over the models that all engines ran.

    All engines: those that share `MIN_MODELS` models or more with the reference. By the paired fit: the difference of
    slopes, of log10 intercepts (at a million parameters) and the ratio at the models' geometric mean size, each with a
    t interval over models. ``changes`` is `EXPONENT`, `CONSTANT`, `NOTHING`, or too few models.
    """
    rows: list[Row] = []
    for _, group in grouped(ratios.filter(pl.col("latency_ms").is_not_null()), ["reference", *_SIDE]):
        many = [set(part["model"]) for _, part in grouped(group, ["backend"]) if part.height >= MIN_MODELS]
        common = pl.col("model").is_in(sorted(set.intersection(*many)) if many else [])
        for about, part in grouped(group, _PAIR):
            kept = part.filter(common) if part.height >= MIN_MODELS else part
            rows.append(about | {"n_models": kept.height} | _law_change(kept, level))
    return ENGINE_LAWS.frame(rows)


def _law_change(points: pl.DataFrame, level: float) -> Row:
    """The figures of one engine's law against the reference's; ``points`` are its rows of `engine_ratios`."""
    names = ("params_millions_effective", "latency_reference_ms", "latency_ms")
    x, reference, own = (np.log10(floats(points, name)) for name in names)
    n, ratios = len(x), own - reference
    if n < MIN_MODELS or len(np.unique(x)) < 2:
        return {"changes": TOO_FEW}
    line, mean = fit_line(x, ratios), ratios.mean()
    se = np.array([line.slope_se, line.standard_errors[0], np.sqrt(line.residual_variance / n)])
    slope_half, intercept_half, mean_half = t_half_width(se, n - 2, level).tolist()
    return {
        "slope": fit_line(x, own).slope,
        "slope_reference": fit_line(x, reference).slope,
        "slope_difference": line.slope,
        **ends("slope_difference", line.slope, slope_half),
        "log10_intercept_difference": line.intercept,
        **ends("log10_intercept_difference", line.intercept, intercept_half),
        "params_millions_mean": 10 ** x.mean(),
        "ratio_at_mean": 10**mean,
        **{end: 10**value for end, value in ends("ratio_at_mean", mean, mean_half).items()},
        "changes": EXPONENT if abs(line.slope) > slope_half else CONSTANT if abs(mean) > mean_half else NOTHING,
    }
