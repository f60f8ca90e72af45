"""Runs that are not what TR121's was: a table or a reason for each, never a traceback."""

import math
from pathlib import Path

import polars as pl
import pytest
from rows import hard_rows as rows

from phaselaw.errors import AnalysisError
from phaselaw.laws.analysis import analyze
from phaselaw.rundir import read as runs
from phaselaw.rundir.columns import TR121_COLUMNS


def analysed(table: pl.DataFrame, folder: Path):
    table.write_csv(folder / "metrics.csv")
    return analyze(runs.load(folder))


def test_the_law_of_the_rows_here_is_a_square_root(tmp_path: Path) -> None:
    fits = analysed(rows(), tmp_path).tables["scaling_fits"].filter(pl.col("scenario") == "__all__")
    assert fits["slope"].to_list() == pytest.approx([0.5] * 3)
    assert fits["verdict"].to_list() == ["supported"] * 3


def test_two_models_have_a_slope_and_no_verdict_but_too_few(tmp_path: Path) -> None:
    fits = analysed(rows(models=2), tmp_path).tables["scaling_fits"]
    assert fits["verdict"].unique().to_list() == ["too few models"]
    assert fits["slope"].null_count() == 0
    assert fits["slope_t_ci_low"].null_count() == fits.height


def test_one_model_has_no_slope(tmp_path: Path) -> None:
    fits = analysed(rows(models=1), tmp_path).tables["scaling_fits"]
    assert fits["slope"].null_count() == fits.height


def test_one_scenario_is_its_own_aggregate(tmp_path: Path) -> None:
    fits = analysed(rows(scenarios=("only",)), tmp_path).tables["scaling_fits"]
    assert sorted(fits["scenario"].unique()) == ["__all__", "only"]


def test_batch_sizes_are_not_mixed_in_one_law(tmp_path: Path) -> None:
    mixed = pl.concat([rows(), rows().with_columns(pl.lit(8).cast(pl.Int64).alias("batch_size"))])
    fits = analysed(mixed, tmp_path).tables["scaling_fits"].filter(pl.col("scenario") == "__all__")
    assert fits.group_by("batch_size").len().sort("batch_size").rows() == [(1, 3), (8, 3)]


def test_decode_budgets_are_not_mixed_in_one_law(tmp_path: Path) -> None:
    mixed = pl.concat([rows(), rows().with_columns(pl.lit(64).cast(pl.Int64).alias("gen_tokens_target"))])
    fits = analysed(mixed, tmp_path).tables["scaling_fits"].filter(pl.col("scenario") == "__all__")
    assert fits["gen_tokens_target"].value_counts().sort("gen_tokens_target").rows() == [(16, 3), (64, 3)]


def test_a_missing_phase_is_left_out(tmp_path: Path) -> None:
    analysis = analysed(rows().filter(pl.col("mode") != "e2e_kv"), tmp_path)
    assert sorted(analysis.tables["scaling_fits"]["mode"].unique()) == ["kv_decode", "prefill"]
    assert "regimes" in analysis.notes


def test_a_cell_whose_calls_all_failed_takes_only_its_model_out(tmp_path: Path) -> None:
    failed = rows().with_columns(
        pl.when(pl.col("model") == "m3").then(pl.lit("error")).otherwise("status").alias("status"),
        pl.when(pl.col("model") == "m3").then(None).otherwise("latency_ms").alias("latency_ms"),
    )
    fits = analysed(failed, tmp_path).tables["scaling_fits"]
    assert fits["n_models"].unique().to_list() == [3]


def test_a_run_in_which_everything_failed_has_empty_tables_with_reasons(tmp_path: Path) -> None:
    analysis = analysed(rows().with_columns(pl.lit("error").alias("status")), tmp_path)
    checks = analysis.tables["validity_checks"]
    assert checks["status"].unique().to_list() == ["not checked"]
    assert all(table.is_empty() for name, table in analysis.tables.items() if name != "validity_checks")
    assert set(analysis.notes) == set(analysis.tables) - {"validity_checks"}


def test_models_without_a_parameter_count_are_summarised_and_not_fitted(tmp_path: Path) -> None:
    unknown = rows().with_columns(
        pl.when(pl.col("model") == "m0").then(None).otherwise("params_millions").alias("params_millions")
    )
    analysis = analysed(unknown, tmp_path)
    assert analysis.tables["scaling_fits"]["n_models"].unique().to_list() == [3]
    assert "m0" in analysis.tables["summary_by_model_backend_mode"]["model"].to_list()


def test_the_same_name_on_two_backends_is_two_models(tmp_path: Path) -> None:
    both = pl.concat([rows(), rows().with_columns(pl.lit("y").alias("backend"), pl.col("latency_ms") * 2)])
    fits = analysed(both, tmp_path).tables["scaling_fits"].filter(pl.col("scenario") == "__all__")
    assert fits.group_by("backend").len().sort("backend").rows() == [("x", 3), ("y", 3)]


def test_unknown_columns_are_no_fault(tmp_path: Path) -> None:
    assert not analysed(rows().with_columns(pl.lit("?").alias("of_theirs")), tmp_path).tables["scaling_fits"].is_empty()


@pytest.mark.parametrize("column", ["backend", "model", "mode", "status", "latency_ms", "params_millions"])
def test_a_required_column_that_is_missing_is_named(column: str, tmp_path: Path) -> None:
    rows().drop(column).write_csv(tmp_path / "metrics.csv")
    with pytest.raises(AnalysisError, match=column):
        runs.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\x00", b"a,b\n1"])
