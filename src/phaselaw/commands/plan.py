"""``phaselaw plan``: what a load needs and costs, from the measured rates of a run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselaw.commands import COMMANDS
from phaselaw.commands.plan_options import PARTS, add_options, hourly_price, parts_shown, price_notes, question_of

if TYPE_CHECKING:
    from phaselaw.laws.analysis import Analysis
    from phaselaw.plan.economics import Question
    from phaselaw.plan.prices import Choice
    from phaselaw.plan.workers import Worker
    from phaselaw.records import Run

EXAMPLES = """\
examples:
  phaselaw plan runs/a --tokens-per-month 1e9 --usd-per-hour 1.006
  phaselaw plan runs/a runs/b runs/c --utilisation 0.7 --burst 1.5 --spares 1     intervals hold run-to-run noise
  phaselaw plan runs/a --requests-per-s 5.5 --mixes my-mixes.csv                  requests of your own kinds
  phaselaw plan runs/a --prices gpus.csv --accelerator 'A100 80GB' --compare      a price list; model against model
  phaselaw plan runs/a --tiers models/gpt2-5m,models/gpt2-100m --success-rates rates.csv --failure-usd 2
  phaselaw plan runs/a --traffic profile.json --rates-by phases                   your own traffic, by its phases

Each count and price stands with its 95 % interval from the measurements. Workers as a fraction are a lower bound: busy
all the time, with no bursts, no queue and no spares. More: docs/economics.md.
"""

JSON_VERSION = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``plan`` to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help=COMMANDS["plan"],
        description="Turn measured tokens/s into workers, dollars, and what one model must do better than another.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_paths",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run directory or a metrics.csv; several of one study on one host are pooled",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns 0."""
    from phaselaw.laws.analysis import analyze
    from phaselaw.rundir import read as runs

    shown = parts_shown(args)
    read = runs.load_all(args.run_paths, allow_different=args.allow_different)
    analysis = analyze(read)
    price, choice = hourly_price(args, read.rows["backend"].unique(maintain_order=True).to_list())
    workers = _chosen(args, read, analysis, price)
    question = question_of(args, [worker.model for worker in workers])
    notes = [*read.notes, *(price_notes(choice) if choice else [])]
    document = planned(question, workers, analysis) | {"notes": notes}
    document["assumptions"] |= {"baseline": args.compare or None, "price": _offer(choice)}
    for note in notes:
        print(f"phaselaw: note: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(document, allow_nan=False))
    else:
        _print(document, shown)
    return 0


def planned(question: Question, workers: Sequence[Worker], analysis: Analysis) -> dict[str, Any]:
    """The plan as the document that ``--json`` prints: every table, and the assumptions."""
    from phaselaw.laws.step_time import step_times
    from phaselaw.plan.economics import answer, assumptions

    times = step_times(analysis.tables["step_time_model"])
    tables = answer(question, workers, times)
    return {"schema_version": JSON_VERSION, "assumptions": assumptions(question, workers), **tables}


def _chosen(args: argparse.Namespace, read: Run, analysis: Analysis, price: float | dict[str, float]) -> list[Worker]:
    from phaselaw.errors import AnalysisError, UsageError
    from phaselaw.plan.workers import workers_of

    workers = workers_of(read, analysis, price)
    if not workers:
        raise AnalysisError(f"{read.path}: no end-to-end rates to plan with (no ok rows of e2e_kv)")
    for option, key in (("backends", "backend"), ("models", "model")):
        wanted = getattr(args, option)
        if wanted is not None:
            names = [name.strip() for name in wanted.split(",")]
            known = dict.fromkeys(getattr(worker, key) for worker in workers)
            for name in names:
                if name not in known:
                    raise UsageError(f"--{option} {name}: not in this run; it has: {', '.join(known)}")
            workers = [worker for worker in workers if getattr(worker, key) in names]
    if args.compare and args.compare not in {worker.model for worker in workers}:
        raise UsageError(f"--compare {args.compare}: not among the models that are planned")
    return workers


def _offer(choice: Choice | None) -> dict[str, Any] | None:
    """The offer that the price is from, for the JSON."""
    if choice is None:
        return None
    offer = choice.offer
    return {
        "provider": offer.provider,
        "machine": offer.machine,
        "accelerator": offer.accelerator,
        "accelerators_in_machine": offer.accelerators,
        "usd_per_accelerator_hour": offer.usd_per_hour,
        "offers": choice.offers,
        "lowest": choice.lowest,
        "median": choice.median,
        "highest": choice.highest,
        "age_days": choice.age_days,
        "stale": choice.stale,
        "doubt": offer.doubt,
    }


def _print(document: dict[str, Any], shown: Sequence[str]) -> None:
    from rich.console import Console

    from phaselaw.report.economics import sections
    from phaselaw.report.terminal import print_section

    console = Console(highlight=False)
    # On a pipe nothing is wrapped or cut: the reader there is a program, or a person with a pager.
    console = console if console.is_terminal else Console(width=400, highlight=False)
    for section in sections(document, shown):
        print_section(section, console, titled=len(shown) > 1)
    others = [part for part in PARTS if part not in shown]
    if others:
        print(f"More of this plan: --show {','.join(others)} (or all).", file=sys.stderr)
