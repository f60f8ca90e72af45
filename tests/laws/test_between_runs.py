"""What runs of one side tell of noise: closed forms, intervals that hold, few false alarms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaselaw.laws.between_runs import by_calls, cells, holm, whole

MODELS = np.repeat(np.arange(4), 3)


def test_holms_adjusted_p_values_are_those_worked_out_by_hand() -> None:
    # Ascending: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not fall below the one before.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, np.nan, 0.7]))[[0, 2]] == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(p * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_the_whole_is_the_two_sample_t_test_over_runs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(3, 0.1, (3, 12)), rng.normal(3.2, 0.1, (4, 12))
    moved, expected = whole(a, b), stats.ttest_ind(b.mean(axis=1), a.mean(axis=1), alternative="greater")
    assert moved.p_slower(0.0)[0] == pytest.approx(expected.pvalue)
    assert moved.degrees[0] == 5


def test_where_only_the_run_shifts_a_cell_has_the_degrees_of_freedom_of_runs() -> None:
    shift = np.array([[0.0], [0.1], [0.05], [0.12]])
    y = np.linspace(1, 2, 12) + shift
    assert cells(y[:2], y[2:], MODELS).degrees == pytest.approx(2.0)


def test_one_cell_that_jumps_has_its_own_variance() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(3, 0.01, (4, 12))
    y[3, 5] += 1.0  # one run of side B, one cell
    moved = cells(y[:2], y[2:], MODELS)
    assert moved.log_ratio[5] == pytest.approx(0.5, abs=0.05)
    assert moved.se[5] == pytest.approx(0.5, rel=0.05)
    assert moved.p_slower(0.0)[5] > 0.05


def test_ratios_of_sides_that_are_the_same_are_one_and_nothing_is_significant() -> None:
    y = np.random.default_rng(3).normal(3, 0.05, (2, 12))
    for moved in (whole(y, y), cells(y, y, MODELS)):
        assert moved.log_ratio == pytest.approx(0.0)
        assert (moved.p_slower(0.0) >= 0.5 - 1e-9).all()
    still = np.ones((2, 12))
    assert (cells(still, still, MODELS).p_slower(0.0) == 1).all()


@pytest.mark.parametrize(("run", "cell"), [(0.05, 0.01), (0.02, 0.03), (0.0, 0.05)])
def test_the_intervals_hold_the_true_ratio(run: float, cell: float) -> None:
    rng, trials, true = np.random.default_rng(4), 1500, np.log(1.1)
    held = {"whole": 0.0, "cells": 0.0}
    for _ in range(trials):
        y = rng.normal(0, run, (6, 1)) + rng.normal(0, cell, (6, 12))
        y[3:] += true
        for name, moved in (("whole", whole(y[:3], y[3:])), ("cells", cells(y[:3], y[3:], MODELS))):
            low, high = moved.interval(0.95)
            held[name] += float(((low <= 1.1) & (high >= 1.1)).mean()) / trials
    assert 0.93 <= held["whole"] <= 0.97  # 95 %, give or take four standard errors
    assert held["cells"] >= 0.93  # the larger of several variances: never less than asked


def test_calls_alone_give_welchs_interval() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 0.1, 4), rng.normal(0.2, 0.3, 6)
    parts = np.array([[a.var(ddof=1) / 4], [b.var(ddof=1) / 6]])
    low, high = by_calls(np.array([b.mean() - a.mean()]), parts, np.array([[3.0], [5.0]])).interval(0.95)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert np.log([low[0], high[0]]) == pytest.approx([expected.low, expected.high])
    unknown = by_calls(np.zeros(1), np.array([[0.1], [np.nan]]), np.array([[3.0], [0.0]])).interval(0.95)
    assert np.isnan(unknown).all()
