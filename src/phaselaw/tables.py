"""One declaration a table: its columns in order, what they hold, and how they read in a report.

A table of the analysis is declared once, beside the function that computes it (CONTRIBUTING.md shows one). The CSV
(`Table.frame`), the report's table (`Table.reported`) and the docs follow from the declaration.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import polars as pl

Provenance = Literal["measured", "derived", "extrapolated", "assumed"]
"""Where a number is from: taken by a clock or counted; arithmetic on measured; beyond the data; an input."""

Row = dict[str, Any]
Show = Callable[[Any], str]
"""How one value reads."""

MOST_ROWS, MOST_CURVES = 100, 6
"""Rows of a table, and curves of a plot, that a report shows; the files have all."""
MISSING = "–"
BUDGET = "gen_tokens_target"
"""The column of the decode budget: output tokens asked for. A CSV of a run with one budget leaves it out."""
SUSPECT = "suspect"
"""The column that marks a row which stands on suspect rows, with the checks' names; empty where none spoke up."""


IS_LATENCY = pl.col("latency_ms").is_between(1e-9, 1e15)
"""Whether ``latency_ms`` can be a latency: a number, from a femtosecond to thirty thousand years."""


def constants(table: pl.DataFrame) -> list[str]:
    """The columns of one value, or of none: much of a run, such as its status, kinds and token counts."""
    same = table.select(pl.all().eq_missing(pl.all().first()).all())
    return [name for name in same.columns if same[name][0]]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def digits(value: Any, significant: int = 3) -> str:
    """A number with so many significant digits and thousands separated; a dash where it is missing."""
    if _missing(value):
        return MISSING
    if value == 0:
        return "0"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 9)}f}"


def fixed(value: Any, places: int = 3) -> str:
    """A number with so many decimal places; a dash where it is missing."""
    return MISSING if _missing(value) else f"{round(value, places) + 0.0:,.{places}f}"  # never -0.000


two_places = partial(fixed, places=2)


def unit_price(value: Any, places: int = 3) -> str:
    """What one thing costs, to so many decimal places; to three digits where they would show fewer than two."""
    return digits(value) if not _missing(value) and 0 < abs(value) < 10 ** (1 - places) else fixed(value, places)


def count(value: Any) -> str:
    """A number of things: whole where it is."""
    return MISSING if value is None else f"{value:,.6g}" if value != int(value) else f"{int(value):,}"


def percent(value: Any, places: int = 1) -> str:
    return MISSING if value is None else f"{100 * value:.{places}f} %"


def in_full(level: float) -> str:
    """An interval's level, no digit of it left out: ``95%``, ``99.99%``."""
    return f"{100 * level:.12g}%"


def factor(value: Any) -> str:
    """A factor: 1.1 is about 10 % off."""
    return MISSING if value is None else f"{digits(value)} x"


def as_is(value: Any) -> str:
    """A name or a word; a dash where it is missing."""
    return MISSING if value is None else str(value)


def bracket(low: Any, high: Any, text: Callable[[Any], str] = fixed) -> str:
    """``[low, high]``, or a dash where there is no interval."""
    none = low is None or high is None or (_missing(low) and _missing(high))
    return MISSING if none else f"[{text(low)}, {text(high)}]"


@dataclasses.dataclass(frozen=True, slots=True)
class Col:
    """One column of a table."""

    key: str
    """Its name in the CSV, and the value that a report sorts it by."""
    title: str = ""
    """Its heading in a report; empty: not shown there."""
    show: Show = digits
    _: dataclasses.KW_ONLY
    type: "type[pl.DataType]" = pl.Float64
    provenance: Provenance | None = None
    """``None`` for names and words."""
    high: str = ""
    """Where the column is the low end of an interval, or an estimate with both ends: the key of the high end."""
    reads: str = ""
    """The key of the row that a report shows in place of ``key``: a backend's settings, a phase in words."""
    of_row: Callable[[Row], str] | None = None
    """How the column reads, where that depends on more than one value."""
    doc: str = ""
    """What it means, with its unit, where name and title don't say it."""

    def text(self, row: Row) -> str:
        """How a row's value reads."""
        if self.of_row is not None:
            return self.of_row(row)
        if self.high:
            return bracket(row.get(self.key), row.get(self.high), self.show)
        return self.show(row.get(self.reads or self.key))


words = partial(Col, type=pl.String, show=as_is)
"""A column of names or words."""


def texts(**titles: str) -> tuple[Col, ...]:
    """Columns of names or words: each with its title."""
    return tuple(words(key, title) for key, title in titles.items())


counted = partial(Col, type=pl.Int64, provenance="measured", show=count)
"""A column of whole numbers of things."""
measured = partial(Col, provenance="measured")
"""A column of numbers that were taken by a clock or counted."""
derived = partial(Col, provenance="derived")
"""A column of numbers worked out from measured ones."""
assumed = partial(Col, provenance="assumed")
"""A column of inputs."""


