"""The HTML report in a real Chromium, at a desk's and a telephone's width, light, dark and on paper."""

import os
from pathlib import Path

import pytest

from browser import SLOW, Opener

WIDE, NARROW = 1280, 390


@pytest.fixture(scope="module")
def reference_report(tr121_reported: tuple[Path, str]) -> Path:
    """The report of TR121's own data."""
    return tr121_reported[0]


@pytest.fixture(scope="module", params=["hostile_run", "reference_report"])
def report(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=[WIDE, NARROW])
def page(opener: Opener, report: Path, request: pytest.FixtureRequest):
    return opener(report, request.param)


@pytest.fixture(scope="module")
def hostile(opener: Opener, hostile_run: Path):
    return opener(hostile_run, WIDE)


OPEN = """async () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  if (window.gonePast) return;
  window.gonePast = true;
  // The page measures a table in the frames after it came near the screen: go past all of them, as a reader does.
  for (const table of document.querySelectorAll(".scroll")) {
    table.scrollIntoView();
    for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
  }
  window.scrollTo(0, 0);
}"""


def table_of(page, title: str):
    page.evaluate(OPEN)
    return page.locator("details", has=page.get_by_role("heading", name=title, exact=True)).locator("table").first


def test_nothing_sticks_out_of_the_page_or_is_cut_off(page) -> None:
    width = page.viewport_size["width"]
    page.evaluate(OPEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wrong = page.evaluate(
        """() => [...document.querySelectorAll("main *, header *")].filter((element) => {
             const box = element.getBoundingClientRect();
             if (!box.width || element.closest("svg")) return false;
             return box.left < -1 || box.right > document.documentElement.clientWidth + 1
               || (/^(TD|TH|P|LI|CAPTION|PRE|DIV|H1|H2)$/.test(element.tagName)
                 && element.scrollWidth > element.clientWidth + 1);
           }).map((element) => element.outerHTML.slice(0, 160))"""
    )
    assert wrong == []


def test_no_word_of_a_label_is_broken(page) -> None:
    page.evaluate(OPEN)
    broken = page.evaluate(
        """() => [...document.querySelectorAll("dt, h3, nav a")].filter((label) => {
             const text = document.createRange();
             text.selectNodeContents(label);
             const lines = new Set([...text.getClientRects()].map((box) => Math.round(box.top))).size;
             return lines > 1 && /^\\S+$/.test(label.textContent.trim());
           }).map((label) => label.textContent)"""
    )
    assert broken == []


def test_no_two_texts_of_a_plot_overlap_and_none_leaves_it(page) -> None:
    page.evaluate(OPEN)
    wrong = page.evaluate(
        """() => [...document.querySelectorAll("svg.plot")].flatMap((plot) => {
             const frame = plot.getBoundingClientRect();
             const texts = [...plot.querySelectorAll("text")]
               .map((text) => [text.textContent, text.getBoundingClientRect()]);
             const out = texts.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
               || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([text]) => `${text} leaves its plot`);
             texts.forEach(([text, a], at) => texts.slice(at + 1).forEach(([other, b]) => {
               const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
               const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
               if (across > 1 && down > 3) out.push(`${text} | ${other}`);  // lines of one box touch by their leading
             }));
             return out;
           })"""
    )
    assert wrong == []


def test_every_model_is_named_in_the_scaling_plots(page) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("svg.plot")]
             .filter((plot) => plot.querySelector('[aria-label*="M parameters"]'))
             .map((plot) => plot.querySelectorAll('[aria-label*="M parameters"]').length
               - plot.querySelectorAll("text.name").length)
             .filter((missing) => missing !== 0)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opener: Opener, report: Path, scheme: str) -> None:
    page = opener(report, WIDE, scheme)
    page.evaluate(OPEN)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    poor = page.evaluate(
        """() => {
             const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
             const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
               .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
               .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
             const behind = (element) => {
               for (let one = element; one; one = one.parentElement) {
                 const colour = parts(getComputedStyle(one).backgroundColor);
                 if (colour.length < 4 || colour[3] > 0) return getComputedStyle(one).backgroundColor;
               }
             };
             const contrast = (a, b) =>
               (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
             const found = new Set();
             const words = "h1, h2, p, li, a, td, th button, .source, caption, figcaption, code";
             for (const element of document.querySelectorAll(`${words}, svg text, .point, .line`)) {
               const style = getComputedStyle(element);
               const drawn = element.matches("svg text, .point"), line = element.matches(".line");
               const colour = line ? style.stroke : drawn ? style.fill : style.color;
               const least = element.matches(".point, .line") ? 3 : 4.5;
               const value = contrast(colour, behind(element));
               if (value < least) found.add(`${element.tagName}.${element.getAttribute("class")} ${value.toFixed(2)}`);
             }
             return [...found];
           }"""
    )
    assert poor == []


