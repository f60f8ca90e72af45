"""Plots, drawn by matplotlib: data in, SVG out, whose points say their values and whose text stays text."""

from __future__ import annotations

import functools
import io
import math
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import Locator, LogLocator, MaxNLocator
from matplotlib.transforms import Bbox, IdentityTransform
from numpy.typing import NDArray
from scipy import stats

from phaselaw.report import svg_pages
from phaselaw.report.document import Axis, Curve, CurvePlot, DotPlot, Law, Panel, Plot, Point
from phaselaw.report.safe_text import seen

Floats = NDArray[np.float64]
Said = Callable[[Point], str]
"""What a point says under the pointer."""

WIDTH, HEIGHT = 400.0, 300.0
"""Of a panel, in pixels: as wide as a telephone, so that its text is never scaled down to where it can't be read."""
LONGEST = 24
"""Characters of a model's name that are drawn; a pointer shows the rest."""

_DPI = 72
"""matplotlib's SVG has as many pixels to the inch; text sizes below are pixels, the same as in `plots.css`."""
_FONT, _TITLE_FONT, _NAME_HEIGHT, _LINE = 10.5, 12.5, 12.5, 15.0
_RIGHT, _BOTTOM = 12.0, 40.0
_ROW = 36.0
"""Height of a row of a dot plot: its label, and its dots under it."""
_COLOURS = 6
_MOST_TICKS = 9
_ROOM_OF_TICK = 18.0
"""Height that a value beside an axis needs, in pixels."""
_NEAR = 12
"""How many of the places that `_spots` gives are beside the point."""
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
_PARAMS, _LATENCY = Axis(title="parameters (millions)", log=True), Axis(title="median latency (ms)", log=True)


def draw(plot: Plot) -> str:
    """A plot as an SVG file with its own colours, its panels side by side."""
    return svg_pages.file(pieces(plot), plot.alt, columns=3)


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
        return tuple(_panels(plot))


def band(law: Law, log10_params: Floats) -> Floats | None:
    """Half the width, in log10 of latency, of the interval of the law's line; ``None`` without degrees of freedom."""
    degrees = law.n_models - 2
    if degrees < 1 or law.residual_sd_log10 is None or not law.log10_params_sum_of_squares > 0:
        return None
    spread = 1 / law.n_models + (log10_params - law.log10_params_mean) ** 2 / law.log10_params_sum_of_squares
    half: Floats = stats.t.ppf(0.5 + law.level / 2, degrees) * law.residual_sd_log10 * np.sqrt(spread)
    return half


def _panels(plot: Plot) -> Iterator[str]:
    if isinstance(plot, DotPlot):
        yield _dots(plot)
    elif isinstance(plot, CurvePlot):
        words = [(plot.title, "title")]
        yield _curves(plot.curves, (plot.x, plot.y), plot.alt, words, _said_by(plot.x, plot.y),
                      reference=plot.reference, legend=len(plot.curves) > 1)  # fmt: skip
    else:
        for panel in plot.panels:
            models = Curve(label="models", points=panel.points, joined=False, named=True)
            curves = (models,) if panel.law is None else (_law(panel.law, panel), models)
            words = [(panel.title, "title"), (panel.said, "said"), (_warning(panel.warning), "warned")]
            alt = ". ".join(part for part in (plot.alt, panel.title, panel.said, panel.warning) if part)
            yield _curves(curves, (_PARAMS, _LATENCY), alt, words, _said_of_model)


def _curves(
    curves: Sequence[Curve], axes: tuple[Axis, Axis], alt: str, words: Sequence[tuple[str, str]], say: Said, *,
    reference: float | None = None, legend: bool = False,
) -> str:  # fmt: skip
    """A panel of curves under some lines of words, each with its class."""
    figure, down = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI), 0.0
    for text, classes in words:
        if text:
            down += _LINE
            size = _TITLE_FONT if classes == "title" else _FONT
            _write(figure, (10, down), _fitting(text, WIDTH - 14, size), classes, size=size)
    if legend:
        down += _legend(figure, curves, down)
    pane = _pane(figure, down + 12)
    if reference is not None and not _shows(axes[1], reference):
        reference = None
    shown = [(curve, _visible(curve, axes)) for curve in curves]
    _limits(pane, [point for _, points in shown for point in points], axes, reference)
    _axes(figure, pane, axes, down + 12)
    if reference is not None:
        pane.axhline(reference, gid=_classed("reference"), clip_on=False)
    said: list[str] = []
    for number, (curve, points) in enumerate(shown):
        _line(pane, curve, points, number % _COLOURS)
        if curve.dots and points:
            _points(pane, [(point.x, point.y) for point in points], number % _COLOURS)
            said += [say(point) for point in points]
    _names(pane, [point for curve, points in shown if curve.named for point in points])
    return _svg(figure, alt, said)


