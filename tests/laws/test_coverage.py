"""Intervals hold the truth as often as they say (benchmarks/coverage.py at length)."""

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

SIMULATIONS = 240
"""Of a case: as many as tell a coverage of 85 % from one of 93 (`test_a_share_that_is_off_is_found_out`)."""


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@functools.cache
def simulated(coverage: ModuleType, case: Any, n: int) -> tuple[Any, dict[str, Any]]:
    """A case's simulations, and by name the shares in which its laws' intervals hold: made once, whoever asks."""
    found = coverage.simulate(case, n, SIMULATIONS)
    return found, {share.interval: share for share in coverage.of_laws(case, n, found)}


def plausible(covered: float, simulations: int) -> bool:
    """Whether a coverage of 93 to 97 % would give this share but once in ten thousand times."""
    fewest = stats.binom.ppf(5e-5, simulations, 0.93) / simulations
    most = stats.binom.ppf(1 - 5e-5, simulations, 0.97) / simulations
    return bool(fewest <= covered <= most)


@pytest.mark.parametrize(("at", "n"), [(0, 4), (0, 7), (1, 4), (4, 7)])
def test_default_intervals_of_one_run_cover(at: int, n: int, coverage: ModuleType) -> None:
    case = coverage.CASES[at]
    runs, of_laws = simulated(coverage, case, n)
    shares = [of_laws["exponent (default)"], *coverage.of_rates(case, n, runs)]
    defaults = [share for share in shares if share.kind == "default"]
    assert len(defaults) >= 2
    for share in defaults:
        assert plausible(share.covered, SIMULATIONS), share


def test_intervals_of_pooled_runs_cover_where_one_runs_do_not(coverage: ModuleType) -> None:
    case = coverage.POOLED[1]
    _, shares = simulated(coverage, case, 7)
    assert plausible(shares["exponent (default)"].covered, SIMULATIONS)
    assert shares["exponent, the noise between units left out"].covered < 0.5


def test_intervals_in_two_variables_and_of_predictions_hold_the_noise_between_pooled_runs(coverage: ModuleType) -> None:
    case = coverage.POOLED[0]
    shares = [*coverage.of_two_variables(case, 7, SIMULATIONS), *coverage.of_predictions(case, 7, SIMULATIONS)]
    assert len(shares) == 3
    for share in shares:
        assert plausible(share.covered, SIMULATIONS), share


def test_the_percentile_bootstrap_covers_less(coverage: ModuleType) -> None:
    _, shares = simulated(coverage, coverage.CASES[0], 4)
    assert shares["exponent, TR121's bootstrap"].covered < shares["exponent (default)"].covered


def test_a_share_that_is_off_is_found_out() -> None:
    assert not plausible(0.85, SIMULATIONS)
    assert not plausible(1.0, 1000)
