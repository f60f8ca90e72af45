"""The summary on a terminal: wide, narrow, piped, and with names that would drive it."""

import io

from rich.console import Console

from phaselaw.report.document import Document, Section, Table
from phaselaw.report.terminal import print_summary
from phaselaw.tables import DOUBT, derived, measured, words

ROWS = (
    {"n": "a\x1b[2Jb", "v": 1.5, "d": 2.5, "suspect": "far off the law"},
    {"n": "[red]c", "v": 2, "d": 3, "suspect": ""},
)
TABLE = Table(
    caption="C", columns=(words("n", "name"), measured("v", "ms"), derived("d", "extra", detail=True), DOUBT), rows=ROWS
)
DOCUMENT = Document(title="T", lead=("word " * 60,), sections=(Section(title="S", blocks=(TABLE,)),))


def printed(width: int, *, terminal: bool = False) -> str:
    out = io.StringIO()
    print_summary(DOCUMENT, Console(file=out, width=width, force_terminal=terminal, no_color=True, highlight=False))
    return out.getvalue()


def test_a_wide_one_shows_details_and_reasons() -> None:
    text = printed(160)
    assert "extra" in text and "2.50" in text and "⚠ far off the law" in text


def test_a_narrow_one_shows_what_decides_and_that_a_row_is_suspect() -> None:
    text = printed(80)
    assert "extra" not in text and "far off" not in text and "⚠" in text


def test_names_obey_nobody() -> None:
    text = printed(160, terminal=True)
    assert "a<U+001B>[2Jb" in text and "[red]c" in text
    assert "\x1b[2J" not in text


def test_a_pipe_gets_whole_sentences_and_a_person_lines_that_fit() -> None:
    assert max(map(len, printed(80).splitlines())) > 250
    assert max(map(len, printed(80, terminal=True).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())) <= 80
