"""Whether this machine can run a study: what it lacks, and the part of the study that can run all the same."""

from __future__ import annotations

import dataclasses

from phaselaw.engines import module_for
from phaselaw.errors import NotReadyError
from phaselaw.study.model import OllamaBackend, OpenaiBackend, Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lack:
    """One thing that this machine lacks."""

    backend: str
    model: str | None
    """The model that can't run there; ``None`` where the whole backend can't."""
    what: str
    """One line, ending in what to do."""
    optional: bool = False
    """Whether the study says that it can do without."""


def lacks(study: Study) -> list[Lack]:
    """What this machine lacks to run a study; empty when all is there. Loads no weights, downloads nothing."""
    found: list[Lack] = []
    for backend in study.backends:
        optional = getattr(backend, "optional", False)
        try:
            module = module_for(backend.kind)
            for_backend = module.lacking(backend, ())
            if isinstance(backend, (OllamaBackend, OpenaiBackend)):
                names = ", ".join(model.name for model in study.models_of(backend.name))
                for_backend = [f"{what}; it is to have {names}" for what in for_backend]
        except NotReadyError as error:
            for_backend = [f"backend {backend.name}: {error}"]
        if for_backend:
            found += [Lack(backend=backend.name, model=None, what=what, optional=optional) for what in for_backend]
            continue
        for model in study.models_of(backend.name):
            found += [
                Lack(backend=backend.name, model=model.name, what=what, optional=optional)
                for what in module.lacking(backend, (model,))
            ]
    return found


def runnable_part(study: Study, lacking: list[Lack]) -> Study:
    """The study without the pairs of backend and model that can't run; raises `NotReadyError` where none can."""
    backends_out = {lack.backend for lack in lacking if lack.model is None}
    pairs_out = {(lack.backend, lack.model) for lack in lacking}
    models = []
    for model in study.models:
        left = tuple(
            backend.name
            for backend in study.backends
            if model.runs_on(backend)
            and backend.name not in backends_out
            and (backend.name, model.name) not in pairs_out
        )
        if left:
            models.append(model.model_copy(update={"backends": left}))
    used = {name for model in models for name in model.backends or ()}
    if not used:
        raise NotReadyError(f"nothing of this study can run here: {'; '.join(lack.what for lack in lacking)}")
    backends = tuple(backend for backend in study.backends if backend.name in used)
    return study.model_copy(update={"models": tuple(models), "backends": backends})
