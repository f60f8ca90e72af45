"""How often do the intervals that phaselaw prints hold the truth?

Runs are simulated whose law is known: n models over three scenarios, each measured in three rounds, with scatter of
models about the law, noise of calls, of rounds and of runs, in realistic and in adverse shares. Each simulation is a
backend of one big run, and goes through the code that ``phaselaw analyze`` uses. Counted is how often an interval of
95 % holds what was put in: the exponent; a model's rate; the latency of a model that was left out, by one law (for the
choice among laws see `prediction_coverage.py`); the constants of ``a + b P^s``.

Models whose scatter is unequal (evenly spaced in log size, the smallest third scattering four times as far) have cells
of their own: there the interval that the rule picks, t or HC2's, must hold the exponent in at least 92 %.

A *default* interval is one that verdicts and prices stand on: it must hold the truth in 93 % of simulations or more;
above 97 % it is marked as wider than need be, as standard forms are of few models. The others are printed beside it for
what they are. Exceptions are named: where models lie on the law exactly, so that runs are all that tells of noise, two
or three of them agree by luck now and then, and the interval is short; noise that repetitions share, or that passes on
from one to the next, can't be seen by them; and models that scatter unequally have each too little or too much.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --simulations 400 --models 4 7 --json
    python benchmarks/coverage.py --ray auto            the same to the bit, on the hosts of a cluster
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from phaselaw.laws import prediction, structure, summary
from phaselaw.laws.noise import log_matrices, points_of, units_of
from phaselaw.laws.options import Options
from phaselaw.laws.overhead import LINEAR, POWER, overhead_compute_fits
from phaselaw.laws.rates import throughput_intervals
from phaselaw.laws.scaling import scaling_fits
from phaselaw.measure import on_ray
from phaselaw.records import ALL, Run
from phaselaw.rundir.read import normalised

Floats = NDArray[np.float64]
Kind = Literal["default", "unequal", "other", "exception"]

LOWEST, HIGHEST = 0.93, 0.97
LOWEST_UNEQUAL = 0.92
"""An exponent's interval of models that scatter unequally must hold the truth in at least so many simulations."""
MODELS = (4, 5, 7, 12)
SLOPE, GAMMA, A_MS, B_MS = 0.6, 0.4, 4.0, 0.5
SCENARIOS = (1.0, 2.0, 5.0)
LAYERS = (2, 12, 4, 24, 6, 16, 8, 32, 3, 20, 5, 28)
"""Layers that are not in the order of the sizes, so that depth and size can be told apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Standard deviations of natural logs: 0.03 is about 3 %."""

    name: str
    scatter: float = 0.20
    """Models about the law."""
    call: float = 0.03
    tails: Literal["normal", "t3", "slow"] = "normal"
    """Call noise: normal; Student's t with 3 degrees of freedom; normal with one call in twenty twice as slow."""
    loud: float = 1.0
    """How many times as far the calls of a third of the models scatter."""
    ar1: float = 0.0
    """How much of its deviation a round passes on to the next, and a run to the next run: AR(1)."""
    round_level: float = 0.02
    """Rounds, all models alike."""
    round_tilt: float = 0.0
    """Rounds, growing with size: standard deviation of a round's exponent."""
    runs: int = 1
    run_level: float = 0.0
    run_tilt: float = 0.0
    run_rest: float = 0.0
    """Runs, each model for itself."""
    rounds: int = 3
    even: bool = False
    """Whether models are evenly spaced in log size, rather than one far below the others."""
    small: float = 1.0
    """How many times as far the smallest third of the models (rounded) scatter about the law."""
    exception: bool = False
    """Whether the exponent's interval is printed for what it is in this case, and not held to 93 to 97 %."""


