"""matplotlib's SVG made small and fit for a page: shapes with classes (`plots.css`), points that say what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from phaselaw.report.document import escape_controls

CLASSED = "class:"
"""How the id of an artist begins whose shapes get the classes after it; other shapes are left out."""

_SVG = "http://www.w3.org/2000/svg"
_PAPER = {
    "ink": "#1f2328", "soft": "#59636e", "page": "#ffffff", "line": "#d1d9e0", "warn": "#9a4a00",
    "c0": "#0969da", "c1": "#bc4c00", "c2": "#1a7f37", "c3": "#8250df", "c4": "#cf222e", "c5": "#0e7490",
}  # fmt: skip
"""The colours of a drawing that stands alone; a page has its own, light and dark (`page.css`)."""

_NUMBER = re.compile(r"-?\d+\.?\d*")


def part_of_page(drawn: str, alt: str, labels: Sequence[str]) -> str:
    """A drawing as part of a page, which colours it by its classes; ``labels`` are those of the points, in order."""
    root = ElementTree.fromstring(drawn)
    width, height = root.get("viewBox", "").split()[2:]
    size = {"viewBox": f"0 0 {_short(width)} {_short(height)}", "width": _short(width), "height": _short(height)}
    role = {"class": "plot", "role": "group" if labels else "img", "aria-label": escape_controls(alt)}
    out, inner, words = Element("svg", role | size), None, iter(labels)
    for shape, classes in _shapes(root, ""):
        into = out
        if "clip-path" in shape.attrib:
            # A drawing in the drawing cuts off what sticks out of the axes, and needs no id, of which a page has one.
            inner = _window(root, out) if inner is None else inner
            into = inner
        if shape.tag == f"{{{_SVG}}}path":
            SubElement(into, "path", {"class": classes, "d": _path(shape.get("d", ""))})
        elif shape.tag == f"{{{_SVG}}}text":
            SubElement(into, "text", {"class": classes} | _stand(shape)).text = shape.text
        elif shape.tag == f"{{{_SVG}}}use":
            at = {"cx": _short(shape.get("x", "0")), "cy": _short(shape.get("y", "0")), "r": "3.8"}
            SubElement(into, "circle", {"class": classes} | at | {"aria-label": escape_controls(next(words))})
    return ElementTree.tostring(out, encoding="unicode")


def file(parts: Sequence[str], alt: str, *, columns: int) -> str:
    """Drawings side by side as a file with its own colours, in which a point has a title that viewers show."""
    panels = [ElementTree.fromstring(part) for part in parts]
    across = min(columns, len(panels))
    width = max(float(panel.get("width", "0")) for panel in panels)
    height = max(float(panel.get("height", "0")) for panel in panels)
    size = f"{width * across:g}", f"{height * -(-len(panels) // across):g}"
    root = Element("svg", {"xmlns": _SVG, "class": "plot", "role": "group", "aria-label": escape_controls(alt)})
    root.attrib |= {"viewBox": f"0 0 {size[0]} {size[1]}", "width": size[0], "height": size[1]}
    style = resources.files("phaselaw.report").joinpath("plots.css").read_text(encoding="utf-8")
    for name, colour in _PAPER.items():
        style = style.replace(f"var(--{name})", colour)
    SubElement(root, "style").text = style.replace("svg.plot ", "")
    SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": _PAPER["page"]})
    for number, panel in enumerate(panels):
        panel.attrib |= {"x": f"{width * (number % across):g}", "y": f"{height * (number // across):g}"}
        for point in panel.iter("circle"):
            SubElement(point, "title").text = point.get("aria-label")
        root.append(panel)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _shapes(node: Element, classes: str) -> Iterator[tuple[Element, str]]:
    """Every shape of an artist with classes, in the order drawn."""
    for child in node:
        own = child.get("id", "")
        inside = own.removeprefix(CLASSED) if own.startswith(CLASSED) else classes
        if child.tag == f"{{{_SVG}}}g":
            yield from _shapes(child, inside)
        elif inside:
            yield child, inside


def _window(root: Element, out: Element) -> Element:
    """A drawing in the drawing that shows the inside of the axes alone."""
    clip = root.find(f".//{{{_SVG}}}clipPath/{{{_SVG}}}rect")
    size = {} if clip is None else {name: _short(clip.get(name, "0")) for name in ("x", "y", "width", "height")}
    return SubElement(out, "svg", size | {"viewBox": " ".join(size.values())})


def _stand(text: Element) -> dict[str, str]:
    """Where a text stands, its anchor, and how it is turned."""
    stand = {"x": _short(text.get("x", "0")), "y": _short(text.get("y", "0"))}
    anchor = re.search(r"text-anchor: (middle|end)", text.get("style", ""))
    if anchor:
        stand["text-anchor"] = anchor[1]
    turned = text.get("transform", "")
    if not turned.startswith("rotate(-0 "):
        stand["transform"] = _NUMBER.sub(lambda found: _short(found[0]), turned)
    return stand


def _path(d: str) -> str:
    rounded = _NUMBER.sub(lambda found: _short(found[0]), " ".join(d.split()))
    return re.sub(r" ?([A-Za-z]) ?", r"\1", rounded)


def _short(number: str) -> str:
    """A number to a tenth of a pixel."""
    return f"{float(number):.1f}".removesuffix(".0")
