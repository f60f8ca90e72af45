"""Turn measured tokens/s into workers, dollars, and what one model must do better than another.

examples:
  phaselaw plan runs/a --tokens-per-month 1e9 --usd-per-hour 1.006
  phaselaw plan runs/a runs/b runs/c --utilisation 0.7 --burst 1.5 --spares 1     intervals of one more run
  phaselaw plan runs/a --requests-per-s 5.5 --mixes my-mixes.csv                  requests of your own kinds
  phaselaw plan runs/a --prices gpus.csv --accelerator 'A100 80GB' --compare      a price list; model against model
  phaselaw plan runs/a --tiers models/small,models/large                         two models in one service
  phaselaw plan runs/a --traffic profile.json --rates-by phases                   your own traffic, by its phases
  phaselaw plan --tokens-per-s 10755 --params 8B --usd-per-hour 2.5               a rate from elsewhere, no run

Each count and price stands with the 95 % interval of one more run, from two runs or replicates on; one run alone can't
tell (--between-runs 20% assumes). Workers as a fraction are a lower bound: busy all the time, with no bursts, no queue
and no spares. More: docs/economics.md.
"""

import argparse
import datetime as dt
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from phaselaw import api
from phaselaw.commands import options as opt
from phaselaw.commands.console import note, screen
from phaselaw.commands.options import a_path, option, print_json, switch
from phaselaw.errors import AnalysisError, PhaselawError, UsageError, meant
from phaselaw.files import amount, folder_in, json_object, read_plain, write_json, write_whole
from phaselaw.plan import DEFAULT_PREMIUM_SHARE, DEFAULT_TOKENS_PER_MONTH, TR121_USD_PER_HOUR, inputs, positive
from phaselaw.plan.capacity import SECONDS_PER_MONTH, Headroom
from phaselaw.plan.day import Day
from phaselaw.plan.economics import Question
from phaselaw.plan.hosted import Tariff, listed
from phaselaw.plan.prices import Choice, choose, read_date, read_offers
from phaselaw.plan.replicas import Price, Replica, replicas_of, stated
from phaselaw.plan.tables import TABLES
from phaselaw.records import LARGEST
from phaselaw.report.economics import SECTIONS, Plan, sections
from phaselaw.report.terminal import WIDEST, print_fitting
from phaselaw.rundir.journal import JOURNAL
from phaselaw.rundir.read import runs_of
from phaselaw.tables import MOST_ROWS
from phaselaw.traffic.profile import day_of, doubts_of, load_of, read_profile

