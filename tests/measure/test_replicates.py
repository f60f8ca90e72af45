"""Replicates: fresh processes one after the other, one writer, and every planned call once however a run ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
from ollama_standin import OllamaStandIn, standing_in
from recordings import SMOLLM2

from phaselaw.commands.console import describe_call
from phaselaw.errors import RunError
from phaselaw.measure import replicates
from phaselaw.measure.order import schedule
from phaselaw.records import Event
from phaselaw.rundir import read as runs
from phaselaw.rundir.journal import JOURNAL, Journal, read_journal
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.file import load_study
from phaselaw.study.model import Study

STUDY = {
    "run_name": "again",
    "gen_tokens": 4,
    "replicates": 3,
    "repetitions": 1,
    "warmup_repetitions": 1,
    "scenarios": [{"name": "a", "prompt_tokens": 1}, {"name": "b", "prompt_tokens": 9}],
    "backends": [{"name": "sim", "kind": "simulated", "overhead_ms": 40, "real_time": True}],
    "models": [{"name": "m1", "kind": "simulated"}, {"name": "m2", "kind": "simulated"}],
}
CALLS = 8
"""Calls of one replicate, each of about 0.25 s."""


def study(**changes: object) -> Study:
    return Study.model_validate(STUDY | {"backends": [{"name": "sim", "kind": "simulated"}]} | changes)


def directory(path: Path, asked: Study) -> RunDirectory:
    return RunDirectory.create(path, study=asked, argv=["phaselaw"], host={"os": "here"})


def measured(path: Path, asked: Study, *, at_most: int = 1000) -> list[Event]:
    """A run's events, asked to stop after so many calls."""
    with directory(path, asked) as made:
        _, _, events = replicates.measure_run(made, lambda: len(made.calls) >= at_most)
        found = list(events)
        made.finish("complete" if len(made.calls) == asked.calls_planned() else "interrupted")
    return found


def journal(path: Path) -> Journal:
    return read_journal(path / JOURNAL)


def made(path: Path) -> list[str]:
    """The ids of a run's calls; none where its journal is not there, or its first line is just being written."""
    begun = (path / JOURNAL).exists() and b"\n" in (path / JOURNAL).read_bytes()
    return [call.call_id for call in journal(path).calls] if begun else []


def planned(asked: Study) -> list[str]:
    return [call.call_id for call in schedule(asked)]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- models that are to be alone ---


