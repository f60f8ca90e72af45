"""TR121's primary run, analysed by us, gives TR121's own tables (skipped where its data is not at hand)."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from phaselaw.laws.analysis import Analysis
from phaselaw.rundir import read as runs
from phaselaw.rundir.columns import COLUMNS
from phaselaw.rundir.derive import LOAD_COLUMNS, MODEL_COLUMNS

TABLES = (
    "cuda_event_gap_summary", "hf_architecture_correlations", "hf_model_architecture", "hf_multivariate_fits",
    "ollama_decode_linearity", "ollama_decode_projection_error", "ollama_early_stop_summary",
    "ollama_warmup_breakdown", "overhead_compute_fits", "scaling_fits", "scaling_fits_length_limited",
    "summary_by_model_backend_mode", "summary_by_model_backend_mode_agg", "warmup_effect",
)  # fmt: skip
NOT_COMPARED = {
    "hf_model_architecture": {"config_path"},
    # One generator was shared over TR121's fits: its draws can't be had again (method 3).
    "hf_multivariate_fits": {
        "beta_ci_low", "beta_ci_high", "gamma_ci_low", "gamma_ci_high", "r2_ci_low", "r2_ci_high",
    },
}  # fmt: skip
DRAWN = {"slope_ci_low", "slope_ci_high", "log10_intercept_ci_low", "log10_intercept_ci_high", "boot_n_used"}


@pytest.fixture(scope="module")
def theirs(reference_data: Path) -> dict[str, pl.DataFrame]:
    folder = reference_data / "tr121" / "primary_run" / "analysis"
    return {path.stem: pl.read_csv(path, infer_schema_length=None) for path in folder.glob("*.csv")}


def same(reference: Any, found: Any, relative: float) -> bool:
    if reference is None or found is None or isinstance(reference, str | bool):
        return bool(reference == found)
    return math.isclose(reference, found, rel_tol=relative, abs_tol=1e-12)


def test_every_table_of_the_reference_is_compared(theirs: dict[str, pl.DataFrame]) -> None:
    assert sorted(theirs) == sorted(TABLES)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "overhead_compute_fits"])
def test_a_table_comes_out_within_a_millionth(name: str, tr121: Analysis, theirs: dict[str, pl.DataFrame]) -> None:
    reference, found = theirs[name], tr121.tables[name]
    assert found.columns[: len(reference.columns)] == reference.columns
    assert found.height == reference.height > 0
    for column in reference.columns:
        if column in NOT_COMPARED.get(name, set()):
            continue
        for expected, value in zip(reference[column], found[column], strict=True):
            if column in DRAWN and expected is not None:
                assert value == pytest.approx(expected, abs=0.005), column
            else:
                assert same(expected, value, 1e-6), (column, expected, value)


def test_fits_with_overhead_are_no_worse_than_the_reference(tr121: Analysis, theirs: dict[str, pl.DataFrame]) -> None:
    reference, found = theirs["overhead_compute_fits"], tr121.tables["overhead_compute_fits"]
    assert found.height == reference.height == 18
    for expected, value in zip(reference.iter_rows(named=True), found.iter_rows(named=True), strict=True):
        identity = ("backend", "backend_kind", "batch_size", "mode", "aggregation", "fit", "n_models", "ok")
        assert [expected[name] for name in identity] == [value[name] for name in identity]
        assert value["r2"] == pytest.approx(expected["r2"], rel=1e-6)
        assert value["r2"] >= expected["r2"] - 1e-9
        if expected["fit"] == "lat = a + b*P":
            for name in reference.columns:
                assert same(expected[name], value[name], 1e-6), name


def test_files_beside_the_tables_have_the_references_columns_first(reference_data: Path) -> None:
    written = {"metrics": COLUMNS, "hf_load_ms": LOAD_COLUMNS, "resolved_model_params": MODEL_COLUMNS}
    for name, columns in written.items():
        header = (reference_data / "tr121" / "primary_run" / f"{name}.csv").read_text().partition("\n")[0].split(",")
        assert list(columns[: len(header)]) == header


def test_the_measured_sizes_are_those_that_the_run_resolved(reference_data: Path) -> None:
    run = runs.load(reference_data / "tr121" / "primary_run")
    resolved = run.models.select("model", pl.col("params_millions_measured")).unique().sort("model")
    used = run.rows.select("model", pl.col("params_millions_effective")).unique().sort("model")
    assert used.rows() == resolved.rows()
