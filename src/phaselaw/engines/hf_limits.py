"""What torch can be asked for when a machine's limits are measured: matrix products, and reading a GPU's memory.

Each function gives work to be timed elsewhere (`phaselaw.machine`); on a GPU it is over when the device is done.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

Work = Callable[[], object]

DTYPES = {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16"}
"""A study's word for a number format, and torch's."""


def library() -> str:
    """Torch with its version."""
    import torch

    return f"torch {torch.__version__}"


def matrix_product(dtype: str, side: int, *, device: str) -> Work:
    """The product of two square matrices, in inference mode as an engine runs it."""
    import torch

    where = torch.device(device)
    a, b = (torch.randn(side, side, device=where).to(getattr(torch, DTYPES[dtype])) for _ in range(2))

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