def test_a_model_that_is_to_be_alone_has_a_process_in_each_replicate(tmp_path: Path, monkeypatch) -> None:
    alone = {"name": "hf", "kind": "hf", "fresh_process": True}
    asked = study(
        replicates=2,
        backends=[alone, {"name": "sim", "kind": "simulated"}],
        models=[{"name": name, "kind": kind} for name, kind in (("a", "hf"), ("b", "hf"), ("c", "simulated"))],
    )
    seen: list[tuple[int, int, set[str]]] = []

    def part(
        asked: Study, _: object, *, done: set[str], replicate: int, process_idx: int, **__: int
    ) -> Iterator[Event]:
        todo = [call for call in schedule(asked) if call.call_id not in done]
        assert {call.replicate for call in todo} == {replicate}
        seen.append((replicate, process_idx, {call.cell.model for call in todo}))
        return iter(())

    monkeypatch.setattr(replicates, "in_a_fresh_process", part)
    with directory(tmp_path / "run", asked) as made:
        _, _, events = replicates.measure_run(made, lambda: False)
        assert list(events) == []
    assert [process_idx for _, process_idx, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert [replicate for replicate, _, _ in seen] == [0, 0, 0, 1, 1, 1]
    assert all(len(models) == 1 for _, _, models in seen)
    assert set().union(*(models for _, _, models in seen[:3])) == {"a", "b", "c"}


def test_one_replicate_of_models_that_are_alone_is_measured_by_fresh_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(replicates, "_in_this_process", lambda *_, **__: pytest.fail("not a fresh process"))
    monkeypatch.setattr(replicates, "in_a_fresh_process", lambda *_, **__: iter(()))
    alone = {"name": "hf", "kind": "hf", "fresh_process": True}
    asked = study(replicates=1, backends=[alone], models=[{"name": "a", "kind": "hf"}])
    with directory(tmp_path / "run", asked) as made:
        assert list(replicates.measure_run(made, lambda: False)[2]) == []


# --- what replicates are ---


@pytest.fixture(scope="module")
def thrice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three replicates of two repetitions."""
    run = tmp_path_factory.mktemp("thrice") / "run"
    measured(run, study(repetitions=2))
    return run


def test_each_replicate_is_a_process_of_its_own_that_loads_and_warms_up_anew(thrice: Path) -> None:
    found = journal(thrice)
    assert made(thrice) == planned(study(repetitions=2))
    assert [(call.replicate, call.process_idx) for call in found.calls] == [(r, r) for r in range(3) for _ in range(12)]
    assert [call.replicate for call in found.calls if call.calls_since_process_start == 0] == [0, 1, 2]
    assert sorted((m.process_idx, m.model) for m in found.models) == [(r, m) for r in range(3) for m in ("m1", "m2")]
    assert len(found.processes) == 3 and found.resumed_replicates == []
    said = json.loads((thrice / "manifest.json").read_text())
    assert (said["replicates"], said["rows_present"], said["rows_expected"]) == (3, 108, 108)


def test_rows_say_their_replicate_and_are_read_by_it(thrice: Path) -> None:
    rows = runs.load(thrice).rows.filter(~pl.col("is_warmup"))
    assert rows.group_by("replicate", "rep").len().sort("replicate", "rep").rows() == [
        (replicate, rep, 12) for replicate in range(3) for rep in range(2)
    ]


def test_a_call_of_a_further_replicate_is_told_with_its_number(thrice: Path) -> None:
    first, *_, last = journal(thrice).calls
    assert "(warmup 0)" in describe_call(first)
    assert "(replicate 2, round 1)" in describe_call(last)


def test_a_study_of_one_replicate_is_measured_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicates, "in_a_fresh_process", None)
    measured(tmp_path / "run", study(replicates=1))
    assert {(call.replicate, call.process_idx) for call in journal(tmp_path / "run").calls} == {(0, 0)}


def test_a_run_that_is_to_stop_makes_no_further_call_and_begins_no_further_replicate(tmp_path: Path) -> None:
    asked = study()
    measured(tmp_path / "within", asked, at_most=CALLS + 3)
    assert made(tmp_path / "within") == planned(asked)[: CALLS + 3]
    measured(tmp_path / "between", asked, at_most=CALLS)
    assert made(tmp_path / "between") == planned(asked)[:CALLS]
    assert len(journal(tmp_path / "between").processes) == 1


def test_what_an_engine_refuses_is_told_as_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    server = {"backends": [{"name": "there", "kind": "openai"}], "models": [{"name": "m", "kind": "openai"}]}
    with pytest.raises(RunError, match="backend there: no address; give its url, or set OPENAI_BASE_URL"):
        measured(tmp_path / "run", study(**server))


# --- servers ---


def test_a_model_that_ollama_holds_is_unloaded_before_each_replicate(tmp_path: Path) -> None:
    server = OllamaStandIn("v0.13.5", speed=1000.0)
    server.loaded.add(SMOLLM2)
    with standing_in(server) as url:
        backend = {"name": "there", "kind": "ollama", "url": url, "raw": True}
        asked = study(replicates=2, backends=[backend], models=[{"name": SMOLLM2, "kind": "ollama"}], gen_tokens=8)
        measured(tmp_path / "run", asked)
    unloads = [at for at, request in enumerate(server.requests) if request.get("keep_alive") == 0]
    assert len(unloads) == 2 and unloads[0] == 0 < unloads[1]
    found = journal(tmp_path / "run")
    assert {call.status for call in found.calls} == {"ok"}
    loads = [call.replicate for call in found.calls if call.timing and call.timing.served.model_was_loaded is False]
    assert loads == [0, 1]
    assert asked.kept_servers() == ()


def test_a_server_that_cant_begin_anew_is_named_in_the_manifest_and_to_who_reads_the_run(tmp_path: Path) -> None:
    servers = [
        {"name": "any", "kind": "openai", "url": "http://127.0.0.1:9/v1"},
        {"name": "running", "kind": "llamacpp", "url": "http://127.0.0.1:9"},
        {"name": "ours", "kind": "llamacpp"},
    ]
    models = [{"name": "m", "kind": kind} for kind in ("openai", "llamacpp")]
    asked = study(backends=servers, models=models, replicates=2)
    assert asked.kept_servers() == ("any", "running")
    assert asked.model_copy(update={"replicates": 1}).kept_servers() == ()
    measured(tmp_path / "run", study(backends=servers[:2], models=models, replicates=2))
    [note] = runs.load(tmp_path / "run").notes
    assert "replicates share the server of any, running" in note and "only their client is fresh" in note


# --- however it ends ---


class Running:
    """``phaselaw run`` of three replicates in real time, by a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.run, study_file = folder / "run", folder / "study.yaml"
        study_file.write_text(json.dumps(STUDY))
        self.asked = load_study(str(study_file))
        self.process = self._begun(study_file, "--out", self.run)

    def _begun(self, *words: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "phaselaw", "run", *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def child(self) -> psutil.Process:
        [child] = psutil.Process(self.process.pid).children()
        return child

    def after(self, calls: int) -> psutil.Process:
        """Wait until so many calls are kept; the process that makes the next one."""
        until(lambda: len(made(self.run)) >= calls or self.process.poll() is not None)
        return self.child()

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=300)
        return self.process.returncode, said

    def resumed(self) -> tuple[int, str]:
        """Go on to the end."""
        self.process = self._begun("--resume", self.run)
        return self.end()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    begun = Running(tmp_path)
    yield begun
    begun.process.kill()
    begun.process.communicate()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_kill_in_the_second_replicate_leaves_no_child_and_a_resume_makes_each_call_once(running: Running) -> None:
    first = running.after(1)
    second = running.after(CALLS + 2)
    assert first.pid != second.pid and is_gone(first)
    running.process.kill()
    running.end()
    until(lambda: is_gone(second))
    before = (running.run / JOURNAL).read_bytes()
    time.sleep(0.3)
    assert (running.run / JOURNAL).read_bytes() == before, "nobody writes any more"
    code, said = running.resumed()
    assert code == 0, said
    assert made(running.run) == planned(running.asked)
    parts = {(call.replicate, call.process_idx) for call in journal(running.run).calls}
    assert parts == {(0, 0), (1, 1), (1, 2), (2, 3)}
    assert json.loads((running.run / "manifest.json").read_text())["resumed_replicates"] == [1]
    resumed, simulated = runs.load(running.run).notes
    assert resumed == f"{running.run}: replicates resumed by a further process: 1" and "SIMULATED" in simulated


def test_a_child_that_is_killed_ends_the_run_with_one_line_that_says_how_to_go_on(running: Running) -> None:
    running.after(CALLS + 1).kill()
    code, said = running.end()
    assert code == 1
    assert "the process of replicate 1 ended with exit code -9; go on with --resume" in said
    assert "Traceback" not in said
    assert json.loads((running.run / "manifest.json").read_text())["status"] == "interrupted"
    assert made(running.run) == planned(running.asked)[: CALLS + 1]


def test_ctrl_c_in_a_terminal_lets_the_current_call_end_and_a_second_one_does_not(running: Running) -> None:
    child = running.after(3)
    assert os.getpgid(child.pid) != os.getpgid(running.process.pid), "a terminal's Ctrl-C is for the parent alone"
    running.process.send_signal(signal.SIGINT)
    code, _ = running.end()
    assert code == 130 and is_gone(child)
    assert 3 < len(made(running.run)) <= 5
    assert made(running.run) == planned(running.asked)[: len(made(running.run))]
