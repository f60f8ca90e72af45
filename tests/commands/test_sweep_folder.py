"""A folder of runs gen_8, gen_32, ... is a run to every command: TR121's layout of a decode sweep, and runs of ours."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from in_process import measure
from simulated_run import run_of, swept

from phaselaw import api
from phaselaw.api import fit, plan, predict
from phaselaw.cli import main
from phaselaw.files import write_csv
from phaselaw.rundir.columns import TR121_COLUMNS
from simulated_runs import as_served, ladder_study, prompt_cache, simulated

pytestmark = pytest.mark.usefixtures("each_run_is_read_once")

BUDGETS = (8, 32, 64, 128)
FRACTIONS = [
    "backend", "backend_kind", "batch_size", "model", "model_kind", "kv_decode_latency_ms", "e2e_kv_latency_ms",
    "gen_tokens_target", "decode_fraction",
]  # fmt: skip
SUMMARY = [
    "backend", "backend_kind", "gen_tokens_target", "n_models", "decode_fraction_median", "decode_fraction_p25",
    "decode_fraction_p75",
]  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TR121's columns and nothing else: no manifest, none of our columns."""
    folder = tmp_path_factory.mktemp("tr121_decode_sweep")
    run = run_of(swept({"prefill_steps": 2.0, "call_noise": 0.05}, gen_tokens=BUDGETS, prompt_tokens=(9, 17)))
    for budget in BUDGETS:
        (folder / f"gen_{budget}").mkdir()
        rows = run.rows.filter(run.rows["gen_tokens_target"] == budget)
        write_csv(folder / f"gen_{budget}" / "metrics.csv", TR121_COLUMNS, rows.iter_rows(named=True))
    (folder / "plots").mkdir()
    assert main(["analyze", str(folder)]) == 0
    return folder


def test_the_three_tables_stand_at_the_root_with_tr121s_columns(sweep: Path) -> None:
    assert list(read(sweep / "decode_fraction_by_model.csv")[0]) == FRACTIONS
    assert list(read(sweep / "decode_fraction_summary.csv")[0]) == SUMMARY
    fits = read(sweep / "decode_sweep_summary.csv")
    assert len(fits) == 4 * 3
    assert {row["scenario"] for row in fits} == {"__all__"}
    assert [row["gen_tokens_target"] for row in fits if row["mode"] == "kv_decode"] == ["8", "32", "64", "128"]


def test_a_fraction_is_decode_over_end_to_end_of_a_models_means_over_prompts(sweep: Path) -> None:
    rows = read(sweep / "gen_32" / "metrics.csv")
    means = {}
    for mode in ("kv_decode", "e2e_kv"):
        medians = [
            statistics.median(
                float(row["latency_ms"])
                for row in rows
                if (row["model"], row["scenario"], row["mode"], row["is_warmup"]) == ("m10", scenario, mode, "False")
            )
            for scenario in ("prompt_9", "prompt_17")
        ]
        means[mode] = statistics.geometric_mean(medians)
    found = next(
        row
        for row in read(sweep / "decode_fraction_by_model.csv")
        if (row["model"], row["gen_tokens_target"]) == ("m10", "32")
    )
    assert float(found["kv_decode_latency_ms"]) == pytest.approx(means["kv_decode"])
    assert float(found["decode_fraction"]) == pytest.approx(means["kv_decode"] / means["e2e_kv"])


def test_the_summary_is_the_median_and_the_linear_quartiles_over_models(sweep: Path) -> None:
    of_64 = [
        float(row["decode_fraction"])
        for row in read(sweep / "decode_fraction_by_model.csv")
        if row["gen_tokens_target"] == "64"
    ]
    low, middle, high = statistics.quantiles(of_64, n=4, method="inclusive")
    row = next(row for row in read(sweep / "decode_fraction_summary.csv") if row["gen_tokens_target"] == "64")
    assert row["n_models"] == "5"
    found = [float(row[f"decode_fraction_{name}"]) for name in ("p25", "median", "p75")]
    assert found == pytest.approx([low, middle, high])


def test_each_run_has_its_own_tables_and_its_laws_are_those_of_the_sweep(sweep: Path) -> None:
    fits = {
        row["gen_tokens_target"]: row for row in read(sweep / "decode_sweep_summary.csv") if row["mode"] == "e2e_kv"
    }
    for budget in BUDGETS:
        own = read(sweep / f"gen_{budget}" / "analysis" / "scaling_fits.csv")
        law = next(row for row in own if (row["mode"], row["scenario"]) == ("e2e_kv", "__all__"))
        for name in ("slope", "r2", "slope_ci_low", "slope_ci_high", "theilsen_slope"):
            assert fits[str(budget)][name] == law[name], name


