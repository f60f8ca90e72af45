"""The gap between the wall clock and CUDA's events: what the host adds to the device's time (TR121 2.2.1)."""

from __future__ import annotations

import polars as pl

from phaselaw.tables import Table

CUDA_EVENT_GAP_SUMMARY = Table(
    name="cuda_event_gap_summary", holds="wall clock against CUDA events", why_empty="no CUDA event times", columns=()
)


def cuda_event_gap_summary(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """Per backend, phase and ``is_warmup``: ``|wall - event| / wall`` and the gap in ms, median and p95."""
    wall, event = pl.col("latency_ms"), pl.col("cuda_event_ms")
    gap = (wall - event).abs()
    keys = ["backend", "backend_kind", "mode", "is_warmup"]
    own = ["batch_size", "gen_tokens_target"]
    return (
        ok_rows.filter(event.is_not_null() & (wall > 0))
        .group_by([*keys, *own], maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            (gap / wall).median().alias("rel_gap_median"),
            (gap / wall).quantile(0.95, "linear").alias("rel_gap_p95"),
            gap.median().alias("abs_gap_ms_median"),
            gap.quantile(0.95, "linear").alias("abs_gap_ms_p95"),
        )
        .select(*keys, pl.exclude([*keys, *own]), *own)
        .sort([*keys, *own])
    )
