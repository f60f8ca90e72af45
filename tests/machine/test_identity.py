"""What the host is: enough to tell two machines apart, and nothing that must stay private."""

import json
import subprocess
from pathlib import Path

import pytest

from phaselaw.machine import identity as telemetry


def test_the_host_is_plain_json_with_each_part_of_its_identity() -> None:
    host = telemetry.host()
    assert json.loads(json.dumps(host)) == host
    assert set(telemetry.IDENTITY) <= set(host)
    assert host["cores_logical"] >= 1
    assert host["memory_bytes"] > 2**28
    assert {"numpy", "polars", "scipy"} <= set(host["libraries"])


def test_a_host_is_itself_from_one_process_to_the_next() -> None:
    assert telemetry.host_differences(json.loads(json.dumps(telemetry.host())), telemetry.host()) == []


@pytest.mark.parametrize("part", telemetry.IDENTITY)
def test_each_part_of_the_identity_counts_and_is_named(part: str) -> None:
    host = telemetry.host()
    [line] = telemetry.host_differences(host, host | {part: "other"})
    assert line.startswith(f"{part}: ")
    assert "'other'" in line


@pytest.mark.parametrize("part", ["memory_bytes", "load_average"])
def test_what_changes_by_itself_is_no_difference(part: str) -> None:
    host = telemetry.host()
    assert telemetry.host_differences(host, host | {part: 0}) == []


def test_no_variable_of_the_environment_is_taken_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASELAW_TEST_SECRET", "kx-0123456789")
    assert "kx-0123456789" not in json.dumps(telemetry.host())


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts programs of our own first on the path, by name and script."""

    def put(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def test_gpus_are_named_as_the_driver_names_them(program) -> None:
    program("nvidia-smi", "echo 'NVIDIA H200, 570.1, 143771 MiB'; echo 'NVIDIA H200, 570.1, 143771 MiB'")
    one = {"name": "NVIDIA H200", "driver": "570.1", "memory": "143771 MiB"}
    assert telemetry.host()["gpus"] == [one, one]


@pytest.mark.parametrize("script", ["exit 9", "echo 'no driver' >&2; exit 1"])
def test_a_driver_that_fails_means_no_gpu(program, script: str) -> None:
    program("nvidia-smi", script)
    assert telemetry.host()["gpus"] == []


def test_caches_are_read_as_macos_tells_them(program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry.platform, "system", lambda: "Darwin")
    program("sysctl", 'case "$2" in hw.l1dcachesize) echo 65536;; hw.l2cachesize) echo 4194304;; *) exit 1;; esac')
    assert telemetry.host()["caches"] == [{"level": 1, "bytes": 65536}, {"level": 2, "bytes": 4194304}]


OURS = {"host": {"gpus": [{"name": "g", "driver": "1", "memory": "8192 MiB"}]}}
TR121S = {"nvml": {"name": "g", "memory_total_mb": 8192.0}}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (OURS, [("g", 8192.0)]), (TR121S, [("g", 8192.0)]), ({"host": {"gpus": "none"}, "nvml": "?"}, []), ({}, []),
        ({"host": {"gpus": []}}, []), ({"nvml": {"name": "g"}}, [("g", None)]),
    ],
)  # fmt: skip
def test_gpus_are_read_from_manifests_of_ours_and_tr121s(manifest: dict, expected: list) -> None:
    assert telemetry.gpus_of(manifest) == expected


def test_the_commit_is_that_of_the_repository_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert telemetry.git_commit() is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert telemetry.git_commit() is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = telemetry.git_commit()
    assert commit is not None
    assert len(commit) == 40


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert telemetry.git_commit() is None
