"""Drawings as SVG, small and fit for a page: shapes with classes (`plots.css`), points that say what they are."""

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from phaselaw.report.document import escape_controls

_SVG = "http://www.w3.org/2000/svg"


class Drawing:
    """A drawing as part of a page, which colours its shapes by their classes; places are pixels from the top left."""

    def __init__(self, alt: str, width: float, height: float) -> None:
        size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
        self._root = Element("svg", {"class": "plot", "role": "img", "aria-label": escape_controls(alt)} | size)
        self._inner = self._root

    def window(self, left: float, top: float, right: float, bottom: float) -> None:
        """From now on cut off what sticks out of this, of paths that are ``within`` it."""
        at = dict(zip(("x", "y", "width", "height"), map(_pixel, (left, top, right - left, bottom - top)), strict=True))
        # A drawing in the drawing needs no id, of which a page has one.
        self._inner = SubElement(self._root, "svg", at | {"viewBox": " ".join(at.values())})

    def path(self, classes: str, points: Iterable[tuple[float, float]], *, within: bool = False) -> None:
        """A line through points; with the class ``band`` or ``bar`` it is an area, so it is closed."""
        drawn = "M" + "L".join(f"{_pixel(x)} {_pixel(y)}" for x, y in points)
        closed = "z" if classes.startswith(("band", "bar")) else ""
        SubElement(self._inner if within else self._root, "path", {"class": classes, "d": drawn + closed})

    def text(self, name: str, x: float, y: float, text: str, **more: str) -> None:
        """A text whose base line begins there; ``more`` are attributes."""
        more = {key.replace("_", "-"): value for key, value in more.items()}
        SubElement(self._root, "text", {"class": name, "x": _pixel(x), "y": _pixel(y)} | more).text = text

    def point(self, classes: str, x: float, y: float, label: str) -> None:
        """A dot that says its label under the pointer."""
        self._root.set("role", "group")
        at = {"cx": _pixel(x), "cy": _pixel(y), "r": "3.8"}
        SubElement(self._root, "circle", {"class": f"point {classes}"} | at | {"aria-label": escape_controls(label)})

    def __str__(self) -> str:
        return ElementTree.tostring(self._root, encoding="unicode")


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


def _pixel(value: float) -> str:
    """A place, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
