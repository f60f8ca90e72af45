"""Read bandwidth by working-set size: several threads read their own part of one buffer over and over.

The read is numpy's maximum over bytes, which is vectorised on every processor, does far less arithmetic than memory can
feed and lets go of the interpreter's lock. What is counted is each byte once a pass: the traffic of a decode step,
which reads each weight once.
"""

import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import psutil
from numpy.typing import NDArray

from phaselaw.machine.limits import Bandwidth, Spread

MB = 1 << 20
SIZES_BYTES = tuple(size * MB for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024))
MEMORY_SHARE = 4
"""The largest working set is at most one part in this many of the memory that is free."""
REPEATS = 7
SAMPLE_S = 0.015
"""A sample reads the working set as often as it takes to last so long."""

Bytes = NDArray[np.uint8]
Work = Callable[[int], None]
"""What one thread does in one pass, by its number."""


def sizes_that_fit() -> list[int]:
    """The working-set sizes that this machine has the memory for, the smallest always among them."""
    most = psutil.virtual_memory().available // MEMORY_SHARE
    return [size for size in SIZES_BYTES if size <= max(most, SIZES_BYTES[0])]


def read_curve(threads: int, sizes: list[int]) -> tuple[Bandwidth, ...]:
    """GB/s read by all threads together, for each size."""
    buffers = _buffers(threads, max(sizes))
    return tuple(_read_rate([buffer[: size // threads] for buffer in buffers], size) for size in sizes)


def _read_rate(parts: list[Bytes], size: int) -> Bandwidth:
    def read(index: int) -> None:
        np.maximum.reduce(parts[index])

    rates = [size / seconds / 1e9 for seconds in _samples(len(parts), read)]
    return Bandwidth(working_set_bytes=size, gb_per_s=Spread.of(rates))


def copy_rate(threads: int, size: int) -> Bandwidth:
    """GB/s of copying half a working set onto its other half; what is read and what is written both count.

    What a processor fetches only to overwrite it (write allocation) is not counted.
    """
    buffers = _buffers(threads, size)
    half = size // threads // 2

    def copy(index: int) -> None:
        np.copyto(buffers[index][half : 2 * half], buffers[index][:half])

    rates = [2 * half * threads / seconds / 1e9 for seconds in _samples(threads, copy)]
    return Bandwidth(working_set_bytes=size, gb_per_s=Spread.of(rates))


def _buffers(threads: int, size: int) -> list[Bytes]:
    """A buffer a thread, each page touched first by a thread of its own, so that it lies near one processor."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_touched, [size // threads] * threads))


def _touched(size: int) -> Bytes:
    """A buffer in pages of the system's usual size, as weights are; numpy asks for huge ones."""
    buffer = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
    buffer.fill(1)
    return buffer


def _samples(threads: int, work: Work) -> list[float]:
    """Seconds a pass of all threads, `REPEATS` times; what warms up is left out."""
    once = next(iter(_passes(threads, work, passes=1, samples=2)))
    passes = max(1, round(SAMPLE_S / max(once, 1e-7)))
    return list(_passes(threads, work, passes=passes, samples=REPEATS + 1))[1:]


def _passes(threads: int, work: Work, *, passes: int, samples: int) -> Iterator[float]:
    """Seconds a pass, from the first thread's start to the last one's end, for each sample."""
    together = threading.Barrier(threads)
    begun, ended = [[0.0] * threads for _ in range(samples)], [[0.0] * threads for _ in range(samples)]

    def run(index: int) -> None:
        _stay_on_one_processor(index)
        for sample in range(samples):
            together.wait()
            begun[sample][index] = perf_counter()
            for _ in range(passes):
                work(index)
            ended[sample][index] = perf_counter()

    crew = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return ((max(last) - min(first)) / passes for first, last in zip(begun, ended, strict=True))


def _stay_on_one_processor(index: int) -> None:
    """Keep this thread on a processor of its own, where the system has that: two threads on one would read as one."""
    if sys.platform == "linux":
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[index % len(processors)]})
