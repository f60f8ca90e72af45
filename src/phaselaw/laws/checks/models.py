"""Checks of models: labels that the measurement contradicts, weights that do not fit the accelerator (method 3)."""

from __future__ import annotations

import math
import re
from typing import Any

import polars as pl

from phaselaw.ladder.spec import ladder_model
from phaselaw.laws.checks.frame import ALL_PHASES, GROUP_OF_MODEL, SERVED, Evidence, Finding, Findings, Where, check
from phaselaw.laws.structure import bits_of
from phaselaw.tables import Row

MISLABELLED = 0.1
"""A label that is off by more than this share is no rounding."""
FULL = 0.9
"""Weights that take this share of the accelerator's memory leave no room for its cache and its buffers."""


@check(
    "label contradicts measurement",
    unit="models with both a label and a measurement",
    rests_on=f"a label may be {MISLABELLED:.0%} off by rounding",
    not_checked="no model has both a labelled and a measured parameter count",
)
def labels(evidence: Evidence) -> Findings:
    """Parameter counts of a label that what was measured contradicts, or the shipped ladder's model of that name."""
    label = pl.coalesce("params_millions_config", "params_millions")
    models = evidence.run.rows.filter(label > 0).group_by(GROUP_OF_MODEL, maintain_order=True)
    known = 0
    for row in models.agg(label=label.median(), measured=pl.col("params_millions_measured").median()).rows(named=True):
        measured, source = row["measured"], "were measured; laws use the measured figure"
        ladder = ladder_model(row["model"].replace("\\", "/").rsplit("/", 1)[-1])
        if measured is None and ladder is not None:
            measured, source = ladder.params / 1e6, "has the ladder's model of that name; laws use the label"
        if not measured:
            continue
        known += 1
        if abs(math.log(row["label"] / measured)) > math.log1p(MISLABELLED):
            yield Finding(
                where=Where.of(row),
                # Where a measured figure is at hand, laws use it: nothing of theirs is off.
                modes=() if row["measured"] else ALL_PHASES,
                value=row["label"] / measured,
                evidence=f"the label says {row['label']:g} M parameters, {measured:g} M {source}",
                next_step="correct the study, and check that the model is the one meant",
            )
    return known


@check(
    "spill",
    unit="models on an accelerator whose memory is known",
    rests_on=f"nothing is said below {FULL:.0%} of the memory",
    not_checked="no model with its size on an accelerator with its memory known",
)
def spill(evidence: Evidence) -> Findings:
    """Models whose weights, or peak memory, do not fit the accelerator, so that part of them lies elsewhere."""
    together, own = gpu_memory_mb(evidence.manifest), _memory_of_devices(evidence.manifest)
    known = 0
    for row in _on_accelerator(evidence).iter_rows(named=True):
        memory = own.get(row["backend"], together)
        if memory is None:
            continue
        weights, measured = _weights_mb(row, evidence.run.models)
        peak = row["peak_mb"]
        known += weights is not None or peak is not None
        if weights is not None and weights >= FULL * memory:
            sure, size = measured and weights >= memory, weights
            words = "weights take" if measured else "weights take, by its quantisation, about"
        elif peak is not None and peak >= memory:
            sure, size, words = True, peak, "peak was"
        else:
            continue
        yield Finding(
            status="found" if sure else "suspected",
            where=Where.of(row),
            value=size / memory,
            evidence=f"its {words} {size:,.0f} MB of {memory:,.0f} MB of GPU memory ({size / memory:.0%}), which the "
            "KV cache and buffers share",
            other_reading=None if sure else "the server may hold fewer bytes than its quantisation says, or use no GPU",
            next_step="look at where its layers lie (the server's list of loaded models), or measure a smaller "
            "quantisation; until then it is a point of two machines, not of one",
        )
    return known


def gpu_memory_mb(manifest: dict[str, Any]) -> float | None:
    """Memory of all GPUs together in MB (2^20 bytes), from a manifest of ours or TR121's; ``None`` without one."""
    gpus = (manifest.get("host") or {}).get("gpus") or []
    found = [re.match(r"\s*([0-9.]+)\s*MiB", str(gpu.get("memory"))) for gpu in gpus if isinstance(gpu, dict)]
    sizes = [float(size[1]) for size in found if size]
    nvml = manifest.get("nvml")
    if not sizes and isinstance(nvml, dict) and isinstance(nvml.get("memory_total_mb"), int | float):
        sizes = [float(nvml["memory_total_mb"])]
    return sum(sizes) or None


def _memory_of_devices(manifest: dict[str, Any]) -> dict[str, float]:
    """Memory in MB of the one device that an engine in this process used, by backend; a server may use them all."""
    settings = {each.get("name"): each.get("settings") or {} for each in manifest.get("engines") or []}
    return {name: own["device_memory_mb"] for name, own in settings.items() if own.get("device_memory_mb")}


def _on_accelerator(evidence: Evidence) -> pl.DataFrame:
    """Models of served engines, which take a GPU where there is one, and those whose peak GPU memory is known."""
    model = [*GROUP_OF_MODEL, "params_millions_effective"]
    peaks = evidence.measured.filter(pl.col("gpu_peak_mb") > 0).group_by(model).agg(peak_mb=pl.col("gpu_peak_mb").max())
    models = evidence.per_model.select(model).unique(maintain_order=True)
    found = models.join(peaks, on=model, how="left", nulls_equal=True, maintain_order="left")
    return found.filter(pl.col("backend_kind").is_in(SERVED) | (pl.col("peak_mb") > 0))


def _weights_mb(row: Row, models: pl.DataFrame) -> tuple[float | None, bool]:
    """A model's weights in MB and whether they were measured, or else are by its quantisation; of served engines."""
    if row["backend_kind"] not in SERVED or not {"model", "kind"} <= set(models.columns):
        return None, False
    mine = models.filter((pl.col("model") == row["model"]) & (pl.col("kind") == row["backend_kind"]))
    for resolved in mine.head(1).iter_rows(named=True):
        bits, params = bits_of(resolved.get("quantization_level")), row["params_millions_effective"]
        if resolved.get("weights_bytes"):
            return float(resolved["weights_bytes"]) / 2**20, True
        if bits is not None and params:
            return params * 1e6 * bits / 8 / 2**20, False
    return None, False
