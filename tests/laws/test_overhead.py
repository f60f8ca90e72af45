"""Overhead and compute told apart: the ends of the intervals against all fits within the limit, tried one by one."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from phaselaw.laws.overhead import LINEAR, POWER, overhead_compute_fits

PARAMS = np.array([0.1, 5.0, 25.0, 50.0, 100.0])
LATENCY = np.array([8.0, 60.0, 90.0, 210.0, 170.0])


def points() -> pl.DataFrame:
    known = {"model": [f"m{at}" for at in range(5)], "params_millions_effective": PARAMS, "latency_geomean_ms": LATENCY}
    about = {"backend": "b", "backend_kind": "hf", "batch_size": 1, "gen_tokens_target": 16, "mode": "e2e_kv"}
    table = pl.DataFrame(known).with_columns(pl.lit(value).alias(name) for name, value in about.items())
    return table.with_columns(model_kind="backend_kind")


@pytest.mark.filterwarnings("error")
def test_a_level_of_almost_all_has_ends_that_are_numbers() -> None:
    fits = overhead_compute_fits(points(), 0.9999999)
    assert fits["relative_a_ci_high"].is_finite().all()
    assert (fits["relative_a_ci_low"] <= fits["relative_a_ms"]).all()


@pytest.mark.parametrize(("form", "exponents"), [(LINEAR, np.ones(1)), (POWER, np.linspace(0.0, 2.0, 801))])
def test_the_ends_of_a_and_b_are_those_of_all_fits_within_the_limit(form: str, exponents: np.ndarray) -> None:
    fits = overhead_compute_fits(points(), 0.95)
    found = fits.row(by_predicate=pl.col("fit") == form, named=True)

    n, share = len(PARAMS), np.concatenate([[0.0], np.geomspace(1e-7, 1e5, 1001)])  # of overhead, to what grows
    ratio = share * np.exp(exponents * np.log(PARAMS).mean())[:, None]
    off = np.log(LATENCY) - np.log(ratio[..., None] + PARAMS ** exponents[:, None, None])
    squares = ((off - off.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    degrees = n - (2 if form == LINEAR else 3)
    slack = squares.min() * (1 + stats.f.ppf(0.95, 1, degrees) / degrees) - squares
    within = slack >= 0
    b, more = np.exp(off.mean(axis=-1)[within]), np.exp(np.sqrt(slack[within] / n))
    for name, values in (("a", ratio[within] * b), ("b", b)):
        assert found[f"relative_{name}_ci_low"] == pytest.approx((values / more).min(), rel=0.01, abs=1e-5)
        assert found[f"relative_{name}_ci_high"] == pytest.approx((values * more).max(), rel=0.01)
