"""Engines compared on the same weights: pairs by stated identity, ratios with intervals, the change of law put in."""

import dataclasses
import math
import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from rows import row_of, tables_of
from rows import run_of as rows_of
from scipy import stats

from phaselaw.laws.analysis import analyze
from phaselaw.laws.engine_ratios import CALLS, CONSTANT, EXPONENT, NOTHING, UNITS, engine_laws, engine_ratios
from phaselaw.laws.noise import units_of
from phaselaw.laws.rates import NOT_MEASURED
from phaselaw.laws.summary import by_cell, median_variance, usable
from phaselaw.laws.verdicts import TOO_FEW
from phaselaw.records import Run

SIZES = {"a": 1.0, "b": 3.0, "c": 10.0, "d": 30.0, "e": 100.0}
NAMES = {"hf": "{}", "cpp": "{}.gguf", "ollama": "{}:f32"}
"""How each engine calls a model."""


def run_of(
    laws: dict[str, tuple[float, float]],
    *,
    models: dict[str, str] | None = None,
    scatter: float = 0.0,
    rounds: int = 3,
    order: str = "rounds",
    same_as: bool = True,
    sizes: dict[str, dict[str, float]] | None = None,
    prompt_tokens: dict[str, float] | None = None,
) -> Run:
    """A run whose backend ``B`` takes ``factor * params ** exponent`` ms, times a scatter by round that is B's own."""
    draw = random.Random(7)
    rows: list[dict[str, Any]] = []
    for backend, (factor, exponent) in laws.items():
        for model in (models or {}).get(backend, "".join(SIZES)):
            params = (sizes or {}).get(backend, SIZES)[model]
            for rep in range(rounds):
                for scenario in ("short", "long"):
                    ms = factor * params**exponent * float(np.exp(scatter * draw.gauss(0, 1)))
                    rows.append(row_of(
                        "e2e_kv", ms, backend=backend, backend_kind=backend, model=NAMES[backend].format(model),
                        scenario=scenario, rep=rep, params_millions=params, gen_tokens_target=8, tokens_per_s=1.0,
                        prompt_tokens_raw=(prompt_tokens or {}).get(backend, 9.0),
                    ))  # fmt: skip
    kept = pl.DataFrame(rows)
    named = kept.select("backend", "model", pl.col("backend_kind").alias("kind")).unique(maintain_order=True)
    own = pl.col("model") if not same_as else pl.col("model").str.replace(r"(\.gguf|:f32)$", "")
    models = named.with_columns(own.alias("identity"))
    return rows_of(rows, models, manifest={"order": order, "backends": list(laws)})


def ratios_of(run: Run) -> pl.DataFrame:
    rows = usable(run.rows)
    replicates = units_of(rows, in_rounds=run.order == "rounds").for_laws
    return engine_ratios(by_cell(rows), replicates, run, level=0.95)


def law_of(run: Run, backend: str = "cpp") -> dict[str, Any]:
    return engine_laws(ratios_of(run), level=0.95).row(by_predicate=pl.col("backend") == backend, named=True)


def test_models_of_different_names_are_paired_by_their_identity() -> None:
    table = ratios_of(run_of({"hf": (2.0, 0.5), "cpp": (1.0, 0.5), "ollama": (3.0, 0.5)}))
    assert table["model"].to_list() == [*SIZES] * 2
    assert table.group_by("backend", maintain_order=True).agg(pl.col("ratio").mean()).rows() == [
        ("cpp", pytest.approx(0.5)),
        ("ollama", pytest.approx(1.5)),
    ]
    assert set(table["reference"]) == {"hf"}


def test_without_a_stated_identity_nothing_is_paired_by_likeness() -> None:
    assert ratios_of(run_of({"hf": (2.0, 0.5), "cpp": (1.0, 0.5)}, same_as=False)).is_empty()


def test_names_that_agree_over_sizes_that_do_not_are_no_pair() -> None:
    other = {"hf": SIZES, "cpp": SIZES | {"c": 11.0}}
    table = ratios_of(run_of({"hf": (2.0, 0.5), "cpp": (1.0, 0.5)}, sizes=other))
    assert table["model"].to_list() == ["a", "b", "d", "e"]


def test_a_constant_put_in_comes_out_as_a_constant() -> None:
    found = law_of(run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)}, scatter=0.01))
    assert found["changes"] == CONSTANT
    assert (found["slope"], found["slope_reference"]) == (pytest.approx(0.4, abs=0.02), pytest.approx(0.4, abs=0.02))
    assert found["slope_difference_low"] < 0 < found["slope_difference_high"]
    assert found["ratio_at_mean_low"] < 0.5 < found["ratio_at_mean_high"]
    assert found["log10_intercept_difference"] == pytest.approx(np.log10(0.5), abs=0.02)
    assert found["params_millions_mean"] == pytest.approx(stats.gmean([*SIZES.values()]))


def test_an_exponent_put_in_comes_out_as_an_exponent() -> None:
    found = law_of(run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.7)}, scatter=0.01))
    assert found["changes"] == EXPONENT
    assert found["slope_difference_low"] < 0.3 < found["slope_difference_high"]
    assert found["slope_difference"] == pytest.approx(0.3, abs=0.02)


def test_two_names_of_one_engine_change_nothing() -> None:
    assert law_of(run_of({"hf": (2.0, 0.4), "cpp": (2.0, 0.4)}, scatter=0.05))["changes"] == NOTHING


