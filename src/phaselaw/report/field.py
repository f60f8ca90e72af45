"""The field of a plot: axes with their ticks, curves with bands on them, points with their names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from phaselaw.report import svg
from phaselaw.report.axes import Scale, limits
from phaselaw.report.document import Axis, Curve, Point
from phaselaw.report.labels import FONT, Box, fitting, place, width_of

WIDTH, HEIGHT = 400.0, 300.0
"""In pixels: as wide as a telephone, so that its text is never scaled down to where it can't be read."""
COLOURS = 6
_RIGHT, _BOTTOM, _LINE = 12.0, 40.0, 15.0
_TITLE_FONT = 12.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """Curves on a pair of scales, with the words above them."""

    curves: tuple[Curve, ...]
    x: Scale
    y: Scale
    title: str
    said: str
    warning: str
    reference: float | None
    legend: tuple[tuple[int, ...], ...]
    """Lines of the legend: the numbers of the curves in each."""

    @classmethod
    def of(
        cls, curves: tuple[Curve, ...], x: Axis, y: Axis, *, title: str, said: str = "", warning: str = "",
        reference: float | None = None, legend: bool = False,
    ) -> Field:  # fmt: skip
        """The field that shows all of the curves' points; a legend only where there are several curves."""
        lines = _legend(curves) if legend and len(curves) > 1 else ()
        top = 12 + _LINE * (bool(title) + bool(said) + bool(warning) + len(lines))
        low, high = limits(y, _heights(curves, y, reference), margin=0.16)
        up = Scale(axis=y, low=low, high=high, start=HEIGHT - _BOTTOM, end=top)
        left = 26.0 + max(width_of(up.text(tick)) for tick in up.ticks())
        low, high = limits(x, (point.x for curve in curves for point in curve.points), margin=0.09)
        across = Scale(axis=x, low=low, high=high, start=left, end=WIDTH - _RIGHT)
        return cls(
            curves=curves, x=across, y=up, title=title, said=said, warning=warning, reference=reference, legend=lines
        )

    def drawn(self, alt: str, say: svg.Said, *, titled: bool) -> Element:
        """The drawing; ``say`` is what a point's tooltip says (`phaselaw.report.svg.dot`: ``titled``)."""
        root = svg.drawing(WIDTH, HEIGHT, alt, interactive=any(curve.dots for curve in self.curves))
        self._words(root)
        self._axes(root)
        # A drawing in the drawing cuts off what sticks out of the axes.
        width, height = self.x.end - self.x.start, self.y.start - self.y.end
        box = f"{self.x.start:.1f} {self.y.end:.1f} {width:.1f} {height:.1f}"
        inner = svg.add(root, "svg", x=self.x.start, y=self.y.end, width=width, height=height, viewBox=box)
        for number, curve in enumerate(self.curves):
            self._line(inner, curve, number % COLOURS)
        for number, curve in enumerate(self.curves):
            for point in self._visible(curve) if curve.dots else ():
                svg.dot(root, self._pixels(point.x, point.y), number % COLOURS, say(point), titled=titled)
        self._names(root)
        return root

    def _words(self, root: Element) -> None:
        down = 0.0
        words = (self.title, "title", _TITLE_FONT), (self.said, "said", FONT), (self.warning, "warned", FONT)
        for text, classes, font in words:
            if text:
                down += _LINE
                svg.write(root, fitting(text, WIDTH - 14, font), 10, down, classes)
        for line in self.legend:
            down, across = down + _LINE, 10.0
            for number in line:
                label = _legend_text(self.curves[number])
                svg.add(root, "line", self._stroke(number), x1=across, y1=down - 4, x2=across + 16, y2=down - 4)
                svg.write(root, label, across + 20, down, "said")
                across += 32 + width_of(label)

    def _stroke(self, number: int) -> str:
        return f"line c{number % COLOURS}" + (" dashed" if self.curves[number].dashed else "")

    def _axes(self, root: Element) -> None:
        left, right, top, bottom = self.x.start, self.x.end, self.y.end, self.y.start
        svg.ticks_below(root, self.x, top, bottom, within=WIDTH)
        for tick in self.y.ticks():
            at = self.y.at(tick)
            svg.add(root, "line", "grid", x1=left, y1=at, x2=right, y2=at)
            svg.write(root, self.y.text(tick), left - 4, at + 3.5, "tick", anchor="end")
        svg.add(root, "polyline", "frame", points=svg.path([(left, top), (left, bottom), (right, bottom)]))
        if self.reference is not None and math.isfinite(self.y.at(self.reference)):
            at = self.y.at(self.reference)
            svg.add(root, "line", "reference", x1=left, y1=at, x2=right, y2=at)
        name = fitting(self.x.axis.title, WIDTH - left, FONT)
        svg.write(root, name, (left + right) / 2, HEIGHT - 8, "said", anchor="middle")
        middle = (top + bottom) / 2
        name = fitting(self.y.axis.title, bottom - top + 20, FONT)
        svg.write(root, name, 11, middle, "said", anchor="middle").set("transform", f"rotate(-90 11 {middle:.1f})")

    def _line(self, inner: Element, curve: Curve, colour: int) -> None:
        points = self._visible(curve)
        ranges = [(point.x, point.low, point.high) for point in points if point.low is not None]
        if not curve.joined:
            for x, low, high in ranges:
                (left, bottom), (_, top) = self._pixels(x, low), self._pixels(x, high)
                svg.add(inner, "line", f"line c{colour}", x1=left, x2=left, y1=bottom, y2=top)
            return
        if len(ranges) > 1:
            upper = [self._pixels(x, high) for x, _, high in ranges]
            lower = [self._pixels(x, low) for x, low, _ in reversed(ranges)]
            svg.add(inner, "polygon", f"band c{colour}", points=svg.path([*upper, *lower]))
        dashed = " dashed" if curve.dashed else ""
        svg.add(inner, "polyline", f"line c{colour}{dashed}", points=svg.path(self._pixels(p.x, p.y) for p in points))

    def _names(self, root: Element) -> None:
        points = [point for curve in self.curves if curve.named for point in self._visible(curve)]
        named = [(*self._pixels(point.x, point.y), point.label) for point in points]
        within = Box(self.x.start + 2, self.y.end, WIDTH - 1, self.y.start - 2)
        for (x, y, _), placed in zip(named, place(named, within), strict=True):
            if placed is None:
                continue
            box = placed.box
            if placed.led:
                end_x, end_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
                svg.add(root, "line", "leader", x1=x, y1=y, x2=end_x, y2=end_y)
            svg.write(root, placed.text, box.left, box.bottom - 3, "name")

    def _visible(self, curve: Curve) -> list[Point]:
        return [
            point for point in curve.points if math.isfinite(self.x.at(point.x)) and math.isfinite(self.y.at(point.y))
        ]

    def _pixels(self, x: float, y: float | None) -> tuple[float, float]:
        """Where a value lies; one far outside stands a drawing's height away, one that has no place below."""
        down = math.nan if y is None else self.y.at(y)
        return self.x.at(x), min(max(down, -HEIGHT), 2 * HEIGHT) if math.isfinite(down) else 2 * HEIGHT