def test_every_table_of_a_run_stands_in_its_analysis_folder(sweep: Path) -> None:
    names = {path.stem for path in (sweep / "analysis").glob("*.csv")}
    assert {"step_time_model", "exponent_by_axis", "exponent_stability", "sweep_changes", "sweep_curves"} <= names
    assert {"scaling_fits", "cold_starts", "regimes", "validity_checks"} <= names
    assert any("decode passes 95% of" in row["said"] for row in read(sweep / "analysis" / "sweep_changes.csv"))


def test_rows_that_state_no_budget_have_that_of_their_folder(sweep: Path, tmp_path: Path) -> None:
    for budget in (8, 32):
        rows = [row | {"gen_tokens_target": ""} for row in read(sweep / f"gen_{budget}" / "metrics.csv")]
        (tmp_path / f"gen_{budget}").mkdir()
        write_csv(tmp_path / f"gen_{budget}" / "metrics.csv", TR121_COLUMNS, rows)
    assert main(["analyze", str(tmp_path)]) == 0
    expected = [row for row in read(sweep / "decode_fraction_summary.csv") if row["gen_tokens_target"] in ("8", "32")]
    assert read(tmp_path / "decode_fraction_summary.csv") == expected


def test_a_folder_whose_name_contradicts_its_rows_is_refused(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gen_16").mkdir()
    (tmp_path / "gen_16" / "metrics.csv").write_bytes((sweep / "gen_8" / "metrics.csv").read_bytes())
    assert main(["analyze", str(tmp_path)]) == 1
    assert "its rows are of 8 generated tokens" in capsys.readouterr().err


def test_out_leaves_the_sweep_as_it_is_and_json_says_what_was_written(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(sweep), "--out", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"] == ["gen_8", "gen_32", "gen_64", "gen_128"]
    assert said["tables"]["decode_fraction_summary"] == 4
    assert (tmp_path / "decode_fraction_summary.csv").is_file()
    assert (tmp_path / "gen_8" / "analysis" / "scaling_fits.csv").is_file()


def test_a_run_of_a_sweep_that_a_check_speaks_against_marks_its_budget_alone(tmp_path: Path) -> None:
    for budget in (8, 16):
        (tmp_path / f"gen_{budget}").mkdir()
        clean = as_served(simulated(ladder_study({"prefill_steps": 1.2}, 3, gen_tokens=budget, order="cells")))
        run = prompt_cache(clean) if budget == 16 else clean
        run.rows.write_csv(tmp_path / f"gen_{budget}" / "metrics.csv")
    assert main(["analyze", str(tmp_path)]) == 0
    for name in ("decode_sweep_summary", "decode_fraction_by_model", "decode_fraction_summary"):
        table = pl.read_csv(tmp_path / f"{name}.csv")
        laws = table.filter(pl.col("mode") != "kv_decode") if "mode" in table.columns else table
        marked = laws.with_columns(pl.col("suspect").fill_null("")).group_by("gen_tokens_target").agg("suspect")
        said = {budget: set(marks) for budget, marks in marked.iter_rows()}
        assert said == {8: {""}, 16: {"prompt cache suspected"}}, name


def test_a_sweep_is_reported_with_its_figure_and_stands_beside_another_run(sweep: Path, tmp_path: Path) -> None:
    assert main(["report", str(sweep), "--with", str(sweep / "gen_64"), "--out", str(tmp_path)]) == 0
    report = (tmp_path / "report.md").read_text()
    assert "decode-fraction-by-gen-tokens.svg" in report
    beside = report.split("### Runs side by side")[1].split("\n### ")[0]
    assert "decode-fraction-of-runs.svg" in beside
    for caption in ("Laws over all", "Decode's share of end", "First calls", "The regime of each"):
        table = beside.split(caption)[1].split("\n\n")[1].splitlines()
        assert {row.split(" | ")[0].strip("| ") for row in table[2:]} >= {sweep.name, "gen_64"} or "gen_64" in table[-1]


def test_a_sweep_loads_as_one_run_whose_budgets_are_an_axis_and_no_repetitions(sweep: Path) -> None:
    loaded = api.load(sweep)
    assert loaded.rows["gen_tokens_target"].unique().sort().to_list() == list(BUDGETS)
    assert loaded.rows.filter(mode="e2e_kv")["call_idx"].n_unique() == loaded.rows.height // 3
    exponents = {law.gen_tokens_target: law.exponent for law in fit(loaded) if law.mode == "kv_decode"}
    alone = api.load(sweep / "gen_32")
    assert exponents[32] == pytest.approx(next(law.exponent for law in fit(alone) if law.mode == "kv_decode"))
    assert loaded.tables["summary_by_model_and_run"].is_empty()
    assert {need.usd_per_1m.low for need in plan(loaded)} == {None}
    assert not predict(loaded, params=5e6).refused


def test_two_sweeps_of_one_study_are_runs_whose_difference_is_noise(sweep: Path, tmp_path: Path) -> None:
    for budget in BUDGETS:
        rows = pl.read_csv(sweep / f"gen_{budget}" / "metrics.csv").with_columns(pl.col("latency_ms") * 1.02)
        (tmp_path / f"gen_{budget}").mkdir()
        rows.write_csv(tmp_path / f"gen_{budget}" / "metrics.csv")
    pooled = api.load(sweep, tmp_path)
    assert pooled.tables["summary_by_model_and_run"]["run"].n_unique() == 2
    assert len(fit(pooled)) == len(fit(api.load(sweep)))


def test_runs_of_a_sweep_on_two_machines_are_said_to_be(sweep: Path, tmp_path: Path) -> None:
    for budget, processor in ((8, "one"), (32, "another")):
        folder = tmp_path / f"gen_{budget}"
        folder.mkdir()
        (folder / "metrics.csv").write_bytes((sweep / folder.name / "metrics.csv").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({"platform": {"processor": processor}, "records_expected": 9}))
    run = api.load(tmp_path).run
    assert f"{tmp_path}: its runs differ in host cpu_model: one and another" in run.notes
    assert run.manifest["records_expected"] == 18


def test_plan_predict_and_show_take_a_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(sweep), "--json"]) == 0
    assert {row["gen_tokens"] for row in json.loads(capsys.readouterr().out)["rows"]} == set(BUDGETS)
    assert main(["plan", str(sweep)]) == 0
    told = capsys.readouterr().out
    # A model stands once for each budget: rows of 80 characters, and the answer, say which.
    lines = [line.split() for line in told.splitlines() if len(line.split()) > 6 and line.split()[1] in {"8", "128"}]
    assert len({tuple(line[:2]) for line in lines}) == len(lines) > 2
    assert "8 tokens generated, $" in " ".join(told.split())
    assert main(["predict", str(sweep), "--params", "5M", "--json"]) == 0
    assert {row["gen_tokens_target"] for row in json.loads(capsys.readouterr().out)["rows"]} == set(BUDGETS)
    assert main(["show", str(sweep)]) == 0
    shown = capsys.readouterr().out
    assert "8, 32, 64, 128 generated" in shown
    assert "160 of 160: 160 ok, 0 failed" in shown
    assert main(["show", str(sweep), "--verify"]) == 1
    assert "no run of ours" in capsys.readouterr().err


