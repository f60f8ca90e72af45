"""The notebook in the docs runs as it stands, in order, and shows what really comes out."""

import json
from pathlib import Path

import pytest
from notebook import outputs, stored

NOTEBOOK = Path(__file__).parent.parent / "docs" / "phaselaw.ipynb"


def test_the_notebook_runs_and_shows_what_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    found = outputs(document)
    assert sum(bool(text) for text in found) >= 7
    assert found == stored(document), "run: python tests/support/notebook.py docs/phaselaw.ipynb"
