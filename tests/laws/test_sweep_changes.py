"""Where something changes along an axis: found between the right two values, or said not to be found at all."""

from collections import ChainMap

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row_of, tables_of
from rows import run_of as written_run
from scipy import stats
from simulated_run import run_of, swept

from phaselaw.laws.sweeps import NOTHING, dominance_budget, sweep_changes
from phaselaw.laws.verdicts import NARROW


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 50), st.floats(0.5, 0.99))
def test_decode_passes_a_share_where_its_steps_outweigh_the_prefill_by_it(steps: float, share: float) -> None:
    rows = [
        {"model": model, "gen_tokens_target": budget, "decode_fraction": budget / (budget + steps)}
        for model in ("a", "b")
        for budget in (8, 64)
    ]
    at, low, high = dominance_budget(pl.DataFrame(rows), share, 0.95)
    assert at / (at + steps) == pytest.approx(share)
    assert low == pytest.approx(at) and high == pytest.approx(at)


def test_the_interval_of_that_budget_covers_it_over_models() -> None:
    draw, trials, held = np.random.default_rng(2), 400, 0
    for _ in range(trials):
        steps = 1.2 * np.exp(0.3 * draw.standard_normal(7))
        rows = [{"model": f"m{i}", "gen_tokens_target": b, "decode_fraction": b / (b + each)}
                for i, each in enumerate(steps) for b in (8, 32)]  # fmt: skip
        _, low, high = dominance_budget(pl.DataFrame(rows), 0.9, 0.95)
        assert low is not None and high is not None
        held += low <= 9 * 1.2 <= high
    bounds = stats.binom.interval(0.999, trials, 0.95)
    assert bounds[0] <= held <= bounds[1]


def test_a_sweep_of_budgets_says_at_which_one_decode_dominates() -> None:
    tables = tables_of(run_of(swept({"prefill_steps": 2.0}, gen_tokens=(4, 16, 64))))
    found = {row["what"]: row for row in tables["sweep_changes"].to_dicts()}
    row = found["decode's share passes 0.9"]
    assert row["at"] == pytest.approx(18, rel=0.02)
    assert row["low"] <= row["at"] <= row["high"]
    assert "decode passes 90% of end-to-end latency at 18" in row["said"]
    summary = tables["decode_fraction_summary"]
    assert summary["decode_fraction_median"].to_list() == pytest.approx([4 / 6, 16 / 18, 64 / 66], rel=0.01)


def test_a_verdict_that_changes_is_bracketed_by_the_two_values_it_changes_between() -> None:
    law = {"overhead_ms": 0.0, "params_exponent": 0.5, "sequence_ms": 2.0, "call_noise": 0.02}
    changes = tables_of(run_of(swept(law, batch_size=(1, 2, 512))))["sweep_changes"]
    row = changes.filter((pl.col("what") == "the law's verdict") & (pl.col("mode") == "kv_decode")).row(0, named=True)
    assert (row["low"], row["high"], row["interval"]) == (2, 512, "between two measured values")
    assert row["before"] == "supported" and row["after"] in ("not identifiable", "weak")


def test_a_wall_that_changes_is_named_with_its_models() -> None:
    tables = tables_of(run_of(swept({}, sizes=(1.0, 10.0, 100.0), batch_size=(1, 4, 16), gen_tokens=(8, 16))))
    walls = [
        {"backend": "sim", "backend_kind": "simulated", "batch_size": batch, "gen_tokens_target": 16, "model": model,
         "scenario": "prompt_16", "mode": "prefill", "wall": wall}
        for model in ("m1", "m10")
        for batch, wall in ((1, "bandwidth"), (4, "bandwidth"), (16, "compute"))
    ]  # fmt: skip
    lengths = pl.DataFrame(schema={"backend": pl.String, "scenario": pl.String, "prompt_tokens": pl.Float64})
    changes = sweep_changes(ChainMap({"physical_limit": pl.DataFrame(walls)}, tables), lengths, level=0.95)
    row = changes.filter(pl.col("what") == "the wall").row(0, named=True)
    assert (row["before"], row["after"], row["low"], row["high"]) == ("bandwidth", "compute", 4, 16)
    assert row["said"] == "the wall on prefill goes from bandwidth to compute between 4 and 16 for m1, m10"


