"""A report as Markdown, tables and all; texts from outside can't become markup."""

from __future__ import annotations

import re

from phaselaw.report.document import Block, Bullets, Code, Document, Figure, Paragraph, Table

PLOTS = "analysis/plots"
"""Where a report's plots lie, seen from it."""

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")
_LINE_START = re.compile(r"^(\d+)([.)])|^([-+=])")
_NUMERIC_PROVENANCE = ("measured", "derived", "extrapolated", "assumed")


def to_markdown(document: Document) -> str:
    """The document as GitHub-flavoured Markdown; its plots are files in `PLOTS`."""
    parts = [f"# {escaped(document.title)}", *(escaped(sentence) for sentence in document.lead)]
    for section in document.sections:
        parts.append(f"## {escaped(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    flat = " ".join(text.split())
    safe = _MARKUP.sub(r"\\\1", flat)
    return _LINE_START.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else f"\\{found[3]}", safe)


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return escaped(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {escaped(item)}" for item in block.items)
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
        return f"{fence}\n{block.text}\n{fence}"
    if isinstance(block, Figure):
        return f"![{escaped(block.plot.alt)}]({PLOTS}/{block.plot.name}.svg)\n\n*{escaped(block.caption)}*"
    return _table(block)


def _table(table: Table) -> str:
    if not table.rows:
        return f"{escaped(table.caption)} (no rows)"
    titles = " | ".join(escaped(column.title) for column in table.columns)
    rules = " | ".join("---:" if column.provenance else "---" for column in table.columns)
    lines = [f"| {titles} |", f"| {rules} |"]
    lines += ["| " + " | ".join(escaped(column.show(row)) for column in table.columns) + " |" for row in table.rows]
    return f"{escaped(table.caption)} {_sources(table)}\n\n" + "\n".join(lines)


def _sources(table: Table) -> str:
    """Where the table's numbers are from, the columns named."""
    words = []
    for provenance in _NUMERIC_PROVENANCE:
        titles = dict.fromkeys(column.title for column in table.columns if column.provenance == provenance)
        if titles:
            words.append(f"{provenance}: {', '.join(escaped(title) for title in titles if title)}")
    return f"({'; '.join(words)})" if words else ""
