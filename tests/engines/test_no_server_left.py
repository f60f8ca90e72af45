"""However a run ends, no server of ours is left: success, Ctrl-C, kill -9 of phaselaw or of its whole process group."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from phaselaw.engines.llamacpp_process import find_server
from phaselaw.rundir.journal import read_journal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server("xllamacpp") is None, reason="needs the package xllamacpp"),
]

STUDY = """\
run_name: left
gen_tokens: 150
repetitions: {repetitions}
warmup_repetitions: 0
scenarios: [{{name: short, prompt_tokens: 9}}]
backends: [{{name: served, kind: llamacpp, server: xllamacpp, threads: 1}}]
models:
  - {{name: models/tiny-gpt2, kind: llamacpp}}
  - {{name: models/gpt2-5m, kind: llamacpp}}
"""
MARK = "PHASELAW_TEST_MARK"
"""Whatever phaselaw starts inherits it, whatever it calls itself."""


class Phaselaw:
    """``phaselaw run`` in a process group of its own, and every process that came of it."""

    def __init__(self, *words: str | Path) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "phaselaw", "run", *map(str, words)], env={**os.environ, MARK: self.mark},
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def end(self) -> None:
        """Whatever the test found, nothing of it goes on."""
        self.process.kill()
        for process in self.servers():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(60)

    def servers(self) -> list[psutil.Process]:
        """The processes of this run that are not phaselaw itself."""
        return [each for each in psutil.process_iter() if each.pid != self.process.pid and self._is_of_it(each)]

    def _is_of_it(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def calls(self, run: Path) -> int:
        journal = run / "journal.jsonl"
        return journal.read_text().count('"event":"call"') if journal.exists() else 0

    def after_a_call(self, run: Path) -> None:
        """Wait until it has measured, so that its servers are up."""
        until = time.monotonic() + 120
        while not self.calls(run) and time.monotonic() < until:
            assert self.process.poll() is None, "it ended before it was to be stopped"
            time.sleep(0.02)
        assert len(self.servers()) >= 2, "no server was seen: this would hold nothing"

    def nothing_left(self) -> bool:
        until = time.monotonic() + 20
        while self.servers() and time.monotonic() < until:
            time.sleep(0.05)
        return not self.servers()


@pytest.fixture
def study(measured_cache: Path, tmp_path: Path) -> Callable[[int], Path]:
    """A study of so many rounds; its models are in `measured_cache`, and so are this machine's limits."""
    assert measured_cache.is_dir()

    def write(repetitions: int) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(STUDY.format(repetitions=repetitions))
        return path

    return write


Start = Callable[..., Phaselaw]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``phaselaw run`` with the words given; all that it started is ended after the test."""
    started: list[Phaselaw] = []

    def one(*words: str | Path) -> Phaselaw:
        started.append(Phaselaw(*words))
        return started[-1]

    yield one
    for run in started:
        run.end()


def interrupt(run: Phaselaw) -> None:
    run.process.send_signal(signal.SIGINT)


def kill(run: Phaselaw) -> None:
    run.process.kill()


def kill_the_group(run: Phaselaw) -> None:
    os.killpg(run.process.pid, signal.SIGKILL)


ENDS = {"Ctrl-C": (interrupt, 130), "kill -9": (kill, -9), "kill -9 of the group": (kill_the_group, -9)}


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
def test_a_run_that_is_stopped_leaves_no_server(
    end: Callable[[Phaselaw], None],
    code: int,
    replicates: int,
    study: Callable[[int], Path],
    start: Start,
    tmp_path: Path,
) -> None:
    run = start(study(1_000), "--out", tmp_path / "run", "--replicates", str(replicates))
    run.after_a_call(tmp_path / "run")
    end(run)
    assert run.process.wait(60) == code
    assert run.nothing_left()


def test_a_run_that_was_killed_goes_on_and_leaves_no_server_in_the_end(
    study: Callable[[int], Path], start: Start, tmp_path: Path
) -> None:
    killed = start(study(3), "--out", tmp_path / "run")
    killed.after_a_call(tmp_path / "run")
    kill_the_group(killed)
    killed.process.wait(60)
    before = killed.calls(tmp_path / "run")
    resumed = start("--resume", tmp_path / "run")
    assert resumed.process.wait(240) == 0
    assert before < resumed.calls(tmp_path / "run") == 6
    assert killed.nothing_left() and resumed.nothing_left()


def test_a_server_whose_guard_is_killed_goes_too(study: Callable[[int], Path], start: Start, tmp_path: Path) -> None:
    run = start(study(1_000), "--out", tmp_path / "run")
    run.after_a_call(tmp_path / "run")
    # Found before any is killed: a server whose guard is gone can't be asked what it is.
    guards = [process for process in run.servers() if "phaselaw.engines.llamacpp_guard" in process.cmdline()]
    assert guards
    for guard in guards:
        guard.kill()
    kill_the_group(run)
    run.process.wait(60)
    assert run.nothing_left()


def test_a_script_in_the_place_of_a_server_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "server.sh"
    script.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path / 'child'}\nwait\n")
    script.chmod(0o755)
    guard = [sys.executable, "-m", "phaselaw.engines.llamacpp_guard", str(script)]
    with subprocess.Popen(guard, stdin=subprocess.PIPE) as process:
        until = time.monotonic() + 30
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
            assert time.monotonic() < until
            time.sleep(0.02)
        child = psutil.Process(int((tmp_path / "child").read_text()))
        process.stdin.close()
        process.wait(30)
    until = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_is_killed_costs_a_call_and_is_started_again(
    study: Callable[[int], Path], start: Start, tmp_path: Path
) -> None:
    run = start(study(3), "--out", tmp_path / "run")
    run.after_a_call(tmp_path / "run")
    server = next(each for each in run.servers() if "phaselaw.engines.llamacpp_package" in each.cmdline())
    server.kill()
    assert run.process.wait(240) == 3
    journal = read_journal(tmp_path / "run" / "journal.jsonl")
    failed = [call for call in journal.calls if call.status != "ok"]
    assert len(journal.calls) == 6 and len(failed) == 1
    assert failed[0].error.startswith("server_died: llama-server ended with exit code")
    assert Counter(loaded.model for loaded in journal.models)[failed[0].cell.model] == 2
    assert start("--resume", tmp_path / "run", "--retry-failed").process.wait(240) == 0
    assert {call.status for call in read_journal(tmp_path / "run" / "journal.jsonl").calls} == {"ok"}
