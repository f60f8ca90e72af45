"""FLOP/s by large matrix products: of numpy, which is the BLAS library that it was built with, and of torch."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from phaselaw.machine.limits import Compute, Spread

Work = Callable[[], object]

SIDES = (256, 512, 1024, 2048)
"""Sides of the square matrices to try, the smallest first."""
GPU_SIDES = (2048, 4096, 8192)
LONG_ENOUGH_S = 0.01
"""A product that takes longer is large enough to show the full rate; the next side takes eight times as long."""
TOO_LONG_S = 0.5
"""A product that takes longer, by a library that has no fast way, is not repeated."""
REPEATS = 7

_OF_NUMPY = {"fp32": np.float32, "fp64": np.float64}
_KERNEL_NAMES = ("scipy_openblas_get_corename64_", "scipy_openblas_get_corename", "openblas_get_corename")


def processor_products() -> tuple[Compute, ...]:
    """GFLOP/s of the processor in each number format, by whichever library is the fastest at it."""
    products = [
        Compute(dtype=dtype, gflop_per_s=fastest(partial(_numpy_product, dtype)), library=numpy_blas())
        for dtype in _OF_NUMPY
    ]
    if importlib.util.find_spec("torch") is not None:
        products += torch_products("cpu", SIDES)
    best: dict[str, Compute] = {}
    for each in sorted(products, key=lambda one: one.gflop_per_s.median):
        best[each.dtype] = each
    return tuple(best[dtype] for dtype in sorted(best))


def torch_products(device: str, sides: tuple[int, ...]) -> list[Compute]:
    """GFLOP/s of a device by torch, in each number format that it multiplies there."""
    from phaselaw.engines import hf_limits

    return [
        Compute(
            dtype=dtype,
            gflop_per_s=fastest(partial(hf_limits.matrix_product, dtype, device=device), sides),
            library=hf_limits.library(),
        )
        for dtype in hf_limits.DTYPES
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
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def numpy_blas() -> str:
    """numpy with the kernel that OpenBLAS chose for this processor, where that can be asked."""
    maps = Path("/proc/self/maps")
    if maps.is_file():
        for path in {line.split()[-1] for line in maps.read_text().splitlines() if "openblas" in line}:
            library = ctypes.CDLL(path)
            for name in _KERNEL_NAMES:
                if hasattr(library, name):
                    asked = getattr(library, name)
                    asked.restype = ctypes.c_char_p
                    return f"numpy {np.__version__}, OpenBLAS kernel {asked().decode()}"
    return f"numpy {np.__version__} with its BLAS"
