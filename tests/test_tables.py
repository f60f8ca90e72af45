"""Numbers as tables show them: three digits, whole things whole, a dash for what is missing."""

import pytest

from phaselaw.records import duration
from phaselaw.tables import MISSING, bracket, count, digits, fixed, interval, percent, unit_price


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.10271, "0.103"),
        (96.08832, "96.1"),
        (1042.44, "1,042"),
        (0, "0"),
        (-0.0155, "-0.0155"),
        (1e-12, "0.000000000"),
    ],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert digits(value) == text


@pytest.mark.parametrize(
    ("dollars", "places", "text"),
    [
        (0.000264, 3, "0.000264"),
        (0.0241, 3, "0.024"),
        (5.3284, 3, "5.328"),
        (0.0249, 2, "0.0249"),
        (0.1, 2, "0.10"),
        (0, 2, "0.00"),
    ],
)
def test_a_price_is_never_rounded_to_nothing(dollars: float, places: int, text: str) -> None:
    assert unit_price(dollars, places) == text


@pytest.mark.parametrize("show", [digits, fixed, count, percent, unit_price])
def test_what_is_missing_is_a_dash(show) -> None:
    assert show(None) == MISSING


def test_not_a_number_is_missing_too() -> None:
    assert digits(float("nan")) == fixed(float("inf")) == MISSING
    assert fixed(-0.0004) == "0.000"


def test_a_count_is_whole_where_it_is_and_not_rounded_where_it_is_not() -> None:
    assert (count(684), count(64.0), count(10.5)) == ("684", "64", "10.5")


def test_a_share_is_a_percentage() -> None:
    assert percent(0.9798) == "98.0 %"


def test_an_interval_without_an_end_is_a_dash() -> None:
    assert bracket(0.1, 0.2) == "[0.100, 0.200]"
    assert interval("low", "high", "i")[0].text({"low": 0.1, "high": None}) == MISSING


@pytest.mark.parametrize(
    ("seconds", "text"), [(75, "75 s"), (12.34, "12.3 s"), (150, "2.5 min"), (7200, "2 h"), (259_200, "3 days")]
)
def test_a_time_is_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
