"""The options of ``phaselaw plan``, and what they make of a question."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phaselaw.commands.options import add_allow_different, add_json, names, option, switch
from phaselaw.errors import UsageError
from phaselaw.plan import DEFAULT_TOKENS_PER_MONTH, TR121_USD_PER_HOUR
from phaselaw.plan.capacity import SECONDS_PER_MONTH, Headroom
from phaselaw.plan.economics import Question
from phaselaw.plan.inputs import (
    TR121_MIXES,
    TR121_TIERS,
    TR121_VOLUMES,
    positive,
    read_mixes,
    read_success_rates,
    read_tiers,
    read_volumes,
)
from phaselaw.plan.prices import STALE_DAYS, Choice, choose, read_date, read_offers
from phaselaw.records import Mix
from phaselaw.traffic.profile import load_of, read_profile

PARTS = ("capacity", "requests", "compare", "mixes", "sensitivity", "quality", "tiers")
"""The parts of a plan, in the order they are printed."""


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add every option, in groups."""
    _add_load(parser.add_argument_group("the load"))
    _add_price(parser.add_argument_group("what an hour costs"))
    _add_fleet(parser.add_argument_group("whole workers"))
    _add_decisions(parser.add_argument_group("decisions"))
    _add_output(parser.add_argument_group("what is planned and printed"))


def _add_load(group: Any) -> None:
    load = group.add_mutually_exclusive_group()
    option(
        load,
        "--tokens-per-month",
        "N",
        f"prompt and generated tokens (default: {DEFAULT_TOKENS_PER_MONTH:g})",
        type=float,
        default=None,
    )
    option(load, "--requests-per-month", "N", "requests, of the tokens of --mixes", type=float)
    option(load, "--requests-per-s", "R", "the same, as an average rate", type=float)
    option(load, "--traffic", "FILE", "a profile of phaselaw traffic: its rate, requests and peak", type=Path)
    option(
        group,
        "--mixes",
        "FILE",
        "kinds of request: a CSV (name, prompt_tokens, output_tokens, share); alone: TR121's four",
        nargs="?",
        const="",
    )


def _add_price(group: Any) -> None:
    option(
        group,
        "--usd-per-hour",
        "USD",
        f"of a worker, or BACKEND=USD,... (default: {TR121_USD_PER_HOUR}, TR121's shadow price)",
    )
    option(group, "--prices", "CSV", "a price list, to pick --accelerator from", type=Path)
    option(group, "--accelerator", "NAME", "such as A100 or 'A100 80GB': its lowest price is taken")
    option(group, "--provider", "NAME", "only this provider's prices")
    switch(group, "--spot", "spot prices instead of on-demand ones")
    option(group, "--accelerators-per-worker", "N", "in one worker (default: 1)", type=int, default=1)
    option(group, "--prices-date", "DAY", "the list's day, YYYY-MM-DD, where its rows have none")
    option(group, "--rates", "NAME=USD,...", "hourly rates of the sensitivity (default: TR121's)")
    option(group, "--volumes", "N,...", "its tokens a month (default: 1e8,1e9,1e10)")


def _add_fleet(group: Any) -> None:
    option(group, "--utilisation", "U", "busy share, at most (default: 1)", type=float, default=1.0)
    option(group, "--burst", "B", "peak over mean load (default: 1, or the peak minute of --traffic)", type=float)
    option(group, "--spares", "N", "workers on top (default: 0)", type=int, default=0)


def _add_decisions(group: Any) -> None:
    option(group, "--compare", "MODEL", "each model against this one (alone: the cheapest)", nargs="?", const="")
    option(group, "--success-rates", "CSV", "your own: model, success_rate[, n tried]", type=Path)
    option(group, "--failure-usd", "USD", "what one failed request costs you", type=float)
    option(group, "--tiers", "DEFAULT,PREMIUM", "two models in one service, routed and cascaded")
    option(group, "--premium-share", "Q", "share routed to premium (default: 0.2)", type=float, default=0.2)


def _add_output(group: Any) -> None:
    group.add_argument(
        "--rates-by",
        choices=("tokens", "phases"),
        default="tokens",
        help="price by the run's tokens/s (default), or by the seconds that prefill and decode of --mixes take",
    )
    option(group, "--batch", "N", "requests served at once, for the phase-split price", type=int)
    switch(group, "--extrapolate", "phase-split prices beyond the measured range too")
    option(group, "--backends", "A,B", "only these backends", type=names)
    option(group, "--models", "A,B", "only these models", type=names)
    option(
        group, "--show", "PART,...", f"{', '.join(PARTS)} or all (default: capacity, and what the options are about)"
    )
    add_allow_different(group, "pool runs although study or host differ")
    add_json(group, "print every part as one JSON document, full precision")


def parts_shown(args: argparse.Namespace) -> list[str]:
    """The parts to print: those named, else capacity and what the options ask about. Raises `UsageError`."""
    if args.show is not None:
        named = [name.strip() for name in args.show.split(",")]
        for name in named:
            if name not in (*PARTS, "all"):
                raise UsageError(f"--show {name}: give some of {', '.join(PARTS)}, or all")
        return list(PARTS) if "all" in named else named
    asked = {
        "capacity": True,
        "requests": (args.requests_per_month or args.requests_per_s or args.traffic) is not None,
        "compare": args.compare is not None,
        "mixes": args.mixes is not None or args.traffic is not None or args.rates_by == "phases",
        "sensitivity": (args.rates or args.volumes) is not None,
        "quality": args.success_rates is not None,
        "tiers": args.tiers is not None,
    }
    return [name for name in PARTS if asked[name]]