def test_on_paper_tables_are_tables_and_nothing_is_cut_off(opener: Opener, report: Path) -> None:
    page = opener(report, 703, "dark")  # an A4 page less its margins, of a person who likes it dark
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("nav").is_hidden() and page.locator("details[open]").count() == 0
    assert page.evaluate("[...document.querySelectorAll('thead')].every((head) => head.getClientRects().length > 0)")
    assert len(page.pdf(width="210mm", height="297mm")) > 50_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 703
    assert page.evaluate("[...document.querySelectorAll('.folded tr')].every((row) => row.getClientRects().length > 0)")


def test_hostile_names_are_text(hostile, hostile_names: tuple[str, ...]) -> None:
    hostile.evaluate(OPEN)
    text = hostile.locator("main").inner_text()
    for name in hostile_names[:5]:
        assert name in text
    assert "turned <U+202E> around <U+200B>" in text
    assert hostile_names[6] in text
    assert hostile.locator("main img, main script").count() == 0


def test_a_page_has_the_landmarks_and_headings_that_a_screen_reader_goes_by(hostile) -> None:
    assert hostile.locator("h1").count() == 1
    assert hostile.locator("html[lang]").count() == hostile.get_by_role("main").count() == 1
    assert hostile.get_by_role("navigation", name="Contents").count() == 1
    assert hostile.locator("table:not(:has(> caption))").count() == 0
    assert hostile.locator("th:not([scope])").count() == 0
    assert hostile.locator("svg:not(svg svg):not([aria-label])").count() == 0
    hostile.evaluate(OPEN)
    assert hostile.get_by_role("columnheader", name="exponent").count() > 0


def test_the_first_stop_of_the_keyboard_skips_to_the_report(opener: Opener, hostile_run: Path) -> None:
    page = opener(hostile_run, WIDE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the report"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")


@pytest.mark.parametrize("press", ["pointer", "keyboard"])
def test_a_table_sorts_by_the_value_of_a_column_both_ways(hostile, press: str) -> None:
    table = table_of(hostile, "Performance by model")
    heading = table.locator("th", has_text="params (M)")
    for direction in ("ascending", "descending"):
        button = heading.locator("button")
        if press == "pointer":
            button.click()
        else:
            button.focus()
            hostile.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == direction
        at = heading.evaluate("(th) => th.cellIndex")
        values = table.evaluate("(t, at) => [...t.tBodies[0].rows].map((row) => Number(row.cells[at].dataset.v))", at)
        assert values == sorted(values, reverse=direction == "descending")
        assert len(set(values)) == len(values) == 8
    table.locator("th", has_text="prefill (ms)").locator("button").click()
    assert heading.get_attribute("aria-sort") == "none"


def test_on_a_narrow_page_rows_are_cards_that_a_list_of_columns_sorts(opener: Opener, hostile_run: Path) -> None:
    page = opener(hostile_run, NARROW)
    table = table_of(page, "Performance by model")
    assert table.locator("thead").is_hidden()
    choice = page.locator(".scroll", has=page.locator("caption", has_text="Medians over repetitions")).locator("select")
    choice.select_option(label="params (M) ▼")
    first = table.locator("tbody tr").first
    assert first.locator("td").nth(2).inner_text() == "1,280"
    assert first.evaluate("(row) => getComputedStyle(row.cells[2], '::before').content") == '"params (M)"'
    assert "measured" in first.evaluate("(row) => getComputedStyle(row.cells[2], '::after').content")


