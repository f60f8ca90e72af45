"""Memory: each cell's peak, predicted and measured, and how the peaks grow with a model's size (method 3).

MB are 2^20 bytes. What is predicted follows from a model's architecture (`phaselaw.machine.footprint`); of runs that we
did not measure, whose architectures aren't known, the weights are parameters times the bytes of their format.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from phaselaw import tables as col
from phaselaw.laws.physical_limit import CELL, CELL_KEYS, Shape, shapes
from phaselaw.laws.regression import ends, fit_line, t_half_width
from phaselaw.machine.footprint import VALUE_BYTES, memory
from phaselaw.machine.peak_memory import MB
from phaselaw.records import Run
from phaselaw.tables import BUDGET, LAW, Row, Table, grouped

RESIDENT, GPU = "resident", "GPU"

MEMORY_PEAKS = Table(
    name="memory_peaks",
    holds="memory predicted and measured",
    caption="Memory of each cell (MB).",
    why_empty="no calls with a measured peak (resident memory: Linux; GPU: CUDA)",
    columns=(
        *(*CELL, col.words("memory", "memory"), col.measured("runtime_mb", "runtime")),
        *(col.derived("other_weights_mb", "other models"), col.measured("weights_mb", "weights")),
        *(col.derived("kv_cache_mb", "cache"), col.derived("activations_mb", "activations")),
        *(col.derived("predicted_mb", "predicted"), col.measured("measured_mb", "measured")),
        *(col.derived("error", "error", col.percent), col.counted(BUDGET)),
    ),
    order=("backend", "memory", "batch_size", BUDGET, "params_millions_effective", "model", "scenario"),
)

MEMORY_LAWS = Table(
    name="memory_laws",
    holds="memory against size",
    caption="Each model's own peak (of other models loaded beside it, the weights are taken off): base + bytes a "
    "parameter x parameters.",
    why_empty="no backend with measured peaks of three models that differ in size",
    columns=(
        *(LAW, col.words("backend_kind"), col.counted("batch_size"), col.words("memory", "memory")),
        *(col.counted("n_models", "models"), col.figure("bytes_per_param", "bytes a parameter")),
        *(*col.plain("bytes_per_param_low bytes_per_param_high"), col.figure("base_mb", "base (MB)")),
        *(*col.plain("base_mb_low base_mb_high"), col.derived("r2", "R2", col.fixed), col.counted(BUDGET)),
    ),
    order=("backend", "memory", "batch_size", BUDGET),
    shows="backend memory n_models bytes_per_param base_mb r2",
)


def memory_peaks(run: Run, ok: pl.DataFrame) -> pl.DataFrame:
    """The table ``memory_peaks``: each cell's highest peak over its calls, and the prediction for that call.

    ``error`` is predicted over measured, less 1. In process (hf) a call's peak holds the weights of the other models
    that are loaded then, and on the processor what Python and its libraries take before any model; both are in the
    prediction, the latter as measured. A llama-server is a process for one model, whose cache is allocated for its
    whole context; what it takes without a model is not known, and is a part of the error. A peak of an imported run
    whose weights nothing tells stands alone.
    """
    known = shapes(run)
    calls = ok.filter((pl.col("mode") == "e2e_kv") & (pl.col("concurrency").fill_null(1) == 1)).sort("call_idx")
    rows = []
    for measure, column in ((RESIDENT, "rss_peak_mb"), (GPU, "gpu_peak_mb")):
        weights = _weights(run, known, ok, on_gpu=measure == GPU)
        highest = calls.filter(pl.col(column) > 0).sort(column, descending=True, maintain_order=True)
        for call in highest.unique(CELL_KEYS, keep="first", maintain_order=True).iter_rows(named=True):
            model = call["backend"], call["model"]
            if model not in weights and (measure == RESIDENT or model in known):
                continue
            parts: Row = {"memory": measure, "measured_mb": call[column]}
            if model in weights:  # else what else was loaded is not known either
                others, shape = _others(call, calls, known, weights) / MB, known.get(model)
                parts |= {"weights_mb": weights[model] / MB} if shape is None else _predicted(call, shape)
                parts["other_weights_mb"] = others
                if shape is not None:
                    parts["predicted_mb"] += others
                    parts["error"] = parts["predicted_mb"] / call[column] - 1
            rows.append(call | parts)
    return MEMORY_PEAKS.frame(rows)


def memory_laws(peaks: pl.DataFrame, level: float) -> pl.DataFrame:
    """The table ``memory_laws``: a line through the models' own peaks, with t intervals over models.

    A model's own peak is the highest of its cells' less the weights of the models beside it.
    """
    rows = []
    own = pl.col("measured_mb") - pl.col("other_weights_mb")
    models = peaks.group_by([*MEMORY_LAWS.order, "backend_kind", "model"], maintain_order=True).agg(
        own_mb=own.max(), params=pl.col("params_millions_effective").first()
    )
    for key, group in grouped(models.drop_nulls(), [*MEMORY_LAWS.order, "backend_kind"]):
        line = fit_line(group["params"].to_numpy() * 1e6, group["own_mb"].to_numpy() * MB)
        if group.height > 2 and line.determined:
            half = t_half_width(line.standard_errors, line.degrees, level)
            found: Row = {"n_models": group.height, "r2": line.r2}
            for at, name, unit in ((0, "base_mb", MB), (1, "bytes_per_param", 1)):
                found[name] = line.coefficients[at] / unit
                found |= ends(name, found[name], half[at] / unit)
            rows.append(key | found)
    return MEMORY_LAWS.frame(rows)


def _weights(
    run: Run, known: Mapping[tuple[str, str], Shape], ok: pl.DataFrame, *, on_gpu: bool
) -> dict[tuple[str, str], float]:
    """Bytes of the weights of each backend's models that lie where the peak is: on a GPU, or in the process."""
    found = {
        of: shape.model.weights_bytes
        for of, shape in known.items()
        if on_gpu == (shape.device or "").startswith("cuda")
    }
    if on_gpu and "backend" not in run.models.columns and "device" in run.models.columns:
        there = run.models.filter(pl.col("device").cast(pl.String).str.starts_with("cuda"))
        formats = {row["model"]: VALUE_BYTES.get(str(row.get("dtype"))) for row in there.iter_rows(named=True)}
        names = ["backend", "model", "params_millions_effective"]
        for backend, model, params in ok.filter(pl.col("gpu_peak_mb") > 0).select(names).unique().iter_rows():
            if params and formats.get(model):
                found[backend, model] = params * 1e6 * (formats[model] or 0.0)
    return found


