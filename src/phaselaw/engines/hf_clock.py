"""How the engine ``hf`` reads time: a wall clock with the device at rest, and marks that wait for nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Readings(NamedTuple):
    """What the marks of one call say, beside its wall clock."""

    steps_ms: tuple[float, ...] | None = None
    prefill_event_ms: float | None = None
    decode_event_ms: float | None = None
    gpu_peak_mb: float | None = None


class Clock:
    """How a device is timed. A call is marked before and after prefill, before decode and after each step.

    This one marks nothing: the wall clock alone.
    """

    def prepare(self, *, n_marks: int) -> None:
        """Be ready for a call; not timed."""

    def read_ns(self) -> int:
        """The wall clock, once the device has done all that it was asked."""
        return perf_counter_ns()

    def mark(self) -> None:
        """Note this moment on the device's timeline without waiting for it."""

    def readings(self) -> Readings:
        """What was marked; after the call."""
        return Readings()


class CpuClock(Clock):
    """The CPU does each thing at once, so that a mark is a reading of the wall clock."""

    def prepare(self, *, n_marks: int) -> None:  # noqa: ARG002
        self._marks: list[int] = []

    def mark(self) -> None:
        self._marks.append(perf_counter_ns())

    def readings(self) -> Readings:
        return Readings(steps_ms=tuple((after - before) / 1e6 for before, after in pairwise(self._marks[2:])))


class MpsClock(Clock):
    """Apple's GPU: the wall clock only, since a mark inside the loop would have to wait for the device."""

    def read_ns(self) -> int:
        import torch

        torch.mps.synchronize()
        return perf_counter_ns()


class CudaClock(Clock):
    """CUDA: a mark is an event in the stream, read when the call is over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []

    def prepare(self, *, n_marks: int) -> None:
        import torch

        self._stream = torch.cuda.current_stream(self._device)
        new_event: Callable[..., torch.cuda.Event] = torch.cuda.Event
        for _ in range(n_marks - len(self._events)):
            event = new_event(enable_timing=True)
            event.record(self._stream)  # an event is made when first recorded: not inside the timed loop
            self._events.append(event)
        self._marks = iter(self._events)
        self._n_marks = n_marks
        torch.cuda.reset_peak_memory_stats(self._device)

    def read_ns(self) -> int:
        import torch

        torch.cuda.synchronize(self._device)
        return perf_counter_ns()

    def mark(self) -> None:
        next(self._marks).record(self._stream)

    def readings(self) -> Readings:
        import torch

        begun, prefilled, *steps = self._events[: self._n_marks]
        return Readings(
            steps_ms=tuple(before.elapsed_time(after) for before, after in pairwise(steps)),
            prefill_event_ms=begun.elapsed_time(prefilled),
            decode_event_ms=steps[0].elapsed_time(steps[-1]),
            gpu_peak_mb=torch.cuda.max_memory_allocated(self._device) / 2**20,
        )


def clock_of(device: torch.device) -> Clock:
    """The clock for a device."""
    if device.type == "cuda":
        return CudaClock(device)
    return MpsClock() if device.type == "mps" else CpuClock()
