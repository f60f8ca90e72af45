"""Labels against measurements, and weights against the memory of the accelerator."""

import pytest
from rows import call, outcome, run_of

from phaselaw.laws.checks.models import gpu_memory_mb

LABEL, SPILL = "label contradicts measurement", "spill"


@pytest.mark.parametrize(
    ("label", "found"), [(100.0, False), (109.0, False), (112.0, True), (89.0, True), (None, False)]
)
def test_a_label_more_than_a_tenth_off_contradicts_and_touches_no_law(label: float | None, found: bool) -> None:
    findings = outcome(run_of(call(0, params_millions_config=label)), LABEL).findings
    assert bool(findings) == found
    assert {each.modes for each in findings} <= {()}


def test_a_label_of_the_ladders_model_that_nobody_measured_is_caught_and_its_laws_are_marked() -> None:
    rows = call(0, model="models/tiny-gpt2", params_millions_measured=None, params_millions_config=124.0)
    [found] = outcome(run_of(rows), LABEL).findings
    assert found.modes == ("prefill", "kv_decode", "e2e_kv")
    assert "0.1027" in found.evidence


OURS = {"host": {"gpus": [{"name": "g", "driver": "1", "memory": "8192 MiB"}]}}
TR121S = {"nvml": {"name": "g", "memory_total_mb": 8192.0}}


@pytest.mark.parametrize(("manifest", "expected"), [(OURS, 8192.0), (TR121S, 8192.0), ({"host": {"gpus": []}}, None),
                                                    ({"nvml": "?"}, None), ({}, None)])  # fmt: skip
def test_the_memory_is_read_from_manifests_of_ours_and_tr121s(manifest: dict, expected: float | None) -> None:
    assert gpu_memory_mb(manifest) == expected


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


def test_in_process_the_device_that_was_used_is_judged_and_a_server_by_all_of_them() -> None:
    two = {"host": {"gpus": [{"memory": "8192 MiB"}, {"memory": "8192 MiB"}]}}
    one = two | {"engines": [{"kind": "hf", "name": "b", "settings": {"device_memory_mb": 8192.0}}]}
    rows = [row | {"gpu_peak_mb": 8200.0} for row in call(0, backend_kind="hf")]
    assert rows[0]["backend"] == "b"
    [spilled] = outcome(run_of(rows, manifest=one), SPILL).findings
    assert "of 8,192 MB" in spilled.evidence
    assert outcome(run_of(rows, manifest=two), SPILL).findings == ()
    models = [{"model": "m", "kind": "ollama", "weights_bytes": 9 * 2**30}]
    assert outcome(run_of(call(0, params_millions_measured=8000.0), models, two), SPILL).findings == ()


def test_in_process_the_peak_tells() -> None:
    rows = [row | {"gpu_peak_mb": 8200.0} for row in call(0, backend_kind="hf")]
    assert [each.status for each in outcome(run_of(rows, manifest=OURS), SPILL).findings] == ["found"]
    assert outcome(run_of(rows), SPILL).not_checked
