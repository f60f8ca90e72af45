"""The summary a person sees when a run ends: laws, regimes, cold start, in a screenful."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from phaselaw.report import claims, validity
from phaselaw.report.document import Bullets, Document, Paragraph, Section, Table


def print_summary(document: Document, console: Console) -> None:
    """Print the lead, the first table of each of the first two sections, and in short what the checks found."""
    for sentence in document.lead:
        console.print(sentence, markup=False, soft_wrap=True)
        console.print()
    # Claims have their evidence in sentences: too wide for a screenful.
    for section in [each for each in document.sections if each.title != claims.TITLE][:2]:
        for block in section.blocks:
            if isinstance(block, Table):
                print_table(block, console)
                break
    for table in filter(None, map(validity.brief, document.sections)):
        print_table(table, console)


def print_section(section: Section, console: Console, *, titled: bool) -> None:
    """Print a section's tables and paragraphs, under its title where there are several."""
    if titled:
        console.print(section.title, style="bold", markup=False)
    several = sum(isinstance(block, Table) for block in section.blocks) > 1
    for block in section.blocks:
        if isinstance(block, Table):
            if several:
                console.print(block.caption, markup=False, soft_wrap=True)
            print_table(block, console)
        elif isinstance(block, Paragraph):
            console.print(block.text, markup=False, soft_wrap=True)
        elif isinstance(block, Bullets):
            for item in block.items:
                console.print(f"- {item}", markup=False, soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Print a table of a report in columns, nothing of it taken for markup."""
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        shown.add_column(column.title, justify="right" if column.provenance else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(_plain(column.show(row)) for column in table.columns))
    console.print(shown)
    console.print()


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
