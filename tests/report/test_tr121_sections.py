"""TR121's contents, section by section: five runs of its layout, made here, are one report that has them all."""

import dataclasses
import json
import re
from pathlib import Path

import polars as pl
import pytest

from phaselaw.cli import main
from phaselaw.files import write_csv
from phaselaw.records import Run
from phaselaw.rundir.columns import TR121_COLUMNS
from simulated_runs import as_served, ladder_study, simulated

pytestmark = pytest.mark.usefixtures("no_process_no_picture")

DOC = Path(__file__).parents[2] / "docs" / "results" / "tr121-sections.md"
COMPARED = ("gpt2-45m", "gpt2-5m", "tiny-gpt2")
PAST_FIRST = (pl.col("model") != "tiny-gpt2") & (pl.col("scenario") == "micro")


def measured(name: str, *, gen_tokens: int = 16, models: int = 4, batch: int = 1, **law: float) -> Run:
    """A run of TR121's runner in process, on a GPU: with device times and peaks of its memory."""
    study = ladder_study(
        {"call_noise": 0.02, **law}, 5, models=models, gen_tokens=gen_tokens, order="cells", repetitions=2
    )
    run = simulated(study)
    kinds = [pl.lit("hf").alias(kind) for kind in ("backend_kind", "model_kind")]
    rows = run.rows.with_columns(
        *kinds,
        pl.lit(name).alias("backend"),
        pl.lit(batch, dtype=pl.Int64).alias("batch_size"),
        (pl.col("tokens_total") * batch).alias("tokens_total"),
        (pl.col("tokens_per_s") * batch).alias("tokens_per_s"),
        (pl.col("latency_ms") * 0.99).alias("cuda_event_ms"),
        (pl.col("prompt_tokens_raw") * batch).alias("prompt_tokens_raw"),
        (pl.col("prompt_tokens_raw") * (1.25 if batch > 1 else 1.0)).alias("seq_len"),
        (100 + 4 * pl.col("params_millions_measured")).alias("gpu_peak_mb"),
    )
    return dataclasses.replace(run, rows=rows)


def served(**law: float) -> Run:
    """A run of TR121's runner against a server whose models stop early on one prompt."""
    run = as_served(simulated(ladder_study({"call_noise": 0.02, **law}, 6, models=4, gen_tokens=16, order="cells")))
    early = [
        pl.when(PAST_FIRST).then(pl.lit(5.0)).otherwise("gen_tokens_raw").alias("gen_tokens_raw"),
        pl.when(PAST_FIRST).then(pl.lit("stop")).otherwise("ollama_done_reason").alias("ollama_done_reason"),
        pl.when("is_warmup").then(pl.lit(900.0)).otherwise(pl.lit(30.0)).alias("ollama_load_ms"),
    ]
    return dataclasses.replace(run, rows=run.rows.with_columns(pl.lit("ollama").alias("backend"), *early))


def write(folder: Path, *runs: Run) -> Path:
    """Runs as one of TR121's run directories."""
    folder.mkdir(parents=True)
    rows = pl.concat([run.rows for run in runs], how="diagonal_relaxed")
    write_csv(folder / "metrics.csv", TR121_COLUMNS, rows.iter_rows(named=True))
    manifest = {"run_name": folder.name, "seed": 42, "repetitions": 2, "warmup_repetitions": 1, "run_id": folder.name,
                "platform": {"os": "an OS", "processor": "a CPU"}, "records_expected": rows.height}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """``report.md`` of TR121's five runs: the primary one, a family, larger batches, longer answers, a decode sweep."""
    root = tmp_path_factory.mktemp("tr121")
    primary = write(root / "primary", measured("hf_gpu_fp16", models=5), served())
    family = write(root / "family", served(params_exponent=0.5))
    batches = write(root / "batch8", measured("hf_gpu_fp16_bs1"), measured("hf_gpu_fp16_bs8", batch=8))
    longer = write(root / "gen512", measured("hf_gpu_fp16", gen_tokens=64))
    for budget in (8, 32):
        write(root / "sweep" / f"gen_{budget}", measured("hf_gpu_fp16", gen_tokens=budget))
    beside = map(str, (family, batches, longer, root / "sweep"))
    (root / "rates.csv").write_text("model,success_rate\ngpt2-5m,0.7\ngpt2-45m,0.8\n")
    asked = ("--success-rates", str(root / "rates.csv"), "--failure-usd", "2", "--compare", ",".join(COMPARED))
    assert main(["report", str(primary), "--with", *beside, "--out", str(root / "out"), *asked]) == 0
    return (root / "out" / "report.md").read_text()


def test_every_section_that_the_table_names_stands_in_the_report(report: str) -> None:
    named = set(re.findall(r"\*\*(.+?)\*\*", DOC.read_text()))
    headings = set(re.findall(r"^### (.+)$", report, re.MULTILINE))
    assert len(named) > 20
    assert named - headings == set()


def test_the_table_has_each_of_tr121s_sections() -> None:
    rows = re.findall(r"^\| (\d+)[ .]", DOC.read_text(), re.MULTILINE)
    assert {int(number) for number in rows} == set(range(1, 11))


def beside(report: str, caption: str) -> list[list[str]]:
    """A table of the runs side by side."""
    section = report.split("### Runs side by side")[1].split("\n### ")[0]
    lines = section.split(caption)[1].split("\n\n")[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_shares_early_stops_cold_starts_and_regimes_of_each_run_stand_side_by_side(report: str) -> None:
    runs = {"primary", "family", "batch8", "gen512", "sweep"}
    for caption in ("Decode's share of end", "First calls against warm ones", "The regime of each backend"):
        assert {row[0] for row in beside(report, caption)} == runs, caption
    assert {row[0] for row in beside(report, "Early stops by scenario")} == {"primary", "family"}
    assert {row[1] for row in beside(report, "Laws over all scenarios")} == runs
    assert "decode-fraction-of-runs.svg" in report


def test_batches_and_buckets_are_advised_by_what_the_run_beside_shows(report: str) -> None:
    guidance = report.split("### Guidance")[1].split("\n### ")[0]
    batching, padding = (
        line for line in guidance.splitlines() if line.startswith(("| Batch requests", "| Put prompts"))
    )
    assert "batch8, hf_gpu_fp16: batches of 8 decode of 16 tokens at 8.00 x the tokens/s of batches of 1" in batching
    assert "batch8, hf_gpu_fp16_bs8, batch 8, 16 tokens: 20.0 % of the prompt tokens" in padding


def test_tr121s_overhead_is_told_in_milliseconds_and_each_cell_has_its_peak(report: str) -> None:
    line = report.split("latency = a + b P, least squares in ms")[1].split("\n\n")[1]
    assert "a (ms)" in line and line.count("hf_gpu_fp16") == 3
    assert report.split("### Memory")[1].split("\n### ")[0].count("| GPU |") == 15


def test_pairs_of_models_are_compared_and_a_failures_cost_decides_as_the_reader_asks(report: str) -> None:
    deltas, quality = (
        report.split(f"### {title}")[1].split("\n### ")[0] for title in ("What choosing", "Quality that")
    )
    rows = [re.findall(r"tiny-gpt2|gpt2-[0-9]+m", line) for line in deltas.splitlines()]
    assert {frozenset(row) for row in rows if row} == {frozenset(COMPARED[:2]), frozenset(COMPARED[1:])}
    assert "gpt2-45m" in quality and "pay" in quality
