"""What a report is made of, before it is text: sections of paragraphs, lists, tables, plots and commands.

All texts are plain: a renderer escapes them for its format, so a hostile model name stays a name everywhere.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from phaselaw import tables
from phaselaw.report.outline import DOTS
from phaselaw.tables import MOST_CURVES, MOST_ROWS, Col, Row

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
    caption = table.caption or (f"{table.holds[:1].upper()}{table.holds[1:]}." if table.holds else "")
    return Table(caption=caption, columns=table.reported(rows), rows=tuple(rows))


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
class Curve:
    """Points of one kind, by default joined by a line, whose band is their intervals."""

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
    colour: int | None = None
    """Its number; ``None``: that of its place among the curves."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CurvePlot:
    """Curves on linear or log axes: laws, sweeps, rooflines, models against what was measured."""

    name: str
    """File name without its suffix."""
    caption: str
    """What there is to see, under it, and for those who don't see it."""
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    """At most six are told apart by colour; more share colours, so make two plots of them."""
    title: str = ""
    warning: str = ""
    """What is suspect of the rows that it stands on."""
    reference: float | None = None
    """A value of ``y`` at which a line runs across."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Panels:
    """Plots side by side, in one file."""

    name: str
    caption: str
    panels: tuple[CurvePlot, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DotPlot:
    """Values in named rows along one axis, with a line across at ``reference``; intervals as bars."""

    name: str
    caption: str
    axis: Axis
    reference: float | None = None
    rows: tuple[tuple[str, tuple[Point, ...]], ...]
    """Row label, and its points; a point's ``x`` is its value (``low`` and ``high`` with it), its ``y`` is not used."""
    title: str = ""
    bars: bool = False
    """Whether each value is a bar from the reference, too."""


Plot = Panels | CurvePlot | DotPlot


def dots(name: str, rows: Iterable[Row], **words: str) -> DotPlot | None:
    """A dot plot as ``outline.toml`` declares it, a point for each row that has its value; ``None`` without any.

    It has twelve rows at most. ``words`` are what is in braces in the declaration; its title is the caption up to a
    colon.
    """
    told: dict[str, Any] = {
        key: each.format(**words) if isinstance(each, str) else each for key, each in DOTS[name].items()
    }
    groups: dict[str, list[Point]] = {}
    for row in rows:
        if row.get(told["x"]) is not None:
            ends = {end: row.get(told[end]) for end in ("low", "high") if end in told}
            point = Point(label=str(row[told["label"]]), x=row[told["x"]], y=0.0, **ends)
            groups.setdefault(", ".join(str(row[key]) for key in told["by"]), []).append(point)
    shown = tuple((group, tuple(points)) for group, points in groups.items())[:12]
    axis, caption = Axis(title=told["axis"], log=told.get("log", True)), told["caption"]
    about: Any = {"name": name, "caption": caption, "title": caption.partition(":")[0], "reference": told.get("at")}
    return DotPlot(axis=axis, rows=shown, **about) if shown else None


def at_even_steps(items: Sequence[Any], most: int) -> Sequence[Any]:
    """Of more than ``most`` so many, the first and the last among them."""
    some = range(most if len(items) > most else 0)
    return [items[round(at * (len(items) - 1) / (most - 1))] for at in some] or items


def curves(rows: Sequence[Row], by: str, x: str, y: str, *ends: str) -> tuple[Curve, ...]:
    """A curve for each ``by``, its intervals between ``ends`` if any; of too many for one plot some at even steps."""
    found = []
    for (name,), mine in at_even_steps([*tables.alike(rows, by).items()], MOST_CURVES):
        intervals = [dict(zip(("low", "high"), (row[end] for end in ends), strict=False)) for row in mine]
        points = (Point(label=str(name), x=row[x], y=row[y], **of) for row, of in zip(mine, intervals, strict=True))
        found.append(Curve(label=str(name), points=tuple(points)))
    return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """Commands, as typed."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """Words, each with what it means."""

    meanings: tuple[tuple[str, str], ...]


Block = str | tuple[str, ...] | Table | Plot | Code | Words
"""A paragraph, a list of sentences, or what its type says."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: tuple[Block, ...]


