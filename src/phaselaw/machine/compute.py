"""FLOP/s by large matrix products, of numpy (which is its BLAS library) and of torch, and a GPU's limits by torch."""

import ctypes
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from phaselaw.machine.bandwidth import MEMORY_SHARE, SAMPLE_S, SIZES_BYTES
from phaselaw.machine.limits import Bandwidth, Compute, DeviceLimits, Spread

Work = Callable[[], object]

SIDES = (256, 512, 1024, 2048)
"""Sides of the square matrices to try, the smallest first."""
GPU_SIDES = (2048, 4096, 8192)
LONG_ENOUGH_S = 0.01
"""A product that takes longer is large enough to show the full rate; the next side takes eight times as long."""
TOO_LONG_S = 0.5
"""A product that takes longer, by a library that has no fast way, is not repeated."""
REPEATS = 7

TORCH_DTYPES = {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16"}
"""A study's word for a number format, and torch's."""
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
    best = {each.dtype: each for each in sorted(products, key=lambda one: one.gflop_per_s.median)}
    return tuple(best[dtype] for dtype in sorted(best))


def torch_products(device: str, sides: tuple[int, ...]) -> list[Compute]:
    """GFLOP/s of a device by torch, in each number format that it multiplies there."""
    import torch

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
            by_name[name] = DeviceLimits(
                name=name,
                read=_curve(partial(gpu_traffic, device=device), sizes),
                copy=next(iter(_curve(partial(gpu_traffic, device=device, copy=True), sizes[-1:])), None),
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


def matrix_product(dtype: str, side: int, *, device: str) -> Work:
    """The product of two square matrices, in inference mode as an engine runs it."""
    import torch

    where = torch.device(device)
    a, b = (torch.randn(side, side, device=where).to(getattr(torch, TORCH_DTYPES[dtype])) for _ in range(2))

    @torch.inference_mode()
    def multiply() -> None:
        torch.mm(a, b)
        if where.type == "cuda":
            torch.cuda.synchronize(where)

    return multiply


def gpu_names() -> list[str]:
    """The names of the CUDA devices that torch finds, in their order."""
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def free_gpu_bytes(device: str) -> int:
    """Free memory of a CUDA device."""
    import torch

    free: int = torch.cuda.mem_get_info(torch.device(device))[0]
    return free


def gpu_traffic(size_bytes: int, *, device: str, copy: bool = False) -> Callable[[int], None]:
    """Read a working set on a CUDA device so many times over, by torch's sum of float32 numbers.

    With ``copy`` half of it is copied onto the other half instead.
    """
    import torch

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
