"""Quantities as a point and draws: what is not known stays unknown through arithmetic."""

import json
import math

import numpy as np
import pytest

from phaselaw.plan.estimate import estimate, exact, without_interval


def test_the_interval_holds_the_middle_of_the_draws() -> None:
    told = estimate(np.concatenate([[7.0], np.linspace(0, 100, 4001)]))
    assert (told.value, told.low, told.high) == (7.0, pytest.approx(2.5), pytest.approx(97.5))


def test_what_was_given_has_no_interval_of_its_own_and_takes_the_others() -> None:
    measured = np.array([2.0, 1.0, 3.0])
    assert estimate(exact(5.0)).low is None
    told = estimate(exact(5.0) * measured, level=1.0)
    assert (told.low, told.high) == (5.0, 15.0)


def test_one_quantity_without_an_interval_leaves_a_sum_without_one() -> None:
    both = without_interval(1.0) + without_interval(2.0)
    assert estimate(both) == estimate(exact(3.0))


def test_no_limit_and_no_value_are_none_and_the_row_is_json() -> None:
    row = estimate(np.array([math.inf, 1.0, 2.0])).named("price")
    row |= estimate(np.array([1.0, 0.5, math.inf, math.inf])).named("ceiling") | estimate(None).named("absent")
    assert row["price"] is None and row["ceiling"] == 1.0 and row["ceiling_high"] is None
    assert row["absent"] is None and row["absent_low"] is None
    json.dumps(row, allow_nan=False)
