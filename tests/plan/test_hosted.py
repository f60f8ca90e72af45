"""A hosted API against own workers: prices by the list, and the break-even by another path."""

import datetime as dt
import math
import random

import pytest

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import HOURS_PER_MONTH, SECONDS_PER_MONTH, Headroom
from phaselaw.plan.economics import Question, answer
from phaselaw.plan.hosted import api_row, listed, usd_per_token
from phaselaw.plan.replicas import stated
from phaselaw.records import Mix

NOW = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)


def by_counting(carried: float, worker: float, spares: int, price: float) -> tuple[float, float]:
    """The least volume at which own workers cost no more, and that from which on they never do, stair by stair."""
    first = always = math.inf
    for loaded in range(1, 900):
        cost = (loaded + spares) * worker
        pays_from = max(cost / price, (loaded - 1) * carried)
        if pays_from > loaded * carried:
            always = math.inf
            continue
        first = min(first, pays_from)
        always = pays_from if pays_from > (loaded - 1) * carried else min(always, pays_from)
    return first, always


def test_the_break_even_is_that_of_counting_workers_for_500_random_inputs() -> None:
    chance, never = random.Random(19), 0
    for _ in range(500):
        rate, hour, spares = chance.randint(50, 5000), chance.randint(5, 400) / 100, chance.randint(0, 3)
        busy, burst = chance.randint(3, 10) / 10, chance.randint(10, 30) / 10
        # Around the price at which one full worker costs what the API does, where it is close.
        carried, worker = rate * SECONDS_PER_MONTH * busy / burst, hour * HOURS_PER_MONTH
        price = worker / carried * (chance.randint(80, 400) + 0.37) / 101  # never a tie of both costs
        found = api_row(stated("m", rate, hour), price, 1e9, Headroom(utilisation=busy, burst=burst, spares=spares))
        first, always = by_counting(carried, worker, spares, price)
        never += first == math.inf
        for name, expected in (("pays_from_tokens_per_month", first), ("always_from_tokens_per_month", always)):
            told = math.inf if found[name] is None else found[name]
            assert told == pytest.approx(expected, rel=1e-9), (name, rate, hour, spares, price)
        assert (found["pays"] == "never") == (first == math.inf)
    assert 20 < never < 200


def test_own_workers_cost_no_more_from_the_break_even_on_and_more_just_below_it() -> None:
    replica, keeps, price = stated("m", 400.0, 1.0), Headroom(spares=1), 2e-6
    row = api_row(replica, price, 1e9, keeps)
    for volume, pays in ((row["pays_from_tokens_per_month"], True), (row["pays_from_tokens_per_month"] * 0.999, False)):
        own = replica.fleet(volume, keeps)["usd_per_month_whole"][0]
        assert bool(own <= price * volume * (1 + 1e-9)) is pays


def test_the_api_is_paid_for_the_tokens_of_each_kind_cached_ones_at_their_own_price() -> None:
    mixes = (
        Mix(name="ask", prompt_tokens=1000, output_tokens=100, share=3, cached_share=0.4),
        Mix(name="write", prompt_tokens=100, output_tokens=500),
    )
    ask, write = 600 * 1 + 400 * 0.1 + 100 * 4, 100 * 1 + 500 * 4
    expected = (3 * ask + write) / 1e6 / (3 * 1100 + 600)
    assert usd_per_token(lambda _: (1.0, 4.0, 0.1), mixes) == pytest.approx(expected)


def test_the_list_knows_models_and_prices_that_grow_with_the_prompt() -> None:
    name, tariff = listed("gemini-2.5-pro", NOW)
    assert name.startswith("Google gemini-2.5-pro, genai-prices ") and name.endswith(" on 2026-11-28")
    short, long = tariff(1000), tariff(300_000)
    assert all(more > less > 0 for less, more in zip(short, long, strict=True))
    assert short[2] < short[0]


def test_a_model_that_is_not_in_the_list_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--api no-such-model: the list of genai-prices has no price of it"):
        listed("no-such-model", NOW)


def test_a_request_that_a_model_can_not_hold_has_no_break_even() -> None:
    long = stated("m", 400.0, 1.0)
    question = Question(
        api=("x", lambda _: (1.0, 1.0, 1.0)), mixes=(Mix(name="a", prompt_tokens=10, output_tokens=10),)
    )
    [row] = answer(question, [long], {})["api"]
    assert row["rate_status"] == "given" and row["usd_per_month_api"] == pytest.approx(1000)
