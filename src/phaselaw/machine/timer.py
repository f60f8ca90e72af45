"""The timer's step and cost, and how often something else had the core (as the kernel's osnoise tracer watches it)."""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from phaselaw.machine.limits import Clock

GAP_NS = 10_000
"""A longer gap between two readings is time that the process did not have."""


def watch(seconds: float = 0.25) -> Clock:
    """Read the timer over and over for some time and see how its readings lie."""
    readings = []
    end = perf_counter_ns() + round(seconds * 1e9)
    while (now := perf_counter_ns()) < end:
        readings.append(now)
    gaps = np.diff(np.array(readings, dtype=np.int64))
    steps = gaps[gaps > 0]
    taken = gaps[gaps > GAP_NS]
    return Clock(
        resolution_ns=float(steps.min()),
        read_ns=float(np.median(gaps)),
        watched_s=seconds,
        gap_p99_us=float(np.quantile(gaps, 0.99)) / 1e3,
        gap_max_us=float(gaps.max()) / 1e3,
        taken_share=float(taken.sum() / gaps.sum()),
    )
