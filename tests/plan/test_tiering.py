"""Tiers and the cascade: what is paid is what is served."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import Headroom
from phaselaw.plan.estimate import exact
from phaselaw.plan.quality import Priced
from phaselaw.plan.tiering import Tiers, cascade_row, routed_row
from phaselaw.plan.workers import Worker

TOKENS = 384.0


def tier(model: str, rate: float, p: float | None = None, latency_s: float | None = None) -> Priced:
    worker = Worker(
        backend="b", model=model, batch_size=1, gen_tokens=None, tokens_per_s=np.array([rate]), usd_per_hour=1.006,
        e2e_s=None if latency_s is None else exact(latency_s),
    )  # fmt: skip
    price = TOKENS / rate / 3600 * 1.006
    return Priced(worker=worker, usd_per_request=exact(price), success_rate=None if p is None else exact(p))


def tiers(default: Priced, premium: Priced, **headroom: float) -> Tiers:
    return Tiers(default=default, premium=premium, tokens_per_month=1e9, headroom=Headroom(**headroom))


SMALL, BIG = tier("qwen2.5:7b", 141.3, p=0.7, latency_s=0.72), tier("gpt-oss-20b", 52.4, p=0.9, latency_s=2.97)


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
    c_small, c_big = small.usd_per_request[0], BIG.usd_per_request[0]
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
    assert row["usd_per_1k_requests"] == pytest.approx(1000 * BIG.usd_per_request[0])


def test_without_a_success_rate_the_cascade_says_only_up_to_where_it_would_pay() -> None:
    row = cascade_row(tiers(tier("s", 141.3), BIG))
    assert row["pays"] == "not known: no success rate" and row["usd_per_month"] is None
    assert row["stops_paying_escalated_share"] == pytest.approx(1 - 52.4 / 141.3)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="--premium-share"):
        routed_row(tiers(SMALL, BIG), share)
