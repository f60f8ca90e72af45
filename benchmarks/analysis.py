"""Time and memory of an analysis by the number of rows, beside the straightforward way, in the same run.

A CSV in TR121's format (44 columns, prompts among them) of 36 groups (4 backends, 3 phases, 3 scenarios) of 12 models
is read, summarised and fitted with 10,000 resamples: by phaselaw, and by the straightforward way, pandas groups and a
loop of ``scipy.stats.linregress``. Each is measured in a process of its own, after its imports; the loop does fewer
resamples and is scaled to 10,000, which it takes in proportion. Printed as well are the resampling alone and the whole
of ``phaselaw analyze``, every table and check.

    python benchmarks/analysis.py
    python benchmarks/analysis.py --rows 10000 1000000 --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import polars as pl

from phaselaw.rundir.columns import TR121_COLUMNS

BACKENDS, SCENARIOS, MODELS = 4, 3, 12
MODES = ("prefill", "kv_decode", "e2e_kv")
GROUPS = BACKENDS * SCENARIOS * len(MODES)
DRAWS = 10_000
MOST_SECONDS, MOST_BYTES, LEAST_RATIO = 3.0, 1e9, 200.0
CALLS_A_PIECE = 60_000

PROMPTS = (
    "Hi",
    "Summarize RLHF in one sentence.",
    "Explain, for an engineer who knows the basics, how a key-value cache changes the cost of generating text.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds, seconds of processor time over all cores, and the process's peak memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def write_rows(path: Path, rows: int) -> None:
    """``rows`` rows, a call's three phases one after another, written in pieces."""
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for first in range(0, math.ceil(rows / 3), CALLS_A_PIECE):
            calls = np.arange(first, min(first + CALLS_A_PIECE, math.ceil(rows / 3)))
            piece = _piece(calls, rng).head(rows - 3 * first)
            piece.write_csv(file, include_header=first == 0)


def _piece(calls: np.ndarray[Any, np.dtype[np.int64]], rng: np.random.Generator) -> pl.DataFrame:
    backend, scenario = calls % BACKENDS, calls // BACKENDS % SCENARIOS
    model, rep = calls // (BACKENDS * SCENARIOS) % MODELS, calls // (BACKENDS * SCENARIOS * MODELS)
    params = 5.0 * 2.0**model
    prefill = (1 + backend) * params**0.4 * np.exp(rng.normal(0, 0.05, len(calls)))
    decode = 20 * (1 + backend) * params**0.4 * np.exp(rng.normal(0, 0.03, len(calls)))
    tokens = {"prefill": 19, "kv_decode": 64, "e2e_kv": 83}
    shared = pl.DataFrame(
        {
            "task_idx": backend + BACKENDS * scenario, "scenario": np.array(["micro", "short", "medium"])[scenario],
            "backend": np.char.add("backend_", backend.astype(str)), "model": np.char.add("m-", model.astype(str)),
            "params_millions": params, "params_millions_config": params, "params_millions_measured": params,
            "prompt": np.array(PROMPTS)[scenario], "call_idx": calls, "is_warmup": rep == 0, "rep": rep,
            "started_at_unix": 1_766_553_740.5 + calls, "prefill_ms": prefill, "kv_decode_ms": decode,
        }
    ).with_columns(
        pl.lit("hf").alias("backend_kind"), pl.lit("hf").alias("model_kind"), pl.lit("ok").alias("status"),
        *(pl.lit(1).alias(name) for name in ("batch_size", "batch_size_config")),
        *(pl.lit(19).alias(name) for name in ("seq_len", "prompt_tokens_raw", "prompt_chars")),
        *(pl.lit(64).alias(name) for name in ("gen_tokens_target", "gen_tokens_raw")),
    )  # fmt: skip
    latencies = {"prefill": prefill, "kv_decode": decode, "e2e_kv": prefill + decode}
    phases = [
        shared.with_columns(
            pl.lit(mode).alias("mode"), pl.Series("sample_idx", 3 * calls + at),
            pl.Series("latency_ms", latencies[mode]), pl.lit(tokens[mode]).alias("tokens_total"),
            pl.lit(0 if at == 0 else 64).alias("gen_tokens"),
            pl.Series("tokens_per_s", 1e3 * tokens[mode] / latencies[mode]),
        )
        for at, mode in enumerate(MODES)
    ]  # fmt: skip
    empty = [pl.lit(None, dtype=pl.String).alias(name) for name in TR121_COLUMNS if name not in phases[0].columns]
    return pl.concat(phases).sort("sample_idx").with_columns(empty).select(TR121_COLUMNS)


def ours(path: Path) -> float:
    """Read, summarised and fitted by phaselaw; seconds."""
    from phaselaw.laws import summary
    from phaselaw.laws.noise import points_of, units_of
    from phaselaw.laws.options import Options
    from phaselaw.laws.scaling import scaling_fits
    from phaselaw.rundir import read as runs

    begun = perf_counter()
    run = runs.load(path)
    rows = summary.usable(run.rows)
    cells = summary.by_cell(rows)
    per_model = summary.by_model(cells)
    replicates = units_of(rows, in_rounds=run.order == "rounds").for_laws
    fits = scaling_fits(points_of(cells, per_model), replicates, Options(draws=DRAWS))
    seconds = perf_counter() - begun
    of_scenarios = fits.filter(pl.col("aggregation") == "scenario")
    assert of_scenarios.height == GROUPS and of_scenarios["n_models"].unique().to_list() == [MODELS]
    return seconds


