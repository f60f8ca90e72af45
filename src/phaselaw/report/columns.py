"""Columns of tables that stand in a report alone, and how a declared table becomes one of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from phaselaw import tables
from phaselaw.report.document import display as shown
from phaselaw.tables import DOUBT, MISSING, SUSPECT, Col, Provenance, Row, bracket, count, digits, fixed, percent, words

__all__ = [
    "MISSING",
    "bracket",
    "count",
    "digits",
    "doubted",
    "fixed",
    "interval",
    "number",
    "percent",
    "shown",
    "word",
]


def word(title: str, key: str, *, detail: bool = False) -> Col:
    """A column of names or words."""
    return words(key, title, detail=detail)


def number(
    title: str, key: str, provenance: Provenance, text: Callable[[Any], str] = digits, *, detail: bool = False
) -> Col:
    """A column of numbers."""
    return Col(key=key, title=title, provenance=provenance, show=text, detail=detail)


def interval(title: str, low: str, high: str, text: Callable[[Any], str] = fixed, *, detail: bool = False) -> Col:
    """A column of intervals, sorted by their low ends."""
    return tables.interval(low, high, title, text, detail=detail)[0]


def doubted(rows: Iterable[Row]) -> tuple[Col, ...]:
    """A column that says what is suspect of each row, where anything is of any."""
    return (DOUBT,) if any(row.get(SUSPECT) for row in rows) else ()
