"""The axes of a sweep put to a study: which backends they make of its own, and where an axis can't be swept.

``gen_tokens`` and ``batch_size`` are of a cell, ``prompt_tokens`` makes scenarios (`phaselaw.study.file`); ``threads``
makes a backend of each value, since a backend is an engine with its settings; ``concurrency`` is a served backend's.
"""

from __future__ import annotations

from phaselaw.errors import StudyError
from phaselaw.study.model import ServedBackend, Study


def put_to_axes(study: Study, source: str) -> Study:
    """The study with its backends at each number of threads, the served ones with the axis's clients.

    A study that a run kept is so already, and stays. Raises `StudyError` where an axis can't be swept on a backend.
    """
    fault = _fault_of(study)
    if fault is not None:
        raise StudyError(f"{source}: {fault}")
    clients, threads = study.axes.concurrency, study.axes.threads
    backends = [
        backend.model_copy(update={"concurrency": clients})
        if clients and isinstance(backend, ServedBackend)
        else backend
        for backend in study.backends
    ]
    models = study.models
    if threads is not None and not _is_put(study):
        backends = [
            backend.model_copy(update={"name": _at(backend.name, n), "threads": n})
            for backend in backends
            for n in threads
        ]
        models = tuple(
            model.model_copy(
                update={"backends": model.backends and tuple(_at(name, n) for name in model.backends for n in threads)}
            )
            for model in models
        )
    return study.model_copy(update={"backends": tuple(backends), "models": models})


def _at(backend: str, threads: int) -> str:
    """The name of a backend at one value of a ``threads`` axis."""
    return f"{backend}_threads{threads}"


def _is_put(study: Study) -> bool:
    """Whether the backends are of the ``threads`` axis already."""
    return all(
        any(each.name.endswith(_at("", n)) and getattr(each, "threads", None) == n for n in study.axes.threads or ())
        for each in study.backends
    )


def _fault_of(study: Study) -> str | None:
    """Why an axis can't be swept on one of the backends, in one line; ``None`` where all can."""
    axes = study.axes
    served = [backend.name for backend in study.backends if isinstance(backend, ServedBackend)]
    if axes.batch_size is not None and served:
        return (
            f"axes.batch_size: backend {served[0]} is a server, which batches by itself; sweep its concurrency, "
            "or leave it out with --backends"
        )
    if axes.concurrency is not None and not served:
        return "axes.concurrency: no backend is a server; sweep batch_size, or add a backend of kind llamacpp"
    if axes.threads is None or _is_put(study):
        return None
    for backend in study.backends:
        if "threads" not in type(backend).model_fields or getattr(backend, "url", None) is not None:
            who = f"backend {backend.name}"
            return f"axes.threads: the threads of {who} are not ours to set; leave it out with --backends"
    names = {backend.name for backend in study.backends}
    taken = sorted(names & {_at(each, n) for each in names for n in axes.threads})
    return f"axes.threads: it makes a backend {taken[0]}, and there is one; rename that" if taken else None
