"""The HTML report in a real Chromium: no console error, no request, hover and sort work, hostile names stay text."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def test_the_page_is_small_and_refers_to_nothing_outside(hostile_run: Path) -> None:
    page = (hostile_run / "report.html").read_text()
    assert len(page) < 2_000_000
    assert "<img" not in page
    namespaces = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    for namespace in namespaces:
        page = page.replace(namespace, "")
    assert "http://" not in page and "https://" not in page and "default-src 'none'" in page


def test_no_two_things_in_the_page_have_one_id(hostile_run: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', (hostile_run / "report.html").read_text())
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(params=[1280, 390])
def page(browser, request: pytest.FixtureRequest, hostile_run: Path) -> Iterator:
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    seen: list[str] = []
    opened.on("console", lambda message: seen.append(message.text))
    opened.on("pageerror", lambda error: seen.append(str(error)))
    opened.on("request", lambda sent: seen.append(sent.url) if not sent.url.startswith("file:") else None)
    opened.on("dialog", lambda dialog: seen.append(dialog.message))
    opened.goto((hostile_run / "report.html").resolve().as_uri())
    yield opened
    assert [entry for entry in seen if not entry.startswith("data:")] == []
    opened.close()


def test_nothing_is_wider_than_the_page(page) -> None:
    sticking_out = page.evaluate(
        """() => [...document.querySelectorAll('main *, header *')].filter((element) => {
             const box = element.getBoundingClientRect();
             return box.width > 0 && box.left >= 0 && box.right > document.documentElement.clientWidth + 1
               && !element.closest('thead') && !element.closest('svg');
           }).map((element) => element.outerHTML.slice(0, 120))"""
    )
    assert sticking_out == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_hostile_names_are_text(page, hostile_names: tuple[str, ...]) -> None:
    text = page.locator("main").inner_text()
    for name in hostile_names:
        assert name in text
    assert page.locator("main img").count() == 0


def test_a_point_says_its_values_under_the_pointer_and_under_the_keyboard(page) -> None:
    point = page.locator(".point").first
    point.scroll_into_view_if_needed()
    point.hover()
    assert "M parameters" in page.locator("#tip").inner_text()
    page.mouse.move(0, 0)
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    point.focus()
    assert page.locator("#tip").is_visible()


def test_a_table_sorts_by_the_value_of_a_column_both_ways(page) -> None:
    if page.viewport_size["width"] < 700:
        pytest.skip("on a narrow page rows are cards, without headings to press")
    table = page.locator("section", has=page.get_by_role("heading", name="Performance by model")).locator("table")
    heading = table.locator("th", has_text="params (M)")
    for direction, order in (("ascending", 1), ("descending", -1)):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == direction
        at = heading.evaluate("(th) => th.cellIndex")
        values = table.evaluate("(t, at) => [...t.tBodies[0].rows].map((r) => Number(r.cells[at].dataset.value))", at)
        assert values == sorted(values, reverse=order < 0)
        assert len(set(values)) == 4
