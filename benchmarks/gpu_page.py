"""The page ``gpu.md``: what ran on a GPU machine and what failed, laws beside TR121's, limits, event gaps, memory.

It is made from the run directories and the logs as they are at that moment; what is not there is said to be absent.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

OK, FAILED, STOPPED, LEFT_OUT = "ok", "failed", "stopped", "left out"
RUNS = {
    "ladder": "TR121's ladder, 64 tokens",
    "batch8": "batch 1 beside batch 8",
    "gen512": "512 tokens",
    "larger": "larger models, random weights",
}
PHASES = {"prefill": "prefill", "kv_decode": "decode", "e2e_kv": "end to end"}

TR121_LAWS: dict[tuple[str, str, str], tuple[float | None, float, str]] = {
    ("ladder", "hf_gpu_fp16", "prefill"): (0.0338, 0.0337, "not identifiable"),
    ("ladder", "hf_gpu_fp16", "kv_decode"): (0.0426, 0.0609, "not identifiable"),
    ("ladder", "hf_gpu_fp16", "e2e_kv"): (0.0427, 0.0609, "not identifiable"),
    ("batch8", "hf_gpu_fp16_bs1", "prefill"): (None, 0.012, ""),
    ("batch8", "hf_gpu_fp16_bs8", "prefill"): (None, 0.342, ""),
    ("batch8", "hf_gpu_fp16_bs1", "kv_decode"): (None, 0.138, ""),
    ("batch8", "hf_gpu_fp16_bs8", "kv_decode"): (None, 0.201, ""),
    ("gen512", "hf_gpu_fp16", "kv_decode"): (0.077, 0.154, ""),
    ("gen512", "hf_gpu_fp16", "e2e_kv"): (0.077, 0.154, ""),
}
"""Slope, R2 and verdict (its bootstrap interval holds 0) as TR121 prints them (sections 1, 4.4, 4.4.1)."""
TR121_EVENT_GAPS = {"prefill": 0.0094, "kv_decode": 0.00013, "e2e_kv": 0.00031}
"""Median of ``|wall - event| / wall`` on TR121's GPU (2.2.1)."""

Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Part:
    """What became of a part."""

    name: str
    status: str
    seconds: float
    said: str
    failures: tuple[str, ...] = ()
    """The tests that failed, with their reasons."""


def page(runs: Path, limits: Path, parts: Sequence[Part], *, dry: bool) -> str:
    """The page as Markdown."""
    sections = (
        _head(runs, limits, dry=dry),
        _parts(runs, parts),
        _limits(limits),
        _laws(runs),
        _bandwidth(runs),
        _event_gaps(runs),
        _memory(runs),
        _larger(runs),
    )
    return "\n".join(line for section in sections for line in (*section, "")).rstrip() + "\n"


def _head(runs: Path, limits: Path, *, dry: bool) -> Iterator[str]:
    yield "# A GPU, measured in one command"
    yield ""
    if dry:
        yield "**Dry: the same steps, tiny, on a CPU in float32. No figure on this page is a GPU's.**"
        yield ""
    host = (_printed(limits) or {}).get("host") or {}
    gpus = ", ".join(f"{each['name']} ({each['memory']}, driver {each['driver']})" for each in host.get("gpus") or [])
    libraries = ", ".join(f"{name} {version}" for name, version in (host.get("libraries") or {}).items())
    yield f"- GPU: {gpus or 'none'}; processor: {host.get('cpu_model') or platform.machine()}"
    yield f"- Python {platform.python_version()}; {libraries or 'libraries: the part host did not run'}"
    for name in RUNS:
        for engine in _json(runs / name / "manifest.json").get("engines") or []:
            told = engine["settings"]
            yield (
                f"- {name}, {engine['name']}: device {told.get('device_name', told['device'])}, {told['dtype']}, "
                f"CUDA {told.get('cuda', 'none')}, TF32 in matrix products: "
                f"{told.get('tf32_in_matrix_products', 'no CUDA device')}, float32 precision: "
                f"{told['float32_matmul_precision']}, attention: {', '.join(told['attention'])}"
            )


def _parts(runs: Path, parts: Sequence[Part]) -> Iterator[str]:
    yield "## What ran"
    yield ""
    rows = [(each.name, each.status, f"{each.seconds:.0f}", each.said) for each in parts]
    yield from table(("part", "", "seconds", "its last words"), rows)
    yield ""
    for each in parts:
        yield from (f"- {each.name}: {line}" for line in each.failures)
    for name in RUNS:
        failed: dict[str, int] = defaultdict(int)
        for row in _csv(runs / name / "metrics.csv"):
            if row["status"] != "ok":
                failed[f"{row['backend']}, {row['model']}: {row.get('error') or row['status']}"] += 1
        yield from (f"- {name}, {count} rows: {what}" for what, count in failed.items())


def _limits(limits: Path) -> Iterator[str]:
    yield "## What the machine can do"
    yield ""
    devices = ((_printed(limits) or {}).get("limits") or {}).get("devices") or {}
    rows = []
    for name, each in devices.items():
        products = {one["dtype"]: f"{one['gflop_per_s']['median'] / 1e3:.3g}" for one in each["compute"]}
        read = f"{each['read'][-1]['gb_per_s']['median']:.4g}" if each["read"] else ""
        copy = f"{each['copy']['gb_per_s']['median']:.4g}" if each["copy"] else ""
        rows.append((name, each["name"], read, copy, *(products.get(dtype, "") for dtype in ("bf16", "fp16", "fp32"))))
    yield from table(
        ("device", "", "read GB/s", "copy GB/s (read + written)", "bf16 TFLOP/s", "fp16 TFLOP/s", "fp32 TFLOP/s"), rows
    )


