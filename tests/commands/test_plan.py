"""``phaselaw plan`` and ``analyze``: data on stdout, one JSON document with --json, one line of error."""

import json
from pathlib import Path

import pytest

from phaselaw.cli import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plan") / "run"
    assert main(["run", "--dry-run", "--out", str(run)]) == 0
    return run


def test_the_json_holds_a_row_a_model_at_full_precision(finished: Path, capsys) -> None:
    assert main(["plan", str(finished), "--tokens-per-month", "1e9", "--usd-per-hour", "1.006", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in document["rows"]][:2] == ["models/tiny-gpt2", "models/gpt2-5m"]
    for row in document["rows"]:
        assert row["usd_per_1m"] == pytest.approx(1e6 / row["tokens_per_s"] / 3600 * 1.006, rel=1e-12)
        assert row["workers"] == pytest.approx(1e9 / (30 * 86400) / row["tokens_per_s"], rel=1e-12)
        assert row["workers_low"] < row["workers"] < row["workers_high"]


def test_the_table_says_that_workers_are_a_lower_bound_and_what_is_assumed(finished: Path, capsys) -> None:
    assert main(["plan", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "lower bound" in out and "(assumed)" in out and "models/gpt2-100m" in out


def test_models_can_be_chosen_and_unknown_ones_are_named(finished: Path, capsys) -> None:
    assert main(["plan", str(finished), "--models", "models/gpt2-25m", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 1
    assert main(["plan", str(finished), "--models", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-5", "nan"])
def test_a_price_that_is_no_price_is_a_usage_error(finished: Path, value: str, capsys) -> None:
    assert main(["plan", str(finished), f"--usd-per-hour={value}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_analyze_writes_every_table_where_it_is_told(finished: Path, tmp_path: Path, capsys) -> None:
    assert main(["analyze", str(finished), "--out", str(tmp_path / "t"), "--bootstrap", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(document["tables"]) == sorted(path.stem for path in (tmp_path / "t").glob("*.csv"))
    assert document["tables"]["summary_by_model_backend_mode"] == 63


def test_analyze_of_nothing_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["analyze", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", [["--bootstrap", "0"], ["--level", "1"], ["--seed", "-1"]])
def test_analyze_refuses_options_that_make_no_sense(finished: Path, option: list[str], capsys) -> None:
    assert main(["analyze", str(finished), *option]) == 2
    assert capsys.readouterr().err.count("\n") == 1
