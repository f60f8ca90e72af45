"""Rows of runs made by hand, for every test: what a test does not say of a row is the same everywhere."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from false_alarms import checked
from phaselaw.laws.analysis import Context, Options
from phaselaw.laws.checks.frame import CheckResult
from phaselaw.records import PHASES, Run
from phaselaw.rundir.read import normalised

Row = dict[str, Any]


def row_of(mode: str, latency_ms: float, /, **known: Any) -> Row:
    """One row of ``metrics.csv``: a measured call's phase that is ok; ``known`` adds and changes columns."""
    usual = {
        "backend": "b", "backend_kind": "hf", "model": "m", "scenario": "s", "status": "ok", "params_millions": 1.0,
        "is_warmup": False, "rep": 0,
    }  # fmt: skip
    return usual | known | {"mode": mode, "latency_ms": latency_ms}


def phases(prefill_ms: float, decode_ms: float, /, **known: Any) -> list[Row]:
    """The three rows of a call."""
    latencies = (prefill_ms, decode_ms, prefill_ms + decode_ms)
    return [row_of(mode, ms, **known) for mode, ms in zip(PHASES, latencies, strict=True)]


def call(at: int, **known: Any) -> list[Row]:
    """A served call as a server reports it: a prefill of 1.2 steps of 10 ms, 64 steps of decode."""
    shared = {
        "backend_kind": "ollama", "batch_size": 1, "params_millions_measured": 100.0, "params_millions_config": None,
        "gen_tokens_target": 64, "gen_tokens_raw": 64, "kv_decode_ms": 640.0, "prefill_ms": 12.0,
        "prompt_tokens_raw": 20, "prompt_chars": 80, "rep": at, "call_idx": at, "error": None, "prompt": "x",
    } | known  # fmt: skip
    rows = phases(shared["prefill_ms"], shared["kv_decode_ms"], **shared)
    return [{name: value for name, value in each.items() if name != "params_millions"} for each in rows]


def hard_rows(models: int = 4, scenarios: tuple[str, ...] = ("a", "b"), reps: int = 2) -> pl.DataFrame:
    """A run to be made hard to read: latency is the square root of the parameters; one warmup, then ``reps`` calls."""
    return pl.DataFrame(
        [
            row_of(
                mode, ms, backend="x", model=f"m{model}", scenario=scenario, params_millions=10.0 * 4**model,
                tokens_per_s=1e3 / ms, is_warmup=rep < 0, rep=max(rep, 0), batch_size=1, gen_tokens_target=16,
            )
            for model in range(models)
            for scenario in scenarios
            for rep in range(-1, reps)
            for at, mode in enumerate(PHASES)
            for ms in [(10.0 * 4**model) ** 0.5 * (1 + at) * (1 + 0.01 * rep)]
        ]
    )  # fmt: skip


def table_of(rows: Iterable[Mapping[str, Any]], run: str | None = None) -> pl.DataFrame:
    """Rows as they are read for analysis."""
    table = pl.DataFrame(list(rows), infer_schema_length=None)
    return normalised(table, where="rows", **({} if run is None else {"run": run}))


def run_of(
    rows: Iterable[Mapping[str, Any]], models: Sequence[Row] | pl.DataFrame = (), manifest: Row | None = None
) -> Run:
    """Rows as a run that is read for analysis."""
    return Run(path=Path("rows"), rows=table_of(rows), models=pl.DataFrame(models), manifest=manifest or {})


def tables_of(run: Run, options: Options | None = None) -> Context:
    """The tables of a run's analysis, each computed when it is asked for, without marks of what the checks found."""
    return Context(run, options or Options())


def written(rows: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Rows as the ``metrics.csv`` of a folder, which is made."""
    folder.mkdir(exist_ok=True)
    pl.DataFrame(list(rows), infer_schema_length=None).write_csv(folder / "metrics.csv")
    return folder


def outcome(run: Run, check: str) -> CheckResult:
    """What one check says of a run."""
    [found] = [each for each in checked(run) if each.check == check]
    return found
