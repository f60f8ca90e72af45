"""Memory predicted beside measured: what a process holds at a call is what it has loaded by then."""

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from phaselaw.laws.physical_limit import GPU, RESIDENT, memory_laws, memory_peaks
from phaselaw.records import Run
from phaselaw.rundir import read as runs

MB = 1 << 20


def run_of(calls: list[dict[str, Any]], *, device: str = "cpu", kind: str = "hf", **settings: Any) -> Run:
    """Calls of one scenario; models ``a`` and ``b`` have 100 and 200 MB of weights, two layers and a width of 64."""
    rows = pl.DataFrame(
        [
            {"backend": "x", "backend_kind": kind, "scenario": "s", "mode": "e2e_kv", "status": "ok", "latency_ms": 1.0,
             "params_millions_measured": 1.0, "batch_size": 1.0, "gen_tokens_target": 28.0,
             "prompt_tokens_compute": 100.0, "tokens_per_s": 1.0, "tokens_total": 1.0, "process_idx": 0.0,
             "call_idx": float(at), "rss_peak_mb": None, "gpu_peak_mb": None, **call}
            for at, call in enumerate(calls)
        ],
        schema_overrides={"rss_peak_mb": pl.Float64, "gpu_peak_mb": pl.Float64},
    )  # fmt: skip
    models = pl.DataFrame(
        [
            {"backend": "x", "model": name, "kind": kind, "device": device, "dtype": "float32", "n_layer": 2,
             "n_embd": 64, "n_head": 4, "n_inner": 256, "vocab_size": 1024, "n_positions": 512,
             "params_millions_measured": 1.0, "weights_bytes": size * MB}
            for name, size in (("a", 100), ("b", 200))
        ]
    )  # fmt: skip
    manifest = {"engines": [{"name": "x", "kind": kind, "settings": settings}], "host": {}}
    return Run(path=Path("x"), rows=runs.normalised(rows, where="x", run="r"), models=models, manifest=manifest)


def peaks(run: Run) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in memory_peaks(run, run.rows).iter_rows(named=True)}


def test_in_process_the_prediction_holds_the_runtime_and_the_models_loaded_by_then() -> None:
    found = peaks(run_of([{"model": "a", "rss_peak_mb": 500.0}, {"model": "b", "rss_peak_mb": 700.0}],
                         resident_runtime_mb=380.0))  # fmt: skip
    first, second = found["a"], found["b"]
    assert (first["memory"], first["other_weights_mb"], first["weights_mb"]) == (RESIDENT, 0, 100)
    assert (second["other_weights_mb"], second["weights_mb"], second["runtime_mb"]) == (100, 200, 380)
    assert first["kv_cache_mb"] == pytest.approx(128 * 2 * 2 * 64 * 4 / MB)
    parts = ("runtime_mb", "other_weights_mb", "weights_mb", "kv_cache_mb", "activations_mb")
    for row in (first, second):
        assert row["predicted_mb"] == pytest.approx(sum(row[part] for part in parts))
        assert row["error"] == pytest.approx(row["predicted_mb"] / row["measured_mb"] - 1)


def test_the_highest_peak_of_a_cell_stands_with_what_was_loaded_at_that_call() -> None:
    calls = [{"model": "a", "rss_peak_mb": 500.0}, {"model": "b", "rss_peak_mb": 700.0},
             {"model": "a", "rss_peak_mb": 720.0}]  # fmt: skip
    row = peaks(run_of(calls))["a"]
    assert (row["measured_mb"], row["other_weights_mb"]) == (720, 200)


def test_another_process_has_loaded_nothing_of_the_first() -> None:
    calls = [{"model": "a", "rss_peak_mb": 500.0}, {"model": "b", "rss_peak_mb": 700.0, "process_idx": 1.0}]
    assert peaks(run_of(calls))["b"]["other_weights_mb"] == 0


def test_a_process_of_another_run_of_a_pool_has_loaded_nothing_of_the_first() -> None:
    run = run_of([{"model": "a", "rss_peak_mb": 500.0}, {"model": "b", "rss_peak_mb": 700.0}])
    pooled = dataclasses.replace(run, rows=run.rows.with_columns(run="model"))
    assert peaks(pooled)["b"]["other_weights_mb"] == 0


