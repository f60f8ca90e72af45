"""The summary a person sees when a run ends: laws, regimes, cold start, in a screenful."""

import dataclasses
import io
import re
import textwrap
from collections.abc import Sequence

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
        out = io.StringIO()
        narrow = Console(file=out, width=_AT_MOST, highlight=False, force_terminal=console.is_terminal)
        blocks = (
            _fitting(dataclasses.replace(block, rows=block.rows[:most])) if isinstance(block, Table) else block
            for block in document.summary
        )
        print_section(Section(title="", blocks=tuple(blocks)), narrow, wrapped=True)
        text = out.getvalue().rstrip()
        if text.count("\n") < MOST_LINES:
            break
    console.file.write(f"{text}\n")


def print_section(section: Section, console: Console, *, wrapped: bool = False) -> None:
    """Print a section's tables and paragraphs, under its title if it has one; lines ``wrapped`` if asked."""
    if section.title:
        console.print(escape_controls(section.title), style="bold", markup=False)
    several = sum(isinstance(block, Table) for block in section.blocks) > 1
    for block in section.blocks:
        lines = [f"- {item}" for item in block] if isinstance(block, tuple) else [block]
        if isinstance(block, Table):
            lines = [block.caption] if several and block.caption else []
        for line in lines:
            if isinstance(line, str):
                console.print(escape_controls(line), markup=False, soft_wrap=not wrapped)
        if isinstance(block, Table):
            print_table(block, console, exact=wrapped)


_AT_MOST = 80
"""Characters of a line of a plan, unless all of it is asked for."""


def print_fitting(section: Section, console: Console) -> None:
    """Print a section in lines of 80 characters, the same on a terminal and on a pipe.

    Where a table is too wide, checks' names behind a suspect mark give way first, then brackets, the last column's
    before the others', then the last columns, which are named.
    """
    blocks: list[Block] = []
    for block in section.blocks:
        fitted = _fitting(block) if isinstance(block, Table) else block
        blocks.append(fitted)
        if isinstance(fitted, Table) and isinstance(block, Table) and len(fitted.columns) < len(block.columns):
            kept = {column.key for column in fitted.columns}
            left_out = "; ".join(column.title for column in block.columns if column.key not in kept)
            blocks.append(f"Left out for want of room (--wide): {left_out}.")
    cells = (col.text(row) for each in blocks if isinstance(each, Table) for col in each.columns for row in each.rows)
    if not any(re.search(_BRACKETS, cell) for cell in cells):
        blocks = [block.replace(IN_BRACKETS, _HIDDEN) if isinstance(block, str) else block for block in blocks]
    narrow = Console(file=console.file, width=_AT_MOST, highlight=False, force_terminal=console.is_terminal)
    print_section(dataclasses.replace(section, blocks=tuple(blocks)), narrow, wrapped=True)


def _fitting(table: Table) -> Table:
    """The table as it fits into a line; nothing of a figure, a status or a mark is cut."""

    def width(columns: Sequence[Col]) -> int:
        return sum(_needs(column, table.rows) + 2 for column in columns) - 2

    columns = list(table.columns)
    if width(columns) > _AT_MOST:
        columns = [_replaced(each, "(?<=⚠).*", "") if each.key == SUSPECT else each for each in columns]
    for at in reversed(range(len(columns))):
        if width(columns) > _AT_MOST and columns[at].provenance:
            columns[at] = _replaced(columns[at], _BRACKETS, "")
    while width(columns) > _AT_MOST and len(columns) > 3:
        del columns[-2 if columns[-1].key == SUSPECT else -1]
    return dataclasses.replace(table, columns=tuple(columns))


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
    return dataclasses.replace(column, of_row=lambda row: re.sub(pattern, by, column.text(row)))


def print_table(table: Table, console: Console, *, exact: bool = False) -> None:
    """Print a table of a report in columns, nothing of it taken for markup.

    ``exact`` gives each column just what it needs.
    """
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    cells = [[escape_controls(column.text(row)) for row in table.rows] for column in table.columns]
    for column, texts in zip(table.columns, cells, strict=True):
        needs = _needs(column, table.rows) if exact else None
        if column.provenance:  # a number is not broken, its title may be
            shown.add_column(
                Text(column.title), justify="right", min_width=max(map(len, texts), default=0), width=needs
            )
        else:
            shown.add_column(Text(column.title), overflow="fold", width=needs)
    for row in zip(*cells, strict=True):
        shown.add_row(*(Text(text) for text in row))
    console.print(shown)
    console.print()
