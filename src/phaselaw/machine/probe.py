"""``python -m phaselaw.machine.probe THREADS``: measure this machine and print its limits as JSON.

A process of its own: the number of threads is its libraries' from the start, and its buffers count in no other
process's memory.

Reading: several threads read their own part of one buffer over and over, by numpy's maximum over bytes, which is
vectorised on every processor, does far less arithmetic than memory can feed and lets go of the interpreter's lock. What
is counted is each byte once a pass: the traffic of a decode step, which reads each weight once. Computing: large matrix
products of numpy (which is its BLAS library) and of torch. A GPU does both by torch.
"""

import importlib.util
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from time import perf_counter, perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from phaselaw.machine import identity
from phaselaw.machine.limits import LIMITS_VERSION, Bandwidth, Clock, Compute, DeviceLimits, MachineLimits, Spread
from phaselaw.machine.peak_memory import MB, free_bytes

with suppress(ImportError):  # without it a GPU is not seen, and the processor multiplies by numpy alone
    import torch

GAP_NS = 10_000
"""A longer gap between two readings is time that the process did not have."""
SIZES_BYTES = tuple(size * MB for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024))
MEMORY_SHARE = 4
"""The largest working set is at most one part in this many of the memory that is free."""
REPEATS = 7
SAMPLE_S = 0.015
"""A sample moves the working set as often as it takes to last so long."""
SIDES = (256, 512, 1024, 2048)
"""Sides of the square matrices to try, the smallest first."""
GPU_SIDES = (2048, 4096, 8192)
LONG_ENOUGH_S = 0.01
"""A product that takes longer is large enough to show the full rate; the next side takes eight times as long."""
TOO_LONG_S = 0.5
"""A product that takes longer, by a library that has no fast way, is not repeated."""
TORCH_DTYPES = {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16"}
"""A study's word for a number format, and torch's."""
_OF_NUMPY = {"fp32": np.float32, "fp64": np.float64}

Bytes = NDArray[np.uint8]
Work = Callable[[], object]


def measure(threads: int) -> MachineLimits:
    begun, now = perf_counter(), time.time()
    clock, sizes = watch(), sizes_that_fit()
    processor = DeviceLimits(
        name=identity.host()["cpu_model"] or "processor",
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
        took_s=perf_counter() - begun,
    )


def watch(seconds: float = 0.25) -> Clock:
    """The timer's step and cost, and how often something else had the core (as Linux's osnoise tracer watches it)."""
    readings = []
    end = perf_counter_ns() + round(seconds * 1e9)
    while (now := perf_counter_ns()) < end:
        readings.append(now)
    gaps = np.diff(np.array(readings, dtype=np.int64))
    return Clock(
        resolution_ns=float(gaps[gaps > 0].min()),
        read_ns=float(np.median(gaps)),
        watched_s=seconds,
        gap_p99_us=float(np.quantile(gaps, 0.99)) / 1e3,
        gap_max_us=float(gaps.max()) / 1e3,
        taken_share=float(gaps[gaps > GAP_NS].sum() / gaps.sum()),
    )


def sizes_that_fit() -> list[int]:
    """The working-set sizes that this machine has the memory for, the smallest always among them."""
    most = free_bytes() // MEMORY_SHARE
    return [size for size in SIZES_BYTES if size <= max(most, SIZES_BYTES[0])]


def read_curve(threads: int, sizes: list[int]) -> tuple[Bandwidth, ...]:
    buffers = _buffers(threads, max(sizes))

    def read(size: int, index: int) -> None:
        np.maximum.reduce(buffers[index][: size // threads])

    return tuple(_bandwidth(size, size, _samples(threads, partial(read, size))) for size in sizes)


def copy_rate(threads: int, size: int) -> Bandwidth:
    """GB/s of copying half a working set onto its other half; what is read and what is written both count.

    What a processor fetches only to overwrite it (write allocation) is not counted.
    """
    buffers = _buffers(threads, size)
    half = size // threads // 2

    def copy(index: int) -> None:
        np.copyto(buffers[index][half : 2 * half], buffers[index][:half])

    return _bandwidth(size, 2 * half * threads, _samples(threads, copy))


def _bandwidth(size: int, moved: int, seconds: Sequence[float]) -> Bandwidth:
    """The rate of a working set of which so many bytes are moved in each of these times."""
    return Bandwidth(working_set_bytes=size, gb_per_s=Spread.of([moved / each / 1e9 for each in seconds]))


def _buffers(threads: int, size: int) -> list[Bytes]:
    """A buffer a thread, each page touched first by a thread of its own, so that it lies near one processor."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_touched, [size // threads] * threads))


def _touched(size: int) -> Bytes:
    """A buffer in pages of the system's usual size, as weights are; numpy asks for huge ones."""
    buffer = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
    buffer.fill(1)
    return buffer


def _samples(threads: int, work: Callable[[int], None]) -> list[float]:
    """Seconds a pass of all threads, `REPEATS` times; what warms up is left out."""
    once = next(iter(_passes(threads, work, passes=1, samples=2)))
    passes = max(1, round(SAMPLE_S / max(once, 1e-7)))
    return list(_passes(threads, work, passes=passes, samples=REPEATS + 1))[1:]


def _passes(threads: int, work: Callable[[int], None], *, passes: int, samples: int) -> Iterator[float]:
    """Seconds a pass, from the first thread's start to the last one's end, for each sample.

    ``work`` is what one thread does in one pass, by its number.
    """
    together = threading.Barrier(threads)
    begun, ended = np.zeros((samples, threads)), np.zeros((samples, threads))

    def run(index: int) -> None:
        if sys.platform == "linux":  # on a processor of its own: two threads on one would read as one
            processors = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {processors[index % len(processors)]})
        for sample in range(samples):
            together.wait()
            begun[sample, index] = perf_counter()
            for _ in range(passes):
                work(index)
            ended[sample, index] = perf_counter()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))
    return iter(((ended.max(1) - begun.min(1)) / passes).tolist())


