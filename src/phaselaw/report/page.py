"""A report as one HTML page, by the template ``page.html``: no network, light and dark, keyboard, print."""

import base64
import hashlib
import json
import math
import re
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from phaselaw.report.document import Document, escape_controls
from phaselaw.report.outline import GLOSSARY, IN_PROSE
from phaselaw.report.plots import pieces
from phaselaw.tables import MISSING, SUSPECT, Col, Row

_LONG, _SENTENCE = 30, 60
"""Characters from which a cell of words may be broken, and is set as a sentence in a column of its own width."""
_EXPLAINED = ("mode", "verdict", "verdict_without", "coldness", "status")
"""Columns whose cells begin with a word of the glossary."""
_PROSE = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(IN_PROSE, key=len, reverse=True))})(?![\w-])")


def to_html(document: Document) -> str:
    """The document as a page that stands alone; every text from outside is escaped."""
    files = resources.files("phaselaw.report")
    names = ("page.html", "page.css", "plots.css", "page.js", "planner.js")
    template, style, plots, script, planner = (files.joinpath(name).read_text("utf-8") for name in names)
    if document.planner:
        script += document.planner["formulas"] + planner
    page = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    page.filters |= {"id": _id, "prose": _prose}
    page.globals |= {"pieces": pieces, "cell": _cell, "kind_of": lambda block: type(block).__name__}
    # The page may run this script and no other, and may fetch nothing at all.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    about = {"style": style, "plots": plots, "script": script, "digest": Markup(digest)}
    data = json.dumps({**document.planner, "formulas": None}, ensure_ascii=False, allow_nan=False)
    page.globals["planner_data"] = Markup(escape_controls(data).replace("<", "\\u003c"))  # no name ends the script
    return page.from_string(template).render(document=document, unexplained=lambda: set(GLOSSARY), **about) + "\n"


def _shown(value: Any) -> Any:
    """What a template shows of a value: of a text that is no markup, no character that acts on what is around it."""
    return escape_controls(value) if type(value) is str else value


def _id(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _prose(text: str, new: set[str]) -> Markup:
    """A text whose words are explained where they first stand in a section."""
    return Markup(_PROSE.sub(lambda found: _word(found[0], new), escape(escape_controls(text))))


def _word(word: str, new: set[str]) -> str:
    """A word, linked to what it means if that is ``new``."""
    if word not in new:
        return word
    new.remove(word)
    return f'<a class="word" href="#word-{_id(word)}">{word}</a>'


def _cell(column: Col, row: Row, new: set[str]) -> Markup:
    """A cell. Its class is short, since a large run has tens of thousands; its heading's words come by the script."""
    shown, value, sort_by = column.text(row), row.get(column.key), ""
    long = "long text" if " " in shown and len(shown) > _SENTENCE else "long" if len(shown) > _LONG else "name"
    kind = "n" if column.provenance else "warning" if column.key == SUSPECT else long
    if column.provenance:  # the script sorts by this number; empty where it is missing
        sound = isinstance(value, int | float) and math.isfinite(value)
        sort_by = f' data-v="{value:.6g}"' if sound else ' data-v=""'
    none = " none" if shown in {"", MISSING} else ""
    words = str(escape(escape_controls(shown)))
    if column.key in _EXPLAINED:
        word = next((word for word in sorted(new, key=len, reverse=True) if words.startswith(word)), "")
        words = _word(word, new) + words.removeprefix(word)
    return Markup(f'<td class="{kind}{none}"{sort_by}>{words}</td>')
