"""A small run made by hand, for checks of its rows: exact latencies, a call an entry."""

from pathlib import Path
from typing import Any

import polars as pl

from false_alarms import checked
from phaselaw.laws.checks.frame import CheckResult
from phaselaw.records import Run
from phaselaw.rundir.read import normalised

PHASES = ("prefill", "kv_decode", "e2e_kv")


def call(at: int, **changes: Any) -> list[dict[str, Any]]:
    """The three rows of a call: prefill 1.2 steps of 10 ms, 64 steps of decode; ``changes`` are of all three."""
    shared = {
        "backend": "b", "backend_kind": "ollama", "model": "m", "scenario": "s", "status": "ok", "batch_size": 1,
        "params_millions_measured": 100.0, "params_millions_config": None, "gen_tokens_target": 64,
        "gen_tokens_raw": 64, "kv_decode_ms": 640.0, "prefill_ms": 12.0, "prompt_tokens_raw": 20, "prompt_chars": 80,
        "is_warmup": False, "rep": at, "call_idx": at, "error": None, "prompt": "x",
    } | changes  # fmt: skip
    latencies = (shared["prefill_ms"], shared["kv_decode_ms"], shared["prefill_ms"] + shared["kv_decode_ms"])
    return [shared | {"mode": mode, "latency_ms": ms} for mode, ms in zip(PHASES, latencies, strict=True)]


def run_of(
    rows: list[dict[str, Any]], models: list[dict[str, Any]] = (), manifest: dict[str, Any] | None = None
) -> Run:
    """The rows as a run that is read for analysis."""
    table = pl.DataFrame(rows, infer_schema_length=None)
    return Run(
        path=Path("small"), rows=normalised(table, where="small"), models=pl.DataFrame(models), manifest=manifest
    )


def outcome(run: Run, check: str) -> CheckResult:
    """What one check says of a run."""
    [found] = [each for each in checked(run) if each.check == check]
    return found
