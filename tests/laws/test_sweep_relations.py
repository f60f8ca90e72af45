"""Lines and parabolas along an axis: the coefficients put in lie in the intervals, and noise is not called a law."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import tables_of
from scipy import stats
from simulated_run import run_of, swept

from phaselaw.laws.step_time import relative_fit
from phaselaw.laws.sweep_relations import MAY_BE_ZERO, NOT_ZERO, decode_by_batch, prefill_by_length

KEY = {"backend": "cpu", "backend_kind": "hf", "model": "m", "params_millions_effective": 1.0}
LENGTHS = np.array([16.0, 64.0, 128.0, 256.0, 512.0, 768.0])


def prefills(*models: np.ndarray) -> pl.DataFrame:
    """Prefills of models that take so many ms at each length."""
    rows = [KEY | {"model": f"m{at}", "mode": "prefill", "batch": 1.0, "tokens": n, "fold": n, "ms": each}
            for at, ms in enumerate(models) for n, each in zip(LENGTHS, ms, strict=True)]  # fmt: skip
    return pl.DataFrame(rows)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 10), st.floats(0.01, 1), st.floats(1e-5, 1e-2))
def test_an_exact_parabola_comes_out_and_half_of_it_is_its_square_where_it_says(a: float, b: float, c: float) -> None:
    row = prefill_by_length(prefills(a + b * LENGTHS + c * LENGTHS**2), level=0.95).row(0, named=True)
    assert [row["constant_ms"], row["per_token_ms"], row["per_pair_ms"]] == pytest.approx([a, b, c], rel=1e-4, abs=1e-6)
    at = row["half_at_tokens"]
    assert c * at**2 == pytest.approx(a + b * at, rel=1e-3)


def test_the_squares_interval_covers_it_and_a_line_is_not_called_a_parabola() -> None:
    draw, trials = np.random.default_rng(3), 400
    noise = np.exp(0.02 * draw.standard_normal((trials, len(LENGTHS))))
    curved = prefill_by_length(prefills(*(5 + 0.1 * LENGTHS + 1e-4 * LENGTHS**2) * noise), level=0.95)
    straight = prefill_by_length(prefills(*(5 + 0.1 * LENGTHS) * noise), level=0.95)
    assert curved.height == straight.height == trials
    held = ((curved["per_pair_ci_low"] <= 1e-4) & (curved["per_pair_ci_high"] >= 1e-4)).sum()
    told = (straight["quadratic"] == NOT_ZERO).sum()
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= held <= high
    assert told <= stats.binom.ppf(0.999, trials, 0.025)


def test_the_batch_at_which_sequences_cost_as_much_as_the_step_has_an_interval_that_covers() -> None:
    draw, trials = np.random.default_rng(5), 400
    batches = np.array([1.0, 2.0, 4.0, 8.0])
    models = (8 + 2 * batches) * np.exp(0.01 * draw.standard_normal((trials, 4)))
    rows = [KEY | {"model": f"m{at}", "mode": "kv_decode", "batch": b, "tokens": 20.0, "fold": 20.0, "ms": each}
            for at, ms in enumerate(models) for b, each in zip(batches, ms, strict=True)]  # fmt: skip
    found = decode_by_batch(pl.DataFrame(rows), level=0.95)
    assert found.height == trials
    held = ((found["equal_at_ci_low"] <= 4) & (found["equal_at_ci_high"] >= 4)).sum()
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= held <= high


def test_a_step_that_does_not_grow_is_not_said_to() -> None:
    ms = [10.0, 10.4, 9.7, 10.1]
    rows = [KEY | {"mode": "kv_decode", "batch": float(b), "tokens": 20.0, "fold": 20.0, "ms": each}
            for b, each in zip((1, 2, 4, 8), ms, strict=True)]  # fmt: skip
    row = decode_by_batch(pl.DataFrame(rows), level=0.95).row(0, named=True)
    assert (row["growth"], row["equal_at_ci_high"]) == (MAY_BE_ZERO, None)


def test_a_fit_of_relative_errors_is_not_pulled_by_large_values() -> None:
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    coefficients, _, fitted = relative_fit(np.stack([np.ones(4), x], axis=1), 3 + 2 * x, floor=0.1)
    assert coefficients == pytest.approx([3, 2])
    assert np.sqrt(((fitted / (3 + 2 * x) - 1) ** 2).mean()) < 1e-9


def test_the_simulated_laws_of_context_batch_and_prompt_come_out_of_one_grid() -> None:
    law = {"overhead_ms": 5.0, "params_ms": 0.0, "sequence_ms": 1.0, "context_ms": 0.01, "prompt_ms": 0.05,
           "prompt_pair_ms": 0.001, "prefill_steps": 1.0}  # fmt: skip
    study = swept(law, repetitions=5, sizes=(1.0,), batch_size=(1, 2, 4, 8), prompt_tokens=(16, 64, 128, 256, 512))
    tables = tables_of(run_of(study))
    context = tables["decode_by_context"].filter(pl.col("batch") == 2).row(0, named=True)
    assert context["per_unit_ms"] == pytest.approx(2 * 0.01, rel=0.05)
    assert context["equal_at"] == pytest.approx((5 + 2) / 0.02, rel=0.08)
    batch = tables["decode_by_batch"].filter(pl.col("tokens") == 512 + 7.5).row(0, named=True)
    assert batch["constant_ms"] == pytest.approx(5, rel=0.1)
    assert batch["per_unit_ms"] == pytest.approx(1 + 0.01 * 519.5, rel=0.05)
    prefill = tables["prefill_by_length"].filter(pl.col("batch") == 1).row(0, named=True)
    assert prefill["quadratic"] == NOT_ZERO
    assert prefill["per_pair_ms"] == pytest.approx(0.001, rel=0.03)
    model = tables["step_time_model"].filter(pl.col("mode") == "kv_decode").row(0, named=True)
    assert model["per_token_ms"] == pytest.approx(0.01, rel=0.05)
    assert model["left_out_max"] < 0.05