def question_of(args: argparse.Namespace, models: Sequence[str]) -> Question:
    """The question that the options ask of these models; raises `UsageError`."""
    rate, mixes, burst = _load(args)
    if args.failure_usd is not None and args.success_rates is None:
        raise UsageError("--failure-usd needs --success-rates: how often each model fails")
    for name in ("failure_usd", "burst", "batch"):
        if getattr(args, name) is not None:
            positive(f"--{name.replace('_', '-')}", getattr(args, name))
    tiers = None
    if args.tiers is not None:
        tiers = tuple(name.strip() for name in args.tiers.split(","))
        if len(tiers) != 2:
            raise UsageError(f"--tiers {args.tiers!r}: give two models, DEFAULT,PREMIUM")
    volume = DEFAULT_TOKENS_PER_MONTH if args.tokens_per_month is None else args.tokens_per_month
    return Question(
        tokens_per_month=positive("--tokens-per-month", volume),
        requests_per_s=rate,
        mixes=mixes,
        itemised=args.traffic is None or args.mixes is not None,
        headroom=Headroom(utilisation=args.utilisation, burst=args.burst or burst, spares=args.spares),
        volumes=read_volumes(args.volumes) if args.volumes else TR121_VOLUMES,
        tiers=read_tiers(args.rates) if args.rates else TR121_TIERS,
        success_rates=read_success_rates(args.success_rates, set(models)) if args.success_rates else {},
        failure_usd=args.failure_usd,
        tier_models=tiers,
        premium_share=args.premium_share,
        batch=args.batch,
        extrapolate=args.extrapolate,
        phase_split_rates=args.rates_by == "phases",
    )


def _load(args: argparse.Namespace) -> tuple[float | None, tuple[Mix, ...], float]:
    """Requests/s where the load is in requests, the kinds of request, and the peak over the mean."""
    mixes = read_mixes(Path(args.mixes)) if args.mixes else TR121_MIXES
    if args.traffic is not None:
        rate, kinds, peak = load_of(read_profile(args.traffic), args.traffic)
        return rate, kinds if args.mixes is None else mixes, peak
    if args.requests_per_s is not None:
        return positive("--requests-per-s", args.requests_per_s), mixes, 1.0
    if args.requests_per_month is not None:
        return positive("--requests-per-month", args.requests_per_month) / SECONDS_PER_MONTH, mixes, 1.0
    return None, mixes, 1.0


def hourly_price(args: argparse.Namespace, backends: Sequence[str]) -> tuple[float | dict[str, float], Choice | None]:
    """What a worker's hour costs, one price or one a backend, and the offer it is from; raises `UsageError`."""
    if (args.prices is None) != (args.accelerator is None):
        raise UsageError("--prices and --accelerator go together: the list, and what to look up in it")
    idle = [name for name in ("provider", "spot", "prices_date") if getattr(args, name) and args.prices is None]
    if idle:
        raise UsageError(f"--{idle[0].replace('_', '-')} is about a price list; give --prices and --accelerator")
    if args.prices is not None:
        if args.usd_per_hour is not None:
            raise UsageError("--usd-per-hour and --prices both say what an hour costs; give one")
        if args.accelerators_per_worker < 1:
            raise UsageError("--accelerators-per-worker: give a count, 1 or more")
        dated = read_date(args.prices_date, "--prices-date") if args.prices_date else None
        offers = read_offers(args.prices, kind="spot" if args.spot else "on-demand", dated=dated)
        choice = choose(
            offers,
            args.accelerator,
            provider=args.provider,
            accelerators=args.accelerators_per_worker,
            today=dt.date.today(),
        )
        return choice.usd_per_hour, choice
    return _typed_price(args.usd_per_hour or str(TR121_USD_PER_HOUR), backends), None


def _typed_price(text: str, backends: Sequence[str]) -> float | dict[str, float]:

    prices = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        try:
            prices[name.strip()] = positive("--usd-per-hour", float(value))
        except ValueError:
            raise UsageError(f"--usd-per-hour {part!r}: give dollars, or BACKEND=USD,...") from None
    if set(prices) == {""}:
        return prices[""]
    missing = [name for name in backends if name not in prices]
    if missing or "" in prices:
        raise UsageError(f"--usd-per-hour {text!r}: give one price, or one for each of {', '.join(backends)}")
    return prices


def price_notes(choice: Choice) -> list[str]:
    """What to know of a price from a list: which it is, how it lies among the others, and its age."""
    offer = choice.offer
    said = [
        f"price: {offer}, ${offer.usd_per_hour:.2f} an accelerator's hour; lowest to highest of {choice.offers} offers "
        f"of {', '.join(choice.kinds)}: ${choice.lowest:.2f} to ${choice.highest:.2f}, median ${choice.median:.2f}"
    ]
    if offer.doubt is not None:
        said.append(f"price: in doubt, since {offer.doubt}")
    if choice.age_days is None:
        said.append("price: the list has no date, so that its age is not known: give --prices-date")
    elif choice.stale:
        said.append(f"price: stale, {choice.age_days} days old (older than {STALE_DAYS}): look it up again")
    return said
