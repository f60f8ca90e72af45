"""Read bandwidth: what is counted, and what is read."""

import numpy as np
import psutil
import pytest

from phaselaw.machine import probe

MB = 1 << 20


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_pass_does_the_work_of_every_thread_the_same_number_of_times(threads: int) -> None:
    done = [0] * threads

    def work(index: int) -> None:
        done[index] += 1

    seconds = list(probe._passes(threads, work, passes=4, samples=3))
    assert done == [12] * threads
    assert len(seconds) == 3
    assert min(seconds) > 0


def test_the_curve_has_a_point_for_each_size_with_its_spread() -> None:
    curve = probe.read_curve(2, [4 * MB, 8 * MB])
    assert [point.working_set_bytes for point in curve] == [4 * MB, 8 * MB]
    for point in curve:
        assert point.gb_per_s.n == probe.REPEATS
        assert 0 < point.gb_per_s.p25 <= point.gb_per_s.median <= point.gb_per_s.p75


def test_every_byte_of_the_working_set_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = [np.zeros(MB, dtype=np.uint8) for _ in range(2)]
    for buffer in buffers:
        buffer[-1] = 9
    seen = []

    class Watched:
        @staticmethod
        def reduce(part: np.ndarray) -> None:
            seen.append((part.size, int(part.max())))

    monkeypatch.setattr(probe, "_buffers", lambda threads, size: buffers)  # noqa: ARG005
    monkeypatch.setattr(probe.np, "maximum", Watched)
    probe.read_curve(2, [2 * MB])
    assert set(seen) == {(MB, 9)}


def test_a_small_machine_measures_what_it_has_the_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 300 * MB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    assert probe.sizes_that_fit() == [size * MB for size in (4, 8, 16, 32, 64)]
    Memory.available = MB
    assert probe.sizes_that_fit() == [4 * MB]


def test_a_copy_counts_what_is_read_and_what_is_written() -> None:
    rate = probe.copy_rate(1, 8 * MB)
    assert rate.working_set_bytes == 8 * MB
    assert rate.gb_per_s.median > 0
