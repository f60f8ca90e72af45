"""How values read in a report: three significant digits, intervals in brackets, missing as a dash."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from phaselaw.laws.checks.checks import SUSPECT
from phaselaw.report.document import Column, Provenance, Row

MISSING = "–"


def digits(value: Any, significant: int = 3) -> str:
    """A number with so many significant digits and thousands separated; a dash where it is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if value == 0:
        return "0"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 9)}f}"


def fixed(value: Any, places: int = 3) -> str:
    """A number with so many decimal places; a dash where it is missing."""
    missing = value is None or (isinstance(value, float) and not math.isfinite(value))
    return MISSING if missing else f"{value:,.{places}f}"


def count(value: Any) -> str:
    """A number of things: whole where it is."""
    return MISSING if value is None else f"{value:,.6g}" if value != int(value) else f"{int(value):,}"


def percent(value: Any) -> str:
    """A share as a percentage."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def bracket(low: Any, high: Any, text: Callable[[Any], str] = fixed) -> str:
    """``[low, high]``, or a dash where there is no interval."""
    return MISSING if low is None or high is None else f"[{text(low)}, {text(high)}]"


def word(title: str, key: str, *, detail: bool = False) -> Column:
    """A column of names or words."""

    def show(row: Row) -> str:
        return MISSING if row.get(key) is None else str(row[key])

    return Column(title=title, key=key, show=show, detail=detail)


def number(
    title: str, key: str, provenance: Provenance, text: Callable[[Any], str] = digits, *, detail: bool = False
) -> Column:
    """A column of numbers."""
    return Column(title=title, key=key, provenance=provenance, show=lambda row: text(row.get(key)), detail=detail)


def interval(title: str, low: str, high: str, text: Callable[[Any], str] = fixed, *, detail: bool = False) -> Column:
    """A column of intervals, sorted by their low ends."""

    def show(row: Row) -> str:
        return bracket(row.get(low), row.get(high), text)

    return Column(title=title, key=low, provenance="derived", show=show, detail=detail)


def doubted(rows: Iterable[Row]) -> tuple[Column, ...]:
    """A column that says what is suspect of each row, where anything is of any."""
    if not any(row.get(SUSPECT) for row in rows):
        return ()
    return (Column(title="suspect", key=SUSPECT, show=lambda row: f"⚠ {row[SUSPECT]}" if row.get(SUSPECT) else ""),)
