"""A real instruction-tuned model on a real llama-server: it stops early, which is flagged, corrected and listed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from llama_server import llama_server, smollm2
from measured import calls_of, measured

from phaselaw import api
from phaselaw.engines.llamacpp_process import find_server
from phaselaw.laws.analysis import Analysis, analyze
from phaselaw.records import Call
from phaselaw.rundir.read import load
from phaselaw.study.model import Study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server("xllamacpp") is None, reason="needs the package xllamacpp"),
]

BUDGET = 24
STOPS, TALKS = "stops", "talks"
SCENARIOS = [
    {"name": STOPS, "prompt": "What is the capital of France? Answer with one word."},
    {"name": TALKS, "prompt": "Tell me a long story about a ship that sails around the world."},
]


def study(backend: dict[str, Any], models: list[str], **changes: Any) -> Study:
    return Study.model_validate({
        "run_name": "instruct", "gen_tokens": BUDGET, "repetitions": 2, "scenarios": SCENARIOS,
        "backends": [{"name": "served"} | backend],
        "models": [{"name": each, "kind": backend["kind"]} for each in models],
    } | changes)  # fmt: skip


@pytest.fixture(scope="module")
def run(ladder_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with its chat template, free to stop, beside two models of the ladder, which never do."""
    assert ladder_cache.is_dir()
    free = {"kind": "llamacpp", "server": "xllamacpp", "ignore_eos": False, "chat_template": True, "threads": 1,
            "context_length": 512}  # fmt: skip
    asked = study(free, [str(smollm2()), "models/tiny-gpt2", "models/gpt2-5m"])
    return measured(asked, tmp_path_factory.mktemp("instruct") / "run")


@pytest.fixture(scope="module")
def analysis(run: Path) -> Analysis:
    return analyze(load(run))


def test_it_stops_early_and_each_row_says_so(run: Path) -> None:
    rows = load(run).rows.filter(pl.col("mode") == "kv_decode")
    smol = rows.filter(pl.col("model").str.ends_with(".gguf"))
    assert set(rows["status"]) == {"ok"}
    assert set(smol.filter(pl.col("scenario") == STOPS)["done_reason"]) == {"stop"}
    assert smol.filter(pl.col("scenario") == STOPS)["gen_tokens_raw"].max() < BUDGET
    assert set(smol.filter(pl.col("scenario") == TALKS)["done_reason"]) == {"length"}
    assert set(rows.filter(pl.col("model").str.starts_with("models/"))["gen_tokens_raw"]) == {BUDGET}


def test_its_decode_is_corrected_to_the_budget_at_the_pace_that_was_seen(run: Path) -> None:
    rows = load(run).rows.filter((pl.col("mode") == "kv_decode") & (pl.col("gen_tokens_raw") < BUDGET))
    assert rows.height > 0
    for row in rows.iter_rows(named=True):
        steps = row["gen_tokens_raw"] - 1
        assert row["latency_ms"] == pytest.approx(row["kv_decode_ms"] / steps * BUDGET)
        assert row["kv_decode_ms_equiv"] == pytest.approx(row["kv_decode_ms"] / (steps + 1) * BUDGET)
        assert row["tokens_per_s"] == pytest.approx(1e3 / row["decode_step_ms"])


def test_early_stops_are_listed_by_model_and_scenario(analysis: Analysis) -> None:
    table = analysis.tables["ollama_early_stop_summary"]
    assert table.height == 6
    early = table.filter(pl.col("early_stop_rate") > 0)
    assert early.select("scenario", "early_stop_rate", "done_reason_mode").rows() == [(STOPS, 1.0, "stop")]
    assert early["model"][0].endswith(".gguf")


def test_length_limited_fits_leave_out_its_decode_alone_or_its_whole_calls(analysis: Analysis) -> None:
    whole = _slopes(analysis.tables["scaling_fits"].filter(pl.col("scenario") == "__all__"))
    decode_only = _slopes(analysis.tables["scaling_fits_length_limited"])
    calls = _slopes(analysis.tables["scaling_fits_length_limited_calls"])
    assert decode_only["prefill"] == pytest.approx(whole["prefill"]), "TR121's filter keeps every prefill"
    assert decode_only["kv_decode"] != pytest.approx(whole["kv_decode"], rel=1e-9)
    assert calls["prefill"] != pytest.approx(whole["prefill"], rel=1e-9)
    assert calls["kv_decode"] == pytest.approx(decode_only["kv_decode"])
    # What is left of the model is its other scenario alone.
    cells = analysis.tables["summary_by_model_backend_mode"]
    smol = cells.filter(pl.col("model").str.ends_with(".gguf") & (pl.col("mode") == "kv_decode"))
    assert smol.height == 2


def _slopes(table: pl.DataFrame) -> dict[str, float]:
    assert set(table["n_models"]) == {3}
    return dict(table.select("mode", "slope").iter_rows())


def test_the_report_lists_them(run: Path) -> None:
    api.report(api.load(run))
    section = (run / "report.md").read_text(encoding="utf-8").partition("## Early stops")[2].partition("\n## ")[0]
    assert "SmolLM2-135M-Instruct" in section and "100.0 %" in section


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llama_server() as url:
        yield url


@pytest.mark.parametrize("ignores", [False, True])
def test_through_openais_chat_it_stops_early_unless_it_is_told_not_to(server: str, ignores: bool) -> None:
    chat = {"kind": "openai", "url": f"{server}/v1", "api": "chat", "ignore_eos": ignores}
    calls = calls_of(study(chat, ["m"], scenarios=SCENARIOS[:1], repetitions=1))
    assert {call.status for call in calls} == {"ok"}, [call.error for call in calls]
    assert {_ended(call) for call in calls} == ({("length", True)} if ignores else {("stop", False)})


def _ended(call: Call) -> tuple[str | None, bool]:
    assert call.timing is not None
    return call.timing.done_reason, call.timing.gen_tokens_raw == BUDGET
