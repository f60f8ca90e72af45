"""What comes before a study's calls: what of it can run here, a quiet machine, its run directory, its models."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phaselaw.engines import Doubt, hf, llamacpp, module_for
from phaselaw.errors import EngineError, NotReadyError
from phaselaw.ladder.build import resolve
from phaselaw.ladder.spec import ladder_model
from phaselaw.machine import identity
from phaselaw.machine.limits import kept_limits, limits_of
from phaselaw.machine.neighbours import busy_words, wait_until_quiet
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import KEPT_SERVERS, AnyBackend, HfBackend, OllamaBackend, OpenaiBackend, Study

DRIVER = "driver"
"""What the process that keeps a run is called among its hosts."""


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


Look = Callable[[Study], list[Lack]]
"""Says what of a study no host of a run can run."""
Tell = Callable[[str], None]
"""Takes a line that a person must know."""
TELL_EVERY_S = 10.0
"""Seconds between two lines of progress while a machine is waited for."""


def new_run(
    study: Study,
    *,
    out: Path | None,
    argv: Sequence[str],
    asked: Mapping[str, Any],
    available: bool,
    tell: Tell,
    wait_s: float | None = None,
    look: Look | None = None,
) -> RunDirectory:
    """A fresh, locked run directory of what of a study can run here, on a quiet machine where that is waited for.

    ``available`` leaves out what can't run. ``look`` says what no host of a run over many lacks; this one then only
    keeps what they measure.
    """
    lacking: list[Lack] = []
    for each in lacks(study) if look is None else look(study):
        if each.doubt:
            tell(f"warning: {each.what}")
        else:
            lacking.append(each)
    if (needed := [each.what for each in lacking if not each.optional]) and not available:
        raise NotReadyError(f"this machine lacks: {'; '.join(needed)} (--available skips what needs them)")
    for each in lacking:
        tell(f"skipped: {each.what}")
    study = runnable_part(study, lacking) if lacking else study
    if names := study.kept_servers():
        tell(KEPT_SERVERS.format(", ".join(names)))
    host = host_of(begin_quietly(study, wait_s=wait_s, tell=tell), tell=tell) if look is None else driver()
    return RunDirectory.create(
        out, study=study, argv=argv, host=host, skipped=[each.what for each in lacking], asked=asked
    )


def driver() -> dict[str, Any]:
    """What this machine is, where it keeps what other hosts measure."""
    return {"name": DRIVER, **identity.host()}


def host_of(may_measure: bool, *, tell: Tell) -> dict[str, Any]:
    """What this machine is, with its ``limits``: kept ones, or, where it ``may_measure``, those that it has now."""
    host = identity.host()
    try:
        limits = kept_limits(host) or (limits_of(host) if may_measure else None)
        if limits and limits.doubt:
            raise NotReadyError(f"this machine's limits are {limits.doubt}")
    except NotReadyError as error:
        tell(f"{error}; latencies will stand without them")
        limits = None
    return host if limits is None else host | {"limits": dataclasses.asdict(limits)}


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


def begin_quietly(study: Study, *, wait_s: float | None, tell: Tell) -> bool:
    """Tell of other work before a study begins, or wait so long for its end; raises `NotReadyError` where it stays.

    Returns whether something is to be measured, on a machine that is quiet.
    """
    if all(each.kind == "simulated" for each in study.backends):
        return False
    if wait_s is None:
        if (busy := busy_words()) is not None:
            slow = "calls will be slow and scatter, and its limits are not measured now"
            tell(f"this machine is busy: {busy}; {slow} (--wait-quiet 5min waits for its end)")
        return busy is None
    told = -math.inf
    for busy in wait_until_quiet(wait_s):
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            tell(f"waiting for a quiet machine: {busy}")
    return True


def prepare_models(study: Study) -> Iterator[str]:
    """Build and export what is not cached yet, so that a load time never holds a build; yields each name before."""
    for model in study.models:
        yield model.name
        if model.kind == "hf" and ladder_model(model.name) is not None:
            resolve(model.name, every_byte=True)  # what is stated of its weights is their hash
        for backend in study.backends:
            if backend.kind == "llamacpp" and model.runs_on(backend):
                llamacpp.prepare(backend, model)
