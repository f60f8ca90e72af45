"""What comes before a study's calls: what of it can run here, a quiet machine, its run directory, its models."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phaselaw.engines import llamacpp
from phaselaw.engines.readiness import Lack, lacks, runnable_part
from phaselaw.errors import NotReadyError
from phaselaw.ladder.build import resolve
from phaselaw.ladder.spec import ladder_model
from phaselaw.machine import identity
from phaselaw.machine.limits import kept_limits, limits_of
from phaselaw.machine.neighbours import busy_words, wait_until_quiet
from phaselaw.rundir.conditions import KEPT_SERVERS
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import Study

DRIVER = "driver"
"""What the process that keeps a run is called among its hosts."""

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
    told = lacks(study) if look is None else look(study)
    study, skipped = _only_what_can_run(study, told, available=available, tell=tell)
    if names := study.kept_servers():
        tell(KEPT_SERVERS.format(", ".join(names)))
    if look is None:
        begin_quietly(study, wait_s=wait_s, tell=tell)
    host = host_of(study, tell=tell) if look is None else driver()
    return RunDirectory.create(out, study=study, argv=argv, host=host, skipped=skipped, asked=asked)


def driver() -> dict[str, Any]:
    """What this machine is, where it keeps what other hosts measure."""
    return {"name": DRIVER, **identity.host()}


def host_of(study: Study | None, *, tell: Tell) -> dict[str, Any]:
    """What this machine is, with its ``limits``: kept ones, or, where a study is to be measured, those measured now."""
    host = identity.host()
    simulated = study is None or all(each.kind == "simulated" for each in study.backends)
    try:
        limits = kept_limits(host) if simulated else limits_of(host)
    except NotReadyError as error:
        tell(f"{error}; latencies will stand without them")
        limits = None
    return host if limits is None else host | {"limits": asdict(limits)}


def _only_what_can_run(study: Study, told: Sequence[Lack], *, available: bool, tell: Tell) -> tuple[Study, list[str]]:
    """The part of a study that can run, and what was left out: what is optional, with ``available`` anything."""
    lacking = [each for each in told if not each.doubt]
    for each in told:
        if each.doubt:
            tell(f"warning: {each.what}")
    if not lacking:
        return study, []
    needed = [lack.what for lack in lacking if not lack.optional]
    if needed and not available:
        raise NotReadyError(f"this machine lacks: {'; '.join(needed)} (--available skips what needs them)")
    for lack in lacking:
        tell(f"skipped: {lack.what}")
    return runnable_part(study, lacking), [lack.what for lack in lacking]


def begin_quietly(study: Study, *, wait_s: float | None, tell: Tell) -> None:
    """Tell of other work before a study begins, or wait so long for its end; raises `NotReadyError` where it stays."""
    if all(each.kind == "simulated" for each in study.backends):
        return
    if wait_s is None:
        if (busy := busy_words()) is not None:
            tell(f"this machine is busy: {busy}; calls will be slow and scatter (--wait-quiet 5min waits for its end)")
        return
    told = -math.inf
    for busy in wait_until_quiet(wait_s):
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            tell(f"waiting for a quiet machine: {busy}")


def prepare_models(study: Study) -> Iterator[str]:
    """Build and export what is not cached yet, so that a load time never holds a build; yields each name before."""
    for model in study.models:
        yield model.name
        if model.kind == "hf" and ladder_model(model.name) is not None:
            resolve(model.name, every_byte=True)  # what is stated of its weights is their hash
        for backend in study.backends:
            if backend.kind == "llamacpp" and model.runs_on(backend):
                llamacpp.prepare(backend, model)