PARTS = tuple(SECTIONS)


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "run_paths", "RUN", f"{opt.RUNS}; none with --tokens-per-s", type=a_path, nargs="*")
    rate = "a worker's rate from elsewhere, in place of a run; NAME=X,... for several accelerators"
    option(parser, "--tokens-per-s", "X", rate)
    option(parser, "--params", "N", "the parameters of its model, such as 8B", positive)
    add_inputs(parser)
    group = parser.add_argument_group("what is printed")
    parts = f"{', '.join(PARTS)} or all (default: capacity, and what the options are about)"
    option(group, "--show", "PART,...", parts)
    switch(group, "--wide", "every column and bracket, in lines of any length (default: lines of 80 characters)")
    opt.add_allow_different(group)
    option(group, "--csv", "FOLDER", "write every table as FOLDER/NAME.csv, full precision", type=a_path)
    opt.add_json(group, "print every part as one JSON document, full precision")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """What a plan is asked, of any run: for a report too."""
    _add_load(parser)
    group = parser.add_argument_group("whole workers")
    busy = "busy share, at most, such as 70%% (default: 1)"
    share = partial(opt.share, "--utilisation")
    group.add_argument("--utilisation", "--utilization", metavar="U", help=busy, type=share, default=1.0)
    option(group, "--burst", "B", "peak over mean load (default: 1, or the peak minute of --traffic)", positive)
    option(group, "--budget", "USD", "dollars a month: what load they carry, by model, and whether it fits", positive)
    has = "memory of one, such as 16GB (default: that of the run's GPU or host): what doesn't fit has no price"
    option(group, "--memory", "SIZE", has, type=opt.size)
    opt.add_count(group, "--spares", "workers on top (default: 0)", least=0, default=0)
    _add_elsewhere(parser)
    group = parser.add_argument_group("decisions")
    pairs = "each model against this one (alone: the cheapest); A,B,C: A against B, B against C"
    option(group, "--compare", "MODEL", pairs, nargs="?", const="")
    option(group, "--success-rates", "CSV", "your own: model, success_rate[, n tried]", type=a_path)
    option(group, "--failure-usd", "USD", "what one failed request costs you", positive)
    option(group, "--tiers", "DEFAULT,PREMIUM", "two models in one service, routed and cascaded")
    routed = "share routed to premium (default: 0.2)"
    option(group, "--premium-share", "Q", routed, opt.share, default=DEFAULT_PREMIUM_SHARE)
    group = parser.add_argument_group("what is planned")
    by = "price by the run's tokens/s (default), or by the seconds that prefill and decode of --mixes take"
    option(group, "--rates-by", None, by, choices=("tokens", "phases"), default="tokens")
    opt.add_count(group, "--batch", "requests served at once, for the phase-split price")
    switch(group, "--extrapolate", "phase-split prices beyond the measured range too")
    option(group, "--backends", "A,B", "only these backends", type=opt.names)
    option(group, "--models", "A,B", "only these models", type=opt.names)
    spread = "assume that runs differ so much (standard deviation), instead of what was measured"
    option(group, "--between-runs", "X%", spread, positive)


