"""Plots, drawn by matplotlib: data in, SVG out, whose points say their values and whose text stays text."""

import functools
import io
import math
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox, IdentityTransform

from phaselaw.report import svg_pages
from phaselaw.report.document import Axis, Curve, CurvePlot, DotPlot, Panels, Plot, Point, escape_controls

WIDTH, HEIGHT = 400.0, 300.0
"""Of a panel, in pixels: as wide as a telephone, so that its text is never scaled down to where it can't be read."""
MOST_DRAWN, MOST_NAMED = 200, 40
LONGEST = 24
"""Characters of a model's name that are drawn; a pointer shows the rest."""

_DPI = 72
"""matplotlib's SVG has as many pixels to the inch; text sizes below are pixels, the same as in `plots.css`."""
_FONT, _TITLE_FONT, _NAME_HEIGHT, _LINE = 10.5, 12.5, 12.5, 15.0
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
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "svg.hashsalt": "phaselaw",  # the same plot gives the same bytes
    "text.parse_math": False,  # a dollar sign in a model's name is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": _FONT,
    "axes.axisbelow": True,
}


def draw(plot: Plot) -> str:
    """A plot as an SVG file with its own colours, its panels side by side."""
    return svg_pages.file(pieces(plot), plot.caption, columns=3)


