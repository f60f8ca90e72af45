"""Checks of models and their laws: far off the others' law, unlike in kind, mislabelled, too large (method 3)."""

import math

import numpy as np
import polars as pl
from scipy import special

from phaselaw.ladder.spec import ladder_model
from phaselaw.laws.checks.frame import GROUP_OF_MODEL, NAMED, SERVED, Evidence, Finding, Findings, check
from phaselaw.laws.checks.served import prompt_cache
from phaselaw.laws.overhead import least_log_error
from phaselaw.laws.regression import Floats, fit_line, left_out
from phaselaw.laws.scaling import KINDS, kinds_of
from phaselaw.laws.structure import bits_of
from phaselaw.laws.summary import GROUP, SETTING, by_size
from phaselaw.machine.identity import gpus_of
from phaselaw.records import PHASES
from phaselaw.tables import Row, grouped

ALPHA = 0.05
FAR = 1.25
"""A model that is off by a smaller factor is near its law, however tight that is."""
_LARGE_AND_SLOW = (
    "it is the largest: its weights may not fit the accelerator's memory, so that part of it ran on the CPU (spill), "
    "or the machine throttled",
    "compare its size with the memory (the server's list of loaded models, or peak memory); fit the law without it "
    "and see whether the exponent holds",
)
_SLOW = (
    "deeper than the others, throttled, measured beside other work, or its label is too small",
    "check its parameter count and layers, where its weights lie and what else ran; measure it again",
)
_FAST = (
    "a mixture of experts that reads part of its weights, a smaller quantisation, or its label is too large",
    "check its parameter count, its active parameters and its quantisation",
)
"""Why a model may be off its law, and what to do."""
PROPORTIONAL = 1.0
"""Beyond its overhead a latency grows at most like the parameters; a law that is steeper itself may bend as it does."""
OTHER_TOKENS = 0.05
"""Models that make token counts of one text that differ by more have other tokenizers, or other templates."""
MISLABELLED = 0.1
"""A label that is off by more than this share is no rounding."""
FULL = 0.9
"""Weights that take this share of the accelerator's memory leave no room for its cache and its buffers."""


@check(
    "far off the law",
    unit="laws of 4 models or more",
    false_alarm_rate=ALPHA,
    rests_on="if models scatter about their law like a normal sample",
    not_checked="no law has models enough to hold one against the others",
)
def far_off(evidence: Evidence) -> Findings:
    """Models whose latency leaves the law by far more than the others' scatter: studentised residual, Bonferroni.

    An overhead bends a law at its small end without any model being amiss: one that the best law with an overhead
    explains is not flagged. Prefills that a prompt cache may have answered are left out.
    """
    cached = {(each.where["backend"], each.where["model"], "prefill") for each in prompt_cache(evidence).findings}
    fresh = [each not in cached for each in evidence.per_model.select("backend", "model", "mode").iter_rows()]
    laws = by_size(evidence.per_model.filter(fresh).with_columns(latency="latency_geomean_ms"), GROUP)
    for key, models in grouped(laws, GROUP):
        yield int(models.height >= 4)
        params, ms = models["params_millions_effective"].to_numpy(), models["latency"].to_numpy()
        for index, factor, p in outliers(params, ms):
            slow = _LARGE_AND_SLOW if index == models.height - 1 else _SLOW
            reason, step = slow if factor > 1 else _FAST
            direction = f"{factor:.2f} x slower" if factor > 1 else f"{1 / factor:.2f} x faster"
            yield Finding(
                key | {"model": models["model"][index]},
                factor,
                f"{direction} than the law through the other models says (p {p:.2g}, corrected for trying each "
                "model), and no overhead explains it",
                modes=(key["mode"],),
                other_reading=f"likely: {reason}",
                next_step=step,
            )


def outliers(params_millions: Floats, latency_ms: Floats) -> list[tuple[int, float, float]]:
    """The models off the law through the others: (index, factor off, p after Bonferroni); none below 4 models.

    A model is out where its externally studentised residual is (t with n - 3 degrees of freedom, Cook and Weisberg,
    Residuals and Influence in Regression, 1982, 2.2.2; Bonferroni over the models), where it is off by a factor of
    `FAR`, and where the best ``a + b P^s`` through all models, too, is that much worse than a line without it.
    """
    n = len(params_millions)
    if n < 4:
        return []
    line = fit_line(np.log(params_millions), np.log(latency_ms))
    off, without, slopes, *_ = left_out(line)
    with np.errstate(divide="ignore", invalid="ignore"):
        studentised = np.abs(off) * np.sqrt((n - 3) * (1 - line.leverages()) / without)
    p = np.where(np.abs(off) < 1e-9, 1.0, 2 * special.stdtr(n - 3, -studentised))
    found = []
    for index in np.flatnonzero((p * n < ALPHA) & (np.abs(off) >= math.log(FAR))):
        bent = least_log_error(params_millions, latency_ms, max_exponent=max(PROPORTIONAL, float(slopes[index, 0])))
        # p of this sum of squares over all models exceeding that of a line without one; of a line it is the model's p.
        t = math.sqrt(max(bent - without[index], 0.0) * (n - 3) / without[index]) if without[index] > 0 else math.inf
        if 2 * special.stdtr(n - 3, -t) < ALPHA:
            found.append((int(index), math.exp(off[index]), float(p[index] * n)))
    return found


