"""How near each cell comes to what the machine can do, and the wall that it stands at (method 3, "Physical limit").

What a cell must move and compute at least is from its model's architecture (`phaselaw.machine.footprint`); what the
machine can do is measured (`phaselaw.machine.limits`, in the manifest), read bandwidth at the cell's own working-set
size. A phase's share of a limit is the time that the limit alone would take over the time that it took: above 1 it is
kept, and explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from phaselaw.laws.shapes import Shape, shapes
from phaselaw.laws.summary import BUDGET
from phaselaw.machine.footprint import Work, decode_step, prefill
from phaselaw.machine.limits import DeviceLimits, MachineLimits
from phaselaw.records import Run
from phaselaw.tables import Table

PHYSICAL_LIMIT = Table(
    name="physical_limit",
    holds="each cell's share of what the machine can do",
    why_empty="no cell whose model's shape and whose device's limits are known (served elsewhere, or mixtures of "
    "experts)",
    columns=(),
)

BANDWIDTH, COMPUTE, OVERHEAD = "bandwidth", "compute", "overhead"
WALL_SHARE = 0.5
"""The larger share from which on that limit is the wall. At a half it explains more of the time than all else together;
below it most of the time goes where neither memory nor arithmetic is the reason: dispatch, waiting, small kernels."""

_PHASES = {"prefill": ("prefill",), "kv_decode": ("kv_decode",), "e2e_kv": ("prefill", "kv_decode")}

_KEYS = ["backend", "backend_kind", "batch_size", "model", "model_kind", "params_millions_effective", "scenario",
         "mode"]  # fmt: skip
SCHEMA: dict[str, type[pl.DataType]] = {
    "device": pl.String,
    "dtype": pl.String,
    **dict.fromkeys(
        ("latency_median_ms", "tokens", "bytes_per_token", "flops_per_token", "working_set_mb", "bandwidth_gb_per_s",
         "compute_gflop_per_s", "limit_gb_per_s", "limit_gflop_per_s", "bandwidth_share", "compute_share"),
        pl.Float64,
    ),
    "wall": pl.String,
    "evidence": pl.String,
    "above_the_roof": pl.String,
}  # fmt: skip

NO_LIMITS = "the manifest holds no limits of the machine; runs measured with a later phaselaw have them (phaselaw host)"


def limits_in(manifest: Mapping[str, Any] | None) -> MachineLimits | None:
    """The limits of the machine that a run's manifest holds, its last process's first; ``None`` where it has none."""
    whole = manifest or {}
    hosts = [whole.get("host"), *(process.get("host") for process in reversed(whole.get("processes") or []))]
    found = (MachineLimits.from_json((host or {}).get("limits")) for host in hosts)
    return next((limits for limits in found if limits is not None), None)


def physical_limit(run: Run, cells: pl.DataFrame) -> pl.DataFrame:
    """The table ``physical_limit``: one row for each row of ``summary_by_model_backend_mode`` that can be placed."""
    known = _on_known_devices(run)
    rows = [
        {name: cell[name] for name in [*_KEYS, BUDGET]} | _placed(cell, *found)
        for cell in cells.iter_rows(named=True)
        if (found := known.get((cell["backend"], cell["model"]))) is not None
        and cell["prompt_tokens_compute_median"]
        and (cell["mode"] == "prefill" or cell[BUDGET])
    ]
    schema = {name: cells.schema[name] for name in _KEYS} | SCHEMA | {BUDGET: cells.schema[BUDGET]}
    return pl.DataFrame(rows, schema=schema)


def _on_known_devices(run: Run) -> dict[tuple[str, str], tuple[Shape, DeviceLimits]]:
    limits = limits_in(run.manifest)
    if limits is None:
        return {}
    return {
        key: (shape, of_device)
        for key, shape in shapes(run).items()
        if shape.device is not None and (of_device := limits.device(shape.device)) is not None
    }


def _placed(cell: Mapping[str, Any], shape: Shape, limits: DeviceLimits) -> dict[str, Any]:
    """A cell's traffic and work beside its limits."""
    batch, latency_s = int(cell["batch_size"]), cell["latency_median_ms"] / 1e3
    prompt = cell["prompt_tokens_compute_median"] / batch
    steps = cell[BUDGET] or 0
    works = {
        "prefill": (1, prompt * batch, prefill(shape.model, batch=batch, prompt=prompt, kv_bytes=shape.kv_bytes)),
        # Step i attends to the prompt and i generated tokens: on average to (steps + 1) / 2 of them.
        "kv_decode": (steps, steps * batch, decode_step(shape.model, batch=batch, context=prompt + (steps + 1) / 2,
                                                        kv_bytes=shape.kv_bytes)),
    }  # fmt: skip
    parts = [works[phase] for phase in _PHASES[cell["mode"]]]
    arithmetic = limits.gflop_per_s(shape.dtype)
    tokens = sum(each for _, each, _ in parts)
    moved = sum(times * work.bytes for times, _, work in parts)
    computed = sum(times * work.flops for times, _, work in parts)
    reading_s = [_seconds(times * work.bytes, limits.read_at(work.bytes)) for times, _, work in parts]
    computing_s = [_seconds(times * work.flops, arithmetic) for times, _, work in parts]
    shares = {name: _share(seconds, latency_s) for name, seconds in ((BANDWIDTH, reading_s), (COMPUTE, computing_s))}
    one = parts[0][2] if len(parts) == 1 else None
    row = {
        "device": shape.device,
        "dtype": shape.dtype,
        "latency_median_ms": cell["latency_median_ms"],
        "tokens": tokens,
        "bytes_per_token": moved / tokens,
        "flops_per_token": computed / tokens,
        "working_set_mb": max(work.bytes for _, _, work in parts) / 1e6,
        "bandwidth_gb_per_s": moved / latency_s / 1e9,
        "compute_gflop_per_s": computed / latency_s / 1e9,
        "limit_gb_per_s": None if one is None else limits.read_at(one.bytes),
        "limit_gflop_per_s": arithmetic,
        "bandwidth_share": shares[BANDWIDTH],
        "compute_share": shares[COMPUTE],
    }
    wall = wall_of(shares[BANDWIDTH], shares[COMPUTE])
    return row | {
        "wall": wall,
        "evidence": _evidence(row, wall),
        "above_the_roof": _above(shares, limits, max((work for _, _, work in parts), key=lambda each: each.bytes)),
    }


