"""From the tables printed in TR121 (3.5, appendix A) alone come the figures that it prints, as far as rounding allows.

Every printed value may be off by half its last digit. A figure of ours is computed from the values as printed, and
again with each of them moved up and down by that half digit; the sum of what each move changes is how far rounding can
take it. The printed figure must lie within that, and half a digit of its own.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from phaselaw.laws import structure, summary
from phaselaw.laws.noise import points_of
from phaselaw.laws.options import Options
from phaselaw.laws.overhead import overhead_compute_fits
from phaselaw.laws.scaling import scaling_fits
from phaselaw.laws.structure import architectures, sizes
from phaselaw.records import Run
from phaselaw.rundir.read import normalised

# Model, parameters in millions, prefill, KV decode and end-to-end latency in ms: as printed.
HF_CPU = """
models/tiny-gpt2 0.103 3.49 166.32 169.76
models/gpt2-5m 5.04 20.71 1042.44 1063.47
models/gpt2-25m 25.0 15.75 783.67 799.73
models/gpt2-45m 45.2 18.08 799.82 818.73
models/gpt2-50m 51.5 25.35 1267.69 1289.54
models/gpt2-75m 74.8 27.80 1600.77 1634.74
models/gpt2-100m 96.1 26.98 1374.22 1402.22
"""
HF_GPU = """
models/tiny-gpt2 0.103 4.30 224.95 228.87
models/gpt2-5m 5.04 13.07 626.09 639.85
models/gpt2-25m 25.0 3.24 173.13 176.39
models/gpt2-45m 45.2 7.63 385.33 393.07
models/gpt2-50m 51.5 5.85 331.40 337.44
models/gpt2-75m 74.8 6.34 336.59 343.01
models/gpt2-100m 96.1 7.37 410.32 417.92
"""
OLLAMA = """
gemma3:270m 268 2.32 121.57 123.90
gemma3:1b-it-qat 999.89 4.51 260.90 265.53
qwen2.5:7b 7.6e3 11.57 709.04 720.60
llama3.1:8b-instruct-q4_0 8.0e3 11.53 699.44 711.17
gpt-oss-20b:latest 20.9e3 50.85 2914.22 2965.75
"""
TABLES = {"hf_cpu_fp32": HF_CPU, "hf_gpu_fp16": HF_GPU, "ollama": OLLAMA}
LAYERS = {
    "models/tiny-gpt2": (2, 2), "models/gpt2-5m": (12, 80), "models/gpt2-25m": (3, 384), "models/gpt2-45m": (6, 512),
    "models/gpt2-50m": (8, 512), "models/gpt2-75m": (5, 768), "models/gpt2-100m": (8, 768),
}  # fmt: skip
"""Layers and width, of appendix A."""
MODES = ("prefill", "kv_decode", "e2e_kv")

# Slope and R2 by backend and phase, of the executive summary.
SLOPES = {
    ("hf_cpu_fp32", "prefill"): ("0.281", "0.873"),
    ("hf_cpu_fp32", "kv_decode"): ("0.291", "0.848"),
    ("hf_cpu_fp32", "e2e_kv"): ("0.291", "0.848"),
    ("hf_gpu_fp16", "prefill"): ("0.0338", "0.0337"),
    ("hf_gpu_fp16", "kv_decode"): ("0.0426", "0.0609"),
    ("hf_gpu_fp16", "e2e_kv"): ("0.0427", "0.0609"),
    ("ollama", "prefill"): ("0.623", "0.901"),
    ("ollama", "kv_decode"): ("0.649", "0.925"),
    ("ollama", "e2e_kv"): ("0.648", "0.925"),
}
# Section 5.2: rho and p of log latency with parameters, layers and width.
SPEARMAN = {
    ("hf_cpu_fp32", "loglog_params"): ("0.857", "0.0137"),
    ("hf_cpu_fp32", "n_layer_vs_log_latency"): ("0.523", "0.229"),
    ("hf_cpu_fp32", "n_embd_vs_log_latency"): ("0.855", "0.0143"),
    ("hf_gpu_fp16", "loglog_params"): ("0.286", "0.535"),
    ("hf_gpu_fp16", "n_layer_vs_log_latency"): ("0.811", "0.0269"),
}
# Section 5.2.2: beta, gamma, R2.
MULTIVARIATE = {"hf_cpu_fp32": ("0.231", "0.422", "0.929"), "hf_gpu_fp16": ("-0.0616", "0.734", "0.874")}
OVERHEAD = {"a_ms": "358", "b_ms_per_million_params": "0.097", "r2": "0.0005"}
"""Section 5.2.1: ``a + b P`` of the GPU end to end."""

AS_PRINTED = "as printed"


def half_digit(printed: str) -> float:
    """Half of the last digit that is printed."""
    digits, _, exponent = printed.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def rows_of(table: str, backend: str, moved: str, column: int = -1, line: int = -1, by: float = 0.0) -> list[dict]:
    """Rows of a printed table, one value moved by ``by`` half digits; ``moved`` names the move."""
    rows = []
    for at, text in enumerate(table.strip().splitlines()):
        model, *printed = text.split()
        values = [float(each) for each in printed]
        if at == line:
            values[column] += by * half_digit(printed[column])
        for mode, latency in zip(MODES, values[1:], strict=True):
            rows.append(
                {
                    "backend": f"{backend}|{moved}", "backend_kind": backend.partition("_")[0], "model": model,
                    "scenario": "all", "mode": mode, "status": "ok", "latency_ms": latency,
                    "params_millions": values[0],
                }
            )  # fmt: skip
    return rows


def moves(backend: str) -> Iterator[dict]:
    table = TABLES[backend]
    yield from rows_of(table, backend, AS_PRINTED)
    for line in range(len(table.strip().splitlines())):
        for column in range(4):
            for by in (-1.0, 1.0):
                yield from rows_of(table, backend, f"{line} {column} {by}", column, line, by)


@pytest.fixture(scope="module")
def printed() -> Run:
    """Every table as printed and with each value moved, each under a backend name of its own."""
    rows = pl.DataFrame([row for backend in TABLES for row in moves(backend)])
    return Run(path=Path("printed"), rows=normalised(rows, where="TR121"), models=pl.DataFrame(), manifest={})


@pytest.fixture(scope="module")
def per_model(printed: Run) -> pl.DataFrame:
    return summary.by_model(summary.by_cell(printed.rows))


@pytest.fixture(scope="module")
def by_structure(
    printed: Run, per_model: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rank correlations, and fits in two variables, end to end."""
    path = tmp_path_factory.mktemp("models") / "models.csv"
    rows = [{"model": model, "n_layer": layers, "n_embd": width} for model, (layers, width) in LAYERS.items()]
    pl.DataFrame(rows).write_csv(path)
    end_to_end = per_model.filter(pl.col("mode") == "e2e_kv")
    series = structure.structured(end_to_end, architectures(printed, path), sizes(printed))
    return structure.architecture_correlations(series), structure.multivariate_fits(series, None, Options(draws=1))


