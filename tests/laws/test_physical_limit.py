"""The physical limit: a cell put at a known place is found there, and what is above the roof stays above it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rows import row_of
from rows import run_of as rows_of

from phaselaw.cli import main
from phaselaw.laws.analysis import Analysis
from phaselaw.laws.physical_limit import BANDWIDTH, COMPUTE, OVERHEAD, limits_in, physical_limit, wall_of
from phaselaw.laws.summary import by_cell, usable
from phaselaw.machine.footprint import Architecture, decode_step, prefill
from phaselaw.machine.limits import LIMITS_VERSION
from phaselaw.records import Run

MB = 1 << 20
MODEL = {
    "model": "m", "kind": "hf", "backend": "b", "device": "cpu", "dtype": "float32", "n_layer": 8, "n_embd": 768,
    "n_head": 2, "n_inner": 3072, "vocab_size": 50257, "n_positions": 1024, "params_millions_measured": 96.08832,
    "weights_bytes": 384353280, "lookup_params": 1024 * 768, "lookup_bytes": 4 * 1024 * 768, "n_experts": None,
}  # fmt: skip
SHAPE = Architecture.of(MODEL)
PROMPT, STEPS = 20, 64


def spread(value: float) -> dict[str, Any]:
    return {"median": value, "p25": value, "p75": value, "n": 1}


def limits(*, in_cache: float = 80.0, in_memory: float = 20.0, gflops: float = 100.0) -> dict[str, Any]:
    read = [
        {"working_set_bytes": size * MB, "gb_per_s": spread(in_cache if size <= 32 else in_memory)}
        for size in (4, 32, 64, 1024)
    ]
    device = {"name": "x", "read": read, "copy": None,
              "compute": [{"dtype": "fp32", "gflop_per_s": spread(gflops), "library": "l"}]}  # fmt: skip
    clock = dict.fromkeys(("resolution_ns", "read_ns", "watched_s", "gap_p99_us", "gap_max_us", "taken_share"), 0.0)
    return {"version": LIMITS_VERSION, "threads": 2, "measured_at_unix": 0.0, "took_s": 1.0, "clock": clock,
            "devices": {"cpu": device}}  # fmt: skip


def run_of(
    prefill_ms: float, step_ms: float, *, machine: dict[str, Any] | None = None, batch: int = 1, **model: Any
) -> Run:
    latency = {"prefill": prefill_ms, "kv_decode": STEPS * step_ms, "e2e_kv": prefill_ms + STEPS * step_ms}
    rows = [
        row_of(
            mode, ms, params_millions=96.08832, batch_size=batch, gen_tokens_target=STEPS, tokens_per_s=1.0,
            prompt_tokens_raw=PROMPT * batch, prompt_tokens_compute=PROMPT * batch, tokens_total=1.0,
        )
        for mode, ms in latency.items()
    ]  # fmt: skip
    engines = [{"name": "b", "kind": "hf", "settings": {}}]
    return rows_of(rows, [MODEL | model], {"host": {"limits": machine or limits()}, "engines": engines})


def placed(run: Run, mode: str = "kv_decode") -> dict[str, Any]:
    [row] = physical_limit(run, by_cell(usable(run.rows))).filter(pl.col("mode") == mode).to_dicts()
    return row


def step_bytes(batch: int = 1) -> float:
    assert SHAPE is not None
    return decode_step(SHAPE, batch=batch, context=PROMPT + (STEPS + 1) / 2, kv_bytes=4).bytes


def test_a_step_that_takes_what_reading_takes_is_at_the_bandwidth_limit_and_wall() -> None:
    row = placed(run_of(50, step_bytes() / 20e9 * 1e3))
    assert row["bandwidth_share"] == pytest.approx(1)
    assert row["bandwidth_gb_per_s"] == pytest.approx(20) == row["limit_gb_per_s"]
    assert row["bytes_per_token"] == pytest.approx(step_bytes())
    assert row["wall"] == BANDWIDTH
    assert "100.0%" in row["evidence"]


def test_a_prefill_that_takes_what_its_arithmetic_takes_is_at_the_compute_wall() -> None:
    assert SHAPE is not None
    flops = prefill(SHAPE, batch=1, prompt=PROMPT, kv_bytes=4).flops
    row = placed(run_of(flops / 100e9 * 1e3, 20), "prefill")
    assert row["compute_share"] == pytest.approx(1)
    assert row["flops_per_token"] == pytest.approx(flops / PROMPT)
    assert row["wall"] == COMPUTE


def test_a_step_ten_times_as_long_as_any_limit_is_at_the_overhead_wall() -> None:
    row = placed(run_of(50, 10 * step_bytes() / 20e9 * 1e3))
    assert row["wall"] == OVERHEAD
    assert row["bandwidth_share"] == pytest.approx(0.1)


def test_end_to_end_is_the_sum_of_both_phases() -> None:
    run = run_of(100, 30)
    whole, parts = placed(run, "e2e_kv"), [placed(run, mode) for mode in ("prefill", "kv_decode")]
    for name in ("bandwidth_share", "compute_share"):
        times = sum(part[name] * part["latency_median_ms"] for part in parts)
        assert whole[name] == pytest.approx(times / whole["latency_median_ms"])
    assert whole["limit_gb_per_s"] is None


def test_a_batch_reads_the_weights_once_for_all() -> None:
    row = placed(run_of(50, 25, batch=8))
    assert row["bytes_per_token"] == pytest.approx(step_bytes(8) / 8)
    assert row["tokens"] == 8 * STEPS


def test_a_cell_above_the_roof_is_shown_as_it_is_and_explained() -> None:
    row = placed(run_of(50, 0.5 * step_bytes() / 20e9 * 1e3))
    assert row["bandwidth_share"] == pytest.approx(2)
    assert row["wall"] == BANDWIDTH
    assert "faster than the curve" in row["above_the_roof"]


def test_weights_that_lie_in_a_cache_are_named_as_the_reason() -> None:
    small = {"weights_bytes": 40 * 10**6, "params_millions_measured": 40.0}
    row = placed(run_of(50, 0.2, **small))
    assert row["bandwidth_share"] > 1
    assert "cache" in row["above_the_roof"]
    tiny = placed(run_of(50, 0.005, weights_bytes=3_600_000, lookup_bytes=3_200_000))
    assert "smallest working set" in tiny["above_the_roof"]


def test_below_the_roof_nothing_is_explained_away() -> None:
    assert placed(run_of(500, 100))["above_the_roof"] is None


def test_a_number_format_whose_rate_was_not_measured_has_no_wall() -> None:
    row = placed(run_of(50, 30, dtype="bfloat16", weights_bytes=192176640))
    assert row["wall"] is None
    assert "bf16" in row["evidence"]


@pytest.mark.parametrize("change", [{"n_experts": 8}, {"device": "cuda:0"}, {"n_layer": None}, {"kind": "ollama"}])
def test_what_cannot_be_placed_is_left_out(change: dict[str, Any]) -> None:
    run = run_of(50, 30, **change)
    assert physical_limit(run, by_cell(usable(run.rows))).is_empty()


@pytest.mark.parametrize(
    ("bandwidth", "compute", "wall"),
    [(0.5, 0.1, BANDWIDTH), (0.1, 0.5, COMPUTE), (0.49, 0.49, OVERHEAD), (3.0, 0.6, BANDWIDTH), (None, 0.9, None)],
)
def test_the_wall_is_the_larger_share_from_a_half_on(bandwidth: float | None, compute: float | None, wall: str) -> None:
    assert wall_of(bandwidth, compute) == wall


def test_limits_are_found_in_an_earlier_process_where_the_last_has_none() -> None:
    manifest = {"host": {}, "processes": [{"host": {"limits": limits()}}, {"host": {}}]}
    assert limits_in(manifest) is not None
    assert limits_in({"host": {}}) is None
    busy = limits() | {"clock": limits()["clock"] | {"taken_share": 0.89}}
    assert limits_in({"host": {"limits": busy}}) is None
    assert physical_limit(run_of(10.0, 1.0, machine=busy), pl.DataFrame()).is_empty()
    assert limits_in({}) is None


def test_without_limits_the_table_is_empty_and_says_why(tr121: Analysis) -> None:
    assert tr121.tables["physical_limit"].is_empty()
    assert "no limits of the machine" in tr121.notes["physical_limit"]


STUDY = """
run_name: walls
gen_tokens: 8
repetitions: 2
warmup_repetitions: 1
seed: 1
scenarios: [{name: s, prompt_tokens: 8}]
backends: [{name: cpu, kind: hf, device: cpu, dtype: fp32}]
models: [{name: models/tiny-gpt2, kind: hf}, {name: models/gpt2-5m, kind: hf}]
"""


def test_the_deep_narrow_model_is_at_the_overhead_wall(
    measured_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("PHASELAW_CACHE", str(measured_cache))
    study, out = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(STUDY)
    assert main(["run", str(study), "--out", str(out)]) == 0
    table = pl.read_csv(out / "analysis" / "physical_limit.csv")
    deep = table.filter(pl.col("model") == "models/gpt2-5m")
    assert deep.height == 3
    assert set(deep["wall"]) == {OVERHEAD}
    assert json.loads((out / "manifest.json").read_text())["host"]["limits"]["threads"] >= 1
    text = (out / "report.md").read_text()
    assert "The machine's limits" in text
    assert "roofline-cpu.svg" in text
