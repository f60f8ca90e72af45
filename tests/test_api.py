"""phaselaw in Python: the same figures as the commands', in typed results."""

import json
from pathlib import Path

import pytest
from in_process import measure

import phaselaw
from phaselaw.api import Loaded, compare, fit, load, plan, predict
from phaselaw.cli import main
from phaselaw.errors import AnalysisError, UsageError

pytestmark = pytest.mark.usefixtures("no_process_no_picture")


@pytest.fixture(scope="module")
def loaded(dry_run: Path) -> Loaded:
    return phaselaw.load(dry_run)


def test_a_run_is_loaded_as_rows_models_and_every_table(dry_run: Path, loaded: Loaded) -> None:
    assert loaded.rows.height == 126 * 3
    assert loaded.models.height == 7
    assert {path.stem for path in (dry_run / "analysis").glob("*.csv")} == set(loaded.tables)


def test_fit_gives_the_laws_of_the_table(loaded: Loaded) -> None:
    laws = fit(loaded)
    assert {law.mode for law in laws} == {"prefill", "kv_decode", "e2e_kv"}
    for law in laws:
        assert law.low is not None and law.high is not None and law.exponent is not None
        assert law.low < law.exponent < law.high
        assert law.verdict.startswith("supported")


def test_predict_is_what_the_command_prints(dry_run: Path, loaded: Loaded, capsys) -> None:
    assert main(["predict", str(dry_run), "--params", "30M", "--layers", "6", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = predict(loaded, params=30e6, layers=6)
    assert [(row.mode, row.predictor, row.latency_ms_low, row.used) for row in found.rows] == [
        (row["mode"], row["predictor"], row["latency_ms_low"], row["used"]) for row in rows
    ]


def test_plan_is_what_the_command_prints(dry_run: Path, loaded: Loaded, capsys) -> None:
    assert main(["plan", str(dry_run), "--tokens-per-month", "2e9", "--usd-per-hour", "0.5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    needs = plan(loaded, tokens_per_month=2e9, usd_per_hour=0.5)
    assert [(need.model, need.workers.value) for need in needs] == [(row["model"], row["workers"]) for row in rows]
    assert all(need.usd_per_month.low == row["usd_per_month_low"] for need, row in zip(needs, rows, strict=True))


def test_compare_of_runs_that_differ_is_refused_unless_allowed(loaded: Loaded, tmp_path: Path) -> None:
    other = tmp_path / "other"
    measure("--dry-run", "--set", "gen_tokens=8", "--out", other)
    with pytest.raises(AnalysisError, match="gen_tokens: 64 and 8"):
        compare(loaded, load(other))
    told = compare(loaded, load(other), allow_different=True)
    assert not told.judged and told.cells.is_empty() and told.only_in_a.height == 21


@pytest.mark.parametrize("wrong", [{"params": -1.0}, {"params": 3e7, "layers": float("inf")}])
def test_what_makes_no_sense_is_one_line(loaded: Loaded, wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="give a positive number"):
        predict(loaded, **wrong)


def test_nothing_and_a_level_that_is_none_are_refused(dry_run: Path) -> None:
    with pytest.raises(AnalysisError, match="no run given"):
        load()
    with pytest.raises(UsageError, match="level"):
        load(dry_run, level=95)
