"""What comes before a study's calls: what of it can run here, a quiet machine, its run directory, its models."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phaselaw.engines import llamacpp
from phaselaw.engines.readiness import lacks, runnable_part
from phaselaw.errors import NotReadyError
from phaselaw.ladder.build import resolve
from phaselaw.ladder.spec import ladder_model
from phaselaw.machine import identity
from phaselaw.machine.limits import kept_limits, limits_of
from phaselaw.machine.neighbours import busy_words, wait_until_quiet
from phaselaw.rundir.conditions import KEPT_SERVERS
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import Study

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
) -> RunDirectory:
    """A fresh, locked run directory of what of a study can run here, on a quiet machine where that is waited for.

    ``available`` leaves out what can't run.
    """
    study, skipped = _only_what_can_run(study, available=available, tell=tell)
    if names := study.kept_servers():
        tell(KEPT_SERVERS.format(", ".join(names)))
    begin_quietly(study, wait_s=wait_s, tell=tell)
    host = _host(kept_only=all(each.kind == "simulated" for each in study.backends), tell=tell)
    return RunDirectory.create(out, study=study, argv=argv, host=host, skipped=skipped, asked=asked)


def resumed_run(
    path: Path, *, study: Study | None, argv: Sequence[str], allow_changed: bool, retry_failed: bool, tell: Tell
) -> RunDirectory:
    """The locked directory of a run to go on with, under its own study for ``None``; failed calls again if asked."""
    host = _host(kept_only=True, tell=tell)
    return RunDirectory.resume(
        path, study=study, argv=argv, host=host, allow_changed=allow_changed, retry_failed=retry_failed
    )


def _host(*, kept_only: bool, tell: Tell) -> dict[str, Any]:
    """What this machine is, with its ``limits``: kept ones, or those measured now; without where there are none."""
    host = identity.host()
    try:
        limits = kept_limits(host) if kept_only else limits_of(host)
    except NotReadyError as error:
        tell(f"{error}; latencies will stand without them")
        limits = None
    return host if limits is None else host | {"limits": limits.to_json()}


def _only_what_can_run(study: Study, *, available: bool, tell: Tell) -> tuple[Study, list[str]]:
    """The part of a study that can run here, and what was left out: what is optional, with ``available`` anything."""
    told = lacks(study)
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
