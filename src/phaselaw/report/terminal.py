"""The summary a person sees when a run ends: laws, regimes, cold start, in a screenful."""

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from phaselaw.report.document import IN_BRACKETS, Block, Document, Section, Table, escape_controls
from phaselaw.tables import SUSPECT, Col, Row

MOST_LINES = 29
"""Lines of a run's summary: a screen has room for it, for the command, and for where the report is."""


def print_summary(document: Document, console: Console) -> None:
    """Print what a screen of 80 columns and 30 lines can hold: where tables are too long, their first rows."""
    text = ""
    for most in range(MOST_LINES, 0, -1):
        blocks: list[Block] = []
        for block in document.summary:
            blocks.append(_fitting(replace(block, rows=block.rows[:most])) if isinstance(block, Table) else block)
            if isinstance(block, Table) and len(block.rows) > most:
                blocks.append(f"The first {most} of {len(block.rows)} rows; all: the report.")
        text = _printed(Section(title="", blocks=tuple(blocks)), console, _AT_MOST).rstrip()
        if text.count("\n") < MOST_LINES:
            break
    console.file.write(f"{text}\n")


def _printed(section: Section, console: Console, width: int) -> str:
    """What a section is on this console, in lines of so many characters; no line ends in blanks."""
    out = io.StringIO()
    inner = Console(file=out, width=width, highlight=False, force_terminal=console.is_terminal)
    if section.title:
        inner.print(escape_controls(section.title), style="bold", markup=False)
    several = sum(isinstance(block, Table) for block in section.blocks) > 1
    for block in section.blocks:
        lines = [f"- {item}" for item in block] if isinstance(block, tuple) else [block]
        if isinstance(block, Table):
            lines = [block.caption] if several and block.caption else []
        for line in lines:
            if isinstance(line, str):
                inner.print(escape_controls(line), markup=False)
        if isinstance(block, Table):
            _print_table(block, inner)
    return re.sub(r" +((?:\x1b\[0m)?)$", r"\1", out.getvalue(), flags=re.MULTILINE)


_AT_MOST, WIDEST = 80, 10_000
"""Characters of a line of a plan, and where all of it is asked for."""


def print_fitting(section: Section, console: Console, *, as_wide: bool = False) -> None:
    """Print a section in lines of 80 characters, the same on a terminal and on a pipe; or ``as_wide`` as a terminal is.

    Where a table is too wide, checks' names behind a suspect mark give way first, then brackets, the last column's
    before the others', then the last columns, which are named. Before all of these, in a section ``as_wide``, columns
    give way that say the same in each row, which is told below.
    """
    width = max(_AT_MOST, console.width) if as_wide else _AT_MOST
    more = "a wider terminal or --json has it" if as_wide else "--wide"
    blocks: list[Block] = []
    for block in section.blocks:
        fitted = _fitting(block, width, as_wide) if isinstance(block, Table) else block
        blocks.append(fitted)
        if isinstance(fitted, Table) and isinstance(block, Table):
            kept = {column.key for column in fitted.columns}
            gone = [column for column in block.columns if column.key not in kept]
            same = [f"{each.title} {each.text(block.rows[0])}" for each in gone if _alike(each, block.rows)]
            others = [each.title for each in gone if not _alike(each, block.rows)]
            blocks += [f"In each row: {'; '.join(map(str.strip, same))}."] if same else []
            blocks += [f"Left out for want of room ({more}): {'; '.join(others)}."] if others else []
    cells = (col.text(row) for each in blocks if isinstance(each, Table) for col in each.columns for row in each.rows)
    if not any(re.search(_BRACKETS, cell) for cell in cells):
        blocks = [block.replace(IN_BRACKETS, _HIDDEN) if isinstance(block, str) else block for block in blocks]
    console.file.write(_printed(replace(section, blocks=tuple(blocks)), console, width))


def _fitting(table: Table, at_most: int = _AT_MOST, told_below: bool = False) -> Table:
    """The table as it fits into a line; nothing of a figure, a status or a mark is cut."""

    def width(columns: Sequence[Col]) -> int:
        return sum(_needs(column, table.rows) + 2 for column in columns) - 2

    columns = list(table.columns)
    for each in table.columns if told_below else ():
        if width(columns) > at_most and _alike(each, table.rows):
            columns.remove(each)
    if width(columns) > at_most:
        bare = (replace(_replaced(each, "(?<=⚠).*", ""), title="") if each.key == SUSPECT else each for each in columns)
        columns = list(bare)
    for at in reversed(range(len(columns))):
        if width(columns) > at_most and columns[at].provenance:
            columns[at] = _replaced(columns[at], _BRACKETS, "")
    while width(columns) > at_most and len(columns) > 3:
        del columns[-2 if columns[-1].key == SUSPECT else -1]
    return replace(table, columns=tuple(columns))


def _alike(column: Col, rows: Sequence[Row]) -> bool:
    """Whether several rows all say the same in a column."""
    return len(rows) > 1 and len({column.text(row) for row in rows}) == 1


def _needs(column: Col, rows: Sequence[Row]) -> int:
    """Characters that a column needs: of its longest value, or of the longest word of its title; sentences wrap."""
    texts = [escape_controls(column.text(row)) for row in rows]
    if not column.provenance:
        texts = [part for text in texts for part in textwrap.wrap(text, 16, break_long_words=False)]
    return max(map(len, [*column.title.split(), *texts]), default=0)


_BRACKETS = r" [\[(].*[\])]"
_HIDDEN = "With --wide in brackets, with 95 % confidence:"


def _replaced(column: Col, pattern: str, by: str) -> Col:
    """The column with something in its words replaced."""
    return replace(column, of_row=lambda row: re.sub(pattern, by, column.text(row)))


def _print_table(table: Table, console: Console) -> None:
    """Print a table in columns, nothing of it taken for markup, each just as wide as it needs."""
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    cells = [[escape_controls(column.text(row)) for row in table.rows] for column in table.columns]
    whole = [max(map(len, [*of.title.split(), *texts])) for of, texts in zip(table.columns, cells, strict=True)]
    fits = sum(whole) + 2 * len(whole) - 2 <= console.width
    for column, width in zip(table.columns, whole, strict=True):
        needs = width if fits else _needs(column, table.rows)
        right = column.provenance is not None
        shown.add_column(Text(column.title), justify="right" if right else "left", overflow="fold", width=needs)
    for row in zip(*cells, strict=True):
        shown.add_row(*(Text(text) for text in row))
    console.print(shown)
    console.print()
