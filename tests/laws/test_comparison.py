"""``compare`` on simulated runs: it does not cry wolf, hears a real one, and says what it could not compare."""

from types import ModuleType

import numpy as np
import polars as pl
import pytest
from benchmark import benchmark
from scipy import stats

from phaselaw.laws.comparison import Comparison, compare, prompt_differences


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return benchmark("compare_false_alarms")


@pytest.mark.parametrize("case", ["realistic", "the run's shift is all", "one model in ten slowed"])
def test_runs_of_the_same_thing_raise_no_more_alarms_than_stated(simulation: ModuleType, case: str) -> None:
    trials = 100
    # More alarms than this come in one run of a thousand where 5 % are false.
    most = stats.binom.ppf(0.999, trials, simulation.RATE)
    assert simulation.alarms(case, 2, trials=trials, threshold=0.0) * trials <= most


def test_a_real_regression_is_heard(simulation: ModuleType) -> None:
    assert simulation.alarms("realistic", 3, trials=20, slower=0.25) >= 0.9


def sides(simulation: ModuleType, *, runs: int = 2, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    y = simulation.latencies(np.random.default_rng(seed), simulation.CASES["realistic"], 2 * runs)
    return simulation.side(y[:runs]).rows, simulation.side(y[runs:]).rows


def compared(simulation: ModuleType, a: pl.DataFrame, b: pl.DataFrame) -> Comparison:
    template = simulation.side(np.zeros((1, 1, 1, 1)))
    run = type(template)
    return compare(*(run(path=template.path, rows=rows, models=template.models, manifest=None) for rows in (a, b)))


def test_one_run_a_side_gives_ratios_and_no_judgement(simulation: ModuleType) -> None:
    a, b = (side.filter(pl.col("run") == "r0") for side in sides(simulation))
    b = b.with_columns(pl.col("latency_ms") * 3)
    told = compared(simulation, a, b)
    assert not told.judged and told.n_slower == 0
    assert set(told.cells["verdict"]) == {"not judged"}
    assert told.cells["ratio"].to_numpy() == pytest.approx(3, rel=0.3)


def test_the_scatter_of_calls_makes_the_interval_within_one_run_a_side(simulation: ModuleType) -> None:
    a, b = (side.filter(pl.col("run") == "r0") for side in sides(simulation))
    calls = [pl.concat([side.with_columns(pl.col("latency_ms") * by) for by in (0.98, 1.0, 1.03)]) for side in (a, b)]
    told = compared(simulation, *calls)
    assert (told.cells["ratio_low"] < told.cells["ratio"]).all() and (
        told.cells["ratio"] < told.cells["ratio_high"]
    ).all()
    assert (
        told.whole["ratio_high"][0] / told.whole["ratio_low"][0]
        < told.cells["ratio_high"][0] / told.cells["ratio_low"][0]
    )


def test_cells_of_one_side_are_listed_and_those_a_run_lacks_are_not_judged(simulation: ModuleType) -> None:
    a, b = sides(simulation)
    b = b.filter(pl.col("model") != "m3").filter(~((pl.col("model") == "m1") & (pl.col("run") == "r1")))
    told = compared(simulation, a, b)
    assert set(told.only_in_a["model"]) == {"m3"} and told.only_in_b.is_empty()
    lacking = told.cells.filter(pl.col("model") == "m1")
    assert set(lacking["verdict"]) == {"not judged"} and set(lacking["n_runs_b"]) == {1}
    assert lacking["ratio"].is_not_null().all()
    assert told.whole["n_cells"].to_list() == [15, 15, 15]


def test_without_a_cell_in_every_run_nothing_is_judged(simulation: ModuleType) -> None:
    a, b = sides(simulation)
    one_each = (pl.col("run") == "r0") == (pl.col("model") == "m1")
    told = compared(simulation, a, b.filter(one_each))
    assert not told.judged and told.n_slower == 0 and told.n_not_judged == told.cells.height > 0


def test_failed_calls_and_warmups_are_no_part_of_it(simulation: ModuleType) -> None:
    a, b = sides(simulation)
    noise = b.with_columns(latency_ms=pl.lit(1e6))
    worse = pl.concat([b, noise.with_columns(status=pl.lit("error")), noise.with_columns(is_warmup=pl.lit(True))])
    assert compared(simulation, a, worse).cells.equals(compared(simulation, a, b).cells)


def test_a_ratio_has_the_sign_of_its_sides_and_faster_is_told_too(simulation: ModuleType) -> None:
    a, b = sides(simulation, runs=3)
    b = b.with_columns(pl.col("latency_ms") * 2)
    assert (compared(simulation, a, b).cells["verdict"] == "slower").all()
    turned = compared(simulation, b, a)
    assert turned.n_slower == 0 and (turned.cells["verdict"] == "faster").all()
    assert turned.cells["ratio"].to_numpy() == pytest.approx(1 / compared(simulation, a, b).cells["ratio"].to_numpy())


def test_prompts_of_one_name_and_other_lengths_are_told(simulation: ModuleType) -> None:
    a, b = (simulation.side(np.zeros((1, 3, 1, 3))) for _ in range(2))
    longer = b.rows.with_columns(tokens_total=pl.lit(30.0))
    b = type(b)(path=b.path, rows=longer, models=b.models, manifest=None)
    a = type(a)(path=a.path, rows=a.rows.with_columns(tokens_total=pl.lit(9.0)), models=a.models, manifest=None)
    assert prompt_differences(a, a) == []
    assert prompt_differences(a, b)[0] == "prompt of s0 for m0 on cpu: 9 and 30 tokens"
