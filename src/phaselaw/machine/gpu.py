"""The limits of CUDA devices, by torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

from phaselaw.machine.bandwidth import MEMORY_SHARE, REPEATS, SAMPLE_S, SIZES_BYTES
from phaselaw.machine.compute import GPU_SIDES, torch_products
from phaselaw.machine.limits import Bandwidth, DeviceLimits, Spread


def gpu_limits() -> dict[str, DeviceLimits]:
    """The limits of each CUDA device; devices of one name are measured once."""
    if importlib.util.find_spec("torch") is None:
        return {}
    from phaselaw.engines import hf_limits

    by_name: dict[str, DeviceLimits] = {}
    found = {}
    for index, name in enumerate(hf_limits.gpu_names()):
        device = f"cuda:{index}"
        if name not in by_name:
            most = hf_limits.free_gpu_bytes(device) // MEMORY_SHARE
            sizes = [size for size in SIZES_BYTES if size <= most]
            by_name[name] = DeviceLimits(
                name=name,
                read=_curve(partial(hf_limits.gpu_traffic, device=device), sizes),
                copy=next(iter(_curve(partial(hf_limits.gpu_traffic, device=device, copy=True), sizes[-1:])), None),
                compute=tuple(torch_products(device, GPU_SIDES)),
            )
        found[device] = by_name[name]
    return found


def _curve(work: Callable[[int], Callable[[int], None]], sizes: Sequence[int]) -> tuple[Bandwidth, ...]:
    """How fast ``work`` moves the bytes of a working set, by its size."""
    return tuple(Bandwidth(working_set_bytes=size, gb_per_s=rates_of(work(size), size)) for size in sizes)


def rates_of(move: Callable[[int], None], size: int) -> Spread:
    """GB/s of moving so many bytes again and again, each sample long enough to hide the wait at its end."""

    def seconds(passes: int) -> float:
        begun = perf_counter()
        move(passes)
        return perf_counter() - begun

    seconds(1)
    passes = max(1, round(SAMPLE_S / seconds(1)))
    seconds(passes)
    return Spread.of([size * passes / seconds(passes) / 1e9 for _ in range(REPEATS)])
