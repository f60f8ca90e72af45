"""How often does each validity check speak up where nothing is wrong, and does it where something is?

Clean runs of the simulated engine (`clean`), each with a law, noise, order and size of its own drawn from its seed:
prefills of 1.0 to 1.3 decode steps, slow first calls, early stops, overheads; every other one as the rows of a served
engine that another tool measured. Counted is what each check *finds*, of what it looked at, beside the rate it states
(`CheckResult.false_alarm_rate`); a rate of 0 may never be found. What it only suspects is printed, and not bounded: a
prompt cache can't be told from short prefills by such rows, and the suspicion says so. Then each defect is put into
clean runs, and how often it is caught is printed.

    python benchmarks/false_alarms.py
    python benchmarks/false_alarms.py --runs 1000 --json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Sequence

from scipy import stats

from phaselaw.laws import summary
from phaselaw.laws.checks import CHECKS
from phaselaw.laws.checks.frame import CheckResult, Evidence, Finding
from phaselaw.laws.served import decode_linearity, served_rows
from phaselaw.records import PHASES, Run
from simulated_runs import DEFECTS, as_served, ladder_study, simulated, slow_first_calls

SERVED_DEFECTS = ("prompt cache", "count convention", "prompt cut", "spill")
"""What only a server can have."""
BY_PHASE = ("far off the law", "too few repetitions")
"""Checks that look at each phase of a backend."""


def clean(seed: int, *, served: bool, order: str | None = None) -> Run:
    """A run with nothing wrong: law, noise, order and number of models drawn from the seed."""
    draw = random.Random(seed)
    order = order or draw.choice(["rounds", "cells"])
    settings = {
        "overhead_ms": draw.choice([0.0, 0.2, 1.0, 5.0]),
        "params_exponent": draw.uniform(0.1, 1.0),
        "prefill_steps": draw.uniform(1.0, 1.3),
        "model_scatter": draw.choice([0.0, 0.05, 0.15]),
        # Where a cell's calls run back to back there are no rounds that cells could share.
        "round_noise": draw.choice([0.0, 0.02]) if order == "rounds" else 0.0,
        "call_noise": draw.choice([0.01, 0.03, 0.05]),
        "cold_start_ms": draw.choice([0.0, 50.0, 500.0]),
        "early_stop_rate": draw.choice([0.0, 0.3]) if not served else 0.4,
    }
    study = ladder_study(settings, seed, models=draw.choice([4, 5, 7]), repetitions=draw.choice([3, 5]), order=order)
    run = slow_first_calls(simulated(study), seed)
    return as_served(run) if served else run


def checked(run: Run) -> list[CheckResult]:
    """What every check says of a run."""
    ok = summary.usable(run.rows, include_warmup=True)
    measured = ok.filter(~ok["is_warmup"])
    evidence = Evidence(
        run=run,
        ok=ok,
        measured=measured,
        per_model=summary.by_model(summary.by_cell(measured)),
        linearity=decode_linearity(served_rows(ok)),
    )
    return [check(evidence) for check in CHECKS]


def alarms(outcome: CheckResult) -> int:
    """Of what a check looked at, how many it says something is wrong with: not how many sentences it says of them."""
    return len({_unit(outcome.check, finding) for finding in outcome.findings if finding.status != "suspected"})


def _unit(name: str, finding: Finding) -> tuple[object, ...]:
    law = tuple(map(finding.where.get, ("backend", "batch_size", "gen_tokens_target")))
    return (*law, *finding.modes) if name in BY_PHASE else (*law, *map(finding.where.get, ("model", "scenario")))


def false_alarms(runs: int, first: int = 0) -> dict[str, dict[str, float]]:
    """Of each check over clean runs: looked at, found, suspected, the share found and the share it states."""
    counts: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(("looked_at", "found", "suspected"), 0))
    for seed in range(first, first + runs):
        for outcome in checked(clean(seed, served=seed % 2 == 1)):
            count = counts[outcome.check]
            count["looked_at"] += outcome.n_checked
            count["found"] += alarms(outcome)
            count["suspected"] += any(finding.status == "suspected" for finding in outcome.findings)
            count["stated"] = outcome.false_alarm_rate
    for count in counts.values():
        count["share"] = count["found"] / count["looked_at"] if count["looked_at"] else 0.0
    return dict(counts)


def too_many(name: str, count: dict[str, float]) -> bool:
    """Whether more was found than the stated rate gives but once in a thousand times.

    Phases of one simulated backend follow one law and speak up together, so three of them are one trial.
    """
    together = len(PHASES) if name in BY_PHASE else 1
    trials = int(count["looked_at"] / together)
    return bool(count["found"] / together > stats.binom.ppf(0.999, trials, count["stated"]))


def caught(name: str, seed: int) -> bool:
    """Whether a defect put into a clean run is found or suspected, where the clean run is silent on it or not."""
    order = {"throttling": "cells", "off as a whole": "rounds"}.get(name)
    run = DEFECTS[name](clean(seed, served=name in SERVED_DEFECTS, order=order))
    return any(outcome.findings for outcome in checked(run) if outcome.check == name)


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where no check speaks up more often than it states, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="clean runs (default: 200)")
    parser.add_argument("--defects", type=int, default=20, help="runs with each defect put in (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = false_alarms(args.runs)
    power = {name: sum(caught(name, seed) for seed in range(args.defects)) / args.defects for name in DEFECTS}
    if args.json:
        print(json.dumps({"runs": args.runs, "clean": found, "defects": args.defects, "caught": power}))
    else:
        print(f"{'check':<30}{'looked at':>10}{'found':>7}{'share':>8}{'stated':>8}{'runs suspected':>16}")
        for name, count in found.items():
            print(
                f"{name:<30}{count['looked_at']:>10.0f}{count['found']:>7.0f}{count['share']:>8.2%}"
                f"{count['stated']:>8.1%}{count['suspected']:>16.0f}{'  TOO MANY' if too_many(name, count) else ''}"
            )
        for name, share in power.items():
            print(f"{name:<30} put into {args.defects} clean runs: caught in {share:.0%}")
    return 1 if any(too_many(*each) for each in found.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
