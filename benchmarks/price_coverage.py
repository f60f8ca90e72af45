"""Do the intervals of a plan hold the truth as often as they say, with noise between runs in it?

A simulated backend whose true step times are known is measured in several runs. Each run's models are slowed or sped by
noise of their own (other seeds scatter the models anew: noise between runs), each round by noise that all models share,
each call by its own. The pooled runs go the whole way to a plan, and counted is how often the true figure lies inside
the plan's 95 % interval: a price, a worker count, the dollars between two models, a ratio of prices, blended tiers, a
cascade, and the phase-split prices. At least 90 of 100 are asked for. The last line pools nothing: one run's
intervals, which the plan calls *within this run only*, miss the truth, and by how much is shown.

    python benchmarks/price_coverage.py
    python benchmarks/price_coverage.py --seeds 400 --runs 5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from phaselaw.engines.simulated import step_ms
from phaselaw.laws.analysis import Options, analyze
from phaselaw.laws.step_time import step_times
from phaselaw.plan.capacity import exact
from phaselaw.plan.economics import Question, Tables, answer
from phaselaw.plan.replicas import Replica, replicas_of, stated
from phaselaw.records import Mix, Run, Source
from phaselaw.rundir.read import pooled
from phaselaw.study.model import ModelEntry, Scenario, SimulatedBackend, Study
from simulated_runs import simulated

ASKED = 0.90
LAW: dict[str, Any] = {
    "overhead_ms": 2.0, "params_ms": 0.5, "params_exponent": 0.6, "prefill_steps": 1.0, "prompt_ms": 0.05,
    "context_ms": 0.004,
}  # fmt: skip
NOISE: dict[str, Any] = {"model_scatter": 0.08, "round_noise": 0.05, "call_noise": 0.03}
MODELS = {"small": 10.0, "medium": 40.0, "big": 160.0}
"""Parameters in millions."""
PROMPTS = (32, 128, 512)
STEPS = 16
MIX = Mix(name="chat", prompt_tokens=256, output_tokens=64)
ASKED_OF_THE_PLAN = Question(
    mixes=(MIX,), success_rates={"small": exact(0.7), "big": exact(0.95)}, tier_models=("small", "big")
)


def study(seed: int) -> Study:
    """Three models, prompts of three lengths, four rounds."""
    return Study(
        run_name="coverage",
        gen_tokens=STEPS,
        repetitions=4,
        warmup_repetitions=0,
        seed=seed,
        order="rounds",
        scenarios=tuple(Scenario(name=f"p{tokens}", prompt_tokens=tokens, prompt=None) for tokens in PROMPTS),
        backends=(SimulatedBackend(name="sim", kind="simulated", **LAW, **NOISE),),
        models=tuple(ModelEntry(name=name, kind="simulated", params_millions=size) for name, size in MODELS.items()),
    )


def true_seconds(model: str, prompt: float, output: float) -> tuple[float, float]:
    """Prefill and decode of one request by the law, without noise."""
    law = SimulatedBackend(name="sim", kind="simulated", **LAW)
    step = step_ms(law, MODELS[model], 12)
    prefill = law.prefill_steps * step + law.prompt_ms * prompt
    decode = output * (step + law.context_ms * (prompt + (output - 1) / 2))
    return prefill / 1000, decode / 1000


def truth() -> Tables:
    """The plan of the true rates."""
    workers = []
    for model in MODELS:
        rates = [(prompt + STEPS) / sum(true_seconds(model, prompt, STEPS)) for prompt in PROMPTS]
        workers.append(stated(model, float(np.exp(np.mean(np.log(rates)))), 1.006, backend="sim"))
    return answer(ASKED_OF_THE_PLAN, workers, {})


def planned(runs: Sequence[Run]) -> tuple[Tables, list[Replica]]:
    """The plan of pooled runs, the whole way."""
    run = pooled(list(runs), allow_different=True)
    analysis = analyze(run, Options(draws=1))
    workers = [dataclasses.replace(worker, suspect_prefill="") for worker in replicas_of(run, analysis, 1.006)]
    return answer(ASKED_OF_THE_PLAN, workers, step_times(analysis.tables["step_time_model"])), workers


def hits(tables: Tables, true: Tables) -> dict[str, bool]:
    """For each figure, whether its interval holds the true one."""
    found: dict[str, bool] = {}

    def judge(name: str, row: dict[str, Any], key: str, value: float) -> None:
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        found[name] = low is not None and high is not None and bool(low <= value <= high)

    big, true_big = _row(tables["rows"], model="big"), _row(true["rows"], model="big")
    for key in ("usd_per_1m", "workers", "usd_per_month"):
        judge(key, big, key, true_big[key])
    pair = {"model": "big", "than_model": "small"}
    delta, true_delta = _row(tables["decision_deltas"], **pair), _row(true["decision_deltas"], **pair)
    for key in ("delta_usd_per_month", "price_ratio"):
        judge(key, delta, key, true_delta[key])
    judge("tiers", tables["tiering"][0], "usd_per_month", true["tiering"][0]["usd_per_month"])
    judge("cascade", tables["cascade"][0], "usd_per_month", true["cascade"][0]["usd_per_month"])
    prefill, decode = true_seconds("big", MIX.prompt_tokens, MIX.output_tokens)
    prices = _row(tables["token_prices"], model="big")
    judge("input price", prices, "usd_per_1m_input", prefill / MIX.prompt_tokens * 1.006 / 3600 * 1e6)
    judge("output price", prices, "usd_per_1m_output", decode / MIX.output_tokens * 1.006 / 3600 * 1e6)
    judge("seconds a request", prices, "worker_s_per_request", prefill + decode)
    return found


def _row(rows: Sequence[dict[str, Any]], **equal: Any) -> dict[str, Any]:
    [found] = [row for row in rows if all(row[key] == value for key, value in equal.items())]
    return found


def measured(seed: int) -> Run:
    """One run, named for its seed."""
    run = simulated(study(seed))
    source = Source(run_id=f"run {seed}", path=run.path, manifest=run.manifest)
    return dataclasses.replace(run, rows=run.rows.with_columns(pl.lit(source.run_id).alias("run")), sources=(source,))


def shares(seeds: int, runs: int, first: int = 0) -> dict[str, float]:
    """The share of simulations whose interval holds the truth, by figure."""
    true = truth()
    counts: dict[str, int] = {}
    for trial in range(first, first + seeds):
        tables, _ = planned([measured(1000 * trial + at) for at in range(runs)])
        for name, hit in hits(tables, true).items():
            counts[name] = counts.get(name, 0) + hit
    return {name: count / seeds for name, count in counts.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where every share of pooled runs is what is asked for, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="simulations (default: 200)")
    parser.add_argument("--runs", type=int, default=4, help="runs pooled in each (default: 4)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = shares(args.seeds, args.runs)
    alone = shares(max(20, args.seeds // 4), 1)
    if args.json:
        print(json.dumps({"seeds": args.seeds, "runs": args.runs, "asked": ASKED, "shares": found, "one_run": alone}))
    else:
        for name, share in found.items():
            print(f"{name:<22} {share:6.1%} with {args.runs} runs, {alone[name]:6.1%} with one (within this run only)")
    return 0 if min(found.values()) >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
