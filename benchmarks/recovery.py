"""Does the analysis recover the laws that were put into the simulated engine?

Three laws, each simulated over and over with other seeds through the whole path (study, schedule, simulated engine,
rows, analysis): a pure power law with scatter between models, one with depth, and one with overhead. Counted is how
often what was put in lies inside the interval that phaselaw prints: the slope's default interval, the t intervals of
the two-variable fit, and the intervals of ``a + b P^s``. At least 90 of 100 are asked for, of 95 % intervals.

    python benchmarks/recovery.py
    python benchmarks/recovery.py --seeds 400 --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from phaselaw.ladder.spec import LADDER
from phaselaw.laws.analysis import Context, Options
from phaselaw.study.model import ModelEntry, Scenario, SimulatedBackend, Study
from simulated_runs import simulated

ASKED = 0.90
EXPONENT, DEPTH_EXPONENT, OVERHEAD_MS, FACTOR_MS = 0.6, 0.4, 4.0, 0.5
LAYERS = (2, 12, 4, 24, 6, 16, 8)
"""Layers of the simulated models, not in the order of their sizes, so that depth and size can be told apart."""

LAWS: dict[str, dict[str, float]] = {
    "power law": {"overhead_ms": 0.0, "params_exponent": EXPONENT},
    "with depth": {"overhead_ms": 0.0, "params_exponent": EXPONENT, "depth_exponent": DEPTH_EXPONENT},
    "with overhead": {"overhead_ms": OVERHEAD_MS, "params_ms": FACTOR_MS, "params_exponent": EXPONENT},
}
NOISE = {"model_scatter": 0.10, "round_noise": 0.02, "call_noise": 0.03}


def study(law: Mapping[str, float], seed: int) -> Study:
    """Seven models of the ladder's sizes under one law."""
    settings: dict[str, Any] = {**law, **NOISE}
    return Study(
        run_name="recovery",
        gen_tokens=16,
        repetitions=3,
        warmup_repetitions=1,
        seed=seed,
        scenarios=(Scenario(name="short", prompt_tokens=9), Scenario(name="long", prompt_tokens=100)),
        backends=(SimulatedBackend(name="sim", kind="simulated", **settings),),
        models=tuple(
            ModelEntry(name=model.name, kind="simulated", params_millions=model.params / 1e6, n_layer=layers)
            for model, layers in zip(LADDER, LAYERS, strict=True)
        ),
    )


def analysed(one: Study) -> Context:
    """A study measured on the simulated engine: the tables of its decode phase, each computed when it is asked for."""
    run = simulated(one)
    return Context(dataclasses.replace(run, rows=run.rows.filter(mode="kv_decode")), Options(draws=10))


def hits(law: str, analysis: Context) -> dict[str, bool]:
    """For each figure that was put in, whether its interval holds it."""
    if law == "power law":
        row = _decode(analysis, "scaling_fits", scenario="__all__")
        return {"slope": row["slope_t_ci_low"] <= EXPONENT <= row["slope_t_ci_high"]}
    if law == "with depth":
        row = _decode(analysis, "hf_multivariate_fits")
        return {
            "params exponent": row["beta_t_ci_low"] <= EXPONENT <= row["beta_t_ci_high"],
            "layers exponent": row["gamma_t_ci_low"] <= DEPTH_EXPONENT <= row["gamma_t_ci_high"],
        }
    row = _decode(analysis, "overhead_compute_fits", fit="lat = a + b*P^s")
    steps = 16
    return {
        "a": row["relative_a_ci_low"] <= OVERHEAD_MS * steps <= row["relative_a_ci_high"],
        "b": row["relative_b_ci_low"] <= FACTOR_MS * steps <= row["relative_b_ci_high"],
        "s": row["relative_s_ci_low"] <= EXPONENT <= row["relative_s_ci_high"],
    }


def _decode(analysis: Context, table: str, **equal: str) -> dict[str, Any]:
    [row] = [
        row
        for row in analysis[table].iter_rows(named=True)
        if row["mode"] == "kv_decode" and all(row[name] == value for name, value in equal.items())
    ]
    return row


def shares(seeds: int, first: int = 0) -> dict[str, float]:
    """The share of ``seeds`` simulations whose interval holds the truth, by law and figure."""
    counts: dict[str, int] = {}
    for law, settings in LAWS.items():
        for seed in range(first, first + seeds):
            for figure, hit in hits(law, analysed(study(settings, seed))).items():
                name = f"{law}: {figure}"
                counts[name] = counts.get(name, 0) + hit
    return {name: count / seeds for name, count in counts.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where every share is what is asked for, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="simulations of each law (default: 100)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = shares(args.seeds)
    if args.json:
        print(json.dumps({"seeds": args.seeds, "asked": ASKED, "shares": found}))
    else:
        for name, share in found.items():
            print(f"{name:<32} {share:6.1%} of {args.seeds} seeds inside the 95 % interval")
    return 0 if min(found.values()) >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
