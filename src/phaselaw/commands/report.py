"""Summarise a run on the terminal and write report.md, its plots, and report.html.

examples:
  phaselaw report runs/a                  print the summary, write runs/a/report.md and .html
  phaselaw report runs/a --out elsewhere  write them into another folder
  phaselaw report runs/a --with runs/b    put the laws of two runs side by side
  phaselaw report runs/a --traffic profile.json --usd-per-hour 2.5
                                          price it with your own load

Without an option on the load or its price a run's report takes those of its last phaselaw plan.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phaselaw import api
from phaselaw.commands import plan as planning
from phaselaw.commands.console import note, screen
from phaselaw.commands.options import a_path, add_cold_start_slo, add_json, option, print_json, print_lines
from phaselaw.errors import UsageError
from phaselaw.laws.analysis import Options
from phaselaw.report.document import escape_controls, to_json
from phaselaw.report.economics import Plan
from phaselaw.report.terminal import print_summary
from phaselaw.rundir.read import SIMULATED


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "run_path", "RUN", "a run directory, a folder of runs gen_N, or a metrics.csv", type=a_path)
    option(parser, "--out", "DIR", "where the report goes (default: RUN)", type=a_path)
    several: dict[str, Any] = {"type": a_path, "nargs": "+", "default": []}
    option(parser, "--with", "RUN", "further runs to compare it with", dest="beside", **several)
    add_cold_start_slo(parser)
    planning.add_inputs(parser)
    parser.set_defaults(tokens_per_s=None)
    add_json(parser, "print all of the report as one JSON document, full precision")


def run(args: argparse.Namespace) -> None:
    named = [path.resolve() for path in (args.run_path, *args.beside)]
    for path in args.beside:
        if named.count(path.resolve()) > 1:
            raise UsageError(f"--with {path}: given twice; name each run once")
    beside = [api.load(path) for path in args.beside]
    loaded = api.load(args.run_path, options=Options(cold_start_slo_ms=args.cold_start_slo))
    plan = planning.of_report(args, loaded, args.run_path)
    loaded.save_tables(None if args.out is None else args.out / "analysis")
    if args.json:
        document, _ = api.report(loaded, out=args.out, beside=beside, plan=plan)
        print_json(to_json(document))
    else:
        show_report(loaded, out=args.out, beside=beside, plan=plan)


def show_report(
    loaded: api.Loaded,
    *,
    out: Path | None = None,
    beside: Sequence[api.Loaded] = (),
    plan: Plan | None = None,
    slo_ms: tuple[float, float] | None = None,
) -> None:
    """Write the report into ``out`` (``None``: the run itself), print its summary (``slo_ms``: in five lines)."""
    note(*(line for line in loaded.run.notes if not line.endswith(SIMULATED)))  # the report says it first of all
    document, folder = api.report(loaded, out=out, beside=beside, plan=plan, slo_ms=slo_ms)
    if slo_ms is None:
        print_summary(document, screen())
        print(f"report: {folder / 'report.md'} and {folder / 'report.html'}")
    else:
        print_lines(escape_controls(str(line)) for line in document.summary)
        print(f"report       phaselaw report {folder}\nplan         phaselaw plan {folder} --tokens-per-month 1e9")