@functools.lru_cache(maxsize=512)
def pieces(plot: Plot) -> tuple[str, ...]:
    """A plot's panels as parts of a page, which colours them and stacks them where it is narrow.

    Kept, since a report shows each plot twice: in its page and in a file.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        # A name may have letters that matplotlib's font lacks; a browser finds them in another.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()  # what a user's matplotlibrc says is of their plots
        mpl.rcParams.update(_STYLE)
        if isinstance(plot, DotPlot):
            return (_dots(plot),)
        return tuple(map(_curves, plot.panels if isinstance(plot, Panels) else (plot,)))


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
    pane, top = _pane(HEIGHT, lines, labelled if len(plot.curves) > 1 else ())
    some = [(curve, curve.points[:: one_of if curve.dots else 1]) for curve in plot.curves]
    shown = [(curve, [p for p in points if _shows(x, p.x) and _shows(y, p.y)]) for curve, points in some]
    points = [point for _, those in shown for point in those]
    heights = _heights(points, log=y.log)
    reference = plot.reference if plot.reference is not None and _shows(y, plot.reference) else None
    if reference is not None and points:
        heights.append(reference)
    high = HEIGHT - _BOTTOM - top
    widest = _axis(pane.yaxis, y, heights, high, margin=0.16)
    _axis(pane.xaxis, x, [point.x for point in points], _place(pane, 26.0 + widest, high), margin=0.09)
    if reference is not None:
        pane.axhline(reference, gid="class:reference", clip_on=False)
    labels: list[str] = []
    for curve, those in shown:
        colour = _colour(plot, curve)
        _line(pane, curve, those, colour)
        if curve.dots and those:
            _points(pane, [(point.x, point.y) for point in those], colour)
            labels += [_label(point, plot, curve) for point in those]
    _names(pane, [point for curve, those in shown if curve.named for point in those])
    return _svg(pane, ". ".join(filter(None, (plot.title, plot.caption, plot.warning))), labels)


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
    pane, top = _pane(height, [(plot.title, "title")], legend)
    found = [value for _, points in rows for point in points for value in (point.x, point.low, point.high)]
    ends = [value for value in (*found, plot.reference) if value is not None and _shows(plot.axis, value)]
    _axis(pane.xaxis, plot.axis, ends, _place(pane, 14.0, height - _BOTTOM - top), margin=0.04)
    pane.set_ylim(max(1, len(rows)), 0)
    pane.yaxis.set_visible(False)
    if plot.reference is not None:
        pane.axvline(plot.reference, gid="class:reference", clip_on=False)
    labels: list[str] = []
    for row, (label, points) in enumerate(rows):
        across = pane.get_yaxis_transform()
        pane.text(0.005, row + 0.36, _fitting(label, WIDTH - 28), gid="class:name", transform=across)
        for at, point in enumerate(points):
            # Apart, so that equal values don't hide each other.
            down, colour = (
                row + 0.7 + 0.1 * (at % 5 - min(len(points) - 1, 4) / 2),
                kinds.index(point.label) if told else 0,
            )
            if plot.bars and plot.reference is not None:
                pane.fill_between((plot.reference, point.x), down - 0.13, down + 0.13, gid=f"class:bar c{row}")
            if point.low is not None and point.high is not None:
                bar = _within(pane.get_xlim(), (point.low, point.high), log=plot.axis.log)
                pane.fill_between(bar, down - 0.08, down + 0.08, gid=f"class:band c{colour}")
                pane.plot(bar, (down, down), gid=f"class:line c{colour}")
            _points(pane, [(point.x, down)], colour)
            labels.append(f"{point.label}: {_value(point.x, plot.axis)}{_bracket(point, plot.axis)}")
    return _svg(pane, plot.caption, labels)


def _pane(height: float, lines: Sequence[tuple[str, str]], legend: Sequence[tuple[int, Curve]]) -> tuple[Axes, float]:
    """Axes under lines of words, each with its class, and a legend; and where their top is, in pixels."""
    figure, down = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI), 0.0
    for text, name in lines:
        if text:
            down += _LINE
            size = _TITLE_FONT if name == "title" else _FONT
            short = _fitting(text, WIDTH - 14, size)
            figure.text(10 / WIDTH, 1 - down / height, short, gid=f"class:{name}", fontsize=size)
    if legend:
        down += _legend(figure, legend, height - down - 7)
    pane = figure.add_subplot()
    pane.tick_params(length=0)
    _place(pane, 14.0, height - _BOTTOM - down - 12)
    return pane, down + 12


def _place(pane: Axes, left: float, high: float) -> float:
    """Put the axes so many pixels from the left, so high, over the title below; their width in pixels."""
    width, height = cast(Figure, pane.figure).get_size_inches() * _DPI
    across = float(width) - left - _RIGHT
    pane.set_position((left / width, _BOTTOM / height, across / width, high / height))
    return across


def _svg(pane: Axes, alt: str, labels: Sequence[str]) -> str:
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    cast(Figure, pane.figure).savefig(out, format="svg", metadata=nothing)
    return svg_pages.part_of_page(out.getvalue(), alt, labels)


def _legend(figure: Figure, curves: Sequence[tuple[int, Curve]], top: float) -> float:
    """A legend from a height downwards, in as many columns as its labels leave room for; its height in pixels."""
    labels = [_fitting(curve.label, WIDTH - 50) for _, curve in curves]
    columns = min(len(curves), max(1, int((WIDTH - 10) // (max(map(_width, labels)) + 34))))
    where: Any = {"loc": "upper left", "bbox_to_anchor": (10, top), "bbox_transform": IdentityTransform()}
    room: Any = {"borderpad": 0, "borderaxespad": 0, "labelspacing": 0.27, "handlelength": 1.5, "handletextpad": 0.4}
    handles = [Line2D([], []) for _ in curves]
    legend = figure.legend(handles, labels, ncols=columns, frameon=False, columnspacing=1.0, **where, **room)
    for (colour, curve), line, text in zip(curves, legend.get_lines(), legend.get_texts(), strict=True):
        line.set_gid(_stroke(curve, colour))
        text.set_gid("class:said")
    return _LINE * -(-len(curves) // columns)


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


def _axis(drawn: XAxis | YAxis, axis: Axis, values: Sequence[float], length: float, *, margin: float) -> float:
    """Limits that show these values, round ticks, as many as don't touch, a grid, a frame and a title.

    Returns the width of the widest tick's text, in pixels.
    """
    pane, across = drawn.axes, drawn.axis_name == "x"
    (pane.set_xscale if across else pane.set_yscale)("log" if axis.log else "linear")
    low, high = (pane.set_xlim if across else pane.set_ylim)(_limits(values, axis, margin))
    for locator in _locators(axis, low, high):
        ticks = np.array([tick for tick in locator.tick_values(low, high) if low <= tick <= high])
        spots = drawn.get_transform().transform(np.array([low, high, *ticks]))
        spots = length * (spots[2:] - spots[0]) / (spots[1] - spots[0])
        sizes = np.full(len(ticks), _ROOM_OF_TICK)
        if across:
            sizes = np.array([_width(_tick_text(tick, axis)) + 6 for tick in ticks.tolist()])
            inside = (spots - sizes / 2 > length + _RIGHT - WIDTH) & (spots + sizes / 2 < length + _RIGHT)
            ticks, spots, sizes = ticks[inside], spots[inside], sizes[inside]
        if 2 <= len(ticks) <= _MOST_TICKS and (np.diff(spots) >= (sizes[1:] + sizes[:-1]) / 2).all():
            break
    texts = [_tick_text(tick, axis) for tick in ticks.tolist()]
    drawn.set_ticks(ticks, texts)
    drawn.set_minor_locator(NullLocator())
    for tick in drawn.get_major_ticks():
        tick.gridline.set(visible=True, clip_on=False, gid="class:grid")
        tick.label1.set_gid("class:tick")
    pane.spines["bottom" if across else "left"].set_gid("class:frame")
    drawn.set_label_text(_fitting(axis.title, length), gid="class:said")
    drawn.labelpad = 8 if across else 4
    return max(map(_width, texts), default=0.0)


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


def _locators(axis: Axis, low: float, high: float) -> Iterator[Locator]:
    """Ways to find ticks, the best first: parts of decades on a log axis that spans about one, or more."""
    if axis.log and high > 8 * low:
        yield LogLocator(subs=(1, 2, 5))
        yield LogLocator(subs=(1, 3))
        yield from (LogLocator(numticks=most) for most in (8, 6, 5, 4, 3))
    yield from (MaxNLocator(most, steps=[1, 2, 5, 10]) for most in (6, 5, 4, 3, 2))


def _tick_text(value: float, axis: Axis) -> str:
    """A tick's value as people write it."""
    if axis.percent:
        return f"{100 * value:.6g} %"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def _line(pane: Axes, curve: Curve, points: Sequence[Point], colour: int) -> None:
    """A curve's line and the band of its intervals, or their bars where it is not joined."""
    ranges = [
        (point.x, *_within(pane.get_ylim(), (point.low, point.high), log=pane.get_yscale() == "log"))
        for point in points
        if point.low is not None and point.high is not None
    ]
    if not curve.joined:
        for x, low, high in ranges:
            pane.plot((x, x), (low, high), gid=f"class:line c{colour}")
        return
    if len(ranges) > 1:
        pane.fill_between(*np.array(ranges).T, gid=f"class:band c{colour}")
    pane.plot([p.x for p in points], [p.y for p in points], gid=_stroke(curve, colour))