STUDY = """
run_name: short
repetitions: 2
warmup_repetitions: 1
scenarios: [{name: p, prompt_tokens: 4}]
backends: [{name: sim, kind: simulated}]
models: [{name: a, kind: simulated, params_millions: 1}, {name: b, kind: simulated, params_millions: 9}]
"""


def test_a_sweep_of_our_own_runs_is_shown_verified_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    for budget in (2, 4):
        out, study = tmp_path / "ours" / f"gen_{budget}", tmp_path / "study.yaml"
        measure(study, "--set", f"gen_tokens={budget}", "--set", "replicates=1", "--out", out)
    assert main(["show", str(tmp_path / "ours"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["calls_expected"], shown["calls_ok"], shown["complete"]) == (12, 12, True)
    assert shown["host"]["cores_logical"]
    assert main(["show", str(tmp_path / "ours"), "--verify"]) == 0
    assert main(["plan", str(tmp_path / "ours"), "--usd-per-hour", "2"]) == 0
    assert json.loads((tmp_path / "ours" / "plan" / "inputs.json").read_text())["options"] == {"usd_per_hour": "2"}
    (tmp_path / "ours" / "gen_4" / "metrics.csv").write_text("changed")
    assert main(["show", str(tmp_path / "ours"), "--verify"]) == 3
    assert "gen_4: " in capsys.readouterr().out
