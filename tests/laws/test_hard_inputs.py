"""Runs that are not what TR121's was: a table or a reason for each, never a traceback."""

from pathlib import Path

import polars as pl
import pytest

from phaselaw import runs
from phaselaw.errors import AnalysisError
from phaselaw.laws.analysis import analyze

MODES = ("prefill", "kv_decode", "e2e_kv")


def rows(models: int = 4, scenarios: tuple[str, ...] = ("a", "b"), reps: int = 2) -> pl.DataFrame:
    found = []
    for model in range(models):
        for scenario in scenarios:
            for rep in range(-1, reps):
                for at, mode in enumerate(MODES):
                    latency = (10.0 * 4**model) ** 0.5 * (1 + at) * (1 + 0.01 * rep)
                    found.append(
                        {
                            "backend": "x", "backend_kind": "hf", "model": f"m{model}", "scenario": scenario,
                            "mode": mode, "status": "ok", "latency_ms": latency, "params_millions": 10.0 * 4**model,
                            "tokens_per_s": 1e3 / latency, "is_warmup": rep < 0, "rep": max(rep, 0), "batch_size": 1,
                            "gen_tokens_target": 16,
                        }
                    )  # fmt: skip
    return pl.DataFrame(found)


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
