"""The plan's intervals hold the truth, with noise between runs in it (benchmarks/price_coverage.py at length)."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

TRIALS = 16


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "price_coverage.py"
    spec = importlib.util.spec_from_file_location("price_coverage", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(module)
    return module


def test_no_figure_misses_the_truth_or_the_next_run_more_often_than_chance_allows(simulation: ModuleType) -> None:
    found = simulation.shares(TRIALS, runs=4)
    # Fewer hits than this come once in a thousand where 95 % is true.
    least = stats.binom.ppf(0.001, TRIALS, 0.95) / TRIALS
    assert len(found) == 10
    assert min(share for both in found.values() for share in both) >= least, found


def test_without_noise_the_plan_of_a_run_is_the_true_one(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "NOISE", dict.fromkeys(simulation.NOISE, 0.0))
    tables, _ = simulation.planned([simulation.measured(0)])
    for row, true in zip(tables["rows"], simulation.truth()["rows"], strict=True):
        assert row["usd_per_1m"] == pytest.approx(true["usd_per_1m"], rel=1e-9)
    prefill, decode = simulation.true_seconds("big", simulation.MIX.prompt_tokens, simulation.MIX.output_tokens - 1)
    [split] = [row for row in tables["phase_split"] if row["model"] == "big"]
    assert split["status"] == "derived"
    assert split["prefill_s"] == pytest.approx(prefill, rel=1e-3)
    assert split["decode_s"] == pytest.approx(decode, rel=1e-3)
