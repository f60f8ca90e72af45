"""``phaselaw predict`` and ``validate``: inside the measured range a prediction, outside one line of refusal."""

import json
from pathlib import Path

import pytest
from in_process import measure

from phaselaw.cli import main
from phaselaw.commands.predict import PARAMS
from phaselaw.errors import UsageError

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")


@pytest.mark.parametrize(
    ("text", "millions"), [("3e9", 3000), ("3B", 3000), ("135M", 135), ("1.5b", 1500), ("25000000", 25), ("500K", 0.5)]
)
def test_a_count_of_parameters_is_read_as_people_write_it(text: str, millions: float) -> None:
    assert PARAMS("--params", text) == pytest.approx(1e6 * millions)


@pytest.mark.parametrize("text", ["", "big", "-3e9", "0", "nan", "inf", "3 GB"])
def test_what_is_no_count_of_parameters_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--params"):
        PARAMS("--params", text)


def test_the_json_holds_every_law_at_full_precision_and_says_which_is_used(dry_run: Path, capsys) -> None:
    assert main(["predict", str(dry_run), "--params", "30M", "--layers", "6", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["model"] == {"params_millions": 30.0, "n_layer": 6.0, "n_embd": None}
    for mode in ("prefill", "kv_decode", "e2e_kv"):
        rows = [row for row in document["rows"] if row["mode"] == mode]
        assert {row["predictor"] for row in rows} == {"params", "depth", "params+depth"}
        [used] = [row for row in rows if row["used"]]
        assert used["typical_factor"] == min(row["typical_factor"] for row in rows)
        assert used["latency_ms_low"] < used["latency_ms"] < used["latency_ms_high"]
    [workload] = document["workloads"]
    assert workload["tokens"]["kv_decode"] == pytest.approx(64)


def test_the_table_says_what_the_rates_are_of_and_why_a_law_is_used(dry_run: Path, capsys) -> None:
    assert main(["predict", str(dry_run), "--params", "30M"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "prediction intervals" in out and "left out" in out
    assert "64.0 generated tokens" in out and "scenarios" in out


def test_outside_the_range_it_is_refused_in_one_line_that_says_how_to_insist(dry_run: Path, capsys) -> None:
    assert main(["predict", str(dry_run), "--params", "3e9", "--layers", "28"]) == 1
    captured = capsys.readouterr()
    simulated, error = captured.err.splitlines()
    assert captured.out == "" and "SIMULATED" in simulated
    assert "0.103 to 96.1" in error and "--extrapolate" in error
    assert main(["predict", str(dry_run), "--params", "3e9", "--layers", "28", "--extrapolate"]) == 0
    out = capsys.readouterr().out
    assert "; extrapolated." in " ".join(out.split()) and "EXTRAPOLATED on hf_cpu_fp32" in out


def test_too_few_models_are_refused_without_the_advice_to_extrapolate(tmp_path: Path, capsys) -> None:
    models = "models/tiny-gpt2,models/gpt2-100m"
    measure("--dry-run", "--models", models, "--out", tmp_path / "run")
    assert main(["predict", str(tmp_path / "run"), "--params", "30M"]) == 1
    said = capsys.readouterr().err
    assert "2 models measured" in said
    assert "--extrapolate" not in said and "outside" not in said


def test_two_replicates_of_few_models_have_no_interval_and_the_reason_stands_there(tmp_path: Path, capsys) -> None:
    models = "models/tiny-gpt2,models/gpt2-25m,models/gpt2-100m"
    assert main(["run", "--dry-run", "--models", models, "--replicates", "2", "--out", str(tmp_path / "run")]) == 0
    why = "2 replicates of fewer than 5 models need a third"
    assert why in " ".join(capsys.readouterr().out.split())
    assert main(["predict", str(tmp_path / "run"), "--params", "30M", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["latency_ms_low"], row["interval_holds"]) for row in rows} == {(None, f"not measured: {why}")}


@pytest.mark.parametrize("command", [["predict", "--params", "30M", "--layers", "6"], ["validate"], ["compare"]])
def test_lines_have_80_columns_on_a_pipe(dry_run: Path, command: list[str], capsys) -> None:
    other = [str(dry_run)] if command == ["compare"] else []
    main([command[0], str(dry_run), *command[1:], *other])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 or line.startswith(("A: ", "B: ")) for line in lines)


def test_validate_shows_each_model_and_how_many_intervals_held(dry_run: Path, capsys) -> None:
    assert main(["validate", str(dry_run)]) == 0
    out = capsys.readouterr().out
    assert out.count("models/gpt2-45m") == 3
    assert "intervals held the measured latency" in out
    assert main(["validate", str(dry_run), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["predictor"] for row in document["coverage"]} == {"chosen", "params", "depth", "params+depth"}
    assert len([row for row in document["predictions"] if row["predictor"] == "chosen"]) == 21


@pytest.mark.parametrize("command", [["predict", "--params", "3e7"], ["validate"]])
def test_an_unknown_backend_and_a_wrong_level_are_usage_errors(dry_run: Path, command: list[str], capsys) -> None:
    assert main([command[0], str(dry_run), *command[1:], "--backends", "nobody"]) == 2
    assert "it has: hf_cpu_fp32" in capsys.readouterr().err
    assert main([command[0], str(dry_run), *command[1:], "--level", "1.5"]) == 2


def test_a_range_that_only_some_backends_cover_is_predicted_on_those(reference_data: Path, capsys) -> None:
    assert main(["predict", str(reference_data / "tr121" / "primary_run"), "--params", "3B"]) == 0
    captured = capsys.readouterr()
    assert "ollama" in captured.out and "hf_cpu_fp32" not in captured.out
    assert "SUSPECT on ollama, prefill: prompt cache suspected" in captured.out
    assert "not predicted on hf_cpu_fp32: 3,000 M parameters (measured: 0.103 to 96.1)" in captured.err
