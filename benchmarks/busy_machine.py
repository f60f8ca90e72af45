"""False alarms of *busy machine* on a quiet machine, and what it makes of a run that was disturbed for half its time.

    python benchmarks/busy_machine.py [RUNS]      100 short runs by default: about 10 minutes, on a quiet machine

Runs are of the smallest models of the ladder, in process. The disturbed run has a second process that takes all cores
for half of its rounds; the figures without its disturbed calls are held against a quiet run's.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from phaselaw import api
from phaselaw.laws.disturbed import BUSY, disturbed_calls
from phaselaw.laws.summary import usable
from phaselaw.machine.neighbours import Neighbours
from phaselaw.measure import begin, replicates
from phaselaw.records import Call, Run
from phaselaw.study.file import load_study

WITHIN = 1.1
"""Figures without disturbed calls are right where they are within this factor of a quiet run's."""


def run(folder: Path, repetitions: int, disturb: Callable[[float], None] | None = None) -> Run:
    """Measure two small models on two prompts; ``disturb`` is called after each call with the share of calls done."""
    models, scenarios = ("models/tiny-gpt2", "models/gpt2-5m"), ("micro", "short")
    settings = [f"repetitions={repetitions}", "replicates=1"]
    study = load_study("gpt2-ladder-cpu", settings=settings, models=models, scenarios=scenarios)
    with begin.new_run(study, out=folder, argv=[], asked={}, available=False, tell=print) as directory:
        list(begin.prepare_models(directory.study))
        todo, _, events = replicates.measure_run(directory, lambda: False)
        done = 0
        for event in events:
            if isinstance(event, Call):
                done += 1
                if disturb is not None:
                    disturb(done / len(todo))
        directory.finish("complete")
    return api.load(folder).run


def medians(rows: pl.DataFrame) -> dict[tuple[str, ...], float]:
    """End-to-end medians of each cell."""
    cells = rows.filter(mode="e2e_kv").group_by("model", "scenario").agg(pl.col("latency_ms").median())
    return {row[:2]: row[2] for row in cells.iter_rows()}


def spin() -> None:
    """Take one core."""
    while True:
        pass


class Crowd:
    """As many spinning processes as there are cores, in the second half of a run."""

    def __init__(self) -> None:
        self.workers: list[multiprocessing.Process] = []

    def __call__(self, share: float) -> None:
        if share >= 0.5 and not self.workers:
            self.workers = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
            for each in self.workers:
                each.start()
        if share >= 1:
            self.stop()

    def stop(self) -> None:
        """End them."""
        for each in self.workers:
            each.kill()
            each.join()


def cost_us() -> tuple[float, float]:
    """Microseconds of the readings beside one call, in process and of a server."""
    neighbours = Neighbours()
    neighbours.serves("server", None)
    found = []
    for backend in ("in process", "server"):
        begun = time.perf_counter()
        for _ in range(500):
            neighbours.before(backend)
            neighbours.after(backend)
        found.append((time.perf_counter() - begun) / 500 * 1e6)
    return found[0], found[1]


def main(runs: int) -> None:
    """Print what stands in the module's docstring."""
    print("microseconds beside a call, in process and of a server:", "{:.0f}, {:.0f}".format(*cost_us()))
    with tempfile.TemporaryDirectory() as folder:
        alarms = 0
        for number in range(runs):
            rows = usable(run(Path(folder) / str(number), 5).rows)
            alarms += BUSY in disturbed_calls(rows)["check"].to_list()
        print(
            f"busy machine found in {alarms} of {runs} short runs with no work but ours (at most 3 of 100 are allowed)"
        )
        quiet, crowd = usable(run(Path(folder) / "quiet", 20).rows), Crowd()
        try:
            crowded = usable(run(Path(folder) / "crowded", 20, crowd).rows)
        finally:
            crowd.stop()
    calls = disturbed_calls(crowded).filter(check=BUSY)
    print(f"disturbed for half a run: {calls.height} of {crowded.filter(mode='e2e_kv').height} calls found")
    left = medians(crowded.join(calls, on=["run", "call_idx"], how="anti"))
    for cell, whole in medians(crowded).items():
        without, alone = left.get(cell, math.nan), medians(quiet)[cell]
        verdict = "right" if max(without / alone, alone / without) <= WITHIN else "OFF"
        print(
            f"{', '.join(cell)}: {whole:.1f} ms with them, {without:.1f} without, {alone:.1f} in a quiet run: {verdict}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
