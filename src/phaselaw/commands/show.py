"""``phaselaw show``: what a run directory holds."""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phaselaw.commands.options import a_path, add_json, answer, option, switch
from phaselaw.errors import RunError
from phaselaw.rundir.columns import settled_calls
from phaselaw.rundir.conditions import of_replicates
from phaselaw.rundir.derive import faults, kept_study
from phaselaw.rundir.journal import JOURNAL, read_journal, scan_journal
from phaselaw.rundir.write import salvage

DESCRIPTION = "Study, host, order, calls by status, errors and files of a run."
EXAMPLES = """\
examples:
  phaselaw show runs/a            study, host, calls, errors, files
  phaselaw show runs/a --json
  phaselaw show runs/a --verify   is everything as it was written? exit 3 with each place where it is not
  phaselaw show runs/a --salvage  keep all sound lines of a damaged journal, and derive its files anew
"""
EXIT_DAMAGED = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """The run."""
    option(parser, "run_path", "RUN", "a run directory", type=a_path)
    add_json(parser, "print one JSON document")
    doing = parser.add_mutually_exclusive_group()
    switch(doing, "--verify", "compare every file with its checksums and with the journal")
    switch(doing, "--salvage", "keep all sound lines of a damaged journal")


def run(args: argparse.Namespace) -> int:
    """Print what the run holds, or whether it is sound; returns 0, or 3 where something is damaged."""
    if not (args.run_path / JOURNAL).is_file():
        raise RunError(f"{args.run_path} holds no run of ours (no {JOURNAL})")
    if args.salvage:
        lost = salvage(args.run_path)
        answer(args.json, {"lost": lost}, [f"{lost} damaged lines left out; all files are derived anew"])
        return 0
    if args.verify:
        return _verify(args.run_path, args.json)
    document = contents(args.run_path)
    answer(args.json, document, _lines(document))
    return 0


def _verify(path: Path, as_json: bool) -> int:
    found = list(faults(path))
    summed = scan_journal(path / JOURNAL).has_checksums
    lines = found or ["sound: every file is as it was written"]
    lines += [] if summed else ["no checksums: this run is of version 1, where a changed digit can't be seen"]
    answer(as_json, {"faults": found, "has_checksums": summed}, lines)
    return EXIT_DAMAGED if found else 0


def contents(path: Path) -> dict[str, Any]:
    """What a run holds, read from its journal, so that it is true of a run in progress or cut short too."""
    journal = read_journal(path / JOURNAL)
    process = journal.processes[-1] if journal.processes else journal.header
    study = kept_study(path, journal)
    errors = Counter(call.error or "" for call in journal.calls if call.status != "ok")
    served = [call.timing.served for call in settled_calls(journal.calls) if call.timing and call.timing.served]
    unusable = Counter(f"{mode}: {why}" for each in served for mode, why in each.faults.items())
    host = process.get("host", {})
    return {
        "schema_version": 1,
        "run": str(path),
        "study": study.run_name,
        "study_sha256": study.sha256,
        "simulated": all(backend.kind == "simulated" for backend in study.backends),
        "order": study.order,
        "seed": study.seed,
        "replicates": study.replicates,
        "resumed_replicates": journal.resumed_replicates,
        "kept_servers": study.kept_servers(),
        "started_at_unix": journal.header["created_at_unix"],
        "host": {key: host.get(key) for key in ("os", "cpu_model", "cores_logical", "gpus")},
        "backends": [backend.name for backend in study.backends],
        "models": [model.name for model in study.models],
        "scenarios": [scenario.name for scenario in study.scenarios],
        "calls_expected": study.calls_planned(),
        "calls_ok": sum(call.status == "ok" for call in journal.calls),
        "calls_failed": sum(errors.values()),
        "errors": dict(errors.most_common()),
        "rows_unusable": dict(unusable.most_common()),
        "processes": len(journal.processes),
        "skipped": journal.header["skipped"],
        "complete": journal.end is not None and journal.end["status"] == "complete",
        "files": sorted(
            str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        ),
    }


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    started = datetime.fromtimestamp(document["started_at_unix"], UTC)
    host = document["host"]
    ok, failed = document["calls_ok"], document["calls_failed"]
    simulated = ", SIMULATED: nothing was measured" if document["simulated"] else ""
    yield f"study      {document['study']} (sha256 {document['study_sha256'][:12]}){simulated}"
    yield f"started    {started:%Y-%m-%d %H:%M:%S} UTC, by {document['processes']} process(es)"
    yield f"host       {host['cpu_model']}, {host['cores_logical']} logical cores, {host['os']}"
    yield f"order      {document['order']}, seed {document['seed']}"
    yield "; ".join((f"replicates {document['replicates']}", *of_replicates(document)))
    for name in ("backends", "models", "scenarios"):
        yield f"{name:<10} {', '.join(document[name])}"
    yield f"calls      {ok + failed} of {document['calls_expected']}: {ok} ok, {failed} failed"
    yield from (f"failed     {count} x {error}" for error, count in document["errors"].items())
    yield from (f"unusable   {count} row(s), {why}" for why, count in document["rows_unusable"].items())
    yield from (f"skipped    {what}" for what in document["skipped"])
    if not document["complete"]:
        yield f"go on      phaselaw run --resume {document['run']}"
    yield from (f"file       {name}" for name in document["files"])
