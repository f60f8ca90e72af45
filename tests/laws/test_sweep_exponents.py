"""Exponents along an axis: what moves is told, what does not is not, and the test has the level that it states."""

import numpy as np
import polars as pl
import pytest
from rows import tables_of
from scipy import stats
from simulated_run import run_of, swept

from phaselaw.laws.sweeps import MOVES, NO_TREND, stability_of
from phaselaw.laws.verdicts import TOO_FEW

VALUES = np.array([8.0, 32.0, 64.0, 128.0])
PARAMS = np.array([5.0, 25.0, 45.0, 50.0, 75.0, 100.0])


def latencies(draw: np.random.Generator, *, change: float, scatter: float, noise: float) -> np.ndarray:
    """A law whose exponent is 0.5 at 8 and grows by ``change`` per tenfold; models are off it by ``scatter``."""
    exponents = 0.5 + change * np.log10(VALUES / VALUES[0])
    logs = exponents[None, :] * np.log10(PARAMS)[:, None] + np.log10(VALUES)[None, :]
    logs = logs + scatter * draw.standard_normal((len(PARAMS), 1)) + noise * draw.standard_normal(logs.shape)
    return 10**logs


@pytest.mark.parametrize("scatter", [0.0, 0.3])
def test_a_stable_exponent_is_called_moving_at_the_stated_rate(scatter: float) -> None:
    draw, trials = np.random.default_rng(7), 1500
    calls = sum(
        stability_of(VALUES, PARAMS, latencies(draw, change=0, scatter=scatter, noise=0.02), level=0.95)["stability"]
        == MOVES
        for _ in range(trials)
    )
    low, high = stats.binom.interval(0.999, trials, 0.05)
    assert low <= calls <= high


def test_the_interval_holds_the_change_that_was_put_in_at_the_stated_rate() -> None:
    draw, trials = np.random.default_rng(8), 1000
    found = [
        stability_of(VALUES, PARAMS, latencies(draw, change=0.1, scatter=0.3, noise=0.02), level=0.95)
        for _ in range(trials)
    ]
    hits = sum(one["change_ci_low"] <= 0.1 <= one["change_ci_high"] for one in found)
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= hits <= high
    assert sum(one["stability"] == MOVES for one in found) > 0.9 * trials, "what moves is not told from noise"


def test_the_models_own_scatter_cancels() -> None:
    quiet = stability_of(
        VALUES, PARAMS, latencies(np.random.default_rng(1), change=0.05, scatter=0, noise=0.01), level=0.95
    )
    off = stability_of(
        VALUES, PARAMS, latencies(np.random.default_rng(1), change=0.05, scatter=0, noise=0.01)
        * np.array([1, 3, 0.2, 1, 5, 1])[:, None], level=0.95,
    )  # fmt: skip
    for name in ("change_per_tenfold", "change_ci_low", "change_ci_high", "p"):
        assert off[name] == pytest.approx(quiet[name])


def test_two_models_are_too_few_for_a_test() -> None:
    found = stability_of(VALUES, PARAMS[:2], np.ones((2, 4)) * PARAMS[:2, None], level=0.95)
    assert (found["stability"], found["p"], found["change_ci_low"]) == (TOO_FEW, None, None)


def test_batching_that_costs_a_constant_a_sequence_flattens_the_exponent_and_threads_do_not() -> None:
    law = {"overhead_ms": 0.0, "params_exponent": 0.5, "sequence_ms": 1.0, "serial_share": 0.1}
    tables = tables_of(run_of(swept(law, batch_size=(1, 2, 8), threads=(1, 4))))
    stability = tables["exponent_stability"].filter(pl.col("mode") == "kv_decode")
    batch = stability.filter((pl.col("axis") == "batch_size") & (pl.col("backend") == "sim_threads1"))
    assert batch["stability"].to_list() == [MOVES]
    assert batch["change_ci_high"].item() < 0
    laws = tables["exponent_by_axis"].filter(
        (pl.col("axis") == "batch_size") & (pl.col("backend") == "sim_threads1") & (pl.col("mode") == "kv_decode")
    )
    assert laws["value"].to_list() == [1, 2, 8]
    assert laws["slope"].to_list() == sorted(laws["slope"], reverse=True)
    pure = tables_of(run_of(swept({"overhead_ms": 0.0, "serial_share": 0.1}, threads=(1, 2, 4))))
    threads = pure["exponent_stability"].filter((pl.col("axis") == "threads") & (pl.col("mode") == "kv_decode"))
    assert threads["stability"].to_list() == [NO_TREND]
    assert threads["backend"].to_list() == ["sim"]
