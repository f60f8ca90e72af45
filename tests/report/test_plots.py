"""Plots: the same bytes each time, every point named, the band that the t interval gives."""

from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from phaselaw.report.document import Axis, DotPlot, Law, Panel, Point, ScalingPlot
from phaselaw.report.plots import band, draw

POINTS = (Point(label="<a>$x$", x=1.0, y=10.0), Point(label="b", x=10.0, y=30.0), Point(label="c", x=100.0, y=100.0))


def law_of(points: tuple[Point, ...]) -> Law:
    x, y = np.log10([p.x for p in points]), np.log10([p.y for p in points])
    fit = stats.linregress(x, y)
    residual = y - fit.intercept - fit.slope * x
    return Law(
        slope=float(fit.slope),
        log10_intercept=float(fit.intercept),
        residual_sd_log10=float(np.sqrt((residual**2).sum() / (len(x) - 2))),
        log10_params_mean=float(x.mean()),
        log10_params_sum_of_squares=float(((x - x.mean()) ** 2).sum()),
        n_models=len(x),
        level=0.95,
    )


def plot(law: Law | None = None) -> ScalingPlot:
    return ScalingPlot(name="p", alt="what is there", panels=(Panel(title="decode", points=POINTS, law=law),))


def test_the_same_plot_gives_the_same_bytes() -> None:
    assert draw(plot(law_of(POINTS))) == draw(plot(law_of(POINTS)))


def test_every_point_names_itself_and_its_values() -> None:
    root = ElementTree.fromstring(draw(plot()))
    named = [element.get("aria-label") for element in root.iter() if element.get("class") == "point"]
    assert named == [
        "<a>$x$: 1 M parameters, 10 ms",
        "b: 10 M parameters, 30 ms",
        "c: 100 M parameters, 100 ms",
    ]
    assert root.get("aria-label") == "what is there"


def test_a_name_with_markup_and_dollars_is_drawn_as_it_is() -> None:
    texts = [element.text for element in ElementTree.fromstring(draw(plot())).iter() if element.tag.endswith("}text")]
    assert "<a>$x$" in texts


def test_the_band_is_the_interval_of_the_mean_that_regression_gives() -> None:
    law = law_of(POINTS)
    at_the_mean = band(law, np.array([law.log10_params_mean]))
    assert at_the_mean is not None and law.residual_sd_log10 is not None
    expected = stats.t.ppf(0.975, 1) * law.residual_sd_log10 / np.sqrt(3)
    assert at_the_mean[0] == pytest.approx(expected)
    away = band(law, np.array([law.log10_params_mean - 1]))
    assert away is not None and away[0] > at_the_mean[0]


def test_two_models_have_a_line_and_no_band() -> None:
    law = Law(
        slope=1, log10_intercept=0, residual_sd_log10=None, log10_params_mean=0, log10_params_sum_of_squares=1,
        n_models=2, level=0.95,
    )  # fmt: skip
    assert band(law, np.zeros(1)) is None


def test_a_dot_plot_names_its_points_too() -> None:
    svg = draw(
        DotPlot(
            name="w", alt="ratios", axis=Axis(title="ratio", log=True), reference=1.0, rows=(("sim, decode", POINTS),)
        )
    )
    assert "b: 10" in svg and "sim, decode" in svg


def test_a_panel_without_points_is_drawn_empty() -> None:
    empty = ScalingPlot(name="p", alt="nothing", panels=(Panel(title="decode", points=(), law=None),))
    assert "decode" in draw(empty)
