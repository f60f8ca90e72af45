"""A report priced with the reader's own load: by its options, or by what the run's last plan was asked."""

import json
import shutil
from pathlib import Path

import pytest

from phaselaw import api
from phaselaw.cli import main
from phaselaw.commands.plan import _read, of_report
from phaselaw.report.economics import own_load

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")

PROFILE = {
    "schema_version": 2,
    "requests_per_s": 3.0,
    "span_s": 7200.0,
    "peak_minute": {"over_mean": 2.0},
    "kinds": [
        {"share": 0.5, "prompt_tokens": 4, "output_tokens": 8},
        {"share": 0.5, "prompt_tokens": 9, "output_tokens": 8},
    ],
}
API = ("--api-in", "0.15", "--api-out", "0.6")


@pytest.fixture(scope="module")
def run(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that others may not share, since plans are kept in it; a traffic profile beside it."""
    folder = tmp_path_factory.mktemp("own") / "run"
    shutil.copytree(hostile_run, folder)
    (folder.parent / "profile.json").write_text(json.dumps(PROFILE))
    return folder


def first_screen(run: Path) -> str:
    return (run / "report.md").read_text().replace("\\", "").partition("\nTrust: ")[0]


def test_the_first_screen_prices_the_readers_own_load_and_marks_what_is_assumed(run: Path) -> None:
    words = ["report", str(run), "--traffic", str(run.parent / "profile.json"), "--usd-per-hour", "2.5", *API]
    assert main(words) == 0
    load = "Your load (assumed): 3 requests/s of 14.5 tokens on average, 112,752,000 tokens a month"
    for text in (
        first_screen(run),
        (run / "report.html").read_text().partition('class="trust')[0].replace("&#39;", "'"),
    ):
        assert f"{load} at $2.5 a worker's hour (assumed). Cheapest for this load: " in text
        assert "The API, at the prices given: $44.91 a month. Own workers never pay, at any volume." in text
    whole = (run / "report.md").read_text().replace("\\", "")
    assert "\n## Cost\n\nFor 3 requests/s of 14.5 tokens on average, 112,752,000 tokens a month at $2.5" in whole
    assert "2 h of traffic, taken as a month" in whole and "2 x the mean load (--burst)" in whole
    assert "### A hosted API" in whole and "at $2.5 an hour (assumed)" in whole


def test_the_next_report_takes_the_inputs_of_the_last_plan_and_says_so(run: Path, capsys) -> None:
    profile = run.parent / "profile.json"
    assert main(["plan", str(run), "--traffic", str(profile), "--usd-per-hour", "0.9 EUR", "--models", "plain"]) == 0
    profile.rename(profile.with_suffix(".gone"))
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    profile.with_suffix(".gone").rename(profile)
    assert "note: priced with the inputs of the run's last plan: --traffic=" in capsys.readouterr().err
    assert "The load of the last plan (assumed): 3 requests/s" in first_screen(run)
    assert "€0.9 a worker's hour (assumed)" in first_screen(run) and "$" not in first_screen(run).replace("$e", "")


def test_a_load_of_its_own_goes_before_the_last_plans(run: Path) -> None:
    plan = of_report(_read(["--tokens-per-month", "1e9"]), api.load(run), run)
    [told] = own_load(plan)
    assert told.startswith("Your load (assumed): 1,000,000,000 tokens a month at $1.006 a worker's hour (assumed).")
    [told] = own_load(of_report(_read(["--usd-per-hour", "2"]), api.load(run), run))
    assert told.startswith("The default load, with your options (assumed): 1,000,000,000 tokens a month at $2 a")


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ({"schema_version": 9, "options": {}}, "no inputs of a plan of version 1"),
        ({"schema_version": 1, "options": {"usd_per_hour": "free"}}, "--usd-per-hour"),
        ({"schema_version": 1, "options": {"show": "all"}}, "it has --show=all"),
        ({"schema_version": 1, "options": {"traffic": "/etc/passwd"}}, "plan/passwd: no traffic profile"),
    ],
)
def test_inputs_that_cant_be_used_are_told_and_the_defaults_serve(run: Path, kept: dict, why: str, capsys) -> None:
    (run / "plan" / "inputs.json").write_text(json.dumps(kept))
    assert of_report(_read([]), api.load(run), run) is None
    error = capsys.readouterr().err
    assert "note: priced with the defaults, since the last plan's inputs can't be used" in error and why in error


def test_nothing_is_written_into_a_run_that_phaselaw_did_not_measure(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "metrics.csv", tmp_path)
    for path in (tmp_path, tmp_path / "metrics.csv"):
        assert main(["plan", str(path), "--usd-per-hour", "2"]) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.csv"]
