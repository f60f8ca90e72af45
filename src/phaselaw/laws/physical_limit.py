"""How near each cell comes to what the machine can do, and what memory it takes (method 3).

What a cell must move, compute and hold at least follows from its model's architecture (`phaselaw.machine.footprint`).
What the machine can do is measured (`phaselaw.machine.limits`, in the manifest), read bandwidth at the cell's own
working-set size. A phase's share of a limit is the time that the limit alone would take over the time that it took.
Above 1 it is kept, and explained.

Memory is each cell's peak, predicted and measured, and how peaks grow with a model's size. MB are 2^20 bytes there. Of
runs that we did not measure, whose architectures aren't known, the weights are parameters times the bytes of their
format.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from phaselaw import tables as col
from phaselaw.laws.regression import ends, fit_line, t_half_width
from phaselaw.machine.footprint import KV_BYTES, VALUE_BYTES, Architecture, decode_step, memory, prefill
from phaselaw.machine.limits import DeviceLimits, MachineLimits
from phaselaw.machine.peak_memory import MB
from phaselaw.records import Run
from phaselaw.tables import BUDGET, LAW, MODEL, PHASE, Row, Table, grouped, like

BANDWIDTH, COMPUTE, OVERHEAD = "bandwidth", "compute", "overhead"
WALL_SHARE = 0.5
"""The larger share from which on that limit is the wall. At a half it explains more of the time than all else together;
below it most of the time goes where neither memory nor arithmetic is the reason: dispatch, waiting, small kernels."""

CELL = (
    *(LAW, col.words("backend_kind"), col.counted("batch_size"), MODEL, col.words("model_kind")),
    *(*col.plain("params_millions_effective"), col.words("scenario", "scenario")),
)
CELL_KEYS = [*(column.key for column in CELL), BUDGET]


def _a_million(key: str, title: str) -> col.Col:
    return col.derived(key, title, lambda value: col.digits(value / 1e6))


PHYSICAL_LIMIT = Table(
    name="physical_limit",
    holds="each cell against what the machine can do",
    why_empty="no limits of the machine in the manifest (phaselaw host, on a quiet machine, before a run), or limits "
    "measured while it was busy, or no cell whose model's shape and device are known (served elsewhere, or mixtures of "
    "experts)",
    columns=(
        *(*CELL, PHASE, col.words("device"), col.words("dtype"), *col.plain("latency_median_ms tokens")),
        *(_a_million("bytes_per_token", "MB read a token"), _a_million("flops_per_token", "MFLOP a token")),
        *(*col.plain("working_set_mb"), col.derived("bandwidth_gb_per_s", "GB/s")),
        col.derived("compute_gflop_per_s", "GFLOP/s"),
        col.measured("limit_gb_per_s", "machine's GB/s there"),
        col.measured("limit_gflop_per_s", "machine's GFLOP/s"),
        *(col.derived("bandwidth_share", "share", col.percent), col.derived("compute_share", "share", col.percent)),
        *(col.words("wall", "wall"), col.words("evidence")),
        *(col.words("above_the_roof", "above 100 %, since"), col.counted(BUDGET)),
    ),
    shows="backend model scenario mode bytes_per_token flops_per_token bandwidth_gb_per_s limit_gb_per_s "
    "bandwidth_share compute_gflop_per_s limit_gflop_per_s compute_share wall above_the_roof",
)
RESIDENT, GPU = "resident", "GPU"

MEMORY_PEAKS = Table(
    name="memory_peaks",
    holds="memory of each cell, predicted and measured (MB)",
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

TORCH_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model as a backend ran it."""

    model: Architecture
    kind: str
    device: str | None
    """Where it ran, if that was on the machine of the manifest; ``None`` where that is not known."""
    dtype: str
    """Number format of its arithmetic, in a study's words; ``fp32`` where the engine doesn't say."""
    kv_bytes: float
    """Bytes a cached value."""
    all_logits: bool
    """Whether prefill computed the logits of all positions (hf: as the study asked, or for want of another way)."""
    settings: Mapping[str, Any]
    """The engine's, from the manifest."""


