"""Predictions in words: the law that is used comes first, and what speaks against a prediction is said."""

import dataclasses
import math

import pytest

from phaselaw.laws.prediction import NewModel, Prediction, Predictions, Workload
from phaselaw.report.prediction import predicted, reading

ROW = Prediction(
    backend="cpu", backend_kind="hf", batch_size=1, gen_tokens_target=None, mode="e2e_kv", predictor="params",
    used=False, n_models=7, latency_ms=100.0, latency_ms_low=50.0, latency_ms_high=math.inf, tokens=None,
    tokens_per_s=None, tokens_per_s_low=None, tokens_per_s_high=None, level=0.95, typical_factor=1.5, mean_factor=1.4,
    interval_holds="models and calls", provenance="derived", outside=None, suspect=None,
)  # fmt: skip


def of(*rows: Prediction) -> Predictions:
    workload = Workload(backend="cpu", batch_size=1, gen_tokens_target=None, scenarios=("short",), tokens={})
    return Predictions(model=NewModel(params_millions=30), rows=rows, refused=(), workloads=(workload,))


def shown(predictions: Predictions) -> list[list[str]]:
    table = predicted(predictions)
    return [[column.text(row) for column in table.columns] for row in table.rows]


def test_the_law_that_is_used_comes_first_and_the_phases_in_their_order() -> None:
    both = dataclasses.replace(ROW, predictor="params+depth", used=True)
    prefill = dataclasses.replace(ROW, mode="prefill")
    assert [row[1:4] for row in shown(of(ROW, both, prefill))] == [
        ["prefill", "params", "beside"],
        ["end to end", "params+depth", "used"],
        ["end to end", "params", "beside"],
    ]


@pytest.mark.parametrize(("level", "named"), [(0.95, "95%"), (0.29, "29%"), (0.9999999999, "99.99999999%")])
def test_a_level_is_named_in_full(level: float, named: str) -> None:
    assert reading(of(dataclasses.replace(ROW, level=level)))[0].startswith(f"In brackets: {named} prediction")


def test_what_nothing_bounds_and_what_was_not_counted_is_a_dash() -> None:
    [row] = shown(of(ROW))
    assert "[50.0, –]" in row and "–" in row


def test_an_extrapolated_or_suspect_prediction_says_so() -> None:
    doubtful = dataclasses.replace(
        ROW, provenance="extrapolated", outside="3,000 M parameters (measured: 1 to 100)", suspect="prompt cache found"
    )
    assert shown(of(doubtful))[0][-2:] == ["extrapolated", "⚠ prompt cache found"]
    said = " ".join(reading(of(doubtful)))
    assert "EXTRAPOLATED on cpu: 3,000 M parameters" in said
    assert "SUSPECT on cpu, end to end: prompt cache found" in said


def test_a_law_that_does_no_better_than_the_mean_is_called_out() -> None:
    used = dataclasses.replace(ROW, used=True)
    assert "no law predicts a model that was left out better than the mean" in " ".join(reading(of(used)))
    good = dataclasses.replace(used, typical_factor=1.1)
    assert "no law predicts" not in " ".join(reading(of(good)))
