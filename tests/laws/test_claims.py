"""The claim table: TR121's own figures, and statuses by rule on runs whose laws are known."""

import math
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from rows import hard_rows, row_of, tables_of, written

from phaselaw.laws import decisions as c
from phaselaw.laws.analysis import Context, Options, analyze
from phaselaw.laws.verdicts import NARROW
from phaselaw.rundir import read as runs

PHASES = ("prefill", "kv_decode", "e2e_kv")
BOTH_PHASES = {
    "hf_cpu_fp32": (-0.010, -0.046, 0.025),
    "hf_gpu_fp16": (-0.009, -0.034, 0.016),
    "ollama": (-0.026, -0.070, 0.019),
}
"""Slope of prefill minus slope of decode of TR121's rows, with its 95 % interval."""


def of(tables: Mapping[str, pl.DataFrame], claim: str) -> list[dict[str, object]]:
    return tables["claims"].filter(pl.col("claim") == claim).to_dicts()


@pytest.mark.parametrize(("backend", "figures"), BOTH_PHASES.items())
def test_phases_of_one_backend_are_not_told_apart_in_tr121(tr121, backend: str, figures) -> None:
    [row] = [row for row in of(tr121.tables, c.ONE_EXPONENT) if row["backend"] == backend]
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx(figures, abs=6e-4)
    assert row["status"] == c.NOT_DISTINGUISHABLE
    assert f"at most {max(map(abs, figures)):.3f} apart" in str(row["evidence"])


def test_models_of_one_size_are_not_called_too_few_for_one_exponent(tmp_path: Path) -> None:
    rows = hard_rows(models=3, scenarios=("a",), reps=1).with_columns(params_millions=10.0)
    [row] = of(tables_of(runs.load(written(rows.to_dicts(), tmp_path)), Options(draws=5)), c.ONE_EXPONENT)
    assert (row["status"], row["n_models"]) == (NARROW, 3)


def test_latency_that_falls_with_size_is_not_said_to_grow(tmp_path: Path) -> None:
    rows = hard_rows(models=4, scenarios=("a",)).with_columns(latency_ms=1e3 / pl.col("latency_ms"))
    [regime] = tables_of(runs.load(written(rows.to_dicts(), tmp_path)), Options(draws=5))["regimes"].to_dicts()
    assert regime["reason"].startswith("latency falls as params^-0.5")


def test_backends_differ_in_tr121_and_the_cpu_alone_of_hf_has_a_law(tr121) -> None:
    assert {row["status"] for row in of(tr121.tables, c.ONE_ACROSS_BACKENDS)} == {c.REFUTED}
    assert {row["backend"]: row["status"] for row in of(tr121.tables, c.PARAMS_PREDICT)} == {
        "hf_cpu_fp32": "supported (trend) (rests on models/tiny-gpt2)",
        "hf_gpu_fp16": c.NOT_SUPPORTED,
        "ollama": "supported (trend) (rests on gemma3:270m)",
    }


def cold(tables: Mapping[str, pl.DataFrame]) -> dict[tuple[object, ...], dict[str, object]]:
    return {(row["backend"], row["coldness"], row["mode"]): row for row in of(tables, c.MEAN_IS_SAFE)}


def test_cold_starts_of_tr121_are_unsafe_by_their_worst_event_with_the_p95_rule_beside(tr121) -> None:
    rows = cold(tr121.tables)
    gpu = rows["hf_gpu_fp16", "process-cold", "prefill"]
    assert gpu["status"] == c.UNSAFE
    assert "models/tiny-gpt2, medium: 1,241 ms for 4.30 ms, 405 ms of it loading" in gpu["evidence"]
    assert "by TR121's rule, all warmups without their load, holds" in gpu["evidence"]
    assert "worst 194.4 x" in gpu["evidence"]
    assert rows["hf_gpu_fp16", "shape-cold", "prefill"]["status"] == c.HOLDS
    assert {key[1:] for key, row in rows.items() if key[0] == "ollama" and row["status"] == c.UNSAFE} == {
        ("process-cold", "prefill"), ("process-cold", "e2e_kv"), ("model-cold", "prefill"), ("model-cold", "e2e_kv"),
    }  # fmt: skip


def test_ollamas_load_is_in_the_verdict_of_tr121_as_its_7_1_1_prints_it(tr121) -> None:
    row = cold(tr121.tables)["ollama", "model-cold", "prefill"]
    assert row["estimate"] == pytest.approx(54.0, abs=0.05)
    assert "gpt-oss-20b:latest, micro: 14,363 ms for 266 ms, 12,135 ms of it loading); 8 of 8 unsafe" in row["evidence"]
    [first] = tr121.tables["what_breaks_first"].filter(pl.col("backend") == "ollama").to_dicts()
    assert (first["first"], first["coldness"], first["cold_mode"]) == ("cold start", "model-cold", "prefill")
    assert (first["cold_ratio_max"], first["cold_load_ms"]) == pytest.approx((54.05, 12135.3), abs=0.05)


def test_decode_dominates_and_depth_explains_the_gpu_in_tr121(tr121) -> None:
    assert {row["status"] for row in of(tr121.tables, c.DECODE_DOMINATES)} == {c.HOLDS}
    assert {row["backend"]: row["status"] for row in of(tr121.tables, c.DEPTH_EXPLAINS)} == {
        "hf_cpu_fp32": c.NOT_SUPPORTED,
        "hf_gpu_fp16": c.HOLDS,
        "ollama": c.NOT_CHECKED,
    }


