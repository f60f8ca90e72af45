"""Does ``phaselaw compare`` hear a regression that a run's own shift is louder than, and does it cry wolf?

Runs of seven models in three scenarios, as log latencies: a shift of the whole run by 10 %, a shift of each model in a
run by at most 1 % (even), calls that scatter by 5 %, three a cell. One model, or all, are 20 % slower in B; the
threshold is 5 %. Beside it, how often anything is called a regression where nothing changed, against a threshold of 0,
the hardest, in these cells and in adverse ones: one call in twenty twice as slow, models that differ e-fold in noise, a
neighbour that slows single models, few models, one call a cell.

    python benchmarks/compare_power.py
    python benchmarks/compare_power.py --trials 500 --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence

import numpy as np

from compare_false_alarms import SCENARIOS, side
from phaselaw.laws.regression import Floats
from phaselaw.laws.regression_test import RegressionTest, regression_test

RUNS = (2, 3, 5)
RATE, POWER = 0.05, 0.90
"""The most false alarms, and the least power asked for: of one model, 2 runs against 2."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Log latency; standard deviations but where said."""

    models: int = 7
    run: float = 0.10
    own: float = 0.01
    """The most that a model moves alone in a run."""
    call: float = 0.05
    calls: int = 3
    outliers: float = 0.0
    """The share of calls that take twice as long."""
    unlike: float = 0.0
    """By which models' own noise differs, as a log standard deviation."""
    slowed: float = 0.0
    """The share of models in a run that a neighbour slows down, by 40 % on average."""


CASES = {
    "seven models": Noise(),
    "one call a cell": Noise(calls=1),
    "5 % of calls twice as slow": Noise(outliers=0.05),
    "models unlike e-fold in noise": Noise(unlike=1.0),
    "one model in fifty slowed": Noise(slowed=0.02),
    "runs alike": Noise(run=0.0),
    "models move by 5 %": Noise(own=0.05),
    "four models": Noise(models=4),
    "two models": Noise(models=2),
    "one model": Noise(models=1),
}


def latencies(rng: np.random.Generator, noise: Noise, n_runs: int) -> Floats:
    """Log latencies of calls, (runs, calls, models, scenarios): end to end."""
    n, own = noise.models, np.exp(rng.normal(0, noise.unlike, noise.models))[None, None, :, None]
    shape = (n_runs, noise.calls, n, SCENARIOS)
    run, moved = rng.normal(0, noise.run, (n_runs, 1, 1, 1)), rng.uniform(-noise.own, noise.own, (n_runs, 1, n, 1))
    slowed = (rng.random((n_runs, 1, n, 1)) < noise.slowed) * rng.exponential(0.4, (n_runs, 1, n, 1))
    calls = rng.normal(0, noise.call, shape) + math.log(2) * (rng.random(shape) < noise.outliers)
    found: Floats = run + own * moved + slowed + own * calls + math.log(100)
    return found


def compared(
    rng: np.random.Generator, noise: Noise, n_runs: int, *, slower: Floats, threshold: float
) -> RegressionTest:
    """``n_runs`` a side, B's models slower by so many log units."""
    both = latencies(rng, noise, 2 * n_runs)
    both[n_runs:] += slower[None, None, :, None]
    return regression_test(*(side(each, phases=("e2e_kv",)) for each in np.split(both, 2)), threshold=threshold)


def share(case: str, n_runs: int, *, trials: int, slower: float = 0.0, one: bool = False) -> float:
    """The share of comparisons that call a regression: of that very model where ``one``, of everything where not."""
    rng, noise = np.random.default_rng([n_runs, list(CASES).index(case), one]), CASES[case]
    moved = np.where((np.arange(noise.models) == 0) | (not one), math.log1p(slower), 0.0)
    heard = 0
    for _ in range(trials):
        told = compared(rng, noise, n_runs, slower=moved, threshold=0.05 if slower else 0.0)
        table = told.models.filter(model="m0") if one and noise.models > 2 else told.whole
        heard += bool((table["verdict"] == "slower").any()) if slower else told.n_slower > 0
    return heard / trials


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where it cries wolf as seldom, and hears as well, as is asked, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="comparisons a case (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    wolves = {case: [share(case, n, trials=args.trials) for n in RUNS] for case in CASES}
    heard = {
        f"{'one model' if one else 'everything'} + 20 %, {case}": [
            share(case, n, trials=args.trials // 2, slower=0.2, one=one) for n in RUNS
        ]
        for one in (True, False)
        for case in (*list(CASES)[:4], "runs alike")
    }
    chance = 3 * math.sqrt(RATE * (1 - RATE) / args.trials)
    power = heard["one model + 20 %, seven models"][0]
    if args.json:
        print(json.dumps({"trials": args.trials, "runs": RUNS, "false_alarms": wolves, "heard": heard}))
    else:
        for title, shares in (("false alarms (threshold 0)", wolves), ("heard (threshold 5 %)", heard)):
            print(f"{title:<52}" + "".join(f"{n:>5} runs" for n in RUNS))
            for name, values in shares.items():
                print(f"  {name:<50}" + "".join(f"{value:>10.1%}" for value in values))
    return 0 if max(map(max, wolves.values())) <= RATE + chance and power >= POWER else 1


if __name__ == "__main__":
    sys.exit(main())
