"""``compare``: closed forms of the noise between runs; it does not cry wolf on simulated runs, and hears a real one."""

from types import ModuleType

import numpy as np
import polars as pl
import pytest
from benchmark import benchmark
from hypothesis import given
from hypothesis import strategies as st
from rows import row_of, run_of
from scipy import stats

from phaselaw.laws.regression_test import (
    RegressionTest,
    holm,
    ratios_by_calls,
    ratios_of_cells,
    ratios_of_models,
    regression_test,
    shift_of_runs,
)
from phaselaw.rundir.conditions import other_latencies, prompt_differences

MODELS = np.repeat(np.arange(4), 3)


def test_holms_adjusted_p_values_are_those_worked_out_by_hand() -> None:
    # Ascending: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not fall below the one before.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, np.nan, 0.7]))[[0, 2]] == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(p * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_the_whole_is_the_two_sample_t_test_over_runs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(3, 0.1, (3, 1)), rng.normal(3.2, 0.1, (4, 1))
    shifts = (shift[:, None] for shift in shift_of_runs(a, b))
    moved, expected = ratios_of_cells(*shifts, np.zeros(1)), stats.ttest_ind(b[:, 0], a[:, 0], alternative="greater")
    assert moved.p_slower(0.0)[0] == pytest.approx(expected.pvalue)
    assert moved.degrees[0] == 5


def test_where_only_the_run_shifts_a_cell_has_the_degrees_of_freedom_of_runs() -> None:
    shift = np.array([[0.0], [0.1], [0.05], [0.12]])
    y = np.linspace(1, 2, 12) + shift
    assert ratios_of_cells(y[:2], y[2:], MODELS).degrees == pytest.approx(2.0)


def test_one_cell_that_jumps_has_its_own_variance() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(3, 0.01, (4, 12))
    y[3, 5] += 1.0  # one run of side B, one cell
    moved = ratios_of_cells(y[:2], y[2:], MODELS)
    assert moved.log_ratio[5] == pytest.approx(0.5, abs=0.05)
    assert moved.se[5] == pytest.approx(0.5, rel=0.05)
    assert moved.p_slower(0.0)[5] > 0.05


def test_ratios_of_sides_that_are_the_same_are_one_and_nothing_is_significant() -> None:
    y = np.random.default_rng(3).normal(3, 0.05, (2, 12))
    for moved in (ratios_of_models(y, y, np.full(12, np.nan)), ratios_of_cells(y, y, MODELS)):
        assert moved.log_ratio == pytest.approx(0.0)
        assert (moved.p_slower(0.0) >= 0.5 - 1e-9).all()
    still = np.ones((2, 12))
    assert (ratios_of_cells(still, still, MODELS).p_slower(0.0) == 1).all()