def processor_products() -> tuple[Compute, ...]:
    """GFLOP/s of the processor in each number format, by whichever library is the fastest at it."""
    products = [
        Compute(dtype=dtype, gflop_per_s=fastest(partial(_numpy_product, dtype)), library=f"numpy {np.__version__}")
        for dtype in _OF_NUMPY
    ]
    if importlib.util.find_spec("torch") is not None:
        products += torch_products("cpu", SIDES)
    best = {each.dtype: each for each in sorted(products, key=lambda one: one.gflop_per_s.median)}
    return tuple(best[dtype] for dtype in sorted(best))


def torch_products(device: str, sides: tuple[int, ...]) -> list[Compute]:
    """GFLOP/s of a device by torch, in each number format that it multiplies there."""
    library = f"torch {torch.__version__}"
    return [
        Compute(dtype=dtype, gflop_per_s=fastest(partial(matrix_product, dtype, device=device), sides), library=library)
        for dtype in TORCH_DTYPES
    ]


def fastest(product: Callable[[int], Work], sides: tuple[int, ...] = SIDES) -> Spread:
    """The spread of GFLOP/s at the side of a square product that is fastest; ``product`` makes one of a side.

    A product of side n is 2 n^3 operations.
    """
    spreads = []
    for side in sides:
        multiply = product(side)
        seconds = [_seconds(multiply)]  # the first warms up, unless it is too slow to be repeated
        if seconds[0] < TOO_LONG_S:
            seconds = [_seconds(multiply) for _ in range(REPEATS)]
        spreads.append(Spread.of([2 * side**3 / each / 1e9 for each in seconds]))
        if min(seconds) > LONG_ENOUGH_S:
            break
    return max(spreads, key=lambda spread: spread.median)


def _seconds(work: Work) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _numpy_product(dtype: str, side: int) -> Work:
    draw = np.random.default_rng(0)
    a, b = (draw.random((side, side)).astype(_OF_NUMPY[dtype]) for _ in range(2))
    return partial(np.matmul, a, b, out=np.empty_like(a))


def matrix_product(dtype: str, side: int, *, device: str) -> Work:
    """The product of two square matrices, in inference mode as an engine runs it."""
    where = torch.device(device)
    a, b = (torch.randn(side, side, device=where).to(getattr(torch, TORCH_DTYPES[dtype])) for _ in range(2))

    @torch.inference_mode()
    def multiply() -> None:
        torch.mm(a, b)
        if where.type == "cuda":
            torch.cuda.synchronize(where)

    return multiply


def gpu_limits() -> dict[str, DeviceLimits]:
    """The limits of each CUDA device; devices of one name are measured once."""
    if importlib.util.find_spec("torch") is None:
        return {}
    by_name: dict[str, DeviceLimits] = {}
    found = {}
    for index, name in enumerate(gpu_names()):
        device = f"cuda:{index}"
        if name not in by_name:
            most = free_gpu_bytes(device) // MEMORY_SHARE
            sizes = [size for size in SIZES_BYTES if size <= most]
            copies = [gpu_rate(size, gpu_traffic(size, device=device, copy=True)) for size in sizes[-1:]]
            by_name[name] = DeviceLimits(
                name=name,
                read=tuple(gpu_rate(size, gpu_traffic(size, device=device)) for size in sizes),
                copy=copies[0] if copies else None,
                compute=tuple(torch_products(device, GPU_SIDES)),
            )
        found[device] = by_name[name]
    return found


def gpu_names() -> list[str]:
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def free_gpu_bytes(device: str) -> int:
    free: int = torch.cuda.mem_get_info(torch.device(device))[0]
    return free


def gpu_traffic(size_bytes: int, *, device: str, copy: bool = False) -> Callable[[int], None]:
    """Read a working set on a CUDA device so many times over, by torch's sum of float32 numbers.

    With ``copy`` half of it is copied onto the other half instead.
    """
    where = torch.device(device)
    numbers = torch.ones(size_bytes // 4, device=where)
    source, target = numbers.chunk(2)
    once: Work = partial(target.copy_, source) if copy else partial(torch.sum, numbers)

    @torch.inference_mode()
    def move(passes: int) -> None:
        for _ in range(passes):
            once()
        torch.cuda.synchronize(where)

    return move


def gpu_rate(size: int, move: Callable[[int], None]) -> Bandwidth:
    """The rate of moving so many bytes again and again, each sample long enough to hide the wait at its end."""
    move(1)
    passes = max(1, round(SAMPLE_S / _seconds(partial(move, 1))))
    move(passes)
    return _bandwidth(size, size * passes, [_seconds(partial(move, passes)) for _ in range(REPEATS)])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(int(sys.argv[1])))) + "\n")
