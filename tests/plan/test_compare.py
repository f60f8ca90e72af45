"""Model against model: differences and ratios of what was planned, noise that both share cancelled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.plan.capacity import Headroom, capacity_row
from phaselaw.plan.compare import decision_delta, pairs
from phaselaw.plan.workers import Worker

rates = st.floats(1.0, 1e4)


def worker(model: str, rates: list[float], usd_per_hour: float = 1.006) -> Worker:
    return Worker(
        backend="b", model=model, batch_size=1, gen_tokens=8, tokens_per_s=np.array(rates), usd_per_hour=usd_per_hour
    )


@given(fast=rates, slow=rates)
def test_a_delta_is_the_difference_of_the_two_plans(fast: float, slow: float) -> None:
    small, big = worker("s", [fast]), worker("b", [slow])
    plans = [capacity_row(each, 1e9, Headroom()) for each in (small, big)]
    delta = decision_delta(small, big, 1e9)
    assert delta["delta_workers"] == pytest.approx(plans[1]["workers"] - plans[0]["workers"])
    assert delta["delta_usd_per_month"] == pytest.approx(plans[1]["usd_per_month"] - plans[0]["usd_per_month"])
    assert delta["price_ratio"] == pytest.approx(fast / slow)


def test_a_dearer_hour_counts_into_the_ratio_of_prices() -> None:
    delta = decision_delta(worker("s", [100.0], 1.0), worker("b", [100.0], 3.0), 1e9)
    assert delta["price_ratio"] == pytest.approx(3.0) and delta["delta_workers"] == 0


def test_noise_that_slows_both_alike_is_not_in_the_ratio() -> None:
    noise = np.linspace(0.5, 1.5, 101)
    delta = decision_delta(worker("s", [100.0, *100 * noise]), worker("b", [50.0, *50 * noise]), 1e9)
    assert delta["price_ratio_low"] == pytest.approx(2) and delta["price_ratio_high"] == pytest.approx(2)
    assert delta["delta_workers_low"] < delta["delta_workers"] < delta["delta_workers_high"]


def test_every_two_models_are_compared_the_cheaper_first() -> None:
    found = [(a.model, b.model) for a, b in pairs([worker("mid", [50]), worker("dear", [10]), worker("cheap", [90])])]
    assert found == [("cheap", "mid"), ("cheap", "dear"), ("mid", "dear")]
