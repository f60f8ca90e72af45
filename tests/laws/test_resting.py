"""Laws that one model decides, and laws over models of nearly one size: what their verdict says."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import polars as pl
import pytest
from benchmark import benchmark
from rows import phases, run_of, tables_of


def law(sizes: Sequence[float], latencies: Sequence[float]) -> dict:
    """The law of models of such sizes that take so long for their one prompt."""
    rows = [
        row
        for at, (params, ms) in enumerate(zip(sizes, latencies, strict=True))
        for rep in range(2)
        for row in phases(0.1 * ms, 0.9 * ms, model=f"m{at}", params_millions=params, rep=rep, gen_tokens_target=16)
    ]
    found = tables_of(run_of(rows))
    laws = found["scaling_fits"].filter(pl.col("scenario") == "__all__", pl.col("mode") == "e2e_kv")
    claim = found["claims"].filter(claim="parameters predict latency on this backend")
    return laws.row(0, named=True) | {"claim": claim.row(0, named=True)}


def test_a_law_that_only_its_smallest_model_makes_rests_on_it_and_says_what_is_left_without_it() -> None:
    sizes = [0.1, 30.0, 45.0, 60.0, 80.0, 100.0]
    found = law(sizes, [1.0, 9.0, 12.0, 8.0, 11.0, 10.0])
    assert found["verdict"] == "supported (trend) (rests on m0)"
    alone = np.polyfit(np.log(sizes[1:]), np.log([9.0, 12.0, 8.0, 11.0, 10.0]), 1)
    assert found["without_model"] == "m0" and found["slope_without"] == pytest.approx(alone[0])
    assert found["slope_without_ci_low"] < 0 < found["slope_without_ci_high"]
    assert "(rests on m0)" in found["claim"]["status"] and "without m0 exponent" in found["claim"]["evidence"]


def test_a_law_that_holds_without_any_of_its_models_rests_on_none() -> None:
    sizes = np.array([0.1, 30.0, 45.0, 60.0, 80.0, 100.0])
    assert law(sizes, sizes**0.5 * [1.0, 1.01, 0.985, 1.0, 0.985, 1.01])["verdict"] == "supported"


def test_three_models_within_a_thousandth_of_one_size_support_no_exponent() -> None:
    found = law([1.0321, 1.0323, 1.0326], [10.0, 10.6, 11.5])
    assert found["slope"] > 100
    assert found["verdict"] == "range too narrow" == found["claim"]["status"]


def test_exponents_of_models_that_scatter_unequally_are_covered() -> None:
    coverage = benchmark("coverage")
    # The first three shares: those after them are of other intervals, and of fits of their own.
    equal, unequal = (
        {share.interval: share.covered for share in islice(coverage.of_laws(case, 7, simulated), 3)}
        for case in coverage.UNEQUAL
        for simulated in [coverage.simulate(case, 7, 250)]
    )
    # Four standard errors below what the benchmark asks of its thousands of simulations.
    assert unequal["exponent (default)"] > 0.92 - 4 * (0.92 * 0.08 / 250) ** 0.5
    assert equal["exponent, share of laws that HC2 decides"] == pytest.approx(0.3, abs=0.1)
