"""Checks of laws: models far off the law of the others, and laws over models that differ in kind (method 3)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.checks.findings import ALL_PHASES, Checked, Evidence, Finding, Where
from phaselaw.laws.families import KINDS, kinds_of
from phaselaw.laws.overhead_interval import least_log_error
from phaselaw.laws.regression import Floats, fit_lines
from phaselaw.laws.series import Series
from phaselaw.laws.summary import BUDGET, GROUP

ALPHA = 0.05
FAR = 1.25
"""A model that is off by a smaller factor is near its law, however tight that is."""
PROPORTIONAL = 1.0
"""Beyond its overhead a latency grows at most like the parameters; a law that is steeper itself may bend as it does."""
OTHER_TOKENS = 0.05
"""Models that make token counts of one text that differ by more have other tokenizers, or other templates."""

FAR_OFF, HETEROGENEOUS = "far off the law", "heterogeneous law"


def far_off(evidence: Evidence, cache: Checked) -> Checked:
    """Models whose latency leaves the law by far more than the others' scatter: studentised residual, Bonferroni.

    An overhead bends a law at its small end without any model being amiss: one that the best law with an overhead
    explains is not flagged. Prefills that a prompt cache may have answered, as ``cache`` says, are no law to hold a
    model against.
    """
    cached = [(each.where.backend, each.where.model) for each in cache.findings]
    answered = pl.struct("backend", "model").is_in([{"backend": backend, "model": model} for backend, model in cached])
    fresh = (pl.col("mode") != "prefill") | (~answered if cached else pl.lit(True))
    latency = pl.col("latency_geomean_ms").alias("latency")
    series = Series.of(evidence.per_model.filter(fresh).with_columns(latency), GROUP)
    params, ms = series.values("params_millions_effective"), series.values("latency")
    findings, tested = [], 0
    for key, start, n in zip(series.keys.iter_rows(named=True), series.starts, series.lengths, strict=True):
        at = slice(int(start), int(start + n))
        tested += bool(n >= 4)
        models = series.points["model"][at].to_list()
        findings += [
            _far_off(key, models[index], factor, p, largest=index == n - 1)
            for index, factor, p in outliers(params[at], ms[at])
        ]
    return Checked(
        check=FAR_OFF,
        unit="laws of 4 models or more",
        n_checked=tested,
        findings=tuple(findings),
        false_alarm_rate=ALPHA,
        rests_on="if models scatter about their law like a normal sample",
        not_checked=None if tested else "no law has models enough to hold one against the others",
    )


def outliers(params_millions: Floats, latency_ms: Floats) -> list[tuple[int, float, float]]:
    """The models off the law through the others: (index, factor off, p after Bonferroni); none below 4 models.

    A model is out where its externally studentised residual is (Bonferroni over the models), where it is off by a
    factor of `FAR`, and where the best ``a + b P^s`` through all models, too, is that much worse than a line without
    it.
    """
    n = len(params_millions)
    x, y = np.log(params_millions), np.log(latency_ms)
    off, p = studentised(x, y)
    found = []
    for index in np.flatnonzero((p * n < ALPHA) & (np.abs(off) >= math.log(FAR))):
        others = np.arange(n) != index
        line = fit_lines(x[None, others], y[None, others])
        without = float(line.residual_sd[0]) ** 2 * (n - 3)
        steepest = max(PROPORTIONAL, float(line.slope[0]))
        bent = least_log_error(params_millions, latency_ms, max_exponent=steepest)
        if without <= 0 or _p_of_worse(bent, without, n - 3) < ALPHA:
            found.append((int(index), math.exp(off[index]), float(p[index] * n)))
    return found


def studentised(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """What each point is off the line through the others, and its two-sided p, both (points,); NaN where untestable.

    The p is of the externally studentised residual, t with n - 3 degrees of freedom (Cook and Weisberg, Residuals and
    Influence in Regression, 1982, 2.2.2).
    """
    n = len(x)
    off, p = np.full(n, np.nan), np.full(n, np.nan)
    for index in range(n) if n >= 4 else ():
        others = np.arange(n) != index
        line = fit_lines(x[None, others], y[None, others])
        if not math.isfinite(float(line.slope[0])):
            continue
        dx = x[others] - x[others].mean()
        spread = 1 + 1 / (n - 1) + (x[index] - x[others].mean()) ** 2 / float((dx * dx).sum())
        se = float(line.residual_sd[0]) * math.sqrt(spread)
        off[index] = y[index] - (float(line.intercept[0]) + float(line.slope[0]) * x[index])
        p[index] = 2 * stats.t.sf(abs(off[index]) / se, n - 3) if se > 0 else float(abs(off[index]) < 1e-9)
    return off, p


def _p_of_worse(error: float, without: float, degrees: int) -> float:
    """p of a sum of squares over all models exceeding that of a line without one of them; on a line, studentised's."""
    return float(2 * stats.t.sf(math.sqrt(max(error - without, 0.0) * degrees / without), degrees))


