"""The report's content: what it must say, and that it says nothing that the run doesn't."""

import hashlib
import re
from pathlib import Path

import polars as pl
import pytest
from rows import hard_rows, written

from phaselaw.cli import main


def sections(markdown: str) -> dict[str, str]:
    parts = re.split(r"\n##+ ", markdown)
    return {part.partition("\n")[0]: part for part in parts[1:]}


def test_a_simulated_run_says_so_first(hostile_run: Path) -> None:
    lines = (hostile_run / "report.md").read_text().splitlines()
    assert lines[4].startswith("SIMULATED")


def test_every_plot_that_the_report_shows_is_there(hostile_run: Path) -> None:
    text = (hostile_run / "report.md").read_text()
    shown = [part.partition(")")[0] for part in text.split("](")[1:] if part.startswith("analysis/plots/")]
    assert len(shown) >= 5 and len(set(shown)) == len(shown)
    assert all((hostile_run / name).read_text().startswith("<svg") for name in shown)


def test_hostile_names_are_no_markup_in_markdown(hostile_run: Path) -> None:
    text = (hostile_run / "report.md").read_text()
    assert r"\<img onerror=alert(1)\>" in text
    assert "<img" not in text.replace(r"\<img", "")


def test_the_law_and_its_regime_are_in_the_report(hostile_run: Path) -> None:
    found = sections((hostile_run / "report.md").read_text())
    [row] = [line for line in found["Scaling exponents"].splitlines() if line.startswith("| sim | end to end")]
    exponent = float(row.split("|")[4])
    assert 0.5 < exponent < 0.9  # 0.8 was put in, over an overhead of 1 ms
    assert "cold start" in found["Regimes"]
    assert "phaselaw report" in found["How to reproduce"]