def shapes(run: Run) -> dict[tuple[str, str], Shape]:
    """The shapes that are known, by backend and model; none for runs whose table of models names no backends."""
    engines = {engine.get("name"): engine.get("settings") or {} for engine in run.manifest.get("engines") or []}
    has_gpu = bool((run.manifest.get("host") or {}).get("gpus"))
    found = {}
    for row in run.models.iter_rows(named=True) if {"backend", "kind"} <= set(run.models.columns) else ():
        model, settings, kind = Architecture.of(row), engines.get(row["backend"], {}), row["kind"]
        if model is not None and model.not_known is None:
            dtype = TORCH_WORDS.get(row.get("dtype") or "", "fp32")
            on_cpu = kind == "llamacpp" and settings.get("url") is None
            on_cpu = on_cpu and (settings.get("gpu_layers") == 0 or not has_gpu)
            # llama.cpp's setting (its default is f16), else the model's own number format.
            cached = KV_BYTES.get(str(settings.get("kv_cache") or "f16"), 2.0)
            of_all = settings.get("prefill_logits_of_all_positions") or []
            found[row["backend"], row["model"]] = Shape(
                model=model,
                kind=kind,
                device=row.get("device") if kind == "hf" else "cpu" if on_cpu else None,
                dtype=dtype,
                kv_bytes=cached if kind == "llamacpp" else VALUE_BYTES[dtype],
                all_logits=settings.get("prefill_logits") == "all" or row["model"] in of_all,
                settings=settings,
            )
    return found


def limits_in(manifest: Mapping[str, Any]) -> MachineLimits | None:
    """The limits of the machine that a run's manifest holds, its last process's first; ``None``: none without doubt."""
    hosts = [manifest.get("host"), *(process.get("host") for process in reversed(manifest.get("processes") or []))]
    found = (MachineLimits.from_json((host or {}).get("limits")) for host in hosts)
    return next((limits for limits in found if limits is not None and limits.doubt is None), None)


def physical_limit(run: Run, cells: pl.DataFrame) -> pl.DataFrame:
    """The table ``physical_limit``: one row for each row of ``summary_by_model_backend_mode`` that can be placed."""
    limits, known = limits_in(run.manifest), shapes(run)
    rows = []
    for cell in cells.iter_rows(named=True):
        shape = known.get((cell["backend"], cell["model"]))
        of_device = limits.device(shape.device) if limits and shape and shape.device else None
        counted = cell["prompt_tokens_compute_median"] and (cell["mode"] == "prefill" or cell[BUDGET])
        if shape is not None and of_device is not None and counted:
            rows.append(cell | _placed(cell, shape, of_device))
    return PHYSICAL_LIMIT.frame(rows)


def _placed(cell: Row, shape: Shape, limits: DeviceLimits) -> Row:
    """A cell's traffic and work beside its limits."""
    batch, latency_s, steps = int(cell["batch_size"]), cell["latency_median_ms"] / 1e3, cell[BUDGET] or 0
    prompt = cell["prompt_tokens_compute_median"] / batch
    parts = []  # times, tokens, work of each
    if cell["mode"] != "kv_decode":
        logits = {"all_logits": shape.all_logits}
        first = prefill(shape.model, batch=batch, prompt=prompt, kv_bytes=shape.kv_bytes, **logits)
        parts.append((1, prompt * batch, first))
    if cell["mode"] != "prefill":
        # Step i attends to the prompt and i generated tokens: on average to (steps + 1) / 2 of them.
        step = decode_step(shape.model, batch=batch, context=prompt + (steps + 1) / 2, kv_bytes=shape.kv_bytes)
        parts.append((steps, steps * batch, step))
    tokens, arithmetic = sum(each for _, each, _ in parts), limits.gflop_per_s(shape.dtype)
    moved, computed = [times * work.bytes for times, _, work in parts], [times * work.flops for times, _, work in parts]
    read = [limits.read_at(work.bytes) for _, _, work in parts]
    bandwidth = _share(moved, read, latency_s)
    compute = _share(computed, [arithmetic] * len(parts), latency_s)
    largest, ms = max(work.bytes for _, _, work in parts), cell["latency_median_ms"]
    evidence = f"no limit of {shape.dtype} arithmetic was measured on {shape.device}"
    if bandwidth is not None and compute is not None:
        evidence = (
            f"of {ms:.3g} ms, reading takes {ms * bandwidth:.3g} ms at the machine's bandwidth ({bandwidth:.1%}), "
            f"{shape.dtype} arithmetic {ms * compute:.3g} ms at its rate ({compute:.1%})"
        )
    return {
        "device": shape.device,
        "dtype": shape.dtype,
        "tokens": tokens,
        "bytes_per_token": sum(moved) / tokens,
        "flops_per_token": sum(computed) / tokens,
        "working_set_mb": largest / 1e6,
        "bandwidth_gb_per_s": sum(moved) / latency_s / 1e9,
        "compute_gflop_per_s": sum(computed) / latency_s / 1e9,
        "limit_gb_per_s": read[0] if len(parts) == 1 else None,
        "limit_gflop_per_s": arithmetic,
        "bandwidth_share": bandwidth,
        "compute_share": compute,
        "wall": wall_of(bandwidth, compute),
        "evidence": evidence,
        "above_the_roof": _above(bandwidth or 0.0, compute or 0.0, limits, largest),
    }


