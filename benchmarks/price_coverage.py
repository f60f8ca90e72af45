"""Do the intervals of a plan hold the truth as often as they say, with noise between runs in it?

A simulated backend whose true step times are known is measured in several runs. Each run's models are slowed or sped by
noise of their own (other seeds scatter the models anew: noise between runs), each round by noise that all models share,
each call by its own. On top, by case: nothing; one rate in twenty off by a factor of 1.5; AR(1), each run taking over
half of the deviation of the one before; a third of the models scattering three times as far.

The pooled runs go the whole way to a plan: a price, a worker count, the dollars between two models, a ratio of prices,
blended tiers, a cascade and the phase-split prices. Counted is how often the interval of the *long-run mean* holds the
true figure, and that of *one more run* the figure of the next run's own plan. At least 90 of 100 are asked for where
nothing is on top; the other cases are printed for what they are. The last column is one run's intervals, which the plan
calls *this run only*: by how much they miss the truth.

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
from phaselaw.laws.analysis import Analysis, Context, Options
from phaselaw.laws.checks import frame
from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import step_times
from phaselaw.laws.summary import REQUESTS
from phaselaw.plan.capacity import exact
from phaselaw.plan.economics import Question, Tables, answer
from phaselaw.plan.replicas import Replica, replicas_of, stated
from phaselaw.records import Mix, Run, Source
from phaselaw.rundir.read import pooled
from phaselaw.study.model import ModelEntry, Scenario, SimulatedBackend, Study
from simulated_runs import simulated

ASKED = 0.90
PLAIN, OUTLIERS, AR1, UNEQUAL = "nothing on top", "5 % outliers", "AR(1)", "unequal scatter"
CASES = (PLAIN, OUTLIERS, AR1, UNEQUAL)
LAW: dict[str, Any] = {
    "overhead_ms": 2.0, "params_ms": 0.5, "params_exponent": 0.6, "prefill_steps": 1.0, "prompt_ms": 0.05,
    "context_ms": 0.004,
}  # fmt: skip
NOISE: dict[str, Any] = {"model_scatter": 0.08, "round_noise": 0.05, "call_noise": 0.03}
MODELS = {"small": 10.0, "medium": 40.0, "big": 160.0}
"""Parameters in millions."""
PROMPTS = (32, 128, 512)
STEPS = 16
TIMES = ("latency_ms", "prefill_ms", "kv_decode_ms", "decode_step_ms", "kv_decode_ms_per_token", "kv_decode_ms_equiv",
         "request_ms")  # fmt: skip
NEEDED = (REQUESTS.name, "concurrency_throughput", "summary_by_model_backend_mode_agg", "step_time_model")
"""The tables that a plan is made of; the others, and what the checks say of them, are half of an analysis's time."""
MIX = Mix(name="chat", prompt_tokens=128, output_tokens=STEPS)
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


def true_seconds(model: str, prompt: float, steps: float) -> tuple[float, float]:
    """Prefill and so many decode steps of one request by the law, without noise."""
    law = SimulatedBackend(name="sim", kind="simulated", **LAW)
    step = step_ms(law, MODELS[model], 12)
    prefill = law.prefill_steps * step + law.prompt_ms * prompt
    decode = steps * (step + law.context_ms * (prompt + (steps - 1) / 2))
    return prefill / 1000, decode / 1000


def truth() -> Tables:
    """The plan of the true rates."""
    workers = []
    for model in MODELS:
        phases = [(prompt, *true_seconds(model, prompt, STEPS)) for prompt in PROMPTS]
        # As a request's user waits: the prefill gives the first token, each further one takes a step.
        rates = [(prompt + STEPS) / (prefill + decode * (1 - 1 / STEPS)) for prompt, prefill, decode in phases]
        workers.append(stated(model, float(np.exp(np.mean(np.log(rates)))), 1.006, backend="sim"))
    return answer(ASKED_OF_THE_PLAN, workers, {})


def planned(runs: Sequence[Run]) -> tuple[Tables, list[Replica]]:
    """The plan of pooled runs, the whole way."""
    run = pooled(list(runs), allow_different=True)
    context = Context(run, Options(draws=1))
    tables = {table: frame.marked(context[table], []) for table in NEEDED}
    analysis = Analysis(tables=tables, notes={}, options=context.options)
    workers = [dataclasses.replace(worker, suspect_prefill="") for worker in replicas_of(run, analysis, 1.006)]
    return answer(ASKED_OF_THE_PLAN, workers, step_times(analysis.tables["step_time_model"])), workers


def figures(tables: Tables) -> dict[str, tuple[dict[str, Any], str]]:
    """Each figure that is judged: its row and its key."""
    big, price, between = _row(tables["rows"], model="big"), _row(tables["token_prices"], model="big"), "big over small"
    delta = _row(tables["decision_deltas"], model="big", than_model="small")
    return {
        **{key: (big, key) for key in ("usd_per_1m", "workers", "usd_per_month")},
        **{f"{between}, {key}": (delta, key) for key in ("delta_usd_per_month", "price_ratio")},
        **{name: (tables[name][0], "usd_per_month") for name in ("tiering", "cascade")},
        **{key: (price, key) for key in ("usd_per_1m_input", "usd_per_1m_output", "worker_s_per_request")},
    }


