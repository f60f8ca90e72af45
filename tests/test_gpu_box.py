"""``benchmarks/gpu.sh`` as far as a machine without a GPU shows it: its steps dry, what it says is missing, its page.

No CUDA device is at hand: a dry run shows that every step finds its way, never what a GPU does.
"""

import csv
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import psutil
import pytest

import gpu_box
import gpu_page
from gpu_page import FAILED, LEFT_OUT, OK, STOPPED, Part
from phaselaw.api import save_tables
from phaselaw.laws.analysis import Analysis

TOP = Path(__file__).resolve().parents[1]
LACKED = ("polars", "polars-runtime-32", "pydantic", "pydantic_core", "annotated-types", "typing-inspection",
          "platformdirs")  # fmt: skip
"""What the machines meant here lack of the core."""
pytest.importorskip("torch")
pytest.importorskip("transformers")


def top_level(name: str) -> set[str]:
    """The entries of site-packages that belong to an installed package."""
    files = importlib.metadata.distribution(name).files or []
    return {file.parts[0] for file in files} - {"..", "__pycache__"}


def bare_python(folder: Path, *lacked: str) -> Path:
    """A Python of its own without pip, whose packages are links to those here, but for the ones it lacks."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    here = Path(str(importlib.metadata.distribution("polars").locate_file("")))
    [site] = folder.glob("lib/python*/site-packages")
    gone = set().union(*(top_level(name) for name in (*lacked, "pip")))
    for entry in here.iterdir():
        if entry.name not in gone and "phaselaw" not in entry.name:
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def wheel_of(name: str, folder: Path) -> Path:
    """A wheel made again of an installed package's files: as from gpu_wheels.sh, without a network."""
    found = importlib.metadata.distribution(name)
    files = [file for file in found.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
    tags = [line.split(": ")[1] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag")]
    python, abi, _ = tags[0].split("-")
    platforms = ".".join(tag.split("-")[2] for tag in tags)
    path = folder / f"{found.name.replace('-', '_')}-{found.version}-{python}-{abi}-{platforms}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in files:
            wheel.write(str(found.locate_file(file)), str(file))
    return path


def gpu_sh(*arguments: str, python: Path | str, wheels: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PHASELAW_CACHE"}}
    environment |= {"PYTHON": str(python), "WHEELS": str(wheels), "TMPDIR": str(cwd)}
    script = str(TOP / "benchmarks" / "gpu.sh")
    return subprocess.run([script, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, check=False)


@pytest.mark.slow
def test_dry_every_step_finds_its_way_where_the_cores_packages_come_from_wheels_alone(tmp_path: Path) -> None:
    """The machine is simulated: a Python without pip and `LACKED`, whose other packages are links to those here."""
    python, wheels, out = bare_python(tmp_path / "bare", *LACKED), tmp_path / ".whl", tmp_path / "out"
    before = sorted(str(path) for path in (tmp_path / "bare").rglob("*"))
    wheels.mkdir()
    for name in LACKED:
        wheel_of(name, wheels)
    steps = set(gpu_box.STEPS) - {"batch8"}  # the ladder's step with another number
    done = gpu_sh("--dry", "--only", ",".join(steps), str(out), python=python, wheels=wheels, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    taken = set(re.findall(r"^from the wheels: (\w+?)-", done.stdout, re.MULTILINE))
    assert taken == {name.replace("-", "_") for name in LACKED}
    assert sorted(str(path) for path in (tmp_path / "bare").rglob("*")) == before
    page = (out / "gpu.md").read_text()
    assert "No figure on this page is a GPU's" in page
    assert set(re.findall(r"^\| (\w+) \| ok \|", page, re.MULTILINE)) == steps
    assert "100% of tokens equal" in page
    files = list(out.iterdir())
    assert len(files) <= 8
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) and path.stat().st_size < 16e6 for path in files)
    for name in ("ladder", "gen512"):
        with tarfile.open(out / f"{name}.tar.gz") as tar:
            assert {f"{name}/metrics.csv", f"{name}/manifest.json", f"{name}/report.md"} <= set(tar.getnames())
    assert not list(tmp_path.glob("phaselaw-gpu-*"))


def test_without_its_wheels_it_says_at_once_what_is_missing(tmp_path: Path) -> None:
    python = bare_python(tmp_path / "bare", *LACKED)
    done = gpu_sh("--dry", str(tmp_path / "out"), python=python, wheels=tmp_path / "none", cwd=tmp_path)
    assert done.returncode == 1
    named = re.findall(r"^missing: ([\w-]+)>=[\d.]+, no wheel fits$", done.stdout, re.MULTILINE)
    assert named == ["platformdirs", "polars", "pydantic"]
    assert "benchmarks/gpu_wheels.sh 3." in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_torch_is_never_taken_from_a_wheel(tmp_path: Path) -> None:
    python, wheels = bare_python(tmp_path / "bare", "torch"), tmp_path / ".whl"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "torch-99.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
    done = gpu_sh("--dry", python=python, wheels=wheels, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r"^missing: torch>=[\d.]+$", done.stdout, re.MULTILINE)


def test_a_package_that_is_too_old_is_unpacked_beside_and_one_that_will_do_is_left(tmp_path: Path) -> None:
    site, wheels = tmp_path / "site", tmp_path / ".whl"
    wheels.mkdir()
    wheel_of("platformdirs", wheels)
    python = bare_python(tmp_path / "bare", "platformdirs")
    [there] = (tmp_path / "bare").glob("lib/python*/site-packages")
    (there / "platformdirs-1.0.dist-info").mkdir()
    old = "Metadata-Version: 2.1\nName: platformdirs\nVersion: 1.0\n"
    (there / "platformdirs-1.0.dist-info" / "METADATA").write_text(old)
    command = [
        str(python),
        str(TOP / "benchmarks" / "gpu_site.py"),
        "--dry",
        "--wheels",
        str(wheels),
        "--site",
        str(site),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = re.findall(r"^from the wheels: .*", done.stdout, re.MULTILINE)
    assert line.endswith("(beside 1.0)")
    assert (site / "platformdirs" / "__init__.py").is_file()
    assert (there / "platformdirs-1.0.dist-info" / "METADATA").read_text() == old


def test_without_a_cuda_device_it_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = gpu_sh(str(tmp_path / "out"), python=sys.executable, wheels=tmp_path, cwd=tmp_path)
    assert done.returncode == 1
    assert "missing: a CUDA device that this torch can use" in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_wheels_are_those_that_are_lacked_with_all_that_they_need() -> None:
    script = (TOP / "benchmarks" / "gpu_wheels.sh").read_text()
    carried = set(re.search(r"^names=\((.*?)\)", script, re.MULTILINE | re.DOTALL)[1].replace("_", "-").split())
    there = {"filelock", "jinja2", "numpy", "psutil", "pyyaml", "rich", "scipy"}
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]} <= carried | there
    needed = {
        re.match(r"[\w-]+", line)[0].replace("_", "-")
        for name in carried
        for line in importlib.metadata.requires(name) or []
        if "extra ==" not in line
    }
    assert needed <= carried | there


@pytest.fixture
def box(tmp_path: Path) -> gpu_box.Box:
    return gpu_box.Box(work=tmp_path / "work", out=tmp_path / "out", dry=True, seconds=400)


def python_part(box: gpu_box.Box, name: str, limit_s: float, script: str) -> Part:
    return box.part(name, limit_s, sys.executable, "-c", script)


def test_a_part_that_fails_or_runs_over_its_limit_leaves_the_others(box: gpu_box.Box) -> None:
    kept = box.runs / "ladder"
    patient = (
        f"import pathlib, time\nout = pathlib.Path({str(kept)!r}); out.mkdir()\n"
        "try:\n    print('measuring', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    (out / 'metrics.csv').write_text('mode,status\\n'); print('kept')\n"
    )
    parts = [
        python_part(box, "tests", 30, "print('FAILED tests/test_a.py::b - no such kernel'); raise SystemExit(1)"),
        python_part(box, "ladder", 6, patient),
        python_part(box, "host", 30, "print('fine')"),
    ]
    box.keep()
    assert [part.status for part in parts] == [FAILED, STOPPED, OK]
    assert parts[1].said == "stopped at its limit of 6 s; kept"
    page = (box.out / "gpu.md").read_text()
    assert "- tests: FAILED tests/test_a.py::b - no such kernel" in page
    assert {"gpu.md", "ladder.tar.gz", "logs.tar.gz"} == {path.name for path in box.out.iterdir()}
    with tarfile.open(box.out / "ladder.tar.gz") as tar:
        assert tar.getnames() == ["ladder/metrics.csv"]


def test_a_part_that_does_not_heed_the_interrupt_is_ended_with_all_it_started(
    box: gpu_box.Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_box, "GRACE_S", 1.0)
    deaf = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    part = python_part(box, "models", 5, deaf)
    assert part.status == STOPPED
    child = psutil.Process(int(part.said.split()[-1])) if psutil.pid_exists(int(part.said.split()[-1])) else None
    assert child is None or child.status() == psutil.STATUS_ZOMBIE or child.wait(5) is None


def test_a_part_without_time_left_is_left_out(tmp_path: Path) -> None:
    late = gpu_box.Box(work=tmp_path / "work", out=tmp_path / "out", dry=True, seconds=10)
    assert python_part(late, "ladder", 30, "print('never')").status == LEFT_OUT


@pytest.mark.parametrize(("seconds", "expected"), [(1000, 3), (25 + 4 * 8, 3), (25 + 3.5 * 8, 2), (10, 1)])
def test_repetitions_of_512_tokens_are_as_many_as_fit(tmp_path: Path, seconds: float, expected: int) -> None:
    """Two models of 0.5 s for 64 tokens: 8 s a repetition of 512, and one more for the warmup."""
    rows = [("kv_decode", "ok", "medium", model, 500.0) for model in "ab" for _ in range(3)]
    rows += [
        ("kv_decode", "ok", "short", "a", 9e9),
        ("kv_decode", "error", "medium", "a", ""),
        ("prefill", "ok", "medium", "a", 9e9),
    ]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("mode", "status", "scenario", "model", "latency_ms"), *rows])
    assert gpu_box.repetitions(tmp_path, seconds) == expected


