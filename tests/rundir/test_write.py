"""A run directory: one writer, a journal that survives, tables that derive from it, going on."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from journals import HOST, create, edit, fill, finished_run, resume, study

from phaselaw.errors import RunError
from phaselaw.files import write_json
from phaselaw.rundir import journal as journal_module
from phaselaw.rundir.journal import JOURNAL, read_journal
from phaselaw.rundir.write import RunDirectory, write_derived


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifest(path: Path) -> dict[str, Any]:
    return json.loads((path / "manifest.json").read_text())


# --- what a run holds ---


def test_a_finished_run_has_three_rows_a_call_in_the_order_they_were_made(finished: Path) -> None:
    rows = table(finished / "metrics.csv")
    assert len(rows) == 8 * 3 * 3
    assert [int(row["sample_idx"]) for row in rows] == list(range(len(rows)))
    assert {row["status"] for row in rows} == {"ok", "error"}


def test_the_manifest_says_what_was_asked_what_was_there_and_what_ran(finished: Path) -> None:
    said = manifest(finished)
    rows = table(finished / "metrics.csv")
    assert (said["status"], said["rows_expected"], said["rows_present"]) == ("complete", 72, 72)
    assert said["calls_failed"] == sum(row["status"] == "error" for row in rows) // 3 > 0
    assert said["calls_ok"] + said["calls_failed"] == 24
    assert said["study"] == study().resolved()
    assert said["study_sha256"] == study().sha256
    assert (said["seed"], said["order"], said["argv"]) == (42, "rounds", ["phaselaw", "run"])
    assert said["host"] == HOST
    assert {engine["name"] for engine in said["engines"]} == {"one", "two"}
    assert len(said["measured_params"]) == len(said["loads"]) == 4
    assert said["started_at_unix"] < said["ended_at_unix"]


def test_each_model_and_backend_has_a_row_of_what_was_counted(finished: Path) -> None:
    rows = table(finished / "resolved_model_params.csv")
    assert {(row["backend"], row["model"]) for row in rows} == {
        (b, m) for b in ("one", "two") for m in ("small", "big")
    }
    assert {(row["params_millions_config"], row["params_millions_measured"]) for row in rows} == {("5.0", "5.0")}


def test_loads_of_other_engines_are_none_of_hfs(finished: Path) -> None:
    assert (finished / "hf_load_ms.csv").read_text() == "model,device,dtype,hf_load_ms,backend,process_idx\n"


def test_a_prompt_that_begins_a_formula_is_no_formula(finished: Path) -> None:
    assert {row["prompt"] for row in table(finished / "metrics.csv")} == {"", "'=Hello"}


def test_where_the_study_came_from_stands_in_the_manifest(tmp_path: Path) -> None:
    asked = {"study_source": "mine.yaml", "allow_lists": {"models": ["small"]}}
    with create(tmp_path / "run", asked=asked, skipped=["no CUDA"]):
        pass
    assert manifest(tmp_path / "run") | asked | {"skipped": ["no CUDA"]} == manifest(tmp_path / "run")


def test_a_run_in_progress_says_so(tmp_path: Path) -> None:
    with create(tmp_path / "run"):
        assert manifest(tmp_path / "run")["status"] == "running"
        assert manifest(tmp_path / "run")["ended_at_unix"] is None


def test_what_ends_a_run_leaves_it_interrupted_with_all_its_tables(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), create(tmp_path / "run") as directory:
        fill(directory, at_most=5)
        raise KeyboardInterrupt
    assert manifest(tmp_path / "run")["status"] == "interrupted"
    assert len(table(tmp_path / "run" / "metrics.csv")) == 15


# --- one folder, one run, one writer ---


def test_a_folder_with_a_journal_is_refused_and_resume_is_named(finished: Path) -> None:
    before = (finished / JOURNAL).read_bytes()
    with pytest.raises(RunError, match=f"--resume {finished}"):
        create(finished)
    assert (finished / JOURNAL).read_bytes() == before


def test_a_folder_without_a_journal_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("left from before")
    finished_run(tmp_path)
    assert len(table(tmp_path / "metrics.csv")) == 72


def test_runs_of_one_study_started_in_one_second_get_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with create(None) as one, create(None) as two, create(None) as three:
        assert len({one.path, two.path, three.path}) == 3
        assert re.fullmatch(r"runs/t/\d{8}_\d{6}", one.path.as_posix())


def test_a_name_that_is_no_folders_still_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with create(None, study(run_name="../a b/..")) as directory:
        assert directory.path.parent == Path("runs/a-b")


@pytest.mark.parametrize("enter", [lambda path: create(path), lambda path: resume(path)], ids=["create", "resume"])
def test_a_run_that_is_being_written_is_refused(tmp_path: Path, enter: Callable[[Path], RunDirectory]) -> None:
    with create(tmp_path / "run"), pytest.raises(RunError, match="is being written by another"):
        enter(tmp_path / "run")


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    script = (
        "import os, sys\nsys.path.insert(0, sys.argv[2])\nfrom pathlib import Path\nfrom journals import create\n"
        "held = create(Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "run"), str(Path(__file__).parents[1] / "support")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="is being written by another"):
            resume(tmp_path / "run")
        process.kill()
    with resume(tmp_path / "run") as directory:
        assert directory.process_idx == 1


def test_a_refused_create_or_resume_holds_no_lock(finished: Path) -> None:
    with pytest.raises(RunError):
        create(finished)
    with pytest.raises(RunError):
        resume(finished, host={})
    resume(finished).__exit__(None, None, None)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_cant_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="can't be written"):
        create(tmp_path / "run")


def test_a_file_where_the_folder_should_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        create(tmp_path / "run")


# --- a disk that refuses ---


def test_a_full_disk_leaves_no_half_line_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="can't be written: No space left"), create(tmp_path / "run") as directory:
        fill(directory, at_most=3)
        monkeypatch.setattr(journal_module.os, "fsync", full)
        fill(directory, at_most=1)
    monkeypatch.undo()
    assert len(read_journal(tmp_path / "run" / JOURNAL).calls) == 3
    with resume(tmp_path / "run") as directory:
        fill(directory)
        directory.finish("complete")
    assert len(table(tmp_path / "run" / "metrics.csv")) == 72


def test_what_was_measured_stands_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, at_most=4)
        assert read_journal(tmp_path / "run" / JOURNAL).calls == tuple(directory.calls)


# --- going on ---


def test_a_run_goes_on_in_the_same_order_and_its_rows_name_their_process(tmp_path: Path, finished: Path) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, at_most=10)
        directory.finish("interrupted")
    with resume(tmp_path / "run") as directory:
        fill(directory)
        directory.finish("complete")
    rows = table(tmp_path / "run" / "metrics.csv")
    whole = table(finished / "metrics.csv")
    for name in ("call_id", "mode", "status", "latency_ms", "sample_idx"):
        assert [row[name] for row in rows] == [row[name] for row in whole]
    assert [row["process_idx"] for row in rows] == ["0"] * 30 + ["1"] * 42
    assert [process["process_idx"] for process in manifest(tmp_path / "run")["processes"]] == [0, 1]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "run")
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.suffix}
    with resume(path) as directory:
        assert directory.finished
        write_derived(directory.path)
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.suffix} == before


def test_a_run_that_is_moved_keeps_its_identity(tmp_path: Path) -> None:
    moved = finished_run(tmp_path / "before").rename(tmp_path / "after")
    with resume(moved) as directory:
        write_derived(directory.path)
    assert manifest(moved)["run_id"] == "before"


def test_derived_files_that_were_lost_are_written_again_from_the_journal(tmp_path: Path, finished: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / JOURNAL).write_bytes((finished / JOURNAL).read_bytes())
    with resume(path) as directory:
        write_derived(directory.path)
    for name in ("metrics.csv", "resolved_model_params.csv", "hf_load_ms.csv", "manifest.json"):
        assert (path / name).read_bytes() == (finished / name).read_bytes()


def test_a_changed_study_is_refused_unless_allowed_and_then_both_are_recorded(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "run")
    changed = study(repetitions=3)
    with pytest.raises(RunError, match=r"study: .* became .*--allow-changed"):
        resume(path, changed)
    with resume(path, changed, allow_changed=True) as directory:
        assert not directory.finished
        fill(directory)
        directory.finish("complete")
    said = manifest(path)
    assert [process["study"]["repetitions"] for process in said["processes"]] == [2, 3]
    assert said["study_sha256"] == changed.sha256
    assert said["processes"][1]["changes"][0].startswith("study: ")


def test_a_changed_host_is_refused_unless_allowed_and_then_both_are_recorded(tmp_path: Path) -> None:
    with create(tmp_path / "run") as directory:
        fill(directory, at_most=3)
    there = HOST | {"cpu_model": "there"}
    with pytest.raises(RunError, match="cpu_model: 'here' became 'there'"):
        resume(tmp_path / "run", host=there)
    with resume(tmp_path / "run", host=there, allow_changed=True):
        pass
    assert [process["host"]["cpu_model"] for process in manifest(tmp_path / "run")["processes"]] == ["here", "there"]


def test_memory_and_load_are_no_change_of_the_host(tmp_path: Path) -> None:
    with create(tmp_path / "run"):
        pass
    with resume(tmp_path / "run", host=HOST | {"memory_bytes": 1, "load_average": [9, 9, 9]}) as directory:
        assert directory.process_idx == 1


def test_the_next_resume_goes_by_the_study_and_host_that_were_allowed(tmp_path: Path) -> None:
    with create(tmp_path / "run"):
        pass
    changed, there = study(repetitions=3), HOST | {"gpus": "one"}
    with resume(tmp_path / "run", changed, host=there, allow_changed=True):
        pass
    with resume(tmp_path / "run", host=there) as directory:
        assert directory.study == changed


def test_calls_of_a_backend_and_scenario_that_were_dropped_stay_rows_with_their_prompt(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "run")
    smaller = study(backends=[{"name": "one", "kind": "simulated"}], scenarios=[{"name": "micro", "prompt_tokens": 1}])
    with resume(path, smaller, allow_changed=True) as directory:
        directory.finish("complete")
    rows = table(path / "metrics.csv")
    assert len(rows) == 72
    assert {row["prompt"] for row in rows if row["scenario"] == "short"} == {"'=Hello"}
    assert {row["params_millions_config"] for row in rows} == {"5.0"}


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run to resume .*--out"):
        resume(tmp_path)


# --- journals that a crash or a hand touched ---


def test_a_process_killed_before_it_began_leaves_a_run_that_goes_on(tmp_path: Path, finished: Path) -> None:
    header = (finished / JOURNAL).read_bytes().split(b"\n")[0]
    (tmp_path / JOURNAL).write_bytes(header + b"\n")
    with resume(tmp_path) as directory:
        assert directory.process_idx == 0
        fill(directory)
        directory.finish("complete")
    assert len(table(tmp_path / "metrics.csv")) == 72


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.floats(0, 1))
@example(1.0)
def test_a_journal_cut_anywhere_loses_at_most_one_event_and_goes_on_to_the_same_tables(
    tmp_path_factory: pytest.TempPathFactory, finished: Path, share: float
) -> None:
    whole = (finished / JOURNAL).read_bytes()
    least = whole.index(b"\n") + 1
    cut = least + int(share * (len(whole) - least))
    path = tmp_path_factory.mktemp("cut")
    (path / JOURNAL).write_bytes(whole[:cut])
    whole_lines = whole[:cut].rpartition(b"\n")[0]
    assert len(read_journal(path / JOURNAL).calls) == whole_lines.count(b'"event":"call"')
    with resume(path) as directory:
        fill(directory)
        write_derived(directory.path) if directory.finished else directory.finish("complete")
    rows, wanted = table(path / "metrics.csv"), table(finished / "metrics.csv")
    for name in ("call_id", "mode", "status", "latency_ms", "tokens_per_s"):
        assert [row[name] for row in rows] == [row[name] for row in wanted]


def lines(path: Path) -> list[bytes]:
    return (path / JOURNAL).read_bytes().split(b"\n")[:-1]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"event":"call"}',
        b'{"event":["call"]}',
        b'{"event":"end"}',
        b"\xff\xfe",
        b"[" * 99999,
    ],
    ids=["empty", "cut", "list", "null", "no content", "odd name", "no status", "binary", "deep"],
)
def test_damage_in_the_middle_names_its_line(tmp_path: Path, finished: Path, damage: bytes) -> None:
    kept = lines(finished)
    kept[4] = damage
    (tmp_path / JOURNAL).write_bytes(b"\n".join(kept) + b"\n")
    with pytest.raises(RunError, match=rf"{JOURNAL}:5: damaged line"):
        read_journal(tmp_path / JOURNAL)


def test_a_call_that_stands_twice_is_damage(tmp_path: Path, finished: Path) -> None:
    kept = lines(finished)
    twice = next(line for line in kept if b'"event":"call"' in line)
    (tmp_path / JOURNAL).write_bytes(b"\n".join([*kept, twice]) + b"\n")
    with pytest.raises(RunError, match=rf"{JOURNAL}:{len(kept) + 1}: call \S+ stands twice"):
        read_journal(tmp_path / JOURNAL)


@pytest.mark.parametrize("content", [b"", b"nothing whole", b'{"event":"process"}\n'])
def test_what_has_no_header_is_no_journal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(RunError, match=rf"{JOURNAL}:1: "):
        read_journal(tmp_path / JOURNAL)


def test_a_journal_of_a_later_version_is_refused_by_its_version(tmp_path: Path, finished: Path) -> None:
    header = json.loads(lines(finished)[0]) | {"journal_version": 99}
    (tmp_path / JOURNAL).write_text(json.dumps(header) + "\n")
    with pytest.raises(RunError, match="journal version 99; this phaselaw reads versions 1 and 2"):
        read_journal(tmp_path / JOURNAL)


def test_an_event_of_a_later_version_is_passed_over(tmp_path: Path, finished: Path) -> None:
    weather = journal_module.line_of("weather", {"rain": True})
    (tmp_path / JOURNAL).write_bytes((finished / JOURNAL).read_bytes() + weather)
    assert read_journal(tmp_path / JOURNAL).calls == read_journal(finished / JOURNAL).calls


def test_a_study_that_this_version_cant_read_is_told_in_one_line(tmp_path: Path, finished: Path) -> None:
    shutil.copy(finished / JOURNAL, tmp_path)
    edit(tmp_path / JOURNAL, '"gen_tokens":4,"rep', '"gen_tokens":"four","rep')
    with pytest.raises(RunError, match="its study is none this phaselaw can read"):
        resume(tmp_path)


# --- secrets ---


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--set", "backends.0.api_key=kx-123"], ["--set", "backends.0.api_key=***"]),
        (["--api-key", "kx-123"], ["--api-key", "***"]),
        (["--hf_token", "kx-123", "x"], ["--hf_token", "***", "x"]),
        (["HF_TOKEN=kx-123"], ["HF_TOKEN=***"]),
        (["Authorization: Bearer kx-123"], ["Authorization: Bearer ***"]),
        (["https://me:kx-123@host/v1"], ["https://***@host/v1"]),
        (["a", "literal-of-the-environment", "b"], ["a", "***", "b"]),
    ],
)
def test_secrets_of_a_command_line_are_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kept: list[str]
) -> None:
    monkeypatch.setenv("SOME_SERVICE_KEY", "literal-of-the-environment")
    RunDirectory.create(tmp_path / "run", study=study(), argv=words, host=HOST).__exit__(None, None, None)
    RunDirectory.resume(tmp_path / "run", study=None, argv=words, host=HOST).__exit__(None, None, None)
    said = manifest(tmp_path / "run")
    assert [said["argv"], *(process["argv"] for process in said["processes"])] == [kept] * 3
    everything = b"".join(file.read_bytes() for file in (tmp_path / "run").iterdir())
    assert b"kx-123" not in everything
    assert b"literal-of-the-environment" not in everything


@pytest.mark.parametrize("word", ["gen_tokens=64", "axes.gen_tokens=[8,32]", "--tokens-per-month=1e9", "tokenizer=x"])
def test_what_only_sounds_like_a_secret_stays(tmp_path: Path, word: str) -> None:
    RunDirectory.create(tmp_path / "run", study=study(), argv=[word], host=HOST).__exit__(None, None, None)
    assert manifest(tmp_path / "run")["argv"] == [word]


def test_a_command_line_that_is_no_utf8_is_kept(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", study=study(), argv=["\udcff"], host=HOST).__exit__(None, None, None)
    assert manifest(tmp_path / "run")["argv"] == ["\udcff"]
    write_json(tmp_path / "again.json", manifest(tmp_path / "run"))
