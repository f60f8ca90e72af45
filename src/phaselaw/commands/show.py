"""``phaselaw show``: what a run directory holds."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phaselaw.commands.console import print_json
from phaselaw.commands.options import add_json, option
from phaselaw.errors import RunError
from phaselaw.rundir.journal import JOURNAL, read_journal
from phaselaw.rundir.write import kept_study

DESCRIPTION = "Study, host, order, calls by status, errors and files of a run."
EXAMPLES = """\
examples:
  phaselaw show runs/a            study, host, calls, errors, files
  phaselaw show runs/a --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The run."""
    option(parser, "run_path", "RUN", "a run directory", type=Path)
    add_json(parser, "print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print what the run holds; returns 0."""
    document = contents(args.run_path)
    if args.json:
        print_json(document)
    else:
        print(*_lines(document), sep="\n")
    return 0


def contents(path: Path) -> dict[str, Any]:
    """What a run holds, read from its journal, so that it is true of a run in progress or cut short too."""

    if not (path / JOURNAL).is_file():
        raise RunError(f"{path} holds no run of ours (no {JOURNAL})")
    journal = read_journal(path / JOURNAL)
    process = journal.processes[-1] if journal.processes else journal.header
    study = kept_study(path, journal)
    expected = study.calls_planned()
    errors = Counter(call.error or "" for call in journal.calls if call.status != "ok")
    host = process.get("host", {})
    return {
        "schema_version": 1,
        "run": str(path),
        "study": study.run_name,
        "study_sha256": study.sha256,
        "simulated": all(backend.kind == "simulated" for backend in study.backends),
        "order": study.order,
        "seed": study.seed,
        "started_at_unix": journal.header["created_at_unix"],
        "host": {key: host.get(key) for key in ("os", "cpu_model", "cores_logical", "gpus")},
        "backends": [backend.name for backend in study.backends],
        "models": [model.name for model in study.models],
        "scenarios": [scenario.name for scenario in study.scenarios],
        "calls_expected": expected,
        "calls_ok": sum(call.status == "ok" for call in journal.calls),
        "calls_failed": sum(errors.values()),
        "errors": dict(errors.most_common()),
        "processes": len(journal.processes),
        "skipped": journal.header["skipped"],
        "complete": journal.end is not None and journal.end["status"] == "complete",
        "files": sorted(
            str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        ),
    }


def _lines(document: dict[str, Any]) -> list[str]:

    started = datetime.fromtimestamp(document["started_at_unix"], UTC)
    host = document["host"]
    done = document["calls_ok"] + document["calls_failed"]
    lines = [
        f"study      {document['study']} (sha256 {document['study_sha256'][:12]})"
        + (", SIMULATED: nothing was measured" if document["simulated"] else ""),
        f"started    {started:%Y-%m-%d %H:%M:%S} UTC, by {document['processes']} process(es)",
        f"host       {host['cpu_model']}, {host['cores_logical']} logical cores, {host['os']}",
        f"order      {document['order']}, seed {document['seed']}",
        f"backends   {', '.join(document['backends'])}",
        f"models     {', '.join(document['models'])}",
        f"scenarios  {', '.join(document['scenarios'])}",
        f"calls      {done} of {document['calls_expected']}: {document['calls_ok']} ok, "
        f"{document['calls_failed']} failed",
    ]
    lines += [f"failed     {count} x {error}" for error, count in document["errors"].items()]
    lines += [f"skipped    {what}" for what in document["skipped"]]
    if not document["complete"]:
        lines.append(f"go on      phaselaw run --resume {document['run']}")
    lines += [f"file       {name}" for name in document["files"]]
    return lines