def test_without_a_ladder_512_tokens_are_repeated_as_tr121_did(tmp_path: Path) -> None:
    assert gpu_box.repetitions(tmp_path, 30.0) == 3


def test_on_a_gpu_a_shipped_study_is_measured_as_it_is_on_the_gpu_alone(tmp_path: Path) -> None:
    told = subprocess.run(
        gpu_box.phaselaw("study", "show", "tr121-scaling", "--json"), capture_output=True, text=True, check=True
    )
    box = gpu_box.Box(work=tmp_path / "work", out=tmp_path / "out", dry=False, seconds=400)
    chosen = gpu_box.wanted(json.loads(told.stdout), box, "ladder")
    [backend] = chosen["backends"]
    assert (backend["name"], backend["device"], backend["dtype"]) == ("hf_gpu_fp16", "cuda", "fp16")
    assert {each["name"] for each in chosen["models"]} == {f"models/{name}" for name in gpu_box.LADDER}
    assert [each["name"] for each in chosen["scenarios"]] == ["micro", "short", "medium"]
    assert (chosen["gen_tokens"], chosen["repetitions"], chosen["order"]) == (64, 3, "cells")


def test_an_archive_over_the_limit_leaves_plots_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_box, "MOST_BYTES", 20_000)
    folder = tmp_path / "run"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "a.svg").write_bytes(os.urandom(30_000))
    (folder / "metrics.csv").write_text("mode\n")
    (folder / "journal.jsonl").write_text("{}\n")
    gpu_box.archive(folder, tmp_path / "run.tar.gz")
    with tarfile.open(tmp_path / "run.tar.gz") as tar:
        assert tar.getnames() == ["run/journal.jsonl", "run/metrics.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.tar.gz"]


