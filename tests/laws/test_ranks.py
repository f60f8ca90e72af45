"""Ranks over many groups at once give what scipy gives for each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phaselaw.laws.regression import exact_spearman, spearman_rows, theil_sen_rows


def rows_of(seed: int, n: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, n)), rng.normal(size=(20, n))
    return (np.round(x), np.round(y)) if ties else (x, y)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 12), ties=st.booleans())
def test_spearman_is_scipys_in_every_row(seed: int, n: int, ties: bool) -> None:
    x, y = rows_of(seed, n, ties=ties)
    rho, p = spearman_rows(x, y)
    for index in range(len(x)):
        if len(set(x[index])) < 2 or len(set(y[index])) < 2:
            assert np.isnan(rho[index])
            continue
        expected = stats.spearmanr(x[index], y[index])
        assert rho[index] == pytest.approx(expected.statistic, abs=1e-12)
        assert p[index] == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.filterwarnings("ignore:All `x` coordinates are identical")
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 12), ties=st.booleans(), level=st.sampled_from([0.8, 0.95]))
def test_theil_sen_is_scipys_in_every_row(seed: int, n: int, ties: bool, level: float) -> None:
    x, y = rows_of(seed, n, ties=ties)
    lines = np.stack(theil_sen_rows(x, y, level), axis=1)
    for index in range(len(x)):
        if len(set(x[index])) < 2:
            assert np.isnan(lines[index, [0, 2, 3]]).all()
            continue
        with np.errstate(invalid="ignore"):
            expected = stats.theilslopes(y[index], x[index], level)
        wanted = (expected.slope, expected.intercept, expected.low_slope, expected.high_slope)
        assert tuple(lines[index]) == pytest.approx(wanted, nan_ok=True)


def test_two_points_have_no_rank_correlation() -> None:
    rho, p = spearman_rows(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]]))
    assert np.isnan(rho[0]) and np.isnan(p[0])


def test_models_in_order_of_latency_correlate_wholly() -> None:
    rho, p = spearman_rows(np.arange(5.0)[None], np.arange(5.0)[None] ** 2)
    assert rho[0] == pytest.approx(1)
    assert p[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "p"), [(3, 2 / 6), (4, 2 / 24), (7, 2 / 5040)])
def test_a_perfect_order_of_few_has_the_exact_p_of_its_orders(n: int, p: float) -> None:
    assert exact_spearman(np.arange(n), np.arange(n) ** 2.0) == pytest.approx((1.0, p))


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
    found, p = exact_spearman(np.arange(len(order)), np.array(order, dtype=float))
    assert found == pytest.approx(rho, abs=0.001)
    assert (p <= 0.05) == significant


def test_beyond_eight_points_the_approximation_serves() -> None:
    x, y = rows_of(1, 12, ties=False)
    assert exact_spearman(x[0], y[0]) == pytest.approx(tuple(stats.spearmanr(x[0], y[0])))
