"""Does ``phaselaw compare`` cry wolf, and does it hear one?

Runs are simulated as log latencies of cells: a shift that all cells of a run share, one that the cells of a model in a
run share, noise of each cell in each run, and the noise of calls; in shares that are realistic and in adverse ones
(all shared, all noise, models that differ e-fold in noise, a neighbour that slows one model of a run down). Two sides
of 2, 3 and 5 runs are compared as the command compares them. Printed is how often anything at all is called a
regression: where nothing changed (against a threshold of 0, the hardest: a true ratio that lies on the threshold), and
where side B is truly slower by 10 and 20 %, whole or in one model, against the default threshold of 5 %.

    python benchmarks/compare_false_alarms.py
    python benchmarks/compare_false_alarms.py --trials 500 --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from phaselaw.laws.regression import Floats
from phaselaw.laws.regression_test import regression_test
from phaselaw.records import Run
from phaselaw.rundir.read import normalised

PHASES, SCENARIOS = ("prefill", "kv_decode", "e2e_kv"), 3
RUNS = (2, 3, 5)
RATE = 0.05
"""How often a comparison of runs of the same thing may call anything a regression."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Standard deviations of log latency, and what makes a case hard."""

    run: float = 0.0
    """A shift of all cells of a run."""
    model: float = 0.0
    """A shift of one model's cells in a run."""
    cell: float = 0.0
    """Of one cell in one run."""
    call: float = 0.01
    """Of the median of a cell's calls."""
    unlike: float = 0.0
    """By which the models' own noise differs, as a log standard deviation."""
    slowed: float = 0.0
    """The share of models in a run that a neighbour slows down, by 40 % on average."""
    models: int = 7


CASES = {
    "realistic": Noise(run=0.02, model=0.02, cell=0.02, call=0.015),
    "the run's shift is all": Noise(run=0.08, model=0.01, cell=0.01),
    "the cells' noise is all": Noise(cell=0.05, call=0.02),
    "models move together": Noise(run=0.01, model=0.08, cell=0.01),
    "noise unlike by model": Noise(run=0.02, model=0.03, cell=0.03, unlike=1.0),
    "one model in ten slowed": Noise(run=0.02, model=0.02, cell=0.02, slowed=0.1),
    "one model in fifty slowed": Noise(run=0.02, model=0.01, cell=0.01, slowed=0.02),
    "all of it": Noise(run=0.03, model=0.03, cell=0.03, call=0.02, unlike=0.5, slowed=0.03),
    "two models": Noise(run=0.03, model=0.03, cell=0.03, models=2),
    "one model": Noise(run=0.03, model=0.03, cell=0.03, models=1),
}


def latencies(rng: np.random.Generator, noise: Noise, n_runs: int) -> Floats:
    """Log latencies of (runs, phases, models, scenarios), all of the same thing."""
    n, own = noise.models, np.exp(rng.normal(0, noise.unlike, noise.models))[None, None, :, None]
    of_run = rng.normal(0, noise.run, (n_runs, 1, 1, 1))
    slowed = (rng.random((n_runs, 1, n, 1)) < noise.slowed) * rng.exponential(0.4, (n_runs, 1, n, 1))
    of_model = rng.normal(0, noise.model, (n_runs, 1, n, 1)) + slowed
    shape = (n_runs, len(PHASES), n, SCENARIOS)
    found: Floats = (
        of_run + own * (of_model + rng.normal(0, noise.cell, shape)) + rng.normal(0, noise.call, shape) + math.log(100)
    )
    return found


def side(log_latency: Floats, phases: Sequence[str] = PHASES) -> Run:
    """Simulated cells as the rows of pooled runs, one call a cell; without phases, axis 1 is calls of the one."""
    runs, second, models, scenarios = (axis.ravel() for axis in np.indices(log_latency.shape))
    rows = pl.DataFrame(
        {
            "run": [f"r{index}" for index in runs],
            "mode": [phases[int(index)] for index in second] if len(phases) > 1 else list(phases) * len(runs),
            "model": [f"m{index}" for index in models],
            "scenario": [f"s{index}" for index in scenarios],
            "latency_ms": np.exp(log_latency).ravel(),
        }
    ).with_columns(backend=pl.lit("cpu"), backend_kind=pl.lit("hf"), status=pl.lit("ok"), params_millions=pl.lit(1.0))
    whole = normalised(rows.drop("run"), where="simulated").with_columns(rows["run"])
    return Run(path=Path("simulated"), rows=whole, models=pl.DataFrame(), manifest={})


def alarms(
    case: str, n_runs: int, *, trials: int, threshold: float = 0.05, slower: float = 0.0, one_model: bool = False
) -> float:
    """The share of comparisons of ``n_runs`` a side that call anything a regression.

    ``slower`` is how much slower B truly is, ``one_model`` whether only one model is.
    """
    rng = np.random.default_rng([n_runs, sorted(CASES).index(case)])
    found = 0
    for _ in range(trials):
        both = latencies(rng, CASES[case], 2 * n_runs)
        changed = slice(0, 1) if one_model else slice(None)
        both[n_runs:, :, changed] += math.log1p(slower)
        told = regression_test(side(both[:n_runs]), side(both[n_runs:]), threshold=threshold)
        found += told.n_slower > 0
    return found / trials


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where no case cries wolf more often than is stated, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="comparisons a case (default: 400)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    wolves = {case: [alarms(case, n, trials=args.trials, threshold=0.0) for n in RUNS] for case in CASES}
    power = {
        f"{slower:.0%} slower, {'one model' if one else 'all of it'}": [
            alarms("realistic", n, trials=args.trials // 4, slower=slower, one_model=one) for n in RUNS
        ]
        for slower in (0.1, 0.2)
        for one in (False, True)
    }
    # A share of so many trials that lies above this is above the stated rate by more than chance.
    most = RATE + 3 * math.sqrt(RATE * (1 - RATE) / args.trials)
    if args.json:
        print(json.dumps({"trials": args.trials, "runs": RUNS, "false_alarms": wolves, "found": power}))
    else:
        for title, shares in (("false alarms (nothing changed)", wolves), ("found (realistic noise)", power)):
            print(f"{title:<32}" + "".join(f"{n:>6} runs" for n in RUNS))
            for name, values in shares.items():
                print(f"  {name:<30}" + "".join(f"{value:>11.1%}" for value in values))
    return 0 if max(max(values) for values in wolves.values()) <= most else 1


if __name__ == "__main__":
    sys.exit(main())
