"""The step-time model: laws put in come out, points left out are predicted, and nothing is said beyond the range."""

import math
import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row_of

from phaselaw.files import write_csv
from phaselaw.laws.step_time import StepTimes, step_time_model, step_time_points, step_times
from phaselaw.rundir import read as runs
from phaselaw.rundir.read import normalised

COEFFICIENTS = st.floats(min_value=0.01, max_value=10)


def row(mode: str, ms: float, **changes: Any) -> dict[str, Any]:
    steps = changes.get("gen_tokens_target", 16)
    usual = {"backend": "cpu", "batch_size": 1, "seq_len": 16, "gen_tokens_target": 16, "gen_tokens_raw": steps}
    return row_of(mode, ms, **usual | changes)


def always(ms: float) -> Any:
    """The same time for any batch and length."""
    return lambda *_: ms


def of_batch(steps: dict[int, float]) -> Any:
    """A decode step by its batch alone."""
    return lambda batch, _: steps[batch]


def calls(prefill: Any, step: Any, *, batches: Any = (1, 2, 4, 8), prompts: Any = (16, 64, 256)) -> pl.DataFrame:
    """Rows of a grid of batches and prompt lengths; ``prefill(b, n)`` and ``step(b, context)`` in ms."""
    found = []
    for batch in batches:
        for prompt in prompts:
            shape = {"batch_size": batch, "seq_len": prompt, "scenario": f"prompt_{prompt}"}
            steps = [step(batch, prompt + index) for index in range(16)]
            halves = {
                "decode_first_half_step_ms": math.fsum(steps[:8]) / 8,
                "decode_second_half_step_ms": math.fsum(steps[8:]) / 8,
            }
            found.append(row("prefill", prefill(batch, prompt), **shape))
            found.append(row("kv_decode", math.fsum(steps), **shape, **halves))
    return normalised(pl.DataFrame(found), where="test")


def table_of(rows: pl.DataFrame) -> pl.DataFrame:
    return step_time_model(step_time_points(rows))


def model_of(rows: pl.DataFrame) -> tuple[StepTimes, dict[str, dict[str, Any]]]:
    table = table_of(rows)
    return step_times(table)["cpu", "m"], {line["mode"]: line for line in table.iter_rows(named=True)}


@settings(max_examples=10, deadline=None)
@given(base=COEFFICIENTS, per_sequence=COEFFICIENTS, per_token=COEFFICIENTS, pair=COEFFICIENTS)
def test_a_law_of_the_forms_is_predicted_where_it_was_not_measured(
    base: float, per_sequence: float, per_token: float, pair: float
) -> None:
    def prefill(batch: float, tokens: float) -> float:
        return base + per_token * batch * tokens + pair / 1000 * batch * tokens**2

    def step(batch: float, context: float) -> float:
        return base + per_sequence * batch + per_token / 100 * batch * context

    model, lines = model_of(calls(prefill, step))
    assert model["kv_decode"].ms(3, 200) == pytest.approx(step(3, 200), rel=0.02)
    assert lines["kv_decode"]["left_out_max"] < 0.03
    assert model["prefill"].ms(2, 128) == pytest.approx(prefill(2, 128), rel=0.03)


def test_exact_data_gives_the_coefficients_back_and_the_form_by_name() -> None:
    model, lines = model_of(
        calls(lambda b, n: 4 + 0.5 * b * n + 0.01 * b * n * n, lambda b, c: 8 + 2 * b + 0.02 * b * c)
    )
    decode, prefill = lines["kv_decode"], lines["prefill"]
    assert (decode["form"], prefill["form"]) == ("batch and context", "quadratic")
    assert [decode[name] for name in ("constant_ms", "per_sequence_ms", "per_token_ms")] == pytest.approx([8, 2, 0.02])
    assert [prefill[name] for name in ("constant_ms", "per_token_ms", "per_token_pair_ms")] == pytest.approx(
        [4, 0.5, 0.01]
    )
    assert decode["left_out_max"] < 1e-6
    whole = 50 * model["kv_decode"].ms(3, 100 + 49 / 2)
    assert whole == pytest.approx(sum(8 + 6 + 0.06 * (100 + index) for index in range(50)))


def test_a_prefill_that_costs_something_for_each_sequence_is_told_from_one_that_does_for_each_token() -> None:
    model, lines = model_of(calls(lambda b, n: 2 + 5 * b + 0.1 * b * n, always(7)))
    assert lines["prefill"]["form"] == "linear and batch"
    assert [lines["prefill"][name] for name in ("constant_ms", "per_sequence_ms", "per_token_ms")] == pytest.approx(
        [2, 5, 0.1]
    )
    assert model["prefill"].ms(3, 200) == pytest.approx(77)


