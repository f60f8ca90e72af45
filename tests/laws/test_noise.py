"""The noise between runs and rounds: closed forms, and what an interval holds of it."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import row_of, tables_of, written
from scipy import stats

from phaselaw.laws.analysis import Options, analyze
from phaselaw.laws.noise import KEYS, SLOPE, Kind, Noise, Replicates, log_matrices, noise_of, scatter_of
from phaselaw.laws.scaling import scaling_fits
from phaselaw.records import PHASES
from phaselaw.rundir import read as runs

SIZES = [10.0, 40.0, 160.0, 640.0]
MODELS = [f"m{index}" for index in range(len(SIZES))]


def points(slope: float = 0.5, offsets: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0), **more: object) -> pl.DataFrame:
    latency = [size**slope * 10**off for size, off in zip(SIZES, offsets, strict=True)]
    return pl.DataFrame(
        {
            "backend": "x", "backend_kind": "hf", "batch_size": 1, "gen_tokens_target": 16, "mode": "e2e_kv",
            "model": MODELS, "model_kind": "hf", "params_millions_effective": SIZES, "scenario": "__all__",
            "aggregation": "geomean_across_scenarios", "latency": latency, "latency_log_variance": 0.0,
            "incomplete": None, **more,
        }
    )  # fmt: skip


def replicates(*each: pl.DataFrame, kind: Kind = "runs") -> Replicates:
    """Points of the mean over scenarios in each replicate: those of one scenario alone."""
    marked = [one.with_columns(replicate=pl.lit(str(at)), scenario=pl.lit("s")) for at, one in enumerate(each)]
    logs = pl.concat(marked).with_columns(pl.col("latency").log(), n_scenarios=1)
    return Replicates(kind=kind, n=len(each), logs=logs)


def noise_between(*each: pl.DataFrame) -> Noise:
    logs = log_matrices(replicates(*each).points, KEYS)(points())
    return noise_of(SLOPE, np.log(SIZES)[:, None], logs, kind="runs")


def test_runs_that_tilt_the_law_vary_by_their_slopes() -> None:
    slopes = [0.4, 0.5, 0.6]
    noise = noise_between(*(points(slope) for slope in slopes))
    assert noise.n == 3
    assert noise.between == pytest.approx(np.var(slopes, ddof=1) / 3)
    assert noise.shared == pytest.approx(0, abs=1e-20)


def test_runs_that_are_slower_throughout_do_not_vary_in_slope() -> None:
    noise = noise_between(points(), points(offsets=(0.1,) * 4))
    assert noise.between == pytest.approx(0, abs=1e-20)


def test_what_single_models_do_in_single_runs_is_shared_with_the_scatter() -> None:
    rng = np.random.default_rng(1)
    between, shared = [], []
    for _ in range(400):
        logs = np.log(SIZES) * 0.5 + np.log(10) * rng.normal(0, 0.05, (3, 4))
        noise = noise_of(SLOPE, np.log(SIZES)[:, None], logs, kind="runs")
        between.append(noise.between)
        shared.append(noise.shared)
    x = np.log10(SIZES)
    expected = 0.05**2 / 3 / ((x - x.mean()) ** 2).sum()
    assert np.mean(between) == pytest.approx(expected, rel=0.2)
    assert np.mean(shared) == pytest.approx(expected, rel=0.2)


def test_a_run_that_lacks_a_model_tells_nothing_of_the_noise() -> None:
    noise = noise_between(points(0.4), points(0.6), points(9.0).head(3))
    assert noise.n == 2
    assert noise.between == pytest.approx(np.var([0.4, 0.6], ddof=1) / 2)


def fit(each: Replicates | None) -> dict[str, object]:
    offsets = (0.02, -0.02, -0.02, 0.02)
    return scaling_fits(points(offsets=offsets), each, Options(draws=20)).row(0, named=True)


def width(row: dict[str, object]) -> float:
    return float(row["slope_t_ci_high"]) - float(row["slope_t_ci_low"])  # type: ignore[arg-type]


def test_an_interval_over_runs_holds_their_tilt_and_says_so() -> None:
    alone, pooled = fit(None), fit(replicates(points(0.3), points(0.5), points(0.7)))
    assert alone["between_run_noise"] == "not measured"
    assert alone["slope_interval_holds"] == "models and calls"
    assert pooled["between_run_noise"] == "measured over 3 runs"
    assert pooled["slope_interval_holds"] == "models, calls and 3 runs"
    assert pooled["slope_run_noise_se"] == pytest.approx(0.2 / math.sqrt(3))
    assert width(pooled) > width(alone)


def half_width(*, scatter: float, between: float, shared: float = 0.0, degrees: int, n_units: int) -> float:
    noise = Noise(n=n_units, between=between, shared=shared)
    return float(noise.half_width(math.sqrt(scatter), degrees, 0.95))


def t(degrees: float) -> float:
    return float(stats.t.ppf(0.975, degrees))


@pytest.mark.parametrize(("degrees", "n_units"), [(2, 2), (5, 3), (10, 10)])
def test_either_noise_alone_has_its_own_t_interval(degrees: int, n_units: int) -> None:
    sizes = {"degrees": degrees, "n_units": n_units}
    assert half_width(scatter=0.04, between=0.0, **sizes) == pytest.approx(t(degrees) * 0.2)
    assert half_width(scatter=0.0, between=0.04, **sizes) == pytest.approx(t(n_units - 1) * 0.2)


def test_both_together_have_satterthwaites_degrees_of_freedom() -> None:
    # (0.03 + 0.02 - 0.01)^2 / (0.03^2 / 5 + 0.02^2 / 2 + 0.01^2 / 10) = 4.1
    half = half_width(scatter=0.03, between=0.02, shared=0.01, degrees=5, n_units=3)
    assert half == pytest.approx(t(0.04**2 / (0.03**2 / 5 + 0.02**2 / 2 + 0.01**2 / 10)) * 0.2)


def test_what_the_scatter_holds_already_is_not_added() -> None:
    assert half_width(scatter=0.04, between=0.01, shared=0.02, degrees=5, n_units=3) == pytest.approx(t(5) * 0.2)


@given(degrees=st.integers(1, 20), n_units=st.integers(2, 12), factor=st.floats(0.01, 100))
def test_half_widths_scale_with_the_noise(degrees: int, n_units: int, factor: float) -> None:
    one = half_width(scatter=0.3, between=0.1, degrees=degrees, n_units=n_units)
    other = half_width(scatter=0.3 * factor**2, between=0.1 * factor**2, degrees=degrees, n_units=n_units)
    assert other == pytest.approx(factor * one)


def centred(logs: object) -> np.ndarray:
    values = np.array(logs)
    return values - np.nanmean(values, axis=-1, keepdims=True)


def test_one_model_has_the_variance_and_degrees_of_its_own_units() -> None:
    values = [0.1, -0.2, 0.4]
    found = scatter_of(centred([values]))
    assert found.variance[0] == pytest.approx(np.var(values, ddof=1))
    assert found.degrees[0] == pytest.approx(2)


def test_units_that_slow_all_models_alike_tell_no_more_than_one_model() -> None:
    found = scatter_of(centred([[0.1, -0.2, 0.4]] * 6))
    assert found.degrees == pytest.approx(2)
    assert found.shared == pytest.approx(found.variance)


def test_models_that_scatter_each_on_its_own_are_pooled() -> None:
    logs = np.random.default_rng(0).normal(0, 0.3, (200, 3))
    found = scatter_of(centred(logs))
    assert found.variance == pytest.approx(np.full(200, logs.var(axis=1, ddof=1).mean()))
    assert found.variance[0] == pytest.approx(0.09, rel=0.1)
    assert found.degrees[0] > 100
    assert found.shared[0] < 0.01


def test_shared_and_own_noise_come_out_as_they_were_put_in() -> None:
    rng = np.random.default_rng(1)
    logs = rng.normal(0, 0.3, (1, 5000)) + rng.normal(0, 0.1, (8, 5000))
    found = scatter_of(centred(logs))
    assert found.variance[0] == pytest.approx(0.10, rel=0.06)
    assert found.shared[0] == pytest.approx(0.09, rel=0.06)


def test_a_model_that_lacks_a_unit_counts_with_those_it_has() -> None:
    logs = np.random.default_rng(2).normal(0, 0.3, (6, 4))
    logs[0, 0], logs[1, 1:] = np.nan, np.nan
    found = scatter_of(np.where(np.isfinite(logs), centred(logs), np.nan))
    squares = sum(np.nanvar(row, ddof=1) * (np.isfinite(row).sum() - 1) for row in logs if np.isfinite(row).sum() > 1)
    assert found.variance == pytest.approx(np.full(6, squares / (2 + 4 * 3)))


@pytest.mark.parametrize(("models", "units", "told"), [(4, 2, False), (5, 2, True), (1, 3, True), (5, 1, False)])
def test_two_units_of_few_models_need_a_third(models: int, units: int, told: bool) -> None:
    found = scatter_of(centred(np.random.default_rng(3).normal(0, 1, (models, units))))
    assert bool((found.degrees > 0).all()) == told


def test_about_medians_one_slow_call_in_three_is_the_models_own_and_moderated() -> None:
    calm = np.random.default_rng(4).normal(0, 0.01, (9, 3))
    calm[0, 2] += 0.7
    off = calm - np.median(calm, axis=1, keepdims=True)
    found = scatter_of(off, about_medians=True)
    assert (found.variance[1:] < found.variance[0] / 20).all()
    assert found.variance[0] < np.var(calm[0], ddof=1)
    assert (found.degrees <= scatter_of(off).degrees + 1e-9).all()


def test_models_that_scatter_alike_share_one_variance_about_medians() -> None:
    logs = np.random.default_rng(5).normal(0, 0.2, (300, 9))
    found = scatter_of(logs - np.median(logs, axis=1, keepdims=True), about_medians=True)
    assert found.variance.mean() == pytest.approx(0.04, rel=0.1)
    assert found.variance.std() < logs.var(axis=1, ddof=1).std() / 4


def test_the_noise_of_any_estimate_of_a_plane_is_that_of_the_replicates_own_fits() -> None:
    rng = np.random.default_rng(3)
    columns, at = rng.normal(size=(6, 2)), np.array([1.0, 0.3, -0.2])
    logs = rng.normal(size=(3, 6))
    design = np.column_stack([np.ones(6), columns])
    fitted = [np.linalg.lstsq(design, row, rcond=None)[0] @ at for row in logs]
    noise = noise_of(at, columns, logs, kind="runs")
    assert noise.n == 3
    assert noise.between == pytest.approx(np.var(fitted, ddof=1) / 3)


def test_one_replicate_tells_of_no_noise() -> None:
    noise = noise_of(SLOPE, np.arange(4.0)[:, None], np.zeros((1, 4)), kind="runs")
    assert noise.n == 0
    assert np.isnan(noise.between)


def test_two_rounds_widen_nothing_and_three_do() -> None:
    two, three = (points(0.3), points(0.7)), (points(0.3), points(0.5), points(0.7))
    assert width(fit(replicates(*two, kind="rounds"))) == pytest.approx(width(fit(None)))
    row = fit(replicates(*three, kind="rounds"))
    assert width(row) > width(fit(None))
    assert row["slope_interval_holds"] == "models, calls and 3 rounds"
    assert row["between_run_noise"] == "not measured"


def test_no_two_whole_runs_leave_the_noise_between_runs_unmeasured() -> None:
    row = fit(replicates(points().head(2), points().tail(2), points()))
    assert row["between_run_noise"] == "not measured: no two of 3 runs are whole"
    assert row["slope_interval_holds"] == "models and calls"


def a_run(folder: Path, factor: float, tilt: float = 0.0) -> Path:
    rows = [
        row_of(
            mode, ms, backend="x", model=model, scenario=scenario, params_millions=size, rep=rep, tokens_per_s=1e3 / ms
        )
        for model, size in zip(MODELS, SIZES, strict=True)
        for scenario in ("a", "b")
        for mode in PHASES
        for rep in range(3)
        for ms in [factor * size ** (0.5 + tilt) * (1 + rep / 100)]
    ]
    written(rows, folder)
    (folder / "manifest.json").write_text(json.dumps({"run_id": folder.name}))
    return folder


def test_pooled_runs_weigh_the_same_and_their_noise_is_in_every_interval(tmp_path: Path) -> None:
    paths = [a_run(tmp_path / str(n), factor) for n, factor in enumerate((1.0, 1.1, 1.21))]
    analysis = tables_of(runs.load_all(paths), Options(draws=20))
    cell = analysis["summary_by_model_backend_mode"].row(0, named=True)
    assert cell["n"] == 9
    assert cell["latency_median_ms"] == pytest.approx(1.1 * cell["params_millions_effective"] ** 0.5 * 1.01)
    rate = analysis["throughput_intervals"].row(0, named=True)
    assert rate["interval_basis"] == "one more run"
    assert rate["n_runs"] == 3
    # All models alike: the t of two degrees of freedom, of one more run and of the long-run mean.
    more, mean = (4.30265 * math.log(1.1) * math.sqrt(share) for share in (1 + 1 / 3, 1 / 3))
    assert rate["tokens_per_s_high"] / rate["tokens_per_s"] == pytest.approx(math.exp(more), rel=1e-4)
    assert rate["tokens_per_s_mean_high"] / rate["tokens_per_s"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert rate["tokens_per_s_within_high"] is None


def test_pooled_runs_have_a_table_of_each_models_latency_in_each_run(tmp_path: Path) -> None:
    paths = [a_run(tmp_path / str(n), factor) for n, factor in enumerate((1.0, 1.1))]
    pooled = analyze(runs.load_all(paths), Options(draws=20)).tables["summary_by_model_and_run"]
    assert pooled.height == 2 * 3 * len(MODELS)
    of_model = pooled.filter(model="m0", mode="prefill").sort("run")["latency_geomean_ms"].to_list()
    assert of_model[1] / of_model[0] == pytest.approx(1.1)
    alone = analyze(runs.load(paths[0]), Options(draws=20))
    assert alone.tables["summary_by_model_and_run"].columns == pooled.columns
    assert "pooled" in alone.notes["summary_by_model_and_run"]


def test_a_run_alone_is_within_this_run_only(tmp_path: Path) -> None:
    analysis = tables_of(runs.load(a_run(tmp_path / "one", 1.0)), Options(draws=20))
    rate = analysis["throughput_intervals"].row(0, named=True)
    assert rate["interval_basis"] == "this run only, over repetitions"
    assert rate["tokens_per_s_low"] is None and rate["tokens_per_s_mean_low"] is None
    assert rate["tokens_per_s_within_low"] < rate["tokens_per_s"] < rate["tokens_per_s_within_high"]
    assert analysis["scaling_fits"]["between_run_noise"].unique().to_list() == ["not measured"]


def test_runs_that_each_measured_another_budget_are_not_pooled(tmp_path: Path) -> None:
    for budget in (8, 64):
        path = a_run(tmp_path / str(budget), 1.0 + budget / 100) / "metrics.csv"
        pl.read_csv(path).with_columns(pl.lit(budget).alias("gen_tokens_target")).write_csv(path)
    sweep = runs.load_all([tmp_path / "8", tmp_path / "64"], allow_different=True)
    analysis = tables_of(sweep, Options(draws=20))
    assert analysis["scaling_fits"]["between_run_noise"].unique().to_list() == ["not measured"]
    bases = analysis["throughput_intervals"]["interval_basis"].unique().to_list()
    assert bases == ["this run only, over repetitions"]
