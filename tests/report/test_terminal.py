"""The summary on a terminal: a screen of 80 columns and 30 lines, the same on a pipe, and names that would drive it."""

import dataclasses
import io
import re

from documents import document
from rich.console import Console

from phaselaw.report.document import Section, Table
from phaselaw.report.terminal import print_fitting, print_summary
from phaselaw.tables import DOUBT, derived, measured, words

ROWS = (
    {"n": "a\x1b[2Jb", "v": 1.5, "d": 2.5, "suspect": "far off the law"},
    {"n": "[red]c", "v": 2, "d": 3, "suspect": ""},
)
TABLE = Table(caption="", columns=(words("n", "name"), measured("v", "ms"), derived("d", "extra"), DOUBT), rows=ROWS)


def printed(*blocks, terminal: bool = False) -> str:
    out = io.StringIO()
    shown = dataclasses.replace(document(), summary=blocks)
    print_summary(shown, Console(file=out, width=200, force_terminal=terminal, no_color=True, highlight=False))
    return out.getvalue()


def test_lines_fit_80_columns_on_a_terminal_and_on_a_pipe() -> None:
    for terminal in (False, True):
        text = printed("word " * 60, TABLE, terminal=terminal).replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert max(map(len, text.splitlines())) <= 80 and text.count("word") == 60


def test_of_long_tables_the_first_rows_are_shown_and_every_sentence() -> None:
    long = dataclasses.replace(TABLE, rows=ROWS * 50)
    text = printed("answer", long, long, "trust")
    assert len(text.splitlines()) <= 29
    assert text.startswith("answer") and text.endswith("trust\n") and text.count("⚠") >= 5
    shown = re.search(r"The first (\d+) of 100 rows; all: the report\.", text)
    assert shown is not None and text.count("far off") == 2 * ((int(shown[1]) + 1) // 2)


def test_a_suspect_row_says_that_it_is_suspect() -> None:
    assert "⚠ far off the" in printed(TABLE)  # words of a table wrap
    wide = dataclasses.replace(
        TABLE, columns=(words("n", "name" * 10), *TABLE.columns[1:3], words("w", "w" * 20), DOUBT)
    )
    assert "⚠" in printed(wide) and "far off" not in printed(wide)


def test_columns_that_a_plan_leaves_out_are_named() -> None:
    left_out = (words(each, each * 60, of_row=str) for each in "ef")
    wide = dataclasses.replace(TABLE, columns=(*TABLE.columns[:3], *left_out))
    for of, told in ((TABLE, ""), (wide, f"Left out for want of room (--wide): {'e' * 60}; {'f' * 60}.")):
        out = io.StringIO()
        print_fitting(Section(title="", blocks=(of,)), Console(file=out, width=200))
        assert " ".join(out.getvalue().partition("Left")[2].split()) == told.removeprefix("Left").strip()


def test_what_is_the_same_in_each_row_is_told_once_where_the_table_is_too_wide() -> None:
    wide = dataclasses.replace(TABLE, columns=(words("w", "where"), words("v", "v" * 40), *TABLE.columns[1:3]))
    wide = dataclasses.replace(wide, rows=tuple({**row, "w": "host " * 3 + "h" * 40} for row in ROWS))
    for width in (80, 200):
        out = io.StringIO()
        print_fitting(Section(title="", blocks=(wide,)), Console(file=out, width=width), as_wide=True)
        assert max(map(len, out.getvalue().splitlines())) <= width
        assert ("In each row: where host" in out.getvalue()) == (width == 80)


def test_no_line_ends_in_blanks() -> None:
    out = io.StringIO()
    for terminal in (False, True):
        console = Console(file=out, width=80, force_terminal=terminal, no_color=True)
        print_fitting(Section(title="t", blocks=("word " * 60, TABLE)), console)
    for line in out.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines():
        assert line == line.rstrip()


def test_names_obey_nobody() -> None:
    text = printed(TABLE, terminal=True)
    assert "a<U+001B>[2Jb" in text and "[red]c" in text
    assert "\x1b[2J" not in text
