"""Checks of cells: too few repetitions for their spread, cells of one model that are not comparable (method 3)."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import polars as pl
from scipy import stats

from phaselaw.laws.checks.findings import ALL_PHASES, GROUP_OF_MODEL, Checked, Evidence, Finding, Where
from phaselaw.laws.summary import BUDGET, median_variance
from phaselaw.machine.identity import host_differences

REPETITIONS, COMPARABLE = "too few repetitions", "cells not comparable"

WANTED = 0.10
"""A median should be known to this, half the width of its 95 % interval."""
ALPHA = 0.05

_CELL = [*GROUP_OF_MODEL, "scenario"]


def repetitions(evidence: Evidence) -> Checked:
    """Cells, and whole backends and phases, whose calls scatter too much for their number.

    Spoken up where even the low end of the scatter (chi-square, Bonferroni over the phase and its cells) leaves the
    median known to worse than `WANTED`; a spread that can't be seen, from one call a cell, is named too.
    """
    log = pl.col("latency_ms").log()
    cells = evidence.measured.group_by([*_CELL, "mode"], maintain_order=True).agg(
        pl.len().alias("n"), log.var().alias("variance")
    )
    findings, groups = [], 0
    for key, group in cells.group_by(["backend", "batch_size", BUDGET, "mode"], maintain_order=True):
        groups += 1
        where = Where(backend=str(key[0]), batch_size=key[1], gen_tokens_target=key[2])
        several = group.filter(pl.col("n") > 1)
        if several.is_empty():
            findings.append(_single(where, str(key[3])))
            continue
        calls = several["n"].to_numpy()
        fewest, degrees = int(calls.min()), calls - 1
        pooled = float((several["variance"].to_numpy() * degrees).sum() / degrees.sum())
        if known_to(_low_end(pooled, int(degrees.sum()), ALPHA / 2), fewest) > WANTED:
            findings.append(_scattered(where, str(key[3]), pooled, fewest))
            continue
        for row in several.iter_rows(named=True):
            low = _low_end(row["variance"], row["n"] - 1, ALPHA / 2 / several.height)
            if known_to(low, row["n"]) > WANTED:
                one = dataclasses.replace(where, model=row["model"], scenario=row["scenario"])
                findings.append(_scattered(one, str(key[3]), row["variance"], row["n"]))
    return Checked(
        check=REPETITIONS,
        unit="phases of backends",
        n_checked=groups,
        findings=tuple(findings),
        false_alarm_rate=ALPHA,
        rests_on="if calls scatter independently of each other",
        not_checked=None if groups else "no measured calls",
    )


def known_to(variance: float, n: int) -> float:
    """Half the width of a 95 % interval of the median of ``n`` calls, as a share; ``variance`` is of log latency."""
    return math.expm1(1.96 * math.sqrt(variance * median_variance(n)))


def _low_end(variance: float, degrees: int, alpha: float) -> float:
    return variance * degrees / float(stats.chi2.ppf(1 - alpha, degrees))


def _needed(variance: float) -> int:
    """The calls that a cell would take for its median to be known to `WANTED`."""
    n = 1
    while known_to(variance, n) > WANTED and n < 10_000:
        n += 1
    return n


def _single(where: Where, mode: str) -> Finding:
    return Finding(
        check=REPETITIONS,
        status="caution",
        where=where,
        modes=(mode,),
        value=1.0,
        evidence="one call a cell: its spread is unknown",
        next_step="give the study 3 repetitions or more",
    )


def _scattered(where: Where, mode: str, variance: float, n: int) -> Finding:
    spread = math.expm1(math.sqrt(variance))
    return Finding(
        check=REPETITIONS,
        status="caution",
        where=where,
        modes=(mode,),
        value=spread,
        evidence=f"calls scatter by {spread:.0%} (standard deviation); the median of {n} is known to "
        f"{known_to(variance, n):.0%}",
        next_step=f"about {_needed(variance)} repetitions would make that {WANTED:.0%}, or a quieter machine",
    )


def comparable(evidence: Evidence) -> Checked:
    """Cells of one model that differ in more than they should: its size or weights, the prompt, the host, the study."""
    models = evidence.per_model.select("backend", "batch_size", "model").unique()
    findings = [
        *_several_sizes(evidence.per_model),
        *_several_settings(evidence),
        *_several_prompts(evidence.measured),
        *_changed(evidence),
    ]
    return Checked(
        check=COMPARABLE,
        unit="models",
        n_checked=models.height,
        findings=tuple(findings),
        rests_on="it is what the manifest and the rows say",
        not_checked=None if models.height else "no measured calls",
    )


def _differing(where: Where, evidence: str, next_step: str) -> Finding:
    return Finding(
        check=COMPARABLE, status="found", where=where, modes=ALL_PHASES, value=None, evidence=evidence,
        next_step=next_step,
    )  # fmt: skip


def _several_sizes(per_model: pl.DataFrame) -> list[Finding]:
    """Models whose rows have several parameter counts under one name."""
    size = pl.col("params_millions_effective")
    keys = ["backend", "batch_size", "model"]
    rows = per_model.group_by(keys, maintain_order=True).agg(size.drop_nulls().unique().sort().alias("sizes"))
    return [
        _differing(
            Where(backend=row["backend"], batch_size=row["batch_size"], model=row["model"]),
            f"one name, {len(row['sizes'])} sizes: " + ", ".join(f"{size:g} M" for size in row["sizes"]),
            "give each model a name of its own",
        )
        for row in rows.filter(pl.col("sizes").list.len() > 1).iter_rows(named=True)
    ]


_SETTINGS = ("device", "dtype", "quantization_level", "weights_sha256")


def _several_settings(evidence: Evidence) -> list[Finding]:
    """Models that the run's model table has on one backend with several settings, or of several weights."""
    table = evidence.run.models
    settings = [name for name in _SETTINGS if name in table.columns]
    if not settings or "backend" not in table.columns:
        return []
    rows = table.group_by("backend", "model", maintain_order=True).agg(
        pl.col(name).drop_nulls().cast(pl.String).unique().sort() for name in settings
    )
    measured = set(evidence.per_model.select("backend", "model").unique().iter_rows())
    return [
        _differing(
            Where(backend=row["backend"], model=row["model"]),
            f"one name, several settings ({name}): {', '.join(value[:16] for value in row[name])}",
            "measure each setting as a backend of its own",
        )
        for row in rows.iter_rows(named=True)
        for name in settings
        if len(row[name]) > 1 and (row["backend"], row["model"]) in measured
    ]


