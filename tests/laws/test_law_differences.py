"""The difference of two exponents: that of the two fits, with an interval that holds the noise between runs."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaselaw.laws.law_differences import paired_slope_difference, unpaired_slope_difference
from phaselaw.laws.noise import Replicates

SIZES = [1.0, 10.0, 30.0, 200.0, 900.0]
KEYS = {"backend": "b", "backend_kind": "hf", "batch_size": 1, "gen_tokens_target": 64}
WOBBLE = [1.01, 0.98, 1.02, 0.99, 1.0]


def per_model(latency: list[float], mode: str) -> pl.DataFrame:
    models = {"model": list("abcde"), "model_kind": ["hf"] * 5, "params_millions_effective": SIZES}
    return pl.DataFrame(models | {"latency_geomean_ms": latency}).with_columns(
        *(pl.lit(value).alias(name) for name, value in (KEYS | {"mode": mode}).items())
    )


def runs(tilts: dict[str, list[float]]) -> Replicates:
    """Runs in each of which a phase's law is tilted by so much."""
    parts = [
        per_model([size ** (0.5 + tilt) for size in SIZES], mode).with_columns(
            latency=pl.col("latency_geomean_ms").log(), scenario=pl.lit("s"), replicate=pl.lit(f"r{at}"), n_scenarios=1
        )
        for mode, each in tilts.items()
        for at, tilt in enumerate(each)
    ]  # fmt: skip
    return Replicates(kind="runs", n=len(next(iter(tilts.values()))), logs=pl.concat(parts))


PREFILL = per_model([wobble * size**0.5 for wobble, size in zip(WOBBLE, SIZES, strict=True)], "prefill")
DECODE = per_model([size**0.5 for size in SIZES], "kv_decode")
latencies = st.lists(st.floats(1.0, 1e4), min_size=5, max_size=5)


@given(latencies, latencies)
def test_the_paired_difference_is_that_of_the_two_slopes(first: list[float], second: list[float]) -> None:
    found = paired_slope_difference(per_model(first, "prefill"), per_model(second, "kv_decode"), 0.95)
    slopes = [stats.linregress(np.log10(SIZES), np.log10(values)).slope for values in (first, second)]
    assert found.difference == pytest.approx(slopes[0] - slopes[1], abs=1e-9)
    assert found.low <= found.difference <= found.high


def test_runs_that_tilt_both_phases_alike_leave_the_interval_and_others_widen_it() -> None:
    alone = paired_slope_difference(PREFILL, DECODE, 0.95)
    tilts = [-0.1, 0.0, 0.1]
    alike = paired_slope_difference(PREFILL, DECODE, 0.95, replicates=runs({"prefill": tilts, "kv_decode": tilts}))
    apart = paired_slope_difference(
        PREFILL, DECODE, 0.95, replicates=runs({"prefill": tilts, "kv_decode": tilts[::-1]})
    )
    assert (alike.low, alike.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low > 5 * (alone.high - alone.low)
    assert apart.difference == pytest.approx(alone.difference)


def test_two_models_tell_no_difference() -> None:
    found = paired_slope_difference(PREFILL.head(2), DECODE, 0.95)
    assert math.isnan(found.low) and found.n_models == 2
    assert not found.distinct


def law(slope: float, half: float, n: int) -> dict[str, float]:
    return {"slope": slope, "slope_t_ci_low": slope - half, "slope_t_ci_high": slope + half, "n_models": n}


def test_laws_over_other_models_have_the_errors_that_their_intervals_stand_for() -> None:
    halves = [0.1 * stats.t.ppf(0.975, 5)] * 2
    found = unpaired_slope_difference(law(0.5, halves[0], 7), law(0.2, halves[1], 7), 0.95)
    assert found.difference == pytest.approx(0.3)
    # Welch's interval of equal variances is Student's.
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, 10) * math.sqrt(0.02))
    unknown = law(0.2, 0.1, 2) | {"slope_t_ci_low": None}
    assert math.isnan(unpaired_slope_difference(law(0.5, 0.1, 7), unknown, 0.95).low)
