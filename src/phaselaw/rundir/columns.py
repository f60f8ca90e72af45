"""The ``metrics.csv`` format: one row for each phase of each call, TR121's columns first, ours after them.

This is the one place where a call's raw times become latencies, token counts and rates (method: TR121 2.1-2.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from phaselaw.records import PHASES, Call, Phase, Served, Timing

SCHEMA_VERSION = 1

TR121_COLUMNS = (
    "task_idx", "scenario", "backend", "backend_kind", "model", "model_kind", "params_millions",
    "params_millions_config", "prompt", "prompt_chars", "gen_tokens_target", "batch_size_config", "call_idx",
    "sample_idx", "is_warmup", "warmup_idx", "rep", "mode", "status", "error", "started_at_unix", "batch_size",
    "seq_len", "prompt_tokens_raw", "prefill_ms", "prefill_cuda_event_ms", "kv_decode_ms", "kv_decode_ms_equiv",
    "kv_decode_ms_per_token", "kv_decode_cuda_event_ms", "gen_tokens_raw", "gen_tokens_equiv", "ollama_wall_ms",
    "ollama_total_duration_ms", "ollama_load_ms", "ollama_done_reason", "params_millions_measured", "latency_ms",
    "cuda_event_ms", "tokens_total", "tokens_per_s", "gen_tokens", "gpu_peak_mb", "hf_load_ms",
)  # fmt: skip
"""The 44 columns of TR121's ``metrics.csv``, in its order."""

OWN_COLUMNS = (
    "call_id", "process_idx", "calls_since_process_start", "calls_since_model_load", "calls_since_shape_first_seen",
    "prompt_tokens_compute", "tokens_total_compute", "tokens_per_s_compute", "decode_step_ms", "done_reason",
    "load_ms", "output_sha256", "ttft_ms", "client_e2e_ms", "itl_p50_ms", "itl_p99_ms", "queue_ms", "connect_ms",
    "decode_step_basis", "decode_step_ms_client", "decode_step_ms_server", "model_was_loaded", "cache_check",
    "cache_reason", "head_cached", "prefill_basis", "tokens_basis", "thinking_tokens", "concurrency", "client_idx",
    "achieved_concurrency", "queue_delay_ms", "sent_at_ms", "threads", "decode_first_half_step_ms",
    "decode_second_half_step_ms", "rss_peak_mb",
)  # fmt: skip
"""Columns of ours, after TR121's."""

COLUMNS = TR121_COLUMNS + OWN_COLUMNS


def decode_step_ms(timing: Timing) -> float:
    """Milliseconds of one decode step; NaN where it can't be told.

    In process: the decode time over the steps that ran. Served: the client's own figure, since servers differ in how
    many steps their decode time spans.
    """
    if timing.served is not None:
        step = timing.served.decode_step_ms
        return math.nan if step is None else step
    if timing.kv_decode_ms is None or timing.gen_tokens_raw <= 0:
        return math.nan
    return timing.kv_decode_ms / timing.gen_tokens_raw


def phase_latency_ms(timing: Timing, gen_tokens: int) -> dict[Phase, float]:
    """Latency of each phase for a decode of exactly ``gen_tokens`` steps; ``e2e_kv`` is the sum of the other two.

    On a served engine, and where the model stopped early, the decode phase is ``decode_step_ms x gen_tokens``: what the
    asked budget takes at the pace that was seen. NaN where a phase could not be measured.
    """
    prefill = math.nan if timing.prefill_ms is None else timing.prefill_ms
    decode = decode_step_ms(timing) * gen_tokens
    if timing.served is None and timing.gen_tokens_raw == gen_tokens and timing.kv_decode_ms is not None:
        decode = timing.kv_decode_ms
    return {"prefill": prefill, "kv_decode": decode, "e2e_kv": prefill + decode}


def phase_tokens(prompt_tokens: int, generated_tokens: int) -> dict[Phase, int]:
    """Tokens each phase accounts for: the prompt's, the generated ones, both (TR121 2.2)."""
    return {"prefill": prompt_tokens, "kv_decode": generated_tokens, "e2e_kv": prompt_tokens + generated_tokens}