@check(
    "heterogeneous law",
    unit="laws whose models' family, quantisation or token counts of one text are known",
    rests_on="it is what the models say of themselves and how they count one text",
    not_checked="no model says its family or quantisation, and there is no prompt of text",
    status="caution",
    next_step="read the law of each family beside it (scaling_fits_by_family, where one has three models), or measure "
    "one family in several sizes at one quantisation; compare prices per request, not per token",
)
def heterogeneous(evidence: Evidence) -> Findings:
    """Laws over models of several families, quantisations or tokenizers: the exponent mixes size with what differs."""
    kinds, models = kinds_of(evidence.run), evidence.run.models
    for key, group in grouped(evidence.per_model.filter(pl.col("mode") == pl.col("mode").max().over(SETTING)), SETTING):
        mine = group.join(kinds, on=["backend", "model", "model_kind"], how="left")
        values = {word: sorted(set(mine[name].drop_nulls())) for name, word in KINDS.items()}
        texts = _unlike_counts(evidence.measured, key["backend"], key["batch_size"])
        several = {word: those for word, those in values.items() if len(those) > 1}
        mixed = [f"{len(those)} {word} ({', '.join(those)})" for word, those in several.items()]
        mixed += [f"several tokenizers or templates ({texts})"] if texts else []
        active = {}  # of the mixtures of experts among the models: the parameters that a token needs of them
        if {"backend", "model", "n_experts"} <= set(models.columns):
            experts = pl.col("n_experts").cast(pl.Float64) > 0  # a column without values is read as text
            theirs = models.filter(experts, pl.col("backend") == key["backend"], pl.col("model").is_in(group["model"]))
            active = {row["model"]: row.get("params_millions_active") for row in theirs.sort("model").to_dicts()}
        mixtures = [name if of is None else f"{name}: {of:.4g} M active" for name, of in active.items()]
        yield int(any(values.values()) or texts is not None or bool(mixtures))
        if 0 < len(mixtures) < group["model"].n_unique():
            mixed.append(f"mixtures of experts beside dense models ({', '.join(mixtures)}), by all their parameters")
        if mixed:
            over = f"one law over {'; '.join(mixed)}: its exponent is of these models as they are, not of size alone"
            yield Finding(key, float(max([2, *map(len, several.values())])), over)


def _unlike_counts(measured: pl.DataFrame, backend: str, batch_size: int) -> str | None:
    """How far apart models count one text's tokens; empty where they agree, ``None`` where no text was counted."""
    of_backend = (pl.col("backend") == backend) & (pl.col("batch_size") == batch_size)
    tokens = pl.col("prompt_tokens_raw")
    texts = measured.filter(of_backend & (pl.col("mode") == "prefill") & (tokens > 0) & (pl.col("prompt_chars") > 0))
    spans = (
        texts.group_by("scenario", "model")
        .agg(tokens.median())
        .group_by("scenario")
        .agg(n=pl.len(), least=tokens.min(), most=tokens.max())
        .filter(pl.col("n") > 1)
        .sort(pl.col("most") / pl.col("least"), "scenario")
    )
    if spans.is_empty():
        return None
    widest = spans.row(-1, named=True)
    if widest["most"] / widest["least"] <= 1 + OTHER_TOKENS:
        return ""
    return f"{widest['least']:g} to {widest['most']:g} tokens for the text of scenario {widest['scenario']!r}"


@check(
    "label contradicts measurement",
    unit="models with both a label and a measurement",
    rests_on=f"a label may be {MISLABELLED:.0%} off by rounding",
    not_checked="no model has both a labelled and a measured parameter count",
    next_step="correct the study, and check that the model is the one meant",
)
def labels(evidence: Evidence) -> Findings:
    """Parameter counts of a label that what was measured contradicts, or the shipped ladder's model of that name."""
    label = pl.coalesce("params_millions_config", "params_millions")
    models = evidence.run.rows.filter(label > 0).group_by(GROUP_OF_MODEL, maintain_order=True)
    for row in models.agg(label=label.median(), measured=pl.col("params_millions_measured").median()).rows(named=True):
        measured, source = row["measured"], "were measured; laws use the measured figure"
        ladder = ladder_model(row["model"].replace("\\", "/").rsplit("/", 1)[-1])
        if measured is None and ladder is not None:
            measured, source = ladder.params / 1e6, "has the ladder's model of that name; laws use the label"
        if not measured:
            continue
        yield 1
        if abs(math.log(row["label"] / measured)) > math.log1p(MISLABELLED):
            said = f"the label says {row['label']:g} M parameters, {measured:g} M {source}"
            # Where a measured figure is at hand, laws use it: nothing of theirs is off.
            yield Finding(row, row["label"] / measured, said, modes=() if row["measured"] else PHASES)
    named = evidence.run.rows.select(*GROUP_OF_MODEL, "model_answered").filter(pl.col("model_answered").is_not_null())
    for row in named.unique(maintain_order=True).iter_rows(named=True):
        asked, said = row["model"].lower(), row["model_answered"].lower()
        if not (said in asked or asked in said):
            yield Finding(row, None, f"{row['model_answered']!r} answered, says the server", status="caution", modes=())


