"""``phaselaw validate``: each measured model left out in turn and predicted from the others."""

from __future__ import annotations

import argparse
import json

from phaselaw.commands import COMMANDS
from phaselaw.commands.predict import add_shared, analysed_tables, finite

EXAMPLES = """\
examples:
  phaselaw validate runs/a                          is what ``phaselaw predict`` says of this run to be trusted?
  phaselaw validate runs/a --backends hf_cpu_fp32 --json
"""

JSON_VERSION = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``validate`` to the command line."""
    parser = subparsers.add_parser(
        "validate",
        help=COMMANDS["validate"],
        description="Leave each model out, predict it from the others, and set that beside what was measured.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_shared(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the predictions and how many intervals held; returns 0, or raises `AnalysisError` where there are none."""
    from phaselaw.errors import AnalysisError

    tables = analysed_tables(args)
    validation, coverage = tables["prediction_validation"], tables["prediction_coverage"]
    if validation.is_empty():
        raise AnalysisError("nothing to validate: it takes four measured models, three to predict the fourth from")
    if args.json:
        document = {"schema_version": JSON_VERSION, "level": args.level}
        rows = {"predictions": validation.to_dicts(), "coverage": coverage.to_dicts()}
        print(json.dumps(finite(document | rows), allow_nan=False))
        return 0
    from rich.console import Console

    from phaselaw.report.prediction import READING, coverages, left_out
    from phaselaw.report.subject import table_rows
    from phaselaw.report.terminal import print_table

    console = Console(highlight=False)
    shown = console if console.is_terminal else Console(width=200, highlight=False)
    print_table(left_out(table_rows(validation)), shown)
    print_table(coverages(table_rows(coverage)), shown)
    for line in READING:
        console.print(line, markup=False, soft_wrap=True)
    return 0
