"""From a call's raw times to rows: TR121's definitions, on numbers that a person can check."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.records import Call, Cell, Timing
from phaselaw.rundir import read
from phaselaw.rundir.columns import (
    COLUMNS,
    MEASURED,
    OWN_COLUMNS,
    TR121_COLUMNS,
    millions_in_name,
    rows_of,
    tokens_per_s,
)


def call(*, gen_tokens: int = 4, batch_size: int = 1, kind: str = "hf", load_ms: float | None = None, **timing) -> Call:
    times: dict[str, Any] = {
        "prefill_ms": 10.0,
        "kv_decode_ms": 40.0,
        "prompt_tokens": 9,
        "prompt_tokens_total": 9 * batch_size,
        "gen_tokens_raw": gen_tokens,
    }
    cell = Cell(backend="b", backend_kind=kind, model="m", scenario="s", batch_size=batch_size, gen_tokens=gen_tokens)
    return Call(
        call_id="c-r0",
        call_idx=5,
        cell=cell,
        task_idx=2,
        is_warmup=False,
        warmup_idx=None,
        rep=0,
        status="ok",
        error=None,
        started_at_unix=1.0,
        process_idx=0,
        calls_since_process_start=5,
        calls_since_model_load=1,
        calls_since_shape_first_seen=0,
        load_ms=load_ms,
        timing=Timing(**times | timing),
    )


def rows(made: Call, **known) -> dict[str, dict[str, Any]]:
    """The rows of a call by phase."""
    known = {"prompt": None, "params_millions_config": None, "params_millions_measured": None} | known
    return {row["mode"]: row for row in rows_of(made, **known)}


def column(made: Call, name: str) -> dict[str, Any]:
    return {mode: row[name] for mode, row in rows(made).items()}


def test_the_columns_of_tr121_come_first_in_its_order(reference_data: Path) -> None:
    with (reference_data / "tr121" / "primary_run" / "metrics.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == TR121_COLUMNS
    assert COLUMNS[:44] == TR121_COLUMNS
    assert len(set(COLUMNS)) == len(COLUMNS) == 44 + len(OWN_COLUMNS)


def test_a_call_is_three_rows_of_exactly_the_columns() -> None:
    assert list(rows(call())) == ["prefill", "kv_decode", "e2e_kv"]
    assert all(set(row) == set(COLUMNS) for row in rows(call()).values())


times = st.floats(1e-6, 1e9)


@given(times, times, st.integers(1, 512), st.integers(1, 512))
def test_end_to_end_is_exactly_prefill_plus_decode_stopped_early_or_not(
    prefill: float, decode: float, asked: int, made: int
) -> None:
    latency = column(call(gen_tokens=asked, gen_tokens_raw=made, prefill_ms=prefill, kv_decode_ms=decode), "latency_ms")
    assert latency["e2e_kv"] == latency["prefill"] + latency["kv_decode"]


def test_latencies_are_the_raw_times_where_nothing_stopped_early() -> None:
    assert column(call(), "latency_ms") == {"prefill": 10.0, "kv_decode": 40.0, "e2e_kv": 50.0}


def test_a_decode_that_stopped_early_is_taken_to_the_asked_budget_at_its_pace() -> None:
    stopped = call(gen_tokens=64, gen_tokens_raw=16, kv_decode_ms=40.0, done_reason="stop")
    assert column(stopped, "latency_ms") == {"prefill": 10.0, "kv_decode": 160.0, "e2e_kv": 170.0}
    row = rows(stopped)["e2e_kv"]
    assert (row["kv_decode_ms"], row["kv_decode_ms_per_token"], row["kv_decode_ms_equiv"]) == (40.0, 2.5, 160.0)
    assert (row["gen_tokens_raw"], row["gen_tokens_equiv"], row["gen_tokens_target"]) == (16, 64, 64)


def test_an_engine_that_never_stops_early_has_no_equivalents() -> None:
    row = rows(call())["kv_decode"]
    assert (row["kv_decode_ms_equiv"], row["kv_decode_ms_per_token"], row["gen_tokens_equiv"]) == (None, None, None)


def test_prefill_counts_prompt_tokens_decode_generated_ones_and_end_to_end_both_times_the_batch() -> None:
    assert column(call(), "tokens_total") == {"prefill": 9, "kv_decode": 4, "e2e_kv": 13}
    assert column(call(batch_size=8), "tokens_total") == {"prefill": 72, "kv_decode": 32, "e2e_kv": 104}


def test_rates_are_tokens_over_seconds() -> None:
    assert column(call(), "tokens_per_s") == {"prefill": 900.0, "kv_decode": 100.0, "e2e_kv": 260.0}


def test_padding_is_counted_in_the_compute_columns_alone() -> None:
    padded = call(batch_size=2, prompt_tokens=9, prompt_tokens_total=12)
    assert column(padded, "tokens_total") == {"prefill": 12, "kv_decode": 8, "e2e_kv": 20}
    assert column(padded, "tokens_total_compute") == {"prefill": 18, "kv_decode": 8, "e2e_kv": 26}
    assert column(padded, "tokens_per_s_compute")["prefill"] == 1800.0
    row = rows(padded)["prefill"]
    assert (row["seq_len"], row["prompt_tokens_raw"], row["prompt_tokens_compute"]) == (9, 12, 18)


def test_a_rate_without_time_is_no_number() -> None:
    assert math.isnan(tokens_per_s(5, 0.0))


def test_a_decode_without_a_step_has_no_latency() -> None:
    latency = column(call(gen_tokens_raw=0, done_reason="stop"), "latency_ms")
    assert latency["prefill"] == 10.0
    assert math.isnan(latency["kv_decode"])
    assert math.isnan(latency["e2e_kv"])


def test_prefill_rows_generate_nothing() -> None:
    assert column(call(batch_size=2), "gen_tokens") == {"prefill": 0, "kv_decode": 8, "e2e_kv": 8}


def test_cuda_events_add_up_as_the_wall_clock_does() -> None:
    timed = call(prefill_cuda_event_ms=9.5, kv_decode_cuda_event_ms=39.0)
    assert column(timed, "cuda_event_ms") == {"prefill": 9.5, "kv_decode": 39.0, "e2e_kv": 48.5}
    assert column(call(), "cuda_event_ms") == dict.fromkeys(("prefill", "kv_decode", "e2e_kv"))


def test_the_rows_of_a_call_share_its_identity_and_number_themselves() -> None:
    made = rows(call()).values()
    for name in ("call_id", "call_idx", "task_idx", "rep", "started_at_unix", "process_idx"):
        assert len({row[name] for row in made}) == 1
    assert [row["sample_idx"] for row in made] == [15, 16, 17]


def test_a_failed_call_is_three_error_rows_without_times() -> None:
    broken = Call(
        **{field: getattr(call(), field) for field in Call.__dataclass_fields__}
        | {"status": "error", "error": "engine: no", "timing": None}
    )
    for row in rows(broken).values():
        assert (row["status"], row["error"]) == ("error", "engine: no")
        assert all(row[name] is None for name in ("latency_ms", "prefill_ms", "tokens_total", "tokens_per_s"))
        assert (row["model"], row["call_id"], row["gen_tokens_target"]) == ("m", "c-r0", 4)


@pytest.mark.parametrize(
    ("label", "measured", "shown"), [(124.0, 0.102714, 124.0), (None, 0.102714, 0.102714), (None, None, None)]
)
def test_the_label_and_the_count_of_parameters_stand_apart(
    label: float | None, measured: float | None, shown: float | None
) -> None:
    row = rows(call(), params_millions_config=label, params_millions_measured=measured)["prefill"]
    assert row["params_millions"] == shown
    assert row["params_millions_config"] == label
    assert row["params_millions_measured"] == measured


def test_a_load_is_told_as_hfs_only_where_it_was() -> None:
    assert {(row["load_ms"], row["hf_load_ms"]) for row in rows(call(load_ms=7.0)).values()} == {(7.0, 7.0)}
    served = call(load_ms=7.0, kind="simulated")
    assert {(row["load_ms"], row["hf_load_ms"]) for row in rows(served).values()} == {(7.0, None)}


def test_a_synthetic_prompt_is_empty_and_a_text_is_counted_in_characters() -> None:
    assert (rows(call())["prefill"]["prompt"], rows(call())["prefill"]["prompt_chars"]) == (None, None)
    assert rows(call(), prompt="häst")["prefill"]["prompt_chars"] == 4


def test_the_halves_of_a_decode_tell_how_its_steps_grow() -> None:
    told = rows(call(gen_tokens=5, decode_steps_ms=(1.0, 3.0, 5.0, 7.0, 9.0)), threads=2)["kv_decode"]
    assert (told["decode_first_half_step_ms"], told["decode_second_half_step_ms"], told["threads"]) == (2.0, 7.0, 2)
    for steps in (None, (4.0,)):
        untold = rows(call(decode_steps_ms=steps))["kv_decode"]
        assert untold["decode_first_half_step_ms"] is untold["decode_second_half_step_ms"] is None


def test_a_column_is_declared_in_one_place_for_its_rows_its_reading_and_the_docs() -> None:
    assert [column.name for column in MEASURED] == list(COLUMNS)
    assert all(column.doc for column in MEASURED)
    read_as_numbers = [column.name for column in MEASURED if column.read == "number"]
    assert [*read_as_numbers, "prompt_tokens"] == read.NUMBERS


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("gemma3:270m-q4_k_m", 270.0, None),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_000.0, None),
        ("qwen3:30b-a3b", 30_000.0, 3_000.0),
        ("Qwen3-0.6B", 600.0, None),
        ("mixtral:8x7b", None, None),
        ("gpt-4o", None, None),
        ("phi3:mini-128k", None, None),
        ("draft-1b-of-7b", None, None),
    ],
)
def test_a_size_is_read_from_a_models_name_where_it_says_one(
    name: str, total: float | None, active: float | None
) -> None:
    assert millions_in_name(name) == (total, active)
