"""Cold start: how much slower the warmup calls were than the measured ones (TR121 section 7)."""

from __future__ import annotations

import polars as pl

from phaselaw.laws.summary import GROUP, GROUP_COLUMNS, MODEL
from phaselaw.tables import BUDGET, LAW, PHASE, Table, counted, derived, flag, measured, plain, words

UNSAFE_RATIO = 2.0
"""A phase's cold start is a regime of its own where p95 of the ratio reaches this, and p95 of what is added the SLO."""

_WHY_EMPTY = "no cell has both warmup and measured calls"
WARMUP_EFFECT = Table(
    name="warmup_effect",
    holds="warmup against measured, every cell and phase",
    why_empty=_WHY_EMPTY,
    columns=(
        LAW,
        words("model", "model"),
        words("scenario", "scenario"),
        PHASE,
        counted("warmup_n"),
        measured("warmup_median_ms", "first call (ms)"),
        counted("measured_n"),
        measured("measured_median_ms", "measured (ms)"),
        derived("warmup_to_measured_ratio", "ratio"),
        derived("warmup_minus_measured_ms", "added (ms)"),
        words("backend_kind"),
        counted("batch_size"),
        words("model_kind"),
        *plain("params_millions_effective"),
        counted(BUDGET),
    ),
    order=("backend", "mode", "scenario", "model", "backend_kind", "batch_size", *MODEL[1:], BUDGET),
    shows="mode backend model scenario warmup_median_ms measured_median_ms warmup_minus_measured_ms "
    "warmup_to_measured_ratio",
)
WARMUP_EFFECT_SUMMARY = Table(
    name="warmup_effect_summary",
    holds="the same over cells, with the worst event",
    caption="Warmup / measured, over cells.",
    why_empty=_WHY_EMPTY,
    columns=(
        *GROUP_COLUMNS,
        counted("n_cells", "cells"),
        derived("ratio_median", "median ratio"),
        derived("ratio_p95", "p95"),
        derived("ratio_max", "worst"),
        derived("added_ms_median"),
        derived("added_ms_p95", "p95 added (ms)"),
        derived("added_ms_max", "most added (ms)"),
        words("worst_model"),
        words("worst_scenario"),
        *plain("worst_warmup_ms worst_measured_ms"),
        flag("cold_start"),
        counted(BUDGET),
    ),
    order=("backend", "batch_size", BUDGET, "mode"),
)


def warmup_effect(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """Per cell and phase: warmup median / measured median, and the difference in ms.

    ``ok_rows`` are the rows whose status is ``ok``, warmups among them. Cells without a warmup or without a measured
    call are left out.
    """
    latency = pl.col("latency_ms")
    cold, warm = latency.filter(pl.col("is_warmup")), latency.filter(~pl.col("is_warmup"))
    cold_ms, warm_ms = pl.col("warmup_median_ms"), pl.col("measured_median_ms")
    return WARMUP_EFFECT.frame(
        ok_rows.group_by(WARMUP_EFFECT.order, maintain_order=True)
        .agg(
            cold.len().alias("warmup_n"),
            cold.median().alias("warmup_median_ms"),
            warm.len().alias("measured_n"),
            warm.median().alias("measured_median_ms"),
        )
        .filter((pl.col("warmup_n") > 0) & (pl.col("measured_n") > 0))
        .with_columns(
            (cold_ms / warm_ms).alias("warmup_to_measured_ratio"), (cold_ms - warm_ms).alias("warmup_minus_measured_ms")
        )
    )


def warmup_effect_summary(effect: pl.DataFrame, *, slo_ms: float) -> pl.DataFrame:
    """Per backend and phase, over cells: median, p95 and max of the ratio and of the added ms, and the worst event.

    ``cold_start`` says whether cold start is a regime of its own there, by `UNSAFE_RATIO` and ``slo_ms``.
    """
    figures = {"ratio": pl.col("warmup_to_measured_ratio"), "added_ms": pl.col("warmup_minus_measured_ms")}
    worst = figures["ratio"].arg_max()
    unsafe = (pl.col("ratio_p95") >= UNSAFE_RATIO) & (pl.col("added_ms_p95") >= slo_ms)
    return WARMUP_EFFECT_SUMMARY.frame(
        effect.group_by(GROUP, maintain_order=True)
        .agg(
            pl.len().alias("n_cells"),
            *(each.median().alias(f"{name}_median") for name, each in figures.items()),
            *(each.quantile(0.95, "linear").alias(f"{name}_p95") for name, each in figures.items()),
            *(each.max().alias(f"{name}_max") for name, each in figures.items()),
            pl.col("model", "scenario").get(worst).name.prefix("worst_"),
            pl.col("warmup_median_ms").get(worst).alias("worst_warmup_ms"),
            pl.col("measured_median_ms").get(worst).alias("worst_measured_ms"),
        )
        .with_columns(unsafe.alias("cold_start"))
    )
