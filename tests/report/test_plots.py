"""Plots: the same bytes each time, every point named, the band that the t interval gives."""

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaselaw.report.document import Axis, Curve, CurvePlot, DotPlot, Panels, Point
from phaselaw.report.plots import LONGEST, draw, pieces

POINTS = (Point(label="<a>$x$", x=1.0, y=10.0), Point(label="b", x=10.0, y=30.0), Point(label="c", x=100.0, y=100.0))


LINE = Curve(
    label="law", points=tuple(Point(label="", x=p.x, y=p.y, low=p.y / 2, high=p.y * 2) for p in POINTS), dots=False
)
MODELS = Curve(label="", points=POINTS, joined=False, named=True)
SIZES = {"x": Axis(title="parameters (millions)", log=True), "y": Axis(title="ms", log=True)}


def panel(*curves: Curve, **more) -> CurvePlot:
    return CurvePlot(name="c", caption="what is there", title="decode", curves=curves or (MODELS,), **SIZES | more)


def plot(*curves: Curve) -> Panels:
    return Panels(name="p", caption="what is there", panels=(panel(*curves),))


def test_the_same_plot_gives_the_same_bytes() -> None:
    assert draw(plot(LINE, MODELS)) == draw(plot(LINE, MODELS))


def test_every_point_names_itself_and_its_values() -> None:
    root = ElementTree.fromstring(draw(plot()))
    named = [element.get("aria-label") for element in root.iter() if element.get("class", "").startswith("point")]
    assert named == ["<a>$x$: 1 M parameters, 10 ms", "b: 10 M parameters, 30 ms", "c: 100 M parameters, 100 ms"]
    assert root.get("aria-label") == "what is there"


def test_a_name_with_markup_and_dollars_is_drawn_as_it_is() -> None:
    texts = [element.text for element in ElementTree.fromstring(draw(plot())).iter() if element.tag.endswith("}text")]
    assert "<a>$x$" in texts


def test_a_dot_plot_names_its_points_too() -> None:
    svg = draw(
        DotPlot(
            name="w",
            caption="ratios",
            axis=Axis(title="ratio", log=True),
            reference=1.0,
            rows=(("sim, decode", POINTS),),
        )
    )
    assert "b: 10" in svg and "sim, decode" in svg


def test_a_panel_without_points_is_drawn_empty() -> None:
    assert "decode" in draw(plot(Curve(label="", points=())))


def test_rows_with_the_same_few_points_have_colours_and_a_legend() -> None:
    rows = (("a", POINTS), ("b", POINTS))
    [drawn] = pieces(DotPlot(name="w", caption="c", axis=Axis(title="ratio", log=True), rows=rows))
    assert [classes(drawn).count(f"point c{at}") for at in range(3)] == [2, 2, 2]
    [one] = pieces(DotPlot(name="w", caption="c", axis=Axis(title="ratio", log=True), rows=(("a", POINTS[:1]),)))
    assert classes(one).count("point c0") == 1


def test_bars_reach_from_the_reference_to_their_values() -> None:
    rows = (("latency", POINTS[1:2]), ("budget", POINTS[2:]))
    axis = Axis(title="times", log=True)
    [drawn] = pieces(DotPlot(name="w", caption="c", axis=axis, reference=1.0, rows=rows, bars=True))
    assert [classes(drawn).count(f"bar c{at}") for at in range(2)] == [1, 1]


def classes(svg: str) -> list[str]:
    return [element.get("class", "") for element in ElementTree.fromstring(svg).iter()]


def test_a_law_on_suspect_rows_is_dashed_and_says_why() -> None:
    dashed = Curve(label="law", points=LINE.points, dots=False, dashed=True)
    [suspect] = pieces(panel(dashed, MODELS, warning="far off the law"))
    [sound] = pieces(panel(LINE, MODELS))
    assert ["line c0 dashed" in classes(one) for one in (suspect, sound)] == [True, False]
    assert "⚠ far off the law" in suspect and "⚠" not in sound


def test_many_suspicions_are_counted_where_their_names_have_no_room() -> None:
    [drawn] = pieces(panel(warning=", ".join(["prompt cache suspected"] * 4)))
    assert "⚠ 4 checks suspect its rows" in drawn


def curves(*given: Curve, **axes) -> str:
    x, y = axes.get("x", Axis(title="tokens")), axes.get("y", Axis(title="share", percent=True))
    [drawn] = pieces(CurvePlot(name="c", caption="a", x=x, y=y, curves=given))
    return drawn


def test_a_curve_has_a_band_of_its_intervals() -> None:
    points = tuple(Point(label=f"at {x:g}", x=x, y=x / 10, low=x / 12, high=x / 8) for x in (2.0, 4.0, 8.0))
    joined = curves(Curve(label="measured", points=points))
    assert classes(joined).count("band c0") == 1 and classes(joined).count("line c0") == 1
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


def of_class(drawn: str, name: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(drawn).iter() if name in one.get("class", "").split()]


LOG = Axis(title="t", log=True)


