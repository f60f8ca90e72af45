"""``python -m phaselaw.machine.probe THREADS``: measure this machine and print its limits as JSON.

A process of its own: the number of threads is its libraries' from the start, and its buffers count in no other
process's memory.
"""

from __future__ import annotations

import json
import sys
import time

from phaselaw.machine import identity as telemetry
from phaselaw.machine.bandwidth import copy_rate, read_curve, sizes_that_fit
from phaselaw.machine.compute import processor_products
from phaselaw.machine.gpu import gpu_limits
from phaselaw.machine.limits import LIMITS_VERSION, DeviceLimits, MachineLimits
from phaselaw.machine.timer import watch


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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1])).to_json()) + "\n")
