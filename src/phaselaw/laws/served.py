"""Served engines: calls that stop early, loads, and whose clock a decode is timed by (TR121 2.2, 4.1.1, 7.1.1).

TR121's tables of its Ollama rows are of every row that says why its generation ended (``ollama_done_reason``, or
``done_reason`` in runs of ours). A decode has two latencies: ``tr121`` is TR121's projection, the server's decode time
over its count of tokens, times the budget. ``step_true`` counts the steps that ran: the client's own figure in runs of
ours, else the server's time over one step less.
"""

from functools import partial

import numpy as np
import polars as pl

from phaselaw import tables as col
from phaselaw.laws.regression import fit_line, p_of_zero_at
from phaselaw.records import PHASES
from phaselaw.tables import BUDGET, LAW, Table, grouped

_CELL = (LAW, col.MODEL, col.words("scenario", "scenario"))
_SIZE = col.plain("params_millions_effective")
_BATCH = col.plain("batch_size", pl.Int64)
_BATCH_AND_SIZE = (*_BATCH, *_SIZE)
_CALLS, _ASKED = col.counted("n", "calls"), col.counted(BUDGET, "tokens asked", provenance="assumed")

WARMUP_BREAKDOWN = Table(
    name="ollama_warmup_breakdown",
    holds="loading told apart from the first prefill",
    why_empty="no prefill rows with a server's load time, warmup and measured",
    columns=(
        *_CELL,
        col.measured("warmup_prefill_infer_median_ms", "cold prefill (ms)"),
        col.measured("warmup_load_median_ms", "cold load (ms)"),
        *col.plain("warmup_prefill_total_median_ms"),
        *col.plain("warmup_n", pl.Int64),
        col.measured("measured_prefill_infer_median_ms", "warm prefill (ms)"),
        col.measured("measured_load_median_ms", "warm load (ms)"),
        *col.plain("measured_prefill_total_median_ms"),
        col.counted("measured_n"),
        col.derived("warmup_ratio_infer_only", "ratio, prefill"),
        col.derived("warmup_ratio_total_including_load", "ratio with load"),
        *_BATCH_AND_SIZE,
        col.counted(BUDGET),
    ),
    order=("backend", "model", "scenario", "batch_size", "params_millions_effective", BUDGET),
)
EARLY_STOP_SUMMARY = Table(
    name="ollama_early_stop_summary",
    holds="early stops by model and scenario",
    why_empty="no rows say why a generation ended (done_reason): nothing here may stop early",
    keeps_budget=True,
    columns=(
        *_CELL,
        _CALLS,
        *col.plain("params_millions_effective_median"),
        _ASKED,
        col.measured("gen_tokens_raw_median", "median tokens generated", col.count),
        col.derived("early_stop_rate", "stopped early", col.percent),
        col.words("done_reason_mode", "usual reason"),
        *_BATCH,
    ),
    order=("backend", "model", "scenario", "batch_size", BUDGET),
)
_NO_COUNTS = "no model whose calls differ in tokens generated"
_BY_MODEL = ("model", "backend", "batch_size", BUDGET)
DECODE_LINEARITY = Table(
    name="ollama_decode_linearity",
    holds="decode time against tokens generated",
    caption="Is decode time linear in tokens? decode ms = a + b x count, of each model.",
    why_empty=_NO_COUNTS,
    keeps_budget=True,
    columns=(
        col.MODEL,
        _CALLS,
        col.counted(BUDGET),
        col.derived("a_ms", "a (ms)", col.two_places),
        col.derived("b_ms_per_token", "b (ms a token)"),
        col.derived("r2", "R2", col.fixed),
        *col.plain("affine_ms_at_target"),
        col.measured("gen_tokens_raw_min", "fewest tokens", col.count),
        *col.plain("gen_tokens_raw_median"),
        col.measured("gen_tokens_raw_max", "most tokens", col.count),
        LAW,
        *_BATCH_AND_SIZE,
        *col.plain("a_p a_plus_b_p"),
    ),
    order=_BY_MODEL,
    shows="backend model n gen_tokens_raw_min gen_tokens_raw_max a_ms b_ms_per_token r2",
)
DECODE_PROJECTION_ERROR = Table(
    name="ollama_decode_projection_error",
    holds="what scaling to the tokens asked for errs by",
    caption="What scaling to the tokens asked for errs by: proportional less a + b x count, at that many.",
    why_empty=_NO_COUNTS,
    keeps_budget=True,
    columns=(
        col.MODEL,
        _ASKED,
        _CALLS,
        col.derived("prop_minus_affine_ms_median", "median (ms)"),
        col.derived("prop_minus_affine_ms_p95", "p95 (ms)"),
        col.derived("prop_minus_affine_ms_min", "least (ms)"),
        col.derived("prop_minus_affine_ms_max", "most (ms)"),
        LAW,
        *_BATCH_AND_SIZE,
    ),
    order=_BY_MODEL,
    shows="backend model n gen_tokens_target prop_minus_affine_ms_median prop_minus_affine_ms_p95 "
    "prop_minus_affine_ms_min prop_minus_affine_ms_max",
)
_MODEL = (LAW, col.words("backend_kind"), col.MODEL, *_SIZE)
_BY_SIZE = ("backend", "params_millions_effective", "model")
LEAST_SCENARIOS = 5
"""Scenarios of which a line is judged by their own scatter; of fewer by that of calls, as if scenarios had none."""
SERVER_CLOCK = Table(
    name="server_clock",
    holds="a server's times against the client's clock",
    why_empty="no calls with both a server's decode time and a client's token arrivals",
    columns=(
        *_MODEL,
        _CALLS,
        *col.plain("gen_tokens_raw_median"),
        col.measured("decode_step_ms_client_median", "step by the client (ms)"),
        col.measured("decode_step_ms_server_median", "step by the server (ms)"),
        col.derived("steps_spanned_minus_count", "steps spanned less tokens counted", col.two_places),
        col.derived("per_count_bias", "time / count is off by", col.percent),
        col.derived("per_step_bias", "time / (count - 1) is off by", col.percent),
        col.counted("n_long", "calls of 300 ms or more"),
        col.derived("per_step_bias_worst", "the worst of these is off by", partial(col.percent, places=2)),
        col.derived("ttft_minus_prefill_ms", "TTFT less the server's prefill (ms)"),
    ),
    order=_BY_SIZE,
)
PROMPT_CACHE_CHECKS = Table(
    name="prompt_cache_checks",
    holds="what is known of the prompt cache, per model",
    why_empty="no calls of an engine that may answer from a prompt cache",
    columns=(
        *_MODEL,
        _CALLS,
        col.counted("fresh", "fresh"),
        col.counted("found", "answered from the cache"),
        col.counted("undecidable", "can't be told"),
        col.counted("off"),
        col.counted("head_cached", "head cached"),
    ),
    order=_BY_SIZE,
)

