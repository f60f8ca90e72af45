"""Small simulated runs, and journals that are changed on purpose, their checksums made anew."""

import json
from pathlib import Path

from phaselaw.engines import module_for
from phaselaw.machine import identity as telemetry
from phaselaw.measure.calls import measure
from phaselaw.rundir.journal import line_of
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import Study

HOST = dict.fromkeys(telemetry.IDENTITY, "here")


def study(**changes) -> Study:
    keys = {
        "run_name": "t",
        "gen_tokens": 4,
        "repetitions": 2,
        "warmup_repetitions": 1,
        "scenarios": [{"name": "micro", "prompt_tokens": 1}, {"name": "short", "prompt": "=Hello"}],
        "backends": [{"name": "one", "kind": "simulated"}, {"name": "two", "kind": "simulated", "failure_rate": 0.5}],
        "models": [{"name": name, "kind": "simulated", "params_millions": 5.0} for name in ("small", "big")],
    }
    return Study.model_validate(keys | changes)


def create(path: Path | None, of: Study | None = None, **options) -> RunDirectory:
    return RunDirectory.create(path, study=of or study(), argv=["phaselaw", "run"], host=HOST, **options)


def resume(path: Path, asked: Study | None = None, **options) -> RunDirectory:
    return RunDirectory.resume(path, study=asked, argv=["phaselaw"], **{"host": HOST} | options)


def fill(directory: RunDirectory, *, at_most: int = 10**9) -> None:
    """Measure what the run lacks, up to so many calls."""
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in directory.study.backends}
    wanted = min(len(directory.done) + at_most, 24)
    for event in measure(
        directory.study,
        engines=engines,
        done=directory.done,
        process_idx=directory.process_idx,
        first_call_idx=directory.next_call_idx,
        should_stop=lambda: len(directory.done) >= wanted,
    ):
        directory.append(event)


def finished_run(path: Path, asked: Study | None = None) -> Path:
    with create(path, asked) as directory:
        fill(directory)
        directory.finish("complete")
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Put a text in place of another one in every line of a journal, as a writer of that would have kept it."""
    edited = []
    for line in path.read_bytes().splitlines():
        event = json.loads(line.decode().replace(old, new))
        event.pop("crc32", None)
        edited.append(line_of(event.pop("event"), event))
    path.write_bytes(b"".join(edited))
