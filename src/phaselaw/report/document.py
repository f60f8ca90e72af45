"""What a report is made of, before it is text: sections of paragraphs, lists, tables, plots and commands.

All texts are plain: a renderer escapes them for its format, so a hostile model name stays a name everywhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from phaselaw import tables
from phaselaw.tables import Col, Row

_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff\ud800-\udfff]"
)
"""Control characters, which a terminal obeys; marks that turn the direction of what follows; nothing at all."""


def escape_controls(text: str) -> str:
    """A text whose control and direction characters stand as ``<U+202E>``, so that none acts on what is around it."""
    return _CONTROLS.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of a table, with what it shows in a sentence."""

    caption: str
    columns: tuple[Col, ...]
    rows: tuple[Row, ...]
    whole: str = "analysis/*.csv"
    """Where all of them are, should a report show only the first."""


def display(table: tables.Table, rows: Sequence[Row]) -> Table:
    """A declared table with these rows, in the columns that a report shows."""
    return Table(caption=table.caption, columns=table.reported(rows), rows=tuple(rows))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One value in a plot, with its interval where it has one."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """What an axis shows, its unit among it, and how."""

    title: str
    log: bool = False
    percent: bool = False
    """Values are shares, written as percentages."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScalingLaw:
    """A fitted line on log-log axes with what its interval band is drawn from (`phaselaw.laws.scaling`)."""

    slope: float
    log10_intercept: float
    residual_sd_log10: float | None
    log10_params_mean: float
    log10_params_sum_of_squares: float
    n_models: int
    level: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One log-log plot of latency against parameters; ``law`` is ``None`` where none could be fitted."""

    title: str
    points: tuple[Point, ...]
    law: ScalingLaw | None
    said: str = ""
    """What the law says, in a few words under the title."""
    warning: str = ""
    """What is suspect of the rows that the law stands on: then its line is dashed."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScalingPlot:
    """Panels side by side, latency in ms against parameters in millions."""

    name: str
    """File name without its suffix."""
    alt: str
    """What there is to see, for those who don't see it."""
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Points of one kind, by default joined by a line; their intervals are a band where joined, else bars."""

    label: str
    """Its name in the legend."""
    points: tuple[Point, ...]
    joined: bool = True
    dots: bool = True
    """Whether each point is a dot that says its label and values under the pointer."""
    named: bool = False
    """Whether each dot's label stands beside it."""
    dashed: bool = False
    """For what was not measured: a model, a limit, a law on suspect rows."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CurvePlot:
    """Curves on linear or log axes: sweeps, rooflines, models against what was measured."""

    name: str
    alt: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    """At most six are told apart by colour; more share colours, so make two plots of them."""
    title: str = ""
    reference: float | None = None
    """A value of ``y`` at which a line runs across."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DotPlot:
    """Values in named rows along one axis, with a line across at ``reference``; intervals as bars."""

    name: str
    alt: str
    axis: Axis
    reference: float | None
    rows: tuple[tuple[str, tuple[Point, ...]], ...]
    """Row label, and its points; a point's ``x`` is its value (``low`` and ``high`` with it), its ``y`` is not used."""
    title: str = ""


Plot = ScalingPlot | CurvePlot | DotPlot


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A plot with its caption."""

    plot: Plot
    caption: str


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """Commands, as typed."""

    text: str


Block = str | tuple[str, ...] | Table | Figure | Code
"""A paragraph, a list of sentences, or what its type says."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: tuple[Block, ...]


IN_BRACKETS = "In brackets, with 95 % confidence:"
"""How a sentence on intervals begins; a terminal that has no room for them says so instead."""
MOST_ROWS = 100
"""Rows of a table that a report shows; its CSV has all."""


def section(title: str, *contents: Block | list[str] | None) -> Section:
    """A section of blocks, long tables cut to `MOST_ROWS`; ``None`` is left out."""
    blocks = (tuple(each) if isinstance(each, list) else each for each in contents if each is not None)
    return Section(title=title, blocks=tuple(_cut(each) if isinstance(each, Table) else each for each in blocks))


def _cut(table: Table) -> Table:
    if len(table.rows) <= MOST_ROWS:
        return table
    caption = f"{table.caption} The first {MOST_ROWS} of {len(table.rows):,} rows; all: {table.whole}."
    return dataclasses.replace(table, caption=caption, rows=table.rows[:MOST_ROWS])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A report."""

    title: str
    lead: tuple[str, ...]
    """What it says, in a few sentences, before any section."""
    sections: tuple[Section, ...]
    summary: tuple[Block, ...] = ()
    """What a terminal shows of it."""

    def plots(self) -> tuple[Plot, ...]:
        """Every plot, in order."""
        return tuple(block.plot for section in self.sections for block in section.blocks if isinstance(block, Figure))