def _others(
    call: Row, calls: pl.DataFrame, known: Mapping[tuple[str, str], Shape], weights: Mapping[tuple[str, str], float]
) -> float:
    """Bytes of the other models that this process held in the same memory at this call; each source counts once.

    Where not all stay loaded, those held are the ones called last.
    """
    if call["backend_kind"] != "hf":
        return 0.0
    same = pl.col("process_idx").eq_missing(call["process_idx"]) & (pl.col("backend_kind") == "hf")
    before = calls.filter(same & (pl.col("call_idx") <= call["call_idx"]))
    held: dict[tuple[str, Any], float] = {}
    for backend, models in before.group_by("backend", maintain_order=True).agg(pl.col("model")).iter_rows():
        last = list(dict.fromkeys(reversed(models)))  # the last one called first
        shape = known.get((backend, last[0]))
        most = shape.settings.get("keep_loaded") if shape else None
        for model in last[: most if isinstance(most, int) else None]:
            shape = known.get((backend, model))
            if (backend, model) in weights:
                held[model, shape and shape.dtype] = weights[backend, model]
    shape = known.get((call["backend"], call["model"]))
    held.pop((call["model"], shape and shape.dtype), None)
    return sum(held.values())


def _predicted(call: Row, shape: Shape) -> Row:
    """The parts of a call's peak in MB, without other models beside it."""
    batch = int(call["batch_size"])
    prompt = call["prompt_tokens_compute"] / batch
    context = prompt + (call[BUDGET] or 0)
    if shape.kind == "llamacpp":
        slots = max(shape.settings.get("concurrency") or [1])
        context = (shape.settings.get("context_length") or shape.model.n_positions or context) * slots
    formats: dict[str, Any] = {"value_bytes": VALUE_BYTES[shape.dtype], "kv_bytes": shape.kv_bytes}
    held = memory(shape.model, batch=batch, context=context, prompt=prompt, all_logits=shape.all_logits, **formats)
    on_gpu = (shape.device or "").startswith("cuda")
    runtime_mb = None if on_gpu else shape.settings.get("resident_runtime_mb")
    return {
        "runtime_mb": runtime_mb,
        "weights_mb": held.weights / MB,
        "kv_cache_mb": held.kv_cache / MB,
        "activations_mb": held.activations / MB,
        "predicted_mb": held.total / MB + (runtime_mb or 0.0),
    }
