"""``phaselaw host``, for people and for machines, and its place in a run's manifest."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from phaselaw.cli import main
from phaselaw.machine import identity as telemetry
from phaselaw.machine import limits
from phaselaw.machine.limits import MachineLimits


@pytest.fixture
def kept_here(measured_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of this machine are kept already."""
    monkeypatch.setenv("PHASELAW_CACHE", str(measured_cache))


@pytest.mark.usefixtures("kept_here")
def test_it_says_what_the_machine_is_and_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host"]) == 0
    out = capsys.readouterr().out
    for word in ("processor", "caches", "memory", "GPU", "4 MiB", "GB/s", "fp32", "GFLOP/s", "timer", "jitter"):
        assert word in out


@pytest.mark.usefixtures("kept_here")
def test_as_json_it_is_one_document_with_the_host_beside_its_limits(capsys) -> None:
    assert main(["host", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["host"]["cpu_model"] == telemetry.host()["cpu_model"]
    assert MachineLimits.from_json(document["limits"]) == limits.kept_limits(telemetry.host())


@pytest.mark.parametrize("threads", ["0", "-1", "x"])
def test_a_number_of_threads_that_is_none_is_a_usage_error(threads: str) -> None:
    assert main(["host", "--threads", threads]) == 2


def test_a_dry_run_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASELAW_CACHE", str(tmp_path))
    out = tmp_path / "run"
    assert main(["run", "--dry-run", "--models", "models/tiny-gpt2", "--out", str(out)]) == 0
    assert not (tmp_path / "host").exists()
    assert "limits" not in json.loads((out / "manifest.json").read_text())["host"]


@pytest.mark.usefixtures("kept_here")
def test_a_resume_is_not_upset_by_limits_that_were_not_there_before() -> None:
    with_limits = telemetry.host() | {"limits": asdict(limits.kept_limits(telemetry.host()))}
    assert telemetry.host_differences(telemetry.host(), with_limits) == []
