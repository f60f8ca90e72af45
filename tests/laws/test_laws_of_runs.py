"""Laws of several runs side by side: the differences that closed forms give, and what differs in words."""

import numpy as np
import polars as pl
import pytest
from rows import row_of, run_of, tables_of
from scipy import stats

from phaselaw.laws.law_differences import INDEPENDENT, NONE, PAIRED, law_differences, stem
from phaselaw.records import PHASES

SIZES = np.array([1.0, 3.0, 10.0, 40.0, 200.0, 900.0])
SCATTER = np.array([0.1, -0.2, 0.15, 0.05, -0.1, 0.0])
"""What each model does on top of the law, in log latency."""


def tables(
    exponent: float, *, names: str = "m", sizes=SIZES, scatter=SCATTER, extra=0.0, backend="b", batch=1, gen_tokens=64
):
    latency = np.exp(exponent * np.log(sizes) + scatter + extra)
    rows = [
        row_of(
            mode, ms, backend=backend, model=f"{names}{at}", params_millions=size, rep=rep, batch_size=batch,
            gen_tokens_target=gen_tokens, tokens_total=64.0, tokens_per_s=64.0 / ms,
        )
        for at, (size, ms) in enumerate(zip(sizes, latency, strict=True))
        for mode in PHASES
        for rep in range(3)
    ]  # fmt: skip
    return tables_of(run_of(rows))


def e2e(compared: pl.DataFrame, run: str) -> dict:
    [row] = compared.filter((pl.col("run") == run) & (pl.col("mode") == "e2e_kv")).to_dicts()
    return row


def test_over_the_same_models_the_difference_is_of_pairs_and_the_models_own_scatter_cancels() -> None:
    noise = np.array([0.01, -0.01, 0.02, 0.0, -0.02, 0.01])
    runs = [("a", tables(0.5)), ("b", tables(0.7, extra=noise))]
    row = e2e(law_differences(runs, 0.95), "b")
    fit = stats.linregress(np.log(SIZES), 0.2 * np.log(SIZES) + noise)  # of log(b / a): the scatter is gone
    half = stats.t.ppf(0.975, 4) * fit.stderr
    assert row["difference_basis"] == PAIRED
    assert (row["difference"], row["difference_low"], row["difference_high"]) == pytest.approx(
        (fit.slope, fit.slope - half, fit.slope + half), rel=1e-9
    )
    assert row["differs_in"] == ""


def test_over_other_models_the_difference_is_welchs_of_independent_slopes() -> None:
    other = np.array([0.1, -0.3, 0.2, -0.2, 0.3, -0.1])
    runs = [("a", tables(0.5)), ("b", tables(0.9, names="other", scatter=other))]
    row = e2e(law_differences(runs, 0.95), "b")
    one = stats.linregress(np.log(SIZES), 0.9 * np.log(SIZES) + other)
    two = stats.linregress(np.log(SIZES), 0.5 * np.log(SIZES) + SCATTER)
    variance = one.stderr**2 + two.stderr**2
    degrees = variance**2 / ((one.stderr**4 + two.stderr**4) / 4)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    assert row["difference_basis"] == INDEPENDENT
    assert row["difference"] == pytest.approx(one.slope - two.slope, rel=1e-9)
    assert row["difference_high"] - row["difference"] == pytest.approx(half, rel=1e-9)
    assert row["differs_in"] == "models: 0 shared, 6 against 6"


def test_the_first_run_has_laws_and_no_difference() -> None:
    row = e2e(law_differences([("a", tables(0.5)), ("b", tables(0.7))], 0.95), "a")
    assert row["slope"] is not None and row["difference"] is None and row["against"] is None


def test_a_batch_size_in_a_backends_name_does_not_keep_laws_apart() -> None:
    runs = [("a", tables(0.5)), ("b", tables(0.6, backend="b_bs8", batch=8, gen_tokens=512))]
    row = e2e(law_differences(runs, 0.95), "b")
    assert stem("hf_gpu_fp16_bs8") == "hf_gpu_fp16"
    assert row["difference"] == pytest.approx(0.1)
    assert row["differs_in"] == "batch 8 against 1; tokens 512 against 64"


def test_a_backend_that_the_first_run_lacks_stands_alone() -> None:
    row = e2e(law_differences([("a", tables(0.5)), ("b", tables(0.7, backend="other"))], 0.95), "b")
    assert row["slope"] == pytest.approx(0.7 + (tables(0.5)["scaling_fits"]["slope"][0] - 0.5), abs=1e-9)
    assert row["difference"] is None


def test_two_models_have_a_difference_and_no_interval() -> None:
    few = {"sizes": SIZES[:2], "scatter": SCATTER[:2]}
    row = e2e(law_differences([("a", tables(0.5, **few)), ("b", tables(0.7, **few))], 0.95), "b")
    assert row["difference"] == pytest.approx(0.2)
    assert (row["difference_basis"], row["difference_low"]) == (NONE, None)
