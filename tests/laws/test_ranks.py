"""Ranks and lines by them are scipy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phaselaw.laws.regression import spearman, theil_sen


def points_of(seed: int, n: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=n)
    return (np.round(x), np.round(y)) if ties else (x, y)


@settings(max_examples=150)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 12), ties=st.booleans())
def test_spearman_is_scipys(seed: int, n: int, ties: bool) -> None:
    x, y = points_of(seed, n, ties=ties)
    rho, p = spearman(x, y)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert np.isnan(rho)
        return
    expected = stats.spearmanr(x, y)
    assert rho == pytest.approx(expected.statistic, abs=1e-12)
    assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.filterwarnings("ignore:All `x` coordinates are identical")
@settings(max_examples=150)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 12), ties=st.booleans(), level=st.sampled_from([0.8, 0.95]))
def test_theil_sen_is_scipys(seed: int, n: int, ties: bool, level: float) -> None:
    x, y = points_of(seed, n, ties=ties)
    line = theil_sen(x, y, level)
    if len(set(x)) < 2:
        assert np.isnan(line).all()
        return
    with np.errstate(invalid="ignore"):
        expected = stats.theilslopes(y, x, level)
    wanted = (expected.slope, expected.intercept, expected.low_slope, expected.high_slope)
    assert line == pytest.approx(wanted, nan_ok=True)


def test_two_points_have_no_rank_correlation() -> None:
    assert np.isnan(spearman(np.array([0.0, 1.0]), np.array([0.0, 1.0]))).all()


def test_models_in_order_of_latency_correlate_wholly() -> None:
    rho, p = spearman(np.arange(5.0), np.arange(5.0) ** 2)
    assert rho == pytest.approx(1)
    assert p == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "p"), [(3, 2 / 6), (4, 2 / 24), (7, 2 / 5040)])
def test_a_perfect_order_of_few_has_the_exact_p_of_its_orders(n: int, p: float) -> None:
    assert spearman(np.arange(n), np.arange(n) ** 2.0, exact=True) == pytest.approx((1.0, p))


@pytest.mark.parametrize(
    ("order", "rho", "significant"),
    [
        ([3, 2, 1, 5, 4, 7, 6], 0.786, True),
        ([1, 2, 3, 7, 4, 6, 5], 0.750, False),
        ([2, 1, 4, 3, 5, 6], 0.886, True),
        ([2, 1, 4, 3, 6, 5], 0.829, False),
    ],
)
def test_exact_p_values_have_the_published_critical_points(order: list[int], rho: float, significant: bool) -> None:
    # Zar (1972): the two-sided 5 % point of rho is 0.786 for 7 points and 0.886 for 6.
    found, p = spearman(np.arange(len(order)), np.array(order, dtype=float), exact=True)
    assert found == pytest.approx(rho, abs=0.001)
    assert (p <= 0.05) == significant


def test_beyond_eight_points_the_approximation_serves() -> None:
    x, y = points_of(1, 12, ties=False)
    assert spearman(x, y, exact=True) == pytest.approx(tuple(stats.spearmanr(x, y)))
