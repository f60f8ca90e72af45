"""Plots as SVG, drawn by matplotlib: a plot's data in, the file's text out."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from scipy import stats

from phaselaw.report.document import DotPlot, Law, Panel, Plot, Point, ScalingPlot

Floats = NDArray[np.float64]

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
INK = "#24292f"
"""Colour of text and axes; a renderer whose page knows dark mode replaces it."""
POINTS, LINE = "#0969da", "#cf6a00"

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "svg.hashsalt": "phaselaw",  # the same plot gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar sign in a model's name is a dollar sign
}
_Place = tuple[float, float, Literal["left", "center", "right"]]
_PLACES: tuple[_Place, ...] = (
    (0, 7, "center"), (0, -14, "center"), (7, -3, "left"), (-7, -3, "right"), (6, 6, "left"), (-6, 6, "right"),
    (6, -12, "left"), (-6, -12, "right"), (0, 18, "center"), (0, -25, "center"), (0, 29, "center"), (0, -36, "center"),
)  # fmt: skip
"""Where a label may stand beside its point: offset in typographic points and alignment, the best first."""


def draw(plot: Plot, *, transparent: bool = False) -> str:
    """A plot as an SVG document whose points carry a tooltip each."""
    with mpl.rc_context(_STYLE):
        figure = _scaling(plot) if isinstance(plot, ScalingPlot) else _dots(plot)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    return _with_tooltips(out.getvalue(), _tooltips(plot), plot)


def band(law: Law, log10_params: Floats) -> Floats | None:
    """Half the width, in log10 of latency, of the interval of the law's line; ``None`` without degrees of freedom."""
    degrees = law.n_models - 2
    if degrees < 1 or law.residual_sd_log10 is None or not law.log10_params_sum_of_squares > 0:
        return None
    spread = 1 / law.n_models + (log10_params - law.log10_params_mean) ** 2 / law.log10_params_sum_of_squares
    half: Floats = stats.t.ppf(0.5 + law.level / 2, degrees) * law.residual_sd_log10 * np.sqrt(spread)
    return half


