"""Which property explains latency: bytes by format where they were not measured, one best law a group."""

from pathlib import Path

import polars as pl
import pytest

from phaselaw.laws.analysis import Analysis
from phaselaw.laws.structure import bits_of, sizes, structure_predictors, structured
from phaselaw.records import Run

ROWS = pl.DataFrame(
    {
        "backend": ["gpu"] * 3 + ["cpu"] * 3,
        "backend_kind": ["ollama"] * 3 + ["hf"] * 3,
        "model": ["a", "b", "c"] * 2,
        "params_millions_effective": [100.0, 200.0, 400.0] * 2,
    }
)


def run(models: list[dict[str, object]]) -> Run:
    return Run(path=Path("run"), rows=ROWS, models=pl.DataFrame(models, infer_schema_length=None), manifest={})


def of_backend(table: pl.DataFrame, backend: str) -> list[float | None]:
    return table.filter(pl.col("backend") == backend).sort("model")["read_bytes"].to_list()


@pytest.mark.parametrize(("label", "bits"), [("Q8_0", 8.5), ("fp32", 32), ("F16", 16), ("bf16", 16), ("Q4_K_M", 4.7)])
def test_a_format_has_its_bits(label: str, bits: float) -> None:
    assert bits_of(label) == bits
    assert bits_of("unheard of") is None and bits_of(None) is None


def test_bytes_are_those_measured_else_parameters_times_the_formats_bits() -> None:
    told = [
        {"model": "a", "kind": "ollama", "quantization_level": "Q8_0", "weights_bytes": None},
        {"model": "b", "kind": "ollama", "quantization_level": "Q4_0", "weights_bytes": 123e6},
        {"model": "c", "kind": "ollama", "quantization_level": "secret", "weights_bytes": None},
    ]
    table = sizes(run(told))
    assert of_backend(table, "gpu") == [pytest.approx(106.25e6), 123e6, None]
    assert of_backend(table, "cpu") == [None, None, None]


def test_models_listed_in_several_formats_stand_in_the_proportion_of_their_parameters() -> None:
    told = [{"model": model, "kind": "hf", "dtype": dtype} for model in ("a", "b", "c") for dtype in ("fp32", "fp16")]
    a, b, c = of_backend(sizes(run(told)), "cpu")
    assert a and b and c
    assert (b / a, c / a) == pytest.approx((2, 4))


SHAPED = {"model": "a", "kind": "hf", "backend": "cpu", "params_millions_measured": 100.0, "weights_bytes": 400e6,
          "n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 100}  # fmt: skip


def test_a_token_reads_no_look_up_tables_and_of_experts_those_it_is_sent_to() -> None:
    told = [SHAPED | {"lookup_params": 10e6, "lookup_bytes": 40e6, "n_experts": 8, "n_experts_used": 2,
                      "expert_params": 80e6, "expert_bytes": 320e6}]  # fmt: skip
    table = sizes(run(told)).filter(pl.col("backend") == "cpu").sort("model")
    assert table["read_bytes"][0] == 400e6 - 40e6 - 320e6 * 6 / 8
    assert table["params_millions_active"].to_list() == [40.0, *table["params_millions_effective"].to_list()[1:]]


def test_of_a_mixture_whose_experts_are_not_known_it_is_not_told_what_a_token_reads() -> None:
    table = sizes(run([SHAPED | {"n_experts": 8}])).filter((pl.col("backend") == "cpu") & (pl.col("model") == "a"))
    assert table.select("read_bytes", "params_millions_active").row(0) == (None, None)


def test_each_law_of_the_reference_has_every_predictor_that_is_known_and_one_best(tr121: Analysis) -> None:
    table = tr121.tables["structure_predictors"]
    for (backend, _), group in table.group_by("backend", "mode"):
        names = group["predictor"].to_list()
        assert names[:2] == ["mean", "params"] and "bytes_per_token" in names
        assert {"depth", "width", "params+depth"} <= set(names) or backend == "ollama"
        assert group["best"].sum() == 1


def test_bytes_in_proportion_to_parameters_do_not_take_the_best_from_them() -> None:
    per_model = pl.DataFrame(
        {
            "model": list("abcd"),
            "params_millions_effective": [1.0, 7.0, 30.0, 90.0],
            "latency_geomean_ms": [1.0, 3.0, 5.0, 9.0],
        }
    ).with_columns(
        model_kind=pl.lit("hf"), backend=pl.lit("cpu"), backend_kind=pl.lit("hf"), batch_size=pl.lit(1),
        gen_tokens_target=pl.lit(8), mode=pl.lit("e2e_kv"),
    )  # fmt: skip
    weights = per_model.select("backend", "model", "params_millions_effective").with_columns(
        read_bytes=pl.col("params_millions_effective") * 3e6, params_millions_active=pl.col("params_millions_effective")
    )
    unknown = per_model.select("model", "model_kind", "params_millions_effective").with_columns(
        n_layer=pl.lit(None, dtype=pl.Float64), n_embd=pl.lit(None, dtype=pl.Float64)
    )
    table = structure_predictors(structured(per_model, unknown, weights))
    assert table.filter(pl.col("best"))["predictor"].to_list() == ["params"]
    assert table["loo_typical_factor"].is_finite().all()


def test_the_active_parameters_of_mixtures_predict_beside_all_of_theirs() -> None:
    params, active = [1.0, 8.0, 30.0, 64.0, 90.0], [1.0, 8.0, 3.0, 64.0, 9.0]
    per_model = pl.DataFrame(
        {"model": list("abcde"), "params_millions_effective": params, "latency_geomean_ms": [p**0.5 for p in active]}
    ).with_columns(
        model_kind=pl.lit("hf"), backend=pl.lit("cpu"), backend_kind=pl.lit("hf"), batch_size=pl.lit(1),
        gen_tokens_target=pl.lit(8), mode=pl.lit("e2e_kv"), n_layer=pl.lit(None, dtype=pl.Float64),
        n_embd=pl.lit(None, dtype=pl.Float64),
    )  # fmt: skip
    sized = per_model.select("backend", "model", "params_millions_effective").with_columns(
        read_bytes=pl.lit(None, dtype=pl.Float64), params_millions_active=pl.Series(active)
    )
    known = per_model.select("model", "model_kind", "params_millions_effective", "n_layer", "n_embd")
    table = structure_predictors(structured(per_model.drop("n_layer", "n_embd"), known, sized))
    assert table["predictor"].to_list() == ["mean", "params", "active_params"]
    assert table.filter(pl.col("best"))["predictor"].to_list() == ["active_params"]