def assert_printed(table: pl.DataFrame, backend: str, figure: str, printed: str) -> None:
    """The printed figure is within what rounding can do to ours."""
    ours = {
        row["backend"].partition("|")[2]: row[figure]
        for row in table.iter_rows(named=True)
        if row["backend"].partition("|")[0] == backend
    }
    found = ours.pop(AS_PRINTED)
    up = math.fsum(max(0.0, *(ours[f"{move} {by}"] - found for by in (-1.0, 1.0))) for move in moved_values(ours))
    down = math.fsum(max(0.0, *(found - ours[f"{move} {by}"] for by in (-1.0, 1.0))) for move in moved_values(ours))
    slack = half_digit(printed) * (1 + 1e-9)
    assert found - down - slack <= float(printed) <= found + up + slack, (found, down, up)
    assert down + up < 0.02 * max(1.0, abs(found)), "rounding would allow anything"


def moved_values(ours: dict[str, float]) -> list[str]:
    return sorted({name.rpartition(" ")[0] for name in ours})


@pytest.mark.parametrize(("backend", "mode"), SLOPES)
def test_slopes_and_r2(backend: str, mode: str, per_model: pl.DataFrame) -> None:
    points = points_of(summary_cells(per_model), per_model).filter(pl.col("mode") == mode)
    fits = scaling_fits(points, None, Options(draws=1))
    slope, r2 = SLOPES[backend, mode]
    assert_printed(fits, backend, "slope", slope)
    assert_printed(fits, backend, "r2", r2)


def summary_cells(per_model: pl.DataFrame) -> pl.DataFrame:
    """No cells: the laws here are those over all scenarios."""
    return per_model.clear().with_columns(
        pl.lit("all").alias("scenario"), pl.lit(0.0).alias("latency_median_ms")
    )  # fmt: skip


@pytest.mark.parametrize(("backend", "what"), SPEARMAN)
def test_rank_correlations(backend: str, what: str, by_structure: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    table, _ = by_structure
    rho, p = SPEARMAN[backend, what]
    assert_printed(table, backend, f"spearman_rho_{what}", rho)
    assert_printed(table, backend, f"spearman_p_{what}", p)


@pytest.mark.parametrize("backend", MULTIVARIATE)
def test_parameters_and_layers(backend: str, by_structure: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    _, table = by_structure
    beta, gamma, r2 = MULTIVARIATE[backend]
    assert_printed(table, backend, "beta_log_params", beta)
    assert_printed(table, backend, "gamma_log_layers", gamma)
    assert_printed(table, backend, "r2", r2)


def test_overhead(per_model: pl.DataFrame) -> None:
    gpu = per_model.filter(pl.col("backend").str.starts_with("hf_gpu_fp16"), pl.col("mode") == "e2e_kv")
    table = overhead_compute_fits(gpu, level=0.95).filter(pl.col("fit") == "lat = a + b*P")
    for figure, printed in OVERHEAD.items():
        assert_printed(table, "hf_gpu_fp16", figure, printed)


def test_decode_per_token_is_decode_over_64(per_model: pl.DataFrame) -> None:
    decode = per_model.filter(pl.col("mode") == "kv_decode", pl.col("backend") == f"ollama|{AS_PRINTED}")
    for model, expected in {"gemma3:270m": "1.900", "qwen2.5:7b": "11.079", "gpt-oss-20b:latest": "45.535"}.items():
        [latency] = decode.filter(pl.col("model") == model)["latency_geomean_ms"]
        assert latency / 64 == pytest.approx(float(expected), abs=half_digit(expected) + 0.005 / 64)


def test_a_figure_that_rounding_does_not_explain_is_found_out(per_model: pl.DataFrame) -> None:
    fits = scaling_fits(points_of(summary_cells(per_model), per_model), None, Options(draws=1))
    with pytest.raises(AssertionError):
        assert_printed(fits.filter(pl.col("mode") == "e2e_kv"), "ollama", "slope", "0.652")


def test_half_a_digit_is_that_of_what_is_printed() -> None:
    assert half_digit("0.103") == pytest.approx(0.0005)
    assert half_digit("268") == pytest.approx(0.5)
    assert half_digit("7.6e3") == pytest.approx(50)
