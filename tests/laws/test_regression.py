"""Least squares: closed forms, scipy's answers, and intervals that hold what was put in."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaselaw.laws.regression import (
    bootstrap_lines,
    bootstrap_planes,
    fit_line,
    fit_plane,
    left_out,
    quantile_interval,
    resamples,
    t_half_width,
    theil_sen,
    unequal_scatter,
)

slopes = st.floats(-3, 3, allow_subnormal=False)


@given(slope=slopes, intercept=slopes, n=st.integers(3, 12))
def test_a_line_without_noise_is_recovered(slope: float, intercept: float, n: int) -> None:
    x = np.linspace(-1, 2, n)
    line = fit_line(x, intercept + slope * x)
    assert line.slope == pytest.approx(slope, abs=1e-9)
    assert line.intercept == pytest.approx(intercept, abs=1e-9)


def test_a_line_is_the_one_that_scipy_fits() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=9), rng.normal(size=9)
    line, expected = fit_line(x, y), stats.linregress(x, y)
    assert (line.slope, line.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert (line.slope_se, line.r2) == pytest.approx((expected.stderr, expected.rvalue**2))
    assert line.standard_errors[0] == pytest.approx(expected.intercept_stderr)


def test_models_of_one_size_have_no_slope() -> None:
    line = fit_line(np.ones(4), np.arange(4.0))
    assert np.isnan(line.slope) and not line.determined


def test_two_points_have_a_slope_and_no_interval() -> None:
    line = fit_line(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    assert line.slope == pytest.approx(2.0)
    assert np.isnan(t_half_width(np.array(line.slope_se), 0, 0.95))


def test_the_t_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(11)
    n, trials = 7, 4000
    x = np.linspace(0, 3, n)
    lines = [fit_line(x, 0.5 * x + noise) for noise in rng.normal(0, 0.2, (trials, n))]
    half = t_half_width(np.array([line.slope_se for line in lines]), n - 2, 0.95)
    inside = (np.abs(np.array([line.slope for line in lines]) - 0.5) <= half).mean()
    assert 0.935 <= inside <= 0.965  # 95 %, give or take four standard errors


def test_resamples_are_the_same_for_a_seed_and_hold_each_draw() -> None:
    counts = resamples(7, 50, 42)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == resamples(7, 50, 42)).all()
    assert (counts != resamples(7, 50, 43)).any()


def test_a_resample_is_fitted_as_if_its_models_stood_there_repeated() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=6), rng.normal(size=6)
    counts = resamples(6, 40, 1)
    slope, intercept = bootstrap_lines(x, y, counts)
    for draw in range(40):
        times = counts[draw].astype(int)
        if (times > 0).sum() > 1:
            expected = stats.linregress(np.repeat(x, times), np.repeat(y, times))
            assert slope[draw] == pytest.approx(expected.slope)
            assert intercept[draw] == pytest.approx(expected.intercept)


def test_at_three_models_degenerate_draws_are_left_out_and_counted() -> None:
    x, y = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 3.0])
    _, _, used = quantile_interval(bootstrap_lines(x, y, resamples(3, 1000, 42)), 0.95)
    assert 850 <= used[0] <= 920  # a ninth of all draws is of one model


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_draw_of_planes_all_of_one_model_has_no_r2(scale: float) -> None:
    columns, y = np.log([[1.0, 2.0], [10.0, 4.0], [30.0, 12.0], [300.0, 24.0]]), np.log([10.0, 33.0, 52.0, 180.0])
    counts = np.vstack([4 * np.eye(4), np.ones((1, 4))])
    _, r2 = bootstrap_planes(columns, y + math.log(scale), counts)
    assert np.isnan(r2[:4]).all()
    assert r2[4] == pytest.approx(fit_plane(columns, y).r2)


def test_quantiles_are_numpys_linear_ones() -> None:
    values = np.random.default_rng(2).normal(size=(3, 101))
    low, high, used = quantile_interval(values, 0.9)
    assert low == pytest.approx(np.quantile(values, 0.05, axis=1))
    assert high == pytest.approx(np.quantile(values, 0.95, axis=1))
    assert (used == 101).all()


def test_a_plane_without_noise_is_recovered_and_a_degenerate_one_refused() -> None:
    rng = np.random.default_rng(8)
    columns = rng.normal(size=(7, 2))
    plane = fit_plane(columns, 1 + 2 * columns[:, 0] - 3 * columns[:, 1])
    assert plane.coefficients == pytest.approx([1, 2, -3])
    assert not fit_plane(np.column_stack([columns[:, 0], 2 * columns[:, 0]]), columns[:, 1]).determined
    assert not fit_plane(columns[:2], columns[:2, 0]).determined


def test_leaving_one_out_is_fitting_without_it() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(6, 1)), rng.normal(size=6)
    errors = left_out(fit_plane(x, y)).off
    for left in range(6):
        rest = np.arange(6) != left
        fit = stats.linregress(x[rest, 0], y[rest])
        assert abs(errors[left]) == pytest.approx(abs(y[left] - fit.intercept - fit.slope * x[left, 0]))


def test_the_line_without_a_point_is_the_one_fitted_to_the_others() -> None:
    rng = np.random.default_rng(7)
    for terms in (1, 2):
        columns, y = rng.uniform(0, 3, (6, terms)), rng.normal(0, 1, 6)
        plane = fit_plane(columns, y)
        found = left_out(plane)
        for at in range(6):
            others = fit_plane(np.delete(columns, at, axis=0), np.delete(y, at))
            assert found.slopes[at] == pytest.approx(others.coefficients[1:])
            assert found.slopes_se[at] == pytest.approx(others.standard_errors[1:])
            assert found.r2[at] == pytest.approx(others.r2)
            assert found.off[at] == pytest.approx(y[at] - others.at(columns[at]))
        assert plane.leverages().sum() == pytest.approx(1.0 + terms)


def test_a_point_that_alone_tells_of_size_has_no_line_without_it() -> None:
    line = fit_line(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert line.leverages()[0] == pytest.approx(1.0) and np.isnan(left_out(line).slopes[0, 0])
    assert np.isnan(unequal_scatter(line).se)


@pytest.mark.parametrize("n", [4, 5, 7, 12])
def test_equal_scatter_is_found_unequal_as_often_as_stated_and_hc2_covers(n: int) -> None:
    rng, trials = np.random.default_rng(n), 1500
    lines = [fit_line(np.linspace(0, 1, n), y) for y in rng.normal(0, 1, (trials, n))]
    se, degrees, p = np.array([unequal_scatter(line) for line in lines]).T
    for share in (0.1, 0.3):
        assert (p < share).mean() == pytest.approx(share, abs=0.04)
    held = np.abs([line.slope for line in lines]) <= stats.t.ppf(0.975, degrees) * se
    assert 0.93 <= held.mean() <= 0.98


def test_hc2_is_least_squares_variance_where_all_leverages_and_residuals_are_alike() -> None:
    line = fit_line(np.array([-1.0, -1.0, 1.0, 1.0]), np.array([1.0, -1.0, 1.0, -1.0]))
    assert unequal_scatter(line).se == pytest.approx(line.slope_se)
    assert unequal_scatter(line).degrees == pytest.approx(2.0)


def test_many_points_are_judged_without_their_eigenvalues_nearly_as_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.sort(np.random.default_rng(1).uniform(0, 1, 150))
    noises = np.random.default_rng(2).normal(0, 1, (3, 150))
    lines = [fit_line(x, x + noise * factor ** (3 * x)) for noise, factor in zip(noises, (1.0, 1.0, 3.0), strict=True)]
    exact = [unequal_scatter(line) for line in lines]
    monkeypatch.setattr("phaselaw.laws.regression.MOST_EXACT", 100)
    found = [unequal_scatter(line) for line in lines]
    for one, other in zip(found, exact, strict=True):
        assert one[:2] == pytest.approx(other[:2]) and one.p == pytest.approx(other.p, abs=0.03)
    assert [each.p < 0.01 for each in found] == [False, False, True]


def test_thousands_of_points_have_a_theil_sen_line_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phaselaw.laws.regression.MOST_PAIRED", 50)
    x = np.linspace(0, 1, 170)
    slope, intercept, low, high = theil_sen(x, 2 * x + 1 + 1e-3 * np.sin(1e4 * x), 0.95)
    assert slope == pytest.approx(2.0, abs=0.01) and intercept == pytest.approx(1.0, abs=0.01)
    assert low < 2 < high


@pytest.mark.filterwarnings("error")
def test_of_no_points_nothing_is_known() -> None:
    """A run of one model leaves none to the laws that leave it out."""
    plane = fit_plane(np.empty((0, 1)), np.empty(0))
    assert not plane.determined and np.isnan(plane.coefficients).all() and plane.leverages().size == 0
