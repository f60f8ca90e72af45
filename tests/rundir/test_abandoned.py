"""A replicate whose host was lost: its calls stay, count in no figure, and are all made once more."""

import csv
import json
from pathlib import Path

import pytest
from journals import create, fill, resume, study

from phaselaw.measure.order import schedule
from phaselaw.records import Abandoned
from phaselaw.rundir import read as runs
from phaselaw.rundir.derive import faults
from phaselaw.rundir.journal import JOURNAL, read_journal

LOST = 5
"""Calls that were made when the host was lost."""
WHY = "b was lost (no answer)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first process was lost."""
    path = tmp_path_factory.mktemp("abandoned") / "run"
    with create(path) as made:
        fill(made, at_most=LOST)
        made.append(Abandoned(processes=(0,), why=WHY))
        assert made.calls == []
        made.begin_next_process({"name": "a"})
        fill(made, at_most=2)
    with resume(path) as made:  # what a kill leaves is gone on with, and what was abandoned stays so
        assert len(made.calls) == 2
        fill(made)
        made.finish("complete")
    return path


def test_among_the_calls_that_count_each_planned_one_stands_once(run: Path) -> None:
    journal = read_journal(run / JOURNAL)
    assert sorted(call.call_id for call in journal.calls) == sorted(call.call_id for call in schedule(study()))
    assert [call.call_idx for call, why in journal.abandoned if why == WHY] == list(range(LOST))
    assert min(call.call_idx for call in journal.calls) == LOST
    assert {load.process_idx for load in journal.models} == {1, 2}


def test_the_rows_of_an_abandoned_call_say_so_with_the_reason_and_keep_their_times(run: Path) -> None:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "abandoned"]
    assert len(rows) == LOST * 3
    assert {row["error"] for row in rows} == {WHY}
    assert any(float(row["latency_ms"]) > 0 for row in rows if row["latency_ms"])


def test_no_figure_knows_of_them(run: Path) -> None:
    loaded = runs.load(run)
    assert loaded.rows.height == 24 * 3
    assert "abandoned" not in loaded.rows["status"]
    assert loaded.notes[0] == f"{run}: {LOST} calls of hosts that were lost are left out, and were measured anew"
    assert runs.load(run / "metrics.csv").rows.height == 24 * 3
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["rows_present"], manifest["rows_expected"], manifest["calls_abandoned"]) == (72, 72, LOST)


def test_such_a_run_is_sound(run: Path) -> None:
    assert list(faults(run)) == []


def test_rows_name_their_host_and_those_of_a_run_on_one_machine_name_none(run: Path) -> None:
    hosts = runs.load(run).rows.group_by("process_idx", "host").len().sort("process_idx")
    assert hosts.rows() == [(1.0, "a", 6), (2.0, None, 66)]
