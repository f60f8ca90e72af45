"""The timer: its step, its cost, and time that the process did not have."""

import pytest

from phaselaw.machine import probe


def test_a_quiet_watch_is_told_by_its_gaps() -> None:
    clock = probe.watch(0.02)
    assert 0 < clock.resolution_ns <= clock.read_ns
    assert clock.gap_p99_us <= clock.gap_max_us
    assert 0 <= clock.taken_share < 1


def test_a_long_gap_is_time_taken_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0, *range(100, 500_001, 100), *range(1_000_000, 1_500_001, 100), 10**9])
    monkeypatch.setattr(probe, "perf_counter_ns", lambda: next(readings))
    clock = probe.watch(0.002)
    assert clock.resolution_ns == clock.read_ns == 100
    assert clock.gap_max_us == pytest.approx(500)
    assert clock.taken_share == pytest.approx(500 / 1500, rel=0.01)
