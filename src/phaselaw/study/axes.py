"""The axes of a sweep: the types of their values, and the backends that an axis touches put to it.

``gen_tokens`` and ``batch_size`` are of a cell, ``prompt_tokens`` makes scenarios (`phaselaw.study.file`); ``threads``
makes a backend of each value, since a backend is an engine with its settings; ``concurrency`` is a served backend's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from phaselaw.study.backends import AnyBackend, Clients, Count, ServedBackend, Strict

MAX_VALUES = 1000

Counts = Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_VALUES)]


class Axes(Strict):
    """Values to sweep over, each a cell of its own; several axes make a grid."""

    gen_tokens: Counts | None = Field(default=None, description="Decode budgets; replaces gen_tokens.", strict=False)
    batch_size: Counts | None = Field(
        default=None, description="Sequences in one call; replaces the backends' batch_size.", strict=False
    )
    prompt_tokens: Counts | None = Field(
        default=None, description="Synthetic prompts of exactly so many tokens; replaces the scenarios.", strict=False
    )
    threads: Counts | None = Field(
        default=None, description="CPU threads; makes a backend NAME_threadsN of each value.", strict=False
    )
    concurrency: Annotated[tuple[Clients, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Clients of served backends; replaces their concurrency.", strict=False
    )


def of_backend(backend: str, threads: int) -> str:
    """The name of a backend at one value of a ``threads`` axis."""
    return f"{backend}_threads{threads}"


def fault_of(axes: Axes, backends: Sequence[AnyBackend]) -> str | None:
    """Why an axis can't be swept on one of these backends, in one line; ``None`` where all can."""
    served = [backend.name for backend in backends if isinstance(backend, ServedBackend)]
    if axes.batch_size is not None and served:
        return (
            f"axes.batch_size: backend {served[0]} is a server, which batches by itself; sweep its concurrency, "
            "or leave it out with --backends"
        )
    if axes.concurrency is not None and not served:
        return "axes.concurrency: no backend is a server; sweep batch_size, or add a backend of kind llamacpp"
    if axes.threads is None or is_put(axes, backends):
        return None
    for backend in backends:
        if "threads" not in type(backend).model_fields or getattr(backend, "url", None) is not None:
            who = f"backend {backend.name}"
            return f"axes.threads: the threads of {who} are not ours to set; leave it out with --backends"
    names = {backend.name for backend in backends}
    taken = sorted(names & {of_backend(each, n) for each in names for n in axes.threads})
    return f"axes.threads: it makes a backend {taken[0]}, and there is one; rename that" if taken else None


def is_put(axes: Axes, backends: Sequence[AnyBackend]) -> bool:
    """Whether the backends are of the ``threads`` axis already, as in a study that a run kept."""
    return all(
        any(each.name.endswith(of_backend("", n)) and getattr(each, "threads", None) == n for n in axes.threads or ())
        for each in backends
    )


def backends_at(axes: Axes, backends: Sequence[AnyBackend]) -> tuple[AnyBackend, ...]:
    """The backends as the axes ask: each at every number of threads, the served ones with the axis's clients."""
    put: list[AnyBackend] = []
    for backend in backends:
        if axes.concurrency is not None and isinstance(backend, ServedBackend):
            backend = backend.model_copy(update={"concurrency": axes.concurrency})
        if axes.threads is None or is_put(axes, [backend]):
            put.append(backend)
        else:
            put += (
                backend.model_copy(update={"name": of_backend(backend.name, n), "threads": n}) for n in axes.threads
            )
    return tuple(put)
