"""Which property explains latency: bytes by format where they were not measured, one best law a group."""

from pathlib import Path

import polars as pl
import pytest

from phaselaw.laws.structure import bits_of, structure_predictors, structured, weight_bytes
from phaselaw.records import Run
from phaselaw.rundir.read import load

ROWS = pl.DataFrame(
    {
        "backend": ["gpu"] * 3 + ["cpu"] * 3,
        "backend_kind": ["ollama"] * 3 + ["hf"] * 3,
        "model": ["a", "b", "c"] * 2,
        "params_millions_effective": [100.0, 200.0, 400.0] * 2,
    }
)


def run(models: list[dict[str, object]]) -> Run:
    return Run(path=Path("run"), rows=ROWS, models=pl.DataFrame(models, infer_schema_length=None), manifest=None)


def of_backend(table: pl.DataFrame, backend: str) -> list[float | None]:
    return table.filter(pl.col("backend") == backend).sort("model")["weights_bytes"].to_list()


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
    table = weight_bytes(run(told))
    assert of_backend(table, "gpu") == [pytest.approx(106.25e6), 123e6, None]
    assert of_backend(table, "cpu") == [None, None, None]


def test_models_listed_in_several_formats_stand_in_the_proportion_of_their_parameters() -> None:
    told = [{"model": model, "kind": "hf", "dtype": dtype} for model in ("a", "b", "c") for dtype in ("fp32", "fp16")]
    a, b, c = of_backend(weight_bytes(run(told)), "cpu")
    assert a and b and c
    assert (b / a, c / a) == pytest.approx((2, 4))


def test_each_law_of_the_reference_has_every_predictor_that_is_known_and_one_best(reference_data: Path) -> None:
    from phaselaw.laws.analysis import analyze

    table = analyze(load(reference_data / "tr121" / "primary_run")).tables["structure_predictors"]
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
        weights_bytes=pl.col("params_millions_effective") * 3e6
    )
    unknown = per_model.select("model", "model_kind", "params_millions_effective").with_columns(
        n_layer=pl.lit(None, dtype=pl.Float64), n_embd=pl.lit(None, dtype=pl.Float64)
    )
    table = structure_predictors(structured(per_model, unknown, weights))
    assert table.filter(pl.col("best"))["predictor"].to_list() == ["params"]
    assert table["loo_typical_factor"].is_finite().all()
