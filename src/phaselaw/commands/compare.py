"""``phaselaw compare``: what became slower from some runs to others, by more than runs of the same thing differ."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselaw.commands import COMMANDS

if TYPE_CHECKING:
    from phaselaw.laws.comparison import Comparison
    from phaselaw.records import Run

EXAMPLES = """\
examples:
  phaselaw compare runs/before runs/after                     ratios; one run a side can't show a regression
  phaselaw compare runs/a1 runs/a2 --with runs/b1 runs/b2     two runs or more a side: exit 3 on a regression
  phaselaw compare runs/a1 runs/a2 --with runs/b1 runs/b2 --threshold 0.1 --json

A ratio is B / A: above 1, B is slower. A regression is a ratio above 1 + threshold that runs of one side don't explain.
exit codes: 0 none shown; 1 the runs can't be compared; 2 usage; 3 a significant regression.
"""

JSON_VERSION = 1
REGRESSION = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``compare`` to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help=COMMANDS["compare"],
        description="Latency of the runs B over that of the runs A, cell by cell, with what of it is significant.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_paths", type=Path, nargs="+", metavar="RUN", help="the runs A; without --with: the run A and the run B"
    )
    parser.add_argument("--with", type=Path, nargs="+", metavar="RUN", dest="others", help="the runs B")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="how much slower a regression must surely be (default: 0.05, that is 5 %%)",
    )
    parser.add_argument(
        "--level", type=float, default=0.95, metavar="P", help="level of intervals and tests (default: 0.95)"
    )
    parser.add_argument(
        "--allow-different", action="store_true", help="compare although study or host differs; the differences listed"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, full precision")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; returns 3 where a regression is significant, else 0."""
    from phaselaw.errors import AnalysisError, UsageError
    from phaselaw.laws.comparison import compare
    from phaselaw.rundir import read as runs

    first, second = _sides(args)
    if not 0 <= args.threshold < math.inf or not 0 < args.level < 1:
        raise UsageError("--threshold needs a share of 0 or more, --level a share between 0 and 1")
    a, b = (runs.load_all(paths, allow_different=args.allow_different) for paths in (first, second))
    notes = _checked(a, b, allow_different=args.allow_different)
    comparison = compare(a, b, threshold=args.threshold, level=args.level)
    if comparison.cells.is_empty():
        raise AnalysisError("A and B have no cell in common: backend, model, scenario, batch size and budget alike")
    if args.json:
        print(json.dumps(_document(comparison, a, b, notes), allow_nan=False))
    else:
        _print(comparison, a, b, notes)
    return REGRESSION if comparison.n_slower else 0


def _sides(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    from phaselaw.errors import UsageError

    if args.others is not None:
        return args.run_paths, args.others
    if len(args.run_paths) != 2:
        raise UsageError("give the run A and the run B, or several a side: RUN RUN --with RUN RUN")
    return args.run_paths[:1], args.run_paths[1:]


def _checked(a: Run, b: Run, *, allow_different: bool) -> list[str]:
    """What a reader must know of the two sides; raises `AnalysisError` where study or host differ."""
    from phaselaw.errors import AnalysisError
    from phaselaw.laws.comparison import prompt_differences
    from phaselaw.rundir.conditions import differences, host_is_known

    found = differences(a.manifest or {}, b.manifest or {})
    if a.manifest is None or b.manifest is None:
        found += prompt_differences(a, b)
    if found and not allow_different:
        raise AnalysisError(f"A and B differ in {'; '.join(found)}; --allow-different compares them all the same")
    unknown = [
        f"{source.path}: its host is unknown; that it is the same machine is taken on trust"
        for source in (*a.sources, *b.sources)
        if not host_is_known(source.manifest or {})
    ]
    return [*a.notes, *b.notes, *unknown, *(f"A and B differ in {line}" for line in found)]


def _document(comparison: Comparison, a: Run, b: Run, notes: list[str]) -> dict[str, Any]:
    return {
        "schema_version": JSON_VERSION,
        "a": [str(source.path) for source in a.sources],
        "b": [str(source.path) for source in b.sources],
        "threshold": comparison.threshold,
        "level": comparison.level,
        "interval_basis": comparison.basis,
        "judged": comparison.judged,
        "regressions": comparison.n_slower,
        "notes": notes,
        "whole": comparison.whole.to_dicts(),
        "cells": comparison.cells.to_dicts(),
        "only_in_a": comparison.only_in_a.to_dicts(),
        "only_in_b": comparison.only_in_b.to_dicts(),
    }


def _print(comparison: Comparison, a: Run, b: Run, notes: list[str]) -> None:
    from rich.console import Console

    from phaselaw.report.comparison import cells, reading, whole
    from phaselaw.report.terminal import print_table

    console = Console(highlight=False)
    shown = console if console.is_terminal else Console(width=200, highlight=False)
    for side, run in (("A", a), ("B", b)):
        console.print(f"{side}: {', '.join(str(source.path) for source in run.sources)}", markup=False, soft_wrap=True)
    print_table(cells(comparison), shown)
    print_table(whole(comparison), shown)
    for line in reading(comparison):
        console.print(line, markup=False, soft_wrap=True)
    for note in notes:
        print(f"phaselaw: note: {note}", file=sys.stderr)
