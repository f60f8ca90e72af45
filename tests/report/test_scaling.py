"""Scaling plots of a run that has very many: fewer are drawn, and the report says where the others are."""

from pathlib import Path

import pytest

from phaselaw.cli import main
from phaselaw.report import scaling


def drawn(run: Path, out: Path) -> tuple[list[str], str]:
    """The scaling plots of a run's report, and its text."""
    assert main(["report", str(run), "--out", str(out)]) == 0
    names = sorted(path.stem for path in (out / "analysis" / "plots").glob("sc*.svg"))
    return names, (out / "report.md").read_text()


def test_few_panels_are_all_drawn(hostile_run: Path) -> None:
    names = sorted(path.stem for path in (hostile_run / "analysis" / "plots").glob("sc*.svg"))
    assert names == ["scaling-sim", "scenarios-sim-decode", "scenarios-sim-end-to-end", "scenarios-sim-prefill"]
    assert "Drawn are" not in (hostile_run / "report.md").read_text()


def test_of_many_panels_end_to_end_alone_is_drawn_and_the_others_are_named(
    hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_MOST_PANELS", 2)
    names, text = drawn(hostile_run, tmp_path)
    assert names == ["scaling-sim", "scenarios-sim-end-to-end"]
    said = "Drawn are end-to-end latencies alone. Prefill and decode stand in the tables and in analysis/scaling"
    assert text.replace("\\", "").count(said) == 2
