"""Axes of a plot: from values to pixels, and the ticks that people expect to read beside them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from phaselaw.report.document import Axis

_DECADES_WITH_PARTS = 2.5
"""An axis that spans fewer decades than this has ticks at 1, 2 and 5 of each."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """One axis as drawn: values from ``low`` to ``high`` onto pixels from ``start`` to ``end``."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies, in pixels; not finite for what a log axis can't show."""
        if self.axis.log:
            if value <= 0:
                return math.nan
            share = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """The values that are written along the axis."""
        found = _log_ticks(self.low, self.high) if self.axis.log else []
        return found if len(found) >= 2 else _linear_ticks(self.low, self.high)

    def text(self, value: float) -> str:
        """A tick's value as people write it."""
        if self.axis.percent:
            return f"{100 * value:.6g} %"
        if value and not 1e-4 <= abs(value) < 1e7:
            return f"{value:.3g}"
        return f"{value:,.10f}".rstrip("0").rstrip(".")


def value_text(value: float, axis: Axis) -> str:
    """A value as a tooltip says it."""
    return f"{100 * value:.3g} %" if axis.percent else f"{value:,.4g}"


def limits(axis: Axis, values: Iterable[float], *, margin: float) -> tuple[float, float]:
    """The least and the most that an axis shows: all finite values, with a margin."""
    sound = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
    if not sound:
        return (1.0, 10.0) if axis.log else (0.0, 1.0)
    low, high = min(sound), max(sound)
    if axis.log:
        ends = math.log10(low), math.log10(high)
        room = margin * (ends[1] - ends[0]) or 0.15
        return 10.0 ** (ends[0] - room), 10.0 ** (ends[1] + room)
    room = margin * (high - low) or 0.1 * abs(high) or 0.5
    # Shares and rates begin at 0: an axis that is cut there shows less than it hides.
    return (0.0 if 0 <= low < 0.5 * high else low - room), high + room


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    parts = (1, 2, 5) if decades < _DECADES_WITH_PARTS else (1,)
    stride = max(1, round(decades / 7))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [
        value
        for power in powers
        if power % stride == 0
        for part in parts
        if low <= (value := part * 10.0**power) <= high
    ]


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 5, 10) if part * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]
