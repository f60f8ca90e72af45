"""Models that do not fit together: weights go and come back, nothing is lost, peaks rise with size."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from phaselaw.engines import hf, hf_model
from phaselaw.errors import EngineError
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


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_load_that_fails_for_memory_says_so(seven) -> None:
    import resource

    engine = hf.create(HfBackend(name="x", kind="hf", threads=1))
    engine.load(entries(seven)[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 20 * MB, before[1]))
    try:
        with pytest.raises(EngineError, match="can't load") as error:
            engine.load(entries(seven)[-1])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert error.value.kind == "out_of_memory"
    engine.close()


def study_of(folders: list[Path], at: Path, **backend: Any) -> str:
    """A study file of these models on one backend."""
    study = {
        "run_name": "evict", "gen_tokens": 2, "repetitions": 1, "warmup_repetitions": 1,
        "scenarios": [{"name": "a", "prompt_tokens": 4}],
        "backends": [{"name": "cpu", "kind": "hf", "threads": 1, **backend}],
        "models": [{"name": str(each), "kind": "hf"} for each in folders],
    }  # fmt: skip
    (at / "study.yaml").write_text(json.dumps(study))
    return str(at / "study.yaml")


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A memory cgroup (version 2) of our own; skips with the reason where none can be made."""
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").is_file():
        pytest.skip("no cgroups of version 2 are mounted here")
    own = root / Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition(":")[2].lstrip("/")
    above = [each for each in (own, *own.parents) if (each / "cgroup.subtree_control").is_file()]
    hands_on = [each for each in above if "memory" in (each / "cgroup.subtree_control").read_text().split()]
    if not hands_on:
        pytest.skip("no cgroup above this process hands its memory on")
    made = hands_on[0] / f"phaselaw-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield made
    made.rmdir()


ANONYMOUS = """
import re
from phaselaw.engines import hf_model
hf_model.resident_runtime_mb()
print(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
def test_seven_models_run_in_a_memory_cgroup_that_holds_the_largest_and_a_third(
    seven, memory_group: Path, tmp_path: Path
) -> None:
    runtime = int(subprocess.check_output([sys.executable, "-c", ANONYMOUS], text=True)) * 1024
    slack = 40 * MB  # caches, activations, what Python itself takes for a study
    (memory_group / "memory.max").write_text(str(int(runtime + slack + 1.3 * size_mb(seven[-1]) * MB)))
    command = [sys.executable, "-m", "phaselaw", "run", study_of(seven, tmp_path), "--out", str(tmp_path / "run")]
    inside = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(memory_group / "cgroup.procs"), *command]
    assert subprocess.run(inside, check=False).returncode == 0
    rows = pl.read_csv(tmp_path / "run" / "metrics.csv")
    assert set(rows["status"]) == {"ok"}
    assert rows["model"].n_unique() == 7
    assert "oom_kill 0" in (memory_group / "memory.events").read_text()


@pytest.fixture(scope="module")
def evicting_run(seven, measured_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven models under a budget that holds the largest alone and 30 % more."""
    assert measured_cache.is_dir(), "this machine's limits are there, and not measured again"
    folder = tmp_path_factory.mktemp("run")
    budget = {"memory_mb": 1.3 * size_mb(seven[-1])}
    # In a process of its own: peaks are of a process, and this one holds what other tests left.
    command = [sys.executable, "-m", "phaselaw", "run", study_of(seven, folder, **budget), "--out", str(folder / "run")]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    return folder / "run"


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
