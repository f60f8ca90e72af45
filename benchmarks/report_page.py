"""How large is a report's page, how soon is it seen, how fast does it answer, and what does it cost beside ``analyze``?

The page is opened in Chromium from a file, in turn with a fresh profile. First paint is the browser's own; an
interaction is the longest of: open a section, sort its table, show a point, search, each to the next frame drawn.
``report`` and ``analyze`` are processes of their own, in turn. Limits: 2 MB, 1,000 ms, 100 ms, 2.5 s.

    python benchmarks/report_page.py RUN
    python benchmarks/report_page.py RUN --rounds 7 --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from playwright.sync_api import Browser, sync_playwright

from browser import CHROMIUM, FLAGS, SLOW

LIMITS = {"size_mb": 2.0, "first_paint_ms": 1000.0, "interaction_ms": 100.0, "report_minus_analyze_s": 2.5}
_FIRST_PAINT = """() => new Promise((seen) => new PerformanceObserver((list) => {
  const [paint] = list.getEntriesByName("first-contentful-paint");
  if (paint) seen(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""
_ACTIONS = """async () => {
  const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const section = document.querySelector("details:has(table)");
  const actions = [
    () => { section.open = true; },
    () => section.querySelector("th button").click(),
    () => document.querySelector(".point[tabindex='0']").focus(),
    () => {
      const box = document.querySelector("input[type=search]");
      box.value = "a";
      box.dispatchEvent(new Event("input"));
    },
  ];
  let longest = 0;
  for (const action of actions) {
    const begun = performance.now();
    action();
    await drawn();
    longest = Math.max(longest, performance.now() - begun);
  }
  return longest;
}"""


def seconds(verb: str, run: str, out: str) -> float:
    """How long a command takes, from its start to its end."""
    begun = perf_counter()
    subprocess.run((sys.executable, "-m", "phaselaw", verb, run, "--out", out), check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begun


def seen(browser: Browser, page: Path) -> tuple[float, float]:
    """First paint and the longest interaction, in ms."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    opened.goto(page.resolve().as_uri(), timeout=SLOW)
    paint = opened.evaluate(_FIRST_PAINT)
    longest = opened.evaluate(_ACTIONS)
    context.close()
    return float(paint), float(longest)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 where all is within its limit, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--rounds", type=int, default=5, help="of each")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as out, sync_playwright() as driver:
        took = [{verb: seconds(verb, args.run, out) for verb in ("analyze", "report")} for _ in range(args.rounds)]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = Path(out) / "report.html"
        paints, longest = zip(*(seen(browser, page) for _ in range(args.rounds)), strict=True)
        browser.close()
        found = {
            "size_mb": page.stat().st_size / 1e6,
            "first_paint_ms": median(paints),
            "interaction_ms": median(longest),
            "report_minus_analyze_s": median(each["report"] - each["analyze"] for each in took),
        }
    if args.json:
        print(json.dumps(found | {"limits": LIMITS}))
    else:
        print("\n".join(f"{name} {value:.3g} (limit {LIMITS[name]:g})" for name, value in found.items()))
    return 0 if all(found[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
