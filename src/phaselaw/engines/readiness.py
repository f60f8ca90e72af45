"""Whether this machine can run a study: what it lacks, and the part of the study that can run all the same."""

import dataclasses

from phaselaw.engines import Doubt, hf, module_for
from phaselaw.errors import EngineError, NotReadyError
from phaselaw.study.model import AnyBackend, HfBackend, OllamaBackend, OpenaiBackend, Study


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
    doubt: bool = False
    """Whether it could not be asked: a warning, the first call decides."""


def runs_elsewhere(backend: AnyBackend) -> bool:
    """Whether a backend is a server that phaselaw does not start."""
    return isinstance(backend, (OllamaBackend, OpenaiBackend)) or getattr(backend, "url", None) is not None


def lacks(study: Study, *, connect: bool = True) -> list[Lack]:
    """What this machine lacks to run a study, and what it could not be asked; loads no weights, downloads nothing.

    Servers that run already are asked only where it may ``connect``.
    """
    found: list[Lack] = []
    for backend in study.backends:
        models = study.models_of(backend.name)
        try:
            module = module_for(backend.kind)
            if not connect and runs_elsewhere(backend):
                module.create(backend).close()
                continue
            lacking: list[tuple[str | None, str]] = [(None, what) for what in module.lacking(backend, ())]
            if isinstance(backend, (OllamaBackend, OpenaiBackend)):
                names = ", ".join(model.name for model in models)
                lacking = [(None, type(what)(f"{what}; it is to have {names}")) for _, what in lacking]
            if not lacking:
                lacking = [(model.name, what) for model in models for what in module.lacking(backend, (model,))]
            if isinstance(backend, HfBackend) and any(scenario.text is not None for scenario in study.scenarios):
                lacking += [(model.name, what) for model in models for what in hf.no_tokenizer(model.name)]
        except (NotReadyError, EngineError) as error:
            lacking = [(None, f"backend {backend.name}: {error}")]
        optional = getattr(backend, "optional", False)
        found += [
            Lack(backend=backend.name, model=model, what=what, optional=optional, doubt=isinstance(what, Doubt))
            for model, what in lacking
        ]
    return found


def runnable_part(study: Study, lacking: list[Lack]) -> Study:
    """The study without the pairs of backend and model that can't run; raises `NotReadyError` where none can."""
    out = {(lack.backend, lack.model) for lack in lacking if not lack.doubt}
    models = []
    for model in study.models:
        runs_on = [backend.name for backend in study.backends if model.runs_on(backend)]
        left = tuple(name for name in runs_on if not {(name, None), (name, model.name)} & out)
        if left:
            models.append(model.model_copy(update={"backends": left}))
    used = {name for model in models for name in model.backends or ()}
    if not used:
        raise NotReadyError(f"nothing of this study can run here: {'; '.join(lack.what for lack in lacking)}")
    backends = tuple(backend for backend in study.backends if backend.name in used)
    return study.model_copy(update={"models": tuple(models), "backends": backends})
