"""Served engines that may stop early: TR121's tables of its Ollama rows (TR121 2.2, 4.1.1, 7.1.1).

They hold for every row that says why its generation ended (``ollama_done_reason``, or ``done_reason`` in runs of ours).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from phaselaw.laws.regression import fit_lines, p_of_zero_at

REASON = "done_reason"


def served_rows(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """The ``ok`` rows of engines that say why generation ended, with that as `REASON`."""
    names = [name for name in ("done_reason", "ollama_done_reason") if name in ok_rows.columns]
    if not names:
        return ok_rows.clear().with_columns(pl.lit(None, dtype=pl.String).alias(REASON))
    return ok_rows.with_columns(pl.coalesce(names).alias(REASON)).filter(pl.col(REASON).is_not_null())


def length_limited(served: pl.DataFrame, *, whole_calls: bool) -> pl.DataFrame:
    """Rows without those of calls that stopped early: their decode and e2e rows (TR121's filter), or all of them."""
    short = pl.col("gen_tokens_raw") < pl.col("gen_tokens_target")
    dropped = short if whole_calls else short & pl.col("mode").is_in(["kv_decode", "e2e_kv"])
    return served.filter(~dropped.fill_null(False))


def warmup_breakdown(served: pl.DataFrame) -> pl.DataFrame:
    """``ollama_warmup_breakdown``: prefill alone and with the load, warmup against measured, per cell.

    Of backends that tell a load: Ollama's in each call, llama-server's where its start loaded the model for the call.
    OpenAI's protocol tells none.
    """
    latency, load = pl.col("latency_ms"), pl.col("__load_ms")
    served = _with_loads(served)
    keys = ["backend", "model", "scenario"]
    own = ["batch_size", "params_millions_effective", "gen_tokens_target"]
    figures = []
    for name, which in (("warmup", pl.col("is_warmup")), ("measured", ~pl.col("is_warmup"))):
        figures += [
            latency.filter(which).median().alias(f"{name}_prefill_infer_median_ms"),
            load.filter(which).median().alias(f"{name}_load_median_ms"),
            (latency + load).filter(which).median().alias(f"{name}_prefill_total_median_ms"),
            which.sum().cast(pl.Int64).alias(f"{name}_n"),
        ]
    return (
        served.filter((pl.col("mode") == "prefill") & load.is_not_null())
        .group_by([*keys, *own], maintain_order=True)
        .agg(figures)
        .filter((pl.col("warmup_n") > 0) & (pl.col("measured_n") > 0))
        .with_columns(
            (pl.col("warmup_prefill_infer_median_ms") / pl.col("measured_prefill_infer_median_ms")).alias(
                "warmup_ratio_infer_only"
            ),
            (pl.col("warmup_prefill_total_median_ms") / pl.col("measured_prefill_total_median_ms")).alias(
                "warmup_ratio_total_including_load"
            ),
        )
        .select(*keys, pl.exclude([*keys, *own]), *own)
        .sort([*keys, *own])
    )


def _with_loads(served: pl.DataFrame) -> pl.DataFrame:
    """The rows with ``__load_ms``: a call's load, 0 where its backend told those of other calls, null where of none."""
    start = pl.when(pl.col("backend_kind") == "llamacpp").then(pl.col("load_ms"))
    told = pl.coalesce(pl.col("ollama_load_ms"), start)
    none = pl.when(told.is_not_null().any().over("backend")).then(0.0)
    return served.with_columns(told.fill_null(none).alias("__load_ms"))


def early_stop_summary(served: pl.DataFrame) -> pl.DataFrame:
    """``ollama_early_stop_summary``: median tokens, share of early stops and the usual reason, per cell."""
    raw, target = pl.col("gen_tokens_raw"), pl.col("gen_tokens_target")
    keys = ["backend", "model", "scenario"]
    own = ["batch_size", "params_millions_effective"]
    return (
        _decodes(served)
        .group_by([*keys, *own, "gen_tokens_target"], maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            pl.col("params_millions_effective").median().alias("params_millions_effective_median"),
            raw.median().alias("gen_tokens_raw_median"),
            (raw < target).mean().alias("early_stop_rate"),
            pl.col(REASON).mode().sort().first().alias("done_reason_mode"),
        )
        .select(*keys, "n", "params_millions_effective_median", "gen_tokens_target", "gen_tokens_raw_median",
                "early_stop_rate", "done_reason_mode", "batch_size")
        .sort([*keys, "batch_size", "gen_tokens_target"])
    )  # fmt: skip


_LINEAR_KEYS = ["model", "gen_tokens_target", "backend", "batch_size", "params_millions_effective"]


def decode_linearity(served: pl.DataFrame) -> pl.DataFrame:
    """``ollama_decode_linearity``: ``decode ms = a + b x count`` over a model's calls, by least squares.

    A model whose calls all have one count is left out: a and b can't be told apart there. Ours: ``a_p`` and
    ``a_plus_b_p``, two-sided p of a = 0 and of a = -b (a server whose time spans one step less than its count).
    """
    decodes = _timed_decodes(served)
    rows = []
    for key, calls in decodes.group_by(_LINEAR_KEYS, maintain_order=True):
        count, ms = calls["gen_tokens_raw"].to_numpy(), calls["kv_decode_ms"].to_numpy()
        if len(np.unique(count)) < 2:
            continue
        line = fit_lines(count[None], ms[None])
        a, b = float(line.intercept[0]), float(line.slope[0])
        target = key[1]
        rows.append(
            dict(zip(_LINEAR_KEYS, key, strict=True))
            | {
                "n": len(count),
                "a_ms": a,
                "b_ms_per_token": b,
                "r2": float(line.r2[0]),
                "affine_ms_at_target": a + b * float(str(target)),
                "gen_tokens_raw_min": count.min(),
                "gen_tokens_raw_median": float(np.median(count)),
                "gen_tokens_raw_max": count.max(),
                "a_p": p_of_zero_at(count, ms, 0.0),
                "a_plus_b_p": p_of_zero_at(count, ms, 1.0),
            }
        )
    figures = ["a_ms", "b_ms_per_token", "r2", "affine_ms_at_target", "gen_tokens_raw_min", "gen_tokens_raw_median",
               "gen_tokens_raw_max"]  # fmt: skip
    tests = ["a_p", "a_plus_b_p"]
    schema = (
        {name: decodes.schema[name] for name in _LINEAR_KEYS}
        | {"n": pl.Int64}
        | dict.fromkeys([*figures, *tests], pl.Float64)
    )
    return (
        pl.DataFrame(rows, schema=schema)
        .select("model", "n", "gen_tokens_target", *figures, "backend", "batch_size", "params_millions_effective",
                *tests)
        .with_columns(pl.col(tests).fill_nan(None))
        .sort(["model", "backend", "batch_size", "gen_tokens_target"])
    )  # fmt: skip


def decode_projection_error(served: pl.DataFrame, linearity: pl.DataFrame) -> pl.DataFrame:
    """``ollama_decode_projection_error``: what ``ms / count x target`` says beyond the line, at the target."""
    error = pl.col("kv_decode_ms") / pl.col("gen_tokens_raw") * pl.col("gen_tokens_target") - pl.col(
        "affine_ms_at_target"
    )
    return (
        _timed_decodes(served)
        .join(linearity.select(*_LINEAR_KEYS, "affine_ms_at_target"), on=_LINEAR_KEYS)
        .group_by(_LINEAR_KEYS, maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            error.median().alias("prop_minus_affine_ms_median"),
            error.quantile(0.95, "linear").alias("prop_minus_affine_ms_p95"),
            error.min().alias("prop_minus_affine_ms_min"),
            error.max().alias("prop_minus_affine_ms_max"),
        )
        .select("model", "gen_tokens_target", pl.exclude(_LINEAR_KEYS), "backend", "batch_size",
                "params_millions_effective")
        .sort(["model", "backend", "batch_size", "gen_tokens_target"])
    )  # fmt: skip


def _decodes(served: pl.DataFrame) -> pl.DataFrame:
    known = pl.col("gen_tokens_raw").is_not_null() & pl.col("gen_tokens_target").is_not_null()
    return served.filter((pl.col("mode") == "kv_decode") & ~pl.col("is_warmup") & known)


def _timed_decodes(served: pl.DataFrame) -> pl.DataFrame:
    return _decodes(served).filter((pl.col("kv_decode_ms") > 0) & (pl.col("gen_tokens_raw") > 0))
