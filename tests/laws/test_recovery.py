"""What is put into the simulated engine lies inside the intervals that come out (benchmarks/recovery.py at length)."""

from types import ModuleType

import pytest
from benchmark import benchmark
from scipy import stats

SEEDS = 30


@pytest.fixture(scope="module")
def recovery() -> ModuleType:
    return benchmark("recovery")


def test_intervals_of_the_three_laws_hold_what_was_put_in(recovery: ModuleType) -> None:
    # An interval that covers 95 % has fewer hits than this in one run of a thousand.
    least = stats.binom.ppf(0.001, SEEDS, 0.95)
    for name, share in recovery.shares(SEEDS, first=1000).items():
        assert share * SEEDS >= least, name


def test_an_exponent_that_was_not_put_in_is_found_out(recovery: ModuleType) -> None:
    analyses = [
        recovery.analysed(recovery.study({"overhead_ms": 0.0, "params_exponent": 0.9}, seed)) for seed in (1, 2)
    ]
    assert not any(recovery.hits("power law", analysis)["slope"] for analysis in analyses)
