"""Plots as SVG: a plot's data in, drawings out, whose points say their values and whose text stays text."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phaselaw.report import svg
from phaselaw.report.axes import value_text
from phaselaw.report.document import Axis, Curve, CurvePlot, DotPlot, Law, Panel, Plot, Point
from phaselaw.report.dot_rows import dot_rows
from phaselaw.report.field import WIDTH, Field
from phaselaw.report.labels import width_of

Floats = NDArray[np.float64]

_PARAMS, _LATENCY = Axis(title="parameters (millions)", log=True), Axis(title="median latency (ms)", log=True)


def draw(plot: Plot) -> str:
    """A plot as an SVG file with its own colours, its panels side by side."""
    return svg.alone(_panels(plot, titled=True), plot.alt, columns=3)


def pieces(plot: Plot) -> list[str]:
    """A plot's panels as parts of a page, which colours them and stacks them where it is narrow."""
    return [svg.inline(panel) for panel in _panels(plot, titled=False)]


def band(law: Law, log10_params: Floats) -> Floats | None:
    """Half the width, in log10 of latency, of the interval of the law's line; ``None`` without degrees of freedom."""
    degrees = law.n_models - 2
    if degrees < 1 or law.residual_sd_log10 is None or not law.log10_params_sum_of_squares > 0:
        return None
    spread = 1 / law.n_models + (log10_params - law.log10_params_mean) ** 2 / law.log10_params_sum_of_squares
    half: Floats = stats.t.ppf(0.5 + law.level / 2, degrees) * law.residual_sd_log10 * np.sqrt(spread)
    return half


def _panels(plot: Plot, *, titled: bool) -> list[Element]:
    if isinstance(plot, DotPlot):
        return [dot_rows(plot, titled=titled)]
    if isinstance(plot, CurvePlot):
        field = Field.of(plot.curves, plot.x, plot.y, title=plot.title, reference=plot.reference, legend=True)
        return [field.drawn(plot.alt, _said_by(plot.x, plot.y), titled=titled)]
    return [_scaling(panel, plot.alt, titled=titled) for panel in plot.panels]


def _scaling(panel: Panel, alt: str, *, titled: bool) -> Element:
    models = Curve(label="models", points=panel.points, joined=False, named=True)
    curves = (models,) if panel.law is None else (_law(panel.law, panel), models)
    warning = _warning(panel.warning)
    field = Field.of(curves, _PARAMS, _LATENCY, title=panel.title, said=panel.said, warning=warning)
    words = ". ".join(part for part in (alt, panel.title, panel.said, panel.warning) if part)
    return field.drawn(words, lambda point: f"{point.label}: {_params_and_ms(point)}", titled=titled)


def _warning(suspicions: str) -> str:
    """What is suspect in a line: by name, or, where that is too long, by count."""
    if not suspicions:
        return ""
    named = f"⚠ {suspicions}"
    return named if width_of(named) < WIDTH - 14 else f"⚠ {len(suspicions.split(', '))} checks suspect its rows"


def _params_and_ms(point: Point) -> str:
    return f"{value_text(point.x, _PARAMS)} M parameters, {value_text(point.y, _LATENCY)} ms"


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


def _said_by(x: Axis, y: Axis) -> svg.Said:
    def said(point: Point) -> str:
        interval = ""
        if point.low is not None and point.high is not None:
            interval = f" [{value_text(point.low, y)}, {value_text(point.high, y)}]"
        values = f"{x.title} {value_text(point.x, x)}, {y.title} {value_text(point.y, y)}{interval}"
        return f"{point.label}: {values}" if point.label else values

    return said
