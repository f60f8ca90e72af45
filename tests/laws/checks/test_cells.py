"""Repetitions against their spread, and cells of one name that are not one thing."""

import math

import pytest
from small_run import call, outcome, run_of

from phaselaw.laws.checks.calls import WANTED, known_to

REPETITIONS, COMPARABLE = "too few repetitions", "cells not comparable"


def spread(share: float, n: int, cells: int = 6) -> list[dict]:
    """Cells whose calls lie so far apart, evenly about one value."""
    steps = [math.exp(share * (2 * at / (n - 1) - 1)) if n > 1 else 1.0 for at in range(n)]
    return [
        row
        for cell in range(cells)
        for at, factor in enumerate(steps)
        for row in call(cell * n + at, scenario=f"s{cell}", kv_decode_ms=640 * factor, prefill_ms=12 * factor)
    ]


@pytest.mark.parametrize(("share", "n", "found"), [(0.01, 3, False), (0.3, 3, True), (0.3, 60, False)])
def test_a_spread_is_too_wide_for_few_calls_and_not_for_many(share: float, n: int, found: bool) -> None:
    findings = outcome(run_of(spread(share, n)), REPETITIONS).findings
    assert bool(findings) == found
    assert {each.status for each in findings} <= {"caution"}


def test_the_repetitions_it_asks_for_would_do() -> None:
    finding = outcome(run_of(spread(0.3, 3)), REPETITIONS).findings[0]
    asked = int(finding.next_step.split()[1])
    variance = math.log1p(finding.value) ** 2
    assert known_to(variance, asked) <= WANTED < known_to(variance, asked - 2)


def test_one_wild_cell_among_quiet_ones_is_named() -> None:
    rows = spread(0.002, 3) + [
        row for at, ms in enumerate((300.0, 640.0, 1300.0)) for row in call(90 + at, scenario="wild", kv_decode_ms=ms)
    ]
    found = outcome(run_of(rows), REPETITIONS).findings
    assert {each.where.scenario for each in found if each.modes == ("kv_decode",)} <= {"wild", None}
    assert found


def test_one_call_a_cell_leaves_its_spread_unknown() -> None:
    [first, *_] = outcome(run_of(spread(0.1, 1)), REPETITIONS).findings
    assert "spread is unknown" in first.evidence


def reasons(run) -> list[str]:
    return [each.evidence for each in outcome(run, COMPARABLE).findings]


def test_one_model_measured_in_one_way_is_comparable() -> None:
    assert reasons(run_of(call(0) + call(1))) == []


def test_two_sizes_under_one_name_are_not() -> None:
    [reason] = reasons(run_of(call(0) + call(1, params_millions_measured=200.0)))
    assert "100 M, 200 M" in reason


def test_two_prompts_under_one_scenario_are_not() -> None:
    assert reasons(run_of(call(0) + call(1, prompt="y"))) == ["one scenario, 2 prompts"]


def test_two_settings_of_one_backend_are_not() -> None:
    models = [{"model": "m", "kind": "ollama", "backend": "b", "quantization_level": level} for level in ("Q4", "Q8")]
    [reason] = reasons(run_of(call(0), models))
    assert "quantization_level" in reason and "Q4, Q8" in reason


def test_a_run_that_went_on_elsewhere_says_what_changed() -> None:
    processes = [{"study_sha256": "a", "host": {"cpu_model": cpu}} for cpu in ("one", "one", "other")]
    [reason] = reasons(run_of(call(0), manifest={"processes": processes}))
    assert "'one' became 'other'" in reason
