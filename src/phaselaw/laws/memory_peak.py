"""Memory predicted from the architecture beside the peak that was measured, per cell.

In process (hf) a call's peak holds the weights of every model that is loaded by then, and on the processor what Python
and its libraries take before any model; both are in the prediction, the latter as measured. A llama-server is a process
for one model, whose cache is allocated for its whole context; what it takes without a model is not known, and is a part
of the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from phaselaw.laws.shapes import Shape, shapes
from phaselaw.laws.summary import BUDGET
from phaselaw.machine.footprint import VALUE_BYTES, memory
from phaselaw.machine.peak_memory import MB
from phaselaw.records import Run
from phaselaw.tables import Table

MEMORY_PEAKS = Table(
    name="memory_peaks",
    holds="memory predicted and measured",
    why_empty="no calls with a measured peak whose model's shape is known (resident memory: Linux; GPU: CUDA)",
    columns=(),
)

RESIDENT, GPU = "resident", "GPU"

_KEYS = ["backend", "backend_kind", "batch_size", "model", "model_kind", "params_millions_effective", "scenario"]
SCHEMA: dict[str, type[pl.DataType]] = {
    "memory": pl.String,
    **dict.fromkeys(
        ("runtime_mb", "other_weights_mb", "weights_mb", "kv_cache_mb", "activations_mb", "predicted_mb",
         "measured_mb", "error"),
        pl.Float64,
    ),
}  # fmt: skip


def memory_peaks(run: Run, ok: pl.DataFrame) -> pl.DataFrame:
    """The table ``memory_peaks``: each cell's highest peak over its calls, and the prediction for that call.

    MB are 2^20 bytes. ``error`` is predicted over measured, less 1.
    """
    known = shapes(run)
    calls = ok.filter((pl.col("mode") == "e2e_kv") & (pl.col("concurrency").fill_null(1) == 1)).sort("call_idx")
    first_calls = _first_calls(calls)
    rows = []
    for measure, column in ((RESIDENT, "rss_peak_mb"), (GPU, "gpu_peak_mb")):
        peaks = (
            calls.filter(pl.col(column) > 0)
            .sort(column, descending=True, maintain_order=True)
            .unique([*_KEYS, BUDGET], keep="first", maintain_order=True)
        )
        for call in peaks.iter_rows(named=True):
            shape = known.get((call["backend"], call["model"]))
            # On a GPU the weights are in its memory, not in the process's.
            if shape is not None and (measure == GPU) == (shape.device or "").startswith("cuda"):
                beside = _others(call, shape, known, first_calls)
                rows.append({name: call[name] for name in [*_KEYS, BUDGET]} | {"memory": measure}
                            | _row(call, shape, beside, call[column], on_gpu=measure == GPU))  # fmt: skip
    schema = {name: ok.schema[name] for name in _KEYS} | SCHEMA | {BUDGET: ok.schema[BUDGET]}
    order = ["backend", "memory", "batch_size", BUDGET, "params_millions_effective", "model", "scenario"]
    return pl.DataFrame(rows, schema=schema).sort(order)


def _first_calls(calls: pl.DataFrame) -> dict[tuple[Any, str, str], float]:
    """When each model was first called, by process, backend and model."""
    keys = ["process_idx", "backend", "model"]
    firsts = calls.group_by(keys, maintain_order=True).agg(pl.col("call_idx").min())
    return {(process, backend, model): at for process, backend, model, at in firsts.iter_rows()}


def _others(
    call: Mapping[str, Any],
    shape: Shape,
    known: Mapping[tuple[str, str], Shape],
    first_calls: Mapping[tuple[Any, str, str], float],
) -> float:
    """Bytes of the other models that this process held on the same device at this call; each source counts once."""
    if shape.kind != "hf":
        return 0.0
    held = {}
    for (process, backend, model), first in first_calls.items():
        other = known.get((backend, model))
        loaded = process == call["process_idx"] and (first or 0) <= (call["call_idx"] or 0)
        if other is not None and loaded and (other.kind, other.device) == ("hf", shape.device):
            held[model, other.dtype] = other.model.weights_bytes
    held.pop((call["model"], shape.dtype), None)
    return sum(held.values())


def _row(
    call: Mapping[str, Any], shape: Shape, others: float, measured_mb: float, *, on_gpu: bool
) -> dict[str, float | None]:
    batch = int(call["batch_size"])
    prompt = call["prompt_tokens_compute"] / batch
    context = prompt + (call[BUDGET] or 0)
    if shape.kind == "llamacpp":
        slots = max(shape.settings.get("concurrency") or [1])
        context = (shape.settings.get("context_length") or shape.model.n_positions or context) * slots
    held = memory(
        shape.model, batch=batch, context=context, prompt=prompt, value_bytes=VALUE_BYTES[shape.dtype],
        kv_bytes=shape.kv_bytes,
    )  # fmt: skip
    runtime_mb = None if on_gpu else shape.settings.get("resident_runtime_mb")
    predicted_mb = (held.total + others) / MB + (runtime_mb or 0.0)
    return {
        "runtime_mb": runtime_mb,
        "other_weights_mb": others / MB,
        "weights_mb": held.weights / MB,
        "kv_cache_mb": held.kv_cache / MB,
        "activations_mb": held.activations / MB,
        "predicted_mb": predicted_mb,
        "measured_mb": measured_mb,
        "error": predicted_mb / measured_mb - 1,
    }