def values(tables: Tables) -> dict[str, float]:
    """The figures of a plan, without their intervals."""
    return {name: row[key] for name, (row, key) in figures(tables).items()}


def true_values() -> dict[str, float]:
    """The figures of the true rates and step times."""
    prefill, decode = true_seconds("big", MIX.prompt_tokens, MIX.output_tokens - 1)  # the prefill gives the first
    usd = 1.006 / 3600 * 1e6
    prices = {
        "usd_per_1m_input": prefill / MIX.prompt_tokens * usd,
        "usd_per_1m_output": decode / MIX.output_tokens * usd,
    }
    return values(truth()) | prices | {"worker_s_per_request": prefill + decode}


def hits(tables: Tables, expected: dict[str, float], interval: str) -> dict[str, bool]:
    """For each figure, whether an interval of it (``""``, ``"_mean"``, ``"_within"``) holds what is expected."""
    found = {}
    for name, (row, key) in figures(tables).items():
        low, high = row[f"{key}{interval}_low"], row[f"{key}{interval}_high"]
        found[name] = low is not None and high is not None and bool(low <= expected[name] <= high)
    return found


def _row(rows: Sequence[dict[str, Any]], **equal: Any) -> dict[str, Any]:
    [found] = [row for row in rows if all(row[key] == value for key, value in equal.items())]
    return found


def measured(seed: int, factors: Sequence[float] = (1.0,) * len(MODELS)) -> Run:
    """One run, named for its seed; each model is so much slower."""
    run = simulated(study(seed))
    source = Source(run_id=f"run {seed}", path=run.path, manifest=run.manifest)
    slower = pl.col("model").replace_strict(dict(zip(MODELS, factors, strict=True)), return_dtype=pl.Float64)
    times = [name for name in TIMES if name in run.rows.columns]
    rows = run.rows.with_columns(
        *(pl.col(name) * slower for name in times),
        pl.col("^tokens_per_s.*$") / slower,
        pl.lit(source.run_id).alias("run"),
    )
    return dataclasses.replace(run, rows=rows, sources=(source,))


def slower(case: str, rng: np.random.Generator, runs: int) -> Floats:
    """How much slower each model is in each run, (runs, models)."""
    normal = rng.normal(0, 0.08, (runs, len(MODELS)))
    if case == OUTLIERS:
        return np.where(rng.random(normal.shape) < 0.05, 1.5, 1.0)
    if case == UNEQUAL:
        return np.exp(normal * np.where(np.arange(len(MODELS)) == len(MODELS) - 1, 3.0, 0.0))
    for run in range(1, runs):
        normal[run] = 0.5 * normal[run - 1] + np.sqrt(0.75) * normal[run]
    return np.exp(normal) if case == AR1 else np.ones_like(normal)


Shares = dict[str, tuple[float, float]]
"""By figure: the shares of simulations whose long-run mean held the truth, and whose one more run held the next."""


def shares(seeds: int, runs: int, case: str = PLAIN) -> Shares:
    """How often both intervals of each figure held, over simulations."""
    true, counts = true_values(), {name: np.zeros(2) for name in true_values()}
    for trial in range(seeds):
        factors = slower(case, np.random.default_rng([CASES.index(case), trial]), runs + 1)
        *past, following = [measured(1000 * trial + at, list(each)) for at, each in enumerate(factors)]
        tables, _ = planned(past)
        held = hits(tables, true, "_mean"), hits(tables, values(planned([following])[0]), "")
        for name in true:
            counts[name] += [each[name] for each in held]
    return {name: (float(both[0] / seeds), float(both[1] / seeds)) for name, both in counts.items()}


def within(seeds: int) -> dict[str, float]:
    """How often one run's own intervals hold the truth."""
    true = true_values()
    held = [hits(planned([measured(1000 * trial)])[0], true, "_within") for trial in range(seeds)]
    return {name: sum(each[name] for each in held) / seeds for name in true}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where every share of pooled runs is what is asked for, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="simulations (default: 200)")
    parser.add_argument("--runs", type=int, default=4, help="runs pooled in each (default: 4)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = {case: shares(args.seeds, args.runs, case) for case in CASES}
    alone = within(max(20, args.seeds // 4))
    if args.json:
        print(json.dumps({"seeds": args.seeds, "runs": args.runs, "asked": ASKED, "shares": found, "one_run": alone}))
    else:
        print(f"{args.runs} runs: long-run mean / one more run\n")
        print("| figure |" + "".join(f" {case} |" for case in CASES) + " one run alone |")
        print("| --- |" + " ---: |" * (len(CASES) + 1))
        for name, share in alone.items():
            both = "".join(f" {found[case][name][0]:.1%} / {found[case][name][1]:.1%} |" for case in CASES)
            print(f"| {name} |{both} {share:.1%} |")
    return 0 if min(share for both in found[PLAIN].values() for share in both) >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
