"""Whose clock a served engine's decode is told by, and how far a law moves with it (method: sections 2 and 3).

``tr121`` is TR121's projection: the server's decode time over its count of tokens, times the budget. ``step_true``
counts the steps that really ran: the client's own figure in runs of ours, else the server's time over one step less.
"""

from __future__ import annotations

import polars as pl

BASIS = "latency_basis"
STEP_TRUE, TR121 = "step_true", "tr121"
_DECODES = ["kv_decode", "e2e_kv"]

LONG_MS = 300.0
"""Decode time of a call from which on one late wake-up of the client no longer shows."""


def by_basis(served: pl.DataFrame) -> pl.DataFrame:
    """The rows of served calls twice, with the latency of each basis and its name in the column `BASIS`.

    Rows without the figures of both are left out, so that two laws differ by the basis alone.
    """
    raw, target = pl.col("gen_tokens_raw"), pl.col("gen_tokens_target").cast(pl.Float64)
    shorter = pl.when((raw > 1) & (pl.col("kv_decode_ms") > 0)).then(pl.col("kv_decode_ms") / (raw - 1))
    step = pl.coalesce("decode_step_ms", shorter)
    both = served.with_columns(step.alias("__step")).filter(
        (pl.col("__step") > 0) & (pl.col("kv_decode_ms_equiv") > 0) & pl.col("mode").is_in(["prefill", *_DECODES])
    )
    bases = {STEP_TRUE: pl.col("__step") * target, TR121: pl.col("kv_decode_ms_equiv")}
    prefill = pl.when(pl.col("mode") == "kv_decode").then(0.0).otherwise(pl.col("prefill_ms"))
    return pl.concat(
        [
            both.with_columns(
                pl.when(pl.col("mode") == "prefill")
                .then(pl.col("latency_ms"))
                .otherwise(prefill + decode)
                .alias("latency_ms"),
                pl.lit(name).alias(BASIS),
            ).drop("__step")
            for name, decode in bases.items()
        ]
    )


def server_clock(served: pl.DataFrame) -> pl.DataFrame:
    """By how many steps and percent a server's decode figures differ from the client's clock, per backend and model.

    Over the measured calls whose chunks are tokens. ``steps_spanned_minus_count``: the server's decode time in steps of
    the client's, less the tokens it counted; about -1 where it spans one step less. ``per_count_bias``: what
    time / count is off by, ``per_step_bias``: what time / (count - 1) is, and ``per_step_bias_worst``: its largest of
    the ``n_long`` calls that decode for `LONG_MS` or more. ``ttft_minus_prefill_ms``: the cost of being a client, queue
    and load included.
    """
    client, count = pl.col("decode_step_ms_client"), pl.col("gen_tokens_raw")
    told = served.filter(
        (pl.col("mode") == "kv_decode")
        & ~pl.col("is_warmup")
        & ((pl.col("decode_step_basis") == "client") | (pl.col("backend_kind") == "llamacpp"))
        & (client > 0)
        & (pl.col("kv_decode_ms") > 0)
        & (count > 1)
        & (pl.col("decode_step_ms_server") > 0)
    )
    off = pl.col("decode_step_ms_server") / client - 1
    long = pl.col("kv_decode_ms") >= LONG_MS
    return (
        told.group_by(["backend", "backend_kind", "model", "params_millions_effective"])
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            count.median().alias("gen_tokens_raw_median"),
            client.median().alias("decode_step_ms_client_median"),
            pl.col("decode_step_ms_server").median().alias("decode_step_ms_server_median"),
            (pl.col("kv_decode_ms") / client - count).median().alias("steps_spanned_minus_count"),
            (pl.col("kv_decode_ms") / count / client - 1).median().alias("per_count_bias"),
            off.median().alias("per_step_bias"),
            long.sum().cast(pl.Int64).alias("n_long"),
            off.filter(long).abs().max().alias("per_step_bias_worst"),
            (pl.col("ttft_ms") - pl.col("prefill_ms")).median().alias("ttft_minus_prefill_ms"),
        )
        .sort(["backend", "params_millions_effective", "model"])
    )


def prompt_cache_checks(rows: pl.DataFrame) -> pl.DataFrame:
    """How many calls of each backend and model were found answered from a prompt cache, or could not be told."""
    check = pl.col("cache_check")
    calls = rows.filter((pl.col("mode") == "prefill") & check.is_not_null())
    return (
        calls.group_by(["backend", "backend_kind", "model", "params_millions_effective"])
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            *((check == name).sum().cast(pl.Int64).alias(name) for name in ("fresh", "found", "undecidable", "off")),
            (pl.col("head_cached").cast(pl.String).str.to_lowercase() == "true")
            .sum()
            .cast(pl.Int64)
            .alias("head_cached"),
        )
        .sort(["backend", "params_millions_effective", "model"])
    )
