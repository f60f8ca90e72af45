"""Plots: the same bytes each time, every point named, the band that the t interval gives."""

from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from phaselaw.report.document import Axis, Curve, CurvePlot, DotPlot, Law, Panel, Point, ScalingPlot
from phaselaw.report.plots import band, draw, pieces

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
    named = [element.get("aria-label") for element in root.iter() if element.get("class", "").startswith("point")]
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


def classes(svg: str) -> list[str]:
    return [element.get("class", "") for element in ElementTree.fromstring(svg).iter()]


def test_a_law_on_suspect_rows_is_dashed_and_says_why() -> None:
    suspect = Panel(title="decode", points=POINTS, law=law_of(POINTS), said="exponent", warning="far off the law")
    sound = Panel(title="decode", points=POINTS, law=law_of(POINTS), said="exponent")
    drawn = pieces(ScalingPlot(name="p", alt="a", panels=(suspect, sound)))
    assert ["line c0 dashed" in classes(one) for one in drawn] == [True, False]
    assert "⚠ far off the law" in drawn[0] and "⚠" not in drawn[1]


def test_many_suspicions_are_counted_where_their_names_have_no_room() -> None:
    warning = ", ".join(["prompt cache suspected"] * 4)
    [drawn] = pieces(
        ScalingPlot(name="p", alt="a", panels=(Panel(title="t", points=POINTS, law=None, warning=warning),))
    )
    assert "⚠ 4 checks suspect its rows" in drawn


def curves(*given: Curve, **axes) -> str:
    x, y = axes.get("x", Axis(title="tokens")), axes.get("y", Axis(title="share", percent=True))
    [drawn] = pieces(CurvePlot(name="c", alt="a", x=x, y=y, curves=given))
    return drawn


def test_curves_have_bands_where_joined_and_bars_where_not() -> None:
    points = tuple(Point(label=f"at {x:g}", x=x, y=x / 10, low=x / 12, high=x / 8) for x in (2.0, 4.0, 8.0))
    joined = curves(Curve(label="measured", points=points))
    apart = curves(Curve(label="measured", points=points, joined=False))
    assert classes(joined).count("band c0") == 1 and classes(joined).count("line c0") == 1
    assert classes(apart).count("band c0") == 0 and classes(apart).count("line c0") == 3
    assert 'aria-label="at 2: tokens 2, share 20 % [16.7 %, 25 %]"' in joined


def test_several_curves_have_a_legend_and_colours_of_their_own() -> None:
    line = (Point(label="", x=1.0, y=0.1), Point(label="", x=2.0, y=0.3))
    drawn = curves(Curve(label="one", points=line), Curve(label="limit", points=line, dots=False, dashed=True))
    texts = [element.text for element in ElementTree.fromstring(drawn).iter() if element.tag.endswith("text")]
    assert {"one", "limit"} <= set(texts)
    assert "line c0" in classes(drawn) and "line c1 dashed" in classes(drawn)
    assert classes(drawn).count("point c0") == 2 and classes(drawn).count("point c1") == 0


def test_what_an_axis_cannot_show_is_left_out() -> None:
    points = tuple(Point(label="p", x=x, y=y) for x, y in ((1.0, 1.0), (0.0, 2.0), (2.0, float("nan")), (4.0, 3.0)))
    log = Axis(title="t", log=True)
    assert classes(curves(Curve(label="a", points=points), x=log, y=log)).count("point c0") == 2


def test_an_interval_that_flies_off_does_not_flatten_the_points() -> None:
    points = (Point(label="a", x=1.0, y=1.0, low=-1e9, high=1e9), Point(label="b", x=2.0, y=2.0, low=1.9, high=2.1))
    drawn = ElementTree.fromstring(curves(Curve(label="a", points=points, joined=False), y=Axis(title="ms")))
    heights = [float(one.get("cy")) for one in drawn.iter() if one.get("class") == "point c0"]
    assert abs(heights[0] - heights[1]) > 50
