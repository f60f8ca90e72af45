"""Pieces of an SVG drawing: shapes with classes, whose colours a style sheet gives (`plots.css`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib import resources
from xml.etree.ElementTree import Element, SubElement, tostring

from phaselaw.report.axes import Scale
from phaselaw.report.document import Point
from phaselaw.report.labels import width_of
from phaselaw.report.safe_text import seen

Said = Callable[[Point], str]
"""What a point's tooltip says."""

NAMESPACE = "http://www.w3.org/2000/svg"

PAPER = {
    "ink": "#1f2328", "soft": "#59636e", "page": "#ffffff", "line": "#d1d9e0", "warn": "#9a4a00",
    "c0": "#0969da", "c1": "#bc4c00", "c2": "#1a7f37", "c3": "#8250df", "c4": "#cf222e", "c5": "#0e7490",
}  # fmt: skip
"""The colours of a drawing that stands alone; a page has its own, light and dark (`page.css`)."""


def drawing(width: float, height: float, alt: str, *, interactive: bool) -> Element:
    """An empty drawing of so many pixels that says what there is to see."""
    role = "group" if interactive else "img"
    size = {"viewBox": f"0 0 {_short(width)} {_short(height)}", "width": _short(width), "height": _short(height)}
    return Element("svg", {"class": "plot", "role": role, "aria-label": seen(alt)} | size)


def add(parent: Element, tag: str, classes: str = "", **attributes: float | str) -> Element:
    """A shape in a drawing; numbers are rounded to a tenth of a pixel."""
    said = {
        name.replace("_", "-"): value if isinstance(value, str) else _short(value) for name, value in attributes.items()
    }
    return SubElement(parent, tag, ({"class": classes} if classes else {}) | said)


def write(parent: Element, text: str, x: float, y: float, classes: str, *, anchor: str = "start") -> Element:
    """A line of text whose baseline begins, centres or ends at a point."""
    element = add(parent, "text", classes, x=x, y=y)
    if anchor != "start":
        element.set("text-anchor", anchor)
    element.text = seen(text)
    return element


def dot(parent: Element, at: tuple[float, float], colour: int, said: str, *, titled: bool) -> None:
    """A dot that says what it is; an unseen rim gives the pointer room (`plots.css`).

    ``titled`` gives it a title, which a viewer of a file shows; a page shows its label itself.
    """
    spot = add(parent, "circle", f"point c{colour}", cx=at[0], cy=at[1], r=3.8, aria_label=seen(said))
    if titled:
        SubElement(spot, "title").text = seen(said)


def ticks_below(parent: Element, scale: Scale, top: float, bottom: float, *, within: float) -> None:
    """The grid lines of an axis that runs across, and its values below them as far as they don't touch."""
    taken = -math.inf
    for tick in scale.ticks():
        at, text = scale.at(tick), scale.text(tick)
        half = width_of(text) / 2
        add(parent, "line", "grid", x1=at, y1=top, x2=at, y2=bottom)
        if at - half > max(taken, 0) and at + half <= within:
            write(parent, text, at, bottom + 14, "tick", anchor="middle")
            taken = at + half + 4


def path(points: Iterable[tuple[float, float]]) -> str:
    """Points as the ``points`` of a polyline or polygon."""
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in points)


def inline(root: Element) -> str:
    """A drawing as part of a page."""
    return tostring(root, encoding="unicode")


def alone(panels: list[Element], alt: str, columns: int) -> str:
    """Drawings side by side, as a file with its own colours."""
    widths, heights = [_size(panel, "width") for panel in panels], [_size(panel, "height") for panel in panels]
    across = min(columns, len(panels))
    width, row_height = max(widths), max(heights)
    down = -(-len(panels) // across)
    root = drawing(width * across, row_height * down, alt, interactive=len(panels) > 0)
    root.set("xmlns", NAMESPACE)
    style = resources.files("phaselaw.report").joinpath("plots.css").read_text(encoding="utf-8")
    for name, colour in PAPER.items():
        style = style.replace(f"var(--{name})", colour)
    SubElement(root, "style").text = style.replace("svg.plot ", "")
    add(root, "rect", width="100%", height="100%", fill=PAPER["page"])
    for number, panel in enumerate(panels):
        panel.set("x", _short(width * (number % across)))
        panel.set("y", _short(row_height * (number // across)))
        root.append(panel)
    return tostring(root, encoding="unicode") + "\n"


def _size(panel: Element, name: str) -> float:
    return float(panel.get(name, "0"))


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
