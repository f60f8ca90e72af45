"""Prediction of a model that was not measured: closed forms, laws put in and recovered, intervals that hold."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from benchmark import benchmark
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaselaw.laws.prediction import (
    CHOSEN,
    NewModel,
    Prediction,
    Predictions,
    fit,
    predict,
    prediction_coverage,
    prediction_validation,
)
from phaselaw.laws.regression import fit_line, fit_plane, left_out

PARAMS = (1.0, 4.0, 9.0, 20.0, 45.0, 70.0, 100.0)
LAYERS = (2, 12, 4, 24, 6, 16, 8)
"""Not in the order of the sizes, so that depth and size can be told apart."""


def tables(
    latencies: Sequence[float],
    *,
    params: Sequence[float] = PARAMS,
    layers: Sequence[int | None] = LAYERS,
    suspect: str | None = None,
    runs: Sequence[Sequence[float]] = (),
    basis: str = "one more run",
) -> dict[str, pl.DataFrame]:
    """The tables of an analysis, as far as predictions read them: one backend, end to end, two scenarios."""
    group = {"backend": "cpu", "backend_kind": "hf", "batch_size": 1, "gen_tokens_target": 64, "mode": "e2e_kv"}
    models = pl.DataFrame(
        {"model": [f"m{index}" for index in range(len(latencies))], "params_millions_effective": list(params)}
    ).with_columns(model_kind=pl.lit("hf"))
    keys = [pl.lit(value).alias(name) for name, value in group.items()]
    in_runs = [
        models.with_columns(*keys, pl.Series("latency_geomean_ms", each), pl.lit(f"run {at}").alias("run"))
        for at, each in enumerate(runs)
    ]
    none = models.with_columns(*keys, latency_geomean_ms=pl.lit(0.0), run=pl.lit("")).clear()
    cells = [{"scenario": name, "tokens_total_median": tokens} for name, tokens in (("short", 65.0), ("long", 260.0))]
    return {
        "requests_by_model": models.with_columns(*keys, pl.Series("latency_geomean_ms", latencies, dtype=pl.Float64)),
        "throughput_intervals": pl.DataFrame({"interval_basis": [basis]}),
        "summary_by_model_and_run": pl.concat(in_runs) if in_runs else none,
        "hf_model_architecture": models.with_columns(
            pl.Series("n_layer", layers, dtype=pl.Float64), n_embd=pl.lit(None, dtype=pl.Float64)
        ),
        "summary_by_model_backend_mode": pl.DataFrame(cells).with_columns(*keys),
        "scaling_fits": pl.DataFrame([group | {"scenario": "__all__", "suspect": suspect}]),
    }


def used(predictions: Predictions) -> Prediction:
    [row] = [row for row in predictions.rows if row.used]
    return row


def power_law(exponent: float, depth: float = 0.0, scatter: float = 0.0, seed: int = 0) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, scatter, len(PARAMS))
    return [5 * p**exponent * layers**depth * math.exp(e) for p, layers, e in zip(PARAMS, LAYERS, noise, strict=True)]


def test_of_many_models_some_are_left_out_from_the_smallest_to_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phaselaw.laws.prediction.MOST_LEFT_OUT", 3)
    found = prediction_validation(tables(power_law(0.5, scatter=0.1)), level=0.95).filter(pl.col("predictor") == CHOSEN)
    assert found["params_millions_effective"].to_list() == [PARAMS[0], PARAMS[3], PARAMS[-1]]
    assert found["n_others"].unique().to_list() == [len(PARAMS) - 1]


@given(exponent=st.floats(-1.5, 1.5), size=st.floats(1, 100))
def test_a_law_put_in_without_noise_predicts_exactly(exponent: float, size: float) -> None:
    row = used(predict(tables(power_law(exponent)), NewModel(params_millions=size)))
    assert row.latency_ms == pytest.approx(5 * size**exponent)
    assert row.latency_ms_low == pytest.approx(row.latency_ms) == pytest.approx(row.latency_ms_high)


def test_a_law_in_params_and_depth_is_found_and_used() -> None:
    found = predict(tables(power_law(0.5, 0.8, 0.02)), NewModel(params_millions=30, n_layer=10))
    assert {row.predictor for row in found.rows} == {"params", "depth", "params+depth"}
    assert used(found).predictor == "params+depth"
    assert used(found).latency_ms == pytest.approx(5 * 30**0.5 * 10**0.8, rel=0.05)


def test_the_law_of_least_error_in_leaving_one_out_is_used() -> None:
    for seed in range(20):
        found = predict(tables(power_law(0.3, 0.1, 0.3, seed)), NewModel(params_millions=30, n_layer=8))
        assert used(found).typical_factor == min(row.typical_factor or math.inf for row in found.rows)


def test_without_layers_only_the_law_in_parameters_speaks() -> None:
    assert [row.predictor for row in predict(tables(power_law(0.5)), NewModel(params_millions=30)).rows] == ["params"]
    unknown = tables(power_law(0.5, scatter=0.1), layers=[None] * 7)
    found = predict(unknown, NewModel(params_millions=30, n_layer=8))
    assert [row.predictor for row in found.rows] == ["params"]


def test_the_interval_is_the_textbooks_for_a_new_point_on_a_line() -> None:
    latencies = power_law(0.5, scatter=0.2)
    row = used(predict(tables(latencies), NewModel(params_millions=30), level=0.9))
    x, y, at = np.log(PARAMS), np.log(latencies), math.log(30)
    line = stats.linregress(x, y)
    residual = y - line.intercept - line.slope * x
    s = math.sqrt((residual**2).sum() / 5)
    half = stats.t.ppf(0.95, 5) * s * math.sqrt(1 + 1 / 7 + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    middle = line.intercept + line.slope * at
    assert (row.latency_ms_low, row.latency_ms_high) == pytest.approx(
        (math.exp(middle - half), math.exp(middle + half))
    )


def test_runs_that_differ_throughout_are_in_the_interval_though_models_lie_on_the_law() -> None:
    latencies, factors = power_law(0.5), (1 / 1.2, 1.0, 1.2)
    pooled = tables(latencies, runs=[[factor * each for each in latencies] for factor in factors])
    row = used(predict(pooled, NewModel(params_millions=30)))
    half = stats.t.ppf(0.975, 2) * math.log(1.2) / math.sqrt(3)
    assert row.latency_ms_mean_high / row.latency_ms == pytest.approx(math.exp(half))
    # Long-run mean and the noise of one run, variances of 1 / 3 and 1, both of two degrees of freedom.
    degrees = (1 / 3 + 1) ** 2 / ((1 / 3) ** 2 / 2 + 1 / 2)
    more = stats.t.ppf(0.975, degrees) * math.log(1.2) * math.sqrt(1 / 3 + 1)
    assert row.latency_ms_high / row.latency_ms == pytest.approx(math.exp(more))
    assert row.interval_holds == "one more run: models, calls and 3 runs"
    on_hosts = tables(latencies, runs=[latencies] * 3, basis="one more host")
    assert used(predict(on_hosts, NewModel(params_millions=30))).interval_holds == (
        "one more host: models, calls and 3 hosts"
    )
    alone = used(predict(tables(latencies), NewModel(params_millions=30)))
    assert alone.interval_holds == "this run only: models and calls" and alone.latency_ms_mean_low is None


def test_one_more_run_is_never_narrower_than_the_long_run_mean() -> None:
    few = {"params": PARAMS[:4], "layers": LAYERS[:4]}
    latencies = power_law(0.5, scatter=0.2)[:4]
    runs = [[factor * each for each in latencies] for factor in (1 / 1.05, 1.0, 1.05)]
    row = used(predict(tables(latencies, runs=runs, **few), NewModel(params_millions=6)))
    assert row.latency_ms_low <= row.latency_ms_mean_low < row.latency_ms_mean_high <= row.latency_ms_high


def test_two_runs_of_few_models_give_the_long_run_mean_and_not_one_more_run() -> None:
    latencies = power_law(0.5, scatter=0.2)[:4]
    few = {"params": PARAMS[:4], "layers": LAYERS[:4]}
    runs = [[factor * each for each in latencies] for factor in (1.0, 1.1)]
    row = used(predict(tables(latencies, runs=runs, **few), NewModel(params_millions=6)))
    assert math.isnan(row.latency_ms_low) and math.isnan(row.latency_ms_high)
    assert row.latency_ms_mean_low is not None and row.latency_ms_mean_low < row.latency_ms


def test_runs_that_agree_widen_no_prediction() -> None:
    latencies = power_law(0.5, scatter=0.2)
    alone = used(predict(tables(latencies), NewModel(params_millions=30)))
    pooled = used(predict(tables(latencies, runs=[latencies] * 3), NewModel(params_millions=30)))
    assert pooled.latency_ms_high == pytest.approx(alone.latency_ms_high)


@pytest.mark.parametrize(("models", "degrees"), [(3, 1), (4, 1), (7, 4)])
def test_choosing_a_law_costs_a_degree_of_freedom_but_never_the_last(models: int, degrees: int) -> None:
    latency = np.array(power_law(0.5, scatter=0.2)[:models])
    law = fit(pl.DataFrame({"params_millions_effective": PARAMS[:models], "latency": latency}), "params")
    assert law is not None
    alone, chosen = (law.latency_ms({"params_millions_effective": 5.0}, 0.95, chosen_of=n) for n in (1, 2))
    reaches = [math.log(of["latency_ms_high"] / of["latency_ms"]) for of in (chosen, alone)]
    reach = reaches[0] / reaches[1]
    sd = math.sqrt((models - 2) / degrees)
    assert reach == pytest.approx(sd * stats.t.ppf(0.975, degrees) / stats.t.ppf(0.975, models - 2))


@pytest.mark.parametrize("terms", [1, 2])
def test_the_prediction_interval_covers_a_new_model_at_its_level(terms: int) -> None:
    rng, trials, hits = np.random.default_rng(5), 3000, 0
    columns = np.column_stack([np.log(PARAMS), np.log(LAYERS)])[:, :terms]
    at, truth = columns.mean(axis=0) + 0.5, np.array([0.5, 0.3])[:terms]
    for _ in range(trials):
        plane = fit_plane(columns, columns @ truth + rng.normal(0, 0.2, 7))
        se, degrees = plane.new_point_error(at)
        hits += abs(plane.at(at) - at @ truth - rng.normal(0, 0.2)) <= stats.t.ppf(0.975, degrees) * se
    assert 0.935 <= hits / trials <= 0.965  # 95 %, give or take four standard errors


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 50))
def test_latencies_in_another_unit_are_predicted_in_that_unit(factor: float, seed: int) -> None:
    latencies = power_law(0.4, 0.3, 0.3, seed)
    model = NewModel(params_millions=30, n_layer=8)
    one = predict(tables(latencies), model).rows
    other = predict(tables([factor * each for each in latencies]), model).rows
    for a, b in zip(one, other, strict=True):
        assert (a.predictor, a.typical_factor) == (b.predictor, pytest.approx(b.typical_factor))
        assert b.latency_ms == pytest.approx(factor * a.latency_ms)
        assert b.latency_ms_high == pytest.approx(factor * a.latency_ms_high)
        assert b.tokens_per_s == pytest.approx((a.tokens_per_s or 0) / factor)


def test_tokens_per_s_are_of_the_runs_own_calls() -> None:
    row = used(predict(tables(power_law(0.5, scatter=0.1)), NewModel(params_millions=30)))
    assert row.tokens == pytest.approx(math.sqrt(65 * 260))
    assert row.tokens_per_s == pytest.approx(row.tokens / row.latency_ms * 1000)
    assert row.tokens_per_s_low == pytest.approx(row.tokens / row.latency_ms_high * 1000)
    assert row.tokens_per_s_high == pytest.approx(row.tokens / row.latency_ms_low * 1000)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (NewModel(params_millions=0.9), "0.9 M parameters (measured: 1 to 100)"),
        (NewModel(params_millions=3000), "3,000 M parameters"),
        (NewModel(params_millions=30, n_layer=48), "48 layers (measured: 2 to 24)"),
        (NewModel(params_millions=100, n_layer=2), "100 M parameters in 2 layers"),
    ],
)
def test_outside_the_measured_range_it_refuses_and_names_the_range(model: NewModel, said: str) -> None:
    latencies = tables(power_law(0.5, scatter=0.1))
    refused = predict(latencies, model)
    assert refused.rows == ()
    assert said in refused.refused[0].reason
    asked_for = predict(latencies, model, extrapolate=True)
    assert {row.provenance for row in asked_for.rows} == {"extrapolated"}
    assert all(row.outside and said in row.outside for row in asked_for.rows)


@pytest.mark.parametrize("size", PARAMS)
def test_the_measured_models_own_sizes_are_inside(size: float) -> None:
    row = used(predict(tables(power_law(0.5, scatter=0.1)), NewModel(params_millions=size * 1.004)))
    assert (row.provenance, row.outside) == ("derived", None)


def test_two_models_leave_no_interval_and_so_no_prediction() -> None:
    few = tables([1.0, 2.0], params=[1.0, 10.0], layers=[2, 4])
    found = predict(few, NewModel(params_millions=5), extrapolate=True)
    assert found.rows == ()
    assert "2 models measured" in found.refused[0].reason


def test_one_model_is_predicted_from_no_other() -> None:
    alone = tables([1.0], params=[1.0], layers=[2])
    assert prediction_validation(alone, level=0.95).is_empty()
    assert predict(alone, NewModel(params_millions=5), extrapolate=True).rows == ()


def test_an_interval_that_nothing_bounds_is_infinite_and_no_error() -> None:
    four = tables([1.0, 9.0, 2.0, 40.0], params=PARAMS[:4], layers=[2, 2, 2, 24])  # the last alone tells of depth
    row = used(predict(four, NewModel(params_millions=5, n_layer=3), level=0.999999))
    assert row.latency_ms_low < row.latency_ms < row.latency_ms_high
    assert prediction_validation(four, level=0.999999).height > 0


def test_a_law_on_suspect_rows_is_marked() -> None:
    found = predict(tables(power_law(0.5, scatter=0.1), suspect="prompt cache found"), NewModel(params_millions=30))
    assert used(found).suspect == "prompt cache found"


def test_left_out_models_are_outside_where_their_studentised_residual_says_so() -> None:
    latencies = power_law(0.5, scatter=0.2)
    latencies[3] *= 4
    by_params = prediction_validation(tables(latencies), level=0.95).filter(pl.col("predictor") == "params")
    line = fit_line(np.log(PARAMS), np.log(latencies))
    others = left_out(line)
    t = np.abs(others.off) * np.sqrt(4 * (1 - line.leverages()) / others.sse)
    assert by_params["inside"].to_list() == list(2 * stats.t.sf(t, 4) >= 0.05)
    assert not by_params["inside"].all()
    assert by_params["extrapolated"].to_list() == [True, True, False, True, False, False, True]


def test_the_chosen_law_is_chosen_without_the_model_that_is_left_out() -> None:
    latencies = power_law(0.5, 0.4, 0.05)
    validation = prediction_validation(tables(latencies), level=0.95)
    chosen = validation.filter(pl.col("predictor") == CHOSEN)
    for at, row in enumerate(chosen.iter_rows(named=True)):
        others = [index for index in range(7) if index != at]
        rest = tables(
            [latencies[i] for i in others], params=[PARAMS[i] for i in others], layers=[LAYERS[i] for i in others]
        )
        again = used(predict(rest, NewModel(params_millions=PARAMS[at], n_layer=LAYERS[at]), extrapolate=True))
        assert (row["predictor_used"], row["latency_predicted_ms"]) == (
            again.predictor,
            pytest.approx(again.latency_ms),
        )


def test_coverage_counts_the_intervals_that_held() -> None:
    latencies = power_law(0.5, scatter=0.2)
    latencies[3] *= 4
    validation = prediction_validation(tables(latencies), level=0.95)
    [row] = prediction_coverage(validation, level=0.95).filter(pl.col("predictor") == "params").to_dicts()
    assert (row["n_models"], row["n_inside"]) == (7, 6)
    assert row["coverage"] == pytest.approx(6 / 7)
    assert (row["coverage_low"], row["coverage_high"]) == pytest.approx((0.421, 0.996), abs=0.001)  # exact
    assert (row["n_interpolated"], row["n_inside_interpolated"]) == (3, 3)
    assert row["mean_factor"] > 1


def test_the_chosen_laws_interval_covers_although_it_was_chosen() -> None:
    simulation = benchmark("prediction_coverage")
    trials = 300
    found = simulation.coverage(7, "layers", trials=trials)
    # An interval that covers 93 % has fewer hits than this in one run of a thousand.
    assert found["chosen"][0] * trials >= stats.binom.ppf(0.001, trials, simulation.LEAST)
    assert found["chosen"][1] > found["chosen, not charged"][1]
