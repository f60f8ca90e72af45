"""A machine that turns bad under phaselaw: full disk, no memory, a clock set back, a folder removed; real processes."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rows import hard_rows, written

from phaselaw.rundir import read as runs
from phaselaw.rundir.derive import faults

STUDY = """\
run_name: hard
gen_tokens: 4
repetitions: {repetitions}
scenarios: [{{name: a, prompt_tokens: 1}}]
backends: [{{name: sim, kind: simulated, real_time: {real_time}}}]
models: [{{name: m, kind: simulated, params_millions: 1}}]
"""
PHASELAW = (sys.executable, "-m", "phaselaw")


def study(folder: Path, repetitions: int, *, real_time: bool = False) -> str:
    (folder / "study.yaml").write_text(STUDY.format(repetitions=repetitions, real_time=str(real_time).lower()))
    return str(folder / "study.yaml")


def phaselaw(*words: object, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'{before} exec "$@"', "bash", *PHASELAW, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", disk], check=False).returncode != 0:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    stopped = phaselaw("run", study(tmp_path, 300), "--out", small_disk / "run")
    assert (stopped.returncode, stopped.stderr.count("\n")) == (1, 1)
    assert "can't be written: No space left on device" in stopped.stderr
    kept = (small_disk / "run" / "journal.jsonl").read_bytes()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert phaselaw("run", "--resume", small_disk / "run").returncode == 0
    assert (small_disk / "run" / "journal.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert not [*faults(small_disk / "run")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    run = written(hard_rows().iter_rows(named=True), tmp_path / "run")
    done = phaselaw("analyze", run, "--bootstrap", 10**10, before="ulimit -v 16000000;", OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 1
    assert done.stderr == "phaselaw: error: not enough memory for this; close other programs, or ask for less at once\n"


def test_a_clock_that_is_set_back_in_mid_run_is_told_and_changes_no_latency(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\nreal, read = time.time, itertools.count()\n"
        "time.time = lambda: real() - 7200 * (next(read) > 8)\n"
    )
    told = phaselaw(
        "run",
        study(tmp_path, 9),
        "--out",
        tmp_path / "run",
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    assert told.returncode == 0, told.stderr
    assert "the clock was set back by 120 min; no order or latency of calls goes by it" in told.stderr
    rows = runs.load(tmp_path / "run").rows
    assert rows["call_idx"].is_sorted() and not rows["started_at_unix"].is_sorted()
    assert (rows["latency_ms"] > 0).all()


def test_a_folder_that_is_removed_in_mid_run_ends_it_at_once_with_a_line(tmp_path: Path) -> None:
    command = [*PHASELAW, "run", study(tmp_path, 10_000, real_time=True), "--out", tmp_path / "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and (tmp_path / "run/journal.jsonl") not in [*(tmp_path / "run").glob("j*")]:
        time.sleep(0.05)
    time.sleep(0.3)
    shutil.rmtree(tmp_path / "run")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and not (tmp_path / "run").exists()
    assert "journal.jsonl" in told and told.count("\n") <= 2
