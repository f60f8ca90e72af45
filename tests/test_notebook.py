"""The notebook in the docs runs as it stands, in order, and shows what really comes out."""

import json
import re
from pathlib import Path

import pytest
from notebook import outputs, stored

NOTEBOOK = Path(__file__).parent.parent / "docs" / "phaselaw.ipynb"
NUMBER = re.compile(r"\d[\d,]*\.\d+")


def words_and_numbers(texts: list[str]) -> tuple[list[str], list[float]]:
    """The texts without the numbers that have a fraction and without what lays tables out, and these numbers."""
    numbers = [float(found.replace(",", "")) for text in texts for found in NUMBER.findall(text)]
    return [" ".join(re.sub(r"[─═┌┐└┘┬┴┼╪╞╡]+", "", NUMBER.sub("", text)).split()) for text in texts], numbers


def test_the_notebook_runs_and_shows_what_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    found = outputs(document)
    assert sum(bool(text) for text in found) >= 7
    words, numbers = words_and_numbers(found)
    shown, shown_numbers = words_and_numbers(stored(document))
    again = "run: python tests/support/notebook.py docs/phaselaw.ipynb"
    assert words == shown, again
    # Another processor or another version of a library may round otherwise.
    assert numbers == pytest.approx(shown_numbers, rel=0.02), again
