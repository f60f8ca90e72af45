"""Values of options, as people write them."""

import math

import pytest

from phaselaw.commands.options import amount, duration


@pytest.mark.parametrize(
    ("text", "value"),
    [("1B", 1e9), ("20k", 2e4), ("1,000,000", 1e6), ("1,500.5", 1500.5), ("70%", 0.7), ("1e9", 1e9), ("8 M", 8e6),
     ("-5", -5.0), ("2T", 2e12), ("0.25", 0.25)],
)  # fmt: skip
def test_an_amount(text: str, value: float) -> None:
    assert amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "B", "1,00", "1,2,3", "1.2.3", "nan", "inf", "1KB", "1e", "--"])
def test_what_is_no_amount(text: str) -> None:
    assert math.isnan(amount(text))


def test_a_time_in_milliseconds() -> None:
    assert duration("--slo")("500ms") == 0.5
