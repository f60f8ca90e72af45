"""A report as Markdown, tables and all; texts from outside can't become markup."""

from __future__ import annotations

import re

from phaselaw.report.document import Block, Bullets, Code, Document, Figure, Paragraph, Table, escape_controls
from phaselaw.tables import Col

PLOTS = "analysis/plots"
"""Where a report's plots lie, seen from it."""

_MARKUP = re.compile(r"[\\`*\[<>|~$&@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)//|(?<=www)\.", re.IGNORECASE)
"""What Markdown, GitHub's formulas and its automatic links would take for markup."""
_LINE_START = re.compile(r"^(?:[-+=#]|\d+(?=[.)]))")


def to_markdown(document: Document) -> str:
    """The document as GitHub-flavoured Markdown; its plots are files in `PLOTS`."""
    parts = [f"# {escaped(document.title)}", *(_line(sentence) for sentence in document.lead)]
    for section in document.sections:
        parts.append(f"## {escaped(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(escape_controls(text).split()))


def _line(text: str) -> str:
    """A text at the beginning of a line, where more than elsewhere is markup."""
    safe = escaped(text)
    start = _LINE_START.match(safe)
    if start is None:
        return safe
    at = 0 if not start[0].isdigit() else start.end()
    return f"{safe[:at]}\\{safe[at:]}"


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return _line(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_line(item)}" for item in block.items)
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
        return f"{fence}\n{escape_controls(block.text)}\n{fence}"
    if isinstance(block, Figure):
        return f"![{escaped(block.plot.alt)}]({PLOTS}/{block.plot.name}.svg)\n\n*{escaped(block.caption)}*"
    return _table(block)


def _table(table: Table) -> str:
    if not table.rows:
        return f"{_line(table.caption)} (no rows)"
    titles = " | ".join(_heading(column) for column in table.columns)
    rules = " | ".join("---:" if column.provenance else "---" for column in table.columns)
    lines = [f"| {titles} |", f"| {rules} |"]
    lines += ["| " + " | ".join(escaped(column.text(row)) for column in table.columns) + " |" for row in table.rows]
    return f"{_line(table.caption)}\n\n" + "\n".join(lines)


def _heading(column: Col) -> str:
    """A column's title, and where its numbers are from."""
    return escaped(column.title) + (f" ({column.provenance})" if column.provenance else "")