def _laws(runs: Path) -> Iterator[str]:
    yield "## Laws by phase, beside TR121's"
    yield ""
    yield "Latency grows as parameters^exponent; in brackets the 95 % t interval over models."
    yield ""
    rows = []
    for name, title in RUNS.items():
        for fit in _csv(runs / name / "analysis" / "scaling_fits.csv"):
            if (fit["scenario"] == "__all__") == (name == "larger"):
                continue  # of the larger models each prompt stands for itself
            exponent, r2, verdict = TR121_LAWS.get((name, fit["backend"], fit["mode"]), (None, None, ""))
            where = fit["backend"] if fit["scenario"] == "__all__" else f"{fit['backend']}, {fit['scenario']}"
            rows.append((
                title, where, PHASES[fit["mode"]], fit["n_models"], _number(fit["slope"]),
                f"[{_number(fit['slope_t_ci_low'])}, {_number(fit['slope_t_ci_high'])}]", _number(fit["r2"]),
                fit["verdict"].partition(" (rests on ")[0], _number(exponent), _number(r2), verdict,
            ))  # fmt: skip
    head = ("run", "backend", "phase", "models", "exponent", "95 % interval", "R2", "verdict")
    yield from table((*head, "TR121's exponent", "its R2", "its verdict"), rows)


def _bandwidth(runs: Path) -> Iterator[str]:
    yield "## Share of the bandwidth limit"
    yield ""
    yield "Of decode: the time that reading the weights and the cache would take at the device's read bandwidth, over"
    yield "the time that it took; the median over scenarios."
    yield ""
    cells: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for name in RUNS:
        for row in _csv(runs / name / "analysis" / "physical_limit.csv"):
            if row["mode"] == "kv_decode" and row["bandwidth_share"]:
                cells[name, row["backend"], row["model"]].append(row)
    rows = [
        (*key, f"{median(float(row['bandwidth_share']) for row in found):.1%}", _words(found, "wall"))
        for key, found in cells.items()
    ]
    yield from table(("run", "backend", "model", "share", "wall"), rows)


def _event_gaps(runs: Path) -> Iterator[str]:
    yield "## Wall clock against CUDA events"
    yield ""
    rows = []
    for name in RUNS:
        for row in _csv(runs / name / "analysis" / "cuda_event_gap_summary.csv"):
            if row["is_warmup"] in {"false", "False"}:
                theirs = TR121_EVENT_GAPS[row["mode"]]
                rows.append((
                    name, row["backend"], PHASES[row["mode"]], row["n"], f"{float(row['rel_gap_median']):.3%}",
                    f"{float(row['rel_gap_p95']):.3%}", f"{theirs:.3%}" if name == "ladder" else "",
                ))  # fmt: skip
    yield from table(("run", "backend", "phase", "calls", "median gap", "p95", "TR121's median"), rows)


def _memory(runs: Path) -> Iterator[str]:
    yield "## Peak memory of the GPU"
    yield ""
    rows = []
    for name in RUNS:
        found = [each for each in _csv(runs / name / "analysis" / "memory_peaks.csv") if each["memory"] == "GPU"]
        rows += [
            (name, row["backend"], row["model"], row["scenario"], f"{float(row['measured_mb']):,.1f}",
             *((f"{float(row['predicted_mb']):,.1f}", f"{float(row['error']):+.1%}") if row["predicted_mb"]
               else ("not known", "")))
            for row in found
        ]  # fmt: skip
    yield from table(("run", "backend", "model", "scenario", "MB measured", "predicted", "error"), rows)


def _larger(runs: Path) -> Iterator[str]:
    yield "## Larger models: launches or bandwidth"
    yield ""
    told = _json(runs / "larger" / "cells.json")
    yield "*Launches* where a CUDA graph is at least 1.25 times as fast as eager decode; else *bandwidth* where reading"
    yield "the least that a step must read takes at least half of the eager step; else *neither*."
    if told:
        read, tf32 = _number(told["read_gb_per_s"]) or "not measured", "on" if told["tf32"] else "off"
        yield f"Read bandwidth: {read} GB/s; TF32 in matrix products: {tf32}."
    yield ""
    rows = [
        (
            each["model"], f"{each['params_millions']:,.1f}", each["dtype"], each["batch"], each["prompt"],
            _number(each["prefill_ms"]), _number(each["eager_step_ms"]), _number(each["graph_step_ms"]),
            _share(each["read_share"]), _share(each["graph_read_share"]), each["governs"],
            each["no_graph"] or f"{each['same_tokens']:.0%} of tokens equal",
        )
        for each in told.get("cells") or []
    ]  # fmt: skip
    yield from table(
        ("model", "M parameters", "dtype", "batch", "prompt", "prefill ms", "eager step ms", "graph step ms",
         "of bandwidth, eager", "graph", "governs", "graph against eager"),
        rows,
    )  # fmt: skip
    for fault in told.get("faults") or []:
        yield f"- {fault}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A Markdown table, or a line that there is nothing."""
    rows = list(rows)
    if not rows:
        yield "Nothing was measured of this."
        return
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"


def _number(value: Any) -> str:
    return "" if value in {None, ""} else f"{float(value):.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _words(rows: Sequence[Row], column: str) -> str:
    return ", ".join(sorted({row[column] for row in rows}))


def _csv(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _printed(log: Path) -> dict[str, Any] | None:
    """The JSON document that ``phaselaw host --json`` printed, among whatever else stands in its log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for line in lines:
        if line.startswith("{"):
            found = json.loads(line)
            return found if isinstance(found, dict) else None
    return None
