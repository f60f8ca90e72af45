"""``phaselaw report``: what a run says, on the terminal and as ``report.md`` with its plots."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phaselaw.laws.analysis import Analysis

EXAMPLES = """\
examples:
  phaselaw report runs/a                  print the summary, write runs/a/report.md and its plots
  phaselaw report runs/a --out elsewhere  write them into another folder
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report`` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="what a run says: laws, regimes, cold start, price",
        description="Summarise a run on the terminal and write report.md with its plots.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_path", type=Path, metavar="RUN", help="a run directory, or a metrics.csv")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: RUN)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Analyse, write the report, print the summary; returns 0."""
    from phaselaw.commands.analyze import analyze_run

    out = None if args.out is None else args.out / "analysis"
    report_run(args.run_path, analyze_run(args.run_path, out=out), out=args.out)
    return 0


def report_run(path: Path, analysis: Analysis, *, out: Path | None = None) -> None:
    """Write the report of an analysed run into ``out`` (``None``: the run itself) and print its summary."""
    raise NotImplementedError