def test_tr121s_run_on_the_page_has_the_figures_that_stand_beside_it(tmp_path: Path, tr121: Analysis) -> None:
    """TR121's own rows in the place of a run of ours: each figure of theirs on the page equals the one computed."""
    save_tables(tr121.as_written(), tmp_path / "ladder" / "analysis")
    page = gpu_page.page(tmp_path, tmp_path / "none", [], dry=False)
    laws = [line.split(" | ") for line in page.splitlines() if "| hf_gpu_fp16 |" in line and "TR121's ladder" in line]
    assert len(laws) == 3
    for line in laws:
        assert (line[4], line[6], line[7]) == (line[8], line[9], line[10].removesuffix(" |"))
    gaps = [
        line.split(" | ") for line in page.splitlines() if line.startswith("| ladder | hf_gpu_fp16") and "%" in line
    ]
    assert len(gaps) == 3
    for line in gaps:
        assert float(line[4].rstrip("%")) == pytest.approx(float(line[6].rstrip(" |%")), rel=0.05)


def test_a_failed_call_stands_on_the_page_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "gen512").mkdir()
    rows = [
        ("b", "m", "error", "out_of_memory: no room"),
        ("b", "m", "error", "out_of_memory: no room"),
        ("b", "m", "ok", ""),
    ]
    with (tmp_path / "gen512" / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("backend", "model", "status", "error"), *rows])
    page = gpu_page.page(tmp_path, tmp_path / "none", [], dry=False)
    assert "- gen512, 2 rows: b, m: out_of_memory: no room" in page


def test_peaks_of_a_gpu_stand_on_the_page_and_those_of_the_process_do_not(tmp_path: Path) -> None:
    (tmp_path / "batch8" / "analysis").mkdir(parents=True)
    head = ("backend", "model", "scenario", "memory", "measured_mb", "predicted_mb", "error")
    rows = [("b", "m", "s", "GPU", 200.0, 190.0, -0.05), ("b", "m", "s", "resident", 900.0, 900.0, 0.0)]
    with (tmp_path / "batch8" / "analysis" / "memory_peaks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    page = gpu_page.page(tmp_path, tmp_path / "none", [], dry=False)
    assert "| batch8 | b | m | s | 200.0 | 190.0 | -5.0% |" in page
    assert "900" not in page
