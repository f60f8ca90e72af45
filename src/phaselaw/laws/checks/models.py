"""Checks of models: labels that the measurement contradicts, weights that do not fit the accelerator (method 3)."""

from __future__ import annotations

import math
import re
from typing import Any

import polars as pl

from phaselaw.ladder.spec import ladder_model
from phaselaw.laws.architecture import bits_of
from phaselaw.laws.checks.findings import ALL_PHASES, GROUP_OF_MODEL, SERVED, Checked, Evidence, Finding, Where
from phaselaw.laws.summary import BUDGET

MISLABELLED = 0.1
"""A label that is off by more than this share is no rounding."""
FULL = 0.9
"""Weights that take this share of the accelerator's memory leave no room for its cache and its buffers."""
LABEL, SPILL = "label contradicts measurement", "spill"


def labels(evidence: Evidence) -> Checked:
    """Parameter counts of a label that what was measured contradicts, or the shipped ladder's model of that name."""
    label = pl.coalesce("params_millions_config", "params_millions")
    rows = (
        evidence.run.rows.filter(label > 0)
        .group_by(GROUP_OF_MODEL, maintain_order=True)
        .agg(label.median().alias("label"), pl.col("params_millions_measured").median().alias("measured"))
    )
    findings, known = [], 0
    for row in rows.iter_rows(named=True):
        measured, source = row["measured"], "were measured; laws use the measured figure"
        ladder = ladder_model(row["model"].replace("\\", "/").rsplit("/", 1)[-1])
        if measured is None and ladder is not None:
            measured, source = ladder.params / 1e6, "has the ladder's model of that name; laws use the label"
        if not measured:
            continue
        known += 1
        if abs(math.log(row["label"] / measured)) > math.log1p(MISLABELLED):
            findings.append(_mislabelled(row, measured, source))
    return Checked(
        check=LABEL,
        unit="models with both a label and a measurement",
        n_checked=known,
        findings=tuple(findings),
        rests_on=f"a label may be {MISLABELLED:.0%} off by rounding",
        not_checked=None if known else "no model has both a labelled and a measured parameter count",
    )


def _mislabelled(row: dict[str, Any], measured: float, source: str) -> Finding:
    return Finding(
        check=LABEL,
        status="found",
        where=_of_model(row),
        # Where a measured figure is at hand, laws use it: nothing of theirs is off.
        modes=() if row["measured"] else ALL_PHASES,
        value=row["label"] / measured,
        evidence=f"the label says {row['label']:g} M parameters, {measured:g} M {source}",
        next_step="correct the study, and check that the model is the one meant",
    )


def _of_model(row: dict[str, Any]) -> Where:
    return Where(
        backend=row["backend"], batch_size=row["batch_size"], gen_tokens_target=row[BUDGET], model=row["model"]
    )


def spill(evidence: Evidence) -> Checked:
    """Models whose weights, or peak memory, do not fit the accelerator, so that part of them lies elsewhere."""
    manifest = evidence.run.manifest or {}
    together, own = gpu_memory_mb(manifest), _memory_of_devices(manifest)
    rows = _on_accelerator(evidence)
    known = 0
    findings = []
    for row in rows.iter_rows(named=True):
        memory = own.get(row["backend"], together)
        if memory is None:
            continue
        weights, measured = _weights_mb(row, evidence.run.models)
        peak = row["peak_mb"]
        known += weights is not None or peak is not None
        if weights is not None and weights >= FULL * memory:
            sure = measured and weights >= memory
            words = "weights take" if measured else "weights take, by its quantisation, about"
            findings.append(_spilled(row, f"its {words} {weights:,.0f} MB", weights / memory, sure=sure, of=memory))
        elif peak is not None and peak >= memory:
            findings.append(_spilled(row, f"its peak was {peak:,.0f} MB", peak / memory, sure=True, of=memory))
    return Checked(
        check=SPILL,
        unit="models on an accelerator whose memory is known",
        n_checked=known,
        findings=tuple(findings),
        rests_on=f"nothing is said below {FULL:.0%} of the memory",
        not_checked=None if known else "no model with its size on an accelerator with its memory known",
    )


def gpu_memory_mb(manifest: dict[str, Any]) -> float | None:
    """Memory of all GPUs together in MB (2^20 bytes), as a manifest of ours or TR121's tells; ``None`` without one."""
    gpus = (manifest.get("host") or {}).get("gpus") or []
    told = [re.match(r"\s*([0-9.]+)\s*MiB", str(gpu.get("memory"))) for gpu in gpus if isinstance(gpu, dict)]
    sizes = [float(found[1]) for found in told if found]
    nvml = manifest.get("nvml")
    if not sizes and isinstance(nvml, dict) and isinstance(nvml.get("memory_total_mb"), int | float):
        sizes = [float(nvml["memory_total_mb"])]
    return sum(sizes) or None


def _memory_of_devices(manifest: dict[str, Any]) -> dict[str, float]:
    """Memory in MB of the one device that an engine in this process used, by backend; a server may use them all."""
    settings = {each.get("name"): each.get("settings") or {} for each in manifest.get("engines") or []}
    return {name: told["device_memory_mb"] for name, told in settings.items() if told.get("device_memory_mb")}


def _on_accelerator(evidence: Evidence) -> pl.DataFrame:
    """Models of served engines, which take a GPU where there is one, and those whose peak GPU memory is known."""
    model = [*GROUP_OF_MODEL, "params_millions_effective"]
    peaks = evidence.measured.filter(pl.col("gpu_peak_mb") > 0).group_by(model).agg(peak_mb=pl.col("gpu_peak_mb").max())
    models = evidence.per_model.select(model).unique(maintain_order=True)
    found = models.join(peaks, on=model, how="left", nulls_equal=True, maintain_order="left")
    return found.filter(pl.col("backend_kind").is_in(SERVED) | (pl.col("peak_mb") > 0))


def _weights_mb(row: dict[str, Any], models: pl.DataFrame) -> tuple[float | None, bool]:
    """A model's weights in MB and whether they were measured, or else are by its quantisation; of served engines."""
    if row["backend_kind"] not in SERVED or not {"model", "kind"} <= set(models.columns):
        return None, False
    mine = models.filter((pl.col("model") == row["model"]) & (pl.col("kind") == row["backend_kind"]))
    if mine.is_empty():
        return None, False
    told = mine.row(0, named=True)
    if told.get("weights_bytes"):
        return float(told["weights_bytes"]) / 2**20, True
    bits = bits_of(told.get("quantization_level"))
    params = row["params_millions_effective"]
    return (None, False) if bits is None or not params else (params * 1e6 * bits / 8 / 2**20, False)


def _spilled(row: dict[str, Any], words: str, share: float, *, sure: bool, of: float) -> Finding:
    return Finding(
        check=SPILL,
        status="found" if sure else "suspected",
        where=_of_model(row),
        modes=ALL_PHASES,
        value=share,
        evidence=f"{words} of {of:,.0f} MB of GPU memory ({share:.0%}), which the KV cache and buffers share",
        other_reading=None if sure else "the server may hold fewer bytes than its quantisation says, or use no GPU",
        next_step="look at where its layers lie (the server's list of loaded models), or measure a smaller "
        "quantisation; until then it is a point of two machines, not of one",
    )
