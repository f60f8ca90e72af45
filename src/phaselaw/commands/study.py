"""Study files: what to measure.

examples:
  phaselaw study list                       the studies that ship with phaselaw
  phaselaw study show gpt2-ladder-cpu       one of them, as a start for your own
  phaselaw study check my-study.yaml        is the file right, and can this machine run it? connects nowhere
  phaselaw study check my-study.yaml --connect     and do its servers answer, with its models?
  phaselaw study schema > study.json        the JSON schema, for an editor's completion

check exits 0 when all is there, 1 with a list when only this machine lacks something, 2 for a fault of the file.
"""

import argparse
import dataclasses
import json
import sys

from phaselaw.commands.options import add_json, add_permits, answer, option, switch, take_permits
from phaselaw.errors import DONE, FAILED
from phaselaw.measure.begin import lacks, runs_elsewhere
from phaselaw.records import PHASES
from phaselaw.study.file import load_study, shipped_studies, study_path, study_schema


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    shipped = actions.add_parser("list", help="list the shipped studies")
    add_json(shipped, "print one JSON document")
    shipped.set_defaults(act=_list)
    show = actions.add_parser("show", help="print a shipped study file, or any study resolved")
    option(show, "study", "STUDY", "a study file or a shipped name")
    add_json(show, "print it resolved, defaults filled in, as JSON")
    show.set_defaults(act=_show)
    check = actions.add_parser("check", help="check a study file, and whether this machine can run it")
    option(check, "study", "FILE", "a study file or a shipped name")
    switch(check, "--connect", "ask the servers that the study names too; without it nothing is connected to")
    add_permits(check)
    add_json(check, "print one JSON document")
    check.set_defaults(act=_check)
    schema = actions.add_parser("schema", help="print the JSON schema of study files")
    schema.set_defaults(act=lambda _: print(json.dumps(study_schema(), indent=2)))


def run(args: argparse.Namespace) -> int:
    return args.act(args) or 0


def _list(args: argparse.Namespace) -> None:
    listed = []
    for name, path in shipped_studies().items():
        study = load_study(name)
        asks = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
        calls = study.calls_planned()
        listed.append({"name": name, "asks": asks.lstrip("# "), "cells": len(study.cells()), "calls": calls})
    width = max(len(str(entry["name"])) for entry in listed)
    row = "{name:<{width}}  {asks} ({cells} cells, {calls} calls)"
    answer(args.json, listed, (row.format(width=width, **entry) for entry in listed))


def _show(args: argparse.Namespace) -> None:
    study = load_study(args.study)
    if args.json:
        print(json.dumps(study.resolved(), indent=2))
    else:
        sys.stdout.write(study_path(args.study).read_text(encoding="utf-8-sig"))


def _check(args: argparse.Namespace) -> int:
    study = load_study(args.study)
    take_permits(args)
    lacking, calls = lacks(study, connect=args.connect), study.calls_planned()
    unasked = [] if args.connect else [backend.name for backend in study.backends if runs_elsewhere(backend)]
    counts = {"replicates": study.replicates, "calls": calls, "rows": calls * len(PHASES)}
    missing = {"not_asked": unasked, "lacking": [dataclasses.asdict(lack) for lack in lacking]}
    document = {"study": study.run_name, "sha256": study.sha256, **counts, **missing}
    hints = {"optional": " (optional)", "doubt": " (a warning)"}
    lines = [lack.what + "".join(hint for key, hint in hints.items() if getattr(lack, key)) for lack in lacking]
    lacking = [lack for lack in lacking if not lack.doubt]
    what = f"{args.study} is sound; this machine lacks (run --available skips these; optional ones, any run):"
    counted = {"cell": len(study.cells()), "replicate": study.replicates, "call": calls, "row": counts["rows"]}
    said = ", ".join(f"{n} {of}{'s' * (n != 1)}" for of, n in counted.items())
    sound = f"{args.study}: sound, and all is there: {said}"
    if unasked:
        lines.append(f"not asked, since nothing was connected to: {', '.join(unasked)}; --connect asks")
        sound = sound.replace("all is there", "all else is there")
    answer(args.json, document, [what, *lines] if lacking else [*lines, sound])
    return FAILED if lacking else DONE
