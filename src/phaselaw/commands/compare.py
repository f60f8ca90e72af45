"""Latency of the runs B over that of the runs A, cell by cell, with what of it is significant.

examples:
  phaselaw compare runs/before runs/after                     ratios; one run a side can't show a regression
  phaselaw compare runs/a1 runs/a2 --with runs/b1 runs/b2     two runs or more a side: exit 3 on a regression
  phaselaw compare runs/a1 runs/a2 --with runs/b1 runs/b2 --threshold 0.1 --json

A ratio is B / A: above 1, B is slower. A regression is a ratio above 1 + threshold that runs of one side don't explain.
Each model is held against the others of its runs; what a run does to all models is a question of its own.

exit codes: 0 none, or it can't be told; 1 the runs can't be compared; 2 usage; 3 a significant regression.
"""

import argparse
import math

from phaselaw import api
from phaselaw.commands.console import note, screen
from phaselaw.commands.options import a_path, add_allow_different, add_json, add_level, number, option, print_json
from phaselaw.errors import BAD_ANSWER, DONE, AnalysisError, UsageError
from phaselaw.report.comparison import run_against_run
from phaselaw.report.terminal import print_fitting


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "run_paths", "RUN", "the runs A; without --with: the run A and the run B", type=a_path, nargs="+")
    option(parser, "--with", "RUN", "the runs B", type=a_path, nargs="+", dest="others")
    share = number("a share, 0 or more", lambda value: 0 <= value < math.inf)
    slower = "how much slower a regression must surely be (default: 0.05, that is 5 %%)"
    option(parser, "--threshold", "SHARE", slower, share, default=0.05)
    add_level(parser, "intervals and tests")
    add_allow_different(parser, "compare although study or host differs; the differences listed")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; returns 3 where a regression is significant, else 0."""
    sides = args.run_paths, args.others
    if args.others is None:
        if len(args.run_paths) != 2:
            raise UsageError("give the run A and the run B, or several a side: RUN RUN --with RUN RUN")
        sides = args.run_paths[:1], args.run_paths[1:]
    a, b = (api.load(*paths, level=args.level, allow_different=args.allow_different) for paths in sides)
    notes = api.compare_notes(a, b, allow_different=args.allow_different)
    found = api.compare(a, b, threshold=args.threshold, allow_different=args.allow_different)
    if found.cells.is_empty():
        raise AnalysisError("A and B have no cell in common: backend, model, scenario, batch size and budget alike")
    paths = {name: [str(source.path) for source in side.run.sources] for name, side in (("a", a), ("b", b))}
    if args.json:
        document = {"schema_version": 1, **paths, "threshold": found.threshold, "level": found.level}
        document |= {"interval_basis": found.basis, "judged": found.judged, "outcome": found.outcome}
        document |= {"runs_needed": found.runs_needed, "regressions": found.n_slower, "notes": notes}
        names = ("whole", "models", "cells", "only_in_a", "only_in_b")
        print_json(document | {name: getattr(found, name).to_dicts() for name in names})
    else:
        for name, of_side in paths.items():
            print(f"{name.upper()}: {', '.join(of_side)}")
        print_fitting(run_against_run(found), screen(), as_wide=True)
        note(*notes)
    return BAD_ANSWER if found.n_slower else DONE