def tokens_per_s(tokens_total: float, latency_ms: float) -> float:
    """``tokens_total / (latency_ms / 1000)``; NaN where the latency is not positive."""
    return tokens_total / (latency_ms / 1000.0) if latency_ms > 0 else math.nan


def rows_of(
    call: Call,
    *,
    prompt: str | None,
    params_millions_config: float | None,
    params_millions_measured: float | None,
    threads: int | None = None,
) -> Iterator[dict[str, Any]]:
    """One row a phase of a call, keyed by `COLUMNS`; the keys that don't apply are ``None``.

    A failed call gives its three rows too, with ``status`` and ``error`` and no times.
    """
    cell = call.cell
    shared: dict[str, Any] = dict.fromkeys(COLUMNS)
    shared |= {
        "task_idx": call.task_idx,
        "scenario": cell.scenario,
        "backend": cell.backend,
        "backend_kind": cell.backend_kind,
        "model": cell.model,
        "model_kind": cell.backend_kind,
        "params_millions": params_millions_measured if params_millions_config is None else params_millions_config,
        "params_millions_config": params_millions_config,
        "params_millions_measured": params_millions_measured,
        "prompt": prompt,
        "prompt_chars": None if prompt is None else len(prompt),
        "gen_tokens_target": cell.gen_tokens,
        "batch_size_config": cell.batch_size,
        "batch_size": cell.batch_size,
        "call_idx": call.call_idx,
        "is_warmup": call.is_warmup,
        "warmup_idx": call.warmup_idx,
        "rep": call.rep,
        "status": call.status,
        "error": call.error,
        "started_at_unix": call.started_at_unix,
        "call_id": call.call_id,
        "process_idx": call.process_idx,
        "calls_since_process_start": call.calls_since_process_start,
        "calls_since_model_load": call.calls_since_model_load,
        "calls_since_shape_first_seen": call.calls_since_shape_first_seen,
        "load_ms": call.load_ms,
        "threads": threads,
        "concurrency": cell.concurrency,
        "client_idx": call.client_idx,
        "achieved_concurrency": call.achieved_concurrency,
        "queue_delay_ms": call.queue_delay_ms,
        "hf_load_ms": call.load_ms if cell.backend_kind == "hf" else None,
    }
    if call.timing is None:
        for offset, mode in enumerate(PHASES):
            yield shared | {"mode": mode, "sample_idx": call.call_idx * len(PHASES) + offset}
        return
    yield from _measured_rows(shared, call.timing, cell.gen_tokens, cell.batch_size, call.call_idx)


def _measured_rows(
    shared: dict[str, Any], timing: Timing, gen_tokens: int, batch_size: int, call_idx: int
) -> Iterator[dict[str, Any]]:
    shared |= _times(timing, gen_tokens, batch_size)
    if timing.served is not None:
        shared |= _served_columns(timing.served)
        if timing.served.load_ms is not None:
            shared["load_ms"] = timing.served.load_ms
        if shared["backend_kind"] == "ollama":
            shared |= _ollama_columns(timing, timing.served)
    generated = gen_tokens * batch_size
    latencies = phase_latency_ms(timing, gen_tokens)
    tokens = phase_tokens(timing.prompt_tokens_total, generated)
    compute = phase_tokens(timing.prompt_tokens * batch_size, generated)
    events: dict[Phase, float | None] = dict.fromkeys(PHASES)
    if timing.prefill_cuda_event_ms is not None and timing.kv_decode_cuda_event_ms is not None:
        events = {
            "prefill": timing.prefill_cuda_event_ms,
            "kv_decode": timing.kv_decode_cuda_event_ms,
            "e2e_kv": timing.prefill_cuda_event_ms + timing.kv_decode_cuda_event_ms,
        }
    faults = {} if timing.served is None else timing.served.faults
    for offset, mode in enumerate(PHASES):
        row = shared | {"mode": mode, "sample_idx": call_idx * len(PHASES) + offset}
        if mode in faults:
            yield row | {"status": "error", "error": faults[mode]}
            continue
        yield row | {
            "latency_ms": latencies[mode],
            "cuda_event_ms": events[mode],
            "tokens_total": tokens[mode],
            "tokens_per_s": tokens_per_s(tokens[mode], latencies[mode]),
            "tokens_total_compute": compute[mode],
            "tokens_per_s_compute": tokens_per_s(compute[mode], latencies[mode]),
            "gen_tokens": 0 if mode == "prefill" else generated,
        }