def _far_off(key: dict[str, Any], model: str, factor: float, p: float, *, largest: bool) -> Finding:
    if factor > 1 and largest:
        reason, step = (
            "it is the largest: its weights may not fit the accelerator's memory, so that part of it ran on the CPU "
            "(spill), or the machine throttled",
            "compare its size with the memory (the server's list of loaded models, or peak memory); "
            "fit the law without it and see whether the exponent holds",
        )
    elif factor > 1:
        reason, step = (
            "deeper than the others, throttled, measured beside other work, or its label is too small",
            "check its parameter count and layers, where its weights lie and what else ran; measure it again",
        )
    else:
        reason, step = (
            "a mixture of experts that reads part of its weights, a smaller quantisation, or its label is too large",
            "check its parameter count, its active parameters and its quantisation",
        )
    direction = f"{factor:.2f} x slower" if factor > 1 else f"{1 / factor:.2f} x faster"
    return Finding(
        check=FAR_OFF,
        status="found",
        where=Where(backend=key["backend"], batch_size=key["batch_size"], gen_tokens_target=key[BUDGET], model=model),
        modes=(key["mode"],),
        value=factor,
        evidence=f"{direction} than the law through the other models says (p {p:.2g}, corrected for trying each "
        "model), and no overhead explains it",
        other_reading=f"likely: {reason}",
        next_step=step,
    )


def heterogeneous(evidence: Evidence) -> Checked:
    """Laws over models of several families, quantisations or tokenizers: the exponent mixes size with what differs."""
    kinds = kinds_of(evidence.run)
    findings, known = [], 0
    groups = evidence.per_model.filter(pl.col("mode") == pl.col("mode").max().over(GROUP[:4]))
    for key, group in groups.group_by(GROUP[:4], maintain_order=True):
        where = Where(backend=str(key[0]), batch_size=key[2], gen_tokens_target=key[3])
        mine = group.join(kinds, on=["backend", "model", "model_kind"], how="left")
        mixed = {word: sorted(set(mine[name].drop_nulls())) for name, word in KINDS.items()}
        texts = _unlike_counts(evidence, where)
        known += any(mixed.values()) or texts is not None
        several = {word: values for word, values in mixed.items() if len(values) > 1}
        if several or texts:
            findings.append(_mixed(where, several, texts))
    return Checked(
        check=HETEROGENEOUS,
        unit="laws whose models' family, quantisation or token counts of one text are known",
        n_checked=known,
        findings=tuple(findings),
        rests_on="it is what the models say of themselves and how they count one text",
        not_checked=None if known else "no model says its family or quantisation, and there is no prompt of text",
    )


def _unlike_counts(evidence: Evidence, where: Where) -> str | None:
    """How far apart models count one text's tokens; empty where they agree, ``None`` where no text was counted."""
    rows = evidence.measured.filter(
        (pl.col("mode") == "prefill") & (pl.col("backend") == where.backend) & (pl.col("prompt_tokens_raw") > 0)
        & (pl.col("batch_size") == where.batch_size)
    )  # fmt: skip
    texts = rows.filter(pl.col("prompt_chars") > 0)
    counts = texts.group_by("scenario", "model").agg(pl.col("prompt_tokens_raw").median())
    tokens = pl.col("prompt_tokens_raw")
    spans = (
        counts.group_by("scenario", maintain_order=True)
        .agg(pl.len().alias("n"), tokens.min().alias("least"), tokens.max().alias("most"))
        .filter(pl.col("n") > 1)
        .with_columns((pl.col("most") / pl.col("least")).alias("ratio"))
        .sort("ratio", "scenario")
    )
    if spans.is_empty():
        return None
    widest = spans.row(-1, named=True)
    if widest["ratio"] <= 1 + OTHER_TOKENS:
        return ""
    return f"{widest['least']:g} to {widest['most']:g} tokens for the text of scenario {widest['scenario']!r}"


def _mixed(where: Where, several: dict[str, list[str]], texts: str | None) -> Finding:
    said = [f"{len(values)} {word} ({', '.join(values)})" for word, values in several.items()]
    if texts:
        said.append(f"several tokenizers or templates ({texts})")
    return Finding(
        check=HETEROGENEOUS,
        status="caution",
        where=where,
        modes=ALL_PHASES,
        value=float(max([2, *(len(values) for values in several.values())])),
        evidence=f"one law over {'; '.join(said)}: its exponent is of these models as they are, not of size alone",
        next_step="read the law of each family beside it (scaling_fits_by_family, where one has three models), or "
        "measure one family in several sizes at one quantisation; compare prices per request, not per token",
    )