def flag(key: str, title: str = "", show: Show = as_is) -> Col:
    """A column of yes or no."""
    return Col(key, title, show, type=pl.Boolean)


def interval(low: str, high: str, title: str = "", show: Show = fixed, **more: Any) -> tuple[Col, Col]:
    """The two columns of an interval, shown as one."""
    return derived(low, title, show, high=high, **more), Col(high)


def figure(key: str, title: str = "", show: Show = digits, provenance: Provenance = "derived") -> Col:
    """An estimate with its interval in brackets behind it: in a row ``key``, ``key_low`` and ``key_high``.

    From one run a rate has no brackets, which would be read as what another run gives: it says how far this run's own
    scatter leaves it open (``key_within_high``), and what is made of rates says nothing.
    """

    def text(row: Row) -> str:
        low, high, within = (row.get(f"{key}_{end}") for end in ("low", "high", "within_high"))
        alone = show(row.get(key))
        if low is not None and high is not None and low != high:
            return f"{alone} {bracket(low, high, show)}"
        if low is not None or provenance != "measured" or not within or within == row[key]:
            return alone
        return f"{alone} (this run: ± {digits(100 * (within / row[key] - 1), 2)} %)"

    return Col(key, title, show, provenance=provenance, high=f"{key}_high", of_row=text)


def plain(names: str, type: type[pl.DataType] = pl.Float64) -> tuple[Col, ...]:
    """Columns of one type, by name, that no report shows."""
    return tuple(Col(name, type=type) for name in names.split())


def grouped(table: pl.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Row, pl.DataFrame]]:
    """Each group of rows that have the same ``keys``, as they come: the keys' values by name, and the rows."""
    for values, rows in table.group_by(list(keys), maintain_order=True):
        yield dict(zip(keys, values, strict=True)), rows


def alike(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of ``keys``, groups and rows as they come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def like(table: pl.DataFrame, row: Mapping[str, Any], names: Iterable[str]) -> pl.DataFrame:
    """The rows of a table that have the same values as ``row`` in the columns ``names``, or lack the same."""
    return table.filter(pl.col(name).eq_missing(pl.lit(row[name], dtype=table.schema[name])) for name in names)


LAW = words("backend", "backend", reads="law")
"""The backend; a report adds its batch size, and its budget where a run has several."""
BACKEND = words("backend", "backend")
MODEL = words("model", "model")
PHASE = words("mode", "phase", reads="phase")
DOUBT = words(SUSPECT, "suspect", of_row=lambda row: f"⚠ {row[SUSPECT]}" if row.get(SUSPECT) else "")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table: of the analysis (a CSV by its name), of a plan, or of a report alone."""

    name: str = ""
    """The CSV's name without its suffix; empty for a table that is no file."""
    holds: str = ""
    """What it holds: for the index of files, the docs and, where it has no caption, above it in a report."""
    caption: str = ""
    """What it shows, in a sentence above it, where there is more to say."""
    why_empty: str = "no usable rows"
    columns: tuple[Col, ...]
    order: tuple[str, ...] = ()
    """Keys by which its rows are sorted."""
    keeps_budget: bool = False
    """Whether the CSV keeps the decode budget of a run that has but one: TR121's has it."""
    shows: str = ""
    """The keys that a report shows, in its order; empty: each column that has a title, in the CSV's order."""

    @property
    def schema(self) -> dict[str, type[pl.DataType]]:
        """The columns with their types, in order."""
        return {column.key: column.type for column in self.columns}

    def frame(self, rows: pl.DataFrame | Iterable[Mapping[str, Any]] = ()) -> pl.DataFrame:
        """The rows as a data frame: the declared columns in order and type, sorted, NaN as null; what lacks is null."""
        if not isinstance(rows, pl.DataFrame):
            rows = pl.DataFrame(list(rows), schema=self.schema)
        lacking = [pl.lit(None, dtype=kind).alias(key) for key, kind in self.schema.items() if key not in rows.columns]
        table = rows.lazy().with_columns(lacking).select(pl.col(key).cast(kind) for key, kind in self.schema.items())
        table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
        return (table.sort(self.order, maintain_order=True) if self.order else table).collect()

    def reported(self, rows: Sequence[Row]) -> tuple[Col, ...]:
        """The columns that a report shows of these rows, and what is suspect of them where anything is."""
        by_key = {column.key: column for column in self.columns}
        chosen = [by_key[key] for key in self.shows.split()] or [column for column in self.columns if column.title]
        return (*chosen, *((DOUBT,) if any(row.get(SUSPECT) for row in rows) else ()))