def test_an_engine_whose_kernels_change_with_the_batch_is_interpolated_and_never_falls() -> None:
    steps = {1: 10.0, 2: 14.0, 3: 15.0, 4: 15.5, 8: 17.0, 12: 18.5, 14: 29.0, 16: 40.0}
    model, lines = model_of(calls(always(1), of_batch(steps), batches=tuple(steps), prompts=(16,)))
    assert lines["kv_decode"]["form"] == "interpolated batch"
    ms = model["kv_decode"].ms(np.array([1, 2, 3, 4, 6, 12, 13, 16]), 20)
    assert ms == pytest.approx([10, 14, 15, 15.5, 16.25, 18.5, 23.75, 40])


def test_the_measured_range_is_known_and_the_formula_goes_on_beyond_it() -> None:
    model, _ = model_of(calls(lambda b, n: 1 + 0.1 * b * n, lambda b, _: 5 + b))
    decode, prefill = model["kv_decode"], model["prefill"]
    assert not decode.inside(9, 100) and not decode.inside(8, 272)
    assert decode.inside(8, 271)  # the last step of the longest call
    assert prefill.inside(1, np.array([15, 20, 512])).tolist() == [False, True, False]
    assert prefill.ms(1, 512) == pytest.approx(52.2, rel=0.01)


def test_what_was_not_varied_has_a_range_of_one_value() -> None:
    _, lines = model_of(calls(always(3), always(7), batches=(2,), prompts=(32,)))
    decode, prefill = lines["kv_decode"], lines["prefill"]
    assert (decode["batch_min"], decode["batch_max"], decode["tokens_min"], decode["tokens_max"]) == (2, 2, 32, 47)
    assert (prefill["tokens_min"], prefill["tokens_max"]) == (32, 32)
    assert (decode["form"], decode["n_left_out"], decode["left_out_rms"]) == ("constant", 0, None)


def test_noise_does_not_pull_a_fit_towards_the_fast_points() -> None:
    draw = random.Random(4)
    rows = [row("kv_decode", 160 * math.exp(0.4 * draw.gauss(0, 1) - 0.08), seq_len=10 + n) for n in range(300)]
    (line,) = table_of(normalised(pl.DataFrame(rows), where="test")).to_dicts()
    mean = sum(each["latency_ms"] for each in rows) / len(rows) / 16
    decode = step_times(table_of(normalised(pl.DataFrame(rows), where="test")))["cpu", "m"]["kv_decode"]
    assert decode.ms(1, 150) == pytest.approx(mean, rel=0.03), line["form"]


def test_clients_of_a_server_stand_for_the_batch_of_a_step_but_not_of_a_prefill() -> None:
    rows = [
        row(mode, 16 * (3 + clients), backend_kind="llamacpp", concurrency=clients)
        for clients in (1, 2, 4)
        for mode in ("prefill", "kv_decode")
        for _ in range(clients)
    ]
    lines = {line["mode"]: line for line in table_of(normalised(pl.DataFrame(rows), where="test")).to_dicts()}
    assert (lines["kv_decode"]["batch_max"], lines["kv_decode"]["batch_basis"]) == (4, "clients")
    assert lines["kv_decode"]["per_sequence_ms"] == pytest.approx(1)
    assert lines["prefill"]["batch_max"] == 1


def test_the_table_says_the_same_after_it_was_a_file(tmp_path) -> None:
    steps = {1: 10.0, 2: 19.0, 4: 20.0, 8: 22.0}
    table = table_of(calls(lambda b, n: b * n, of_batch(steps), batches=tuple(steps)))
    write_csv(tmp_path / "t.csv", table.columns, table.iter_rows(named=True))
    again = step_times(runs.read_csv(tmp_path / "t.csv", {}))
    assert again["cpu", "m"] == step_times(table)["cpu", "m"]


def test_tr121s_own_rows_give_a_model_with_the_range_of_its_prompts(reference_data) -> None:
    run = runs.load(reference_data / "tr121" / "primary_run")
    table = table_of(run.rows.filter((pl.col("status") == "ok") & ~pl.col("is_warmup")))
    assert table.height == 19 * 2
    cpu = table.filter((pl.col("backend") == "hf_cpu_fp32") & (pl.col("mode") == "prefill"))
    assert cpu.select("tokens_min", "tokens_max").unique().rows() == [(1, 17)]
    qwen = step_times(table)["ollama", "qwen2.5:7b"]["kv_decode"]
    assert 64 * qwen.ms(1, 46 + 63 / 2) == pytest.approx(709, rel=0.01)  # TR121 3.5: 709.04 ms


def test_points_of_calls_that_stopped_early_do_not_depend_on_the_order_of_the_rows() -> None:
    halves = {"decode_first_half_step_ms": 5.0, "decode_second_half_step_ms": 7.0}
    stopped = [row("kv_decode", 96.0, gen_tokens_raw=steps, **halves) for steps in (1, 3)]
    one, other = (step_time_points(normalised(pl.DataFrame(rows), where="test")) for rows in (stopped, stopped[::-1]))
    assert one.equals(other)
    # The first half of three steps, and one step alone, begin and end with 16 tokens.
    assert one.select("tokens", "fold").rows() == [(15.5, 16.0), (16.0, 16.0), (16.0, 17.0), (17.5, 17.0)]
