"""``phaselaw run cross-engine`` on real engines: a part of the shipped study, without Ollama."""

import csv
from pathlib import Path

import pytest
from in_process import phaselaw

from phaselaw.engines.llamacpp_process import find_server
from phaselaw.records import PHASES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server(None) is None, reason="no llama-server here: install phaselaw[llamacpp]"),
]

MODELS = ("models/tiny-gpt2", "models/gpt2-5m")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(ladder_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    assert ladder_cache.is_dir()
    out = tmp_path_factory.mktemp("cross-engine") / "run"
    chosen = ",".join([*MODELS, "models/tiny-gpt2:f32"])
    small = ("--models", chosen, "--scenarios", "short", "--set", "gen_tokens=8", "--set", "repetitions=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OLLAMA_HOST", "127.0.0.1:9")
        done = phaselaw("run", "cross-engine", "--out", out, *small)
    assert done.returncode == 0, done.stderr
    assert "skipped: backend ollama_f32: no Ollama server" in done.stderr
    return out


def test_every_call_on_both_engines_is_ok_and_does_the_same_work(run: Path) -> None:
    rows = table(run / "metrics.csv")
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["backend"] for row in rows} == {"hf_cpu_fp32", "llamacpp_f32"}
    assert len(rows) == 2 * len(MODELS) * 3 * len(PHASES)
    assert {(row["prompt_tokens_raw"], row["gen_tokens_raw"]) for row in rows} == {("9", "8")}


def test_each_model_has_its_ratio_with_an_interval_in_each_phase(run: Path) -> None:
    ratios = table(run / "analysis" / "engine_ratios.csv")
    assert {(row["model"], row["mode"]) for row in ratios} == {(model, phase) for model in MODELS for phase in PHASES}
    for row in ratios:
        assert (row["reference"], row["backend"], row["note"]) == ("hf_cpu_fp32", "llamacpp_f32", "")
        assert 0 < float(row["ratio_low"]) < float(row["ratio"]) < float(row["ratio_high"])
        assert float(row["ratio"]) == pytest.approx(float(row["latency_ms"]) / float(row["latency_reference_ms"]))


def test_the_report_has_them_and_says_that_two_models_make_no_law(run: Path) -> None:
    section = (
        (run / "report.md").read_text().partition("## The same weights on several engines")[2].partition("\n## ")[0]
    )
    assert "too few models in common (2)" in section
    assert all(section.count(f"| {model} |") == len(PHASES) for model in MODELS)
