"""What else the machine does: whose CPU time is whose, what is not known, and the wait for a quiet machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from phaselaw.errors import NotReadyError
from phaselaw.machine import neighbours
from phaselaw.machine.neighbours import Neighbours
from phaselaw.measure import begin
from phaselaw.records import Beside
from phaselaw.study.file import load_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what other processes do")

SERVER = """
import os, socket, time
server = socket.create_server(("127.0.0.1", 0))
runner = os.fork()  # whose the work is, as with Ollama
print(runner, server.getsockname()[1], flush=True) if runner else None
if runner:
    time.sleep(60)
while time.process_time() < 20:
    pass
"""


@pytest.fixture
def busy_server() -> Iterator[int]:
    """The port of a server whose child takes a processor, no longer than a test needs it."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        runner, port = map(int, process.stdout.readline().split())
        yield port
        os.kill(runner, 9)
        process.kill()


def watched(backend: str, url: str | None) -> Beside:
    beside = Neighbours()
    beside.serves(backend, url)
    beside.before(backend)
    time.sleep(0.3)
    found = beside.after(backend)
    assert found is not None
    return found


def test_the_processors_time_is_all_accounted_for() -> None:
    found = watched("b", None)
    parts = [found.own_cpus, found.other_cpus, found.idle_cpus, found.steal_cpus]
    assert sum(part or 0.0 for part in parts) == pytest.approx(Neighbours().processors, rel=0.1)
    assert found.involuntary_switches is not None and found.load_average is not None


def test_what_a_local_server_and_its_children_take_is_no_other_work(busy_server: int, monkeypatch) -> None:
    # As if the server were no child of ours.
    monkeypatch.setattr(neighbours.os, "getpid", lambda: 2**22 + 1)
    ours = watched("srv", f"http://127.0.0.1:{busy_server}/v1")
    others = watched("srv", "http://192.0.2.1:11434")
    assert ours.own_cpus is not None and others.own_cpus is not None
    assert ours.own_cpus > 0.1 > others.own_cpus


@pytest.mark.usefixtures("busy_server")
def test_what_a_server_that_we_started_takes_is_ours() -> None:
    own = watched("srv", None).own_cpus
    assert own is not None and own > 0.1


def test_of_a_local_server_that_cant_be_found_it_is_not_known_whose_work_is_whose() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = watched("srv", f"http://localhost:{port}")
    assert (found.own_cpus, found.other_cpus) == (None, None)
    assert found.idle_cpus is not None


def waits(monkeypatch, *states: str | None) -> list[str]:
    """The lines told while a machine in these states, one after the other, is waited for."""
    watches = iter(states)
    monkeypatch.setattr(neighbours, "busy_words", lambda: next(watches))
    monkeypatch.setattr(neighbours, "time", SimpleNamespace(monotonic=iter(range(1000)).__next__))
    lines: list[str] = []
    begin.begin_quietly(load_study("gpt2-ladder-cpu"), wait_s=30.0, tell=lines.append)
    assert next(watches, "all looked at") == "all looked at"
    return lines


def test_a_run_waits_until_the_machine_has_been_quiet_for_a_while(monkeypatch) -> None:
    lines = waits(monkeypatch, "others take 2.0", None, None, "others take 0.5", *[None] * neighbours.QUIET_WATCHES)
    assert lines[0] == "waiting for a quiet machine: others take 2.0"


def test_a_run_gives_up_waiting_when_it_was_told_to(monkeypatch) -> None:
    with pytest.raises(NotReadyError, match=r"after 30 s others take 2\.0; nothing was measured"):
        waits(monkeypatch, *["others take 2.0"] * 40)


def test_a_run_warns_of_a_busy_machine_and_says_nothing_of_a_quiet_one(monkeypatch) -> None:
    for state, told in (("others take 2.0", 1), (None, 0)):
        monkeypatch.setattr(begin, "busy_words", lambda state=state: state)
        lines: list[str] = []
        measures = begin.begin_quietly(load_study("gpt2-ladder-cpu"), wait_s=None, tell=lines.append)
        assert (len(lines), measures) == (told, not told)
        assert all("others take 2.0" in line and "--wait-quiet" in line for line in lines)
