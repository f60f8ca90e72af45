"""A report as one HTML page: no network, light and dark, sortable tables, plots whose points name themselves."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from importlib import resources
from typing import Any

from phaselaw.report.document import Block, Bullets, Code, Document, Figure, Paragraph, Table
from phaselaw.report.plots import pieces


def to_html(document: Document) -> str:
    """The document as a page that stands alone; every text from outside is escaped."""
    style, script = _part("page.css") + _part("plots.css"), _part("page.js")
    # The page may run this script and no other, and may fetch nothing at all.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'; img-src data:"
    title = html.escape(document.title)
    sections = [
        f'<section id="s{at}" aria-labelledby="h{at}"><h2 id="h{at}">{html.escape(section.title)}</h2>\n'
        + "\n".join(_block(block) for block in section.blocks)
        + "</section>"
        for at, section in enumerate(document.sections)
    ]
    contents = "".join(
        f'<li><a href="#s{at}">{html.escape(section.title)}</a></li>' for at, section in enumerate(document.sections)
    )
    lead = "".join(f'<p class="lead">{html.escape(sentence)}</p>\n' for sentence in document.lead)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
        f'<a class="skip" href="#main">To the report</a>\n<header><h1>{title}</h1>\n{lead}</header>\n'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main id="main">\n'
        + "\n".join(sections)
        + f'\n</main>\n<div id="tip" role="status" hidden></div>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _part(name: str) -> str:
    return resources.files("phaselaw.report").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Code):
        return f"<pre><code>{html.escape(block.text)}</code></pre>"
    if isinstance(block, Figure):
        drawings = "".join(pieces(block.plot))
        caption = html.escape(block.caption)
        return f'<figure><div class="panels">{drawings}</div><figcaption>{caption}</figcaption></figure>'
    return _table(block)


def _table(table: Table) -> str:
    caption = html.escape(table.caption)
    if not table.rows:
        return f"<p>{caption} (no rows)</p>"
    heads, titles = [], [html.escape(column.title) for column in table.columns]
    for column, title in zip(table.columns, titles, strict=True):
        source = f'<span class="source">{column.provenance}</span>' if column.provenance else ""
        kind = ' class="number"' if column.provenance else ""
        heads.append(f'<th scope="col"{kind}><button type="button">{title or "&nbsp;"}</button>{source}</th>')
    body = []
    for row in table.rows:
        cells = []
        for column, title in zip(table.columns, titles, strict=True):
            kind = ' class="number"' if column.provenance else ""
            value = html.escape(_sort_value(row.get(column.key)))
            shown = html.escape(column.show(row))
            cells.append(f'<td{kind} data-title="{title}" data-value="{value}">{shown}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    rows = "\n".join(body)
    return f"<table><caption>{caption}</caption><thead><tr>{''.join(heads)}</tr></thead>\n<tbody>{rows}</tbody></table>"


def _sort_value(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and not math.isfinite(value))
    return "" if missing else str(value)
