"""``phaselaw plan``: what a load needs and costs, from the measured rates of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from phaselaw import api
from phaselaw.commands.console import note, print_json, screen
from phaselaw.commands.options import add_runs, chosen
from phaselaw.commands.plan_options import PARTS, add_plan_options, hourly_price, parts_shown, price_notes, question_of
from phaselaw.errors import AnalysisError, UsageError
from phaselaw.plan.prices import Choice
from phaselaw.plan.replicas import Replica, replicas_of
from phaselaw.plan.tables import TABLES
from phaselaw.report.economics import Plan, sections
from phaselaw.report.terminal import print_section

DESCRIPTION = "Turn measured tokens/s into workers, dollars, and what one model must do better than another."
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """The runs, and every option in groups."""
    add_runs(parser)
    add_plan_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns 0."""
    shown = parts_shown(args)
    loaded = api.load(*args.run_paths, allow_different=args.allow_different)
    price, choice = hourly_price(args, loaded.rows["backend"].unique(maintain_order=True).to_list())
    workers = _chosen(args, loaded, price)
    question = question_of(args, [worker.model for worker in workers])
    notes = [*loaded.run.notes, *(price_notes(choice) if choice else [])]
    document = api.planned(question, workers, loaded.analysis) | {"notes": notes}
    document["assumptions"] |= {"baseline": args.compare or None, "price": _offer(choice)}
    for line in notes:
        note(line)
    if args.json:
        print_json(document)
    else:
        _print(document, shown)
    return 0


def _chosen(args: argparse.Namespace, loaded: api.Loaded, price: float | Mapping[str, float]) -> list[Replica]:
    """The replicas that are planned with: those of the backends and models that were named."""
    workers = replicas_of(loaded.run, loaded.analysis, price)
    if not workers:
        raise AnalysisError(f"{loaded.run.path}: no end-to-end rates to plan with (no ok rows of e2e_kv)")
    for option, key in (("backends", "backend"), ("models", "model")):
        known = list(dict.fromkeys(getattr(worker, key) for worker in workers))
        names = chosen(f"--{option}", getattr(args, option), known)
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
        **{name: getattr(choice, name) for name in ("offers", "lowest", "median", "highest", "age_days", "stale")},
        "doubt": offer.doubt,
    }


def _print(document: dict[str, Any], shown: Sequence[str]) -> None:
    # On a pipe nothing is wrapped or cut.
    console = screen(pipe_width=400)
    for section in sections(Plan(document, TABLES), shown):
        print_section(section, console, titled=len(shown) > 1)
    others = [part for part in PARTS if part not in shown]
    if others:
        print(f"More of this plan: --show {','.join(others)} (or all).", file=sys.stderr)