CASES = (
    Case(name="typical: models 20 %, calls 3 %, rounds 2 %"),
    Case(name="models that lie on the law", scatter=0.0),
    Case(name="noise of calls alone, 10 %", scatter=0.0, call=0.10, round_level=0.0),
    Case(name="rounds differ by 20 %", scatter=0.05, call=0.02, round_level=0.20),
    Case(name="heavy-tailed calls (t, 3 degrees)", scatter=0.05, call=0.05, tails="t3"),
    Case(name="one call in twenty twice as slow", scatter=0.05, tails="slow"),
    Case(name="rounds tilt the law by 0.05", scatter=0.05, round_tilt=0.05),
    Case(name="rounds tilt the law by 0.01", scatter=0.05, round_tilt=0.01),
    Case(name="rounds tilt by 0.02 the law that models lie on", scatter=0.0, round_tilt=0.02),
    Case(name="ten rounds", scatter=0.05, rounds=10),
    Case(name="the calls of a third of the models scatter 4 x as far", scatter=0.05, loud=4.0),
    Case(name="rounds and calls remember, AR(1) of 0.5", scatter=0.05, ar1=0.5),
)
UNEQUAL = (
    Case(name="evenly spaced, equal scatter", even=True),
    Case(name="evenly spaced, the smallest third scatter 4 x as far", even=True, small=4.0),
)
"""Where HC2 may decide an exponent's interval: found unequal scatter, and no model of great leverage."""
POOLED = (
    Case(name="3 runs that differ by 10 %, tilt 0.03", runs=3, run_level=0.10, run_tilt=0.03, run_rest=0.05),
    Case(name="3 runs, models on the law, tilt 0.03", scatter=0.0, runs=3, run_level=0.10, run_tilt=0.03),
    Case(name="3 runs of the same thing", scatter=0.05, runs=3),
    Case(name="5 runs that differ by 10 %, tilt 0.03", runs=5, run_level=0.10, run_tilt=0.03, run_rest=0.05),
    Case(name="3 runs, models 10 %, each moved by 10 %", scatter=0.10, runs=3, run_tilt=0.05, run_rest=0.10),
    Case(
        name="3 runs, models on the law, each moved by 10 %",
        scatter=0.0,
        runs=3,
        run_tilt=0.03,
        run_rest=0.10,
        exception=True,
    ),
    Case(name="2 runs that differ by 10 %, tilt 0.03", runs=2, run_level=0.10, run_tilt=0.03, run_rest=0.05),
    Case(name="2 runs of the same thing", scatter=0.05, runs=2),
    Case(name="2 runs, models 10 %, tilt 0.03", scatter=0.10, runs=2, run_tilt=0.03, run_rest=0.05),
    Case(name="2 runs, models on the law, tilt 0.03", scatter=0.0, runs=2, run_tilt=0.03, exception=True),
    Case(name="3 runs that remember, AR(1) of 0.5", scatter=0.05, runs=3, run_level=0.10, run_rest=0.05, ar1=0.5),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulated:
    """Runs of one law over and over, each under a backend name of its own."""

    run: Run
    rates: pl.DataFrame
    """backend, model, ``true_rate``: tokens/s of each model without the noise of calls, rounds and runs."""

    @functools.cached_property
    def cells(self) -> pl.DataFrame:
        return summary.by_cell(self.run.rows)

    @functools.cached_property
    def per_model(self) -> pl.DataFrame:
        return summary.by_model(self.cells)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """How often one interval held the truth."""

    interval: str
    kind: Kind
    case: str
    n_models: int
    covered: float
    simulations: int

    @property
    def outside(self) -> bool:
        unequal = self.kind == "unequal" and self.covered < LOWEST_UNEQUAL
        return unequal or (self.kind == "default" and not LOWEST <= self.covered <= HIGHEST)

    @property
    def surely_outside(self) -> bool:
        """Whether a coverage of as much as is asked would give so small a share but once in a thousand times."""
        held = round(self.covered * self.simulations)
        lowest = LOWEST_UNEQUAL if self.kind == "unequal" else LOWEST
        return bool(self.covered < lowest and stats.binom.cdf(held, self.simulations, lowest) < 0.001 and self.outside)


def log_sizes(n: int, *, even: bool = False) -> Floats:
    """log10 of parameters in millions: one model far below the others, as in TR121, or ``even`` steps."""
    return np.linspace(0.0, 2.0, n) if even else np.append(-1.0, np.linspace(0.7, 2.0, n - 1))


def simulate(case: Case, n: int, simulations: int, *, two_variables: bool = False) -> Simulated:
    """``simulations`` backends that follow one law; with ``two_variables`` depth has an exponent of its own."""
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), n, two_variables])
    x = log_sizes(n, even=case.even) * math.log(10)
    law = SLOPE * x + (GAMMA * np.log(np.array(LAYERS[:n], dtype=float)) if two_variables else 0.0)
    scatter = case.scatter * np.where(np.arange(n) < round(n / 3), case.small, 1.0)
    base = law + rng.normal(0, 1, (simulations, n)) * scatter
    tilted = x - x.mean()
    # Axes: simulation, run, round, scenario, model.
    shape = (simulations, case.runs, case.rounds, len(SCENARIOS), n)
    run = rng.normal(0, case.run_level, (simulations, case.runs, 1)) + rng.normal(
        0, case.run_rest, (simulations, case.runs, n)
    )
    run = _remembered(run + rng.normal(0, case.run_tilt, (simulations, case.runs, 1)) * tilted, case.ar1, 1)
    level = rng.normal(0, case.round_level, (*shape[:3], 1))
    level = level + rng.normal(0, case.round_tilt, (*shape[:3], 1)) * tilted
    scenario = np.log(np.array(SCENARIOS))[:, None]
    rounds = _remembered(level[:, :, :, None] + _call_noise(case, rng, shape), case.ar1, 2)
    noise = run[:, :, None, None] + rounds + scenario
    latency = np.exp(base[:, None, None, None] + noise)
    return Simulated(run=_as_run(latency, case.runs, even=case.even), rates=_true_rates(base))