def test_a_point_says_its_values_under_the_pointer_and_under_the_keyboard(hostile) -> None:
    tip = hostile.locator("#tip")
    plot = hostile.locator("svg.plot", has=hostile.locator(".band")).first
    point = plot.locator(".point").first
    point.scroll_into_view_if_needed()
    point.hover()
    assert "parameters (millions)" in tip.inner_text()
    hostile.mouse.move(0, 0)
    assert tip.is_hidden()
    plot.locator(".point[tabindex='0']").focus()
    first = tip.inner_text()
    hostile.keyboard.press("ArrowRight")
    assert tip.is_visible() and tip.inner_text() != first
    assert plot.locator(".point[tabindex='0']").count() == 1
    hostile.keyboard.press("Escape")
    assert tip.is_hidden()


def test_without_script_the_tables_stand_as_they_are(browser, hostile_run: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": NARROW, "height": 900})
    page = context.new_page()
    page.goto((hostile_run / "report.html").resolve().as_uri(), timeout=SLOW)
    page.locator("summary", has_text="Performance by model").click()
    assert page.locator("details[open] thead").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    context.close()


def test_a_link_opens_the_section_that_it_leads_to(opener: Opener, hostile_run: Path) -> None:
    page = opener(hostile_run, WIDE)
    page.locator(".trust a").click()
    page.locator("#validity[open]").wait_for()
    assert page.locator("details[open]").count() == 1


def test_a_search_shows_the_sections_and_marks_the_rows_that_hold_its_words(
    opener: Opener, hostile_run: Path, hostile_names: tuple[str, ...]
) -> None:
    page = opener(hostile_run, WIDE)
    page.get_by_role("searchbox").fill(hostile_names[1])
    shown = page.locator("details:visible")
    assert 0 < shown.count() < page.locator("details").count()
    assert page.locator("tr.hit").count() > 0
    assert all(hostile_names[1] in text for text in page.locator("tr.hit").all_text_contents())
    page.get_by_role("searchbox").fill("")
    assert page.locator("details:visible").count() == page.locator("details").count()


@pytest.mark.parametrize("way", ["hover", "focus"])
def test_a_word_says_what_it_means(hostile, way: str) -> None:
    hostile.evaluate(OPEN)
    getattr(hostile.locator("a.word", has_text="decode").first, way)()
    assert "one step each" in hostile.locator("#tip").inner_text()
    hostile.keyboard.press("Escape")


@pytest.mark.parametrize("format", ["PNG", "SVG"])
def test_a_figure_is_copied_or_saved_as_a_picture_with_its_colours(hostile, format: str) -> None:
    figure = hostile.locator("figure").first
    button = figure.get_by_role("button", name=format)
    button.focus()
    hostile.keyboard.press("Enter")
    figure.get_by_role("button", name="Copied").or_(figure.get_by_role("button", name="Saved")).first.wait_for()
    svg = hostile.evaluate("drawing(document.querySelector('figure'))[1]")
    assert svg.startswith("<svg ") and "var(--" not in svg and "fill: rgb" not in svg
    assert figure.get_by_role("link").get_attribute("href") == f"#{figure.get_attribute('id')}"


AXE = Path(os.environ.get("PHASELAW_AXE", "axe.min.js"))
"""axe-core, of the registry: npm pack axe-core; it is no part of this repository."""


@pytest.mark.skipif(not AXE.is_file(), reason="PHASELAW_AXE does not name axe-core's axe.min.js (npm pack axe-core)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opener: Opener, report: Path, scheme: str) -> None:
    page = opener(report, WIDE, scheme)
    page.evaluate(OPEN)
    page.evaluate(AXE.read_text())
    faults = "all.violations.map((each) => [each.impact, each.id, each.nodes[0].html])"
    found = page.evaluate(f"axe.run().then((all) => {faults})")
    assert [each for each in found if each[0] in ("serious", "critical")] == []