def test_the_largest_output_of_a_server_is_bracketed_or_still_grows_beyond_its_intervals() -> None:
    tables = tables_of(run_of(swept({}, sizes=(1.0, 10.0, 100.0), repetitions=2, gen_tokens=(8, 16))))
    lengths = pl.DataFrame(schema={"backend": pl.String, "scenario": pl.String, "prompt_tokens": pl.Float64})

    def found(rates: tuple[float, ...], within: float | None = 0.01) -> dict[str, object]:
        rows = [
            {"backend": "cpp", "backend_kind": "llamacpp", "model": "m", "scenario": "s", "gen_tokens_target": 16,
             "concurrency": clients, "output_tokens_per_s_median": rate,
             "output_tokens_per_s_ci_low": within and rate * (1 - within),
             "output_tokens_per_s_ci_high": within and rate * (1 + within)}
            for clients, rate in zip((1, 2, 4, 8)[: len(rates)], rates, strict=True)
        ]  # fmt: skip
        changes = sweep_changes(ChainMap({"concurrency_throughput": pl.DataFrame(rows)}, tables), lengths, level=0.95)
        return next(changes.filter(pl.col("axis") == "concurrency").iter_rows(named=True), {})

    peaked, growing = found((100.0, 180.0, 250.0, 240.0)), found((100.0, 180.0, 250.0, 300.0))
    assert (peaked["at"], peaked["low"], peaked["high"]) == (4, 2, 8)
    assert "2.50 x one client's at 4" in str(peaked["said"])
    assert (growing["what"], growing["high"]) == (NOTHING, 8)
    assert "still grows at 8 clients" in str(growing["said"])
    for unsure in (0.2, None):
        told = str(found((100.0, 180.0, 250.0, 300.0), within=unsure)["said"])
        assert "at 8 clients, the most tried, can't be told from that at 4" in told and "grows" not in told
    assert found((100.0,)) == {}, "all groups of the others lost a call: there is nothing to hold it against"


def test_a_sweep_along_which_nothing_changes_says_that() -> None:
    law = {"overhead_ms": 0.0, "serial_share": 0.1, "call_noise": 0.001}
    changes = tables_of(run_of(swept(law, threads=(1, 2, 4), seed=4)))["sweep_changes"]
    assert [(row["axis"], row["what"], row["low"], row["high"]) for row in changes.to_dicts()] == [
        ("threads", NOTHING, 1, 4)
    ]


def test_a_sweep_of_one_model_or_of_one_size_says_that_it_has_no_law_that_could_change() -> None:
    for sizes, stability in (((10.0,), []), ((10.0, 11.0, 12.0), [NARROW] * 3)):
        tables = tables_of(run_of(swept({}, sizes=sizes, batch_size=(1, 2), repetitions=1)))
        assert tables["exponent_stability"]["stability"].to_list() == stability
        [row] = tables["sweep_changes"].to_dicts()
        assert (row["axis"], row["what"], row["low"], row["high"]) == ("batch_size", NOTHING, 1, 2)
        assert row["said"].startswith("no wall (a law" if len(sizes) == 1 else "no verdict, regime")


def test_decodes_longer_than_the_whole_call_tell_no_share() -> None:
    rows = [
        row
        for budget in (16, 64)
        for model, share in (("a", 0.5), ("b", 1.5))
        for row in (
            row_of("kv_decode", share * budget, model=model, gen_tokens_target=budget),
            row_of("e2e_kv", 1.0 * budget, model=model, gen_tokens_target=budget),
        )
    ]
    said = tables_of(written_run(rows))["sweep_changes"]["said"].to_list()
    assert said and "nan" not in " ".join(said)