def _stroke(curve: Curve, colour: int) -> str:
    return f"class:line c{colour}" + (" dashed" if curve.dashed else "")


def _within(limits: tuple[float, float], ends: tuple[float, float], *, log: bool) -> list[float]:
    """The ends of an interval; one that an axis can't show, or that has none, far outside it."""
    low, high = limits
    far = (low / 1e6, high * 1e6) if log else (low - 1e3 * (high - low), high + 1e3 * (high - low))
    return [min(max(end, far[0]), far[1]) for end in ends]


def _points(pane: Axes, at: Sequence[tuple[float, float]], colour: int) -> None:
    pane.plot(*zip(*at, strict=True), "o", gid=f"class:point c{colour}", clip_on=False, zorder=2.5)


def _names(pane: Axes, points: Sequence[Point]) -> None:
    """Each point's name where it hides neither a point nor another name; with a line to it where that is not near.

    Of more than `MOST_NAMED` points so many are named, evenly: all of them say their names under the pointer.
    """
    points = points[:: max(1, -(-len(points) // MOST_NAMED))]
    within = pane.get_window_extent()
    within = Bbox.from_extents(within.x0 + 2, within.y0 + 2, WIDTH - 1, within.y1)
    places = [pane.transData.transform((point.x, point.y)).tolist() for point in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in places]
    leader = {"arrowstyle": "-", "gid": "class:leader", "shrinkA": 0, "shrinkB": 0}
    for (x, y), point in sorted(zip(places, points, strict=True), key=lambda pair: (pair[0][0], -pair[0][1])):
        # A model's name without the folders before it, cut where it is very long.
        text = _one_line(point.label.rstrip("/").rsplit("/", 1)[-1] or point.label)
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
        for ring, box in _spots(x, y, _width(text)):
            inside = within.x0 <= box.x0 and box.x1 <= within.x1 and within.y0 <= box.y0 and box.y1 <= within.y1
            if inside and not box.count_overlaps(taken):
                at, arrow = (box.x0, box.y0 + 3), leader if ring else None
                pane.annotate(text, (point.x, point.y), at, "data", "figure pixels", arrow, gid="class:name")
                taken.append(box)
                break


def _spots(x: float, y: float, width: float) -> Iterator[tuple[int, Bbox]]:
    """Where a name may stand: in rings around its point, the best first; the first ring is beside it."""
    for ring in range(24):
        gap = 7 + 13 * ring
        for angle in map(math.radians, _ANGLES):
            left = x + math.cos(angle) * (width / 2 + gap) - width / 2
            low = y + math.sin(angle) * (_NAME_HEIGHT / 2 + gap) - _NAME_HEIGHT / 2
            yield ring, Bbox.from_bounds(left, low, width, _NAME_HEIGHT)


def _one_line(text: str) -> str:
    return " ".join(escape_controls(text).split())


def _fitting(text: str, width: float, size: float = _FONT) -> str:
    """A text cut to a width in pixels."""
    text, end = _one_line(text)[: round(width)], ""  # no letter is narrower than a pixel
    while text and _width(text + end, size) > width:
        text, end = text[:-1], "…"
    return text + end


@functools.lru_cache(maxsize=4096)
def _width(text: str, size: float = _FONT) -> float:
    """How wide a text is, in pixels, in DejaVu Sans: the widest that a page may have; it lacks ideographs."""
    full = "".join("@" if unicodedata.east_asian_width(char) in {"W", "F"} else char for char in text)
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if size == _TITLE_FONT else "normal")
    return float(text_to_path.get_text_width_height_descent(full, font, ismath=False)[0])


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