def _remembered(noise: Floats, share: float, axis: int) -> Floats:
    """Noise of which each value passes on a share of its deviation to the next along an axis, its variance the same."""
    steps = np.moveaxis(noise.copy(), axis, 0)
    for at in range(1, len(steps) if share else 0):
        steps[at] = share * steps[at - 1] + math.sqrt(1 - share**2) * steps[at]
    return np.moveaxis(steps, 0, axis)


def _call_noise(case: Case, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    if case.tails == "t3":
        return case.call * rng.standard_t(3, shape) / math.sqrt(3)
    scale = np.where(np.arange(shape[-1]) < shape[-1] // 3, case.loud, 1.0)
    noise: Floats = rng.normal(0, case.call, shape) * scale
    return noise + math.log(2) * (rng.random(shape) < 0.05) if case.tails == "slow" else noise


def _as_run(latency: Floats, runs: int, *, even: bool = False) -> Run:
    """Rows of the end-to-end phase, as they are read from a file."""
    simulations, _, _, scenarios, n = latency.shape
    index = [axis.ravel() for axis in np.indices(latency.shape)]
    names = {
        "backend": [f"simulation {at}" for at in range(simulations)],
        "run": [f"run {at}" for at in range(runs)],
        "scenario": [f"scenario {at}" for at in range(scenarios)],
        "model": [f"model {at}" for at in range(n)],
    }
    texts = {name: pl.Series(names[name]).gather(index[at]) for name, at in zip(names, (0, 1, 3, 4), strict=True)}
    table = pl.DataFrame(texts).with_columns(
        pl.lit("simulated").alias("backend_kind"),
        pl.lit("e2e_kv").alias("mode"),
        pl.lit("ok").alias("status"),
        pl.lit(64.0).alias("gen_tokens_target"),
        pl.Series("params_millions", 10 ** log_sizes(n, even=even)[index[4]]),
        pl.Series("rep", index[2]),
        pl.Series("latency_ms", latency.ravel()),
        pl.Series("tokens_per_s", 1e3 / latency.ravel()),
    )
    rows = normalised(table, where="simulated").with_columns(table["run"])
    return Run(path=Path("simulated"), rows=rows, models=pl.DataFrame(), manifest={"order": "rounds"})


def _true_rates(base: Floats) -> pl.DataFrame:
    simulation, model = (axis.ravel() for axis in np.indices(base.shape))
    mean_scenario = float(np.log(np.array(SCENARIOS)).mean())
    return pl.DataFrame(
        {
            "backend": [f"simulation {at}" for at in simulation],
            "model": [f"model {at}" for at in model],
            "true_rate": 1e3 / np.exp(base.ravel() + mean_scenario),
        }
    )


def _held(table: pl.DataFrame, low: str, high: str, truth: float | str) -> tuple[float, int]:
    """The share of rows whose interval holds the truth, of those that have one; rounding counts as none."""
    known = table.filter(pl.col(low).is_not_null() & pl.col(high).is_not_null())
    true = pl.col(truth) if isinstance(truth, str) else pl.lit(truth)
    slack = 1e-9 * true.abs()
    inside = known.select(((pl.col(low) - slack <= true) & (true <= pl.col(high) + slack)).mean()).item()
    return (math.nan if inside is None else float(inside)), known.height


def of_laws(case: Case, n: int, simulated: Simulated) -> Iterator[Share]:
    """The intervals of an exponent."""
    points = points_of(simulated.cells, simulated.per_model).filter(pl.col("scenario") == ALL)
    replicates = units_of(simulated.run.rows, in_rounds=True).for_laws
    fits = scaling_fits(points, replicates, Options(draws=400))
    pooled = case.runs > 1
    kind: Kind = "unequal" if case.small != 1.0 else _kind(case)
    yield _share("exponent (default)", kind, case, n, _held(fits, "slope_t_ci_low", "slope_t_ci_high", SLOPE))
    if case.even:
        hc2 = _held(fits, "slope_hc2_ci_low", "slope_hc2_ci_high", SLOPE)
        yield _share("exponent, by HC2 throughout", "other", case, n, hc2)
        by_hc2 = (fits["slope_interval_by"] == "HC2").mean()
        yield _share("exponent, share of laws that HC2 decides", "other", case, n, (float(str(by_hc2)), fits.height))
    plain = scaling_fits(points, None, Options(draws=2))
    if pooled or case.round_tilt:
        name = "exponent, the noise between units left out"
        yield _share(name, "other", case, n, _held(plain, "slope_t_ci_low", "slope_t_ci_high", SLOPE))
    if not pooled:
        yield _share(
            "exponent, TR121's bootstrap", "other", case, n, _held(fits, "slope_ci_low", "slope_ci_high", SLOPE)
        )
        theil_sen = _held(fits, "theilsen_slope_ci_low", "theilsen_slope_ci_high", SLOPE)
        yield _share("exponent, Theil-Sen", "other", case, n, theil_sen)


def of_two_variables(case: Case, n: int, simulations: int) -> Iterator[Share]:
    """The intervals of the exponents of parameters and of layers."""
    simulated = simulate(case, n, simulations, two_variables=True)
    per_model = simulated.per_model
    models = per_model.select(*summary.MODEL).unique()
    layers = pl.DataFrame(
        {"model": [f"model {at}" for at in range(n)], "n_layer": [float(each) for each in LAYERS[:n]]}
    )
    architecture = models.join(layers, on="model").with_columns(n_embd=pl.lit(None, dtype=pl.Float64))
    weights = per_model.select("backend", "model", "params_millions_effective").unique()
    unknown = weights.with_columns(weights_bytes=pl.lit(None, dtype=pl.Float64))
    series = structure.structured(per_model, architecture, unknown)
    replicates = units_of(simulated.run.rows, in_rounds=True).for_laws
    fits = structure.multivariate_fits(series, replicates, Options(draws=2))
    for name, truth in (("beta", SLOPE), ("gamma", GAMMA)):
        what = "parameters" if name == "beta" else "layers"
        held = _held(fits, f"{name}_t_ci_low", f"{name}_t_ci_high", truth)
        yield _share(f"two variables, exponent of {what} (default)", _kind(case), case, n, held)


def of_rates(case: Case, n: int, simulated: Simulated) -> Iterator[Share]:
    """The intervals of a model's tokens/s, which workers and prices stand on; from rounds, or runs."""
    pooled = case.runs > 1
    name = "tokens/s, long-run mean of runs (default)" if pooled else "tokens/s within a run, from rounds (default)"
    # What passes on from one to the next looks alike: its scatter can't tell how far all of it is off. And models that
    # scatter unequally have variances that are drawn together: the loud ones' intervals are short, the others' long.
    # So do runs that tilt the law, which move its ends most: where they are two, or move models by nothing else.
    tilted = case.round_tilt >= 0.05 or (case.run_tilt > 0 and (case.runs == 2 or case.run_rest == 0))
    kind: Kind = "exception" if case.ar1 or case.loud > 1 or tilted else "default"
    held = _rates(simulated, in_rounds=True)
    if held[1]:  # two runs of few models need a third
        yield _share(name, kind, case, n, held)
    if not pooled:
        # Repetitions back to back share what befell their cell: they can't know it.
        alone = not (case.round_level or case.round_tilt or case.ar1 or case.loud > 1)
        name = "tokens/s within a run, from repetitions (default of order: cells)"
        yield _share(name, "default" if alone else "exception", case, n, _rates(simulated, in_rounds=False))
        yield _share("median of 3 calls, by their range", "other", case, n, _range_of_calls(simulated))


def _rates(simulated: Simulated, *, in_rounds: bool) -> tuple[float, int]:
    units = units_of(simulated.run.rows, in_rounds=in_rounds)
    rates = throughput_intervals(units, simulated.per_model, level=0.95)
    known = rates.join(simulated.rates, on=["backend", "model"])
    name = "tokens_per_s_mean" if units.between_runs else "tokens_per_s_within"
    return _held(known, f"{name}_low", f"{name}_high", "true_rate")


def _range_of_calls(simulated: Simulated) -> tuple[float, int]:
    """A cell's fastest and slowest call as an interval of its latency."""
    scenario = float(np.log(np.array(SCENARIOS)).mean())
    cells = simulated.run.rows.filter(pl.col("scenario") == "scenario 0").group_by("backend", "model").agg(
        pl.col("latency_ms").min().alias("low"), pl.col("latency_ms").max().alias("high")
    )  # fmt: skip
    true = (1e3 * SCENARIOS[0] / math.exp(scenario) / pl.col("true_rate")).alias("true")
    return _held(cells.join(simulated.rates.with_columns(true), on=["backend", "model"]), "low", "high", "true")


def of_predictions(case: Case, n: int, simulations: int) -> Iterator[Share]:
    """The interval of a model that was not measured: of one more model, in the middle of the range.

    Of one run the truth is what that run measured of it, what the run does to all models included; of several runs it
    is the model's latency without the noise of any run: the long-run mean.
    """
    simulated = simulate(case, n + 1, simulations)
    left, others = f"model {(n + 1) // 2}", pl.col("model") != f"model {(n + 1) // 2}"
    per_model = simulated.per_model.with_columns(latency=pl.col("latency_geomean_ms"), n_layer=None, n_embd=None)
    replicates = units_of(simulated.run.rows, in_rounds=True).for_laws if case.runs > 1 else None
    in_runs = None if replicates is None else replicates.by_model().partition_by("backend", as_dict=True)
    rates = {(backend, model): rate for backend, model, rate in simulated.rates.iter_rows()}
    inside = []
    for key, points in per_model.partition_by("backend", as_dict=True).items():
        new = points.filter(model=left).row(0, named=True)
        law = prediction.fit(points.filter(others), structure.PARAMS)
        if law is None:
            continue
        runs = None if in_runs is None else log_matrices(in_runs[key], summary.GROUP)(law.models)
        told = law.latency_ms(new, 0.95, runs=runs)
        low, high = (told[f"latency_ms{'' if runs is None else '_mean'}_{end}"] for end in ("low", "high"))
        true = new["latency"] if case.runs == 1 else 1e3 / rates[str(key[0]), left]
        inside.append(low <= true <= high)
    held = (sum(inside) / len(inside), len(inside))
    yield _share("prediction of a new model by one law (default)", _kind(case), case, n, held)


def of_overhead(case: Case, n: int, simulations: int) -> Iterator[Share]:
    """The intervals of ``a + b P^s`` in relative error; each fit is a search, so there are fewer of them."""
    rng = np.random.default_rng([5, n])
    sizes = 10 ** log_sizes(n)
    for form, s in ((LINEAR, 1.0), (POWER, SLOPE)):
        latency = (A_MS + B_MS * sizes**s) * np.exp(rng.normal(0, case.scatter, (simulations, n)))
        run = _as_run(latency[:, None, None, None, :], 1)
        fits = overhead_compute_fits(summary.by_model(summary.by_cell(run.rows)), level=0.95)
        mine = fits.filter(pl.col("fit") == form)
        truths = {"a": A_MS, "b": B_MS} | ({"s": s} if form == POWER else {})
        for name, truth in truths.items():
            held = _held(mine, f"relative_{name}_ci_low", f"relative_{name}_ci_high", truth)
            yield _share(f"{form}: {name} (default)", "default", case, n, held)


def _kind(case: Case) -> Kind:
    return "exception" if case.exception else "default"


def _share(interval: str, kind: Kind, case: Case, n: int, held: tuple[float, int]) -> Share:
    return Share(interval=interval, kind=kind, case=case.name, n_models=n, covered=held[0], simulations=held[1])


OVERHEAD_CASES = (
    Case(name="models 5 % about a + b P^s", scatter=0.05),
    Case(name="models 20 % about it", scatter=0.20),
)


Intervals = Callable[[Case, int, int], Iterator[Share]]
Part = tuple[Intervals, Case, int, int]
"""What is simulated, for how many models, and how often; its seed follows from these."""


def of_laws_and_rates(case: Case, n: int, simulations: int) -> Iterator[Share]:
    """The intervals of an exponent and of rates, from the same simulations."""
    simulated = simulate(case, n, simulations)
    yield from of_laws(case, n, simulated)
    if case not in UNEQUAL:
        yield from of_rates(case, n, simulated)


def parts(simulations: int, models: Sequence[int], overhead_simulations: int) -> Iterator[Part]:
    """All that is to be simulated."""
    for n in models:
        for case in (*CASES, *POOLED, *UNEQUAL):
            yield of_laws_and_rates, case, n, simulations
        for case in (*CASES[:3], *POOLED):
            yield of_two_variables, case, n, simulations
            yield of_predictions, case, n, simulations
        for case in OVERHEAD_CASES if overhead_simulations else ():
            yield of_overhead, case, n, overhead_simulations


def simulated_part(part: Part) -> list[Share]:
    """The intervals of a part."""
    intervals, case, n, simulations = part
    return list(intervals(case, n, simulations))


def shares(of: Sequence[Part], ray: str | None = None) -> Iterator[Share]:
    """The intervals of all parts in their order: simulated here, or by the Ray cluster at an address."""
    if ray is None:
        yield from chain.from_iterable(map(simulated_part, of))
        return
    cluster = on_ray.connected(ray)
    remote = cluster.remote(simulated_part)
    yield from chain.from_iterable(map(cluster.get, [remote.remote(part) for part in of]))
    cluster.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and return 0 where every default interval covers what it must, by all that chance lets tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000, metavar="N", help="of each case (default: 2000)")
    parser.add_argument(
        "--overhead-simulations", type=int, default=2000, metavar="N", help="of a + b P^s (default: 2000)"
    )
    parser.add_argument("--models", type=int, nargs="+", default=MODELS, metavar="N", help="numbers of models")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--ray", nargs="?", const=on_ray.HERE, metavar="ADDRESS", help="simulate on a Ray cluster")
    args = parser.parse_args(argv)
    found = []
    # Hosts import what they simulate by its name, which this module has not where it is the script.
    module: Any = sys.modules[__name__] if args.ray is None else importlib.import_module(Path(__file__).stem)
    for share in module.shares([*module.parts(args.simulations, args.models, args.overhead_simulations)], args.ray):
        found.append(share)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(found)} intervals, n = {share.n_models}\x1b[K")
    if args.json:
        print(json.dumps({"level": 0.95, "shares": [dataclasses.asdict(share) for share in found]}))
    else:
        _print(found, args.models)
    return 1 if any(share.surely_outside for share in found) else 0


def _print(found: Sequence[Share], models: Sequence[int]) -> None:
    """A Markdown table: an interval and a case a row, a column for each number of models."""
    by_row: dict[tuple[str, str], dict[int, Share]] = {}
    for share in found:
        by_row.setdefault((share.interval, share.case), {})[share.n_models] = share
    print("| interval | case | " + " | ".join(f"n = {n}" for n in models) + " |")
    print("| --- | --- |" + " ---: |" * len(models))
    for (interval, case), cells in sorted(by_row.items(), key=lambda row: row[0][0]):
        figures = [cells.get(n) for n in models]
        words = ["" if each is None else f"{each.covered:.1%}{_mark(each)}" for each in figures]
        print(f"| {interval} | {case} | " + " | ".join(words) + " |")
    fewest = min(share.simulations for share in found)
    print(f"\n(~): a default outside of {LOWEST:.0%} to {HIGHEST:.0%}; (!): below it by more than chance may do")
    print(f"{fewest} simulations a figure or more")


def _mark(share: Share) -> str:
    return " (!)" if share.surely_outside else " (~)" if share.outside else ""


if __name__ == "__main__":
    sys.exit(main())
