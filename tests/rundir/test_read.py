"""Runs of one study on one host are pooled; anything else is refused, with what differs."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from phaselaw.errors import AnalysisError
from phaselaw.rundir import read as runs
from phaselaw.tables import constants

HOST = {"os": "Linux 6", "cpu_model": "A", "cores_physical": 4, "libraries": {"torch": "2.13.0", "rich": "14"}}
STUDY = {"gen_tokens": 16, "seed": 1, "run_name": "s", "backends": [{"name": "x", "threads": 2}]}


def a_run(
    folder: Path, *, factor: float = 1.0, manifest: dict[str, Any] | None = None, measured: float | None = None
) -> Path:
    folder.mkdir()
    rows = [
        {
            "backend": "x", "backend_kind": "hf", "model": model, "scenario": "a", "mode": mode, "status": "ok",
            "latency_ms": factor * size**0.5 * (1 + rep / 100), "params_millions": size,
            "params_millions_measured": measured if model == "m0" else None, "tokens_per_s": 1 / factor, "rep": rep,
        }
        for model, size in (("m0", 10.0), ("m1", 40.0), ("m2", 160.0))
        for mode in ("prefill", "kv_decode", "e2e_kv")
        for rep in range(3)
    ]  # fmt: skip
    pl.DataFrame(rows).write_csv(folder / "metrics.csv")
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def of_ours(run_id: str, **changes: Any) -> dict[str, Any]:
    return {"run_id": run_id, "study": STUDY, "host": HOST, "order": "rounds"} | changes


def test_every_row_bears_its_run(tmp_path: Path) -> None:
    pool = runs.load_all(
        [
            a_run(tmp_path / "one", manifest=of_ours("first")),
            a_run(tmp_path / "two", factor=1.1, manifest=of_ours("second")),
        ]
    )
    assert pool.rows["run"].value_counts().sort("run").rows() == [("first", 27), ("second", 27)]
    assert [source.run_id for source in pool.sources] == ["first", "second"]
    assert pool.manifest["run_id"] == "first"
    assert pool.order == "rounds"
    assert pool.notes == ()


def test_a_run_alone_bears_its_folders_name_where_no_manifest_names_it(tmp_path: Path) -> None:
    run = runs.load(a_run(tmp_path / "alone"))
    assert run.rows["run"].unique().to_list() == ["alone"]
    assert runs.load_all([tmp_path / "alone"]).notes == ()


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    pool = runs.load_all(
        [a_run(tmp_path / str(n), factor=1 + n / 10, manifest=of_ours("same")) for n in range(3)]
    )  # fmt: skip
    assert pool.rows["run"].unique(maintain_order=True).to_list() == ["same", "same#2", "same#3"]


def test_seed_and_name_of_a_study_may_differ(tmp_path: Path) -> None:
    other = of_ours("b", study=STUDY | {"seed": 2, "run_name": "again"})
    one, two = a_run(tmp_path / "a", manifest=of_ours("a")), a_run(tmp_path / "b", factor=1.1, manifest=other)
    assert runs.load_all([one, two]).notes == ()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"study": STUDY | {"gen_tokens": 32}}, "study gen_tokens: 16 and 32"),
        ({"study": STUDY | {"backends": [{"name": "x", "threads": 4}]}}, r"backends\[x\]\.threads: 2 and 4"),
        ({"host": HOST | {"cpu_model": "B"}}, "host cpu_model: A and B"),
        ({"host": HOST | {"libraries": {"torch": "2.4.0", "rich": "14"}}}, "host torch: 2.13.0 and 2.4.0"),
    ],
)
def test_another_study_or_host_is_refused_by_name_and_pooled_when_told(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    one = a_run(tmp_path / "a", manifest=of_ours("a"))
    two = a_run(tmp_path / "b", factor=1.1, manifest=of_ours("b", **changes))
    with pytest.raises(AnalysisError, match=named):
        runs.load_all([one, two])
    told = runs.load_all([one, two], allow_different=True)
    assert len(told.notes) == 1 and "pooled although" in told.notes[0]


def test_manifests_of_tr121_are_compared_in_their_own_words(tmp_path: Path) -> None:
    theirs = {
        "run_id": "a", "gen_tokens": 64, "resolved": {"backends": []}, "torch": {"torch": "2.8.0"},
        "platform": {"os": "Windows", "machine": "AMD64", "processor": "Intel"}, "nvml": {"name": "RTX 4080"},
    }  # fmt: skip
    one = a_run(tmp_path / "a", manifest=theirs)
    two = a_run(tmp_path / "b", factor=1.1, manifest=theirs | {"nvml": {"name": "H100"}})
    with pytest.raises(AnalysisError, match="gpus: RTX 4080 and H100"):
        runs.load_all([one, two])


def test_a_run_without_a_manifest_is_pooled_with_a_note(tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "a", manifest=of_ours("a")), a_run(tmp_path / "b", factor=1.1)
    pool = runs.load_all([one, two])
    assert pool.rows["run"].n_unique() == 2
    assert len(pool.notes) == 1 and "no manifest" in pool.notes[0]
    assert pool.order == "cells"


def test_a_run_given_twice_is_refused_as_path_and_as_copy(tmp_path: Path) -> None:
    one, copy = a_run(tmp_path / "a"), a_run(tmp_path / "copy")
    with pytest.raises(AnalysisError, match="twice"):
        runs.load_all([one, one])
    with pytest.raises(AnalysisError, match="same rows"):
        runs.load_all([one, copy])


def test_a_size_that_one_run_measured_serves_the_run_that_only_had_a_label(tmp_path: Path) -> None:
    pool = runs.load_all([a_run(tmp_path / "a", measured=9.5), a_run(tmp_path / "b", factor=1.1)])
    sizes = pool.rows.filter(pl.col("model") == "m0")["params_millions_effective"].unique().to_list()
    assert sizes == [9.5]


def test_a_column_of_one_value_takes_no_memory_and_is_read_as_it_stands(tmp_path: Path) -> None:
    path = a_run(tmp_path / "one") / "metrics.csv"
    pl.concat([pl.read_csv(path)] * 100).with_columns(pl.lit(None).alias("gpu_peak_mb")).write_csv(path)
    rows = runs.load(path).rows
    constant = ["backend", "backend_kind", "scenario", "status", "gpu_peak_mb"]
    assert rows.filter(pl.col("rep") > 0).select(constant).estimated_size() < 100
    assert rows["backend"].to_list() == ["x"] * 2700
    assert rows["gpu_peak_mb"].dtype == pl.Float64 and rows["gpu_peak_mb"].null_count() == 2700
    assert rows["params_millions_measured"].null_count() == 2700
    assert rows["rep"].to_list() == [0.0, 1.0, 2.0] * 900


def test_a_value_beside_missing_ones_is_no_constant() -> None:
    table = pl.DataFrame({"some": [1.0, None], "none": [None, None], "same": ["a", "a"], "other": [1, 2]})
    assert constants(table) == ["none", "same"]


@pytest.mark.parametrize(("clients", "told"), [(1, True), (4, False)])
def test_a_clock_that_was_set_back_is_told(clients: int, told: bool, tmp_path: Path) -> None:
    path = a_run(tmp_path / "one") / "metrics.csv"
    rows = pl.read_csv(path).with_columns(call_idx=pl.int_range(pl.len()) // 3, concurrency=pl.lit(clients))
    rows.with_columns(started_at_unix=1.7e9 + pl.col("call_idx") - 3600 * (pl.col("call_idx") > 4)).write_csv(path)
    notes = runs.load(path.parent).notes
    assert bool(notes) is told and all("the clock was set back by 60 min" in note for note in notes)


def test_a_large_file_is_read_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_run(tmp_path / "one")
    whole = runs.load(path).rows
    monkeypatch.setattr(runs, "_READ_WHOLE_BYTES", 0)
    assert runs.load(path).rows.equals(whole)
