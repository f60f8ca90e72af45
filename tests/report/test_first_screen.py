"""The first screen in a real Chromium: what is seen of four kinds of run before anything is scrolled or read."""

from pathlib import Path

import pytest

from browser import Opener
from phaselaw.cli import main

pytestmark = pytest.mark.usefixtures("no_process_no_picture")

SIZES = {"desk": (1280, 800), "telephone": (420, 900)}
SEEN = """(selector) => [...document.querySelectorAll(selector)].map((element) => {
    const box = element.getBoundingClientRect();
    const inside = box.top >= 0 && box.left >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
    const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    const shown = inside && element.checkVisibility() && top && (element.contains(top) || top.contains(element));
    return shown ? { text: element.textContent, width: box.width, height: box.height } : null;
}).filter((box) => box !== null)"""
"""The boxes of a selector that lie whole on the screen, covered by nothing."""

RUNS = {
    "default": "gpt2-ladder-cpu",
    "served": "concurrency-sweep-llamacpp",
    "one model": "gpt2-ladder-cpu --models tiny-gpt2",
}
"""Of what the shipped studies measure, with latencies that are simulated."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, tr121_reported: tuple[Path, str]) -> dict[str, Path]:
    """The reports by what they are of."""
    folder = tmp_path_factory.mktemp("reports")
    found = {"TR121": tr121_reported[0]}
    for name, words in RUNS.items():
        found[name] = folder / name.replace(" ", "-")
        assert main(["run", *words.split(), "--dry-run", "--out", str(found[name])]) == 0
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["TR121", *RUNS])
def test_the_first_screen_shows_answer_band_price_and_doubt(
    opener: Opener, reports: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    page = opener(reports[name], width, scheme, height=height)

    def seen(selector: str) -> list[dict]:
        return page.evaluate(SEEN, selector)

    assert [len(box["text"]) > 40 for box in seen(".answer")] == [True]
    plots = [box for box in seen("#top svg.plot:has(.band)") if box["width"] >= 250 and box["height"] >= 120]
    assert plots, [box["text"] for box in seen("svg.plot")]
    assert any("$" in box["text"] for box in seen(".figures .value"))
    if name == "default":  # an interval says of which of two prices it is
        assert any(box["text"].startswith("largest: [") for box in seen(".figures .interval"))
    [trust] = seen(".trust strong")
    assert trust["text"].lower() in ("sound", "with cautions", "suspect")
    if size == "desk":
        facts = " ".join(box["text"] for box in seen(".facts div"))
        assert "machine" in facts and "20" in facts.partition("date")[2][:4]
        assert len(seen("#top svg.plot")) == 3
        assert len(seen(".figures .value")) == 4
