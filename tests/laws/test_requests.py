"""What a request gets by model and prompt: figures that were put in come out, with intervals that hold them."""

import numpy as np
import polars as pl
import pytest
from rows import call, table_of

from phaselaw.laws.requests import NOT_TOLD, REAL, models_by_prompt, requests_by_prompt
from phaselaw.laws.warmup import first_calls


def run(
    step_ms: dict[str, dict[str, float]], *, replicates: int = 3, noise: float = 0.01, seed: int = 1
) -> pl.DataFrame:
    """Calls of 64 tokens by model and prompt: a first token after 5 steps, and noise between replicates and calls."""
    draw, rows = np.random.default_rng(seed), []
    for replicate in range(replicates):
        for model, prompts in step_ms.items():
            for scenario, step in prompts.items():
                for rep in range(-1, 2):
                    slow = float(np.exp(draw.normal(0, noise)))
                    first, cold = 5 * step * slow, 900.0 if rep < 0 else 0.0
                    times = {"ttft_ms": first + cold, "decode_step_ms": step * slow, "ollama_load_ms": cold}
                    times |= {"kv_decode_ms": 64 * step * slow, "request_ms": first + 63 * step * slow + cold}
                    about = {"model": model, "scenario": scenario, "is_warmup": rep < 0, "call_idx": len(rows)}
                    rows += call(rep, replicate=replicate, process_idx=replicate, **about, **times)
    return table_of(rows)


def requests(rows: pl.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    table = requests_by_prompt(
        rows.filter(~pl.col("is_warmup")), first_calls(rows, slo_ms=100.0), in_rounds=True, level=0.95
    )
    return {(row["model"], row["scenario"]): row for row in table.to_dicts()}


def test_a_row_a_model_and_prompt_has_what_was_put_in() -> None:
    row = requests(run({"m": {"short": 10.0, "long": 20.0}}, noise=0.0))["m", "long"]
    assert row["ttft_ms"] == pytest.approx(100) and row["step_ms"] == pytest.approx(20)
    assert row["request_ms"] == pytest.approx(100 + 63 * 20)
    assert row["tokens_per_s"] == pytest.approx(64e3 / (100 + 63 * 20))  # generated tokens alone, over the whole call
    assert row["cold_ms"] == pytest.approx(1000) and row["cold_load_ms"] == 900


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rows = run({f"m{at}": {"a": 10.0, "b": 12.0} for at in range(40)}, noise=0.05)
    table = requests(rows.with_columns(backend="model"))  # forty runs, each a backend of its own
    held = [row["step_ms_low"] <= 10 <= row["step_ms_high"] for (_, name), row in table.items() if name == "a"]
    assert len(held) == 40 and sum(held) >= 35


def test_the_p95_of_few_calls_has_no_upper_end() -> None:
    few = requests(run({"m": {"a": 10.0}}))["m", "a"]
    assert few["ttft_ms_p95_low"] is not None and few["ttft_ms_p95_high"] is None
    many = requests(run({"m": {"a": 10.0}}, replicates=60))["m", "a"]
    assert many["ttft_ms_p95_low"] < many["ttft_ms_p95"] < many["ttft_ms_p95_high"]


def test_two_models_are_compared_prompt_by_prompt() -> None:
    """As smollm2 was: faster on one prompt, slower on another, the same on a third."""
    rows = run({"x": {"a": 10.0, "b": 10.0, "c": 10.0}, "y": {"a": 14.4, "b": 8.2, "c": 10.0}})
    table = models_by_prompt(rows.filter(~pl.col("is_warmup")), in_rounds=True, level=0.95)
    found = {row["scenario"]: row for row in table.to_dicts() if row["mode"] == "e2e_kv"}
    assert [found[name]["verdict"] for name in "abc"] == [REAL, REAL, NOT_TOLD]
    assert found["a"]["ratio_low"] < 10 / 14.4 < found["a"]["ratio_high"]
    assert found["b"]["ratio_low"] < 10 / 8.2 < found["b"]["ratio_high"]


def test_one_run_of_one_call_a_cell_can_tell_nothing() -> None:
    rows = run({"x": {"a": 10.0}, "y": {"a": 20.0}}, replicates=1).filter(pl.col("rep") == 0)
    table = models_by_prompt(rows.filter(~pl.col("is_warmup")), in_rounds=True, level=0.95)
    assert set(table["verdict"]) == {NOT_TOLD}


def test_models_on_servers_of_their_own_are_compared_too() -> None:
    rows = run({"x": {"a": 10.0}, "y": {"a": 20.0}})
    rows = rows.with_columns(backend="model").filter(~pl.col("is_warmup"))
    table = models_by_prompt(rows, in_rounds=True, level=0.95)
    assert set(table["other_backend"]) == {"y"} and set(table["verdict"]) == {REAL}


def test_three_models_are_not_compared_in_pairs() -> None:
    rows = run({name: {"a": 10.0} for name in "xyz"})
    assert models_by_prompt(rows, in_rounds=True, level=0.95).is_empty()
