"""A report as one HTML page: no network, light and dark, sortable tables, plots whose points name themselves."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from importlib import resources

from phaselaw.report.document import Block, Code, Document, Figure, Table, escape_controls
from phaselaw.report.plots import pieces
from phaselaw.tables import MISSING, SUSPECT, Col, Row

_NAME_ON_ONE_LINE, _WORDS_ON_ONE_LINE = 30, 18
"""Characters of a name, and of several words, that a cell does not break."""
_SENTENCE = 60
"""Characters from which a cell of words is set as a sentence, in a column of its own width."""
_WIDE = 10
"""A table of more columns is set smaller, so that it fits the page."""


def to_html(document: Document) -> str:
    """The document as a page that stands alone; every text from outside is escaped."""
    files = resources.files("phaselaw.report")
    page, plots, script = (files.joinpath(name).read_text("utf-8") for name in ("page.css", "plots.css", "page.js"))
    # The page may run this script and no other, and may fetch nothing at all.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    title = _text(document.title)
    sections, contents = [], ""
    for at, section in enumerate(document.sections):
        heading, blocks = _text(section.title), "\n".join(map(_block, section.blocks))
        sections.append(
            f'<section id="s{at}" aria-labelledby="h{at}"><h2 id="h{at}">{heading}</h2>\n{blocks}</section>'
        )
        contents += f'<li><a href="#s{at}">{heading}</a></li>'
    first, rest = "".join(sections[:1]), "\n".join(sections[1:])  # what decides comes before the contents
    lead = "".join(f'<p class="lead">{_text(sentence)}</p>\n' for sentence in document.lead)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>\n{page}{plots}</style>\n</head>\n<body>\n'
        f'<a class="skip" href="#main">To the report</a>\n<header><h1>{title}</h1>\n{lead}</header>\n'
        f'<main id="main">\n{first}\n<nav aria-label="Contents"><ul>{contents}</ul></nav>\n{rest}\n'
        f'</main>\n<div id="tip" aria-hidden="true" hidden></div>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    if isinstance(block, tuple):
        return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in block) + "</ul>"
    if isinstance(block, Code):
        return f"<pre><code>{_text(block.text)}</code></pre>"
    if isinstance(block, Figure):
        panels = f'<div class="panels">{"".join(pieces(block.plot))}</div>'
        return f"<figure>{panels}<figcaption>{_text(block.caption)}</figcaption></figure>"
    return _table(block)


def _table(table: Table) -> str:
    caption = _text(table.caption)
    if not table.rows:
        return f"<p>{caption} (no rows)</p>"
    heads = []
    for column in table.columns:
        source = f'<span class="source">{column.provenance}</span>' if column.provenance else ""
        kind = ' class="n"' if column.provenance else ""
        heads.append(f'<th scope="col"{kind}><button type="button">{_text(column.title)}</button>{source}</th>')
    body = []
    for row in table.rows:
        marked = ' class="suspect"' if row.get(SUSPECT) else ""
        body.append(f"<tr{marked}>{''.join(_cell(column, row) for column in table.columns)}</tr>")
    rows = "\n".join(body)
    wide = ' class="wide"' if len(table.columns) > _WIDE else ""
    return (
        f'<div class="scroll"><table{wide}><caption>{caption}</caption><thead><tr>{"".join(heads)}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(column: Col, row: Row) -> str:
    """A cell. Its class is short, since a large run has tens of thousands; its heading's words come by the script."""
    shown, value, sort_by = column.text(row), row.get(column.key), ""
    kind = "n" if column.provenance else "warning" if column.key == SUSPECT else _kind_of(shown)
    if column.provenance:  # the script sorts by this number; empty where it is missing
        sound = isinstance(value, int | float) and math.isfinite(value)
        sort_by = f' data-v="{value:.6g}"' if sound else ' data-v=""'
    none = " none" if shown in {"", MISSING} else ""
    return f'<td class="{kind}{none}"{sort_by}>{_text(shown)}</td>'


def _kind_of(words: str) -> str:
    """How a cell of words may be broken."""
    if len(words) <= (_WORDS_ON_ONE_LINE if " " in words else _NAME_ON_ONE_LINE):
        return "name"
    if " " in words and len(words) > _SENTENCE:
        return "long text"
    return "long" if len(words) > _NAME_ON_ONE_LINE else "words"


def _text(text: str) -> str:
    return html.escape(escape_controls(text))
