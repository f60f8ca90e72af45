"""Models that do not fit together: weights go and come back, nothing is lost, peaks rise with size."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from phaselaw.cli import main
from phaselaw.engines import hf, hf_model
from phaselaw.machine.peak_memory import MB, free_bytes
from phaselaw.study.model import HfBackend, ModelEntry

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WIDTHS = (64, 160, 256, 352, 448, 512, 576)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of seven models, the smallest first; the largest has 64 MB of weights."""
    made = []
    for width in WIDTHS:
        config = transformers.GPT2Config(vocab_size=500, n_positions=32, n_layer=4, n_embd=width, n_head=2)
        made.append(tmp_path_factory.mktemp(f"w{width}-"))
        transformers.GPT2LMHeadModel(config).save_pretrained(made[-1])
    return made


def entries(folders: list[Path]) -> list[ModelEntry]:
    return [ModelEntry(name=str(each), kind="hf") for each in folders]


def size_mb(folder: Path) -> float:
    return (folder / "model.safetensors").stat().st_size / MB


@pytest.mark.parametrize(
    ("settings", "most"),
    [({"keep_loaded": "all"}, None), ({"keep_loaded": 3}, 3), ({"keep_loaded": 7}, None), ({"memory_mb": 1e6}, None),
     ({"memory_mb": 1.0}, 1), ({}, None)],
)  # fmt: skip
def test_as_many_stay_loaded_as_asked_or_as_surely_fit(seven, settings, most) -> None:
    engine = hf.create(HfBackend(name="x", kind="hf", **settings))
    assert engine.most_loaded(entries(seven)) == most
    assert engine.describe().settings["keep_loaded"] == (most or "all")


def test_the_largest_decide_how_many_fit(seven) -> None:
    two_largest = sum(size_mb(each) for each in seven[-2:]) + 0.5
    engine = hf.create(HfBackend(name="x", kind="hf", memory_mb=two_largest))
    assert engine.most_loaded(entries(seven)) == 2
    assert engine.most_loaded(entries(seven[:2])) is None


def test_two_backends_share_what_is_free(seven, monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(size_mb(each) for each in seven) * MB
    monkeypatch.setattr(hf_model, "free_bytes", lambda: int(1.3 * total / hf.FREE_SHARE))
    one = hf.create(HfBackend(name="one", kind="hf"))
    assert one.most_loaded(entries(seven)) is None
    other = hf.create(HfBackend(name="other", kind="hf"))
    assert one.most_loaded(entries(seven)) == other.most_loaded(entries(seven)) < 7
    other.close()
    assert one.most_loaded(entries(seven)) is None


def test_what_is_free_is_no_more_than_the_machine_has() -> None:
    assert 0 < free_bytes() < 1 << 50


@pytest.fixture(scope="module")
def evicting_run(seven, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Seven models under a budget that holds the largest alone and 30 % more."""
    folder = tmp_path_factory.mktemp("run")
    budget = {"memory_mb": 1.3 * size_mb(seven[-1])}
    study = {
        "run_name": "evict", "gen_tokens": 2, "repetitions": 1, "warmup_repetitions": 1,
        "scenarios": [{"name": "a", "prompt_tokens": 4}],
        "backends": [{"name": "cpu", "kind": "hf", "threads": 1, **budget}],
        "models": [{"name": str(each), "kind": "hf"} for each in seven],
    }  # fmt: skip
    (folder / "study.yaml").write_text(json.dumps(study))
    assert main(["run", str(folder / "study.yaml"), "--out", str(folder / "run")]) == 0
    yield folder / "run"


def test_no_call_is_lost_and_every_load_is_timed_and_cold(evicting_run: Path) -> None:
    rows = pl.read_csv(evicting_run / "metrics.csv").filter(pl.col("mode") == "e2e_kv").sort("call_idx")
    assert set(rows["status"]) == {"ok"}
    assert rows.filter(~pl.col("is_warmup")).height == 7
    manifest = json.loads((evicting_run / "manifest.json").read_text())
    assert manifest["rows_present"] == manifest["rows_expected"] > 7 * 2 * 3
    loads = rows.filter(pl.col("load_ms").is_not_null())
    assert loads.height == len(manifest["loads"]) > 7
    assert set(loads["calls_since_model_load"]) == {0}
    assert all(loads["is_warmup"]), "laws stand on warm calls"
    assert manifest["engines"][0]["settings"]["keep_loaded"] == 1


def test_peaks_rise_with_size_and_memory_is_a_law(evicting_run: Path) -> None:
    peaks = pl.read_csv(evicting_run / "analysis" / "memory_peaks.csv").sort("params_millions_effective")
    assert set(peaks["other_weights_mb"]) == {0.0}
    assert peaks["measured_mb"].to_list() == sorted(peaks["measured_mb"])
    assert peaks["measured_mb"][6] > peaks["measured_mb"][0] + 50
    [law] = pl.read_csv(evicting_run / "analysis" / "memory_laws.csv").iter_rows(named=True)
    assert law["bytes_per_param_low"] < law["bytes_per_param"] < law["bytes_per_param_high"]
    assert law["bytes_per_param"] == pytest.approx(4, rel=0.2), "fp32"
    report = (evicting_run / "report.md").read_text()
    assert "bytes a parameter" in report
