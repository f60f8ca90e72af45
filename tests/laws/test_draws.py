"""Draws: their quantiles are the classical intervals wherever a classical interval exists."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from rows import row_of, table_of
from scipy import stats

from phaselaw.laws.draws import draw
from phaselaw.laws.noise import BASIS, CELLS, NOT_MEASURED, replicates_of, throughput_intervals
from phaselaw.laws.summary import by_cell, by_model, variance_for_t

KEY = ("b", "m0", 1, 8, "e2e_kv")


def rows(latencies: Mapping[str, Sequence[float]], *, runs: Sequence[str] | None = None) -> pl.DataFrame:
    """End-to-end rows of models with one scenario, a latency a round (or a run)."""
    found = table_of(
        row_of("e2e_kv", ms, model=model, rep=at, gen_tokens_target=8, tokens_total=10.0, tokens_per_s=1e4 / ms)
        for model, values in latencies.items()
        for at, ms in enumerate(values)
    )
    return found if runs is None else found.with_columns(pl.Series("run", [*runs] * len(latencies)))


def half_width(draws: np.ndarray) -> float:
    low, high = np.quantile(np.log(draws[1:]), [0.025, 0.975])
    return float(high - low) / 2


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_one_model_has_the_t_interval_of_its_rounds(n: int) -> None:
    latencies = np.exp(np.random.default_rng(n).normal(0, 0.1, n))
    drawn = draw(rows({"m0": latencies.tolist()}), in_rounds=True)[KEY]
    expected = np.log(latencies).std(ddof=1) * math.sqrt(variance_for_t(n)) * stats.t.ppf(0.975, n - 1)
    assert half_width(drawn.tokens_per_s) == pytest.approx(expected, rel=0.03)
    assert half_width(drawn.latency_ms) == pytest.approx(expected, rel=0.03)
    assert drawn.tokens_per_s[0] == pytest.approx(np.median(10_000 / latencies))
    assert drawn.basis == BASIS["rounds"]


def test_a_ratio_of_two_models_has_the_paired_interval() -> None:
    generator = np.random.default_rng(0)
    shared, own = generator.normal(0, 0.3, 5), generator.normal(0, 0.02, (2, 5))
    drawn = draw(rows({f"m{at}": np.exp(shared + own[at]).tolist() for at in range(2)}), in_rounds=True)
    ratio = drawn[KEY].latency_ms / drawn["b", "m1", 1, 8, "e2e_kv"].latency_ms
    sd = (own[0] - own[1]).std(ddof=1)
    assert half_width(ratio) == pytest.approx(sd * math.sqrt(variance_for_t(5)) * stats.t.ppf(0.975, 4), rel=0.03)


def test_what_slows_all_models_alike_cancels_in_their_ratio() -> None:
    slow = [1.0, 1.3, 0.9]
    drawn = draw(rows({"m0": slow, "m1": [5 * value for value in slow]}), in_rounds=True)
    ratio = drawn["b", "m1", 1, 8, "e2e_kv"].latency_ms / drawn[KEY].latency_ms
    assert np.ptp(ratio) < 1e-5


@pytest.mark.parametrize("in_rounds", [True, False])
def test_the_interval_is_the_one_that_the_throughput_table_prints(in_rounds: bool) -> None:
    measured = rows({"m0": [1.0, 1.1, 0.95, 1.02], "m1": [3.0, 3.4, 3.1, 2.9]})
    cells = by_cell(measured)
    replicates = replicates_of(measured, in_rounds=in_rounds)
    table = throughput_intervals(replicates, cells, by_model(cells), level=0.95)
    drawn = draw(measured, in_rounds=in_rounds)
    for row in table.iter_rows(named=True):
        own = drawn[row["backend"], row["model"], 1, 8, row["mode"]]
        printed = math.log(row["tokens_per_s_high"] / row["tokens_per_s_low"]) / 2
        assert half_width(own.tokens_per_s) == pytest.approx(printed, rel=0.03)
        assert own.basis == row["interval_basis"] == (BASIS["rounds"] if in_rounds else CELLS)


@pytest.mark.parametrize("in_rounds", [True, False])
def test_a_single_repetition_leaves_the_noise_unmeasured(in_rounds: bool) -> None:
    drawn = draw(rows({"m0": [1.0]}), in_rounds=in_rounds)[KEY]
    assert drawn.basis == NOT_MEASURED
    assert drawn.tokens_per_s[0] == pytest.approx(10_000) and np.isnan(drawn.tokens_per_s[1:]).all()


def test_several_runs_are_the_replicates_and_their_noise_is_in_the_draws() -> None:
    values = [1.0, 1.01, 1.2, 1.21, 0.9, 0.91]
    pooled = rows({"m0": values}, runs=["a", "a", "b", "b", "c", "c"])
    drawn = draw(pooled, in_rounds=True)[KEY]
    means = np.log(values).reshape(3, 2).mean(axis=1)
    expected = means.std(ddof=1) * math.sqrt(1 / 3) * stats.t.ppf(0.975, 2)
    assert half_width(drawn.tokens_per_s) == pytest.approx(expected, rel=0.03)
    assert drawn.basis == BASIS["runs"]


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