def test_a_users_slo_takes_the_place_of_the_100_ms(reference_data: Path) -> None:
    run = runs.load(reference_data / "tr121" / "primary_run")
    loose = tables_of(run, Options(draws=10, cold_start_slo_ms=450.0))
    unsafe = {key for key, row in cold(loose).items() if row["status"] == c.UNSAFE}
    assert ("hf_gpu_fp16", "model-cold", "prefill") in unsafe
    assert ("hf_cpu_fp32", "shape-cold", "prefill") not in unsafe  # 115 ms are added
    regimes = loose["regimes"].filter(pl.col("regime") == "cold start")
    assert set(regimes.select("backend", "mode").iter_rows()) == {(backend, mode) for backend, _, mode in unsafe}


def run_of(
    folder: Path, *, exponents=(0.5, 0.5), models: int = 5, scenarios=("a", "b"), warmups: bool = True,
    modes=PHASES, cold: float = 1.0, backends=("x",),
) -> Context:  # fmt: skip
    """A run whose phases follow the exponents exactly, but for a fixed scatter of 1 %."""
    rows = []
    for backend in backends:
        for model in range(models):
            params = 10.0 * 4**model
            prefill, decode = (5 * params ** exponents[0], 95 * params ** exponents[1])
            wobble = 1 + 0.01 * math.sin(7 * model)
            latencies = {"prefill": prefill * wobble, "kv_decode": decode / wobble, "e2e_kv": prefill + decode}
            for scenario in scenarios:
                for rep in range(-1 if warmups else 0, 2):
                    for mode in modes:
                        slower = cold if rep < 0 else 1.0
                        rows.append(
                            row_of(
                                mode, latencies[mode] * slower, backend=backend, model=f"m{model}", scenario=scenario,
                                params_millions=params, is_warmup=rep < 0, rep=max(rep, 0), batch_size=1,
                                gen_tokens_target=16, tokens_per_s=1.0,
                            )
                        )  # fmt: skip
    return tables_of(runs.load(written(rows, folder)), Options(draws=10))


def test_two_exponents_that_were_put_in_refute_that_one_describes_both(tmp_path: Path) -> None:
    [row] = of(run_of(tmp_path, exponents=(0.8, 0.5)), c.ONE_EXPONENT)
    assert row["status"] == c.REFUTED
    assert row["low"] <= 0.3 <= row["high"]
    assert "decode is" in str(row["evidence"])


def test_two_models_are_too_few_for_any_claim_about_exponents(tmp_path: Path) -> None:
    analysis = run_of(tmp_path, models=2, backends=("x", "y"))
    assert {row["status"] for row in of(analysis, c.ONE_EXPONENT)} == {"too few models"}
    assert {row["status"] for row in of(analysis, c.PARAMS_PREDICT)} == {"too few models"}
    assert {row["status"] for row in of(analysis, c.DEPTH_EXPLAINS)} == {c.NOT_CHECKED}
    assert of(analysis, c.ONE_ACROSS_BACKENDS) == []


def test_one_scenario_and_no_warmups_leave_cold_start_unchecked(tmp_path: Path) -> None:
    analysis = run_of(tmp_path, scenarios=("only",), warmups=False)
    assert {row["status"] for row in of(analysis, c.MEAN_IS_SAFE)} == {c.NOT_CHECKED}
    assert {row["status"] for row in of(analysis, c.PARAMS_PREDICT)} == {"supported"}


@pytest.mark.parametrize("modes", [("prefill",), ("kv_decode", "e2e_kv"), ("e2e_kv",)])
def test_a_missing_phase_leaves_its_claims_out_and_breaks_none(modes, tmp_path: Path) -> None:
    analysis = analyze(run_of(tmp_path, modes=modes).run, Options(draws=10)).tables
    [row] = of(analysis, c.ONE_EXPONENT)
    assert row["status"] == "too few models"
    assert row["estimate"] is None
    assert len(of(analysis, c.DECODE_DOMINATES)) == (len(modes) == 2)


@pytest.mark.parametrize(("cold", "status"), [(1.9, c.HOLDS), (2.1, c.UNSAFE)])
def test_the_mean_is_safe_up_to_twice_the_latency(cold: float, status: str, tmp_path: Path) -> None:
    rows = of(run_of(tmp_path, cold=cold), c.MEAN_IS_SAFE)
    [row] = [row for row in rows if row["mode"] == "e2e_kv" and row["coldness"] == "model-cold"]
    assert row["status"] == status


def test_the_same_backend_twice_is_not_told_apart(tmp_path: Path) -> None:
    [row] = of(run_of(tmp_path, backends=("x", "y")), c.ONE_ACROSS_BACKENDS)
    assert row["status"] == c.NOT_DISTINGUISHABLE
    assert row["estimate"] == pytest.approx(0.0, abs=1e-12)


def test_five_claims_of_tr121_come_first(tmp_path: Path) -> None:
    order = list(dict.fromkeys(run_of(tmp_path, backends=("x", "y"))["claims"]["claim"]))
    assert order == [c.ONE_EXPONENT, c.ONE_ACROSS_BACKENDS, c.PARAMS_PREDICT, c.MEAN_IS_SAFE, c.DECODE_DOMINATES,
                     c.DEPTH_EXPLAINS]  # fmt: skip
