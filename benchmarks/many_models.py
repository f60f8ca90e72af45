"""Time, memory and page of one ``phaselaw report`` by the number of models: an imported table of 12 rows a model.

    python benchmarks/many_models.py --models 500 3000 --scenarios 1000

Each report is a process of its own, its imports among what is timed; last comes one of few models and many scenario
names. Latency is a power of the size with scatter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

PHASES = ("prefill", "kv_decode", "e2e_kv")


def write_rows(folder: Path, models: int, scenarios: int) -> None:
    """Two calls a cell."""
    rng = np.random.default_rng(1)
    sizes = 10 * np.exp(8 * rng.random(models))
    of_model, scenario, rep, phase = (axis.ravel() for axis in np.indices((models, scenarios, 2, 3)))
    calls = rng.normal(0, 0.03, (models, scenarios, 2, 1)) + rng.normal(0, 0.2, (models, 1, 1, 1))
    latency = (
        (5 + 0.3 * sizes)[of_model] * (1 + phase) * np.exp(np.broadcast_to(calls, (models, scenarios, 2, 3)).ravel())
    )
    names = {"backend": "b", "backend_kind": "hf", "status": "ok", "batch_size": 1, "gen_tokens_target": 16}
    table = pl.DataFrame(
        {"model": of_model, "scenario": scenario, "mode": phase, "rep": rep, "latency_ms": latency}
        | {
            "params_millions": sizes[of_model],
            "prompt_tokens_raw": 10 + scenario % 90,
            "tokens_total": 26 + scenario % 90,
        }
    ).with_columns(
        *(pl.format(f"{letter}{{}}", name).alias(name) for letter, name in (("m", "model"), ("s", "scenario"))),
        pl.col("mode").replace_strict(dict(enumerate(PHASES)), return_dtype=pl.String),
        *(pl.lit(value).alias(name) for name, value in names.items()),
    )
    table.write_csv(folder / "metrics.csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Report each, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="*", default=[500, 3000], help="each with two scenarios")
    parser.add_argument("--scenarios", type=int, nargs="*", default=[], help="each of four models")
    args = parser.parse_args(argv)
    print("| models | scenarios | rows | CPU s | MB | page (MB) |\n| --- | --- | --- | --- | --- | --- |")
    for models, scenarios in (*((n, 2) for n in args.models), *((4, n) for n in args.scenarios)):
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder), models, scenarios)
            process = subprocess.Popen([sys.executable, "-m", "phaselaw", "report", folder], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            page = (Path(folder) / "report.html").stat().st_size / 1e6
        cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        rows = models * scenarios * 6
        print(f"| {models:,} | {scenarios:,} | {rows:,} | {cpu:.1f} | {memory:,.0f} | {page:.2f} |", flush=True)
        if process.returncode != 0:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