@check(
    NAMED,
    unit="models whose size nobody counted or stated",
    rests_on="nothing is inferred",
    not_checked="every model's parameters were counted or stated",
    next_step="give the study's params_millions for it",
)
def from_the_name(evidence: Evidence) -> Findings:
    """Models whose size is read from their name, rounded as names are: marks the laws that they are in."""
    rows = evidence.run.rows.filter(pl.col("params_millions_named").is_not_null())
    models = rows.group_by(GROUP_OF_MODEL, maintain_order=True).agg(size=pl.col("params_millions_named").first())
    for row in models.iter_rows(named=True):
        said = f"its name says {row['size']:g} M parameters; the server counts none, and the study states none"
        yield Finding(row, row["size"], said)
    yield models.height


@check(
    "spill",
    unit="models on an accelerator whose memory is known",
    rests_on=f"nothing is said below {FULL:.0%} of the memory",
    not_checked="no model with its size on an accelerator with its memory known",
    next_step="look at where its layers lie (the server's list of loaded models), or measure a smaller quantisation; "
    "until then it is a point of two machines, not of one",
)
def spill(evidence: Evidence) -> Findings:
    """Models whose weights, or peak memory, do not fit the accelerator, so that part of them lies elsewhere."""
    gpus = [size for _, size in gpus_of(evidence.run.manifest) if size]
    # Of the one device that an engine in this process used.
    engines = evidence.run.manifest.get("engines") or []
    own = {each["name"]: (each.get("settings") or {}).get("device_memory_mb") for each in engines}
    # Models of served engines, which take a GPU where there is one, and those whose peak GPU memory is known.
    model = [*GROUP_OF_MODEL, "params_millions_effective"]
    peaks = evidence.measured.filter(pl.col("gpu_peak_mb") > 0).group_by(model).agg(peak_mb=pl.col("gpu_peak_mb").max())
    models = evidence.per_model.select(model).unique(maintain_order=True)
    models = models.join(peaks, on=model, how="left", nulls_equal=True, maintain_order="left")
    on_accelerator = pl.col("backend_kind").is_in(SERVED) | (pl.col("peak_mb") > 0)
    for row in models.filter(on_accelerator).iter_rows(named=True):
        memory = own.get(row["backend"]) or max(gpus, default=None)
        spread = len(gpus) > 1 and not own.get(row["backend"])
        if memory is None:
            continue
        (weights, measured), peak = _weights_mb(row, evidence.run.models), row["peak_mb"]
        yield int(weights is not None or peak is not None)
        if weights is not None and weights >= FULL * memory:
            sure, size = measured and weights >= memory, weights
            words = "weights take" if measured else "weights take, by its quantisation, about"
        elif peak is not None and peak >= memory:
            sure, size, words, spread = True, peak, "peak was", False
        else:
            continue
        reading = None if sure else "the server may hold fewer bytes than its quantisation says, or use no GPU"
        if spread:
            reading = f"the server may have spread it over its {len(gpus)} GPUs, which have {sum(gpus):,.0f} MB"
        yield Finding(
            row,
            size / memory,
            f"its {words} {size:,.0f} MB of {memory:,.0f} MB of GPU memory ({size / memory:.0%}), which the KV cache "
            "and buffers share",
            status="found" if sure and not spread else "suspected",
            other_reading=reading,
        )


def _weights_mb(row: Row, models: pl.DataFrame) -> tuple[float | None, bool]:
    """A model's weights in MB and whether they were measured, or else are by its quantisation; of served engines."""
    if row["backend_kind"] not in SERVED or not {"model", "kind"} <= set(models.columns):
        return None, False
    mine = models.filter((pl.col("model") == row["model"]) & (pl.col("kind") == row["backend_kind"]))
    for resolved in mine.head(1).iter_rows(named=True):
        bits, params = bits_of(resolved.get("quantization_level")), row["params_millions_effective"]
        if resolved.get("weights_bytes"):
            return float(resolved["weights_bytes"]) / 2**20, True
        if bits is not None and params:
            return params * 1e6 * bits / 8 / 2**20, False
    return None, False