REASON = "done_reason"
BASIS = "latency_basis"
STEP_TRUE, TR121 = "step_true", "tr121"
LONG_MS = 300.0
"""Decode time of a call from which on one late wake-up of the client no longer shows."""


_RAW, _TARGET, _DECODE_MS = (pl.col(name) for name in ("gen_tokens_raw", BUDGET, "kv_decode_ms"))
_KEYS = [column.key for column in _MODEL]


def served_rows(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """The ``ok`` rows of engines that say why generation ended, with that as `REASON`."""
    return ok_rows.with_columns(pl.coalesce(REASON, "ollama_done_reason").alias(REASON)).drop_nulls(REASON)


def warmup_breakdown(served: pl.DataFrame) -> pl.DataFrame:
    """``ollama_warmup_breakdown``: prefill alone and with the load, warmup against measured, per cell.

    Of backends that report a load: Ollama's in each call, llama-server's where its start loaded the model for the call
    (OpenAI's protocol has none). A call without one took 0 ms to load where other calls of its backend report theirs.
    """
    start = pl.when(pl.col("backend_kind") == "llamacpp").then(pl.col("load_ms"))
    reported = pl.coalesce(pl.col("ollama_load_ms"), start)
    load = reported.fill_null(pl.when(reported.is_not_null().any().over("backend")).then(0.0))
    prefills = served.with_columns(load=load).filter(pl.col("mode") == "prefill", pl.col("load").is_not_null())
    infer, load = pl.col("latency_ms"), pl.col("load")
    figures = {}
    for name, which in (("warmup", pl.col("is_warmup")), ("measured", ~pl.col("is_warmup"))):
        for part, ms in (("prefill_infer", infer), ("load", load), ("prefill_total", infer + load)):
            figures[f"{name}_{part}_median_ms"] = ms.filter(which).median()
        figures[f"{name}_n"] = which.sum()
    infer, total = (
        pl.col(f"warmup_prefill_{part}_median_ms") / pl.col(f"measured_prefill_{part}_median_ms")
        for part in ("infer", "total")
    )
    return WARMUP_BREAKDOWN.frame(
        prefills.group_by(WARMUP_BREAKDOWN.order, maintain_order=True)
        .agg(**figures)
        .filter(pl.col("warmup_n") > 0, pl.col("measured_n") > 0)
        .with_columns(warmup_ratio_infer_only=infer, warmup_ratio_total_including_load=total)
    )


def early_stop_summary(served: pl.DataFrame) -> pl.DataFrame:
    """``ollama_early_stop_summary``: median tokens, share of early stops and the usual reason, per cell."""
    size = pl.col("params_millions_effective").alias("params_millions_effective_median")
    return EARLY_STOP_SUMMARY.frame(
        _decodes(served)
        .group_by([*EARLY_STOP_SUMMARY.order, size], maintain_order=True)
        .agg(
            n=pl.len(),
            gen_tokens_raw_median=_RAW.median(),
            early_stop_rate=(_RAW < _TARGET).mean(),
            done_reason_mode=pl.col(REASON).mode().sort().first(),
        )
    )


_LINEAR_KEYS = ["model", BUDGET, "backend", "batch_size", "params_millions_effective"]


def decode_linearity(served: pl.DataFrame) -> pl.DataFrame:
    """``ollama_decode_linearity``: ``decode ms = a + b x count`` over a model's calls, by least squares.

    A model whose calls all have one count is left out: a and b can't be separated there. Ours: ``a_p`` and
    ``a_plus_b_p``, two-sided p of a = 0 and of a = -b (a server whose time spans one step less than its count), over
    the scenarios' medians where there are `LEAST_SCENARIOS`, since the calls of one are alike; else over calls.
    """
    rows = []
    for key, calls in grouped(_timed_decodes(served), _LINEAR_KEYS):
        count, ms = calls["gen_tokens_raw"].to_numpy(), calls["kv_decode_ms"].to_numpy()
        if len(np.unique(count)) < 2:
            continue
        line = fit_line(count, ms)
        a, b = line.intercept, line.slope
        counts = {"min": count.min(), "median": np.median(count), "max": count.max()}
        figures = {"n": len(count), "a_ms": a, "b_ms_per_token": b, "r2": line.r2}
        figures |= {f"gen_tokens_raw_{name}": float(value) for name, value in counts.items()}
        units = calls.group_by("scenario").agg(pl.col("gen_tokens_raw", "kv_decode_ms").median())
        if units.height >= LEAST_SCENARIOS:
            count, ms = units["gen_tokens_raw"].to_numpy(), units["kv_decode_ms"].to_numpy()
        figures |= {"a_p": p_of_zero_at(count, ms, 0.0), "a_plus_b_p": p_of_zero_at(count, ms, 1.0)}
        rows.append(key | figures | {"affine_ms_at_target": a + b * key[BUDGET]})
    return DECODE_LINEARITY.frame(rows)


def decode_projection_error(served: pl.DataFrame, linearity: pl.DataFrame) -> pl.DataFrame:
    """``ollama_decode_projection_error``: ``ms / count x target`` less the line's value at the target."""
    error = _DECODE_MS / _RAW * _TARGET - pl.col("affine_ms_at_target")
    figures = {"median": error.median(), "p95": error.quantile(0.95, "linear"), "min": error.min(), "max": error.max()}
    return DECODE_PROJECTION_ERROR.frame(
        _timed_decodes(served)
        .join(linearity.select(*_LINEAR_KEYS, "affine_ms_at_target"), on=_LINEAR_KEYS)
        .group_by(_LINEAR_KEYS, maintain_order=True)
        .agg(n=pl.len(), **{f"prop_minus_affine_ms_{name}": figure for name, figure in figures.items()})
    )


def _decodes(served: pl.DataFrame) -> pl.DataFrame:
    known = _RAW.is_not_null(), _TARGET.is_not_null()
    return served.filter(pl.col("mode") == "kv_decode", ~pl.col("is_warmup"), *known)


def _timed_decodes(served: pl.DataFrame) -> pl.DataFrame:
    return _decodes(served).filter((_DECODE_MS > 0) & (_RAW > 0))


def by_each_basis(served: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of served calls with the latency of each basis, by its name.

    Rows without the figures of both are left out, so that two laws differ by the basis alone.
    """
    shorter = pl.when((_RAW > 1) & (_DECODE_MS > 0)).then(_DECODE_MS / (_RAW - 1))
    both = served.with_columns(pl.coalesce("decode_step_ms", shorter).alias("step")).filter(
        (pl.col("step") > 0) & (pl.col("kv_decode_ms_equiv") > 0) & pl.col("mode").is_in(PHASES)
    )
    bases = {STEP_TRUE: pl.col("step") * _TARGET.cast(pl.Float64), TR121: pl.col("kv_decode_ms_equiv")}
    prefill = pl.when(pl.col("mode") == "kv_decode").then(0.0).otherwise(pl.col("prefill_ms"))
    is_prefill = pl.when(pl.col("mode") == "prefill").then(pl.col("latency_ms"))
    return {
        name: both.with_columns(latency_ms=is_prefill.otherwise(prefill + decode)) for name, decode in bases.items()
    }


def server_clock(served: pl.DataFrame) -> pl.DataFrame:
    """By how many steps and percent a server's decode figures differ from the client's clock, per backend and model.

    Over the measured calls whose chunks are tokens. ``steps_spanned_minus_count``: the server's decode time in steps of
    the client's, less the tokens it counted; about -1 where it spans one step less. ``per_count_bias``: what
    time / count is off by, ``per_step_bias``: what time / (count - 1) is, and ``per_step_bias_worst``: its largest of
    the ``n_long`` calls that decode for `LONG_MS` or more. ``ttft_minus_prefill_ms``: the cost of being a client, queue
    and load included.
    """
    client, server = pl.col("decode_step_ms_client"), pl.col("decode_step_ms_server")
    tokens = (pl.col("decode_step_basis") == "client") | (pl.col("backend_kind") == "llamacpp")
    off, long = server / client - 1, _DECODE_MS >= LONG_MS
    return SERVER_CLOCK.frame(
        served.filter((pl.col("mode") == "kv_decode") & ~pl.col("is_warmup") & tokens)
        .filter((client > 0) & (_DECODE_MS > 0) & (_RAW > 1) & (server > 0))
        .group_by(_KEYS)
        .agg(
            pl.col("decode_step_ms_client", "decode_step_ms_server", "gen_tokens_raw").median().name.suffix("_median"),
            n=pl.len(),
            steps_spanned_minus_count=(_DECODE_MS / client - _RAW).median(),
            per_count_bias=(_DECODE_MS / _RAW / client - 1).median(),
            per_step_bias=off.median(),
            n_long=long.sum(),
            per_step_bias_worst=off.filter(long).abs().max(),
            ttft_minus_prefill_ms=(pl.col("ttft_ms") - pl.col("prefill_ms")).median(),
        )
    )


def prompt_cache_checks(rows: pl.DataFrame) -> pl.DataFrame:
    """How many calls of each backend and model were answered from a prompt cache, were not, or are undecidable."""
    check = pl.col("cache_check")
    cached = pl.col("head_cached").cast(pl.String).str.to_lowercase() == "true"
    calls = rows.filter((pl.col("mode") == "prefill") & check.is_not_null())
    outcomes = {name: (check == name).sum() for name in ("fresh", "found", "undecidable", "off")}
    found = calls.group_by(_KEYS).agg(n=pl.len(), head_cached=cached.sum(), **outcomes)
    return PROMPT_CACHE_CHECKS.frame(found)
