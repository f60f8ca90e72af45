"""How near each cell comes to what the machine can do (method 3).

What a cell must move and compute at least follows from its model's architecture (`phaselaw.machine.footprint`).
What the machine can do is measured (`phaselaw.machine.limits`, in the manifest), read bandwidth at the cell's own
working-set size. A phase's share of a limit is the time that the limit alone would take over the time that it took.
Above 1 it is kept, and explained.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from phaselaw import tables as col
from phaselaw.machine.footprint import KV_BYTES, VALUE_BYTES, Architecture, decode_step, prefill
from phaselaw.machine.limits import DeviceLimits, MachineLimits
from phaselaw.records import Run
from phaselaw.tables import BUDGET, LAW, MODEL, PHASE, Row, Table

BANDWIDTH, COMPUTE, OVERHEAD = "bandwidth", "compute", "overhead"
WALL_SHARE = 0.5
"""The larger share from which on that limit is the wall. At a half it explains more of the time than all else together;
below it most of the time goes where neither memory nor arithmetic is the reason: dispatch, waiting, small kernels."""
NO_LIMITS = "the manifest holds no limits of the machine; runs measured with a later phaselaw have them (phaselaw host)"

CELL = (
    *(LAW, col.words("backend_kind"), col.counted("batch_size"), MODEL, col.words("model_kind")),
    *(*col.plain("params_millions_effective"), col.words("scenario", "scenario")),
)
CELL_KEYS = [*(column.key for column in CELL), BUDGET]


def _a_million(key: str, title: str) -> col.Col:
    return col.derived(key, title, lambda value: col.digits(value / 1e6))


PHYSICAL_LIMIT = Table(
    name="physical_limit",
    holds="each cell's share of what the machine can do",
    caption="Each cell against the machine's limits.",
    why_empty="no cell whose model's shape and whose device's limits are known (served elsewhere, or mixtures of "
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
TORCH_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model as a backend ran it."""

    name: str
    model: Architecture
    kind: str
    device: str | None
    """Where it ran, if that was on the machine of the manifest; ``None`` where that is not known."""
    dtype: str
    """Number format of its arithmetic, in a study's words; ``fp32`` where the engine doesn't say."""
    kv_bytes: float
    """Bytes a cached value."""
    settings: Mapping[str, Any]
    """The engine's, from the manifest."""

    @property
    def all_logits(self) -> bool:
        """Whether prefill computed the logits of all positions (hf: as the study asked, or for want of another way)."""
        of_all = self.settings.get("prefill_logits_of_all_positions") or []
        return self.settings.get("prefill_logits") == "all" or self.name in of_all


def shapes(run: Run) -> dict[tuple[str, str], Shape]:
    """The shapes that are known, by backend and model; none for runs whose table of models names no backends."""
    manifest = run.manifest or {}
    engines = {engine.get("name"): engine.get("settings") or {} for engine in manifest.get("engines") or []}
    has_gpu = bool((manifest.get("host") or {}).get("gpus"))
    found = {}
    for row in run.models.iter_rows(named=True) if {"backend", "kind"} <= set(run.models.columns) else ():
        model, settings, kind = Architecture.of(row), engines.get(row["backend"], {}), row["kind"]
        if model is not None and model.not_known is None:
            dtype = TORCH_WORDS.get(row.get("dtype") or "", "fp32")
            on_cpu = kind == "llamacpp" and settings.get("url") is None
            on_cpu = on_cpu and (settings.get("gpu_layers") == 0 or not has_gpu)
            # llama.cpp's setting (its default is f16), else the model's own number format.
            cached = KV_BYTES.get(str(settings.get("kv_cache") or "f16"), 2.0)
            found[row["backend"], row["model"]] = Shape(
                name=row["model"],
                model=model,
                kind=kind,
                device=row.get("device") if kind == "hf" else "cpu" if on_cpu else None,
                dtype=dtype,
                kv_bytes=cached if kind == "llamacpp" else VALUE_BYTES[dtype],
                settings=settings,
            )
    return found


def limits_in(manifest: Mapping[str, Any] | None) -> MachineLimits | None:
    """The limits of the machine that a run's manifest holds, its last process's first; ``None`` where it has none."""
    whole = manifest or {}
    hosts = [whole.get("host"), *(process.get("host") for process in reversed(whole.get("processes") or []))]
    found = (MachineLimits.from_json((host or {}).get("limits")) for host in hosts)
    return next((limits for limits in found if limits is not None), None)


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
    largest = max(work.bytes for _, _, work in parts)
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
        "evidence": _evidence(cell["latency_median_ms"], bandwidth, compute, shape),
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


def _evidence(latency_ms: float, reading: float | None, computing: float | None, shape: Shape) -> str:
    """The figures that decided the wall, in words."""
    if reading is None or computing is None:
        return f"no limit of {shape.dtype} arithmetic was measured on {shape.device}"
    return (
        f"of {latency_ms:.3g} ms, reading takes {latency_ms * reading:.3g} ms at the machine's bandwidth "
        f"({reading:.1%}), {shape.dtype} arithmetic {latency_ms * computing:.3g} ms at its rate ({computing:.1%})"
    )


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
