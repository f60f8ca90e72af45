"""The noise between runs and rounds: closed forms, and what an interval holds of it."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import row_of, written
from scipy import stats

from phaselaw.laws.analysis import Options, analyze
from phaselaw.laws.noise import KEYS, Kind, Noise, Replicates, noise_of, slope_noise
from phaselaw.laws.scaling import scaling_fits
from phaselaw.laws.series import Series
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
            "aggregation": "geomean_across_scenarios", "latency": latency, "latency_log_variance": 0.0, **more,
        }
    )  # fmt: skip


def replicates(*each: pl.DataFrame, kind: Kind = "runs") -> Replicates:
    """Points of the mean over scenarios in each replicate: those of one scenario alone."""
    marked = [one.with_columns(replicate=pl.lit(str(at)), scenario=pl.lit("s")) for at, one in enumerate(each)]
    logs = pl.concat(marked).with_columns(pl.col("latency").log(), n_scenarios=1)
    return Replicates(kind=kind, n=len(each), logs=logs)


def noise_between(*each: pl.DataFrame) -> Noise:
    return slope_noise(Series.of(points(), KEYS), replicates(*each).points, "runs")


def test_runs_that_tilt_the_law_vary_by_their_slopes() -> None:
    slopes = [0.4, 0.5, 0.6]
    noise = noise_between(*(points(slope) for slope in slopes))
    assert noise.n.tolist() == [3]
    assert noise.between[0] == pytest.approx(np.var(slopes, ddof=1) / 3)
    assert noise.shared[0] == pytest.approx(0, abs=1e-20)


def test_runs_that_are_slower_throughout_do_not_vary_in_slope() -> None:
    noise = noise_between(points(), points(offsets=(0.1,) * 4))
    assert noise.between[0] == pytest.approx(0, abs=1e-20)


def test_what_single_models_do_in_single_runs_is_shared_with_the_scatter() -> None:
    rng = np.random.default_rng(1)
    between, shared = [], []
    for _ in range(400):
        each = (points(offsets=tuple(rng.normal(0, 0.05, 4))) for _ in range(3))
        noise = noise_between(*each)
        between.append(noise.between[0])
        shared.append(noise.shared[0])
    x = np.log10(SIZES)
    expected = 0.05**2 / 3 / ((x - x.mean()) ** 2).sum()
    assert np.mean(between) == pytest.approx(expected, rel=0.2)
    assert np.mean(shared) == pytest.approx(expected, rel=0.2)


def test_a_run_that_lacks_a_model_tells_nothing_of_the_noise() -> None:
    noise = noise_between(points(0.4), points(0.6), points(9.0).head(3))
    assert noise.n.tolist() == [2]
    assert noise.between[0] == pytest.approx(np.var([0.4, 0.6], ddof=1) / 2)


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


def half_width(*, scatter: float, beyond: float, degrees: int, n_replicates: int) -> float:
    """Of variances that are known apart: nothing is shared."""
    noise = Noise(n=np.array([n_replicates]), between=np.array([beyond]), shared=np.array([0.0]))
    return float(noise.half_width(np.array([math.sqrt(scatter)]), degrees, 0.95)[0])


def t(degrees: float) -> float:
    return float(stats.t.ppf(0.975, degrees))


@pytest.mark.parametrize(("degrees", "n_replicates"), [(2, 2), (5, 3), (10, 10)])
def test_either_noise_alone_has_its_own_t_interval(degrees: int, n_replicates: int) -> None:
    assert half_width(scatter=0.04, beyond=0.0, degrees=degrees, n_replicates=n_replicates) == pytest.approx(
        t(degrees) * 0.2
    )
    assert half_width(scatter=0.0, beyond=0.04, degrees=degrees, n_replicates=n_replicates) == pytest.approx(
        t(n_replicates - 1) * 0.2
    )


def test_variances_that_are_known_well_add() -> None:
    half = half_width(scatter=0.03, beyond=0.01, degrees=2000, n_replicates=2001)
    assert half == pytest.approx(1.96 * 0.2, rel=2e-3)


@given(share=st.floats(0.001, 0.999), degrees=st.integers(2, 20), n_replicates=st.integers(2, 12))
def test_an_interval_of_both_is_no_wider_than_quadrature_and_no_narrower_than_known_variances_would_be(
    share: float, degrees: int, n_replicates: int
) -> None:
    half = half_width(scatter=1 - share, beyond=share, degrees=degrees, n_replicates=n_replicates)
    quadrature = math.hypot(t(degrees) * math.sqrt(1 - share), t(n_replicates - 1) * math.sqrt(share))
    assert half <= quadrature * (1 + 1e-9)
    assert half >= stats.norm.ppf(0.975)


@given(degrees=st.integers(1, 20), n_replicates=st.integers(2, 12), factor=st.floats(0.01, 100))
def test_half_widths_scale_with_the_noise(degrees: int, n_replicates: int, factor: float) -> None:
    one = half_width(scatter=0.3, beyond=0.1, degrees=degrees, n_replicates=n_replicates)
    other = half_width(scatter=0.3 * factor**2, beyond=0.1 * factor**2, degrees=degrees, n_replicates=n_replicates)
    assert other == pytest.approx(factor * one)


def test_the_noise_of_any_estimate_of_a_plane_is_that_of_the_replicates_own_fits() -> None:
    rng = np.random.default_rng(3)
    columns, at = rng.normal(size=(6, 2)), np.array([1.0, 0.3, -0.2])
    logs = rng.normal(size=(3, 6))
    design = np.column_stack([np.ones(6), columns])
    fitted = [np.linalg.lstsq(design, row, rcond=None)[0] @ at for row in logs]
    noise = noise_of(at, columns, logs, kind="runs")
    assert noise.n.tolist() == [3]
    assert noise.between[0] == pytest.approx(np.var(fitted, ddof=1) / 3)


def test_one_replicate_tells_of_no_noise() -> None:
    noise = noise_of(np.array([0.0, 1.0]), np.arange(4.0)[:, None], np.zeros((1, 4)), kind="runs")
    assert noise.n.tolist() == [0]
    assert np.isnan(noise.between[0])


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
    analysis = analyze(runs.load_all(paths), Options(draws=20))
    cell = analysis.tables["summary_by_model_backend_mode"].row(0, named=True)
    assert cell["n"] == 9
    assert cell["latency_median_ms"] == pytest.approx(1.1 * cell["params_millions_effective"] ** 0.5 * 1.01)
    rate = analysis.tables["throughput_intervals"].row(0, named=True)
    assert rate["interval_basis"] == "runs, the noise between them included"
    assert rate["n_runs"] == 3
    half = 4.30265 * math.log(1.1) / math.sqrt(3)
    assert rate["tokens_per_s_high"] / rate["tokens_per_s"] == pytest.approx(math.exp(half), rel=1e-4)


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
    analysis = analyze(runs.load(a_run(tmp_path / "one", 1.0)), Options(draws=20))
    assert "within this run only" in analysis.tables["throughput_intervals"]["interval_basis"][0]
    assert analysis.tables["scaling_fits"]["between_run_noise"].unique().to_list() == ["not measured"]


def test_runs_that_each_measured_another_budget_are_not_pooled(tmp_path: Path) -> None:
    for budget in (8, 64):
        path = a_run(tmp_path / str(budget), 1.0 + budget / 100) / "metrics.csv"
        pl.read_csv(path).with_columns(pl.lit(budget).alias("gen_tokens_target")).write_csv(path)
    sweep = runs.load_all([tmp_path / "8", tmp_path / "64"], allow_different=True)
    analysis = analyze(sweep, Options(draws=20))
    assert analysis.tables["scaling_fits"]["between_run_noise"].unique().to_list() == ["not measured"]
    bases = analysis.tables["throughput_intervals"]["interval_basis"].unique().to_list()
    assert bases == ["repetitions within cells, within this run only"]