def test_a_bare_metrics_file_is_reported_too(hostile_run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "metrics.csv").write_bytes((hostile_run / "metrics.csv").read_bytes())
    assert main(["report", str(tmp_path / "metrics.csv"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Not recorded" in sections(text)["Environment"]
    assert (tmp_path / "out" / "analysis" / "scaling_fits.csv").is_file()
    assert "report.html" in capsys.readouterr().out


def test_rows_that_count_no_tokens_and_know_no_first_call_are_told_so(tmp_path: Path) -> None:
    kept = ("backend", "backend_kind", "model", "scenario", "mode", "status", "latency_ms", "params_millions")
    rows = hard_rows(models=3, scenarios=("a",)).filter(~pl.col("is_warmup")).select(kept)
    again = rows.with_columns(backend=pl.lit("y"), backend_kind=pl.lit("openai"))
    batches = [pl.concat([rows, again]).with_columns(batch_size=pl.lit(batch)) for batch in (1, 2)]
    written(pl.concat(batches).to_dicts(), tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert not re.search(r"\bNone\b|\bnan\b", text)
    assert "a cold start adds, at worst: – (no first call was measured beside warm ones)" in text
    assert "- ms a token: – (no rate)" in text
    assert "ran different models" not in text, "both ran the same"


def test_the_reference_run_is_governed_as_its_authors_found(reference_sections: dict[str, str]) -> None:
    regimes = reference_sections["Regimes"]
    for backend, regime in (("hf_cpu_fp32", "size"), ("hf_gpu_fp16", "depth"), ("ollama", "size")):
        assert f"| {backend} | end to end | {regime} (" in regimes


@pytest.fixture(scope="module")
def reference_sections(
    reference_data: Path, hostile_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The report of TR121's own rows, another run beside it."""
    out = tmp_path_factory.mktemp("reference")
    run = reference_data / "tr121" / "primary_run"
    assert main(["report", str(run), "--out", str(out), "--with", str(hostile_run)]) == 0
    return sections((out / "report.md").read_text())


def table_rows(section: str, *first: str) -> list[list[str]]:
    """Cells of the table rows that begin with these cells."""
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [cells for cells in lines if tuple(cells[: len(first)]) == first]


def test_tr121s_first_page_says_what_breaks_first(reference_sections: dict[str, str]) -> None:
    [ollama] = table_rows(reference_sections["What breaks first"], "ollama")
    assert ollama[1:4] == ["cold start", "latency", "268 to 20,900"]
    assert ollama[5] == "23.9 x"  # 2965.75 / 123.90 of TR121 3.5


def test_tr121s_tables_are_there_with_its_figures(reference_sections: dict[str, str]) -> None:
    text = reference_sections
    [model] = table_rows(text["Performance by model"], "ollama", "gpt-oss-20b:latest")
    assert model[2:10] == [
        "20,900",
        "50.8",
        "1,799",
        "2,914",
        "22.0",
        "45.5",
        "2,966",
        "52.4 (this run: ± 15 %)",
    ]  # 3.5
    assert table_rows(text["Workload"], "ollama", "micro") == [["ollama", "micro", "11", "10", "84"]]  # 3.5.1
    assert table_rows(text["Acceptance"], "hf_cpu_fp32")[0][1] == "252"  # 3.1
    assert "5291e18bc612158e476a7c57d18b20e8950e75405581f418d0d4232cbc5c1ccd" in text["Acceptance"]
    stops = table_rows(text["Early stops"], "ollama", "short")[0]
    assert stops[:5] == ["ollama", "short", "5", "15", "80.0 %"]  # 4.1.1
    [depth] = table_rows(text["Model structure"], "hf_gpu_fp16", "end to end")
    assert depth[3:7] == ["0.286", "0.535", "0.811", "0.027"]  # 5.2
    worst = table_rows(text["First calls"], "prefill", "hf_gpu_fp16", "models/tiny-gpt2", "medium")[0]
    assert worst[4:8] == ["836", "4.30", "832", "194"]  # 7.3
    assert any(
        cells[-2:] == ["54.0", "⚠ prompt cache suspected, far off the law, spill suspected"] or "54.0" in cells
        for cells in table_rows(text["First calls"], "ollama", "gpt-oss-20b:latest")
    )  # 7.1.1
    [gap] = table_rows(text["Device clock"], "hf_gpu_fp16", "prefill", "measured")
    assert gap[4:6] == ["0.944 %", "1.99 %"]  # 2.2.1


def test_a_law_on_suspect_rows_is_marked_where_it_stands(reference_sections: dict[str, str]) -> None:
    for title in ("Scaling exponents", "Scenario by scenario", "Overhead and compute", "Runs side by side"):
        marked = [line for line in reference_sections[title].splitlines() if "| ollama" in line and "prefill" in line]
        assert marked and all("⚠ prompt cache suspected" in line for line in marked), title
        sound = [line for line in reference_sections[title].splitlines() if "| hf_cpu_fp32" in line]
        assert sound and not any("⚠" in line for line in sound), title


def test_each_policy_has_the_figure_that_triggered_it(reference_sections: dict[str, str]) -> None:
    policies = {line.split(" | ")[0].strip("| "): line for line in reference_sections["Guidance"].splitlines()}
    by_decode = next(line for policy, line in policies.items() if policy.startswith("Decode decides"))
    assert "98.0 % of end to end at 64 tokens" in by_decode
    warm = next(line for policy, line in policies.items() if policy.startswith("Keep a pool of warm workers"))
    assert "54.0 x" in warm and "12,135 ms of it loading" in warm


def test_several_runs_stand_side_by_side_and_nothing_is_written_into_them(
    reference_sections: dict[str, str], hostile_run: Path
) -> None:
    text = reference_sections["Runs side by side"]
    assert [cells[1] for cells in table_rows(text, "end to end")].count("hostile \\<b\\>\\&amp; (run)") == 1
    assert "laws_side_by_side" in reference_sections["Files"]
    assert not (hostile_run / "analysis" / "laws_side_by_side.csv").exists()


def test_the_index_names_raw_data_with_their_hashes(reference_sections: dict[str, str], reference_data: Path) -> None:
    raw = (reference_data / "tr121" / "primary_run" / "metrics.csv").read_bytes()
    [row] = table_rows(reference_sections["Files"], "metrics.csv")
    assert row[2:] == [f"{len(raw):,}", hashlib.sha256(raw).hexdigest()]


def test_every_table_of_the_analysis_is_in_the_index_with_what_it_holds(hostile_run: Path) -> None:
    text = sections((hostile_run / "report.md").read_text())["Files"]
    for path in (hostile_run / "analysis").glob("*.csv"):
        [row] = table_rows(text, f"analysis/{path.name}")
        assert row[1] != path.stem.replace("_", " "), f"{path.stem}: say in its Table what it holds"


@pytest.mark.parametrize("content", ["", "backend,model\n"])
def test_a_file_that_is_no_run_is_one_line_of_error(content: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    assert main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "metrics.csv" in error
