"""A study measured by the engines it names, in this process: its run directory, as ``phaselaw run`` leaves it."""

from __future__ import annotations

from pathlib import Path

from phaselaw.engines import module_for
from phaselaw.machine.identity import IDENTITY
from phaselaw.measure.calls import measure
from phaselaw.records import Call
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import Study


def measured(study: Study, path: Path) -> Path:
    """Measure a study into a run directory at ``path``, without analysing it."""
    host = dict.fromkeys(IDENTITY, "here")
    with RunDirectory.create(path, study=study, argv=["phaselaw", "run"], host=host) as directory:
        engines = {backend.name: module_for(backend.kind).create(backend) for backend in study.backends}
        for event in measure(study, engines=engines):
            directory.append(event)
        directory.finish("complete")
    return path


def calls_of(study: Study) -> list[Call]:
    """The calls of a study, in the order they were made."""
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in study.backends}
    return [event for event in measure(study, engines=engines) if isinstance(event, Call)]
