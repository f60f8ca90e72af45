"""Models off their law, labels against measurements, weights against the memory of the accelerator."""

import numpy as np
import polars as pl
import pytest
from rows import call, outcome, row_of, run_of

from phaselaw.laws.analysis import analyze
from phaselaw.laws.checks.models import outliers
from phaselaw.records import Run

LABEL, SPILL = "label contradicts measurement", "spill"


@pytest.mark.parametrize(
    ("label", "found"), [(100.0, False), (109.0, False), (112.0, True), (89.0, True), (None, False)]
)
def test_a_label_more_than_a_tenth_off_contradicts_and_touches_no_law(label: float | None, found: bool) -> None:
    findings = outcome(run_of(call(0, params_millions_config=label)), LABEL).findings
    assert bool(findings) == found
    assert {each.modes for each in findings} <= {()}


@pytest.mark.parametrize(
    ("answered", "noted"), [("other", True), ("m", False), ("M-2026-11", False), ("a/m.gguf", False), (None, False)]
)
def test_another_model_that_answers_is_noted_once_and_an_alias_is_not(answered: str | None, noted: bool) -> None:
    findings = outcome(run_of(call(0, model_answered=answered) + call(1, model_answered=answered)), LABEL).findings
    assert [(each.status, each.modes) for each in findings] == [("caution", ())] * noted


def test_a_label_of_the_ladders_model_that_nobody_measured_is_caught_and_its_laws_are_marked() -> None:
    rows = call(0, model="models/tiny-gpt2", params_millions_measured=None, params_millions_config=124.0)
    [found] = outcome(run_of(rows), LABEL).findings
    assert found.modes == ("prefill", "kv_decode", "e2e_kv")
    assert "0.1027" in found.evidence


OURS = {"host": {"gpus": [{"name": "g", "driver": "1", "memory": "8192 MiB"}]}}


@pytest.mark.parametrize(
    ("columns", "status"),
    [
        ({"weights_bytes": 9 * 2**30}, "found"),
        ({"weights_bytes": int(7.6 * 2**30)}, "suspected"),
        ({"weights_bytes": 7 * 2**30}, None),
        ({"quantization_level": "Q4_K_M"}, None),
        ({"quantization_level": "F16"}, "suspected"),
        ({"quantization_level": "odd"}, None),
    ],
)
def test_weights_that_fill_the_memory_are_a_spill(columns: dict, status: str | None) -> None:
    models = [{"model": "m", "kind": "ollama"} | columns]
    run = run_of(call(0, params_millions_measured=8000.0), models, OURS)
    assert [each.status for each in outcome(run, SPILL).findings] == ([status] if status else [])


def test_the_device_that_was_used_is_judged_not_all_of_them_together() -> None:
    two = {"host": {"gpus": [{"memory": "8192 MiB"}, {"memory": "8192 MiB"}]}}
    one = two | {"engines": [{"kind": "hf", "name": "b", "settings": {"device_memory_mb": 8192.0}}]}
    rows = [row | {"gpu_peak_mb": 8200.0} for row in call(0, backend_kind="hf")]
    assert rows[0]["backend"] == "b"
    [spilled] = outcome(run_of(rows, manifest=one), SPILL).findings
    assert "of 8,192 MB" in spilled.evidence
    assert [each.status for each in outcome(run_of(rows, manifest=two), SPILL).findings] == ["found"]
    models = [{"model": "m", "kind": "ollama", "weights_bytes": 9 * 2**30}]
    [served] = outcome(run_of(call(0, params_millions_measured=8000.0), models, two), SPILL).findings
    assert served.status == "suspected"
    assert "spread it over its 2 GPUs, which have 16,384 MB" in str(served.other_reading)


def test_in_process_the_peak_tells() -> None:
    rows = [row | {"gpu_peak_mb": 8200.0} for row in call(0, backend_kind="hf")]
    assert [each.status for each in outcome(run_of(rows, manifest=OURS), SPILL).findings] == ["found"]
    assert outcome(run_of(rows), SPILL).not_checked


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


def test_a_mixture_of_experts_beside_dense_models_is_named_with_what_is_active() -> None:
    told = models(family=["a", "a", "a"], n_experts=[None, 8, None], params_millions_active=[1.0, 2.5, 100.0],
                  backend=["b", "b", "b"])  # fmt: skip
    assert "mixtures of experts beside dense models (m1: 2.5 M active), by all their parameters" in said(
        run_of(calls(), told)
    )
    alike = models(family=["a", "a", "a"], n_experts=[8, 8, 8], backend=["b", "b", "b"])
    assert said(run_of(calls(), alike)) == ""


def test_models_alike_are_no_mixture_and_unknown_ones_are_not_checked() -> None:
    assert said(run_of(calls(), models(family=["a", "a", "a"]))) == ""
    unknown = [row | {"prompt_chars": None} for row in calls()]
    assert "no model says" in str(outcome(run_of(unknown), "heterogeneous law").not_checked)


def of_names(**sizes: float) -> Run:
    """Models of /v1 whose size only their names say: latency is the root of it."""
    return run_of([
        row_of(mode, ms * size**0.5, backend_kind="openai", model=name, params_millions=None, gen_tokens_target=8,
               params_millions_named=size, rep=rep, batch_size=1)
        for name, size in sizes.items() for rep in range(3)
        for mode, ms in (("prefill", 1.0), ("kv_decode", 8.0), ("e2e_kv", 9.0))
    ])  # fmt: skip


def test_a_size_from_the_name_makes_a_law_that_says_so_and_no_other_table() -> None:
    tables = analyze(of_names(a=500.0, b=1_000.0, c=4_000.0, d=8_000.0)).tables
    laws = tables["scaling_fits"].filter(pl.col("scenario") == "__all__")
    assert laws["slope"].to_list() == pytest.approx([0.5] * 3)
    assert set(laws["suspect"]) == {"size from the name"}
    assert set(tables["summary_by_model_backend_mode"]["suspect"]) == {""}
    assert len(outcome(of_names(a=500.0), "size from the name").findings) == 1
