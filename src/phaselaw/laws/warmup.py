"""Cold start: how much slower the warmup calls were than the measured ones (TR121 section 7)."""

from __future__ import annotations

import polars as pl

from phaselaw.laws.summary import MODEL
from phaselaw.tables import Table

WARMUP_EFFECT = Table(
    name="warmup_effect",
    holds="warmup against measured, every cell and phase",
    why_empty="no cell has both warmup and measured calls",
    columns=(),
)
WARMUP_EFFECT_SUMMARY = Table(
    name="warmup_effect_summary",
    holds="the same over cells, with the worst event",
    why_empty="no cell has both warmup and measured calls",
    columns=(),
)

UNSAFE_RATIO = 2.0
"""A phase's cold start is a regime of its own where p95 of the ratio reaches this, and p95 of what is added the SLO."""


def warmup_effect(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """Per cell and phase: warmup median / measured median, and the difference in ms.

    ``ok_rows`` are the rows whose status is ``ok``, warmups among them. Cells without a warmup or without a measured
    call are left out.
    """
    latency = pl.col("latency_ms")
    cold, warm = latency.filter(pl.col("is_warmup")), latency.filter(~pl.col("is_warmup"))
    keys = ["backend", "model", "scenario", "mode"]
    own = ["backend_kind", "batch_size", "model_kind", "params_millions_effective", "gen_tokens_target"]
    return (
        ok_rows.group_by([*keys, *own], maintain_order=True)
        .agg(
            cold.len().cast(pl.Int64).alias("warmup_n"),
            cold.median().alias("warmup_median_ms"),
            warm.len().cast(pl.Int64).alias("measured_n"),
            warm.median().alias("measured_median_ms"),
        )
        .filter((pl.col("warmup_n") > 0) & (pl.col("measured_n") > 0))
        .with_columns(
            (pl.col("warmup_median_ms") / pl.col("measured_median_ms")).alias("warmup_to_measured_ratio"),
            (pl.col("warmup_median_ms") - pl.col("measured_median_ms")).alias("warmup_minus_measured_ms"),
        )
        .select(*keys, "warmup_n", "warmup_median_ms", "measured_n", "measured_median_ms", "warmup_to_measured_ratio",
                "warmup_minus_measured_ms", *own)
        .sort(["backend", "mode", "scenario", "model", *own])
    )  # fmt: skip


def warmup_effect_summary(effect: pl.DataFrame, *, slo_ms: float) -> pl.DataFrame:
    """Per backend and phase, over cells: median, p95 and max of the ratio and of the added ms, and the worst event.

    ``cold_start`` says whether cold start is a regime of its own there, by `UNSAFE_RATIO` and ``slo_ms``.
    """
    ratio, added = pl.col("warmup_to_measured_ratio"), pl.col("warmup_minus_measured_ms")
    keys = ["backend", "backend_kind", "batch_size", "gen_tokens_target", "mode"]
    worst = ratio.arg_max()
    unsafe = (pl.col("ratio_p95") >= UNSAFE_RATIO) & (pl.col("added_ms_p95") >= slo_ms)
    return (
        effect.group_by(keys, maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("n_cells"),
            ratio.median().alias("ratio_median"),
            ratio.quantile(0.95, "linear").alias("ratio_p95"),
            ratio.max().alias("ratio_max"),
            added.median().alias("added_ms_median"),
            added.quantile(0.95, "linear").alias("added_ms_p95"),
            added.max().alias("added_ms_max"),
            pl.col(MODEL[0]).get(worst).alias("worst_model"),
            pl.col("scenario").get(worst).alias("worst_scenario"),
            pl.col("warmup_median_ms").get(worst).alias("worst_warmup_ms"),
            pl.col("measured_median_ms").get(worst).alias("worst_measured_ms"),
        )
        .with_columns(unsafe.alias("cold_start"))
        .select("backend", "backend_kind", "batch_size", "mode", pl.exclude([*keys]), "gen_tokens_target")
        .sort(["backend", "batch_size", "gen_tokens_target", "mode"])
    )