def _dots(plot: DotPlot) -> str:
    """Values in named rows along one axis."""
    top = 8.0 + 18 * bool(plot.title)
    bottom = top + _ROW * max(1, len(plot.rows))
    figure = Figure(figsize=(WIDTH / _DPI, (bottom + _BOTTOM) / _DPI), dpi=_DPI)
    _write(figure, (10, 16), _fitting(plot.title, WIDTH - 14, _TITLE_FONT), "title", size=_TITLE_FONT)
    pane = _pane(figure, top, left=14.0)
    axes = plot.axis, Axis(title="")
    rows = [(label, _visible(Curve(label=label, points=points), axes)) for label, points in plot.rows]
    ends = [
        (end, 0.0)
        for _, row in rows
        for point in row
        for end in (point.x, point.low, point.high)
        if end is not None and _shows(plot.axis, end)
    ]
    _scale(pane, axes, [*ends, *([] if plot.reference is None else [(plot.reference, 0.0)])], margins=(0.04, 0.0))
    pane.set_ylim(bottom, top)  # down the drawing, in pixels
    _ticks(pane, plot.axis, "x")
    pane.spines["bottom"].set_gid(_classed("frame"))
    if plot.reference is not None:
        pane.axvline(plot.reference, gid=_classed("reference"), clip_on=False)
    said: list[str] = []
    for number, (label, points) in enumerate(rows):
        at = top + _ROW * number
        _write(figure, (16, at + 12), _fitting(label, WIDTH - 28, _FONT), "name")
        # Apart, so that equal values don't hide each other.
        downs = [at + 24 + (2.5 * (index % 5 - 2) if len(points) > 1 else 0) for index in range(len(points))]
        for point, down in zip(points, downs, strict=True):
            if point.low is not None and point.high is not None:
                bar = _within(pane.get_xlim(), (point.low, point.high), log=plot.axis.log)
                pane.plot(bar, (down, down), gid=_classed("line c0"))
            said.append(f"{point.label}: {_value(point.x, plot.axis)}{_bracket(point, plot.axis)}")
        if points:
            _points(pane, [(point.x, down) for point, down in zip(points, downs, strict=True)], 0)
    title = _fitting(plot.axis.title, WIDTH - 20, _FONT)
    _write(figure, (WIDTH / 2, bottom + _BOTTOM - 8), title, "said", ha="center")
    return _svg(figure, plot.alt, said)


def _svg(figure: Figure, alt: str, said: Sequence[str]) -> str:
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing)
    return svg_pages.part_of_page(out.getvalue(), alt, said)


def _classed(classes: str) -> str:
    """The id of an artist whose shapes get these classes."""
    return svg_pages.CLASSED + classes


def _pane(figure: Figure, top: float, *, left: float = 60.0) -> Axes:
    """Axes so many pixels from the edges of the figure."""
    width, height = figure.get_size_inches() * _DPI
    pane = figure.add_axes(_share(width, height, left, top))
    pane.tick_params(length=0)
    return pane


def _share(width: float, height: float, left: float, top: float) -> tuple[float, float, float, float]:
    """What axes fill of a figure, as matplotlib has it; the margins right and below are always the same."""
    return left / width, _BOTTOM / height, (width - left - _RIGHT) / width, (height - _BOTTOM - top) / height


def _write(
    figure: Figure, at: tuple[float, float], text: str, classes: str, *, size: float = _FONT, ha: str = "left",
    rotation: float = 0.0,
) -> None:  # fmt: skip
    """A line of text whose baseline begins, or has its middle, so many pixels from the left and the top."""
    width, height = figure.get_size_inches() * _DPI
    figure.text(
        at[0] / width, 1 - at[1] / height, text, gid=_classed(classes), fontsize=size, ha=ha, va="baseline",
        rotation=rotation, rotation_mode="anchor",
    )  # fmt: skip


