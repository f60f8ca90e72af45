"""matplotlib's SVG made small and fit for a page: shapes with classes (`plots.css`), points that say what they are."""

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from phaselaw.report.document import escape_controls

_CLASSED = "class:"
"""How the id of an artist begins whose shapes get the classes after it; other shapes are left out."""

_SVG = "http://www.w3.org/2000/svg"


def part_of_page(drawn: str, alt: str, labels: Sequence[str]) -> str:
    """A drawing as part of a page, which colours it by its classes; ``labels`` are those of the points, in order."""
    root = ElementTree.fromstring(drawn)
    box = _rounded(root.get("viewBox", ""))
    size = dict(zip(("viewBox", "width", "height"), (box, *box.split()[2:]), strict=True))
    role = {"class": "plot", "role": "group" if labels else "img", "aria-label": escape_controls(alt)}
    out, inner, words = Element("svg", role | size), None, iter(labels)
    for shape, classes in _shapes(root, ""):
        into = out
        if "clip-path" in shape.attrib:
            # A drawing in the drawing cuts off what sticks out of the axes, and needs no id, of which a page has one.
            inner = _window(root, out) if inner is None else inner
            into = inner
        if shape.tag == f"{{{_SVG}}}path":
            path = re.sub(r" ?([A-Za-z]) ?", r"\1", _rounded(" ".join(shape.get("d", "").split())))
            SubElement(into, "path", {"class": classes, "d": path})
        elif shape.tag == f"{{{_SVG}}}text":
            SubElement(into, "text", {"class": classes} | _stand(shape)).text = shape.text
        elif shape.tag == f"{{{_SVG}}}use":
            at = {"cx": _rounded(shape.get("x", "0")), "cy": _rounded(shape.get("y", "0")), "r": "3.8"}
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
    # Viewers of files know no CSS variables: the colours of a page in the light stand in their place.
    page, style = (resources.files("phaselaw.report").joinpath(f"{name}.css").read_text() for name in ("page", "plots"))
    light = dict(re.findall(r"--(\w+): (#\w+)", page.partition("}")[0]))
    style = re.sub(r"var\(--(\w+)\)", lambda found: light[found[1]], style)
    SubElement(root, "style").text = style.replace("svg.plot ", "")
    SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": light["page"]})
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
        inside = own.removeprefix(_CLASSED) if own.startswith(_CLASSED) else classes
        if child.tag == f"{{{_SVG}}}g":
            yield from _shapes(child, inside)
        elif inside:
            yield child, inside


def _window(root: Element, out: Element) -> Element:
    """A drawing in the drawing that shows the inside of the axes alone."""
    clip = root.find(f".//{{{_SVG}}}clipPath/{{{_SVG}}}rect")
    size = {} if clip is None else {name: _rounded(clip.get(name, "0")) for name in ("x", "y", "width", "height")}
    return SubElement(out, "svg", size | {"viewBox": " ".join(size.values())})


def _stand(text: Element) -> dict[str, str]:
    """Where a text stands, its anchor, and how it is turned."""
    stand = {"x": _rounded(text.get("x", "0")), "y": _rounded(text.get("y", "0"))}
    anchor = re.search(r"text-anchor: (middle|end)", text.get("style", ""))
    if anchor:
        stand["text-anchor"] = anchor[1]
    turned = text.get("transform", "")
    return stand if turned.startswith("rotate(-0 ") else stand | {"transform": _rounded(turned)}


def _rounded(numbers: str) -> str:
    """Numbers in a text, each to a tenth of a pixel."""
    return re.sub(r"-?\d+\.?\d*", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), numbers)
