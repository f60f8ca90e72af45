"""The unit that was measured again: pooled runs, else the replicates of one."""

import math

import polars as pl
import pytest
from rows import row_of, table_of

from phaselaw.laws.noise import units_of
from phaselaw.laws.summary import by_cell, by_cell_and_unit, unit_of


def rows(run: str, latencies: list[list[float]], **known: object) -> pl.DataFrame:
    """One cell's calls in the replicates of one run."""
    return table_of(
        (
            row_of("e2e_kv", ms, replicate=replicate, rep=rep, tokens_per_s=1e3 / ms, **known)
            for replicate, calls in enumerate(latencies)
            for rep, ms in enumerate(calls)
        ),
        run,
    )


ONE, TWO = rows("one", [[1.0], [4.0]]), rows("two", [[10.0, 10.0, 10.0], [40.0]])


def test_the_unit_is_the_outermost_level_of_which_there_are_two() -> None:
    assert unit_of(ONE) == ("replicate", 2)
    assert unit_of(pl.concat([ONE, TWO])) == ("run", 2)
    assert unit_of(rows("one", [[1.0, 2.0]])) == ("run", 1)
    assert unit_of(ONE.clear()) == ("run", 0)


def test_runs_that_each_measured_something_else_are_no_level_and_their_replicates_are() -> None:
    other = rows("two", [[1.0], [2.0], [3.0]]).with_columns(batch_size=pl.lit(8, pl.Int64))
    swept = pl.concat([ONE, other])
    assert unit_of(swept) == ("replicate", 3)
    assert unit_of(swept.filter(replicate=0)) == ("run", 1)


def test_replicates_weigh_the_same_however_many_calls_each_has() -> None:
    assert by_cell(TWO)["latency_median_ms"].to_list() == [pytest.approx(20.0)]
    assert by_cell(TWO)["n"].to_list() == [4]


def test_a_run_of_a_pool_is_the_mean_of_its_replicates() -> None:
    pool = pl.concat([ONE, TWO])
    found = by_cell_and_unit(pool, "run")
    assert found["run"].to_list() == ["one", "two"]
    assert found["latency_median_ms"].to_list() == pytest.approx([2.0, 20.0])
    assert found["n"].to_list() == [2, 4]
    assert by_cell(pool)["latency_median_ms"].to_list() == [pytest.approx(math.sqrt(40))]


def test_the_noise_is_that_of_units_and_within_one_of_rounds() -> None:
    found = units_of(ONE, in_rounds=True).for_laws
    assert found is not None and (found.kind, found.n) == ("replicates", 2)
    assert found.logs["latency"].exp().to_list() == pytest.approx([1.0, 4.0])
    pooled = units_of(pl.concat([ONE, TWO]), in_rounds=True).for_laws
    assert pooled is not None and (pooled.kind, pooled.n) == ("runs", 2)
    alone = units_of(ONE.filter(replicate=0), in_rounds=True).for_laws
    assert alone is not None and alone.kind == "rounds"


def test_rows_without_a_replicate_are_of_the_first() -> None:
    assert table_of([row_of("e2e_kv", 1.0)])["replicate"].to_list() == [0]
