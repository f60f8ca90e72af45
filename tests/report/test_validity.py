"""The report names what the checks found, what it may be else, the next step, and the laws that it touches."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rows import phases, run_of

from phaselaw.cli import main
from phaselaw.laws.checks.frame import VALIDITY_FINDINGS
from phaselaw.report.front import notices
from phaselaw.report.validity import trust, validity


@pytest.fixture(scope="module")
def reported(tr121_reported: tuple[Path, str]) -> dict[str, str]:
    parts = re.split(r"\n##+ ", (tr121_reported[0] / "report.md").read_text())
    return {part.partition("\n")[0]: part for part in parts[1:]}


def row(section: str, start: str) -> list[str]:
    found = next(line for line in section.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_suspicion_stands_with_its_cells_its_other_reading_and_the_laws_it_touches(reported) -> None:
    check, outcome, where, evidence, laws, other, step = row(reported["Validity"], "prompt cache")
    assert (check, outcome, where) == ("prompt cache", "suspected", "ollama: 15 cells of 5 models")
    assert "decode steps" in evidence and "reading the weights" in other and "500 tokens" in step
    assert laws == "ollama, end to end; ollama, prefill"


def test_a_model_far_off_the_law_is_named_with_the_likely_reason(reported) -> None:
    _, outcome, where, evidence, laws, other, _ = row(reported["Validity"], "far off the law")
    assert outcome == "found"
    assert "gpt-oss-20b" in where and "2.47 x slower" in evidence and "memory" in other
    assert laws == "ollama, end to end; ollama, decode"


def test_every_check_stands_there_with_what_it_looked_at_and_how_often_it_errs(reported) -> None:
    checks = [line for line in reported["Validity"].splitlines() if line.startswith("| ") and line.count("|") == 8]
    clear = [line for line in checks if "| clear |" in line]
    assert len(clear) >= 5
    assert any("at most 1% of backends" in line for line in clear)


def test_claims_carry_the_marks_of_their_laws(reported) -> None:
    [of_ollama] = [line for line in reported["Claim status"].splitlines() if "| ollama, end to end | supp" in line]
    assert "prompt cache suspected" in of_ollama
    [of_cpu] = [line for line in reported["Claim status"].splitlines() if "| hf_cpu_fp32, end to end | supp" in line]
    assert "suspected" not in of_cpu


def test_the_terminal_shows_what_was_found(tr121_reported: tuple[Path, str]) -> None:
    _, out = tr121_reported
    assert "Trust: suspect (25 findings: prompt cache, " in out and "far off the law" in out


def test_a_run_without_findings_says_that_no_check_spoke_up(hostile_run: Path, capsys) -> None:
    text = (hostile_run / "report.md").read_text()
    assert "No check spoke up." in text
    assert main(["report", str(hostile_run)]) == 0
    assert "evidence" not in capsys.readouterr().out


def test_a_users_slo_decides_what_a_first_call_may_add(hostile_run: Path, tmp_path: Path, capsys) -> None:
    unsafe = "| unsafe |"
    assert unsafe in (hostile_run / "report.md").read_text()  # 900 ms are added to a first call
    assert main(["report", str(hostile_run), "--out", str(tmp_path), "--cold-start-slo", "5000"]) == 0
    assert unsafe not in (tmp_path / "report.md").read_text()
    assert main(["report", str(hostile_run), "--cold-start-slo", "nan"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("scenarios", "modes", "expected"),
    [
        (("a", "b"), ("prefill", "kv_decode"), "b: 4 cells of 2 models"),
        ((None,), ("prefill", "kv_decode"), "b: 2 models"),
    ],
)
def test_many_places_are_counted_by_what_they_are(
    scenarios: tuple[str | None, ...], modes: tuple[str, ...], expected: str
) -> None:
    known = {"check": "drift", "status": "found", "law": "b", "evidence": "", "value": 1.0}
    each = [(model, scenario, mode) for model in ("m", "n") for scenario in scenarios for mode in modes]
    rows = [known | {"model": model, "scenario": scenario, "modes": mode} for model, scenario, mode in each]
    shown = {VALIDITY_FINDINGS.name: rows}
    found = next(validity(SimpleNamespace(rows=lambda name, **_: shown.get(name, ()))))
    assert found.rows[0]["place"] == expected


def test_calls_that_failed_are_told_before_any_figure_and_a_run_of_nothing_else_is_not_sound() -> None:
    def subject(failed: int) -> Any:
        lost = {"status": "error", "gen_tokens_raw": None}
        calls = [
            row
            for at in range(20)
            for row in phases(1.0, 2.0, **({"gen_tokens_raw": 8} | (lost if at < failed else {})))
        ]
        return SimpleNamespace(run=run_of(calls), simulated=False, rows=lambda _: ())

    assert notices(subject(1)) == ()
    assert notices(subject(2))[0].startswith("2 of 20 measured calls failed")
    assert (trust(subject(19)).mark, trust(subject(20)).mark) == ("sound", "suspect")
