"""Axes: values onto pixels, and ticks that people expect."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.report.axes import Scale, limits
from phaselaw.report.document import Axis

LOG, LINEAR = Axis(title="t", log=True), Axis(title="t")


def scale(axis: Axis, low: float, high: float) -> Scale:
    return Scale(axis=axis, low=low, high=high, start=0, end=100)


def test_a_log_axis_gives_each_decade_the_same_room() -> None:
    assert [scale(LOG, 1, 100).at(value) for value in (1, 10, 100)] == pytest.approx([0, 50, 100])
    assert math.isnan(scale(LOG, 1, 100).at(0))


@pytest.mark.parametrize(
    ("axis", "low", "high", "texts"),
    [
        (LOG, 0.08, 130, ["0.1", "1", "10", "100"]),
        (LOG, 150, 4000, ["200", "500", "1,000", "2,000"]),
        (LOG, 1.2, 1.9, ["1.2", "1.4", "1.6", "1.8"]),
        (LINEAR, 0, 0.52, ["0", "0.2", "0.4"]),
        (LINEAR, -0.3, 1.02, ["0", "0.5", "1"]),
        (Axis(title="t", percent=True), 0.9, 1.0, ["90 %", "92 %", "94 %", "96 %", "98 %", "100 %"]),
    ],
)
def test_ticks_are_round_values_inside_the_axis(axis: Axis, low: float, high: float, texts: list[str]) -> None:
    shown = scale(axis, low, high)
    assert [shown.text(tick) for tick in shown.ticks()] == texts


@given(st.booleans(), st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6))
def test_an_axis_shows_every_value_and_two_ticks_or_more(log: bool, values: list[float]) -> None:
    axis = LOG if log else LINEAR
    low, high = limits(axis, values, margin=0.1)
    shown = scale(axis, low, high)
    assert all(-1e-6 <= shown.at(value) <= 100 + 1e-6 for value in values)
    assert 1 <= len(shown.ticks()) <= 30


def test_an_axis_without_values_is_drawn_all_the_same() -> None:
    assert limits(LOG, [math.nan, -1.0], margin=0.1) == (1.0, 10.0)
