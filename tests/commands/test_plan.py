"""``phaselaw plan`` and ``analyze``: data on stdout, one JSON document with --json, one line of error."""

import json
import math
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


def plan(finished: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["plan", str(finished), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_only_what_is_asked_for_is_printed(finished: Path, capsys) -> None:
    assert main(["plan", str(finished)]) == 0
    first = capsys.readouterr()
    assert "Tiers" not in first.out and "--show requests,compare" in first.err
    assert main(["plan", str(finished), "--tiers", "models/gpt2-5m,models/gpt2-100m"]) == 0
    assert "Cascade" in capsys.readouterr().out
    assert main(["plan", str(finished), "--show", "all"]) == 0
    assert "Sensitivity" in capsys.readouterr().out


def test_a_load_in_requests_of_ones_own_kinds(finished: Path, tmp_path: Path, capsys) -> None:
    mixes = tmp_path / "mixes.csv"
    mixes.write_text("name,prompt_tokens,output_tokens\nask,300,100\n")
    document = plan(finished, "--requests-per-month", "2592000", "--mixes", str(mixes), capsys=capsys)
    assert document["assumptions"]["requests_per_s"] == 1.0 and document["assumptions"]["tokens_per_request"] == 400
    for row, load in zip(document["rows"], document["requests"], strict=True):
        assert row["workers"] == pytest.approx(400 / row["tokens_per_s"]) == load["workers"]


def test_whole_workers_keep_the_headroom_that_is_asked_for(finished: Path, capsys) -> None:
    words = ("--utilisation", "0.5", "--burst", "2", "--spares", "1")
    for row in plan(finished, *words, capsys=capsys)["rows"]:
        assert row["whole_workers"] == math.ceil(row["workers"] * 4) + 1


def test_a_price_list_says_which_price_and_how_old(finished: Path, tmp_path: Path, capsys) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("Cloud,GPU Type,GPUs,On-demand,Per-GPU,Spot\nX,H100 (80 GB),8,24,3,\n")
    words = ["plan", str(finished), "--prices", str(prices), "--accelerator", "h100", "--json"]
    assert main([*words, "--prices-date", "2020-01-01"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["assumptions"]["usd_per_hour"] == 3.0 and document["assumptions"]["price"]["stale"] is True
    assert "stale" in told.err and "X (8 x H100 (80 GB))" in told.err
    assert main(words) == 0
    assert "no date" in capsys.readouterr().err


def test_several_runs_are_pooled_and_their_noise_is_in_the_intervals(finished: Path, tmp_path: Path, capsys) -> None:
    others = [tmp_path / "b", tmp_path / "c"]
    for seed, path in enumerate(others, start=5):
        assert main(["run", "--dry-run", "--set", f"seed={seed}", "--out", str(path)]) == 0
    capsys.readouterr()
    document = plan(finished, *map(str, others), capsys=capsys)
    assert {row["interval_basis"] for row in document["rows"]} == {"runs, the noise between them included"}


def test_an_hours_price_for_each_backend(finished: Path, capsys) -> None:
    [backend] = {row["backend"] for row in plan(finished, capsys=capsys)["rows"]}
    document = plan(finished, "--usd-per-hour", f"{backend}=4", capsys=capsys)
    assert {row["usd_per_hour"] for row in document["rows"]} == {4.0}
    assert main(["plan", str(finished), "--usd-per-hour", "other=4"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--show", "everything"], ["--tiers", "one"], ["--tiers", "models/gpt2-5m,nobody"], ["--compare", "nobody"],
        ["--utilisation", "2"], ["--burst", "0.5"], ["--spares=-1"], ["--premium-share", "2"],
        ["--failure-usd=-1"], ["--failure-usd", "1"], ["--spot"],
        ["--accelerator", "H100"], ["--prices", "none.csv", "--accelerator", "H100"], ["--mixes", "none.csv"],
        ["--success-rates", "none.csv"], ["--usd-per-hour", "cheap"], ["--rates", "x"], ["--volumes", "x"],
        ["--requests-per-s", "0"], ["--requests-per-month", "nan"], ["--batch", "0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_one_line_and_exit_2(words: list[str], finished: Path, capsys) -> None:
    assert main(["plan", str(finished), *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert words[0].split("=")[0] in told.err or "none.csv" in told.err


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
