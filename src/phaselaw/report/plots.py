"""Plots: data in, SVG out, whose points say their values and whose text stays text.

An axis, its ticks and where names stand are worked out here; `svg` writes the shapes.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from phaselaw.report import svg
from phaselaw.report.document import Axis, Curve, CurvePlot, DotPlot, Panels, Plot, Point, escape_controls
from phaselaw.report.svg import Drawing

WIDTH, HEIGHT = 400.0, 300.0
"""Of a panel, in pixels: as wide as a telephone, so that its text is never scaled down to where it can't be read."""
MOST_DRAWN, MOST_NAMED = 200, 40
LONGEST = 24
"""Characters of a model's name that are drawn; a pointer shows the rest."""

_FONT, _TITLE_FONT, _NAME_HEIGHT, _LINE = 10.5, 12.5, 12.5, 15.0
"""Text sizes are pixels, the same as in `plots.css`."""
_EMS = {
    letter: width
    for width, letters in {
        0.29: "'IJijl",
        0.318: " ,.",
        0.41: "!()-/:;[\\]frt|",
        0.55: '"*?_`csz',
        0.636: "$0123456789EFLPSTYabdeghknopquvxy{}",
        0.79: "&ABCDGHKNOQRUVXZ",
    }.items()
    for letter in letters
}
"""How wide letters are as a share of the text's size, in DejaVu Sans: the widest font that a page may have."""
_BOLD = 1.13
"""Times as wide, of a title."""
_ROW = 36.0
"""Height of a row of a dot plot: its label, and its dots under it."""
_COLOURS = 6
_MOST_TICKS = 9
_ROOM_OF_TICK = 18.0
"""Height that a value beside an axis needs, in pixels."""
_ANGLES = (90, 270, 0, 180, 45, 135, 315, 225, 67, 113, 293, 247, 22, 158, 338, 202)
"""Directions of a name from its point, the best first."""
_RIGHT, _BOTTOM = 12.0, 40.0
"""Margins of the axes, in pixels; the left one is as wide as the values there."""
_LEAST_SPAN = 2e-3
"""Of an axis, as a share of its values."""


def draw(plot: Plot) -> str:
    """A plot as an SVG file with its own colours, its panels side by side."""
    return svg.file(pieces(plot), plot.caption, columns=3)