def wall_of(bandwidth_share: float | None, compute_share: float | None) -> str | None:
    """The limit with the larger share where that is at least `WALL_SHARE`, else overhead; ``None`` without shares."""
    shares = {BANDWIDTH: bandwidth_share, COMPUTE: compute_share}
    known = {name: share for name, share in shares.items() if share is not None}
    if len(known) < len(shares):
        return None
    name = max(known, key=lambda each: known[each])
    return name if known[name] >= WALL_SHARE else OVERHEAD


def _seconds(amount: float, giga_per_s: float | None) -> float | None:
    return None if not giga_per_s else amount / (giga_per_s * 1e9)


def _share(parts: list[float | None], latency_s: float) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) / latency_s if len(known) == len(parts) else None


def _evidence(row: Mapping[str, Any], wall: str | None) -> str:
    """The figures that decided, in words."""
    if wall is None:
        return f"no limit of {row['dtype']} arithmetic was measured on {row['device']}"
    reading, computing = (row["latency_median_ms"] * row[f"{each}_share"] for each in (BANDWIDTH, COMPUTE))
    return (
        f"of {row['latency_median_ms']:.3g} ms, reading takes {reading:.3g} ms at the machine's bandwidth "
        f"({row['bandwidth_share']:.1%}), {row['dtype']} arithmetic {computing:.3g} ms at its rate "
        f"({row['compute_share']:.1%})"
    )


def _above(shares: Mapping[str, float | None], limits: DeviceLimits, work: Work) -> str | None:
    """Why a cell does better than the limit; ``None`` where it doesn't."""
    over = [name for name, share in shares.items() if share is not None and share > 1]
    if not over:
        return None
    reasons = []
    if BANDWIDTH in over:
        smallest, largest = limits.read[0], limits.read[-1]
        rate = limits.read_at(work.bytes)
        if work.bytes < smallest.working_set_bytes:
            reasons.append(
                f"its {work.bytes / 1e6:.3g} MB are less than the smallest working set measured "
                f"({smallest.working_set_bytes / 1e6:.3g} MB), and fit caches that are faster"
            )
        elif rate is not None and rate > 1.25 * largest.gb_per_s.median:
            reasons.append(
                f"its {work.bytes / 1e6:.3g} MB lie partly in a cache (the curve is at {rate:.3g} GB/s there, and at "
                f"{largest.gb_per_s.median:.3g} in memory): the same weights stay hot from step to step"
            )
        else:
            reasons.append(
                "the cell reads faster than the curve did at this size: the machine was busier when its limits were "
                "measured, or its cache held more of the weights (phaselaw host --refresh on an idle machine)"
            )
    if COMPUTE in over:
        reasons.append(
            "its arithmetic is faster than the matrix products measured: another number format inside (quantised "
            "weights), another library, or a busier machine when the limits were measured"
        )
    return "; ".join(reasons)
