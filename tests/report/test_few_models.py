"""A run of one or two models: what a person sees of it first."""

from pathlib import Path

import pytest

from phaselaw.cli import main

pytestmark = pytest.mark.usefixtures("no_process_no_picture")


def said(folder: Path, models: int, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What the terminal and ``report.md`` say of a simulated run of so many models."""
    names = ",".join(["tiny-gpt2", "gpt2-25m", "gpt2-100m"][:models])
    scenarios = "--scenarios micro,medium"
    assert main(["run", "--dry-run", "--models", names, *scenarios.split(), "--out", str(folder / "run")]) == 0
    return capsys.readouterr().out, (folder / "run" / "report.md").read_text()


def test_one_model_has_its_figures_by_prompt_with_intervals_and_no_law(tmp_path: Path, capsys) -> None:
    terminal, report = said(tmp_path, 1, capsys)
    for text in (terminal, report.partition("## Claim")[0]):
        assert "too few models" not in text and "Too little" not in text
        assert "models/tiny-gpt2" in text and "medium (17)" in text
        for title in ("tokens/s", "TTFT", "a token", "$", "cold"):
            assert title in text
    [speed, whole] = [line.split() for line in terminal.splitlines() if line.startswith("micro (1)")]
    assert speed[3].startswith("[") and whole[3].startswith("[")
    assert "add 2 more" in terminal and "Trust: sound" in terminal
    assert len(terminal.splitlines()) <= 30
    assert "." not in terminal.splitlines(), "a table without a caption has none"
    assert "*1M generated tokens on" in report and "1M tokens on" not in report
    assert "per 1M generated tokens" in report and "a million" not in report.partition("##")[0]


def test_two_models_are_compared_by_name_prompt_by_prompt(tmp_path: Path, capsys) -> None:
    terminal, report = said(tmp_path, 2, capsys)
    words = " ".join(terminal.split())
    assert "Whole calls of models/tiny-gpt2 against models/gpt2-25m: micro" in words
    assert "faster [" in words and "], real" in words
    assert "| models/tiny-gpt2 | models/gpt2-25m | micro |" in report
    [answer] = [line for line in report.splitlines() if line.startswith("models/tiny-gpt2 on hf")]
    assert answer.count(" generates on 2 prompts ") == 2 and " tokens/s, the first after " in answer


def test_from_three_models_on_laws_lead(tmp_path: Path, capsys) -> None:
    terminal, report = said(tmp_path, 3, capsys)
    assert "exponent" in terminal and "Each model and prompt" not in report
    assert "Regime: " in terminal and "Regime: " in report.partition("##")[0]
    assert "What another day would give" in report and "What another run would give" not in report
    assert "A million tokens, prompt and generated, cost $" in " ".join(terminal.split())
