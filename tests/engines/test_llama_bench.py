"""benchmarks/llama_bench.py: its ratio's interval, what it reads of llama-bench, what it says where there is none."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

STEPS = 16


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "llama_bench.py"
    spec = importlib.util.spec_from_file_location("llama_bench", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_llama_bench_it_says_so_and_compares_nothing(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["llama_bench.py", "--llama-bench", "no-such-llama-bench"])
    assert benchmark.main() == benchmark.MISSING
    captured = capsys.readouterr()
    assert "there is no no-such-llama-bench here; nothing was compared" in captured.err
    assert captured.out == ""


def test_the_ratio_is_the_geometric_mean_over_rounds_with_its_t_interval(benchmark: ModuleType) -> None:
    found = benchmark.ratio_over_rounds([90.0, 99.0], [100.0, 100.0])
    assert found.value == pytest.approx(math.sqrt(0.9 * 0.99))
    half = 12.7062 * abs(math.log(0.9 / 0.99)) / 2
    assert math.log(found.high / found.value) == pytest.approx(half, rel=1e-4)
    assert math.log(found.value / found.low) == pytest.approx(half, rel=1e-4)


def test_a_rate_is_taken_from_the_raw_sample_of_the_generation(benchmark: ModuleType) -> None:
    tests = [
        {"n_prompt": 512, "n_gen": 0, "samples_ns": [5]},
        {"n_prompt": 0, "n_gen": STEPS, "samples_ns": [160_000_000]},
    ]
    assert benchmark.rate_of(json.dumps(tests), STEPS) == pytest.approx(100)