IN_BRACKETS = "In brackets, with 95 % confidence:"
"""How a sentence on intervals begins; a terminal that has no room for them says so instead."""


def section(title: str, *contents: Block | list[str] | None) -> Section:
    """A section of blocks, long tables cut to `MOST_ROWS`; ``None`` is left out."""
    blocks: list[Block] = [tuple(each) if isinstance(each, list) else each for each in contents if each is not None]
    for at, each in enumerate(blocks):
        if isinstance(each, Table) and len(each.rows) > MOST_ROWS:
            caption = f"{each.caption} The first {MOST_ROWS} of {len(each.rows):,} rows; all: {each.whole}."
            blocks[at] = dataclasses.replace(each, caption=caption, rows=each.rows[:MOST_ROWS])
    return Section(title=title, blocks=tuple(blocks))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """Sections of one subject, after a picture and a sentence that say the most of it."""

    title: str
    said: str
    picture: Plot | None
    sections: tuple[Section, ...]


class Trust(NamedTuple):
    """Whether a run's rows can be trusted, in a word, and why."""

    mark: Literal["sound", "with cautions", "suspect"]
    findings: int
    """Findings of that kind; of a sound run the checks that looked at something."""
    checks: tuple[str, ...]
    """The checks that found them."""

    @property
    def said(self) -> str:
        """How many, and of which checks."""
        if self.mark == "sound":
            return f"{self.findings} checks looked, none spoke up"
        return f"{self.findings} finding{'s' * (self.findings > 1)}: {', '.join(self.checks)}"

    def __str__(self) -> str:
        return f"{self.mark} ({self.said})"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One figure of the first screen."""

    title: str
    value: str
    interval: str
    """Its interval and what it holds, or why there is none."""
    beside: tuple[str, ...] = ()
    """The same figure of other backends."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """The first screen: what one looks at before reading anything."""

    answer: str
    """The answer to the title's question, in a plain sentence or two."""
    notices: tuple[str, ...]
    """What must be known first: that nothing was measured, that the run is unfinished."""
    trust: Trust
    figures: tuple[Headline, ...]
    pictures: tuple[Plot, ...]
    facts: tuple[tuple[str, str], ...]
    """Machine, date, engine, models, runs: each with its name."""
    load: str = ""
    """What the reader's own load needs and costs; empty where none was given."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A report."""

    name: str
    """The run's."""
    title: str
    """The question that it answers."""
    front: Front
    chapters: tuple[Chapter, ...]
    summary: tuple[Block, ...] = ()
    """What a terminal shows of it."""
    planner: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the page's planner works on; empty where there is none."""

    @property
    def sections(self) -> tuple[Section, ...]:
        return tuple(section for chapter in self.chapters for section in chapter.sections)

    def plots(self) -> tuple[Plot, ...]:
        """Every plot, in order, each once."""
        pictures = [*self.front.pictures, *(chapter.picture for chapter in self.chapters)]
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(dict.fromkeys(each for each in (*pictures, *blocks) if isinstance(each, Plot)))


def to_json(document: Document) -> dict[str, Any]:
    """The whole document for a program: what is said, and every table with its rows in full precision."""
    front = {each.name: getattr(document.front, each.name) for each in dataclasses.fields(document.front)}
    front |= {"trust": document.front.trust._asdict(), "figures": [*map(dataclasses.asdict, document.front.figures)]}
    sections = [{"title": each.title, "blocks": [*map(_json, each.blocks)]} for each in document.sections]
    pictures = [*map(_json, document.front.pictures)]
    return {"schema_version": 1, "title": document.title, **front, "pictures": pictures, "sections": sections}


def _json(block: Block) -> Any:
    if isinstance(block, Table):
        columns = [{"key": column.key, "title": column.title} for column in block.columns]
        return {"caption": block.caption, "columns": columns, "rows": block.rows}
    if isinstance(block, Plot):
        return {"picture": block.name, "caption": block.caption}
    return block if isinstance(block, (str, tuple)) else dataclasses.asdict(block)
