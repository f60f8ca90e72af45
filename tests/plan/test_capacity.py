"""Workers and dollars: TR121's printed figures, and arithmetic that can't be otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import capacity, flat, usd_per_million_tokens, workers_needed

rates = st.floats(1e-3, 1e6)


def measured(rate: float, low: float | None = None, high: float | None = None) -> dict[str, object]:
    return {
        "backend": "hf_cpu_fp32", "model": "m", "batch_size": 1, "gen_tokens_target": 64, "mode": "e2e_kv",
        "tokens_per_s": rate, "tokens_per_s_low": low, "tokens_per_s_high": high, "interval_basis": "rounds",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tokens_per_s", "workers", "usd_per_1m"),
    [(90.9, 4.24, 3.07), (51.9, 7.43, 5.38), (412.2, 0.94, 0.68), (174.0, 2.22, 1.61), (654.6, 0.59, 0.43)],
)
def test_figures_that_tr121_prints_for_a_billion_tokens_a_month(
    tokens_per_s: float, workers: float, usd_per_1m: float
) -> None:
    assert workers_needed(1e9, tokens_per_s) == pytest.approx(workers, abs=0.006)
    assert usd_per_million_tokens(tokens_per_s, 1.006) == pytest.approx(usd_per_1m, abs=0.006)


@given(rate=rates, volume=st.floats(1e3, 1e15), price=st.floats(1e-3, 1e3))
def test_the_month_costs_the_workers_hours(rate: float, volume: float, price: float) -> None:
    [row] = capacity([measured(rate)], tokens_per_month=volume, usd_per_hour=price)
    assert row.usd_per_month.value == pytest.approx(row.workers.value * 720 * price)


@given(rate=rates)
def test_a_faster_worker_means_fewer_workers_so_the_interval_turns_round(rate: float) -> None:
    [row] = capacity([measured(rate, rate * 0.9, rate * 1.2)], tokens_per_month=1e9, usd_per_hour=1.0)
    for estimate in (row.workers, row.usd_per_1m, row.usd_per_month):
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low < estimate.value < estimate.high
        assert estimate.high / estimate.value == pytest.approx(1 / 0.9)


def test_a_rate_without_an_interval_gives_none() -> None:
    [row] = capacity([measured(100.0)], tokens_per_month=1e9, usd_per_hour=1.0)
    assert flat(row)["workers_low"] is None


def test_only_end_to_end_rates_are_planned_with() -> None:
    assert capacity([measured(10.0) | {"mode": "prefill"}], tokens_per_month=1e9, usd_per_hour=1.0) == []


@pytest.mark.parametrize("volume", [0.0, -1.0, float("nan"), float("inf")])
def test_a_volume_that_is_no_positive_number_is_refused(volume: float) -> None:
    with pytest.raises(UsageError, match="--tokens-per-month"):
        capacity([], tokens_per_month=volume, usd_per_hour=1.0)