def _share(amounts: Sequence[float], giga_per_s: Sequence[float | None], latency_s: float) -> float | None:
    """The time that amounts take at their rates over the latency; ``None`` where a rate is not known."""
    seconds = [amount / (rate * 1e9) for amount, rate in zip(amounts, giga_per_s, strict=True) if rate]
    return sum(seconds) / latency_s if len(seconds) == len(amounts) else None


def wall_of(bandwidth_share: float | None, compute_share: float | None) -> str | None:
    """The limit with the larger share where that is at least `WALL_SHARE`, else overhead; ``None`` without shares."""
    if bandwidth_share is None or compute_share is None:
        return None
    if max(bandwidth_share, compute_share) < WALL_SHARE:
        return OVERHEAD
    return BANDWIDTH if bandwidth_share >= compute_share else COMPUTE


def _above(bandwidth_share: float, compute_share: float, limits: DeviceLimits, working_set: float) -> str | None:
    """Why a cell, which reads so many bytes at once, does better than the limit; ``None`` where it doesn't."""
    reasons, mb = [], f"its {working_set / 1e6:.3g} MB"
    if bandwidth_share > 1:
        smallest, in_memory = limits.read[0].working_set_bytes, limits.read[-1].gb_per_s.median
        rate = limits.read_at(working_set) or 0.0
        if working_set < smallest:
            reasons.append(
                f"{mb} are less than the smallest working set measured ({smallest / 1e6:.3g} MB), and fit caches that "
                "are faster"
            )
        elif rate > 1.25 * in_memory:
            reasons.append(
                f"{mb} lie partly in a cache (the curve is at {rate:.3g} GB/s there, and at {in_memory:.3g} in "
                "memory): the same weights stay hot from step to step"
            )
        else:
            reasons.append(
                "the cell reads faster than the curve did at this size: the machine was busier when its limits were "
                "measured, or its cache held more of the weights (phaselaw host --refresh on an idle machine)"
            )
    if compute_share > 1:
        reasons.append(
            "its arithmetic is faster than the matrix products measured: another number format inside (quantised "
            "weights), another library, or a busier machine when the limits were measured"
        )
    return "; ".join(reasons) or None


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
        # Bytes of the weights of each backend's models that lie where the peak is.
        there = {
            of: shape for of, shape in known.items() if (measure == GPU) == (shape.device or "").startswith("cuda")
        }
        weights = {of: shape.model.weights_bytes for of, shape in there.items()}
        if measure == GPU and "backend" not in run.models.columns and "device" in run.models.columns:
            on_gpu = run.models.filter(pl.col("device").cast(pl.String).str.starts_with("cuda"))
            formats = {row["model"]: VALUE_BYTES.get(str(row.get("dtype"))) for row in on_gpu.iter_rows(named=True)}
            names = ["backend", "model", "params_millions_effective"]
            for backend, name, params in ok.filter(pl.col(column) > 0).select(names).unique().iter_rows():
                if params and formats.get(name):
                    weights[backend, name] = params * 1e6 * (formats[name] or 0.0)
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


def _others(
    call: Row, calls: pl.DataFrame, known: Mapping[tuple[str, str], Shape], weights: Mapping[tuple[str, str], float]
) -> float:
    """Bytes of the other models that this process held in the same memory at this call; each source counts once.

    Where not all stay loaded, those held are the ones called last.
    """
    if call["backend_kind"] != "hf":
        return 0.0
    before = like(calls, call, ("run", "process_idx", "backend_kind")).filter(pl.col("call_idx") <= call["call_idx"])
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
