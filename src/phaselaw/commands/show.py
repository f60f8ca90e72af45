"""Study, host, order, calls by status, errors and files of a run.

examples:
  phaselaw show runs/a            study, host, calls, errors, files
  phaselaw show runs/a --json
  phaselaw show runs/a --verify   is everything as it was written? exit 3 with each place where it is not
  phaselaw show runs/a --salvage  keep all sound lines of a damaged journal, and derive its files anew
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.commands.options import a_path, add_json, answer, option, switch
from phaselaw.errors import BAD_ANSWER, DONE, RunError
from phaselaw.rundir.columns import settled_calls
from phaselaw.rundir.conditions import of_replicates
from phaselaw.rundir.derive import faults, kept_study
from phaselaw.rundir.journal import JOURNAL, read_journal, scan_journal
from phaselaw.rundir.read import load, runs_of
from phaselaw.rundir.write import salvage
from phaselaw.tables import BUDGET

_OF_HOST = ("os", "cpu_model", "cores_logical", "gpus")


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "run_path", "RUN", "a run directory, or a folder of runs gen_N", type=a_path)
    add_json(parser, "print one JSON document")
    doing = parser.add_mutually_exclusive_group()
    switch(doing, "--verify", "compare every file with its checksums and with the journal")
    switch(doing, "--salvage", "keep all sound lines of a damaged journal")


def run(args: argparse.Namespace) -> int:
    """Print what the run holds, or whether it is sound; returns 0, or 3 where something is damaged."""
    runs = list(runs_of(args.run_path).values()) or [args.run_path]
    lacking = [str(path) for path in runs if not (path / JOURNAL).is_file()]
    if lacking and (args.salvage or args.verify):
        raise RunError(f"no run of ours, so that nothing says how it was written (no {JOURNAL}): {', '.join(lacking)}")
    if args.salvage:
        lost = sum(map(salvage, runs))
        answer(args.json, {"lost": lost}, [f"{lost} damaged lines left out; all files are derived anew"])
        return 0
    if args.verify:
        found = [f"{path.name}: {fault}" if len(runs) > 1 else fault for path in runs for fault in faults(path)]
        summed = all(scan_journal(path / JOURNAL).has_checksums for path in runs)
        lines = found or ["sound: every file is as it was written"]
        lines += [] if summed else ["no checksums: this run is of version 1, where a changed digit can't be seen"]
        answer(args.json, {"faults": found, "has_checksums": summed}, lines)
        return BAD_ANSWER if found else DONE
    known = contents(runs[0]) if runs == [args.run_path] and not lacking else contents_of_rows(args.run_path)
    files = (str(file.relative_to(args.run_path)) for file in args.run_path.rglob("[!.]*") if file.is_file())
    document = {"schema_version": 1, "run": str(args.run_path), **known, "files": sorted(files)}
    answer(args.json, document, _lines(document))
    return 0


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
        "study": study.run_name,
        "study_sha256": study.sha256,
        "simulated": all(backend.kind == "simulated" for backend in study.backends),
        **{key: getattr(study, key) for key in ("order", "seed", "replicates")},
        "resumed_replicates": journal.resumed_replicates,
        "kept_servers": study.kept_servers(),
        "started_at_unix": journal.header["created_at_unix"],
        "host": {key: host.get(key) for key in _OF_HOST},
        **{key: [each.name for each in getattr(study, key)] for key in ("backends", "models", "scenarios")},
        "calls_expected": study.calls_planned(),
        "calls_ok": sum(call.status == "ok" for call in journal.calls),
        "calls_failed": sum(errors.values()),
        "errors": dict(errors.most_common()),
        "rows_unusable": dict(unusable.most_common()),
        "processes": len(journal.processes),
        "skipped": journal.header["skipped"],
        "complete": journal.end is not None and journal.end["status"] == "complete",
    }


def contents_of_rows(path: Path) -> dict[str, Any]:
    """The same of a sweep, and of a run that we did not measure, as far as its rows and its manifest tell."""
    run = load(path)
    manifest, rows = run.manifest, run.rows
    host = next((told for key in ("host", "platform") if isinstance(told := manifest.get(key), dict)), {})
    stated = (manifest.get(key) for key in ("rows_expected", "records_expected"))
    expected = next((rows for rows in stated if isinstance(rows, int)), rows.height)
    calls = rows.filter(pl.col("mode") == rows["mode"].mode()[0])  # a call has a row a phase
    failed = calls.filter(pl.col("status") != "ok")
    errors = Counter(failed["error"].cast(pl.String).fill_null("").to_list() if "error" in rows.columns else ())
    return {
        "study": manifest.get("run_name") or run.sources[0].run_id,
        "study_sha256": manifest.get("config_sha256"),
        "simulated": "simulated" in rows["backend_kind"],
        "order": run.order,
        "seed": manifest.get("seed"),
        "replicates": rows["replicate"].n_unique(),
        "resumed_replicates": manifest.get("resumed_replicates", []),
        "kept_servers": manifest.get("kept_servers", []),
        "started_at_unix": rows["started_at_unix"].min(),
        "host": {key: host.get(key) for key in _OF_HOST} | {"cpu_model": host.get("cpu_model", host.get("processor"))},
        **{f"{name}s": rows[name].unique(maintain_order=True).to_list() for name in ("backend", "model", "scenario")},
        "gen_tokens": rows[BUDGET].unique().sort().to_list(),
        "calls_expected": expected // rows["mode"].n_unique(),
        "calls_ok": calls.height - failed.height,
        "calls_failed": failed.height,
        "errors": dict(errors.most_common()),
        "rows_unusable": {},
        "processes": rows["process_idx"].n_unique(),
        "skipped": manifest.get("skipped", []),
        "complete": not run.unfinished,
    }


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    host = document["host"]
    ok, failed = document["calls_ok"], document["calls_failed"]
    simulated = ", SIMULATED: nothing was measured" if document["simulated"] else ""
    yield f"study      {document['study']} (sha256 {(document['study_sha256'] or 'not recorded')[:12]}){simulated}"
    if document["started_at_unix"] is not None:
        started = datetime.fromtimestamp(document["started_at_unix"], UTC)
        yield f"started    {started:%Y-%m-%d %H:%M:%S} UTC, by {document['processes']} process(es)"
    cores = host["cores_logical"] and f"{host['cores_logical']} logical cores"
    yield f"host       {', '.join(filter(None, (host['cpu_model'], cores, host['os']))) or 'not recorded'}"
    yield f"order      {document['order']}, seed {document['seed']}"
    yield "; ".join((f"replicates {document['replicates']}", *of_replicates(document)))
    for name in ("backends", "models", "scenarios"):
        yield f"{name:<10} {', '.join(document[name])}"
    yield f"calls      {ok + failed} of {document['calls_expected']}: {ok} ok, {failed} failed"
    yield from (f"failed     {count} x {error}" for error, count in document["errors"].items())
    yield from (f"unusable   {count} row(s), {why}" for why, count in document["rows_unusable"].items())
    yield from (f"skipped    {what}" for what in document["skipped"])
    if "gen_tokens" in document:
        yield f"tokens     {', '.join(map(str, document['gen_tokens']))} generated"
    if not document["complete"] and "gen_tokens" not in document:
        yield f"go on      phaselaw run --resume {document['run']}"
    yield from (f"file       {name}" for name in document["files"])
