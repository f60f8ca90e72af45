"""Models far off their law, and what is none: an overhead, a law without scatter, too few models."""

import numpy as np
import pytest
from rows import call, outcome, run_of

from phaselaw.laws.checks.laws import left_out, outliers

SIZES = np.array([0.1, 5.0, 25.0, 45.0, 51.0, 75.0, 96.0])
SCATTER = np.exp([0.02, -0.03, 0.01, 0.02, -0.02, 0.03, -0.01])


@pytest.mark.parametrize(("at", "factor"), [(0, 0.2), (3, 0.4), (3, 2.5), (6, 0.4), (6, 2.5)])
def test_one_model_off_the_law_is_found_and_by_how_much(at: int, factor: float) -> None:
    latency = SIZES**0.5 * SCATTER
    latency[at] *= factor
    [(index, off, p)] = outliers(SIZES, latency)
    assert index == at
    assert off == pytest.approx(factor, rel=0.25)
    assert p < 0.05


def test_a_smallest_model_that_is_slow_can_be_an_overhead_so_it_is_not_flagged() -> None:
    latency = SIZES**0.5 * SCATTER
    latency[0] *= 2.5
    assert outliers(SIZES, latency) == []


@pytest.mark.parametrize("overhead", [0.0, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("exponent", [0.3, 0.6, 1.0])
def test_an_overhead_makes_no_model_an_outlier(overhead: float, exponent: float) -> None:
    assert outliers(SIZES, (overhead + SIZES**exponent) * SCATTER) == []


def test_a_largest_model_that_grew_faster_than_its_parameters_is_no_overhead() -> None:
    latency = (1 + SIZES**0.5) * SCATTER
    latency[-1] *= 3
    assert [index for index, _, _ in outliers(SIZES, latency)] == [6]


def test_a_model_near_a_tight_law_is_not_far_off() -> None:
    latency = SIZES**0.5 * np.exp([0.0, 1e-4, -1e-4, 1e-4, 0.0, -1e-4, 0.0])
    latency[3] *= 1.1
    assert outliers(SIZES, latency) == []


def test_on_an_exact_law_the_one_model_off_it_is_found() -> None:
    latency = SIZES**0.5
    latency[5] *= 2
    assert [index for index, _, _ in outliers(SIZES, latency)] == [5]


def test_three_models_can_hold_none_of_them_against_the_others() -> None:
    assert outliers(SIZES[:3], np.array([1.0, 50.0, 2.0])) == []
    assert np.isnan(left_out(np.arange(3.0), np.arange(3.0))[1]).all()


def models(**columns) -> list[dict]:
    return [
        {"model": f"m{at}", "kind": "ollama"} | {name: values[at] for name, values in columns.items()}
        for at in range(3)
    ]


def calls(tokens=(20, 20, 20)) -> list[dict]:
    return [
        row
        for at in range(3)
        for row in call(at, model=f"m{at}", params_millions_measured=10.0**at, prompt_tokens_raw=tokens[at])
    ]


def said(run) -> str:
    return "; ".join(each.evidence for each in outcome(run, "heterogeneous law").findings)


def test_families_and_quantisations_in_one_law_are_named() -> None:
    run = run_of(calls(), models(family=["a", "b", "a"], quantization_level=["Q4_0", "Q4_0", "Q8_0"]))
    assert "2 families (a, b); 2 quantisations (Q4_0, Q8_0)" in said(run)


def test_models_that_count_one_text_differently_have_other_tokenizers_or_templates() -> None:
    assert "several tokenizers or templates (20 to 84 tokens" in said(run_of(calls(tokens=(20, 20, 84))))
    assert said(run_of(calls(tokens=(20, 20, 21)))) == ""


def test_models_alike_are_no_mixture_and_unknown_ones_are_not_checked() -> None:
    assert said(run_of(calls(), models(family=["a", "a", "a"]))) == ""
    unknown = [row | {"prompt_chars": None} for row in calls()]
    assert "no model says" in str(outcome(run_of(unknown), "heterogeneous law").not_checked)