def test_a_file_that_is_no_table_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(AnalysisError, match=r"metrics\.csv"):
        runs.load(tmp_path)


def with_latency(value: float) -> pl.DataFrame:
    odd = pl.when(pl.col("model") == "m1").then(value).otherwise("latency_ms")
    return rows().with_columns(odd.alias("latency_ms"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e300, 1e-300])
def test_what_can_be_no_latency_is_left_out_and_said(value: float, tmp_path: Path) -> None:
    with_latency(value).write_csv(tmp_path / "metrics.csv")
    run = runs.load(tmp_path)
    assert len(run.notes) == 1 and "18 row(s)" in run.notes[0]
    fits = analyze(run).tables["scaling_fits"]
    assert fits["n_models"].unique().to_list() == [3]
    assert fits["slope"].to_list() == pytest.approx([0.5] * fits.height)


@pytest.mark.parametrize("count", ["99999999999999999999999999", "inf", "1.5", "-1"])
@pytest.mark.parametrize("column", ["batch_size", "gen_tokens_target"])
def test_a_count_that_is_none_is_refused_by_name(column: str, count: str, tmp_path: Path) -> None:
    rows().with_columns(pl.lit(count).alias(column)).write_csv(tmp_path / "metrics.csv")
    with pytest.raises(AnalysisError, match=f"{column}.* is no count"):
        runs.load(tmp_path)


@pytest.mark.parametrize("column", ["backend", "backend_kind", "model", "scenario", "mode"])
def test_rows_that_do_not_say_what_they_are_of_are_refused(column: str, tmp_path: Path) -> None:
    rows().with_columns(pl.lit(None, dtype=pl.String).alias(column)).write_csv(tmp_path / "metrics.csv")
    with pytest.raises(AnalysisError, match=f"without a {column}"):
        runs.load(tmp_path)


def test_rows_given_twice_change_no_slope(tmp_path: Path) -> None:
    fits = analysed(pl.concat([rows(), rows()]), tmp_path).tables["scaling_fits"]
    assert fits["slope"].to_list() == pytest.approx([0.5] * fits.height)


@pytest.mark.parametrize("params", [0.0, -1.0, math.inf, None])
def test_a_size_that_is_none_leaves_its_model_out_of_laws(params: float | None, tmp_path: Path) -> None:
    odd = pl.when(pl.col("model") == "m0").then(pl.lit(params, dtype=pl.Float64)).otherwise("params_millions")
    analysis = analysed(rows().with_columns(odd.alias("params_millions")), tmp_path)
    assert analysis.tables["scaling_fits"]["n_models"].unique().to_list() == [3]


def test_models_of_one_size_have_no_slope(tmp_path: Path) -> None:
    analysis = analysed(rows().with_columns(pl.lit(10.0).alias("params_millions")), tmp_path)
    fits = analysis.tables["scaling_fits"]
    assert fits["slope"].null_count() == fits.height
    assert fits["ok"].to_list() == [False] * fits.height


def test_one_name_with_two_sizes_is_two_points_and_is_found(tmp_path: Path) -> None:
    twice = pl.concat([rows(), rows().with_columns(pl.col("params_millions") * 2, pl.col("latency_ms") * 2**0.5)])
    analysis = analysed(twice, tmp_path)
    assert analysis.tables["scaling_fits"]["n_models"].unique().to_list() == [8]
    assert "cells not comparable" in analysis.tables["validity_findings"]["check"].to_list()


def test_an_early_run_says_prompt_tokens_and_has_no_batch_size(tmp_path: Path) -> None:
    early = rows().drop("batch_size").with_columns(pl.lit(9).alias("prompt_tokens"))
    cells = analysed(early, tmp_path).tables["summary_by_model_backend_mode"]
    assert cells["batch_size"].unique().to_list() == [1]
    assert cells["prompt_tokens_raw_median"].unique().to_list() == [9]
    assert cells["prompt_tokens_median"].unique().to_list() == [9]


@pytest.mark.parametrize("columns", [37, 40, 42, 44])
def test_files_of_every_age_have_the_same_laws(columns: int, tmp_path: Path) -> None:
    younger = ("prefill_cuda_event_ms", "kv_decode_cuda_event_ms", "kv_decode_ms_equiv", "kv_decode_ms_per_token",
               "gen_tokens_equiv", "hf_load_ms", "gpu_peak_mb")  # fmt: skip
    names = [name for name in TR121_COLUMNS if name not in younger[: 44 - columns]]
    assert len(names) == columns
    absent = [pl.lit(None, dtype=pl.String).alias(name) for name in names if name not in rows().columns]
    fits = analysed(rows().with_columns(absent).select(names), tmp_path).tables["scaling_fits"]
    assert fits["slope"].to_list() == pytest.approx([0.5] * fits.height)


def test_a_rate_that_a_file_lacks_is_made_of_its_tokens(tmp_path: Path) -> None:
    counted = rows().drop("tokens_per_s").with_columns(pl.lit(17).alias("tokens_total"))
    rates = analysed(counted, tmp_path).tables["throughput_intervals"]
    assert rates["tokens_per_s"].null_count() == 0
    assert (rates["tokens_per_s_low"] <= rates["tokens_per_s"]).all()
