"""``phaselaw plan``: what a monthly token volume needs and costs, from a run's measured rates."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from phaselaw.commands import COMMANDS
from phaselaw.plan import DEFAULT_TOKENS_PER_MONTH, TR121_USD_PER_HOUR

if TYPE_CHECKING:
    from phaselaw.plan.capacity import CapacityRow, Estimate

EXAMPLES = """\
examples:
  phaselaw plan runs/a --tokens-per-month 1e9 --usd-per-hour 1.006
  phaselaw plan runs/a --tokens-per-month 5e9 --usd-per-hour 0.302 --models models/gpt2-25m --json

Each count and price stands with its 95 % interval from the measurements. The worker count is a lower bound: workers
busy all the time, with no bursts, no queue and no spares.
"""

JSON_VERSION = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``plan`` to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help=COMMANDS["plan"],
        description="Turn a run's measured end-to-end tokens/s into workers and dollars.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_path", type=Path, metavar="RUN", help="a run directory, or a metrics.csv")
    parser.add_argument(
        "--tokens-per-month",
        type=float,
        default=DEFAULT_TOKENS_PER_MONTH,
        metavar="N",
        help=f"prompt and generated tokens (default: {DEFAULT_TOKENS_PER_MONTH:g})",
    )
    parser.add_argument(
        "--usd-per-hour",
        type=float,
        default=TR121_USD_PER_HOUR,
        metavar="USD",
        help=f"price of a worker's hour (default: {TR121_USD_PER_HOUR}, TR121's shadow price)",
    )
    parser.add_argument("--backends", metavar="A,B", help="only these backends")
    parser.add_argument("--models", metavar="A,B", help="only these models")
    parser.add_argument("--json", action="store_true", help="print one JSON document, full precision")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns 0."""
    from phaselaw import runs
    from phaselaw.errors import UsageError
    from phaselaw.laws.analysis import analyze
    from phaselaw.plan.capacity import capacity, flat

    analysis = analyze(runs.load(args.run_path))
    measured = analysis.tables["throughput_intervals"].iter_rows(named=True)
    rows = capacity(measured, tokens_per_month=args.tokens_per_month, usd_per_hour=args.usd_per_hour)
    for option, key in (("backends", "backend"), ("models", "model")):
        wanted = getattr(args, option)
        if wanted is not None:
            names = [name.strip() for name in wanted.split(",")]
            known = dict.fromkeys(getattr(row, key) for row in rows)
            for name in names:
                if name not in known:
                    raise UsageError(f"--{option} {name}: not in this run; it has: {', '.join(known)}")
            rows = [row for row in rows if getattr(row, key) in names]
    if args.json:
        assumptions = {"tokens_per_month": args.tokens_per_month, "usd_per_hour": args.usd_per_hour}
        document = {
            "schema_version": JSON_VERSION,
            "assumptions": assumptions | {"seconds_per_month": 30 * 86_400},
            "rows": [flat(row) for row in rows],
        }
        print(json.dumps(document, allow_nan=False))
    else:
        _print(rows, args.tokens_per_month, args.usd_per_hour)
    return 0


def _print(rows: list[CapacityRow], tokens_per_month: float, usd_per_hour: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("backend", "model", "batch", "tokens/s", "workers", "$/1M tokens", "$/month"):
        table.add_column(title, justify="left" if title in {"backend", "model"} else "right", overflow="fold")
    for row in rows:
        table.add_row(
            row.backend,
            f"{row.model} *" if row.suspect else row.model,
            str(row.batch_size),
            in_words(row.tokens_per_s, ".1f"),
            in_words(row.workers, ".2f"),
            in_words(row.usd_per_1m, ".3f"),
            in_words(row.usd_per_month, ",.0f"),
        )
    # On a pipe nothing is wrapped or cut: the reader there is a program, or a person with a pager.
    console.print(table) if console.is_terminal else Console(width=200, highlight=False).print(table)
    bases = " and ".join(dict.fromkeys(row.interval_basis for row in rows))
    for line in (
        f"{tokens_per_month:,.0f} tokens a month at ${usd_per_hour:g} a worker's hour (assumed); "
        "tokens/s measured, the rest derived from it.",
        f"In brackets: 95 % intervals ({bases}).",
        "Workers are a lower bound: busy all the time, no bursts, no queue, no spares.",
        *(f"* {row.model} on {row.backend} stands on suspect rows: {row.suspect}." for row in rows if row.suspect),
    ):
        console.print(line, markup=False, soft_wrap=True)


def in_words(estimate: Estimate, spec: str) -> str:
    """``7.36 [7.10, 7.62]``, or the value alone where no interval was measured."""
    value, low, high = estimate.value, estimate.low, estimate.high
    return f"{value:{spec}}" if low is None or high is None else f"{value:{spec}} [{low:{spec}}, {high:{spec}}]"
