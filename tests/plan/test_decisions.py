"""One model or another: differences and ratios of plans, break-evens in closed form, tiers that are paid as served."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from phaselaw.laws.rates import same_draws
from phaselaw.laws.regression import Floats
from phaselaw.plan.capacity import Headroom, exact
from phaselaw.plan.decisions import (
    Tiers,
    break_even,
    cascade_row,
    decision_delta,
    needed_failure_usd,
    needed_success_rate,
    routed_row,
    usd_per_success,
)
from phaselaw.plan.economics import capacity_row
from phaselaw.plan.replicas import Replica
from phaselaw.tables import Row

rates = st.floats(1.0, 1e4)
shares = st.floats(0.01, 1.0)
dollars = st.floats(1e-6, 10)
TOKENS = 384.0


def replica(model: str, rates: Floats | list[float], usd_per_hour: float = 1.006, **known: Floats) -> Replica:
    """A replica whose rate is the first of these, with the others as draws."""
    rate = same_draws(rates[0], np.array(rates[1:]))
    return Replica(
        backend="b", model=model, batch_size=1, gen_tokens=8, tokens_per_s=rate, usd_per_hour=usd_per_hour, **known
    )


def priced(model: str, usd: float | Floats, rate: float | None) -> Replica:
    """A model with this price of a request of one token."""
    known = {} if rate is None else {"success_rate": exact(rate)}
    return replica(model, 1 / np.atleast_1d(usd), 3600.0, **known)


def judged(small: Replica, big: Replica, failure_usd: float | None = None) -> Row | None:
    return break_even(small, big, 1.0, failure_usd)


def tier(model: str, rate: float, p: float | None = None, latency_s: float | None = None) -> Replica:
    known = {"success_rate": p, "e2e_s": latency_s}
    return replica(model, [rate], **{name: exact(value) for name, value in known.items() if value is not None})


def usd_per_request(model: Replica) -> float:
    return float(model.usd_per_request(TOKENS)[0])


def tiers(default: Replica, premium: Replica, **headroom: float) -> Tiers:
    return Tiers(default, premium, 1e9, TOKENS, Headroom(**headroom))


SMALL, BIG = tier("qwen2.5:7b", 141.3, p=0.7, latency_s=0.72), tier("gpt-oss-20b", 52.4, p=0.9, latency_s=2.97)


@given(fast=rates, slow=rates)
def test_a_delta_is_the_difference_of_the_two_plans(fast: float, slow: float) -> None:
    small, big = replica("s", [fast]), replica("b", [slow])
    plans = [capacity_row(each, 1e9, Headroom()) for each in (small, big)]
    delta = decision_delta(small, big, 1e9)
    assert delta["delta_workers"] == pytest.approx(plans[1]["workers"] - plans[0]["workers"])
    assert delta["delta_usd_per_month"] == pytest.approx(plans[1]["usd_per_month"] - plans[0]["usd_per_month"])
    assert delta["price_ratio"] == pytest.approx(fast / slow)


def test_a_dearer_hour_counts_into_the_ratio_of_prices() -> None:
    delta = decision_delta(replica("s", [100.0], 1.0), replica("b", [100.0], 3.0), 1e9)
    assert delta["price_ratio"] == pytest.approx(3.0) and delta["delta_workers"] == 0


def test_noise_that_slows_both_alike_is_not_in_the_ratio() -> None:
    noise = np.linspace(0.5, 1.5, 101)
    delta = decision_delta(replica("s", [100.0, *100 * noise]), replica("b", [50.0, *50 * noise]), 1e9)
    assert delta["price_ratio_low"] == pytest.approx(2) and delta["price_ratio_high"] == pytest.approx(2)
    assert delta["delta_workers_low"] < delta["delta_workers"] < delta["delta_workers_high"]


@given(p=shares, small=dollars, big=dollars)
def test_at_the_needed_rate_a_success_costs_the_same(p: float, small: float, big: float) -> None:
    needed = needed_success_rate(exact(p), exact(small), exact(big))
    assert usd_per_success(exact(big), needed)[0] == pytest.approx(usd_per_success(exact(small), exact(p))[0])


@given(p=shares, more=shares, small=dollars, extra=dollars)
def test_at_the_needed_cost_of_a_failure_both_models_cost_the_same(
    p: float, more: float, small: float, extra: float
) -> None:
    assume(p + more <= 1)
    value = needed_failure_usd(exact(extra), exact(more))[0]
    with_small = small + (1 - p) * value
    with_big = small + extra + (1 - p - more) * value
    assert with_big == pytest.approx(with_small)


def test_tr121s_example_is_impossible_on_success_alone() -> None:
    row = judged(priced("7b", 0.000760, 0.70), priced("20b", 0.002046, 0.95), failure_usd=None)
    assert row is not None
    assert row["needed_success_rate"] == pytest.approx(1.88, abs=0.01) and row["on_success"] == "impossible"
    assert row["needed_failure_usd"] == pytest.approx((0.002046 - 0.000760) / 0.25)
    assert row["on_failure_cost"] == "depends on what a failure costs"


@pytest.mark.parametrize(("failure_usd", "verdict"), [(0.01, "pays"), (0.005, "does not pay")])
def test_the_cost_of_a_failure_decides(failure_usd: float, verdict: str) -> None:
    row = judged(priced("7b", 0.000760, 0.70), priced("20b", 0.002046, 0.95), failure_usd=failure_usd)
    assert row is not None and row["on_failure_cost"] == verdict


def test_a_dearer_model_that_fails_no_less_often_never_pays() -> None:
    row = judged(priced("s", 1.0, 0.8), priced("b", 2.0, 0.8), failure_usd=1e9)
    assert row is not None
    assert row["on_failure_cost"] == "never: it fails no less often" and row["needed_failure_usd"] is None


@pytest.mark.parametrize(
    ("p_big", "verdict"), [(0.9, "pays"), (0.7, "does not pay"), (None, "not known: no success rate")]
)
def test_success_alone_is_judged_where_both_rates_are_known(p_big: float | None, verdict: str) -> None:
    row = judged(priced("s", 1.0, 0.6), priced("b", 1.3, p_big))
    assert row is not None and row["on_success"] == verdict


def test_an_interval_that_holds_both_verdicts_says_so() -> None:
    prices = np.array([1.3, *np.linspace(1.1, 1.7, 201)])
    row = judged(priced("s", 1.0, 0.6), priced("b", prices, 0.8))
    assert row is not None and row["on_success"].startswith("can't be told")
    row = judged(priced("s", 1.0, 0.7), priced("b", np.array([1.5, *np.linspace(1.0, 2.0, 201)]), None))
    assert row is not None and row["on_success"] == "impossible, though the interval reaches below 1"


def test_without_the_cheaper_models_rate_there_is_nothing_to_reach() -> None:
    assert judged(priced("s", 1.0, None), priced("b", 2.0, 0.9)) is None


@given(share=st.floats(0, 1))
def test_a_blend_lies_between_the_two_models_and_costs_its_workers_hours(share: float) -> None:
    row = routed_row(tiers(SMALL, BIG), share)
    workers = (1 - share) * 1e9 / 2_592_000 / 141.3 + share * 1e9 / 2_592_000 / 52.4
    assert row["workers"] == pytest.approx(workers)
    assert row["usd_per_month"] == pytest.approx(workers * 720 * 1.006)
    assert row["usd_per_1k_requests"] * 1e9 / TOKENS / 1000 == pytest.approx(row["usd_per_month"])
    assert row["success_rate"] == pytest.approx(0.7 + share * 0.2)


def test_whole_fleets_stop_paying_where_the_rounding_eats_the_gain() -> None:
    # Premium alone: 7.36 workers, so 8. Tiers need 7 while six premium workers are enough: up to 6 / 7.363 of the load.
    alone = 8 * 720 * 1.006
    assert routed_row(tiers(SMALL, BIG), 0.2)["stops_paying_share"] == 0.814
    assert routed_row(tiers(SMALL, BIG), 1.0)["usd_per_month_whole"] == pytest.approx(alone)


def test_spares_for_two_fleets_can_cost_more_than_tiers_save() -> None:
    row = routed_row(tiers(SMALL, tier("near", 141.0), spares=2), 0.5)
    assert row["stops_paying_share"] == 0.0 or row["stops_paying_share"] is None


@given(p=st.floats(0, 1))
def test_the_cascade_pays_both_for_what_it_escalates(p: float) -> None:
    small = tier("qwen2.5:7b", 141.3, p=p, latency_s=0.72)
    row = cascade_row(tiers(small, BIG))
    c_small, c_big = usd_per_request(small), usd_per_request(BIG)
    cost = c_small + (1 - p) * c_big
    assert row["usd_per_1k_requests"] == pytest.approx(1000 * cost)
    assert row["usd_per_month"] == pytest.approx(cost * 1e9 / TOKENS)
    assert row["usd_per_month"] == pytest.approx(row["workers"] * 720 * 1.006)
    assert row["mean_latency_s"] == pytest.approx(0.72 + (1 - p) * 2.97)
    assert row["escalated_latency_s"] == pytest.approx(0.72 + 2.97)
    assert (row["pays"] == "pays") == (cost <= c_big)
    assert row["stops_paying_escalated_share"] == pytest.approx(1 - c_small / c_big)


def test_at_the_share_where_it_stops_paying_the_cascade_costs_the_premium_model() -> None:
    share = cascade_row(tiers(SMALL, BIG))["stops_paying_escalated_share"]
    row = cascade_row(tiers(tier("qwen2.5:7b", 141.3, p=1 - share), BIG))
    assert row["usd_per_1k_requests"] == pytest.approx(1000 * usd_per_request(BIG))


def test_without_a_success_rate_the_cascade_says_only_up_to_where_it_would_pay() -> None:
    row = cascade_row(tiers(tier("s", 141.3), BIG))
    assert row["pays"] == "not known: no success rate" and row["usd_per_month"] is None
    assert row["stops_paying_escalated_share"] == pytest.approx(1 - 52.4 / 141.3)


def test_a_fleet_without_an_interval_has_none_and_a_tier_without_load_is_not_built() -> None:
    row = routed_row(tiers(replica("s", [141.3, np.nan]), BIG), 0.2)
    assert row["whole_workers_default"] == 3 and row["whole_workers_default_high"] is None
    assert row["usd_per_month_whole_low"] is None
    assert routed_row(tiers(SMALL, BIG), 1.0)["whole_workers_default"] == 0
