"""A report as Markdown, tables and all; texts from outside can't become markup."""

import re
from pathlib import PurePosixPath

from phaselaw.report.document import Block, Code, Document, Table, Words, escape_controls

PLOTS = PurePosixPath("analysis/plots")
"""Where a report's plots lie, seen from it."""

_MARKUP = re.compile(r"[\\`*\[<>|~$&@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)//|(?<=www)\.", re.IGNORECASE)
"""What Markdown, GitHub's formulas and its automatic links would take for markup."""
_LINE_START = re.compile(r"^(?:(?=[-+=#])|(\d+)(?=[.)]))")


def to_markdown(document: Document) -> str:
    """The document as GitHub-flavoured Markdown; its plots are files in `PLOTS`."""
    front = document.front
    figures = tuple(f"{each.title}: {each.value} ({each.interval})" for each in front.figures)
    blocks: list[Block] = [*front.notices, front.answer, front.load, f"Trust: {front.trust}.", figures, *front.pictures]
    parts = [f"# {escaped(document.title)}", f"*{escaped(document.name)}*", *map(_block, blocks)]
    for chapter in document.chapters:
        picture = [_block(chapter.picture)] if chapter.picture else []
        parts += [f"## {escaped(chapter.title)}", _line(chapter.said), *picture]
        for section in chapter.sections:
            parts.append(f"### {escaped(section.title)}")
            parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(escape_controls(text).split()))


def _line(text: str) -> str:
    """A text at the beginning of a line, where more than elsewhere is markup."""
    return _LINE_START.sub(r"\1\\", escaped(text))


def _block(block: Block) -> str:
    if isinstance(block, str):
        return _line(block)
    if isinstance(block, tuple):
        return "\n".join(f"- {_line(item)}" for item in block)
    if isinstance(block, Words):
        return "\n".join(f"- **{escaped(word)}**: {escaped(meaning)}" for word, meaning in block.meanings)
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
        return f"{fence}\n{escape_controls(block.text)}\n{fence}"
    if isinstance(block, Table):
        return _table(block)
    return f"![{escaped(block.caption)}]({PLOTS}/{block.name}.svg)\n\n*{escaped(block.caption)}*"


def _table(table: Table) -> str:
    if not table.rows:
        return f"{_line(table.caption)} (no rows)"
    sources = [f" ({column.provenance})" if column.provenance else "" for column in table.columns]
    lines = [
        [escaped(column.title) + source for column, source in zip(table.columns, sources, strict=True)],
        ["---:" if source else "---" for source in sources],
        *([escaped(column.text(row)) for column in table.columns] for row in table.rows),
    ]
    return f"{_line(table.caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
