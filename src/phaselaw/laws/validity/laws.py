"""Checks of laws: models far off, laws over unlike models, labels that the measurement contradicts (method 3)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.regression import Floats, fit_lines
from phaselaw.laws.series import Series
from phaselaw.laws.summary import BUDGET, GROUP
from phaselaw.laws.validity.findings import ALL_PHASES, GROUP_OF_MODEL, Checked, Evidence, Finding, Where
from phaselaw.laws.validity.served import prompt_cache

ALPHA = 0.05
MISLABELLED = 0.1
"""A label that is off by more than this share is no rounding."""

FAR_OFF, LABEL, HETEROGENEOUS = "far off the law", "label contradicts measurement", "heterogeneous law"


def far_off(evidence: Evidence) -> Checked:
    """Models whose latency leaves the law by far more than the others' scatter: studentised residual, Bonferroni.

    Prefills that a prompt cache may have answered are no law to hold a model against: they are left out.
    """
    cached = {(each.where.backend, each.where.model) for each in prompt_cache(evidence).findings}
    answered = pl.struct("backend", "model").map_elements(
        lambda row: (row["backend"], row["model"]) in cached, return_dtype=pl.Boolean
    )
    fresh = evidence.per_model.filter((pl.col("mode") != "prefill") | ~answered)
    series = Series.of(fresh.with_columns(pl.col("latency_geomean_ms").alias("latency")), GROUP)
    x, y = np.log10(series.values("params_millions_effective")), np.log10(series.values("latency"))
    findings, tested = [], 0
    for key, start, n in zip(series.keys.iter_rows(named=True), series.starts, series.lengths, strict=True):
        at = slice(int(start), int(start + n))
        residual, p = studentised(x[at], y[at])
        tested += bool(np.isfinite(p).any())
        models = series.points["model"][at].to_list()
        findings += [
            _far_off(key, models[index], 10 ** residual[index], p[index] * n, index == n - 1)
            for index in np.flatnonzero(p * n < ALPHA)
        ]
    return Checked(
        check=FAR_OFF,
        unit="laws of 4 models or more",
        n_checked=tested,
        findings=tuple(findings),
        false_alarms=f"at most {ALPHA:.0%} a law",
        not_checked=None if tested else "no law has models enough to hold one against the others",
    )


def studentised(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """What each point is off the line through the others, and its two-sided p, both (points,); NaN where untestable.

    The p is of the externally studentised residual, t with n - 3 degrees of freedom.
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
        p[index] = 2 * stats.t.sf(abs(off[index]) / se, n - 3) if se > 0 else float(off[index] == 0)
    return off, p


def _far_off(key: dict[str, Any], model: str, factor: float, p: float, biggest: bool) -> Finding:
    if factor > 1 and biggest:
        reason, step = (
            "the largest model: its weights may not fit the accelerator's memory, so that part runs on the CPU, or it "
            "throttled",
            "compare its size with the memory (peak memory, or the server's list of loaded models)",
        )
    elif factor > 1:
        reason, step = (
            "slower than its size says: deeper than the others, spilled to the CPU, throttled, or mislabelled",
            "check its parameter count, where its weights lie and what else ran",
        )
    else:
        reason, step = (
            "faster than its size says: a mixture of experts that reads part of its weights, a smaller quantisation, "
            "or a label too large",
            "check its parameter count, its active parameters and its quantisation",
        )
    direction = f"{factor:.2f} x as slow as" if factor > 1 else f"{1 / factor:.2f} x faster than"
    return Finding(
        check=FAR_OFF,
        status="found",
        where=Where(backend=key["backend"], batch_size=key["batch_size"], gen_tokens_target=key[BUDGET], model=model),
        modes=(key["mode"],),
        value=factor,
        evidence=f"{direction} the law through the other models says (p {p:.2g} after Bonferroni); likely {reason}",
        next_step=step,
    )


def labels(evidence: Evidence) -> Checked:
    """Parameter counts of a label that the measured ones contradict."""
    config, measured = pl.col("params_millions_config"), pl.col("params_millions_measured")
    rows = (
        evidence.run.rows.filter((config > 0) & (measured > 0))
        .group_by(GROUP_OF_MODEL, maintain_order=True)
        .agg(config.median(), measured.median())
    )
    off = rows.filter((config / measured).log().abs() > math.log1p(MISLABELLED))
    findings = tuple(
        Finding(
            check=LABEL,
            status="found",
            where=Where(
                backend=row["backend"],
                batch_size=row["batch_size"],
                gen_tokens_target=row[BUDGET],
                model=row["model"],
            ),
            modes=(),
            value=row["params_millions_config"] / row["params_millions_measured"],
            evidence=f"the study says {row['params_millions_config']:g} M parameters, "
            f"{row['params_millions_measured']:g} M were measured; laws use the measured figure",
            next_step="correct the study, and check that the model is the one meant",
        )
        for row in off.iter_rows(named=True)
    )
    return Checked(
        check=LABEL,
        unit="models with both a label and a measurement",
        n_checked=rows.height,
        findings=findings,
        false_alarms=f"none: a label may be {MISLABELLED:.0%} off by rounding",
        not_checked=None if rows.height else "no model has both a labelled and a measured parameter count",
    )


def heterogeneous(evidence: Evidence) -> Checked:
    """Laws over models of several families or quantisations: the exponent mixes size with what else differs."""
    models = evidence.run.models
    kinds = [name for name in ("family", "quantization_level", "dtype") if name in models.columns]
    name_of = "kind" if "kind" in models.columns else "model_kind"
    findings, n = [], 0
    for key, group in evidence.per_model.filter(pl.col("mode") == "e2e_kv").group_by(GROUP[:4], maintain_order=True):
        backend, kind, batch_size, budget = key
        mine = models.filter(pl.col("model").is_in(group["model"].to_list())) if kinds else models
        if kinds and name_of in models.columns:
            mine = mine.filter(pl.col(name_of) == kind)
        if "backend" in mine.columns:
            mine = mine.filter(pl.col("backend") == backend)
        mixed: dict[str, list[str]] = {
            name: sorted(set(mine[name].drop_nulls().cast(pl.String))) for name in kinds if name != "dtype"
        }
        n += any(mixed.values())
        several = {name: values for name, values in mixed.items() if len(values) > 1}
        if several:
            findings.append(_mixed(Where(backend=backend, batch_size=batch_size, gen_tokens_target=budget), several))
    return Checked(
        check=HETEROGENEOUS,
        unit="laws whose models' family or quantisation is known",
        n_checked=n,
        findings=tuple(findings),
        false_alarms="none: it is what the models say of themselves",
        not_checked=None if n else "no model says its family or quantisation",
    )


def _mixed(where: Where, several: dict[str, list[str]]) -> Finding:
    words = {"family": "families", "quantization_level": "quantisations"}
    said = "; ".join(f"{len(values)} {words[name]} ({', '.join(values)})" for name, values in several.items())
    return Finding(
        check=HETEROGENEOUS,
        status="caution",
        where=where,
        modes=ALL_PHASES,
        value=float(max(len(values) for values in several.values())),
        evidence=f"one law over {said}: its exponent is of these models as they are, not of size alone",
        next_step="read the law of one family beside it (scaling_fits_by_family, where it has three models), or "
        "measure one family in several sizes at one quantisation",
    )
