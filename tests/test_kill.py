"""30 times kill -9 at random moments, each followed by --resume: nothing is lost, nothing doubled."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phaselaw.measure.order import schedule
from phaselaw.rundir.journal import JOURNAL, read_journal
from phaselaw.study.file import load_study

DRIVER = Path(__file__).parent / "kill_driver.py"
KILLS = 30

OF_THE_PROCESS = {
    "started_at_unix", "process_idx", "calls_since_process_start", "calls_since_model_load",
    "calls_since_shape_first_seen", "load_ms",
}  # fmt: skip
"""Columns that say when and by which process a call was made: these alone differ after a kill."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where the two runs are, and what the driver says of them."""
    out = tmp_path_factory.mktemp("kill")
    done = subprocess.run(
        [sys.executable, str(DRIVER), "--out", str(out), "--kills", str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out, json.loads(done.stdout)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in OF_THE_PROCESS} for row in csv.DictReader(file)]


def test_every_kill_hit_a_living_process_and_all_stages_were_hit(driven: tuple[Path, dict[str, Any]]) -> None:
    _, said = driven
    assert sum(said["landed"].values()) == KILLS
    assert said["landed"]["measuring"] >= 20
    assert min(said["landed"].values()) >= 3
    assert said["exits"] == {"whole": 3, "killed": 3}


def test_many_processes_measured_their_part(driven: tuple[Path, dict[str, Any]]) -> None:
    out, _ = driven
    assert len({call.process_idx for call in read_journal(out / "killed" / JOURNAL).calls}) >= 10


def test_every_call_of_the_schedule_is_kept_once_and_in_order(driven: tuple[Path, dict[str, Any]]) -> None:
    out, _ = driven
    made = [call.call_id for call in read_journal(out / "killed" / JOURNAL).calls]
    assert made == [planned.call_id for planned in schedule(load_study(str(out / "study.yaml")))]


def test_the_rows_are_those_of_a_run_that_was_never_killed(driven: tuple[Path, dict[str, Any]]) -> None:
    out, _ = driven
    assert len(rows(out / "killed")) == 960 * 3
    assert rows(out / "killed") == rows(out / "whole")


def analysed(run: Path) -> dict[str, list[dict[str, str]]]:
    """Each table without what the first calls of processes, models and shapes cost: a killed run has more of these."""
    found = {}
    for path in (run / "analysis").glob("*.csv"):
        with path.open(newline="") as file:
            table = list(csv.DictReader(file))
        found[path.name] = [{name: row[name] for name in row if not name.startswith("cold")} for row in table]
    firsts = found.pop("cold_starts.csv")
    assert firsts != []
    found["claims.csv"] = [row for row in found["claims.csv"] if "cold start" not in row["claim"]]
    return found


def test_so_are_the_tables_of_the_analysis(driven: tuple[Path, dict[str, Any]]) -> None:
    out, _ = driven
    killed, whole = analysed(out / "killed"), analysed(out / "whole")
    assert len(killed) > 10
    assert killed == whole


def test_no_file_is_left_half_written(driven: tuple[Path, dict[str, Any]]) -> None:
    out, _ = driven
    assert list((out / "killed").rglob("*.partial")) == []
    manifest = json.loads((out / "killed" / "manifest.json").read_text())
    assert (manifest["status"], manifest["rows_present"], manifest["rows_expected"]) == ("complete", 2880, 2880)
