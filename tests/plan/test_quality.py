"""Break-even on success and on the cost of failures: closed forms, and words that follow from them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.laws.regression import Floats
from phaselaw.plan.estimate import exact
from phaselaw.plan.quality import (
    Priced,
    break_even,
    needed_failure_usd,
    needed_success_rate,
    read_success_rates,
    usd_per_success,
)
from phaselaw.plan.workers import stated

shares = st.floats(0.01, 1.0)
dollars = st.floats(1e-6, 10)


def model(name: str, usd: float | Floats, rate: float | Floats | None) -> Priced:
    return Priced(
        worker=stated(name, 100.0, 1.0),
        usd_per_request=np.atleast_1d(usd),
        success_rate=None if rate is None else np.atleast_1d(rate),
    )


@given(p=shares, small=dollars, big=dollars)
def test_at_the_needed_rate_a_success_costs_the_same(p: float, small: float, big: float) -> None:
    needed = needed_success_rate(exact(p), exact(small), exact(big))
    assert usd_per_success(exact(big), needed)[0] == pytest.approx(usd_per_success(exact(small), exact(p))[0])


@given(p=shares, more=shares, small=dollars, extra=dollars)
def test_at_the_needed_cost_of_a_failure_both_models_cost_the_same(
    p: float, more: float, small: float, extra: float
) -> None:
    assume(p + more <= 1)
    value = needed_failure_usd(exact(extra), exact(more))[0]
    with_small = small + (1 - p) * value
    with_big = small + extra + (1 - p - more) * value
    assert with_big == pytest.approx(with_small)


def test_tr121s_example_is_impossible_on_success_alone() -> None:
    row = break_even(model("7b", 0.000760, 0.70), model("20b", 0.002046, 0.95), failure_usd=None)
    assert row is not None
    assert row["needed_success_rate"] == pytest.approx(1.88, abs=0.01) and row["on_success"] == "impossible"
    assert row["needed_failure_usd"] == pytest.approx((0.002046 - 0.000760) / 0.25)
    assert row["on_failure_cost"] == "depends on what a failure costs"


@pytest.mark.parametrize(("failure_usd", "verdict"), [(0.01, "pays"), (0.005, "does not pay")])
def test_the_cost_of_a_failure_decides(failure_usd: float, verdict: str) -> None:
    row = break_even(model("7b", 0.000760, 0.70), model("20b", 0.002046, 0.95), failure_usd=failure_usd)
    assert row is not None and row["on_failure_cost"] == verdict


def test_a_dearer_model_that_fails_no_less_often_never_pays() -> None:
    row = break_even(model("s", 1.0, 0.8), model("b", 2.0, 0.8), failure_usd=1e9)
    assert row is not None
    assert row["on_failure_cost"] == "never: it fails no less often" and row["needed_failure_usd"] is None


@pytest.mark.parametrize(
    ("p_big", "verdict"), [(0.9, "pays"), (0.7, "does not pay"), (None, "not known: no success rate")]
)
def test_success_alone_is_judged_where_both_rates_are_known(p_big: float | None, verdict: str) -> None:
    row = break_even(model("s", 1.0, 0.6), model("b", 1.3, p_big), failure_usd=None)
    assert row is not None and row["on_success"] == verdict


def test_an_interval_that_holds_both_verdicts_says_so() -> None:
    prices = np.array([1.3, *np.linspace(1.1, 1.7, 201)])
    row = break_even(model("s", 1.0, 0.6), model("b", prices, 0.8), failure_usd=None)
    assert row is not None and row["on_success"].startswith("can't be told")
    row = break_even(
        model("s", 1.0, 0.7), model("b", np.array([1.5, *np.linspace(1.0, 2.0, 201)]), None), failure_usd=None
    )
    assert row is not None and row["on_success"] == "impossible, though the interval reaches below 1"


def test_without_the_cheaper_models_rate_there_is_nothing_to_reach() -> None:
    assert break_even(model("s", 1.0, None), model("b", 2.0, 0.9), failure_usd=None) is None


def test_success_rates_are_read_with_what_they_were_counted_on(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("model,success_rate,n\na,0.7,200\nb,0.9,\n")
    rates = read_success_rates(path, {"a", "b"})
    assert rates["b"].tolist() == [0.9]
    low, high = np.quantile(rates["a"][1:], [0.025, 0.975])
    assert (low, high) == (pytest.approx(0.634, abs=0.002), pytest.approx(0.760, abs=0.002))  # Jeffreys, 140 of 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,success_rate\na,1.2\n", ":2: success_rate 1.2"),
        ("model,success_rate\na,-0.1\n", ":2: success_rate '-0.1'"),
        ("model,success_rate\nz,0.5\n", ":2: model 'z' is not in this run"),
        ("model,success_rate\na,0.5\na,0.6\n", ":3: model 'a' is there twice"),
        ("model\na\n", ":1: column.s. missing: success_rate"),
    ],
)
def test_faulty_rates_are_one_line_that_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_success_rates(path, {"a"})
