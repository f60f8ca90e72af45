"""Where the names of points stand, so that they hide neither a point nor each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from phaselaw.report.safe_text import seen

FONT = 10.5
"""Size of a name, in pixels of the drawing (`plots.css`)."""
LONGEST = 24
"""Characters of a name that are drawn; a pointer shows the rest."""

_NARROW, _WIDE = frozenset("iljtfrI.,:;|!'()[]{}/\\ -_"), frozenset("mwMW@%&")


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the drawing, in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, other: Box) -> bool:
        """Whether it lies wholly in another."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A name with the box it fills, and whether it stands so far away that a line must lead to its point."""

    text: str
    box: Box
    led: bool


def width_of(text: str, font: float = FONT) -> float:
    """How wide a text is, in pixels, at most: by the widest of the fonts that a page may have (DejaVu Sans)."""
    ems = (
        0.42 if char in _NARROW else 0.98 if char in _WIDE or ord(char) > 0x2E7F else 0.7 if char.isupper() else 0.64
        for char in text
    )
    return font * sum(ems)


def short(name: str) -> str:
    """A model's name without the folders before it, cut where it is very long."""
    last = seen(name.rstrip("/").rsplit("/", 1)[-1] or name)
    return last if len(last) <= LONGEST else f"{last[: LONGEST - 1]}…"


def fitting(text: str, width: float, font: float) -> str:
    """A text cut to a width in pixels."""
    text = seen(text)
    if width_of(text, font) <= width:
        return text
    while text and width_of(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


def place(points: Sequence[tuple[float, float, str]], within: Box) -> list[Placed | None]:
    """A place for each point's name (``x``, ``y``, name); ``None`` where there is none that is free.

    Near places first; where all are taken, anywhere in the plot.
    """
    full = [Box(x - 5, y - 5, x + 5, y + 5) for x, y, _ in points]
    found: list[Placed | None] = [None] * len(points)
    for number in sorted(range(len(points)), key=lambda at: (points[at][0], points[at][1])):
        x, y, name = points[number]
        text = short(name)
        box = _free(_near(x, y, width_of(text)), within, full)
        led = box is None
        if box is None:
            box = _free(_far(x, y, width_of(text), within), within, full)
        if box is not None:
            found[number] = Placed(text, box, led)
            full.append(box)
    return found


def _free(candidates: Iterator[Box], within: Box, taken: Sequence[Box]) -> Box | None:
    return next((box for box in candidates if box.inside(within) and not any(map(box.overlap, taken))), None)


def _near(x: float, y: float, width: float) -> Iterator[Box]:
    """Places around a point, the best first."""
    high = FONT + 2
    lefts = {"middle": x - width / 2, "right": x + 7, "left": x - 7 - width, "aside": x + 4, "back": x - 4 - width}
    tops = {"above": y - 7 - high, "below": y + 7, "level": y - high / 2, "over": y - 4 - high, "under": y + 3}
    order = (
        ("middle", "above"), ("middle", "below"), ("right", "level"), ("left", "level"), ("aside", "over"),
        ("back", "over"), ("aside", "under"), ("back", "under"), ("aside", "above"), ("back", "above"),
        ("aside", "below"), ("back", "below"),
    )  # fmt: skip
    for across, down in order:
        yield Box(lefts[across], tops[down], lefts[across] + width, tops[down] + high)


def _far(x: float, y: float, width: float, within: Box) -> Iterator[Box]:
    """Places all over the plot, the nearest to the point first."""
    high = FONT + 2
    columns = max(1, int((within.right - within.left - width) / 12))
    rows = max(1, int((within.bottom - within.top - high) / 7))
    spots = (
        (within.left + 12 * column + 1, within.top + 7 * row + 1)
        for column in range(columns + 1)
        for row in range(rows + 1)
    )
    for left, top in sorted(spots, key=lambda at: math.hypot(at[0] + width / 2 - x, at[1] + high / 2 - y)):
        yield Box(left, top, left + width, top + high)
