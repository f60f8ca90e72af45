"""A run whose names are hostile, simulated, and its document."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import phaselaw

from browser import CHROMIUM, FLAGS, SLOW, Opener
from phaselaw.cli import main

HOSTILE = (
    "<img onerror=alert(1)>",
    "=cmd() x",
    "[a](javascript:b)_c_ `d` $e$",
    "plain",
    "models/" + "a-very-long-name-that-no-column-was-made-for-" * 4,
    "turned \u202e around \u200b",
    "\u05de\u05d5\u05d3\u05dc 7b",
    "<script>alert(2)</script>",
)
"""Markup of three kinds, a formula, a name that is too long, one that turns what follows it, one that is Hebrew."""

STUDY = """
run_name: "hostile <b>&amp;"
gen_tokens: 8
repetitions: 3
warmup_repetitions: 1
seed: 7
scenarios: [{name: "s <i>", prompt_tokens: 4}, {name: t, prompt_tokens: 9}]
backends: [{name: sim, kind: simulated, params_exponent: 0.8, model_scatter: 0.05, cold_start_ms: 900}]
models:
"""


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """The models of `hostile_run`."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a study with hostile model and scenario names, its report written."""
    folder = tmp_path_factory.mktemp("hostile")
    study = folder / "study.yaml"
    models = "".join(
        f"  - {{name: {json.dumps(name)}, kind: simulated, params_millions: {10.0 * 2**at}}}\n"
        for at, name in enumerate(HOSTILE)
    )
    study.write_text(STUDY + models)
    assert main(["run", str(study), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def tr121_reported(reference_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The report of TR121's own data: its folder, and what the terminal shows of it."""
    out = tmp_path_factory.mktemp("tr121")
    done = phaselaw("report", reference_data / "tr121" / "primary_run", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="session")
def browser() -> Iterator:
    if CHROMIUM is None:
        why = "no Chromium on this machine: apt-get install chromium"
        # .ci/run installs one and says that it is needed: there a browser that is missing is no reason to skip.
        (pytest.fail if os.environ.get("PHASELAW_TESTS_NEED_BROWSER") else pytest.skip)(why)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def opener(browser) -> Iterator[Opener]:
    """Opens a report and, at the end, says what it must not have done."""
    seen: list[str] = []
    contexts = []

    def goes_out(route) -> None:
        seen.append(route.request.url)
        route.abort()

    def opened(report: Path, width: int, scheme: str = "light", height: int = 900):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.route(lambda url: not url.startswith(("file:", "data:")), goes_out)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
        page.goto((report / "report.html").resolve().as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert seen == []
