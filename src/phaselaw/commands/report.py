"""``phaselaw report``: what a run says, on the terminal, as ``report.md`` with its plots, and as ``report.html``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phaselaw.commands import COMMANDS

if TYPE_CHECKING:
    from phaselaw.laws.analysis import Analysis
    from phaselaw.records import Run
    from phaselaw.report.subject import Companion, Subject

EXAMPLES = """\
examples:
  phaselaw report runs/a                  print the summary, write runs/a/report.md and .html
  phaselaw report runs/a --out elsewhere  write them into another folder
  phaselaw report runs/a --with runs/b runs/c
                                          put the laws of three runs side by side
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
    parser.add_argument(
        "--with", dest="beside", type=Path, nargs="+", default=[], metavar="RUN", help="further runs to compare it with"
    )
    parser.add_argument(
        "--cold-start-slo", type=float, default=100.0, metavar="MS", help="what a first call may add (default: 100 ms)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Analyse, write the report, print the summary; returns 0."""
    from phaselaw.commands.analyze import analyze_run
    from phaselaw.errors import UsageError
    from phaselaw.laws.options import Options

    if not 0 <= args.cold_start_slo < float("inf"):
        raise UsageError("--cold-start-slo needs milliseconds, 0 or more")
    out = None if args.out is None else args.out / "analysis"
    beside = _companions(args.beside, taken=args.run_path)
    analysis = analyze_run(args.run_path, out=out, options=Options(cold_start_slo_ms=args.cold_start_slo))
    report_run(args.run_path, analysis, out=args.out, beside=beside)
    return 0


def report_run(path: Path, analysis: Analysis, *, out: Path | None = None, beside: tuple[Companion, ...] = ()) -> None:
    """Write the report of an analysed run into ``out`` (``None``: the run itself) and print its summary.

    The laws of the runs ``beside`` it are compared with its own.

    Raises `RunError` where it can't be written.
    """
    from rich.console import Console

    from phaselaw.errors import RunError
    from phaselaw.files import write_csv, write_whole
    from phaselaw.report.build import build
    from phaselaw.report.markdown import PLOTS, to_markdown
    from phaselaw.report.page import to_html
    from phaselaw.report.plots import draw
    from phaselaw.report.terminal import print_summary

    subject = _subject(path, analysis, beside)
    document = build(subject)
    folder = out or (path if path.is_dir() else path.parent)
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for plot in document.plots():
            write_whole(folder / PLOTS / f"{plot.name}.svg", draw(plot))
        if beside:
            compared = subject.analysis.tables["laws_side_by_side"]
            write_csv(folder / "analysis" / "laws_side_by_side.csv", compared.columns, compared.iter_rows(named=True))
        write_whole(folder / "report.md", to_markdown(document))
        write_whole(folder / "report.html", to_html(document))
    except OSError as error:
        raise RunError(f"{folder} can't be written ({error.strerror}); choose another place with --out") from None
    console = Console(highlight=False)
    print_summary(document, console if console.is_terminal else Console(width=160, highlight=False))
    print(f"report: {folder / 'report.md'} and {folder / 'report.html'}")


def _companions(paths: Sequence[Path], *, taken: Path) -> tuple[Companion, ...]:
    """Further runs, analysed; nothing is written into them."""
    from phaselaw.errors import UsageError
    from phaselaw.laws.analysis import analyze
    from phaselaw.report.subject import Companion
    from phaselaw.rundir import read as runs

    found: list[Companion] = []
    for path in paths:
        if path.resolve() in {taken.resolve(), *(other.run.path.resolve() for other in found)}:
            raise UsageError(f"--with {path}: given twice; name each run once")
        run = runs.load(path)
        found.append(Companion(name=run_name(run), run=run, analysis=analyze(run)))
    return tuple(found)


def run_name(run: Run) -> str:
    """What a run is called in a report: its study's name and its folder's."""
    name, folder = str((run.manifest or {}).get("run_name") or ""), run.path.resolve().name
    return name if name in {folder, ""} and name else f"{name} ({folder})" if name else folder


def _subject(path: Path, analysis: Analysis, beside: tuple[Companion, ...]) -> Subject:
    """The run with what a first load would need, at the defaults of ``phaselaw plan``."""
    from phaselaw.commands.plan import planned
    from phaselaw.laws.side_by_side import side_by_side
    from phaselaw.plan import TR121_USD_PER_HOUR
    from phaselaw.plan.economics import Question
    from phaselaw.plan.workers import workers_of
    from phaselaw.report.subject import Subject
    from phaselaw.rundir import read as runs

    run = runs.load(path)
    plan = planned(Question(), workers_of(run, analysis, TR121_USD_PER_HOUR), analysis)
    if beside:
        each = [(run_name(run), run, analysis), *((other.name, other.run, other.analysis) for other in beside)]
        compared = side_by_side([(name, one.tables, _budget(of)) for name, of, one in each], analysis.options.level)
        analysis = dataclasses.replace(analysis, tables=analysis.tables | {"laws_side_by_side": compared})
    return Subject(run=run, analysis=analysis, plan=plan, beside=beside)


def _budget(run: Run) -> int | None:
    """The decode budget of a run that has but one."""
    budgets = run.rows["gen_tokens_target"].unique().drop_nulls().to_list()
    return int(budgets[0]) if len(budgets) == 1 else None
