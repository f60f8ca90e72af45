"""The axes of a sweep: the types of their values, and the backends that an axis touches put to it.

``gen_tokens`` and ``batch_size`` are of a cell, ``prompt_tokens`` makes scenarios (`phaselaw.study_file`); ``threads``
makes a backend of each value, since a backend is an engine with its settings; ``concurrency`` is a served backend's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from phaselaw.errors import StudyError
from phaselaw.study_backends import Clients, Count, ServedBackend, Strict

if TYPE_CHECKING:
    from phaselaw.study import AnyBackend, Study

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


def put_to_axes(study: Study, source: str) -> Study:
    """The study with its backends as the axes ask; raises `StudyError` where an axis can't be swept on one of them."""
    for fault in _faults(study):
        raise StudyError(f"{source}: {fault}")
    study = study.model_copy(update={"backends": tuple(_with_clients(study, each) for each in study.backends)})
    values = study.axes.threads
    if values is None:
        return study
    changed: dict[str, Any] = {
        "backends": tuple(
            each.model_copy(update={"name": of_backend(each.name, n), "threads": n})
            for each in study.backends
            for n in values
        ),
        "models": tuple(
            model.model_copy(update={"backends": tuple(of_backend(name, n) for name in model.backends for n in values)})
            if model.backends
            else model
            for model in study.models
        ),
        # Done: a study that is resolved already must not be multiplied again.
        "axes": study.axes.model_copy(update={"threads": None}),
    }
    return study.model_copy(update=changed)


def _faults(study: Study) -> Iterator[str]:
    served = [backend.name for backend in study.backends if isinstance(backend, ServedBackend)]
    if study.axes.batch_size is not None and served:
        yield (
            f"axes.batch_size: backend {served[0]} is a server, which batches by itself; sweep its concurrency, "
            "or leave it out with --backends"
        )
    if study.axes.concurrency is not None and not served:
        yield "axes.concurrency: no backend is a server; sweep batch_size, or add a backend of kind llamacpp"
    if study.axes.threads is None:
        return
    for backend in study.backends:
        if "threads" not in type(backend).model_fields or getattr(backend, "url", None) is not None:
            yield (
                f"axes.threads: the threads of backend {backend.name} are not ours to set; leave it out with --backends"
            )
    names = {backend.name for backend in study.backends}
    for name in sorted(names & {of_backend(each, n) for each in names for n in study.axes.threads}):
        yield f"axes.threads: it makes a backend {name}, and there is one; rename that"


def _with_clients(study: Study, backend: AnyBackend) -> AnyBackend:
    if study.axes.concurrency is None or not isinstance(backend, ServedBackend):
        return backend
    return backend.model_copy(update={"concurrency": study.axes.concurrency})
