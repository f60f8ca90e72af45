"""Peak resident memory: of this process and of another, from one reset to the next."""

import subprocess
import sys
from pathlib import Path

import pytest

from phaselaw.machine import peak_memory
from phaselaw.machine.peak_memory import MB, PeakMemory, free_bytes, resident_mb

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is Linux's")


@linux
def test_the_peak_holds_what_was_let_go_again_and_a_reset_forgets_it() -> None:
    peak = PeakMemory()
    peak.reset()
    before = peak.read_mb()
    assert before is not None
    block = bytearray(64 * MB)
    block[::4096] = b"x" * len(block[::4096])
    del block
    after = peak.read_mb()
    assert after is not None
    assert after - before > 55
    peak.reset()
    again = peak.read_mb()
    assert again is not None
    assert again < after - 40


@linux
def test_another_process_of_ours_is_watched_by_its_number() -> None:
    grow = (
        "import sys; sys.stdin.readline(); b = bytearray(48 << 20); del b; print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", grow], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        peak = PeakMemory(child.pid)
        peak.reset()
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        read = peak.read_mb()
        child.stdin.close()
    assert read is not None
    assert read > 48


@pytest.mark.parametrize("pid", [None, 2**31 - 2])
def test_a_process_that_is_not_there_has_no_figure(pid: int | None) -> None:
    peak = PeakMemory(pid)
    peak.reset()
    assert peak.read_mb() is None


def test_without_a_reset_there_is_no_figure() -> None:
    assert PeakMemory().read_mb() is None


def test_what_is_resident_now_is_in_the_same_unit() -> None:
    assert 10 < resident_mb() < 100_000


def test_what_is_free_is_what_the_cgroup_leaves_without_pages_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    for name, text in {"max": "5000000", "current": "3000000", "stat": "anon 1\ninactive_file 400000\n"}.items():
        (group / f"memory.{name}").write_text(text)
    monkeypatch.setattr(peak_memory, "Path", lambda text: tmp_path / text.lstrip("/"))
    assert free_bytes() == 5_000_000 - 3_000_000 + 400_000
    (group / "memory.max").write_text("max")
    assert free_bytes() > 5_000_000
