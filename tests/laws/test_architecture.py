"""Where a model's layers are known from: each source in its order, and the sizes of a models table."""

import json
import os
from pathlib import Path

import polars as pl
import pytest
from rows import hard_rows as rows
from rows import tables_of

from phaselaw.ladder.spec import LADDER
from phaselaw.laws.analysis import Options
from phaselaw.laws.structure import architectures
from phaselaw.rundir import read as runs

MODEL = LADDER[2]


def a_run(folder: Path, *, config: dict[str, object] | None = None, resolved: dict[str, object] | None = None) -> Path:
    """A run of one model of the ladder, with what its files say of its structure."""
    folder.mkdir()
    named = pl.lit(f"models/{MODEL.name}").alias("model"), pl.lit(MODEL.params / 1e6).alias("params_millions")
    rows(models=1).with_columns(named).write_csv(folder / "metrics.csv")
    line: dict[str, object] = {"model": f"models/{MODEL.name}", "kind": "hf", "config_path": None} | (resolved or {})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
        line["config_path"] = str(folder / "config.json")
    pl.DataFrame([line]).write_csv(folder / "resolved_model_params.csv")
    return folder


def given(folder: Path) -> Path:
    table = pl.DataFrame({"model": [f"models/{MODEL.name}"], "n_layer": [77]})
    table.write_csv(folder / "models.csv")
    return folder / "models.csv"


def found(folder: Path, table: Path | None = None) -> tuple[float, str]:
    [row] = architectures(runs.load(folder), table).iter_rows(named=True)
    return row["n_layer"], row["source"]


def test_the_models_own_config_comes_first(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a", config={"n_layer": 5}, resolved={"n_layer": 6})
    assert found(folder, given(tmp_path)) == (5, "config")


def test_a_config_may_use_other_models_words(tmp_path: Path) -> None:
    assert found(a_run(tmp_path / "a", config={"num_hidden_layers": 9})) == (9, "config")


@pytest.mark.parametrize("config", [{"n_layer": None}, {"layers": 3}])
def test_a_config_that_tells_no_layers_is_passed_over(config: dict[str, object], tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a", config=config, resolved={"n_layer": 6})
    assert found(folder) == (6, "resolved_model_params.csv")


def test_then_the_runs_own_table_of_models(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a", resolved={"n_layer": 6, "config_path": "C:\\gone\\config.json"})
    assert found(folder, given(tmp_path)) == (6, "resolved_model_params.csv")


@pytest.mark.timeout(30)
def test_a_pipe_where_the_config_should_be_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    folder = a_run(tmp_path / "a", resolved={"n_layer": 6, "config_path": str(tmp_path / "pipe")})
    assert found(folder) == (6, "resolved_model_params.csv")


def test_then_the_ladder_where_name_and_measured_size_match(tmp_path: Path) -> None:
    assert found(a_run(tmp_path / "a"), given(tmp_path)) == (MODEL.n_layer, "shipped ladder")


def test_then_the_table_that_a_person_gives(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a")
    other_size = pl.read_csv(folder / "metrics.csv").with_columns(pl.lit(99.0).alias("params_millions"))
    other_size.write_csv(folder / "metrics.csv")
    assert found(folder, given(tmp_path)) == (77, "models table")
    assert architectures(runs.load(folder), None).is_empty()


def test_a_size_that_no_row_tells_is_taken_from_the_table(tmp_path: Path) -> None:
    rows().with_columns(pl.lit(None, dtype=pl.Float64).alias("params_millions")).write_csv(tmp_path / "metrics.csv")
    sizes = [round(10e6 * 4**at) for at in range(4)]
    table = pl.DataFrame({"model": [f"m{at}" for at in range(4)], "n_layer": [1, 2, 3, 4], "params": sizes})
    table.write_csv(tmp_path / "models.csv")
    fits = tables_of(runs.load(tmp_path), Options(models_table=tmp_path / "models.csv"))["scaling_fits"]
    assert fits["slope"].to_list() == pytest.approx([0.5] * fits.height)
