"""docs/predict-and-compare.md: its commands run in order, exit as it says, and print what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from phaselaw.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "predict-and-compare.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|text)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    printed, shown = "", 0
    for kind, body in BLOCKS:
        if kind == "text":
            for line in body.splitlines():
                assert plain(line) in printed
                shown += 1
            continue
        for line in body.splitlines():
            words = shlex.split(line, comments=True)
            expected = int(line.partition("# exit ")[2] or 0)
            assert words[0] == "phaselaw"
            assert main(words[1:]) == expected, line
        printed = plain(capsys.readouterr().out)
    assert shown >= 6
