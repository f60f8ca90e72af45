"""Dot plots: values in named rows along one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from phaselaw.report import svg
from phaselaw.report.axes import Scale, limits, value_text
from phaselaw.report.document import DotPlot, Point
from phaselaw.report.field import WIDTH
from phaselaw.report.labels import FONT, fitting

_ROW = 36.0
"""Height of a row: its label, and its dots under it."""
_LEFT, _RIGHT, _BOTTOM = 14.0, 14.0, 40.0


def dot_rows(plot: DotPlot, *, titled: bool) -> Element:
    """A dot plot's drawing (`phaselaw.report.svg.dot`: ``titled``)."""
    top = 8.0 + 18 * bool(plot.title)
    bottom = top + _ROW * max(1, len(plot.rows))
    root = svg.drawing(WIDTH, bottom + _BOTTOM, plot.alt, interactive=any(points for _, points in plot.rows))
    scale = _scale(plot)
    if plot.title:
        svg.write(root, fitting(plot.title, WIDTH - 14, 12.5), 10, 16, "title")
    svg.ticks_below(root, scale, top, bottom, within=WIDTH)
    svg.add(root, "line", "frame", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom)
    if plot.reference is not None:
        at = scale.at(plot.reference)
        svg.add(root, "line", "reference", x1=at, x2=at, y1=top, y2=bottom)
    name = fitting(plot.axis.title, WIDTH - 20, FONT)
    svg.write(root, name, WIDTH / 2, bottom + _BOTTOM - 8, "said", anchor="middle")
    for number, (label, points) in enumerate(plot.rows):
        _row(root, scale, top + _ROW * number, label, points, titled=titled)
    return root


def _scale(plot: DotPlot) -> Scale:
    points = [point for _, row in plot.rows for point in row]
    ends = [end for point in points for end in (point.low, point.high) if end is not None]
    reference = [] if plot.reference is None else [plot.reference]
    low, high = limits(plot.axis, [*(point.x for point in points), *ends, *reference], margin=0.04)
    return Scale(axis=plot.axis, low=low, high=high, start=_LEFT, end=WIDTH - _RIGHT)


def _row(root: Element, scale: Scale, top: float, label: str, points: Sequence[Point], *, titled: bool) -> None:
    svg.write(root, fitting(label, WIDTH - 28, FONT), _LEFT + 2, top + 12, "name")
    for index, point in enumerate(points):
        if not math.isfinite(scale.at(point.x)):
            continue
        # Apart, so that equal values don't hide each other.
        down = top + 24 + (2.5 * (index % 5 - 2) if len(points) > 1 else 0)
        said = f"{point.label}: {value_text(point.x, scale.axis)}"
        if point.low is not None and point.high is not None:
            said += f" [{value_text(point.low, scale.axis)}, {value_text(point.high, scale.axis)}]"
            ends = [scale.at(end) if scale.at(end) == scale.at(end) else scale.start for end in (point.low, point.high)]
            svg.add(root, "line", "line c0", x1=ends[0], x2=ends[1], y1=down, y2=down)
        svg.dot(root, (scale.at(point.x), down), 0, said, titled=titled)
