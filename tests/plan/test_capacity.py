"""Workers and dollars: TR121's printed figures, arithmetic that can't be otherwise, and intervals through it."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.laws.rates import same_draws
from phaselaw.plan.capacity import (
    SECONDS_PER_MONTH,
    Headroom,
    all_taken_share,
    estimate,
    exact,
    mean_tokens,
    whole_workers,
)
from phaselaw.plan.economics import Question, capacity_row
from phaselaw.plan.inputs import TR121_MIXES
from phaselaw.plan.replicas import Replica, stated
from phaselaw.records import Mix

rates = st.floats(1e-3, 1e6)


def replica(*rates: float, usd_per_hour: float = 1.0) -> Replica:
    """A replica whose rate has these draws behind its point."""
    rate = same_draws(rates[0], np.array(rates[1:]))
    return Replica(backend="b", model="m", batch_size=1, gen_tokens=8, tokens_per_s=rate, usd_per_hour=usd_per_hour)


@pytest.mark.parametrize(
    ("tokens_per_s", "workers", "usd_per_1m"),
    [(90.9, 4.24, 3.07), (51.9, 7.43, 5.38), (412.2, 0.94, 0.68), (174.0, 2.22, 1.61), (654.6, 0.59, 0.43)],
)
def test_figures_that_tr121_prints_for_a_billion_tokens_a_month(
    tokens_per_s: float, workers: float, usd_per_1m: float
) -> None:
    fleet = stated("m", tokens_per_s, 1.006).fleet(1e9)
    assert fleet["workers"][0] == pytest.approx(workers, abs=0.006)
    assert fleet["usd_per_1m"][0] == pytest.approx(usd_per_1m, abs=0.006)


def test_any_load_takes_a_worker_and_none_takes_the_spares_alone() -> None:
    load = np.array([1e-12, 0.0, 1.0 + 1e-12, math.nan])
    assert whole_workers(load, Headroom(spares=2)).tolist()[:3] == [3, 2, 3]
    assert math.isnan(whole_workers(load, Headroom())[3])


@given(busy=st.floats(0, 0.999), places=st.integers(1, 300))
def test_requests_find_all_places_taken_as_erlangs_recursion_says(busy: float, places: int) -> None:
    offered, blocked = busy * places, 1.0
    for n in range(1, places + 1):
        blocked = offered * blocked / (n + offered * blocked)
    share = all_taken_share(exact(offered), exact(places))[0]
    assert share == pytest.approx(blocked / (1 - busy * (1 - blocked)), rel=1e-9, abs=1e-300)
    assert share == pytest.approx({1: busy, 2: 2 * busy**2 / (1 + busy)}.get(places, share))


def test_all_places_are_taken_where_more_comes_than_they_serve_and_seldom_in_a_large_fleet() -> None:
    shares = all_taken_share(np.array([4.0, 5.0, math.nan, 0.9e6]), np.array([4.0, 4.0, 4.0, 1e6]))
    assert shares[:2].tolist() == [1, 1] and math.isnan(shares[2]) and shares[3] == pytest.approx(0, abs=1e-12)


@given(rate=rates, volume=st.floats(1e3, 1e15), price=st.floats(1e-3, 1e3))
def test_the_month_costs_the_workers_hours_and_the_tokens_prices(rate: float, volume: float, price: float) -> None:
    row = capacity_row(replica(rate, usd_per_hour=price), volume, Headroom())
    assert row["usd_per_month"] == pytest.approx(row["workers"] * 720 * price)
    assert row["usd_per_month"] == pytest.approx(row["usd_per_1m"] * volume / 1e6)


@given(rate=rates)
def test_a_faster_worker_means_fewer_workers_so_the_interval_turns_round(rate: float) -> None:
    row = capacity_row(replica(rate, *np.linspace(0.9 * rate, 1.2 * rate, 41)), 1e9, Headroom())
    for name in ("workers", "usd_per_1m", "usd_per_month"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
        assert row[f"{name}_high"] / row[name] == pytest.approx(1 / 0.9075)


def test_a_rate_without_an_interval_gives_none() -> None:
    row = capacity_row(stated("m", 100.0, 1.0), 1e9, Headroom())
    assert row["workers"] == pytest.approx(3.858, abs=1e-3)
    assert row["workers_low"] is None and row["whole_workers_high"] is None


@given(workers=st.floats(1e-6, 1e6), utilisation=st.floats(0.05, 1), burst=st.floats(1, 20), spares=st.integers(0, 9))
def test_whole_workers_are_the_fewest_that_carry_the_peak_within_the_busy_share(
    workers: float, utilisation: float, burst: float, spares: int
) -> None:
    headroom = Headroom(utilisation=utilisation, burst=burst, spares=spares)
    [fleet] = whole_workers(exact(workers), headroom)
    serving = fleet - spares
    assert fleet == math.floor(fleet)
    assert workers * burst <= serving * utilisation * (1 + 1e-9) + 1e-9
    assert workers * burst > (serving - 1) * utilisation * (1 - 1e-9) - 1e-9


def test_a_fraction_that_is_whole_but_for_rounding_stays_whole() -> None:
    assert whole_workers(exact(0.1 + 0.2), Headroom(utilisation=0.1))[0] == 3


def test_tr121s_fleet_with_headroom_by_hand() -> None:
    # 7.36 workers at 1.5 x the mean, busy 70 % at most: 15.8, so 16, and one spare.
    assert whole_workers(exact(7.36), Headroom(utilisation=0.7, burst=1.5, spares=1))[0] == 17


@pytest.mark.parametrize(
    ("settings", "option"),
    [({"utilisation": 0}, "--utilisation"), ({"utilisation": 1.1}, "--utilisation"), ({"burst": 0.9}, "--burst"),
     ({"burst": math.inf}, "--burst"), ({"spares": -1}, "--spares"), ({"utilisation": math.nan}, "--utilisation"),
     ({"utilisation": 1e-300}, "--utilisation"), ({"burst": 1e300}, "--burst")],
)  # fmt: skip
def test_headroom_that_makes_no_sense_is_refused(settings: dict[str, float], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        Headroom(**settings)


@given(rate=st.floats(1, 1e5), tokens=st.floats(1, 1e5), usd=st.floats(0.01, 100))
def test_a_worker_that_only_serves_requests_earns_its_hour(rate: float, tokens: float, usd: float) -> None:
    replica = stated("m", rate, usd)
    assert replica.usd_per_request(tokens)[0] * rate / tokens * 3600 == pytest.approx(usd)


def test_tr121s_mixes_hold_the_tokens_that_it_prints() -> None:
    assert [mix.tokens for mix in TR121_MIXES] == [384, 544, 1536, 2304]


def test_the_mean_goes_by_shares() -> None:
    mixes = [
        Mix(name="a", prompt_tokens=90, output_tokens=10, share=3),
        Mix(name="b", prompt_tokens=0, output_tokens=500),
    ]
    assert mean_tokens(mixes) == 200
    assert Question(requests_per_s=2.0, mixes=tuple(mixes)).volume == 400 * SECONDS_PER_MONTH


def test_the_interval_holds_the_middle_of_the_draws() -> None:
    told = estimate(same_draws(7.0, np.linspace(0, 100, 4001)))
    assert (told.value, told.low, told.high) == (7.0, pytest.approx(2.5), pytest.approx(97.5))


def test_what_was_given_has_no_interval_of_its_own_and_takes_the_others() -> None:
    measured = same_draws(2.0, np.array([1.0, 3.0]))
    assert estimate(exact(5.0)).low is None
    told = estimate(exact(5.0) * measured)
    assert (told.low, told.high) == (5.0, 15.0)


def test_each_interval_is_of_its_own_draws() -> None:
    quantity = np.concatenate([[5.0], np.linspace(0, 10, 401), np.linspace(4, 6, 401), np.full(401, math.nan)])
    told = estimate(quantity)
    assert (told.low, told.mean_low) == (pytest.approx(0.25), pytest.approx(4.05))
    assert told.within_low is None and told.reach == (told.low, told.high)
    only = estimate(np.concatenate([[5.0], np.full(802, math.nan), np.linspace(4, 6, 401)]))
    assert only.low is None and only.reach == (only.within_low, only.within_high)


def test_one_quantity_without_an_interval_leaves_a_sum_without_one() -> None:
    both = stated("one", 1.0, 1.0).tokens_per_s + stated("other", 2.0, 1.0).tokens_per_s
    assert estimate(both) == estimate(exact(3.0))


def test_no_limit_and_no_value_are_none_and_the_row_is_json() -> None:
    row = estimate(same_draws(math.inf, np.array([1.0, 2.0]))).named("price")
    row |= estimate(same_draws(1.0, np.array([0.5, math.inf, math.inf]))).named("ceiling") | estimate(None).named(
        "absent"
    )
    assert row["price"] is None and row["ceiling"] == 1.0 and row["ceiling_high"] is None
    assert row["absent"] is None and row["absent_low"] is None
    json.dumps(row, allow_nan=False)