def _scaling(plot: ScalingPlot) -> Figure:
    columns = min(3, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    width, height = 4.1 * columns, 3.5 * rows
    figure = Figure(figsize=(width, height))
    # Fixed margins (inches): letting matplotlib find them costs more than all the rest of the drawing.
    figure.subplots_adjust(
        left=0.65 / width, right=1 - 0.1 / width, bottom=0.5 / height, top=1 - 0.3 / height, wspace=0.25, hspace=0.35
    )
    panes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, (pane, panel) in enumerate(zip(panes, plot.panels, strict=False)):
        _panel(pane, panel, number)
    for pane in panes[len(plot.panels) :]:
        pane.set_axis_off()
    for pane, panel in zip(panes, plot.panels, strict=False):
        _label(pane, panel.points)
    return figure


def _panel(pane: Axes, panel: Panel, number: int) -> None:
    x = np.array([point.x for point in panel.points])
    pane.set_xscale("log")
    pane.set_yscale("log")
    pane.set_title(panel.title, fontsize=10)
    pane.set_xlabel("parameters (millions)")
    if number == 0:
        pane.set_ylabel("median latency (ms)")
    if panel.law is not None and len(x):
        at = np.linspace(np.log10(x.min()), np.log10(x.max()), 60)
        line = panel.law.log10_intercept + panel.law.slope * at
        pane.plot(10**at, 10**line, color=LINE, linewidth=1.5)
        half = band(panel.law, at)
        if half is not None:
            pane.fill_between(10**at, 10 ** (line - half), 10 ** (line + half), color=LINE, alpha=0.15, linewidth=0)
    for index, point in enumerate(panel.points):
        pane.plot([point.x], [point.y], "o", color=POINTS, markersize=5, gid=f"point-{number}-{index}")
    pane.margins(x=0.22, y=0.16)
    low, high = pane.get_ylim()
    if panel.points:  # a band that flies off must not flatten the points
        least, most = min(point.y for point in panel.points), max(point.y for point in panel.points)
        pane.set_ylim(max(low, least / 8), min(high, most * 8))
    _plain_ticks(pane.xaxis, pane.get_xlim())
    _plain_ticks(pane.yaxis, pane.get_ylim())


def _plain_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Numbers as people write them; 1, 2 and 5 of each decade where there are few decades."""
    few = limits[1] < 300 * limits[0]
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(pane: Axes, points: Sequence[Point]) -> None:
    """Each point's name where it hides neither a point nor another name, as far as that goes."""
    taken = [_around(pane, point) for point in points]
    for point in sorted(points, key=lambda one: one.x):
        label = pane.annotate(
            _short(point.label), (point.x, point.y), xytext=(0, 0), textcoords="offset points", fontsize=7
        )
        size = label.get_window_extent()
        boxes = {place: _box(size, place, pane.figure.dpi / 72) for place in _PLACES}
        best = min(boxes, key=lambda place: _hidden(boxes[place], pane.bbox, taken) + 4 * _PLACES.index(place))
        label.set_position(best[:2])
        label.set_horizontalalignment(best[2])
        taken.append(boxes[best])


def _around(pane: Axes, point: Point) -> Bbox:
    """The square that a point's dot fills, in pixels."""
    x, y = pane.transData.transform((point.x, point.y))
    return Bbox.from_bounds(x - 4, y - 4, 8, 8)


def _box(size: Bbox, place: _Place, pixels: float) -> Bbox:
    """Where a label whose left end stands at its point comes to lie when it is put at ``place``."""
    dx, dy, align = place
    back = {"left": 0.0, "center": 0.5, "right": 1.0}[align] * size.width
    # A little wider than it is, so that two names side by side don't read as one.
    return Bbox.from_bounds(size.x0 + dx * pixels - back - 3, size.y0 + dy * pixels, size.width + 6, size.height)


def _hidden(box: Bbox, within: Bbox, taken: Sequence[Bbox]) -> float:
    """How much of a label lies on something else or outside the plot (square pixels)."""
    overlaps = (Bbox.intersection(box, other) for other in taken)
    covered = sum(both.width * both.height for both in overlaps if both is not None)
    inside = Bbox.intersection(box, within)
    return float(covered + box.width * box.height - (0 if inside is None else inside.width * inside.height))


def _short(name: str) -> str:
    """A model's name without the folders before it, cut where it is very long."""
    last = name.rstrip("/").rsplit("/", 1)[-1] or name
    return last if len(last) <= 28 else f"{last[:27]}…"


def _dots(plot: DotPlot) -> Figure:
    figure = Figure(figsize=(8.2, 1.1 + 0.42 * max(1, len(plot.rows))), layout="constrained")
    pane = figure.subplots()
    pane.axvline(plot.reference, color=INK, linewidth=0.8, linestyle=":")
    for height, (_, points) in enumerate(plot.rows):
        for index, point in enumerate(points):
            shift = 0.24 * ((index % 5) - 2) / 2  # apart, so that equal values don't hide each other
            pane.plot([point.x], [height + shift], "o", color=POINTS, alpha=0.7, markersize=4.5,
                      gid=f"point-{height}-{index}")  # fmt: skip
    pane.set_xscale("log")
    _plain_ticks(pane.xaxis, pane.get_xlim())
    pane.set_yticks(range(len(plot.rows)), [label for label, _ in plot.rows])
    pane.set_ylim(len(plot.rows) - 0.5, -0.5)
    pane.set_xlabel(plot.axis)
    return figure


def _tooltips(plot: Plot) -> dict[str, str]:
    if isinstance(plot, ScalingPlot):
        return {
            f"point-{number}-{index}": f"{point.label}: {point.x:,.4g} M parameters, {point.y:,.4g} ms"
            for number, panel in enumerate(plot.panels)
            for index, point in enumerate(panel.points)
        }
    return {
        f"point-{height}-{index}": f"{point.label}: {point.x:,.3g}"
        for height, (_, points) in enumerate(plot.rows)
        for index, point in enumerate(points)
    }


def _with_tooltips(svg: str, tooltips: dict[str, str], plot: Plot) -> str:
    """The SVG with a name for the whole and one for each point.

    Ids that nothing refers to go, the others begin with the plot's name, so that many plots can stand in one page.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    root.set("role", "img" if not tooltips else "group")
    root.set("aria-label", plot.alt)
    for element in root.iter():
        text = tooltips.get(element.get("id", ""))
        if text is not None:
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = text
            element.insert(0, title)
            element.set("class", "point")
            element.set("role", "img")
            element.set("aria-label", text)
    _own_ids(root, plot.name)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _own_ids(root: ElementTree.Element, name: str) -> None:
    references = re.compile(r"(url\(#|^#)([^)]+)")
    used: set[str] = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            found = references.search(value)
            if found:
                used.add(found[2])
                element.set(key, references.sub(rf"\g<1>{name}-\g<2>", value))
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
