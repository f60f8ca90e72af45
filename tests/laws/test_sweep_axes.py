"""Axes found in the rows: each setting with several values, all else alike; lengths that were swept stay apart."""

from typing import Any

import polars as pl
import pytest
from rows import call, tables_of
from rows import run_of as rows_as_run
from simulated_run import run_of, swept

from phaselaw.laws.analysis import Context, analyze
from phaselaw.laws.sweeps import held_words
from phaselaw.records import Run


def of_sweep(**axes: Any) -> Run:
    return run_of(swept({}, sizes=(1.0, 10.0, 100.0), repetitions=2, **axes))


def analysed(**axes: Any) -> Context:
    return tables_of(of_sweep(**axes))


def sweeps_of(table: pl.DataFrame) -> dict[str, list[float]]:
    """Each axis with the values that the table has along it."""
    return {
        str(axis): sorted(group["value"].unique()) for (axis,), group in table.group_by(["axis"], maintain_order=True)
    }


@pytest.mark.parametrize(
    ("axis", "values"),
    [("gen_tokens", (4, 16)), ("batch_size", (1, 8)), ("prompt_tokens", (16, 64)), ("threads", (1, 2))],
)
def test_each_axis_is_found_in_the_rows_and_no_other(axis: str, values: tuple[int, ...]) -> None:
    tables = analysed(**{axis: values})
    for name in ("exponent_by_axis", "sweep_curves"):
        assert sweeps_of(tables[name]) == {axis: list(values)}, name
    assert tables["exponent_stability"]["axis"].unique().to_list() == [axis]
    assert tables["exponent_by_axis"]["backend"].unique().to_list() == ["sim"]


def test_a_run_of_one_value_of_everything_is_no_sweep_and_says_so() -> None:
    analysis = analyze(of_sweep())
    for name in ("exponent_by_axis", "exponent_stability", "sweep_curves", "sweep_changes", "decode_sweep_summary"):
        assert analysis.tables[name].is_empty()
        assert analysis.notes[name]


def test_a_grid_is_a_sweep_along_each_axis_at_every_value_of_the_other() -> None:
    curves = analysed(batch_size=(1, 8), gen_tokens=(4, 16))["sweep_curves"].filter(
        (pl.col("model") == "m1") & (pl.col("mode") == "kv_decode")
    )
    along = curves.filter(pl.col("axis") == "batch_size").select("gen_tokens_target", "value").rows()
    assert sorted(along) == [(4, 1), (4, 8), (16, 1), (16, 8)]


def test_prompt_lengths_that_were_swept_are_not_averaged_over_along_another_axis() -> None:
    laws = analysed(batch_size=(1, 8), prompt_tokens=(16, 512))["exponent_by_axis"]
    along_batch = laws.filter(pl.col("axis") == "batch_size")
    assert along_batch["scenario"].unique().sort().to_list() == ["prompt_16", "prompt_512"]


def test_intervals_of_a_curve_stand_about_its_points_and_a_rate_is_tokens_over_latency() -> None:
    curves = analysed(batch_size=(1, 8))["sweep_curves"].filter(pl.col("mode") == "kv_decode")
    assert (curves["latency_ci_low"] < curves["latency_ms"]).all()
    assert (curves["latency_ms"] < curves["latency_ci_high"]).all()
    tokens = curves["value"] * 16
    assert (curves["tokens_per_s"] * curves["latency_ms"] / 1e3 / tokens).to_list() == pytest.approx([1] * 6, rel=0.03)
    assert (curves["ms_per_token"] * curves["tokens_per_s"]).to_list() == pytest.approx([1e3] * 6)


def test_what_was_held_is_said_in_words() -> None:
    held = {"batch_size": 2, "gen_tokens_target": 64, "scenario": "prompt_128", "threads": None}
    assert held_words(held) == "batch 2, 64 tokens generated, prompts of 128 tokens"
    assert held_words({"scenario": "__all__", "threads": 2.0}) == "all prompts, 2 threads"


def served(scenarios: dict[str, int]) -> Context:
    """Three models on a server, each with prompts that come out as so many tokens."""
    return tables_of(
        rows_as_run(
            row
            for at, params in enumerate((10.0, 40.0, 160.0))
            for scenario, tokens in scenarios.items()
            for rep in range(2)
            for row in call(
                rep, model=f"m{at}", scenario=scenario, params_millions_measured=params, prompt_tokens_raw=tokens,
                kv_decode_ms=64 * params**0.5 * (1 + 0.01 * rep), prefill_ms=params**0.5 * (1 + 0.1 * tokens),
            )
        )
    )  # fmt: skip


def test_natural_prompts_are_no_axis_whatever_their_lengths() -> None:
    assert served({"micro": 38, "short": 46})["sweep_changes"].is_empty()


def test_prompts_that_came_out_equally_long_are_one_value() -> None:
    found = served({"prompt_128": 130, "prompt_130": 130, "prompt_512": 510})
    assert found["exponent_by_axis"]["value"].unique().sort().to_list() == [130.0, 510.0]
    assert served({"micro": 38, "short": 38})["sweep_changes"].is_empty()
