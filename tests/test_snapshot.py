"""Figures, words and exit codes of runs that never change are what they were (tests/support/snapshot.py)."""

import json
from pathlib import Path

import pytest
import snapshot


@pytest.mark.slow
@pytest.mark.timeout(600)  # many commands in one test
def test_no_figure_no_word_and_no_exit_code_has_moved(tmp_path: Path) -> None:
    kept = json.loads(snapshot.KEPT.read_text())
    if not (snapshot.REFERENCE / "tr121" / "primary_run").is_dir():
        kept = {name: facts for name, facts in kept.items() if not name.startswith("tr121")}
    assert snapshot.differences(kept, snapshot.taken(tmp_path)) == []
