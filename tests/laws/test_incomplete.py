"""A model that lacks a scenario which others have: compared over what it has, and marked wherever its figures stand."""

import polars as pl
import pytest
from rows import phases, run_of

from phaselaw.laws.analysis import Analysis, analyze

SIZES = {"m10": 10.0, "m30": 30.0, "m100": 100.0, "m300": 300.0}
COSTS = {"micro": 1.0, "short": 2.0, "medium": 20.0}


def analysis(*failed: tuple[str, str]) -> Analysis:
    """Latency is the square root of the parameters times the prompt's cost; ``failed`` are models and scenarios."""
    return analyze(
        run_of(
            row | {"tokens_per_s": 1e3 / row["latency_ms"]}
            for model, params in SIZES.items()
            for scenario, cost in COSTS.items()
            for rep in range(3)
            for row in phases(
                cost * params**0.5,
                9 * cost * params**0.5 * (1 + 0.01 * rep),
                model=model,
                scenario=scenario,
                params_millions=params,
                rep=rep,
                gen_tokens_target=16,
                status="error" if (model, scenario) in failed else "ok",
            )
        )
    )


def end_to_end(found: Analysis, table: str) -> pl.DataFrame:
    return found.tables[table].filter(mode="e2e_kv")


def test_its_rate_is_what_it_would_be_by_what_the_others_take_for_the_scenario_that_failed() -> None:
    whole, lacking = analysis(), analysis(("m100", "medium"))
    rates = [dict(end_to_end(each, "throughput_intervals").select("model", "tokens_per_s").iter_rows())
             for each in (whole, lacking)]  # fmt: skip
    assert rates[1] == pytest.approx(rates[0])
    assert rates[1]["m100"] < rates[1]["m30"]
    assert dict(end_to_end(lacking, "throughput_intervals").select("model", "incomplete").iter_rows()) == {
        "m10": None, "m30": None, "m100": "lacks medium", "m300": None,
    }  # fmt: skip


def test_the_check_of_comparable_cells_finds_it_and_marks_its_figures_and_the_law_over_all_scenarios() -> None:
    lacking = analysis(("m100", "medium"))
    marks = dict(end_to_end(lacking, "summary_by_model_backend_mode_agg").select("model", "suspect").iter_rows())
    assert marks == dict.fromkeys(SIZES, "") | {"m100": "cells not comparable"}
    laws = {row["scenario"]: row for row in end_to_end(lacking, "scaling_fits").iter_rows(named=True)}
    assert {scenario for scenario, law in laws.items() if law["suspect"]} == {"__all__"}
    assert laws["__all__"]["slope"] == pytest.approx(0.5) and laws["medium"]["n_models"] == 3
    [finding] = lacking.tables["validity_findings"].filter(check="cells not comparable").iter_rows(named=True)
    assert "lacks medium" in finding["evidence"] and "9 of its rows failed" in finding["evidence"]


def test_where_no_model_has_every_scenario_each_keeps_its_own_mean_and_its_mark() -> None:
    found = end_to_end(
        analysis(*zip(SIZES, ("micro", "short", "medium", "micro"), strict=True)), "throughput_intervals"
    )
    assert found["incomplete"].null_count() == 0
    assert found["tokens_per_s"].is_finite().all()