def test_a_constant_alone_is_called_an_exponent_no_more_often_than_the_level_says() -> None:
    rng, x = np.random.default_rng(3), np.log10([*SIZES.values()])
    points = pl.concat(
        pl.DataFrame({
            "reference": "hf", "backend": f"cpp {at}", "batch_size": 1, "gen_tokens_target": 8, "mode": "e2e_kv",
            "model": [*SIZES], "params_millions_effective": 10**x, "latency_reference_ms": 10 ** (0.4 * x),
            "latency_ms": 3 * 10 ** (0.4 * x) * np.exp(rng.normal(0, 0.05, len(x))),
        })
        for at in range(400)
    )  # fmt: skip
    changes = engine_laws(points, level=0.95)["changes"].to_list()
    assert len(changes) == 400
    calls = changes.count(EXPONENT)
    assert stats.binom.ppf(0.001, 400, 0.05) <= calls <= stats.binom.ppf(0.999, 400, 0.05)


def test_laws_are_of_the_models_that_all_engines_ran() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4), "ollama": (1.0, 0.4)}, models={"ollama": "cde"}, scatter=0.01)
    assert [law_of(run, name)["n_models"] for name in ("cpp", "ollama")] == [3, 3]


def test_an_engine_with_too_few_models_takes_none_from_the_others() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4), "ollama": (1.0, 0.4)}, models={"ollama": "ab"}, scatter=0.01)
    assert law_of(run, "cpp")["n_models"] == 5
    assert (law_of(run, "ollama")["n_models"], law_of(run, "ollama")["changes"]) == (2, TOO_FEW)


def test_a_ratios_interval_is_the_t_interval_over_paired_rounds() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)}, models={"hf": "c", "cpp": "c"}, scatter=0.1, rounds=5)
    row = ratios_of(run).row(0, named=True)
    log = pl.col("latency_ms").log()
    by_round = {
        name: run.rows.filter(pl.col("backend") == name).group_by("rep", maintain_order=True).agg(log.mean())
        for name in ("hf", "cpp")
    }
    paired = by_round["cpp"]["latency_ms"].to_numpy() - by_round["hf"]["latency_ms"].to_numpy()
    # Squares about the median sum to 4 and what the median lies off the mean.
    variance = ((paired - np.median(paired)) ** 2).sum() / (5 - 2 + 5 * median_variance(5))
    half = math.sqrt(variance * median_variance(5)) * stats.t.ppf(0.975, 4)
    assert row["interval_basis"] == UNITS["rounds"] and row["n_units"] == 5
    assert np.log(row["ratio_high"] / row["ratio"]) == pytest.approx(half)
    assert np.log(row["ratio"] / row["ratio_low"]) == pytest.approx(half)


def test_in_tr121s_order_the_interval_is_of_calls_within_cells() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)}, scatter=0.1, order="cells")
    assert set(ratios_of(run)["interval_basis"]) == {CALLS}
    assert ratios_of(run)["ratio_low"].null_count() == 0


def test_one_repetition_has_no_interval_and_says_so() -> None:
    table = ratios_of(run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)}, rounds=1))
    assert set(table["interval_basis"]) == {NOT_MEASURED}
    assert table["ratio_low"].null_count() == table.height


def test_prompts_of_another_length_are_noted() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)}, prompt_tokens={"cpp": 10.0})
    assert set(ratios_of(run)["note"]) == {"prompts of 10.0 tokens against 9.0"}


def test_other_prompts_leave_the_ratios_of_prefill_and_end_to_end_and_are_named_with_both_counts() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)})
    tokens = pl.when((pl.col("backend") == "cpp") & (pl.col("scenario") == "short")).then(29.0).otherwise(9.0)
    slower = pl.when(pl.col("scenario") == "short").then(3.0).otherwise(1.0) * pl.col("latency_ms")
    rows = run.rows.with_columns(tokens.alias("prompt_tokens_raw"), latency_ms=slower)
    found = ratios_of(dataclasses.replace(run, rows=rows))
    assert set(found["n_scenarios"]) == {1} and found["ratio"].to_list() == pytest.approx([0.5] * 5)
    assert set(found["note"]) == {"other prompts, left out: short (29 tokens against 9)"}
    decode = rows.with_columns(mode=pl.lit("kv_decode"))
    assert set(ratios_of(dataclasses.replace(run, rows=decode))["n_scenarios"]) == {2}


def test_a_model_all_of_whose_prompts_differ_has_no_ratio_and_is_named_all_the_same() -> None:
    run = run_of({"hf": (2.0, 0.4), "cpp": (1.0, 0.4)}, prompt_tokens={"cpp": 29.0})
    found = ratios_of(run)
    assert found["ratio"].null_count() == found.height == 5 and set(found["n_scenarios"]) == {0}
    assert found["weights"].null_count() in (0, 5) and found["params_millions_effective"].null_count() == 0
    assert tables_of(run)["engine_laws"].is_empty()


def test_the_words_that_an_engine_of_ours_puts_before_a_prompt_are_not_counted() -> None:
    run = run_of({"hf": (2.0, 0.4), "ollama": (1.0, 0.4)}, prompt_tokens={"ollama": 11.0})
    assert ratios_of(run)["ratio"].null_count() == 0


def test_a_run_of_one_engine_has_no_ratios_and_says_why() -> None:
    analysis = analyze(run_of({"hf": (2.0, 0.4)}))
    assert analysis.tables["engine_ratios"].is_empty() and analysis.tables["engine_laws"].is_empty()
    assert "two backends" in analysis.notes["engine_laws"]