def _legend(figure: Figure, curves: Sequence[Curve], down: float) -> float:
    """A legend under what is written, in as many columns as its labels leave room for; its height in pixels."""
    labels = [_fitting(curve.label, WIDTH - 50, _FONT) for curve in curves]
    columns = min(len(curves), max(1, int((WIDTH - 10) // (max(map(_width, labels)) + 34))))
    legend = figure.legend(
        [Line2D([], []) for _ in curves], labels, ncols=columns, loc="upper left", frameon=False, fontsize=_FONT,
        bbox_to_anchor=(10, HEIGHT - down - 7), bbox_transform=IdentityTransform(), borderpad=0, borderaxespad=0,
        labelspacing=0.27, handlelength=1.5, handletextpad=0.4, columnspacing=1.0,
    )  # fmt: skip
    for number, (line, text) in enumerate(zip(legend.get_lines(), legend.get_texts(), strict=True)):
        line.set_gid(_classed(_stroke(curves[number], number % _COLOURS)))
        text.set_gid(_classed("said"))
    return _LINE * -(-len(curves) // columns)


def _visible(curve: Curve, axes: tuple[Axis, Axis]) -> list[Point]:
    """The points that both axes can show."""
    return [point for point in curve.points if _shows(axes[0], point.x) and _shows(axes[1], point.y)]


def _shows(axis: Axis, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


def _limits(pane: Axes, points: Sequence[Point], axes: tuple[Axis, Axis], reference: float | None) -> None:
    """Show all points, and their intervals as far as these don't flatten the points."""
    heights = [point.y for point in points]
    least, most = min(heights, default=1.0), max(heights, default=1.0)
    room = most - least or abs(most)
    floor, ceiling = (least / 8, most * 8) if axes[1].log else (least - room, most + room)
    at = [(point.x, point.y) for point in points]
    for point in points:
        ends = [end for end in (point.low, point.high) if end is not None and math.isfinite(end)]
        at += [(point.x, min(max(end, floor), ceiling)) for end in ends]
    if reference is not None and at:
        at.append((at[0][0], reference))
    _scale(pane, axes, at, margins=(0.09, 0.16))


def _scale(
    pane: Axes, axes: tuple[Axis, Axis], values: Sequence[tuple[float, float]], *, margins: tuple[float, float]
) -> None:
    """Fix the limits of both axes so that they show these values."""
    pane.set_xscale("log" if axes[0].log else "linear")
    pane.set_yscale("log" if axes[1].log else "linear")
    pane.minorticks_off()
    pane.margins(*margins)
    if values:
        pane.update_datalim(values)
    pane.autoscale_view()
    limits = pane.get_xlim(), pane.get_ylim()
    pane.set_xlim(_shown_limits(limits[0], axes[0], [x for x, _ in values]))
    pane.set_ylim(_shown_limits(limits[1], axes[1], [y for _, y in values]))


def _shown_limits(limits: tuple[float, float], axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """The limits that fit the values, made wider where that would mislead."""
    low, high = limits
    # Shares and rates begin at 0: an axis that is cut there shows less than it hides.
    if values and not axis.log and 0 <= min(values) < 0.5 * max(values):
        return 0.0, high
    # What differs by less than anyone measures is drawn as equal, on ticks that can be written.
    middle = math.sqrt(low * high) if axis.log else (low + high) / 2
    room = _LEAST_SPAN * abs(middle) / 2
    return min(low, middle - room), max(high, middle + room)


def _axes(figure: Figure, pane: Axes, axes: tuple[Axis, Axis], top: float) -> None:
    """Ticks, grid, frame and titles; the left margin is as wide as the values beside it need."""
    left = 26.0 + _ticks(pane, axes[1], "y")
    pane.set_position(_share(WIDTH, HEIGHT, left, top))
    _ticks(pane, axes[0], "x")
    pane.spines[["left", "bottom"]].set_gid(_classed("frame"))
    middle = (left + WIDTH - _RIGHT) / 2
    _write(figure, (middle, HEIGHT - 8), _fitting(axes[0].title, WIDTH - left, _FONT), "said", ha="center")
    title = _fitting(axes[1].title, HEIGHT - _BOTTOM - top + 20, _FONT)
    _write(figure, (11, (top + HEIGHT - _BOTTOM) / 2), title, "said", ha="center", rotation=90)


def _ticks(pane: Axes, axis: Axis, which: str) -> float:
    """Round values along an axis, as many as don't touch; the width of the widest, in pixels."""
    drawn = pane.xaxis if which == "x" else pane.yaxis
    low, high = drawn.get_view_interval()
    ticks: list[float] = []
    for locator in _locators(axis, low, high):
        found = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
        ticks, apart = _readable(pane, found, axis, which)
        if 2 <= len(ticks) <= _MOST_TICKS and apart:
            break
    texts = [_tick_text(tick, axis) for tick in ticks]
    drawn.set_ticks(ticks, texts)
    for tick in drawn.get_major_ticks():
        tick.gridline.set(visible=True, clip_on=False, gid=_classed("grid"))
        tick.label1.set_gid(_classed("tick"))
    return max(map(_width, texts), default=0.0)


def _locators(axis: Axis, low: float, high: float) -> Iterator[Locator]:
    """Ways to find ticks, the best first: parts of decades on a log axis that spans about one, or more."""
    if axis.log and high > 8 * low:
        yield LogLocator(subs=(1, 2, 5))
        yield LogLocator(subs=(1, 3))
        yield from (LogLocator(numticks=most) for most in (8, 6, 5, 4, 3))
    for most in (6, 5, 4, 3, 2):
        yield MaxNLocator(most, steps=[1, 2, 5, 10])


def _readable(pane: Axes, ticks: Sequence[float], axis: Axis, which: str) -> tuple[list[float], bool]:
    """The ticks whose texts lie inside the figure, and whether these stand apart from each other."""
    if which == "y":
        rows = pane.transData.transform([(1.0, tick) for tick in ticks] or [(1.0, 1.0)])[:, 1]
        return list(ticks), bool((np.diff(rows) >= _ROOM_OF_TICK).all())
    spots = pane.transData.transform([(tick, 1.0) for tick in ticks] or [(1.0, 1.0)])[: len(ticks), 0]
    halves = np.array([_width(_tick_text(tick, axis)) / 2 + 3 for tick in ticks])
    inside = (spots - halves > 0) & (spots + halves < WIDTH)
    apart = np.diff(spots[inside]) >= halves[inside][1:] + halves[inside][:-1]
    return [tick for tick, one in zip(ticks, inside, strict=True) if one], bool(apart.all())


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
        (point.x, _within(pane.get_ylim(), (point.low, point.high), log=pane.get_yscale() == "log"))
        for point in points
        if point.low is not None and point.high is not None
    ]
    if not curve.joined:
        for x, ends in ranges:
            pane.plot((x, x), ends, gid=_classed(f"line c{colour}"))
        return
    if len(ranges) > 1:
        xs = [x for x, _ in ranges]
        edge = [high for _, (_, high) in ranges] + [low for _, (low, _) in reversed(ranges)]
        pane.fill(xs + xs[::-1], edge, gid=_classed(f"band c{colour}"))
    pane.plot([p.x for p in points], [p.y for p in points], gid=_classed(_stroke(curve, colour)))


def _stroke(curve: Curve, colour: int) -> str:
    return f"line c{colour}" + (" dashed" if curve.dashed else "")


def _within(limits: tuple[float, float], ends: tuple[float, float], *, log: bool) -> tuple[float, float]:
    """The ends of an interval; one that an axis can't show, or that has none, far outside it."""
    low, high = limits
    far = (low / 1e6, high * 1e6) if log else (low - 1e3 * (high - low), high + 1e3 * (high - low))
    return min(max(ends[0], far[0]), far[1]), min(max(ends[1], far[0]), far[1])


def _points(pane: Axes, at: Sequence[tuple[float, float]], colour: int) -> None:
    xs, ys = zip(*at, strict=True)
    pane.plot(xs, ys, "o", gid=_classed(f"point c{colour}"), clip_on=False, zorder=2.5)


def _names(pane: Axes, points: Sequence[Point]) -> None:
    """Each point's name where it hides neither a point nor another name; with a line to it where that is not near."""
    within, at = (
        pane.get_window_extent(),
        pane.transData.transform([(point.x, point.y) for point in points] or [(1, 1)]),
    )
    within = Bbox.from_extents(within.x0 + 2, within.y0 + 2, WIDTH - 1, within.y1)
    taken = np.hstack([at - 5, at + 5])
    for number in sorted(range(len(points)), key=lambda one: (at[one][0], -at[one][1])):
        text = _short(points[number].label)
        size = np.array([_width(text), _NAME_HEIGHT])
        spots = _spots(at[number], size, within)
        free = np.flatnonzero(_free(np.hstack([spots, spots + size]), within, taken))
        if not len(free):
            continue
        spot = spots[free[0]]
        line = {"arrowstyle": "-", "gid": _classed("leader"), "shrinkA": 0, "shrinkB": 0}
        pane.annotate(
            text, (points[number].x, points[number].y), (spot[0], spot[1] + 3), textcoords="figure pixels",
            fontsize=_FONT, gid=_classed("name"), arrowprops=line if free[0] >= _NEAR else None,
        )  # fmt: skip
        taken = np.vstack([taken, np.hstack([spot, spot + size])])


def _spots(at: Floats, size: Floats, within: Bbox) -> Floats:
    """Lower left corners where a name may stand: beside its point, the best first; then anywhere, the nearest first."""
    x, y, (width, high) = at[0], at[1], size
    middle, right, left, aside, back = x - width / 2, x + 7, x - 7 - width, x + 4, x - 4 - width
    above, below, level, over, under = y + 7, y - 7 - high, y - high / 2, y + 4, y - 3 - high
    near = [
        (middle, above), (middle, below), (right, level), (left, level), (aside, over), (back, over), (aside, under),
        (back, under), (aside, above), (back, above), (aside, below), (back, below),
    ]  # fmt: skip
    grid = np.meshgrid(np.arange(within.x0 + 1, within.x1 - width, 12), np.arange(within.y0 + 1, within.y1 - high, 7))
    far = np.stack(grid, axis=-1).reshape(-1, 2)
    return np.vstack([near, far[np.argsort(np.hypot(*(far + size / 2 - at).T), kind="stable")]])


def _free(boxes: Floats, within: Bbox, taken: Floats) -> NDArray[np.bool_]:
    """Which boxes (left, bottom, right, top) lie inside and on nothing that is taken."""
    inside = (boxes[:, :2] >= within.min).all(axis=1) & (boxes[:, 2:] <= within.max).all(axis=1)
    over = np.logical_and(boxes[:, None, :2] < taken[:, 2:], boxes[:, None, 2:] > taken[:, :2])
    free: NDArray[np.bool_] = inside & ~np.any(np.all(over, axis=2), axis=1)
    return free


def _short(name: str) -> str:
    """A model's name without the folders before it, cut where it is very long."""
    last = _one_line(name.rstrip("/").rsplit("/", 1)[-1] or name)
    return last if len(last) <= LONGEST else f"{last[: LONGEST - 1]}…"


def _one_line(text: str) -> str:
    return " ".join(seen(text).split())


def _fitting(text: str, width: float, size: float) -> str:
    """A text cut to a width in pixels."""
    text = _one_line(text)
    if _width(text, size) <= width:
        return text
    while text and _width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


@functools.lru_cache(maxsize=4096)
def _width(text: str, size: float = _FONT) -> float:
    """How wide a text is, in pixels, in DejaVu Sans: the widest that a page may have; it lacks ideographs."""
    full = "".join("@" if unicodedata.east_asian_width(char) in {"W", "F"} else char for char in text)
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if size == _TITLE_FONT else "normal")
    return float(text_to_path.get_text_width_height_descent(full, font, ismath=False)[0])


def _warning(suspicions: str) -> str:
    """What is suspect in a line: by name, or, where that is too long, by count."""
    if not suspicions:
        return ""
    named = f"⚠ {suspicions}"
    return named if _width(named) < WIDTH - 14 else f"⚠ {len(suspicions.split(', '))} checks suspect its rows"


def _law(law: Law, panel: Panel) -> Curve:
    """A law's line with its band, between its smallest and its largest model."""
    ends = [math.log10(point.x) for point in panel.points] or [0.0, 1.0]
    at = np.linspace(min(ends), max(ends), 24)
    line, half = law.log10_intercept + law.slope * at, band(law, at)
    points = [Point(label="", x=10**x, y=10**y) for x, y in zip(at.tolist(), line.tolist(), strict=True)]
    if half is not None:
        points = [
            Point(label="", x=point.x, y=point.y, low=point.y / 10**one, high=point.y * 10**one)
            for point, one in zip(points, half.tolist(), strict=True)
        ]
    return Curve(label="law", points=tuple(points), dots=False, dashed=bool(panel.warning))


def _value(value: float, axis: Axis) -> str:
    """A value as a point says it."""
    return f"{100 * value:.3g} %" if axis.percent else f"{value:,.4g}"


def _bracket(point: Point, axis: Axis) -> str:
    if point.low is None or point.high is None:
        return ""
    return f" [{_value(point.low, axis)}, {_value(point.high, axis)}]"


def _said_of_model(point: Point) -> str:
    return f"{point.label}: {_value(point.x, _PARAMS)} M parameters, {_value(point.y, _LATENCY)} ms"


def _said_by(x: Axis, y: Axis) -> Said:
    def said(point: Point) -> str:
        values = f"{x.title} {_value(point.x, x)}, {y.title} {_value(point.y, y)}{_bracket(point, y)}"
        return f"{point.label}: {values}" if point.label else values

    return said
