"""Verdicts by rule, and who is out of order."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.laws.verdicts import out_of_order, resting_on, verdict, word


@pytest.mark.parametrize(
    ("n", "low", "high", "r2", "rho", "words"),
    [
        (7, 0.1, 0.5, 0.9, 1.0, "supported"),
        (7, 0.1, 0.5, 0.9, 0.86, "supported (trend)"),
        (7, 0.1, 0.5, 0.69, 1.0, "weak"),
        (7, 0.1, 0.5, 0.7, 1.0, "supported"),
        (7, -0.1, 0.5, 0.9, 1.0, "not identifiable"),
        (7, 0.0, 0.5, 0.9, 1.0, "not identifiable"),
        (7, -0.5, -0.1, 0.9, -1.0, "supported"),
        (7, math.nan, math.nan, 0.9, 1.0, "not identifiable"),
        (2, math.nan, math.nan, 1.0, 1.0, "too few models"),
    ],
)
def test_a_verdict_follows_from_interval_and_r2(
    n: int, low: float, high: float, r2: float, rho: float, words: str
) -> None:
    assert verdict(n_models=n, low=low, high=high, r2=r2, rho=rho, span=10.0) == words


def test_models_of_nearly_one_size_support_no_exponent_however_well_they_lie_on_a_line() -> None:
    about = {"n_models": 7, "low": 290.0, "high": 300.0, "r2": 1.0, "rho": 1.0}
    assert verdict(**about, span=1.9) == "range too narrow"
    assert verdict(**about, span=2.0) == "supported"


def test_a_verdict_keeps_its_word_beside_what_it_rests_on() -> None:
    said = resting_on("supported (trend)", ["a", "b"])
    assert said == "supported (trend) (rests on a or b)"
    assert word(said) == word("supported (trend)") == "supported (trend)"


def test_the_fewest_models_are_named_out_of_order() -> None:
    assert out_of_order(["a", "b", "c", "d"], [1.0, 9.0, 2.0, 3.0]) == ["b"]
    assert out_of_order(["a", "b"], [1.0, 2.0]) == []


@given(st.lists(st.floats(0, 10), max_size=9))
def test_without_the_models_named_latency_rises(values: list[float]) -> None:
    names = [str(at) for at in range(len(values))]
    out = out_of_order(names, values)
    kept = [value for name, value in zip(names, values, strict=True) if name not in out]
    assert all(one < other for one, other in itertools.pairwise(kept))
