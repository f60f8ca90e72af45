"""``phaselaw sweep``: one run whose rows have the axis as a column, resumable as a whole."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import phaselaw

from phaselaw.commands.sweep import setting_of
from phaselaw.errors import UsageError
from phaselaw.rundir.journal import JOURNAL, read_journal

PHASELAW = (sys.executable, "-m", "phaselaw")

STUDY = """\
run_name: swept
gen_tokens: 4
repetitions: 2
scenarios: [{name: short, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated, overhead_ms: 20, params_ms: 0.1, real_time: true}]
models: [{name: m1, kind: simulated, params_millions: 1}, {name: m2, kind: simulated, params_millions: 9}]
"""


def column(run: Path, name: str) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return sorted({row[name] for row in csv.DictReader(file)})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_two_axes_are_one_run_with_a_column_each(study: Path, tmp_path: Path) -> None:
    done = phaselaw("sweep", study, "--axis", "gen_tokens=2,4", "--axis", "threads=1,2", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert column(tmp_path / "run", "gen_tokens_target") == ["2", "4"]
    assert column(tmp_path / "run", "threads") == ["1", "2"]
    assert column(tmp_path / "run", "backend") == ["sim_threads1", "sim_threads2"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["study"]["axes"]["gen_tokens"] == [2, 4]
    assert manifest["rows_present"] == manifest["rows_expected"] == 2 * 4 * 3 * 3


def test_a_sweep_that_was_interrupted_goes_on_where_it_was(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*PHASELAW, "sweep", str(study), "--axis", "gen_tokens=2,4,8", "--out", str(run)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (run / JOURNAL).exists() or (run / JOURNAL).read_bytes().count(b'"event":"call"') < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    kept = [call.call_id for call in read_journal(run / JOURNAL).calls]
    assert phaselaw("sweep", "--resume", run).returncode == 0
    calls = read_journal(run / JOURNAL).calls
    assert [call.call_id for call in calls][: len(kept)] == kept
    assert len({call.call_id for call in calls}) == len(calls) == 2 * 3 * 3


def test_a_study_that_sweeps_nothing_is_refused_before_anything_runs(study: Path, tmp_path: Path) -> None:
    done = phaselaw("sweep", study, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "has no axis to sweep" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_axis_becomes_a_setting() -> None:
    assert setting_of("gen_tokens=8, 32") == "axes.gen_tokens=[8, 32]"


@pytest.mark.parametrize(
    "axis", ["tokens=8", "gen_tokens", "gen_tokens=", "gen_tokens=8,x", "gen_tokens=0", "=8", "½=8"]
)
def test_a_malformed_axis_is_a_fault_of_usage(axis: str) -> None:
    with pytest.raises(UsageError, match="--axis"):
        setting_of(axis)


def test_one_axis_given_twice_is_refused(study: Path) -> None:
    done = phaselaw("sweep", study, "--axis", "gen_tokens=2", "--axis", "gen_tokens=4")
    assert done.returncode == 2 and "given twice" in done.stderr
