"""``phaselaw analyze``: its options, its folders, runs pooled."""

import json
from pathlib import Path

import polars as pl
import pytest
from rows import hard_rows as rows

from phaselaw.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    folder.mkdir()
    noisy = pl.when(pl.col("model") == "m1").then(pl.col("latency_ms") * 1.3).otherwise("latency_ms")
    rows(models=7).with_columns(noisy.alias("latency_ms")).write_csv(folder / "metrics.csv")
    return folder


def fits(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "scaling_fits.csv", infer_schema_length=None)


def test_tables_go_into_the_run_and_their_rows_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(run)]) == 0
    table = run / "analysis" / "scaling_fits.csv"
    assert f"{table}  9 rows" in capsys.readouterr().out
    assert fits(run / "analysis").height == 9


def test_bootstrap_and_seed_change_the_draws_alone(run: Path, tmp_path: Path) -> None:
    for name, options in {"one": [], "two": ["--bootstrap", "200"], "three": ["--seed", "7"]}.items():
        assert main(["analyze", str(run), "--out", str(tmp_path / name), *options]) == 0
    one, two, three = (fits(tmp_path / name) for name in ("one", "two", "three"))
    assert one["boot_n_requested"].unique().to_list() == [1000]
    assert two["boot_n_requested"].unique().to_list() == two["boot_n_used"].unique().to_list() == [200]
    assert one["slope_ci_low"].to_list() != three["slope_ci_low"].to_list()
    for other in (two, three):
        assert other["slope_t_ci_low"].to_list() == one["slope_t_ci_low"].to_list()


def test_the_level_is_that_of_every_interval(run: Path, tmp_path: Path) -> None:
    for level in ("0.8", "0.95"):
        assert main(["analyze", str(run), "--out", str(tmp_path / level), "--level", level]) == 0
    narrow, wide = fits(tmp_path / "0.8"), fits(tmp_path / "0.95")
    for low, high in (("slope_t_ci_low", "slope_t_ci_high"), ("slope_ci_low", "slope_ci_high")):
        assert ((narrow[high] - narrow[low]) < (wide[high] - wide[low])).all()


def test_warmups_are_fitted_on_request(run: Path, tmp_path: Path) -> None:
    assert main(["analyze", str(run), "--out", str(tmp_path / "without")]) == 0
    assert main(["analyze", str(run), "--out", str(tmp_path / "with"), "--include-warmup"]) == 0
    counts = [
        pl.read_csv(tmp_path / name / "summary_by_model_backend_mode.csv", infer_schema_length=None)["n"].unique()
        for name in ("without", "with")
    ]
    assert [each.to_list() for each in counts] == [[2], [3]]


def test_a_models_table_tells_layers_that_nothing_else_does(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "models.csv"
    pl.DataFrame({"model": ["m0", "m1", "m2", "m3"], "n_layer": [2, 12, 4, 24], "n_embd": [8, 8, 64, 64]}).write_csv(
        table
    )
    assert main(["analyze", str(run), "--out", str(tmp_path / "out"), "--models-table", str(table)]) == 0
    known = pl.read_csv(tmp_path / "out" / "hf_model_architecture.csv", infer_schema_length=None)
    assert known["source"].unique().to_list() == ["models table"]
    assert not pl.read_csv(tmp_path / "out" / "hf_multivariate_fits.csv", infer_schema_length=None).is_empty()


def test_a_models_table_without_layers_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "models.csv"
    table.write_text("model,depth\nm0,2\n")
    assert main(["analyze", str(run), "--models-table", str(table)]) == 1
    assert "n_layer" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--bootstrap", "0"], ["--level", "1"], ["--seed", "-1"]])
def test_options_out_of_range_are_usage_errors(option: list[str], run: Path) -> None:
    assert main(["analyze", str(run), *option]) == 2


def test_several_runs_are_pooled_into_a_folder_of_their_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "b"
    second.mkdir()
    rows(models=7).with_columns(pl.col("latency_ms") * 1.1).write_csv(second / "metrics.csv")
    assert main(["analyze", str(run), str(second)]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["analyze", str(run), str(second), "--out", str(tmp_path / "ab"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["runs"] == ["a", "b"]
    assert "no manifest" in printed.err
    assert fits(tmp_path / "ab")["between_run_noise"].unique().to_list() == ["measured over 2 runs"]