def _several_prompts(measured: pl.DataFrame) -> list[Finding]:
    """Scenarios whose calls on one backend had several prompts."""
    if "prompt" not in measured.columns:
        return []
    one_phase = measured.filter(pl.col("mode") == pl.col("mode").first())
    rows = one_phase.group_by("backend", "scenario", maintain_order=True).agg(pl.col("prompt").drop_nulls().n_unique())
    return [
        _differing(
            Where(backend=row["backend"], scenario=row["scenario"]),
            f"one scenario, {row['prompt']} prompts",
            "give each prompt a scenario of its own",
        )
        for row in rows.filter(pl.col("prompt") > 1).iter_rows(named=True)
    ]


def _changed(evidence: Evidence) -> list[Finding]:
    """What changed between the processes of a resumed run, as its manifest tells."""
    processes = [entry for entry in (evidence.run.manifest or {}).get("processes") or [] if isinstance(entry, dict)]
    changes: list[str] = []
    for before, after in pairwise(processes):
        changes += host_differences(before.get("host") or {}, after.get("host") or {})
        if before.get("study_sha256") != after.get("study_sha256"):
            changes.append("the study")
    backends = evidence.per_model["backend"].unique(maintain_order=True).to_list()
    return [
        _differing(
            Where(backend=backend),
            f"the run was resumed after a change: {changed}",
            "measure it again in one go, or compare only cells of one process (column process_idx)",
        )
        for changed in dict.fromkeys(changes)
        for backend in backends
    ]