def _times(timing: Timing, gen_tokens: int, batch_size: int) -> dict[str, Any]:
    step_ms = decode_step_ms(timing)
    columns: dict[str, Any] = {
        "prefill_ms": timing.prefill_ms,
        "prefill_cuda_event_ms": timing.prefill_cuda_event_ms,
        "kv_decode_ms": timing.kv_decode_ms,
        "kv_decode_cuda_event_ms": timing.kv_decode_cuda_event_ms,
        "decode_step_ms": None if math.isnan(step_ms) else step_ms,
        "gen_tokens_raw": timing.gen_tokens_raw,
        "seq_len": timing.prompt_tokens,
        "prompt_tokens_raw": timing.prompt_tokens_total,
        "prompt_tokens_compute": timing.prompt_tokens * batch_size,
        "gpu_peak_mb": timing.gpu_peak_mb,
        "rss_peak_mb": timing.rss_peak_mb,
        "done_reason": timing.done_reason,
        "output_sha256": timing.output_sha256,
        **_halves(timing.decode_steps_ms or ()),
    }
    if timing.done_reason is not None and timing.kv_decode_ms is not None and timing.gen_tokens_raw > 0:
        # TR121's projection, by the engine's own decode time; on served engines it is low by about one step.
        per_token = timing.kv_decode_ms / timing.gen_tokens_raw
        columns |= {
            "kv_decode_ms_per_token": per_token,
            "kv_decode_ms_equiv": per_token * gen_tokens,
            "gen_tokens_equiv": gen_tokens,
        }
    return columns


def _halves(steps_ms: Sequence[float]) -> dict[str, float]:
    """The mean step of each half of a decode (the second has the odd one), which tells how steps grow with context."""
    middle = len(steps_ms) // 2
    if not middle:
        return {}
    first, second = steps_ms[:middle], steps_ms[middle:]
    return {
        "decode_first_half_step_ms": math.fsum(first) / len(first),
        "decode_second_half_step_ms": math.fsum(second) / len(second),
    }


def _served_columns(served: Served) -> dict[str, Any]:
    gaps = sorted(after - before for before, after in pairwise(served.arrivals_ms))
    return {
        "sent_at_ms": served.sent_at_ms,
        "ttft_ms": served.ttft_ms,
        "client_e2e_ms": served.e2e_ms,
        "itl_p50_ms": _quantile(gaps, 0.5),
        "itl_p99_ms": _quantile(gaps, 0.99),
        "queue_ms": served.queue_ms,
        "connect_ms": served.connect_ms,
        "decode_step_basis": served.decode_step_basis,
        "decode_step_ms_client": served.decode_step_ms_client,
        "decode_step_ms_server": served.decode_step_ms_server,
        "model_was_loaded": served.model_was_loaded,
        "cache_check": served.cache_check,
        "cache_reason": served.cache_reason,
        "head_cached": served.head_cached,
        "prefill_basis": served.prefill_basis,
        "tokens_basis": served.tokens_basis,
        "thinking_tokens": served.thinking_tokens,
    }


def _ollama_columns(timing: Timing, served: Served) -> dict[str, Any]:
    return {
        "ollama_wall_ms": served.wall_ms,
        "ollama_total_duration_ms": timing.server.get("total_duration_ms"),
        "ollama_load_ms": served.load_ms,
        "ollama_done_reason": timing.done_reason,
    }


def _quantile(ascending: list[float], share: float) -> float | None:
    """The linearly interpolated quantile; ``None`` of nothing."""
    if not ascending:
        return None
    at = share * (len(ascending) - 1)
    below = int(at)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (at - below) * (ascending[above] - ascending[below])
