"""Does a model fit a memory, and what is the largest batch or context that does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from phaselaw.machine.footprint import Architecture, Memory, memory

LARGEST = 1 << 24
"""Batch sizes and contexts beyond this are not looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A model's need at one batch size and context, and how far each could go with the other as it is."""

    need: Memory
    reserve_bytes: float
    """What is kept for the runtime: interpreter, libraries, CUDA context, fragmentation."""
    memory_bytes: float
    largest_batch: int
    """At the asked context; 0 where not even one sequence fits."""
    largest_context: int
    """At the asked batch size, within the model's positions; 0 where none fits."""
    context_is_the_models: bool
    """Whether the model's positions, and not the memory, bound the context."""

    @property
    def total_bytes(self) -> float:
        """All that is needed."""
        return self.need.total + self.reserve_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits as asked."""
        return self.total_bytes <= self.memory_bytes


def fit(
    model: Architecture,
    *,
    memory_bytes: float,
    batch: int,
    context: int,
    value_bytes: float,
    kv_bytes: float,
    reserve_bytes: float,
) -> Fit:
    """The need of ``batch`` sequences of ``context`` tokens, all prompt (the widest prefill), and its bounds."""

    def need(batch: int, context: int) -> Memory:
        return memory(model, batch=batch, context=context, prompt=context, value_bytes=value_bytes, kv_bytes=kv_bytes)

    room, most = memory_bytes - reserve_bytes, model.n_positions or LARGEST
    largest_context = largest(lambda tokens: need(batch, tokens).total <= room, most)
    return Fit(
        need=need(batch, context),
        reserve_bytes=reserve_bytes,
        memory_bytes=memory_bytes,
        largest_batch=largest(lambda size: need(size, context).total <= room, LARGEST),
        largest_context=largest_context,
        context_is_the_models=largest_context == model.n_positions,
    )


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that fits, 0 where 1 doesn't; what fits must fit below it, too."""
    if not fits(1):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
