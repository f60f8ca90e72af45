"""``python -m phaselaw.machine.probe THREADS``: measure this machine and print its limits as JSON.

A process of its own: the number of threads is its libraries' from the start, and its buffers count in no other
process's memory.
"""

import json
import sys
import time
from time import perf_counter_ns

import numpy as np

from phaselaw.machine import identity as telemetry
from phaselaw.machine.bandwidth import copy_rate, read_curve, sizes_that_fit
from phaselaw.machine.compute import gpu_limits, processor_products
from phaselaw.machine.limits import LIMITS_VERSION, Clock, DeviceLimits, MachineLimits

GAP_NS = 10_000
"""A longer gap between two readings is time that the process did not have."""


def measure(threads: int) -> MachineLimits:
    """Every limit of this machine."""
    begun, now = time.perf_counter(), time.time()
    clock, sizes = watch(), sizes_that_fit()
    processor = DeviceLimits(
        name=telemetry.host()["cpu_model"] or "processor",
        read=read_curve(threads, sizes),
        copy=copy_rate(threads, sizes[-1]),
        compute=processor_products(),
    )
    return MachineLimits(
        version=LIMITS_VERSION,
        threads=threads,
        measured_at_unix=now,
        clock=clock,
        devices={"cpu": processor, **gpu_limits()},
        took_s=time.perf_counter() - begun,
    )


def watch(seconds: float = 0.25) -> Clock:
    """The timer's step and cost, and how often something else had the core (as Linux's osnoise tracer watches it)."""
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1])).to_json()) + "\n")
