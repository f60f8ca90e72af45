"""``phaselaw show``: what a run holds, true of a finished run, one cut short and one under way."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from phaselaw.cli import main
from phaselaw.engines import module_for
from phaselaw.machine import identity as telemetry
from phaselaw.measure.calls import measure
from phaselaw.records import Call, Served
from phaselaw.rundir.journal import JOURNAL
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import Study

STUDY = {
    "run_name": "shown",
    "gen_tokens": 4,
    "repetitions": 3,
    "warmup_repetitions": 1,
    "scenarios": [{"name": "micro", "prompt_tokens": 1}],
    "backends": [{"name": "sure", "kind": "simulated"}, {"name": "unsure", "kind": "simulated", "failure_rate": 1.0}],
    "models": [{"name": "models/m", "kind": "simulated"}],
}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run under way, of which nothing is measured yet."""
    with RunDirectory.create(
        tmp_path / "run",
        study=Study.model_validate(STUDY),
        argv=["phaselaw"],
        host=telemetry.host(),
        skipped=["model big: not on this machine"],
    ) as made:
        yield made


def fill(directory: RunDirectory, *, at_most: int = 100) -> None:
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in directory.study.backends}
    for event in measure(directory.study, engines=engines, should_stop=lambda: len(directory.calls) >= at_most):
        directory.append(event)


@pytest.fixture
def finished(directory: RunDirectory) -> Path:
    fill(directory)
    directory.finish("complete")
    return directory.path


def shown(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["show", str(run), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_says_what_was_asked_and_what_is_there(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = shown(finished, capsys)
    assert (document["study"], document["order"], document["seed"]) == ("shown", "rounds", 42)
    assert (document["backends"], document["models"]) == (["sure", "unsure"], ["models/m"])
    assert document["study_sha256"] == Study.model_validate(STUDY).sha256
    assert (document["simulated"], document["processes"]) == (True, 1)
    assert document["skipped"] == ["model big: not on this machine"]


def test_failed_calls_are_counted_by_their_error(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = shown(finished, capsys)
    assert (document["calls_expected"], document["calls_ok"], document["calls_failed"]) == (8, 4, 4)
    assert document["errors"] == {"simulated: a simulated failure": 4}


def test_files_are_listed_and_those_half_written_or_hidden_are_not(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "analysis").mkdir()
    (finished / "analysis" / "a.csv").write_text("")
    (finished / ".report.md.partial").write_text("")
    wanted = [
        "analysis/a.csv", "hf_load_ms.csv", "journal.jsonl", "manifest.json", "metrics.csv",
        "resolved_model_params.csv",
    ]  # fmt: skip
    assert shown(finished, capsys)["files"] == wanted


def test_a_person_reads_lines_that_begin_with_what_they_are(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("study      shown (sha256 ")
    assert lines[0].endswith("SIMULATED: nothing was measured")
    assert "replicates 1" in lines
    assert "calls      8 of 8: 4 ok, 4 failed" in lines
    assert "failed     4 x simulated: a simulated failure" in lines
    assert "skipped    model big: not on this machine" in lines
    assert not any(line.startswith("go on") for line in lines)


def test_a_run_under_way_is_shown_as_far_as_it_got_with_how_to_go_on(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(directory, at_most=3)
    assert main(["show", str(directory.path)]) == 0
    out = capsys.readouterr().out
    assert "calls      3 of 8" in out
    assert f"go on      phaselaw run --resume {directory.path}" in out


def test_a_run_killed_at_its_first_breath_is_shown(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = finished / JOURNAL
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n" + b'{"event":"proc')
    document = shown(finished, capsys)
    assert (document["calls_expected"], document["calls_ok"], document["processes"]) == (8, 0, 0)
    assert main(["show", str(finished)]) == 0


def test_a_folder_without_a_run_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path)]) == 1
    said = f"{tmp_path / 'metrics.csv'}: no such file; give a run directory or a metrics.csv"
    assert capsys.readouterr().err == f"phaselaw: error: {said}\n"


def test_a_damaged_journal_is_told_in_one_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (finished / JOURNAL).open("ab") as file:
        file.write(b"garbage\n")
    assert main(["show", str(finished)]) == 1
    assert "damaged line" in capsys.readouterr().err


def test_rows_that_cannot_be_used_are_counted_though_their_calls_succeeded(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(directory)
    directory.finish("complete")
    cached = Served(
        sent_at_ms=0.0, ttft_ms=1.0, e2e_ms=2.0, wall_ms=2.0, connect_ms=None, arrivals_ms=(1.0, 2.0),
        decode_step_ms=1.0, decode_step_basis="client", faults={"prefill": "answered from the prompt cache"},
    )  # fmt: skip

    def settled(calls: Sequence[Call]) -> list[Call]:
        timings = (call.timing and dataclasses.replace(call.timing, served=cached) for call in calls)
        return [dataclasses.replace(call, timing=timing) for call, timing in zip(calls, timings, strict=True)]

    monkeypatch.setattr("phaselaw.commands.show.settled_calls", settled)
    assert shown(directory.path, capsys)["rows_unusable"] == {"prefill: answered from the prompt cache": 4}
    assert main(["show", str(directory.path)]) == 0
    assert "unusable   4 row(s), prefill: answered from the prompt cache" in capsys.readouterr().out
