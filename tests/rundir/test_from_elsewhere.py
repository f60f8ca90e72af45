"""A run directory from elsewhere, or a table: nothing is written out of it, nothing hangs, what is odd is refused."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from journals import finished_run

from phaselaw import api
from phaselaw.errors import AnalysisError, PhaselawError
from phaselaw.files import replacing, write_whole
from phaselaw.rundir import read as runs
from phaselaw.rundir.journal import read_journal


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "kept").write_text("mine")
    return tmp_path / "home" / "kept"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phaselaw.api.draw", lambda _: "")


def reported(run: Path) -> None:
    loaded = api.load(run)
    loaded.save_tables()
    api.report(loaded)


@pytest.mark.usefixtures("no_pictures")
def test_links_in_the_place_of_files_are_replaced_and_never_followed(run: Path, victim: Path) -> None:
    (run / "analysis").mkdir()
    for name in (
        ".report.md.partial",
        "report.md",
        "report.html",
        "analysis/.claims.csv.partial",
        "analysis/claims.csv",
    ):
        (run / name).symlink_to(victim)
    reported(run)
    assert victim.read_text() == "mine"
    assert not (run / "report.md").is_symlink() and "# How fast are" in (run / "report.md").read_text()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["analysis", "analysis/plots"])
def test_a_link_in_the_place_of_a_folder_is_refused(run: Path, victim: Path, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(victim.parent)
    with pytest.raises(PhaselawError, match="is a link, which could lead out of the run"):
        reported(run)
    assert [path.name for path in victim.parent.iterdir()] == ["kept"]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.timeout(60)
def test_pipes_hang_nothing(run: Path) -> None:
    for name in ("manifest.json", ".report.md.partial", "report.md"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    reported(run)
    assert (run / "report.md").is_file()
    for name in ("journal.jsonl", "metrics.csv"):
        (run / name).unlink()
        os.mkfifo(run / name)
    with pytest.raises(PhaselawError, match="no such file"):
        runs.load(run)
    with pytest.raises(PhaselawError, match="can't be read: not a plain file"):
        read_journal(run / "journal.jsonl")


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".a.{dead.pid}.00ff.partial").write_text("left")
    with replacing(tmp_path / "a") as going_on:
        write_whole(tmp_path / "a", "other")
        assert going_on.exists(), "another writer's file is not swept away"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# --- tables from elsewhere ---

HEADER = "backend,backend_kind,model,scenario,mode,status,latency_ms,params_millions\n"
ROW = "b,hf,m,s,{mode},{status},5.0,{params}\n"


def table(folder: Path, rows: str, header: str = HEADER) -> Path:
    (folder / "metrics.csv").write_bytes((header + rows).encode())
    return folder / "metrics.csv"


def row(mode: str = "prefill", status: str = "ok", params: str = "5") -> str:
    return ROW.format(mode=mode, status=status, params=params)


@pytest.mark.parametrize(
    ("rows", "header", "why"),
    [
        ("", HEADER, "it has a header and no rows"),
        (row(), HEADER.replace("params_millions", "model"), "the column 'model' stands twice"),
        (row(status="OK"), HEADER, "status 'OK' would count as failed; write ok"),
        (row(mode="prefil"), HEADER, "mode 'prefil' is unknown; one of prefill, kv_decode, e2e_kv"),
        (row().replace(",s,", ",__all__,"), HEADER, "a scenario is named __all__, as figures over all scenarios are"),
        ((HEADER + row()).replace("\n", "\r"), "", "its lines end with CR alone"),
        (row(), HEADER.replace("model", "\x1b[2Jmodel\x07"), r"required column\(s\) missing: model"),
    ],
    ids=["header only", "doubled column", "status OK", "unknown mode", "scenario of all", "CR", "escapes"],
)
def test_a_table_that_can_only_mislead_is_refused_with_the_reason(
    tmp_path: Path, rows: str, header: str, why: str
) -> None:
    with pytest.raises(AnalysisError, match=why) as refused:
        runs.load(table(tmp_path, rows, header))
    assert str(refused.value).isprintable()


def test_an_open_quote_swallows_no_rows(tmp_path: Path) -> None:
    opened = row().replace("b,hf,m,s", 'b,hf,"m,s') + row() * 20 + row().replace("b,hf,m,s", 'b,hf,m",s')
    with pytest.raises(AnalysisError, match=r"metrics\.csv:3: an open quote, or a model of many lines"):
        runs.load(table(tmp_path, row() + opened + row()))


def test_sizes_that_no_model_has_are_refused_or_analysed(tmp_path: Path) -> None:
    sizes = ("1e308", "1.7e308", "1e-308", "5", "nan", "inf")
    for size in sizes:
        path = table(tmp_path, "".join(row(m, params=size) for m in ("prefill", "kv_decode", "e2e_kv")))
        with warnings.catch_warnings(), suppress(PhaselawError):
            warnings.simplefilter("error")
            assert len(api.load(path).tables) > 10


def test_a_doubled_column_of_a_manifests_error_can_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    header = HEADER.replace("\n", ",\x1b]0;x\x07,\x1b]0;x\x07\n")
    with pytest.raises(AnalysisError, match="stands twice") as refused:
        runs.load(table(tmp_path, row(), header))
    assert str(refused.value).isprintable()


# --- a manifest and a table of models from elsewhere ---


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ({"host": [1]}, "host of the document is of type list, not dict"),
        ({"host": {"limits": 5}}, "limits of host of the document is of type int"),
        ({"processes": [{"host": 5}]}, "host of an entry of processes of the document is of type int"),
        ({"processes": [None]}, "an entry of processes of the document is empty"),
        ({"study": {"backends": [{"cold": True}]}}, "an entry of backends of study of the document has no name"),
        ({"engines": 5}, "engines of the document is of type int, not list"),
        ({"engines": [{"kind": "hf"}]}, "an entry of engines of the document has no name"),
        ({"kept_servers": [1]}, "an entry of kept_servers of the document is of type int, not str"),
        ({"replicates": {"a": 1}}, "replicates of the document is of type dict, not int"),
        ({"nvml": [{"name": "g"}]}, "nvml of the document is of type list, not dict"),
        ({"rows_expected": "many"}, "rows_expected of the document is of type str"),
        ({"study": {"scenarios": [{"name": "s", "prompt_tokens": "many"}]}}, "prompt_tokens of an entry of scenarios"),
    ],
)
def test_a_manifest_of_other_types_is_refused_with_the_place(tmp_path: Path, manifest: dict, why: str) -> None:
    table(tmp_path, row())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AnalysisError, match=why):
        runs.load(tmp_path)


@pytest.mark.parametrize("count", ["many", "inf", "1e300"])
def test_a_model_whose_counts_are_none_is_refused_by_name(tmp_path: Path, count: str) -> None:
    table(tmp_path, row())
    (tmp_path / "resolved_model_params.csv").write_text(f"model,n_positions\nother,8\nm,{count}\n")
    with pytest.raises(
        AnalysisError, match=r"resolved_model_params\.csv: not a table that can be read: could not parse"
    ):
        runs.load(tmp_path)


def test_a_status_can_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    table(tmp_path, row())
    (tmp_path / "manifest.json").write_text(json.dumps({"rows_expected": 6, "rows_present": 3, "status": "\x1b[2J"}))
    assert all(note.isprintable() for note in runs.load(tmp_path).notes)