def pieces(plot: Plot) -> tuple[str, ...]:
    """A plot's panels as parts of a page, which colours them and stacks them where it is narrow."""
    if isinstance(plot, DotPlot):
        return (_dots(plot),)
    return tuple(map(_curves, plot.panels if isinstance(plot, Panels) else (plot,)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Scale:
    """From the values of an axis to pixels."""

    axis: Axis
    low: float
    high: float
    start: float
    """Where ``low`` stands, in pixels."""
    end: float

    def at(self, value: float) -> float:
        """Where a value stands; one that the axis can't show, far outside it."""
        low, high, here = (
            (math.log(each) if each > 0 else -math.inf) if self.axis.log else each
            for each in (self.low, self.high, value)
        )
        return self.start + min(9.0, max(-9.0, (here - low) / (high - low))) * (self.end - self.start)


def _curves(plot: CurvePlot) -> str:
    """A panel of curves under its title, what is suspect, and a legend of the curves with a label."""
    x, y = plot.x, plot.y
    warning = f"⚠ {plot.warning}" if plot.warning else ""
    if _width(warning) >= WIDTH - 14:
        warning = f"⚠ {len(plot.warning.split(', '))} checks suspect its rows"
    labelled = [(_colour(plot, curve), curve) for curve in plot.curves if curve.label]
    one_of = -(-max((len(curve.points) for curve in plot.curves), default=0) // MOST_DRAWN) or 1
    drawn = f"one point of {one_of} is drawn" if one_of > 1 else ""
    lines = [(plot.title, "title"), (warning, "warned"), (drawn, "said")]
    out = Drawing(". ".join(filter(None, (plot.title, plot.caption, plot.warning))), WIDTH, HEIGHT)
    top = _head(out, lines, labelled if len(plot.curves) > 1 else ())
    some = [(curve, curve.points[:: one_of if curve.dots else 1]) for curve in plot.curves]
    shown = [(curve, [p for p in points if _shows(x, p.x) and _shows(y, p.y)]) for curve, points in some]
    points = [point for _, those in shown for point in those]
    heights = _heights(points, log=y.log)
    reference = plot.reference if plot.reference is not None and _shows(y, plot.reference) else None
    if reference is not None and points:
        heights.append(reference)
    down = _Scale(y, *_limits(heights, y, 0.16), HEIGHT - _BOTTOM, top)
    ticks = _ticks(down, across=False)
    left = 26.0 + max((_width(text) for _, text in ticks), default=0.0)
    across = _Scale(x, *_limits([point.x for point in points], x, 0.09), left, WIDTH - _RIGHT)
    _across(out, across, down)
    _up(out, across, down, ticks)
    if reference is not None:
        out.path("reference", [(left, down.at(reference)), (across.end, down.at(reference))])
    out.window(left, top, across.end, down.start)
    for curve, those in shown:
        if curve.joined:
            _line(out, [_placed(point, across, down) for point in those], _stroke(curve, _colour(plot, curve)))
    for curve, those in shown:
        for point in those if curve.dots else ():
            out.point(f"c{_colour(plot, curve)}", across.at(point.x), down.at(point.y), _label(point, plot, curve))
    _names(out, across, down, [point for curve, those in shown if curve.named for point in those])
    return str(out)


def _colour(plot: CurvePlot, curve: Curve) -> int:
    return (plot.curves.index(curve) if curve.colour is None else curve.colour) % _COLOURS


def _dots(plot: DotPlot) -> str:
    """Values in named rows along one axis: in row 0 between 0 and 1, its label over its points.

    Where rows have the same few points, each has its colour, and a legend.
    """
    some = [(label, points[:: -(-len(points) // MOST_DRAWN) or 1]) for label, points in plot.rows]
    rows = [(label, [point for point in points if _shows(plot.axis, point.x)]) for label, points in some]
    kinds = list(dict.fromkeys(point.label for _, points in rows for point in points))
    told = 1 < len(kinds) <= _COLOURS and max(len(points) for _, points in rows) > 1
    legend = [(at, Curve(label=kind, points=())) for at, kind in enumerate(kinds)] if told else []
    height = _ROW * max(1, len(rows)) + _LINE * (bool(plot.title) + len(legend)) + 12 + _BOTTOM
    out = Drawing(plot.caption, WIDTH, height)
    top = _head(out, [(plot.title, "title")], legend)
    found = [value for _, points in rows for point in points for value in (point.x, point.low, point.high)]
    ends = [value for value in (*found, plot.reference) if value is not None and _shows(plot.axis, value)]
    across = _Scale(plot.axis, *_limits(ends, plot.axis, 0.04), 14.0, WIDTH - _RIGHT)
    down = _Scale(Axis(title=""), max(1, len(rows)), 0, height - _BOTTOM, top)
    _across(out, across, down)
    reference = None if plot.reference is None else across.at(plot.reference)
    if reference is not None:
        out.path("reference", [(reference, down.start), (reference, top)])
    out.window(across.start, top, across.end, down.start)
    for row, (label, points) in enumerate(rows):
        out.text("name", across.start + 1.9, down.at(row + 0.36), _fitting(label, WIDTH - 28))
        for at, point in enumerate(points):
            # Apart, so that equal values don't hide each other.
            here = row + 0.7 + 0.1 * (at % 5 - min(len(points) - 1, 4) / 2)
            colour, value = f"c{kinds.index(point.label) if told else 0}", across.at(point.x)
            if plot.bars and reference is not None:
                _area(out, f"bar c{row}", (reference, value), (down.at(here - 0.13), down.at(here + 0.13)))
            if point.low is not None and point.high is not None:
                interval = across.at(point.low), across.at(point.high)
                _area(out, f"band {colour}", interval, (down.at(here - 0.08), down.at(here + 0.08)))
                out.path(f"line {colour}", [(end, down.at(here)) for end in interval], within=True)
            said = f"{point.label}: {_value(point.x, plot.axis)}{_bracket(point, plot.axis)}"
            out.point(colour, value, down.at(here), said)
    return str(out)


def _area(out: Drawing, classes: str, x: tuple[float, float], y: tuple[float, float]) -> None:
    out.path(classes, [(x[0], y[0]), (x[0], y[1]), (x[1], y[1]), (x[1], y[0])], within=True)


def _head(out: Drawing, lines: Sequence[tuple[str, str]], legend: Sequence[tuple[int, Curve]]) -> float:
    """Lines of words, each with its class, and a legend in as many columns as its labels leave room for.

    Returns where axes may begin under it, in pixels.
    """
    down = 0.0
    for text, name in lines:
        if text:
            down += _LINE
            size = _TITLE_FONT if name == "title" else _FONT
            out.text(name, 10, down, _fitting(text, WIDTH - 14, size))
    labels = [_fitting(curve.label, WIDTH - 50) for _, curve in legend]
    wide = max(map(_width, labels), default=0.0) + 34
    columns = max(1, int((WIDTH - 10) // wide))
    for at, ((colour, curve), label) in enumerate(zip(legend, labels, strict=True)):
        left = 10 + wide * (at % columns)
        down += _LINE * (at % columns == 0)
        out.path(_stroke(curve, colour), [(left, down - 3.5), (left + 16, down - 3.5)])
        out.text("said", left + 20, down, label)
    return down + 12


def _across(out: Drawing, x: _Scale, y: _Scale) -> None:
    """The axis below: a grid from round values upwards, a frame and a title."""
    for spot, text in _ticks(x, across=True):
        out.path("grid", [(spot, y.start), (spot, y.end)])
        out.text("tick", spot, y.start + 11.5, text, text_anchor="middle")
    title = _fitting(x.axis.title, x.end - x.start)
    out.text("said", (x.start + x.end) / 2, y.start + 30, title, text_anchor="middle")
    out.path("frame", [(x.start, y.start), (x.end, y.start)])


def _up(out: Drawing, x: _Scale, y: _Scale, ticks: Sequence[tuple[float, str]]) -> None:
    """The axis on the left, likewise."""
    for spot, text in ticks:
        out.path("grid", [(x.start, spot), (x.end, spot)])
        out.text("tick", x.start - 3.5, spot + 4, text, text_anchor="end")
    middle, title = (y.start + y.end) / 2, _fitting(y.axis.title, y.start - y.end)
    out.text("said", 16, middle, title, text_anchor="middle", transform=f"rotate(-90 16 {middle:g})")
    out.path("frame", [(x.start, y.start), (x.start, y.end)])


def _shows(axis: Axis, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


def _heights(points: Sequence[Point], *, log: bool) -> list[float]:
    """What an axis must show of points: their values, and their intervals as far as these don't flatten the points."""
    heights = [point.y for point in points]
    least, most = min(heights, default=1.0), max(heights, default=1.0)
    room = most - least or abs(most)
    floor, ceiling = (least / 8, most * 8) if log else (least - room, most + room)
    ends = [end for point in points for end in (point.low, point.high) if end is not None and math.isfinite(end)]
    return heights + [min(max(end, floor), ceiling) for end in ends]


def _ticks(scale: _Scale, *, across: bool) -> list[tuple[float, str]]:
    """Round values, as many as don't touch: where each stands, in pixels, and its text."""
    found: list[tuple[float, str]] = []
    for values in _round_values(scale):
        shown = [value for value in values if scale.low <= value <= scale.high]
        ticks = [(scale.at(value), _tick_text(value, scale.axis)) for value in shown]
        rooms = [_width(text) + 6 if across else _ROOM_OF_TICK for _, text in ticks]
        if across:  # no text sticks out of the picture
            inside = [room / 2 < spot < WIDTH - room / 2 for (spot, _), room in zip(ticks, rooms, strict=True)]
            ticks, rooms = [*itertools.compress(ticks, inside)], [*itertools.compress(rooms, inside)]
        found = ticks if len(ticks) > 1 else found
        apart = [abs(after - before) for (before, _), (after, _) in itertools.pairwise(ticks)]
        needed = [(before + after) / 2 for before, after in itertools.pairwise(rooms)]
        if 2 <= len(ticks) <= _MOST_TICKS and all(map(float.__ge__, apart, needed)):
            break
    return found


def _limits(values: Sequence[float], axis: Axis, margin: float) -> tuple[float, float]:
    """The limits that fit the values with a margin, made wider where that would mislead."""
    if not values:
        return (1.0, 10.0) if axis.log else (0.0, 1.0)
    least, most = min(values), max(values)
    if axis.log:
        spare = (most / least) ** margin if most > least else 4.0
        low, high, middle = least / spare, most * spare, math.sqrt(least * most)
    else:
        spare = margin * (most - least) or 0.05 * abs(most) or 0.05
        low, high, middle = least - spare, most + spare, (least + most) / 2
        # Shares and rates begin at 0: an axis that is cut there shows less than it hides.
        if 0 <= least < 0.5 * most:
            return 0.0, high
    # What differs by less than anyone measures is drawn as equal, on ticks that can be written.
    room = _LEAST_SPAN * abs(middle) / 2
    return min(low, middle - room), max(high, middle + room)


def _round_values(scale: _Scale) -> Iterator[list[float]]:
    """Ways to find ticks, the best first: parts of decades on a log axis that spans about one, or more."""
    low, high = scale.low, scale.high
    if scale.axis.log and high > 8 * low:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for parts, every in ((1, 2, 5), 1), ((1, 3), 1), *(((1,), every) for every in range(1, 10)):
            powers = range(first - first % every, last + 1, every)
            yield [part * 10.0**power for power in powers for part in parts]
    decade = 10.0 ** math.floor(math.log10(high - low))
    for step in (decade * part for part in (0.2, 0.5, 1, 2, 5)):
        if step >= (high - low) / 6:
            yield [at * step for at in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _tick_text(value: float, axis: Axis) -> str:
    if axis.percent:
        return f"{100 * value:.6g} %"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def _line(out: Drawing, points: Sequence[tuple[float, ...]], stroke: str) -> None:
    """A curve's line and the band of its intervals, by x, y and interval."""
    ranges = [point for point in points if len(point) == 4]
    if len(ranges) > 1:
        edge = [(x, low) for x, _, low, _ in ranges] + [(x, high) for x, _, _, high in reversed(ranges)]
        out.path(stroke.replace("line", "band").removesuffix(" dashed"), edge, within=True)
    if points:
        out.path(stroke, [(x, y) for x, y, *_ in points], within=True)


def _stroke(curve: Curve, colour: int) -> str:
    return f"line c{colour}" + (" dashed" if curve.dashed else "")


def _placed(point: Point, across: _Scale, down: _Scale) -> tuple[float, ...]:
    """Where a point stands, and the ends of its interval if it has one."""
    ends = () if point.low is None or point.high is None else (down.at(point.low), down.at(point.high))
    return across.at(point.x), down.at(point.y), *ends


class _Box(NamedTuple):
    """What a name or a point covers, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def within(self, other: "_Box") -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom

    def meets(self, other: "_Box") -> bool:
        across = other.left < self.right and self.left < other.right
        return across and other.top < self.bottom and self.top < other.bottom


def _names(out: Drawing, across: _Scale, down: _Scale, points: Sequence[Point]) -> None:
    """Each point's name where it hides neither a point nor another name; with a line to it where that is not near.

    Of more than `MOST_NAMED` points so many are named, evenly: all of them say their names under the pointer.
    """
    points = points[:: max(1, -(-len(points) // MOST_NAMED))]
    room = _Box(across.start + 2, down.end, WIDTH - 1, down.start - 2)
    placed = sorted((across.at(point.x), down.at(point.y), point.label) for point in points)
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y, _ in placed]
    for x, y, label in placed:
        # A model's name without the folders before it, cut where it is very long.
        text = _one_line(label.rstrip("/").rsplit("/", 1)[-1] or label)
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
        for ring, box in _spots(x, y, _width(text)):
            if box.within(room) and not any(map(box.meets, taken)):
                if ring:
                    end = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
                    out.path("leader", [end, (x, y)])
                out.text("name", box.left, box.bottom - 3, text)
                taken.append(box)
                break


def _spots(x: float, y: float, width: float) -> Iterator[tuple[int, _Box]]:
    """Where a name may stand: in rings around its point, the best first; the first ring is beside it."""
    for ring in range(24):
        gap = 7 + 13 * ring
        for angle in map(math.radians, _ANGLES):
            left = x + math.cos(angle) * (width / 2 + gap) - width / 2
            top = y - math.sin(angle) * (_NAME_HEIGHT / 2 + gap) - _NAME_HEIGHT / 2
            yield ring, _Box(left, top, left + width, top + _NAME_HEIGHT)


def _one_line(text: str) -> str:
    return " ".join(escape_controls(text).split())


def _fitting(text: str, width: float, size: float = _FONT) -> str:
    text, end = _one_line(text)[: round(width)], ""  # no letter is narrower than a pixel
    while text and _width(text + end, size) > width:
        text, end = text[:-1], "…"
    return text + end


def _width(text: str, size: float = _FONT) -> float:
    """How wide a text is at most, in pixels."""
    return sum(_EMS.get(letter, 1.0) for letter in text) * size * (_BOLD if size == _TITLE_FONT else 1)


def _value(value: float, axis: Axis) -> str:
    return f"{100 * value:.3g} %" if axis.percent else f"{value:,.4g}"


def _bracket(point: Point, axis: Axis) -> str:
    if point.low is None or point.high is None:
        return ""
    return f" [{_value(point.low, axis)}, {_value(point.high, axis)}]"


def _label(point: Point, plot: CurvePlot, curve: Curve) -> str:
    """The text of a point under the pointer; a point with a name beside it is a model."""
    x, y = _value(point.x, plot.x), _value(point.y, plot.y)
    if curve.named:
        return f"{point.label}: {x} M parameters, {y} ms"
    values = f"{plot.x.title} {x}, {plot.y.title} {y}{_bracket(point, plot.y)}"
    return f"{point.label}: {values}" if point.label else values
