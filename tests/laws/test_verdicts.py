"""Verdicts by rule, and who is out of order."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.laws.verdicts import out_of_order, verdict


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
    assert verdict(n_models=n, low=low, high=high, r2=r2, rho=rho) == words


def test_the_fewest_models_are_named_out_of_order() -> None:
    assert out_of_order(["a", "b", "c", "d"], [1.0, 9.0, 2.0, 3.0]) == ["b"]
    assert out_of_order(["a", "b"], [1.0, 2.0]) == []


@given(st.lists(st.floats(0, 10), max_size=9))
def test_without_the_models_named_latency_rises(values: list[float]) -> None:
    names = [str(at) for at in range(len(values))]
    out = out_of_order(names, values)
    kept = [value for name, value in zip(names, values, strict=True) if name not in out]
    assert all(one < other for one, other in itertools.pairwise(kept))