@pytest.mark.parametrize(("run", "own"), [(0.3, 0.01), (0.02, 0.03), (0.0, 0.05)])
def test_the_intervals_hold_the_true_ratios_whatever_shift_the_runs_have(run: float, own: float) -> None:
    rng, trials, true = np.random.default_rng(4), 400, np.log([1.3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    models = everything = 0.0
    for _ in range(trials):
        y = rng.normal(0, run, (6, 1)) + rng.normal(0, own, (6, 7))
        y[3:] += true
        low, high = ratios_of_models(y[:3], y[3:], np.full(7, np.nan)).interval(0.95)
        models += float(((low <= np.exp(true)) & (np.exp(true) <= high)).mean()) / trials
        low, high = ratios_of_cells(*(each[:, None] for each in shift_of_runs(y[:3], y[3:])), np.zeros(1)).interval(
            0.95
        )
        everything += float(low[0] <= 1 <= high[0]) / trials
    assert models >= 0.94  # the larger of several variances: never less than asked
    assert everything >= 0.85  # one of seven models that moved alone draws their middle along a little


def test_an_outlier_of_one_model_takes_no_power_from_the_others_and_passes_for_no_regression() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(3, 0.01, (4, 7))
    y[3, 5] += 1.0  # one run of side B, one model
    y[2:, 0] += np.log(1.2)
    moved = ratios_of_models(y[:2], y[2:], np.full(7, np.nan))
    assert moved.p_slower(0.05)[0] < 1e-3 and moved.p_slower(0.0)[5] > 0.05


def test_of_two_models_what_runs_do_to_both_is_in_the_error() -> None:
    shift = np.array([[0.0], [0.2], [0.1], [0.3]])
    moved = ratios_of_models(np.ones((2, 2)) + shift[:2], np.ones((2, 2)) + shift[2:], np.full(2, np.nan))
    assert moved.se == pytest.approx(np.sqrt(0.02)) and moved.degrees == pytest.approx(2.0)


def test_calls_alone_give_welchs_interval() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 0.1, 4), rng.normal(0.2, 0.3, 6)
    parts = np.array([[a.var(ddof=1) / 4], [b.var(ddof=1) / 6]])
    low, high = ratios_by_calls(np.array([b.mean() - a.mean()]), parts, np.array([[3.0], [5.0]])).interval(0.95)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert np.log([low[0], high[0]]) == pytest.approx([expected.low, expected.high])
    unknown = ratios_by_calls(np.zeros(1), np.array([[0.1], [np.nan]]), np.array([[3.0], [0.0]])).interval(0.95)
    assert np.isnan(unknown).all()


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return benchmark("compare_false_alarms")


@pytest.fixture(scope="module")
def power() -> ModuleType:
    return benchmark("compare_power")


@pytest.mark.parametrize("case", ["realistic", "one model in ten slowed"])
def test_runs_of_the_same_thing_raise_no_more_alarms_than_stated(simulation: ModuleType, case: str) -> None:
    trials = 40
    # More alarms than this come in one run of a thousand where 5 % are false.
    most = stats.binom.ppf(0.999, trials, simulation.RATE)
    assert simulation.alarms(case, 2, trials=trials, threshold=0.0) * trials <= most


def test_a_real_regression_is_heard(simulation: ModuleType) -> None:
    assert simulation.alarms("realistic", 3, trials=20, slower=0.25) >= 0.9


def test_one_slower_model_is_heard_though_runs_shift_by_more(power: ModuleType) -> None:
    assert power.share("seven models", 2, trials=30, slower=0.2, one=True) >= 0.75


def sides(simulation: ModuleType, *, runs: int = 2, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    y = simulation.latencies(np.random.default_rng(seed), simulation.CASES["realistic"], 2 * runs)
    return simulation.side(y[:runs]).rows, simulation.side(y[runs:]).rows


def compared(simulation: ModuleType, a: pl.DataFrame, b: pl.DataFrame) -> RegressionTest:
    template = simulation.side(np.zeros((1, 1, 1, 1)))
    run = type(template)
    return regression_test(
        *(run(path=template.path, rows=rows, models=template.models, manifest={}) for rows in (a, b))
    )


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
    b = type(b)(path=b.path, rows=longer, models=b.models, manifest={})
    a = type(a)(path=a.path, rows=a.rows.with_columns(tokens_total=pl.lit(9.0)), models=a.models, manifest={})
    assert prompt_differences(a, a) == []
    assert prompt_differences(a, b)[0] == "prompt of s0 for m0 on cpu: 9 and 30 tokens"


def test_replicates_are_the_units_where_each_side_is_one_run(simulation: ModuleType) -> None:
    a, b = (
        side.with_columns(replicate=pl.col("run").str.slice(1).cast(pl.Float64), run=pl.lit("one"))
        for side in sides(simulation, runs=3)
    )
    told = compared(simulation, a, b.with_columns(pl.col("latency_ms") * 1.5))
    assert told.basis == "between replicates, back to back" and told.outcome == "regressed"
    assert (told.whole["verdict"] == "slower").all() and (told.cells["verdict"] == "slower").all()


def test_what_can_not_be_told_names_the_runs_that_would_tell(simulation: ModuleType) -> None:
    y = simulation.latencies(np.random.default_rng(0), simulation.CASES["the run's shift is all"], 4)
    told = compared(simulation, *(simulation.side(each).rows for each in (y[:2], y[2:])))
    assert told.outcome == "can't be told" and told.runs_needed > 2
    one = compared(simulation, *(simulation.side(each).rows for each in (y[:1], y[1:2])))
    assert one.outcome == "can't be told" and one.runs_needed == 2
    still = compared(simulation, *(simulation.side(0 * each).rows for each in (y[:2], y[2:])))
    assert still.outcome == "not regressed" and still.runs_needed is None


def test_decodes_that_mean_other_things_on_the_two_sides_are_told() -> None:
    raw, scaled = (
        run_of([row_of("kv_decode", 9.0, backend="server", backend_kind="ollama", kv_decode_ms_equiv=equiv)])
        for equiv in (None, 9.0)
    )
    assert list(other_latencies(raw, scaled)) == ["server"] and other_latencies(raw, raw) == {}