@pytest.mark.parametrize(
    ("axis", "low", "high", "texts"),
    [
        (LOG, 1e-3, 1e4, ["0.0001", "0.01", "1", "100", "10,000"]),
        (LOG, 160, 3600, ["100", "200", "500", "1,000", "2,000", "5,000"]),
        (LOG, 1.22, 1.88, ["1.2", "1.4", "1.6", "1.8", "2"]),
        (Axis(title="t"), 0.1, 0.5, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        (Axis(title="t", percent=True), 0.91, 0.99, ["90 %", "92 %", "94 %", "96 %", "98 %", "100 %"]),
    ],
)
def test_ticks_are_round_values_as_people_write_them(axis: Axis, low: float, high: float, texts: list[str]) -> None:
    points = (Point(label="a", x=1.0, y=low), Point(label="b", x=1.0, y=high))
    drawn = curves(Curve(label="a", points=points), x=Axis(title=""), y=axis)
    assert [one.text for one in of_class(drawn, "tick") if one.get("text-anchor") == "end"] == texts


@settings(max_examples=30, deadline=None)
@given(st.booleans(), st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6))
def test_an_axis_shows_every_value_and_a_few_ticks(log: bool, values: list[float]) -> None:
    points = tuple(Point(label="p", x=value, y=value) for value in values)
    axis = Axis(title="t", log=log)
    drawn = curves(Curve(label="a", points=points), x=axis, y=axis)
    spots = [(float(one.get("cx")), float(one.get("cy"))) for one in of_class(drawn, "point")]
    assert len(spots) == len(values) and all(26 < x < 400 and 0 < y < 261 for x, y in spots)
    across = sum(one.get("text-anchor") == "middle" for one in of_class(drawn, "tick"))
    assert 2 <= across <= 9 and 2 <= len(of_class(drawn, "tick")) - across <= 9


def test_shares_that_are_equal_but_for_rounding_stand_on_an_axis_with_ticks() -> None:
    points = tuple(Point(label="m", x=0.9697 + at * 1e-15, y=0.0) for at in range(3))
    axis = Axis(title="share", percent=True)
    [drawn] = pieces(DotPlot(name="d", caption="a", axis=axis, reference=None, rows=(("sim", points),)))
    assert len(of_class(drawn, "tick")) >= 2
    spots = [float(one.get("cx")) for one in of_class(drawn, "point")]
    assert max(spots) - min(spots) < 1


def heap(*names: str) -> str:
    """Models of almost one size and latency, drawn."""
    points = [Point(label=name, x=300 + at % 3, y=100 + at // 3) for at, name in enumerate(names)]
    far = Point(label="far", x=1.0, y=1.0)
    [drawn] = pieces(panel(Curve(label="", points=(far, *points), joined=False, named=True)))
    return drawn


def test_twelve_models_in_a_heap_are_all_named_and_the_panel_is_small() -> None:
    drawn = heap(*(f"family/model-number-{at}" for at in range(12)))
    assert len(of_class(drawn, "name")) == 13
    assert len(of_class(drawn, "leader")) >= 6  # a line leads to those that stand far away
    assert len(drawn) < 6000  # a run of 12 backends has a hundred panels, and a page less than 2 MB


def test_a_folder_is_left_out_of_a_name_and_a_long_one_is_cut() -> None:
    names = {one.text for one in of_class(heap("models/gpt2-5m", "x" * 100, "a\u202eb\nc", "模型"), "name")}
    assert names == {"far", "gpt2-5m", "x" * (LONGEST - 1) + "…", "a<U+202E>b c", "模型"}


def test_a_point_of_a_file_has_a_title_and_that_of_a_page_has_its_label_alone() -> None:
    [title] = [
        one.text for one in ElementTree.fromstring(draw(plot())).iter() if one.text and one.text.startswith("b:")
    ]
    assert title == "b: 10 M parameters, 30 ms"
    assert "<title" not in pieces(plot())[0]  # a browser would show it beside the page's own


def test_a_page_gives_colours_and_ids_are_left_to_it() -> None:
    drawn = pieces(plot(LINE, MODELS))[0]
    assert "style=" not in drawn and "#" not in drawn and " id=" not in drawn
    assert "var(--" not in draw(plot())


def test_of_many_points_some_are_drawn_from_the_smallest_on_and_the_panel_says_so() -> None:
    many = tuple(Point(label=f"m{at}", x=float(at), y=float(at)) for at in range(1, 1001))
    drawn = draw(plot(LINE, Curve(label="", points=many, joined=False, named=True)))
    assert drawn.count("<circle") == 200
    assert "m1: 1 M parameters" in drawn and "one point of 5 is drawn" in drawn
    row = DotPlot(name="d", caption="", axis=Axis(title="x"), reference=None, rows=(("models", many),))
    assert draw(row).count("<circle") == 200


def test_a_title_of_a_thousand_letters_is_cut_in_a_moment() -> None:
    assert "…" in draw(CurvePlot(name="c", caption="", title="x" * 100_000, curves=(MODELS,), **SIZES))
