"""Draws: their quantiles are the classical intervals wherever a classical interval exists."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from rows import row_of, table_of
from scipy import stats

from phaselaw.laws.noise import units_of
from phaselaw.laws.rates import BASIS, INTERVALS, NOT_MEASURED, Draws, draw, draws_of, throughput_intervals
from phaselaw.laws.summary import by_cell, by_model
from phaselaw.plan.capacity import estimate

KEY = ("b", "m0", 1, 8, "e2e_kv")


def rows(latencies: Mapping[str, Sequence[float]], *, runs: Sequence[str] | None = None) -> pl.DataFrame:
    """End-to-end rows of models with one scenario, a latency a round (or a run)."""
    found = table_of(
        row_of("e2e_kv", ms, model=model, rep=at, gen_tokens_target=8, tokens_total=10.0, tokens_per_s=1e4 / ms)
        for model, values in latencies.items()
        for at, ms in enumerate(values)
    )
    return found if runs is None else found.with_columns(pl.Series("run", [*runs] * len(latencies)))


def half_width(quantity: np.ndarray, interval: str = "") -> float:
    low, high = np.quantile(np.log(draws_of(quantity)[INTERVALS.index(interval)]), [0.025, 0.975])
    return float(high - low) / 2


RUNS = ["a", "b", "c", "d", "e"]


def of_runs(latencies: Mapping[str, Sequence[float]]) -> dict[object, Draws]:
    """Draws from a latency a run."""
    return draw(rows(latencies, runs=RUNS[: len(next(iter(latencies.values())))]), in_rounds=True)


@pytest.mark.parametrize("n", [3, 5])
def test_one_model_has_the_t_intervals_of_its_runs_by_name(n: int) -> None:
    latencies = np.exp(np.random.default_rng(n).normal(0, 0.1, n))
    drawn = of_runs({"m0": latencies.tolist()})[KEY]
    sd = np.log(latencies).std(ddof=1) * stats.t.ppf(0.975, n - 1)
    for quantity in (drawn.tokens_per_s, drawn.latency_ms):
        assert half_width(quantity) == pytest.approx(sd * math.sqrt(1 + 1 / n), rel=0.01)
        assert half_width(quantity, "_mean") == pytest.approx(sd * math.sqrt(1 / n), rel=0.01)
    assert drawn.tokens_per_s[0] == pytest.approx(np.exp(np.log(10_000 / latencies).mean()))
    assert drawn.basis == BASIS["runs"]


def test_what_slows_all_models_alike_cancels_in_their_ratio() -> None:
    slow = [1.0, 1.3, 0.9]
    drawn = of_runs({"m0": slow, "m1": [5 * value for value in slow]})
    ratio = drawn["b", "m1", 1, 8, "e2e_kv"].latency_ms / drawn[KEY].latency_ms
    assert half_width(ratio) < 1e-5 < half_width(drawn[KEY].latency_ms)


def test_a_ratio_of_two_models_holds_what_they_do_not_share() -> None:
    generator = np.random.default_rng(0)
    shared, own = generator.normal(0, 0.3, 5), generator.normal(0, 0.02, (7, 5))
    drawn = of_runs({f"m{at}": np.exp(shared + own[at]).tolist() for at in range(7)})
    half = half_width(drawn[KEY].latency_ms / drawn["b", "m1", 1, 8, "e2e_kv"].latency_ms)
    assert half < half_width(drawn[KEY].latency_ms) / 4
    assert half > 0.02 * math.sqrt(2 * (1 + 1 / 5)) * 1.96 / 2


@pytest.mark.parametrize("kind", ["runs", "rounds", "repetitions"])
def test_a_rate_has_one_interval_in_the_table_and_through_the_draws(kind: str) -> None:
    values = {"m0": [1.0, 1.1, 0.95, 1.02], "m1": [3.0, 3.4, 3.1, 2.9], "m2": [9.0, 9.1, 8.8, 9.9]}
    measured = rows(values, runs=RUNS[:4] if kind == "runs" else None)
    units = units_of(measured, in_rounds=kind != "repetitions")
    table = throughput_intervals(units, by_model(by_cell(measured)), level=0.95)
    drawn = draw(measured, in_rounds=kind != "repetitions")
    for row in table.iter_rows(named=True):
        own = drawn[row["backend"], row["model"], 1, 8, row["mode"]]
        told = estimate(own.tokens_per_s).named("tokens_per_s")
        for name, value in told.items():
            assert value == (row[name] if value is None else pytest.approx(row[name], rel=1e-9)), name
        assert (told["tokens_per_s_low"] is None) == (kind != "runs")
        assert (told["tokens_per_s_within_low"] is None) == (kind == "runs")
        assert own.basis == row["interval_basis"] == BASIS[units.kind]


def test_a_run_of_rounds_knows_this_run_only() -> None:
    drawn = draw(rows({"m0": [1.0, 1.1, 0.95]}), in_rounds=True)[KEY]
    more, mean, within = draws_of(drawn.tokens_per_s)
    assert np.isnan(more).all() and np.isnan(mean).all() and np.isfinite(within).all()


@pytest.mark.parametrize("in_rounds", [True, False])
def test_a_single_repetition_leaves_the_noise_unmeasured(in_rounds: bool) -> None:
    drawn = draw(rows({"m0": [1.0]}), in_rounds=in_rounds)[KEY]
    assert drawn.basis == NOT_MEASURED
    assert drawn.tokens_per_s[0] == pytest.approx(10_000) and np.isnan(drawn.tokens_per_s[1:]).all()


def test_two_runs_of_few_models_say_that_they_need_a_third() -> None:
    drawn = of_runs({"m0": [1.0, 1.2], "m1": [2.0, 2.1]})[KEY]
    assert drawn.basis == "not measured: 2 runs of fewer than 5 models need a third"
    assert np.isnan(drawn.tokens_per_s[1:]).all()


def test_replicates_of_one_run_are_back_to_back() -> None:
    measured = rows({"m0": [1.0, 1.2, 0.9]}).with_columns(replicate=pl.Series([0, 1, 2]), rep=pl.lit(0.0))
    drawn = draw(measured, in_rounds=True)[KEY]
    assert drawn.basis == "one more run, back to back (another day is not measured)"
    sd = np.log([1.0, 1.2, 0.9]).std(ddof=1)
    assert half_width(drawn.tokens_per_s) == pytest.approx(sd * stats.t.ppf(0.975, 2) * math.sqrt(4 / 3), rel=0.01)


def test_an_assumed_spread_between_runs_serves_where_none_was_measured() -> None:
    one = draw(rows({"m0": [1.0, 1.1, 0.95]}), in_rounds=True, between_runs=0.2)[KEY]
    assert one.basis == "one more run, assumed: runs differ by 20 %"
    assert half_width(one.tokens_per_s) == pytest.approx(1.96 * 0.2 * math.sqrt(2), rel=1e-3)
    assert half_width(one.tokens_per_s, "_mean") == pytest.approx(1.96 * 0.2, rel=1e-3)
    without = draw(rows({"m0": [1.0, 1.1, 0.95]}), in_rounds=True)[KEY]
    assert half_width(one.tokens_per_s, "_within") == half_width(without.tokens_per_s, "_within")


def test_draws_are_the_same_every_time_and_know_no_order_of_rows(
    shuffled: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    measured = rows({"m0": [1.0, 1.1, 0.95], "m1": [3.0, 3.4, 3.1]})
    first, again = draw(measured, in_rounds=True), draw(shuffled(measured), in_rounds=True)
    for key, drawn in first.items():
        np.testing.assert_allclose(drawn.latency_ms, again[key].latency_ms)


@pytest.fixture
def shuffled() -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda table: table.sample(fraction=1.0, shuffle=True, seed=1)
