"""Hard inputs at the command line: tables and a report, or one line that says why not; never a traceback."""

from pathlib import Path

import polars as pl
import pytest
from rows import hard_rows as rows

from phaselaw.cli import main

USABLE = {
    "two models": rows(models=2),
    "one model": rows(models=1),
    "one scenario, one call": rows(scenarios=("only",), reps=1),
    "batch sizes mixed": pl.concat([rows(), rows().with_columns(pl.lit(8).cast(pl.Int64).alias("batch_size"))]),
    "one phase": rows().filter(pl.col("mode") == "e2e_kv"),
    "no sizes": rows().with_columns(pl.lit(None, dtype=pl.Float64).alias("params_millions")),
    "a model that failed": rows().with_columns(
        pl.when(pl.col("model") == "m1").then(pl.lit("error")).otherwise("status").alias("status")
    ),
    "no latency": rows().with_columns(
        pl.when(pl.col("model") == "m1").then(float("nan")).otherwise("latency_ms").alias("latency_ms")
    ),
    "a served engine": rows().with_columns(
        pl.lit("ollama").alias("backend_kind"), pl.lit(9.0).alias("gen_tokens_raw"), pl.lit("stop").alias("done_reason")
    ),
    "hostile names": rows().with_columns((pl.lit("=cmd()<img onerror=x>") + pl.col("model")).alias("model")),
}
NO_RATES = {
    "everything failed": rows().with_columns(pl.lit("error").alias("status")),
    "warmups only": rows().with_columns(pl.lit(True).alias("is_warmup")),
    "required columns only": rows().select(
        "backend", "backend_kind", "model", "scenario", "mode", "status", "latency_ms", "params_millions"
    ),
    "no end to end": rows().filter(pl.col("mode") != "e2e_kv"),
}


pytestmark = pytest.mark.usefixtures("each_run_is_read_once")


def written(table: pl.DataFrame, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    table.write_csv(folder / "metrics.csv")
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each of them as a run that several commands are asked about."""
    root = tmp_path_factory.mktemp("hard")
    return {name: written(table, root / name) for name, table in (USABLE | NO_RATES).items()}


@pytest.mark.parametrize("name", [*USABLE, *NO_RATES])
def test_a_report_is_written(name: str, runs: dict[str, str]) -> None:
    assert main(["report", runs[name]]) == 0
    assert (Path(runs[name]) / "analysis" / "scaling_fits.csv").is_file()
    assert (Path(runs[name]) / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("name", USABLE)
def test_a_plan_is_printed(name: str, runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", runs[name]]) == 0
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.parametrize("name", NO_RATES)
def test_a_plan_without_rates_says_so_in_a_line(
    name: str, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", runs[name]]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "no end-to-end rates" in line


def test_a_phase_that_is_none_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(pl.concat([rows(), rows().with_columns(pl.lit("train").alias("mode"))]), tmp_path)
    assert main(["report", run]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "'train' is unknown" in line and "kv_decode" in line


@pytest.mark.parametrize("command", ["analyze", "report", "plan"])
def test_a_file_that_is_no_run_is_refused_in_a_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(rows().with_columns(pl.lit("fast").alias("latency_ms")), tmp_path)
    assert main([command, run]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "latency_ms" in line and "metrics.csv" in line


def test_a_report_says_what_was_left_out(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", runs["no latency"]]) == 0
    assert "18 row(s) are ok and have no latency" in capsys.readouterr().err
