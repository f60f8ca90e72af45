"""How often does the interval of ``phaselaw predict`` hold the latency of a model that was not measured?

Families of models are drawn (parameters over three decades, layers and width that go with them to some degree) under a
law in parameters, in parameters and layers, in layers, or in none, each model off its law by a random factor. One model
inside the range of the others is left out and predicted from the others, by each law and by the one that is chosen for
its least leave-one-out error. Printed is the share of 95 % intervals that hold, and the median reach of an interval
to either side, a factor: of each law by itself, of the chosen one as it is printed, and of the chosen one had its
interval not been charged for the choice.

    python benchmarks/prediction_coverage.py
    python benchmarks/prediction_coverage.py --trials 500 --json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence

import numpy as np
import polars as pl

from phaselaw.laws.prediction import PROPERTIES, fitted_laws, outside_range

LEVEL, LEAST, MOST = 0.95, 0.93, 0.97
TRUTHS = {"parameters": (0.5, 0.0), "parameters, layers": (0.5, 0.5), "layers": (0.0, 0.7), "none": (0.0, 0.0)}
"""Exponents of parameters and of layers."""
MODELS = (4, 5, 7, 12)
SCATTER = 0.2
"""Standard deviation of log latency of models about their law."""


def family(rng: np.random.Generator, n: int, exponents: tuple[float, float]) -> pl.DataFrame:
    """``n`` models in ascending order of parameters, with their latencies."""
    size = np.sort(rng.uniform(0, math.log(1000), n))
    layers = 1.8 + 0.35 * (size - size.mean()) / size.std() + rng.normal(0, 0.6, n)
    width = 4 + 0.4 * size + rng.normal(0, 0.3, n)
    latency = exponents[0] * size + exponents[1] * layers + rng.normal(0, SCATTER, n)
    columns = dict(zip([*PROPERTIES, "latency"], (size, layers, width, latency), strict=True))
    return pl.DataFrame({name: np.exp(values) for name, values in columns.items()})


def one(rng: np.random.Generator, n: int, exponents: tuple[float, float]) -> dict[str, tuple[bool, float]] | None:
    """By law: whether its interval held the left-out model, and its reach; ``None`` for a model outside the range."""
    models = family(rng, n + 1, exponents)
    at = int(rng.integers(1, n))
    others, new = models.filter(np.arange(n + 1) != at), models.row(at, named=True)
    properties = {name: new[name] for name in PROPERTIES}
    if outside_range(others, properties):
        return None
    fits, _, chosen = fitted_laws(others, properties)
    if chosen is None:
        return None
    told = {law: fitted.latency_ms(properties, LEVEL) for law, fitted in fits.items()}
    told["chosen"] = fits[chosen].latency_ms(properties, LEVEL, chosen_of=len(fits))
    told["chosen, not charged"] = told[chosen]
    ends = {law: (of["latency_ms_low"], of["latency_ms_high"], of["latency_ms"]) for law, of in told.items()}
    return {law: (low <= new["latency"] <= high, high / value) for law, (low, high, value) in ends.items()}


def coverage(n: int, truth: str, *, trials: int) -> dict[str, tuple[float, float]]:
    """By law: the share of intervals that held, and their median reach."""
    rng = np.random.default_rng([n, sorted(TRUTHS).index(truth)])
    found: dict[str, list[tuple[bool, float]]] = {}
    done = 0
    while done < trials:
        told = one(rng, n, TRUTHS[truth])
        if told is not None:
            done += 1
            for law, outcome in told.items():
                found.setdefault(law, []).append(outcome)
    return {
        law: (float(np.mean([held for held, _ in each])), float(np.median([reach for _, reach in each])))
        for law, each in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where the chosen law covers 93 to 97 %, by all that chance tells, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="models predicted in each case (default: 2000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = {f"{n} models, {truth}": coverage(n, truth, trials=args.trials) for n in MODELS for truth in TRUTHS}
    if args.json:
        print(json.dumps({"trials": args.trials, "level": LEVEL, "coverage": found}))
    else:
        print("share of 95 % intervals that held (median reach, a factor), by the true law and the number of models")
        for case, laws in found.items():
            print(case)
            print("".join(f"  {law:<22}{held:6.1%}  ({reach:.2f} x)\n" for law, (held, reach) in laws.items()), end="")
    # A share of so many trials that lies beyond these is beyond what is asked by more than chance.
    least, most = (end + sign * 3 * math.sqrt(end * (1 - end) / args.trials) for end, sign in ((LEAST, -1), (MOST, 1)))
    return 0 if all(least <= laws["chosen"][0] <= most for laws in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
