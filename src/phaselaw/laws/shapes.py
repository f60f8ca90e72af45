"""The shape of each model of a run, with what its backend ran it in: for traffic, work and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from phaselaw.machine.footprint import KV_BYTES, VALUE_BYTES, Architecture
from phaselaw.records import Run

_TORCH_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model as a backend ran it."""

    model: Architecture
    kind: str
    device: str | None
    """Where it ran, if that was on the machine of the manifest; ``None`` where it can't be told."""
    dtype: str
    """Number format of its arithmetic, in a study's words; ``fp32`` where the engine doesn't say."""
    kv_bytes: float
    """Bytes a cached value."""
    settings: Mapping[str, Any]
    """The engine's, from the manifest."""


def shapes(run: Run) -> dict[tuple[str, str], Shape]:
    """The shapes that are known, by backend and model; none for runs whose table of models names no backends."""
    if "backend" not in run.models.columns:
        return {}
    manifest = run.manifest or {}
    engines = {engine.get("name"): engine.get("settings") or {} for engine in manifest.get("engines") or []}
    has_gpu = bool((manifest.get("host") or {}).get("gpus"))
    found = {}
    for row in run.models.iter_rows(named=True):
        model, settings = Architecture.of(row), engines.get(row["backend"]) or {}
        if model is not None:
            dtype = _TORCH_WORDS.get(row.get("dtype") or "", "fp32")
            found[row["backend"], row["model"]] = Shape(
                model=model,
                kind=row["kind"],
                device=_device(row, settings, has_gpu=has_gpu),
                dtype=dtype,
                kv_bytes=_kv_bytes(row["kind"], dtype, settings),
                settings=settings,
            )
    return found


def _kv_bytes(kind: str, dtype: str, settings: Mapping[str, Any]) -> float:
    """llama.cpp's setting (its default is f16), else the model's own number format."""
    if kind == "llamacpp":
        return KV_BYTES.get(str(settings.get("kv_cache") or "f16"), 2.0)
    return VALUE_BYTES[dtype]


def _device(model: Mapping[str, Any], settings: Mapping[str, Any], *, has_gpu: bool) -> str | None:
    if model["kind"] == "hf":
        return model.get("device")
    ours = model["kind"] == "llamacpp" and settings.get("url") is None
    return "cpu" if ours and (settings.get("gpu_layers") == 0 or not has_gpu) else None