def _heights(curves: Sequence[Curve], y: Axis, reference: float | None) -> list[float]:
    """What the y axis must show: all points, and their intervals as far as these don't flatten the points."""
    points = [point for curve in curves for point in curve.points]
    values = [point.y for point in points if math.isfinite(point.y)]
    if not values:
        return []
    least, most = min(values), max(values)
    room = most - least or abs(most)
    floor, ceiling = (least / 8, most * 8) if y.log else (least - room, most + room)
    ends = [end for point in points for end in (point.low, point.high) if end is not None and math.isfinite(end)]
    shown = [min(max(end, floor), ceiling) for end in ends]
    return [*values, *shown, *([] if reference is None else [reference])]


def _legend(curves: Sequence[Curve]) -> tuple[tuple[int, ...], ...]:
    """The numbers of the curves in as many lines as their names need."""
    lines: list[list[int]] = [[]]
    across = 10.0
    for number, curve in enumerate(curves):
        needs = 32 + width_of(_legend_text(curve))
        if lines[-1] and across + needs > WIDTH:
            lines.append([])
            across = 10.0
        lines[-1].append(number)
        across += needs
    return tuple(tuple(line) for line in lines)


def _legend_text(curve: Curve) -> str:
    return fitting(curve.label, WIDTH - 44, FONT)
