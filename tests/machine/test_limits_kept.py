"""The limits of this machine: measured in a process of their own, kept for one machine, measured anew when asked."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from phaselaw.cli import main
from phaselaw.errors import NotReadyError
from phaselaw.machine import identity as telemetry
from phaselaw.machine import limits
from phaselaw.machine.limits import MachineLimits
from phaselaw.measure import begin


@pytest.fixture(scope="module")
def measured(measured_cache: Path) -> MachineLimits:
    """This machine, really measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHASELAW_CACHE", str(measured_cache))
        found = limits.kept_limits(telemetry.host())
    assert found is not None
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHASELAW_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def probes(measured: MachineLimits, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was asked of a stand-in for the probe, which gives back what was really measured."""
    asked: list[int] = []

    def probe(threads: int) -> MachineLimits:
        asked.append(threads)
        return measured

    monkeypatch.setattr(limits, "_measured", probe)
    return asked


def test_this_machine_is_measured_whole(measured: MachineLimits) -> None:
    cpu = measured.devices["cpu"]
    assert measured.threads == limits.all_threads()
    assert cpu.read[0].working_set_bytes == 4 << 20
    assert all(point.gb_per_s.median > 0.1 for point in cpu.read)
    assert (cpu.gflop_per_s("fp32") or 0) > 0.1
    assert 0 < measured.took_s < limits.LONGEST_S


def test_what_was_measured_is_kept_and_not_measured_twice(cache: Path, probes: list[int]) -> None:
    host = telemetry.host()
    assert limits.kept_limits(host) is None
    first = limits.limits_of(host)
    assert limits.limits_of(host) == limits.kept_limits(host) == first
    assert len(probes) == 1
    assert len(list((cache / "host").iterdir())) == 1


def test_it_is_measured_again_when_asked_for_other_threads_or_on_another_machine(
    cache: Path, probes: list[int]
) -> None:
    host = telemetry.host()
    limits.limits_of(host, threads=1)
    limits.limits_of(host, threads=2)
    limits.limits_of(host, threads=1, refresh=True)
    limits.limits_of(host | {"cpu_model": "another"}, threads=1)
    limits.limits_of(host | {"load_average": [9, 9, 9]}, threads=1)
    assert probes == [1, 2, 1, 1]
    assert len(list((cache / "host").iterdir())) == 3


def test_what_was_measured_on_a_busy_machine_is_told_and_neither_kept_nor_used(
    cache: Path, measured: MachineLimits, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    busy = replace(measured, clock=replace(measured.clock, taken_share=0.89))
    monkeypatch.setattr(limits, "_measured", lambda _: busy)
    host, told = telemetry.host(), list[str]()
    assert main(["host"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("IN DOUBT   not kept: others took 89% of the time while measuring (over 10%)\n")
    assert not (cache / "host").exists()
    limits._file(host, limits.all_threads()).parent.mkdir()
    limits._file(host, limits.all_threads()).write_text(json.dumps(asdict(busy)))  # by an earlier version
    assert limits.kept_limits(host) is None
    assert "limits" not in begin.host_of(True, tell=told.append)
    assert "limits are not kept: others" in told[0] and "latencies will stand without them" in told[0]
    monkeypatch.setattr(begin, "limits_of", None)  # is not called
    assert "limits" not in begin.host_of(False, tell=told.append)


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]"])
def test_a_damaged_file_is_measured_anew(content: str, cache: Path, probes: list[int]) -> None:
    host = telemetry.host()
    limits.limits_of(host)
    [path] = (cache / "host").iterdir()
    path.write_text(content)
    assert limits.limits_of(host) is not None
    assert len(probes) == 2
    assert json.loads(path.read_text())["version"]


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, probes: list[int], monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PHASELAW_CACHE", str(tmp_path / "file"))
    assert limits.limits_of(telemetry.host()) is not None
    assert len(probes) == 1


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: none left\n"), "MemoryError: none left"),
        (subprocess.CompletedProcess([], 0, "nonsense", ""), "exit code 0"),
    ],
)
def test_a_probe_that_fails_is_one_line(done, said: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(NotReadyError, match=said):
        limits.limits_of(telemetry.host())
    assert not (cache / "host").exists()
