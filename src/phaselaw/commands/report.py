"""``phaselaw report``: what a run says, on the terminal, as ``report.md`` with its plots, and as ``report.html``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from phaselaw.commands import COMMANDS

if TYPE_CHECKING:
    from phaselaw.laws.analysis import Analysis
    from phaselaw.report.subject import Subject

EXAMPLES = """\
examples:
  phaselaw report runs/a                  print the summary, write runs/a/report.md and .html
  phaselaw report runs/a --out elsewhere  write them into another folder
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report`` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help=COMMANDS["report"],
        description="Summarise a run on the terminal and write report.md, its plots, and report.html.",
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
    """Write the report of an analysed run into ``out`` (``None``: the run itself) and print its summary.

    Raises `RunError` where it can't be written.
    """
    from rich.console import Console

    from phaselaw.errors import RunError
    from phaselaw.files import write_whole
    from phaselaw.report.build import build
    from phaselaw.report.markdown import PLOTS, to_markdown
    from phaselaw.report.page import to_html
    from phaselaw.report.plots import draw
    from phaselaw.report.terminal import print_summary

    document = build(_subject(path, analysis))
    folder = out or (path if path.is_dir() else path.parent)
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for plot in document.plots():
            write_whole(folder / PLOTS / f"{plot.name}.svg", draw(plot))
        write_whole(folder / "report.md", to_markdown(document))
        write_whole(folder / "report.html", to_html(document))
    except OSError as error:
        raise RunError(f"{folder} can't be written ({error.strerror}); choose another place with --out") from None
    console = Console(highlight=False)
    print_summary(document, console if console.is_terminal else Console(width=160, highlight=False))
    print(f"report: {folder / 'report.md'} and {folder / 'report.html'}")


def _subject(path: Path, analysis: Analysis) -> Subject:
    """The run with what a first load would need, at the defaults of ``phaselaw plan``."""
    from phaselaw import runs
    from phaselaw.commands.plan import planned
    from phaselaw.plan import TR121_USD_PER_HOUR
    from phaselaw.plan.economics import Question
    from phaselaw.plan.workers import workers_of
    from phaselaw.report.subject import Subject

    run = runs.load(path)
    workers = workers_of(run, analysis, TR121_USD_PER_HOUR)
    return Subject(run=run, analysis=analysis, plan=planned(Question(), workers, analysis))