def test_on_a_gpu_its_own_peak_is_predicted_without_the_runtime() -> None:
    run = run_of(
        [{"model": "a", "rss_peak_mb": 900.0, "gpu_peak_mb": 110.0}], device="cuda:0", resident_runtime_mb=800.0
    )
    row = peaks(run)["a"]
    assert (row["memory"], row["measured_mb"], row["runtime_mb"]) == (GPU, 110, None)
    assert row["predicted_mb"] < 110


def test_a_server_allocates_its_cache_for_its_whole_context() -> None:
    calls = [{"model": "a", "rss_peak_mb": 200.0}, {"model": "b", "rss_peak_mb": 300.0}]
    by_model = peaks(run_of(calls, kind="llamacpp", context_length=None, concurrency=[1, 4], kv_cache=None))
    assert by_model["b"]["other_weights_mb"] == 0
    assert by_model["a"]["kv_cache_mb"] == pytest.approx(512 * 4 * 2 * 2 * 64 * 2 / MB)


def test_without_a_measured_peak_there_is_no_row() -> None:
    assert peaks(run_of([{"model": "a"}])) == {}


def of_law(params: list[float], extra_mb: list[float]) -> pl.DataFrame:
    """Peaks of 300 MB and 4 bytes a parameter (in millions), each with something more, and 50 MB of others beside."""
    rows = [
        {"backend": "x", "backend_kind": "hf", "batch_size": 1, "gen_tokens_target": 8, "memory": RESIDENT,
         "model": f"m{at}", "params_millions_effective": size, "other_weights_mb": 50.0,
         "measured_mb": 350 + 4e6 * size / MB + more}
        for at, (size, more) in enumerate(zip(params, extra_mb, strict=True))
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_memory_against_size_is_a_law_with_its_interval() -> None:
    [row] = memory_laws(of_law([1, 10, 40, 100], [1, -1, -1, 1]), 0.95).iter_rows(named=True)
    assert row["n_models"] == 4
    assert row["bytes_per_param"] == pytest.approx(4, rel=0.01)
    assert row["bytes_per_param_low"] < 4 < row["bytes_per_param_high"]
    assert row["base_mb_low"] < 300 < row["base_mb_high"]
    assert row["r2"] > 0.99


def test_two_models_or_models_of_one_size_make_no_law_of_memory() -> None:
    assert memory_laws(of_law([1, 10], [0, 0]), 0.95).is_empty()
    assert memory_laws(of_law([10, 10, 10], [0, 0, 0]), 0.95).is_empty()


def test_where_not_all_stay_loaded_those_called_last_are_beside_a_peak() -> None:
    calls = [{"model": "a", "rss_peak_mb": 500.0}, {"model": "b", "rss_peak_mb": 700.0}]
    assert peaks(run_of(calls))["b"]["other_weights_mb"] == 100
    assert peaks(run_of(calls, keep_loaded=1))["b"]["other_weights_mb"] == 0


def test_tr121s_memory_rows_make_a_table_and_a_law(reference_data: Path) -> None:
    run = runs.load(reference_data / "tr121" / "primary_run")
    assert run.rows.filter(pl.col("gpu_peak_mb") > 0).height == 252
    table = memory_peaks(run, run.rows.filter(pl.col("status") == "ok"))
    assert table.height == 7 * 3
    assert set(table["memory"]) == {GPU} and table["predicted_mb"].null_count() == 21
    [row] = memory_laws(table, 0.95).iter_rows(named=True)
    assert row["bytes_per_param"] == pytest.approx(2, abs=0.3), "fp16"
    assert row["bytes_per_param_low"] < 2 < row["bytes_per_param_high"]


def test_an_imported_peak_stands_without_weights_that_nothing_tells_and_makes_no_law() -> None:
    run = run_of([{"model": name, "gpu_peak_mb": 100.0, "params_millions_measured": size}
                  for name, size in (("a", 1.0), ("b", 10.0), ("c", 50.0))])  # fmt: skip
    table = memory_peaks(dataclasses.replace(run, models=pl.DataFrame(), manifest={}), run.rows)
    assert table["measured_mb"].to_list() == [100.0] * 3
    assert table["other_weights_mb"].null_count() == 3
    assert memory_laws(table, 0.95).is_empty()
