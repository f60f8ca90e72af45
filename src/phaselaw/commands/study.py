"""``phaselaw study``: check a study file, list and show the shipped ones, print the schema for editors."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from phaselaw.commands.options import add_json, option
from phaselaw.engines.readiness import lacks
from phaselaw.study.file import load_study, shipped_studies, study_path, study_schema

DESCRIPTION = "Study files: what to measure."
EXAMPLES = """\
examples:
  phaselaw study list                       the studies that ship with phaselaw
  phaselaw study show gpt2-ladder-cpu       one of them, as a start for your own
  phaselaw study check my-study.yaml        is the file right, and can this machine run it?
  phaselaw study schema > study.json        the JSON schema, for an editor's completion

check exits 0 when all is there, 1 with a list when only this machine lacks something, 2 for a fault of the file.
"""
EXIT_OK, EXIT_LACKING = 0, 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The actions, each with its options."""
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
    add_json(check, "print one JSON document")
    check.set_defaults(act=_check)
    schema = actions.add_parser("schema", help="print the JSON schema of study files")
    schema.set_defaults(act=_schema)


def run(args: argparse.Namespace) -> int:
    """Run the action that was asked for."""
    code: int = args.act(args)
    return code


def _list(args: argparse.Namespace) -> int:

    listed = []
    for name, path in shipped_studies().items():
        study = load_study(name)
        asks = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
        calls = study.calls_planned()
        listed.append({"name": name, "asks": asks.lstrip("# "), "cells": len(study.cells()), "calls": calls})
    if args.json:
        print(json.dumps(listed))
        return EXIT_OK
    width = max(len(str(entry["name"])) for entry in listed)
    for entry in listed:
        print(f"{entry['name']:<{width}}  {entry['asks']} ({entry['cells']} cells, {entry['calls']} calls)")
    return EXIT_OK


def _show(args: argparse.Namespace) -> int:

    study = load_study(args.study)
    if args.json:
        print(json.dumps(study.resolved(), indent=2))
    else:
        sys.stdout.write(study_path(args.study).read_text(encoding="utf-8-sig"))
    return EXIT_OK


def _check(args: argparse.Namespace) -> int:

    study = load_study(args.study)
    lacking = lacks(study)
    calls = study.calls_planned()
    if args.json:
        missing = [dataclasses.asdict(lack) for lack in lacking]
        print(json.dumps({"study": study.run_name, "sha256": study.sha256, "calls": calls, "lacking": missing}))
    elif lacking:
        sys.stderr.write(
            f"{args.study} is sound; this machine lacks (run --available skips these; optional ones, any run):\n"
        )
        for lack in lacking:
            print(f"{lack.what} (optional)" if lack.optional else lack.what)
    else:
        print(f"{args.study}: sound, and all is there: {len(study.cells())} cells, {calls} calls")
    return EXIT_LACKING if lacking else EXIT_OK


def _schema(args: argparse.Namespace) -> int:

    del args
    print(json.dumps(study_schema(), indent=2))
    return EXIT_OK