def _add_elsewhere(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("users at once, a hosted API, and a day")
    for name, of in (("--slo-ttft", "the first token"), ("--slo-tpot", "each other token")):
        most = f"how many users at once wait no longer for {of}, as a run that swept clients measured"
        option(group, name, "TIME", most, opt.duration)
    option(group, "--api", "NAME", "a hosted model, such as gpt-4o-mini or groq/NAME, by the list of genai-prices")
    for name, what in (("in", "input"), ("out", "output")):
        option(group, f"--api-{name}", "USD", f"an API's price of a million {what} tokens", positive)
    free = opt.number("dollars, 0 or more", lambda value: 0 <= value < LARGEST)
    option(group, "--api-cached", "USD", "of a million cached input tokens (default: as other input)", free)
    cached = "share of prompt tokens that a cache holds (default: that of --traffic, or none)"
    switch(group, "--day", "the fleet hour by hour over the day of --traffic")
    delay = "until a new worker serves (default: load and first call, as measured)"
    option(group, "--scale-out-delay", "TIME", delay, opt.duration)
    taken = "share of spot workers taken away in an hour (default: 5%%)"
    option(group, "--interruptions", "X%", taken, opt.share)
    option(group, "--cached-share", "X%", cached, opt.share)


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the load (one of the first four)")
    load = group.add_mutually_exclusive_group()
    tokens = f"prompt and generated tokens (default: {DEFAULT_TOKENS_PER_MONTH:g})"
    option(load, "--tokens-per-month", "N", tokens, positive)
    option(load, "--requests-per-month", "N", "requests, of the tokens of --mixes", positive)
    option(load, "--requests-per-s", "R", "the same, as an average rate", positive)
    option(load, "--traffic", "FILE", "a profile of phaselaw traffic: its rate, requests and peak", type=a_path)
    kinds = "kinds of request: a CSV (name, prompt_tokens, output_tokens, share); alone: TR121's four"
    option(group, "--mixes", "FILE", kinds, nargs="?", const="")
    group = parser.add_argument_group("what an hour costs")
    hour = f"of a worker, or BACKEND=USD,... (default: {TR121_USD_PER_HOUR}, TR121's shadow price)"
    option(group, "--usd-per-hour", "USD", hour)
    option(group, "--prices", "CSV", "a price list, to pick --accelerator from", type=a_path)
    option(group, "--accelerator", "NAME", "such as A100 or 'A100 80GB': its median price is taken, of two the lower")
    option(group, "--provider", "NAME", "this provider's lowest price instead")
    switch(group, "--spot", "spot prices instead of on-demand ones")
    opt.add_count(group, "--accelerators-per-worker", "in one worker (default: 1)")
    option(group, "--prices-date", "DAY", "the list's day, YYYY-MM-DD, where its rows have none")
    money = "of all amounts, such as EUR (default: USD, or the list's)"
    option(group, "--currency", "CODE", money, choices=tuple(inputs.CURRENCIES))
    option(group, "--rates", "NAME=USD,...", "hourly rates of the sensitivity (default: TR121's)")
    option(group, "--volumes", "N,...", "its tokens a month (default: 1e8,1e9,1e10)", type=inputs.read_volumes)


def run(args: argparse.Namespace) -> None:
    shown = _parts_shown(args)
    loaded = _measured(args)
    plan = planned(args, loaded)
    _keep(args)
    document = {**plan.document, "notes": [*(loaded.run.notes if loaded else ()), *plan.document["notes"]]}
    note(*document["notes"])
    if args.csv is not None:
        known = ((name, document.get(name)) for name in TABLES)
        api.save_tables({name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in known if rows}, args.csv)
    if args.json:
        print_json(document)
        return
    console = screen(WIDEST if args.wide else None)
    for section in sections(plan, shown):
        print_fitting(section if len(shown) > 1 else replace(section, title=""), console, as_wide=args.wide)
    if others := [part for part in PARTS if part not in shown]:
        print(f"More of this plan: --show {','.join(others)} (or all).", file=sys.stderr)


def planned(args: argparse.Namespace, loaded: api.Loaded | None, *, most: int | None = None) -> Plan:
    """The plan that the options ask for, of a run (``most`` of its models) or of given rates; raises `UsageError`."""
    rates = _rates_given(args.tokens_per_s)
    backends = list(rates) if loaded is None else loaded.rows["backend"].unique(maintain_order=True).to_list()
    hour = _hour(args, backends)
    workers = _given(args, rates, hour.prices) if loaded is None else _chosen(args, loaded, hour.prices, most)
    if loaded is not None and args.accelerator is not None:
        _same_accelerator(args, workers)
    profile = None if args.traffic is None else read_profile(args.traffic)
    question = _question(args, {worker.model for worker in workers}, profile, hour)
    plan = api.planned(question, workers, loaded.analysis if loaded else None)
    doubts, offers = [] if profile is None else doubts_of(profile), [choice.document() for choice in hour.choices]
    if loaded is not None and (args.backends, args.models, most) == (None, None, None):
        doubts += _without_a_rate(loaded, workers)
    document = {**plan.document, "notes": [*doubts, *hour.notes]}
    document["assumptions"] |= _compared(args.compare, workers) | {"price": offers[0] if len(offers) == 1 else None}
    document["assumptions"] |= {"prices": offers, "currency": hour.currency, "between_runs": args.between_runs}
    return replace(plan, document=document, mark=inputs.CURRENCIES[hour.currency])


# In a run: the options of its last plan, the files among them beside it. Its next report is priced with them.
KEPT = Path("plan", "inputs.json")
_FILES = ("traffic", "mixes", "prices", "success_rates")  # options that name one, which is kept by the option's name


def _read(words: Sequence[str]) -> argparse.Namespace:
    """The options of a plan alone; raises `UsageError` and `argparse.ArgumentError`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_inputs(parser)
    parser.set_defaults(tokens_per_s=None)
    args, others = parser.parse_known_args(words)
    if others:
        raise UsageError(f"it has {' '.join(others)}, which is no option of a plan")
    return args


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a plan that a command line has, by name, less those at their defaults."""
    defaults = vars(_read([]))
    return {name: getattr(args, name) for name in defaults if getattr(args, name) != defaults[name]}


def _keep(args: argparse.Namespace) -> None:
    """Keep what a plan was asked in its runs, those that phaselaw measured; a note where one can't be written."""
    options = _asked(args)
    named = {name: Path(options[name]) for name in _FILES if options.get(name)}
    kept = options | {name: name + path.suffix for name, path in named.items()}
    for run in args.run_paths:
        try:
            if any((part / JOURNAL).is_file() for part in (run, *runs_of(run).values())):
                folder = folder_in(run, KEPT.parent.name)
                for name, path in named.items():
                    write_whole(folder / kept[name], read_plain(path))
                write_json(folder / KEPT.name, {"schema_version": 1, "options": kept})
        except OSError as error:
            note(f"{run}: this plan's inputs are not kept for its next report ({error.strerror or error})")


def _kept(run: Path) -> list[str]:
    """The options of a run's last plan, as typed; none where it had none. Raises `UsageError` for another file."""
    if not (run / KEPT).is_file():
        return []
    document = json_object(run / KEPT, UsageError, "inputs of a plan")
    options = document.get("options")
    if document.get("schema_version") != 1 or not isinstance(options, dict):
        raise UsageError(f"{run / KEPT}: no inputs of a plan of version 1; make the plan again")
    # Of a file only its name counts: what is kept in a run names nothing outside of it.
    inside = {name: run / KEPT.parent / Path(str(options[name])).name for name in _FILES if options.get(name)}
    return [_word(name, value) for name, value in (options | inside).items()]


def _word(name: str, value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value) + "B" * (name == "memory")
    return f"--{name.replace('_', '-')}" + ("" if value is True else f"={text}")


_LOADS = {"tokens_per_month", "requests_per_month", "requests_per_s", "traffic"}


def of_report(args: argparse.Namespace, loaded: api.Loaded, run: Path) -> Plan | None:
    """The plan of a report: what its options ask for, else what the run's last plan did; ``None`` for neither."""
    if asked := _asked(args):
        plan = planned(args, loaded, most=MOST_ROWS)
        whose = "Your load" if asked.keys() & _LOADS else "The default load, with your options"
    else:
        try:
            if not (words := _kept(run)):
                return None
            plan, whose = planned(_read(words), loaded, most=MOST_ROWS), "The load of the last plan"
        except (PhaselawError, argparse.ArgumentError) as error:
            note(f"priced with the defaults, since the last plan's inputs can't be used: {error}")
            return None
        note(f"priced with the inputs of the run's last plan: {' '.join(words)}")
    note(*plan.document["notes"])
    plan.document["assumptions"]["whose"] = whose
    return plan


def _parts_shown(args: argparse.Namespace) -> list[str]:
    """The parts to print: those named, else capacity and what the options ask about. Raises `UsageError`."""
    if args.show is not None:
        named = [name.strip() for name in args.show.split(",")]
        for name in named:
            if name not in (*PARTS, "all"):
                raise UsageError(f"--show {name}: not of {', '.join(PARTS)}, all{meant(name, PARTS)}")
        return list(PARTS) if "all" in named else named
    asked = {
        "capacity": True,
        "requests": args.requests_per_month or args.requests_per_s or args.traffic,
        "budget": args.budget,
        "users": (args.slo_ttft, args.slo_tpot) != (None, None),
        "api": args.api or args.api_in or args.api_out,
        "day": args.day,
        "compare": args.compare is not None,
        "mixes": args.mixes is not None or args.traffic or args.rates_by == "phases",
        "sensitivity": args.rates or args.volumes,
        "quality": args.success_rates,
        "tiers": args.tiers is not None,
    }
    return [name for name in PARTS if asked[name]]


def _measured(args: argparse.Namespace) -> api.Loaded | None:
    """The runs; ``None`` where a rate was given in their place. Raises `UsageError` for both or neither."""
    if bool(args.run_paths) == (args.tokens_per_s is not None):
        raise UsageError("give runs, or --tokens-per-s with a rate from elsewhere, not both")
    if args.tokens_per_s is None:
        if args.params is not None:
            raise UsageError("--params goes with --tokens-per-s: a run knows its models")
        return api.load(*args.run_paths, allow_different=args.allow_different)
    for name in ("backends", "models", "compare", "tiers", "between_runs", "slo_ttft", "slo_tpot", "memory"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is about a run's models; --tokens-per-s gives one rate")
    return None


def _same_accelerator(args: argparse.Namespace, workers: Sequence[Replica]) -> None:
    """Raise `UsageError` where an accelerator's price would be put on a rate that was measured on another one."""
    asked, count = args.accelerator, args.accelerators_per_worker or 1
    for backend, machine in {worker.backend: worker.machine for worker in workers}.items():
        if not machine.used(asked, count):
            was = f"{backend} was measured on {', '.join(machine.accelerators)}"
            rather = f"give the rate of {count} x {asked} (--tokens-per-s), or a run on it"
            raise UsageError(f"--accelerator {asked}: {was}; {rather}")


GIVEN = "given"  # the backend of a rate without a name


def _rates_given(text: str | None) -> dict[str, float]:
    """The rates of ``--tokens-per-s`` by accelerator: ``10755``, or ``H100=10755,A100=5200``; raises `UsageError`."""
    parts = [] if text is None else [text] if amount(text) > 0 else text.split(",")
    found = {name.strip() or GIVEN: amount(rate) for name, _, rate in (part.rpartition("=") for part in parts)}
    unclear = len(found) != len(parts) or (len(found) > 1 and GIVEN in found)
    if unclear or not all(1e-6 <= rate < LARGEST for rate in found.values()):
        raise UsageError(f"--tokens-per-s {text!r}: give a rate from 1e-6 on, or NAME=X,... for several accelerators")
    return found


def _given(args: argparse.Namespace, rates: Mapping[str, float], price: float | Mapping[str, float]) -> list[Replica]:
    millions = args.params and args.params / 1e6
    name = "a model" if millions is None else f"a model of {millions / 1e3:,.4g}B parameters"
    usd = price if isinstance(price, Mapping) else dict.fromkeys(rates, price)
    named = ((of, name if of == GIVEN else of, rate) for of, rate in rates.items())
    return [stated(told, rate, usd[of], backend=of, params_millions=millions) for of, told, rate in named]


def _chosen(args: argparse.Namespace, loaded: api.Loaded, price: Price, most: int | None) -> list[Replica]:
    """The replicas that are planned with: those of the backends and models that were named."""
    how: dict[str, Any] = {"between_runs": args.between_runs, "most": most, "slo_ms": _slo_ms(args)}
    workers = replicas_of(loaded.run, loaded.analysis, price, **how)
    if not workers:
        raise AnalysisError(f"{loaded.run.path}: no end-to-end rates to plan with (no ok rows of e2e_kv)")
    for name, key in (("backends", "backend"), ("models", "model")):
        known = list(dict.fromkeys(getattr(worker, key) for worker in workers))
        wanted = opt.chosen(f"--{name}", getattr(args, name), known)
        workers = [worker for worker in workers if getattr(worker, key) in wanted]
    if args.memory is not None:
        workers = [replace(each, machine=replace(each.machine, memory_bytes=args.memory)) for each in workers]
    return workers


def _without_a_rate(loaded: api.Loaded, workers: Sequence[Replica]) -> list[str]:
    """The models that no plan can be made for, though calls of theirs succeeded."""
    called = loaded.rows.filter((pl.col("mode") == "e2e_kv") & (pl.col("status") == "ok"))["model"]
    lost = sorted(set(called) - {worker.model for worker in workers})
    return [f"left out, since their rates are 0 or not known: {', '.join(lost)}"] if lost else []


def _compared(text: str | None, workers: Sequence[Replica]) -> dict[str, Any]:
    """The ``baseline`` that all models stand against, or those that are ``compared``, each against the next."""
    known = {worker.model for worker in workers}
    names = [text] if text in known else text.split(",") if text else []
    for name in names:
        if name not in known:
            raise UsageError(f"--compare {name}: not among the models that are planned")
    return {"baseline": names[0] if len(names) == 1 else None, "compared": names if len(names) > 1 else []}


def _question(args: argparse.Namespace, models: set[str], profile: Mapping[str, Any] | None, hour: "_Hour") -> Question:
    """The question that the options ask of these models; raises `UsageError`."""
    mixes = inputs.read_mixes(Path(args.mixes)) if args.mixes else inputs.TR121_MIXES
    rate, burst = args.requests_per_s, 1.0
    if args.requests_per_month is not None:
        rate = args.requests_per_month / SECONDS_PER_MONTH
    if profile is not None:
        rate, kinds, burst = load_of(profile, args.traffic)
        mixes = kinds if args.mixes is None else mixes
    cached = (profile or {}).get("cached_prompt_share") if args.cached_share is None else args.cached_share
    tiers = hour.prices if isinstance(hour.prices, dict) else {"as planned": hour.prices}
    if (hour.prices, hour.currency) == (TR121_USD_PER_HOUR, "USD"):
        tiers = inputs.TR121_TIERS
    mixes = tuple(replace(mix, cached_share=cached or 0.0) for mix in mixes)
    if args.failure_usd is not None and args.success_rates is None:
        raise UsageError("--failure-usd needs --success-rates: how often each model fails")
    if args.rates:
        tiers = inputs.read_tiers(args.rates)
    # Prices by backend are not by the kind of an offer, whatever a backend is called.
    day = _day(args, profile, None if tiers is hour.prices else tiers.get("spot"))
    two = None if args.tiers is None else tuple(name.strip() for name in args.tiers.split(","))
    if two is not None and len(two) != 2:
        raise UsageError(f"--tiers {args.tiers!r}: give two models, DEFAULT,PREMIUM")
    return Question(
        tokens_per_month=args.tokens_per_month or DEFAULT_TOKENS_PER_MONTH,
        requests_per_s=rate,
        mixes=mixes,
        kinds_given=args.mixes is not None or profile is not None,
        itemised=args.traffic is None or args.mixes is not None,
        headroom=Headroom(utilisation=args.utilisation, burst=args.burst or burst, spares=args.spares),
        volumes=args.volumes or inputs.TR121_VOLUMES,
        tiers=tiers,
        day=day,
        success_rates=inputs.read_success_rates(args.success_rates, models) if args.success_rates else {},
        budget_usd=args.budget,
        slo_ms=_slo_ms(args),
        api=_api(args, hour.currency),
        tier_models=two,
        phase_split_rates=args.rates_by == "phases",
        **{name: getattr(args, name) for name in ("failure_usd", "premium_share", "batch", "extrapolate")},
    )


def _day(args: argparse.Namespace, profile: Mapping[str, Any] | None, spot: float | None) -> Day | None:
    """The day that is planned, with what an hour of a spot worker costs; raises `UsageError`."""
    if args.day and profile is not None:
        taken = 0.05 if args.interruptions is None else args.interruptions
        assumed = {"scale_out_s": args.scale_out_delay, "spot_usd_per_hour": spot, "interruptions": taken}
        return Day(hours=day_of(profile, args.traffic), **assumed)
    for name in ("day", "interruptions", "scale_out_delay"):
        if getattr(args, name) not in (False, None):
            needs = "--traffic: the profile of a log that covers a whole day" if name == "day" else "--day"
            raise UsageError(f"--{name.replace('_', '-')} needs {needs}")
    return None


def _slo_ms(args: argparse.Namespace) -> tuple[float, float] | None:
    """What a user waits at most for the first token, and for each other one; infinite where only the other is given."""
    first, further = (math.inf if wait is None else 1e3 * wait for wait in (args.slo_ttft, args.slo_tpot))
    if args.batch is not None and min(first, further) < math.inf:
        raise UsageError("--batch: how many are served at once follows from --slo-ttft and --slo-tpot; give either")
    return (first, further) if min(first, further) < math.inf else None


def _api(args: argparse.Namespace, currency: str) -> tuple[str, Tariff] | None:
    """The hosted API that was named or whose prices were given; raises `UsageError`."""
    both = (args.api_in, args.api_out)
    if (args.api is not None or None in both) and (*both, args.api_cached) != (None, None, None):
        raise UsageError("a hosted API goes by --api NAME, or by --api-in and --api-out (and --api-cached)")
    if args.api is not None:
        if currency != "USD":
            in_usd = f"its list is in USD, the plan in {currency}; give --api-in and --api-out"
            raise UsageError(f"--api {args.api}: {in_usd}")
        return listed(args.api, dt.datetime.now(dt.UTC))
    prices = (*both, args.api_in if args.api_cached is None else args.api_cached)
    return None if None in both else ("The API, at the prices given", lambda _: prices)


class _Hour(NamedTuple):
    """What an hour of a worker costs, or of each backend or given rate, and where that is from."""

    prices: float | dict[str, float]
    currency: str
    choices: tuple[Choice, ...] = ()
    notes: tuple[str, ...] = ()


def _hour(args: argparse.Namespace, names: Sequence[str]) -> _Hour:
    """What an hour of each backend, or of each given rate, costs; raises `UsageError`."""
    if args.prices is None:
        for name in ("provider", "spot", "prices_date", "accelerator", "accelerators_per_worker"):
            if getattr(args, name):
                raise UsageError(f"--{name.replace('_', '-')} is about a price list; give --prices too")
        text = args.usd_per_hour or f"${TR121_USD_PER_HOUR}"
        priced = list(inputs.read_prices(text, "--usd-per-hour", "dollars, or BACKEND=USD,..."))
        prices = {name: usd for name, usd, _ in priced}
        if len(prices) < len(priced) or (set(prices) != {""} and set(prices) != set(names)):
            raise UsageError(f"--usd-per-hour {text!r}: give one price, or one for each of {', '.join(names)}")
        return _Hour(prices.get("", prices), _currency(args, {code for _, _, code in priced if code}))
    if args.usd_per_hour is not None:
        raise UsageError("--usd-per-hour and --prices both say what an hour costs; give one")
    if args.accelerator is None and (args.tokens_per_s is None or list(names) == [GIVEN]):
        raise UsageError("--prices and --accelerator go together: the list, and what to look up in it")
    dated = read_date(args.prices_date, "--prices-date") if args.prices_date else None
    offers, unread = read_offers(args.prices, kind="spot" if args.spot else "on-demand", dated=dated)
    how = {"provider": args.provider, "accelerators": args.accelerators_per_worker or 1, "today": dt.date.today()}
    chosen = {name: choose(offers, args.accelerator or name, **how) for name in names}
    once = tuple(dict.fromkeys(chosen.values()))
    lost = [f"price: {len(unread)} row(s) of the list not understood, the first at {unread[0]}"] if unread else []
    notes = (*lost, *(line for choice in once for line in choice.notes()))
    currency = _currency(args, {choice.offer.currency for choice in once})
    return _Hour({name: choice.usd_per_hour for name, choice in chosen.items()}, currency, once, notes)


def _currency(args: argparse.Namespace, said: set[str]) -> str:
    """The one currency of all amounts; raises `UsageError` for several."""
    rates = inputs.read_prices(args.rates, "--rates", inputs.RATES) if args.rates else ()
    found = {*said, *(code for _, _, code in rates if code), *([args.currency] if args.currency else [])}
    if len(found) > 1:
        give = "give all in one currency, --usd-per-hour among them"
        raise UsageError(f"prices in {' and '.join(sorted(found))}: {give}")
    return found.pop() if found else "USD"