def whole(path: Path) -> float:
    """Every table and check of ``phaselaw analyze``; seconds."""
    from phaselaw.laws.analysis import Options, analyze
    from phaselaw.rundir import read as runs

    begun = perf_counter()
    analyze(runs.load(path), Options(draws=DRAWS))
    return perf_counter() - begun


def straightforward(path: Path) -> float:
    """The same by pandas and a loop of `scipy.stats.linregress` without resamples; seconds."""
    import pandas
    from scipy.stats import linregress

    begun = perf_counter()
    table = pandas.read_csv(path)
    table = table[(table["status"] == "ok") & ~table["is_warmup"] & (table["latency_ms"] > 0)]
    keys = ["backend", "mode", "scenario", "model", "params_millions_measured"]
    statistics = table.groupby(keys)["latency_ms"].agg(
        ["count", "mean", "median", lambda x: x.quantile(0.95), lambda x: x.quantile(0.99)]
    )
    cells = statistics.reset_index()
    for _, group in cells.groupby(["backend", "mode", "scenario"]):
        linregress(np.log10(group["params_millions_measured"]), np.log10(group["median"]))
    return perf_counter() - begun


def _laws() -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    x = np.tile(np.log10(5.0 * 2.0 ** np.arange(MODELS)), (GROUPS, 1))
    return x, 0.4 * x + rng.normal(0, 0.1, x.shape)


def resampling_ours() -> float:
    """Bootstrap intervals of slope and intercept of all groups over `DRAWS` resamples; seconds."""
    from phaselaw.laws.regression import bootstrap_lines, quantile_interval, resamples

    x, y = _laws()
    begun = perf_counter()
    counts = resamples(MODELS, DRAWS, 42)
    for own, mine in zip(x, y, strict=True):
        quantile_interval(bootstrap_lines(own, mine, counts), 0.95)
    return perf_counter() - begun


def resampling_straightforward(draws: int) -> float:
    """The same by a loop, over ``draws`` resamples, scaled to `DRAWS`; seconds."""
    from scipy.stats import linregress

    x, y = _laws()
    rng = np.random.default_rng(42)
    begun = perf_counter()
    for group in range(GROUPS):
        fits = []
        for _ in range(draws):
            drawn = rng.integers(0, MODELS, MODELS)
            fit = linregress(x[group][drawn], y[group][drawn])
            fits.append((fit.slope, fit.intercept))
        np.quantile(fits, [0.025, 0.975], axis=0)
    return (perf_counter() - begun) * DRAWS / draws


OF_A_FILE: dict[str, Callable[[Path], float]] = {"phaselaw": ours, "whole": whole, "straightforward": straightforward}


def in_process(what: str, path: Path) -> Measured:
    """One measurement in a fresh process; the first call of all warms the file's cache."""
    # A shell forks it: what this process starts itself would count this process's peak memory as its own.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, __file__, "--measure", what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout))


def compare(sizes: Sequence[int], loop_draws: int) -> dict[str, Any]:
    """Everything that is printed."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / "metrics.csv"
            write_rows(path, size)
            rows[size] = {what: dataclasses.asdict(in_process(what, path)) for what in OF_A_FILE}
            rows[size]["file"] = {"bytes": path.stat().st_size}
    ours_s = min(resampling_ours() for _ in range(5))
    loop_s = resampling_straightforward(loop_draws)
    resampling = {"phaselaw_s": ours_s, "straightforward_s": loop_s, "ratio": loop_s / ours_s, "loop_draws": loop_draws}
    return {"groups": GROUPS, "models": MODELS, "draws": DRAWS, "rows": rows, "resampling": resampling}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 within the limits (of a million rows, where measured), else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--loop-draws", type=int, default=500, metavar="N", help="resamples of the loop (default: 500)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "PATH"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        before = process_time()
        seconds = OF_A_FILE[args.measure[0]](Path(args.measure[1]))
        cpu = process_time() - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}))
        return 0
    found = compare(args.rows, args.loop_draws)
    if args.json:
        print(json.dumps(found))
    else:
        _print(found)
    million = found["rows"].get(1_000_000, {}).get("phaselaw", {"seconds": 0.0, "peak_bytes": 0})
    within = million["seconds"] < MOST_SECONDS and million["peak_bytes"] < MOST_BYTES
    return 0 if within and found["resampling"]["ratio"] >= LEAST_RATIO else 1


def _print(found: dict[str, Any]) -> None:
    print(f"{found['groups']} groups of {found['models']} models; {found['draws']:,} resamples; 1 MB is 10^6 bytes\n")
    print("| rows | file | read, summarised and fitted | straightforward, no resamples | the whole analysis |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for rows, by in found["rows"].items():
        figures = [
            f"{by[what]['seconds']:.2f} s (CPU {by[what]['cpu_seconds']:.2f} s), {by[what]['peak_bytes'] / 1e6:,.0f} MB"
            for what in ("phaselaw", "straightforward", "whole")
        ]
        print(f"| {rows:,} | {by['file']['bytes'] / 1e6:,.0f} MB | " + " | ".join(figures) + " |")
    of = found["resampling"]
    print(
        f"\nresampling alone: phaselaw {of['phaselaw_s']:.3f} s, the loop {of['straightforward_s']:.1f} s "
        f"(scaled from {of['loop_draws']:,} resamples): {of['ratio']:,.0f} x"
    )


if __name__ == "__main__":
    sys.exit(main())
