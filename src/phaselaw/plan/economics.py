"""A plan: what a load needs and costs, as the tables of ``phaselaw plan`` (`phaselaw.plan.tables`)."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from phaselaw.errors import UsageError
from phaselaw.laws.concurrency import users_within
from phaselaw.laws.rates import ends_of
from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import StepTimes
from phaselaw.plan import DEFAULT_PREMIUM_SHARE, DEFAULT_TOKENS_PER_MONTH, capacity
from phaselaw.plan.capacity import HOURS_PER_MONTH, SECONDS_PER_MONTH, UNKNOWN, Headroom, exact, mean_tokens
from phaselaw.plan.coverage import of_load, own_requests
from phaselaw.plan.day import Day, day_rows
from phaselaw.plan.decisions import Tiers, break_even, cascade_row, decision_delta, routed_row, success_row
from phaselaw.plan.hosted import Tariff, api_row, by_volume, usd_per_token
from phaselaw.plan.inputs import TR121_MIXES, TR121_TIERS, TR121_VOLUMES
from phaselaw.plan.phase_split import at_mixture, request_row, split, token_prices
from phaselaw.plan.replicas import MOST_PAIRED, Coverage, Replica, pairs, price
from phaselaw.plan.tables import row
from phaselaw.records import Mix, finite
from phaselaw.tables import MOST_CURVES, Row, alike

Tables = dict[str, list[Row]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a plan; the defaults are TR121's, and every one of them is an assumption."""

    tokens_per_month: float = DEFAULT_TOKENS_PER_MONTH
    """Not used where ``requests_per_s`` is given: then the requests' tokens count."""
    requests_per_s: float | None = None
    mixes: tuple[Mix, ...] = TR121_MIXES
    kinds_given: bool = False
    """Whether the load is of just these kinds; TR121's, where nobody gave them, are priced beside the run's own."""
    itemised: bool = True
    """Whether each kind of request gets its rows, or (the many kinds of a traffic profile) only the average one."""
    headroom: Headroom = dataclasses.field(default_factory=Headroom)
    volumes: tuple[float, ...] = TR121_VOLUMES
    tiers: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TR121_TIERS))
    success_rates: Mapping[str, Floats] = dataclasses.field(default_factory=dict)
    failure_usd: float | None = None
    tier_models: tuple[str, str] | None = None
    """Default and premium model; ``None``: the smallest and the largest of each backend."""
    premium_share: float = DEFAULT_PREMIUM_SHARE
    batch: int | None = None
    """Requests served at once, for the phase-split price; ``None``: as each replica was measured."""
    extrapolate: bool = False
    budget_usd: float | None = None
    """Dollars a month, for what they carry."""
    slo_ms: tuple[float, float] | None = None
    """What a user waits at most, for the first token and for each further one: how many at once do?"""
    day: Day | None = None
    api: tuple[str, Tariff] | None = None
    """What to call it, and its prices."""
    phase_split_rates: bool = False
    """Whether every table goes by the mixture's phase-split rate instead of the run's own tokens/s."""

    @property
    def volume(self) -> float:
        """Tokens a month of the load."""
        if self.requests_per_s is None:
            return self.tokens_per_month
        return self.requests_per_s * SECONDS_PER_MONTH * mean_tokens(self.mixes)

    @property
    def of_own_requests(self) -> bool:
        """Whether the load is one of the run's own requests: in tokens, without kinds of request."""
        uncached = tuple(dataclasses.replace(mix, cached_share=0.0) for mix in self.mixes)
        return self.requests_per_s is None and not self.kinds_given and uncached == TR121_MIXES

    def covered(self, replica: Replica) -> Replica:
        """The replica with what its figures stand on: for the load, and for one of its requests."""
        if replica.load.status not in ("measured", "given"):  # by phases, for just these requests, or not at all
            return replica
        request, load = of_load(replica, self.mixes), replica.load
        if not self.of_own_requests:
            load = request
        elif load.status == "measured":
            load = Coverage(why=own_requests(replica))
        return dataclasses.replace(replica, load=load, request=request)


def assumptions(question: Question, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Every input of the plan besides the measurements."""
    prices = {replica.usd_per_hour for replica in replicas}
    return {
        "tokens_per_month": question.volume,
        "usd_per_hour": prices.pop() if len(prices) == 1 else None,
        "seconds_per_month": SECONDS_PER_MONTH,
        "requests_per_s": question.requests_per_s,
        "tokens_per_request": mean_tokens(question.mixes),
        **dataclasses.asdict(question.headroom),
        **{key: getattr(question, key) for key in ("failure_usd", "premium_share", "phase_split_rates", "extrapolate")},
        "slo_ms": question.slo_ms and [finite(limit) for limit in question.slo_ms],
        "api": question.api and question.api[0],
        "day": question.day and dataclasses.asdict(question.day),
        "pairs": "each two" if len(replicas) <= MOST_PAIRED else "the cheapest of a backend with each other one",
        "mixes": [dataclasses.asdict(mix) for mix in question.mixes],
        "itemised": question.itemised,
    }


def answer(question: Question, replicas: Sequence[Replica], times: Mapping[tuple[str, str], StepTimes]) -> Tables:
    """Every table of the plan by name; tables on quality are absent without success rates.

    Raises `UsageError` for tiers whose models are not among the replicas, and phase-split rates that no replica has.
    """
    by_phases, prices, rated = _phase_split(question, replicas, times)
    if question.phase_split_rates:
        if not rated:
            raise UsageError(f"--rates-by phases: not measured for any model here: {prices[0]['why']}")
        replicas = rated
    known = [
        dataclasses.replace(question.covered(each), success_rate=question.success_rates.get(each.model, UNKNOWN))
        for each in replicas
    ]
    volume, tokens, two = question.volume, mean_tokens(question.mixes), list(pairs(known))
    tiers = [Tiers(*models, volume, tokens, question.headroom) for models in _tier_pairs(question, known)]
    tables: Tables = {
        "rows": [capacity_row(each, volume, question.headroom, limited=question.slo_ms is not None) for each in known],
        "decision_deltas": [decision_delta(small, big, volume, question.headroom) for small, big in two],
        "request_mixes": [_mix_row(each, mix, question) for each in known for mix in _itemised(question)],
        "phase_split": by_phases,
        "token_prices": prices,
        "requests": [_load_row(each, question) for each in known],
        "sensitivity": [line for each in known for line in sensitivity(each, question)],
        "tiering": [routed_row(each, question.premium_share) for each in tiers],
        "cascade": [cascade_row(each) for each in tiers],
    }
    if question.budget_usd is not None:
        tables["budget"] = [_budget_row(each, question, question.budget_usd) for each in known]
    if question.slo_ms is not None:
        tables["users"] = [line for each in known for line in _user_rows(each, question.slo_ms)]
        if not tables["users"]:
            raise UsageError("--slo-ttft, --slo-tpot: no run swept clients: measure a server with concurrency: 1,2,4,8")
    if question.api is not None:
        against = (usd_per_token(question.api[1], question.mixes), volume, question.headroom)
        tables["api"] = [api_row(each, *against) for each in known]
        shown = sorted(known, key=price)[:MOST_CURVES]
        tables["api_by_volume"] = [line for each in shown for line in by_volume(each, *against)]
    if question.day is not None:
        load = volume / SECONDS_PER_MONTH / tokens
        days = [day_rows(each, question.day, load, tokens, question.headroom) for each in known]
        for at, name in enumerate(("day", "day_hours")):
            tables[name] = [line for found in days for line in found[at]]
    if question.success_rates:
        rated = [each for each in known if each.model in question.success_rates]
        tables["cost_per_success"] = [success_row(each, tokens) for each in rated]
        judged = (break_even(small, big, tokens, question.failure_usd) for small, big in two)
        tables["break_even"] = [line for line in judged if line is not None]
    return tables


def capacity_row(replica: Replica, tokens_per_month: float, keeps: Headroom, *, limited: bool = False) -> Row:
    """Rate, replicas as a fraction and whole, $/1M, $/month of the time used and of the fleet.

    Where waits are ``limited``: how often more requests than the limits allow would be there, as the fleet is planned.
    """
    tried = max((cell["concurrency"] for cell in replica.by_clients), default=1)
    fleet, taken = replica.fleet(tokens_per_month, keeps), None
    if limited and replica.clients:
        places = (fleet["whole_workers"][:1] - keeps.spares) * replica.clients
        taken = capacity.all_taken_share(fleet["workers"] * keeps.burst * replica.clients, places)
    return row("rows", replica, clients_tried=tried, **fleet, all_taken_share=taken)


def sensitivity(replica: Replica, question: Question) -> list[Row]:
    """How replicas and dollars move with the volume and with what an hour costs (TR121 8.5)."""
    # A fleet's figures only fall as its rate grows: the ends of the rate's intervals give theirs.
    few = dataclasses.replace(replica, tokens_per_s=ends_of(replica.tokens_per_s))
    priced = {tier: dataclasses.replace(few, usd_per_hour=usd) for tier, usd in question.tiers.items()}
    return [
        row("sensitivity", each, tokens_per_month=volume, tier=tier, **each.fleet(volume, question.headroom))
        for volume in question.volumes
        for tier, each in priced.items()
    ]


def _itemised(question: Question) -> tuple[Mix, ...]:
    """The kinds of request that get rows of their own."""
    if question.itemised:
        return question.mixes
    total = sum(mix.share for mix in question.mixes)
    prompt = sum(mix.share * mix.prompt_tokens for mix in question.mixes) / total
    return (Mix(name="average", prompt_tokens=prompt, output_tokens=mean_tokens(question.mixes) - prompt),)


def _mix_row(replica: Replica, mix: Mix, question: Question) -> Row:
    """A thousand requests of one kind, token-linear (TR121 8.3.2-3)."""
    kinds = (mix,) if question.itemised else question.mixes
    return row(
        "request_mixes",
        replica,
        load=replica.load if question.phase_split_rates else of_load(replica, kinds),
        mix=mix.name,
        **dataclasses.asdict(mix),
        tokens_per_request=mix.tokens,
        usd_per_1k_requests=replica.usd_per_1m * mix.tokens / 1000,
        requests_per_s_per_worker=replica.tokens_per_s / mix.tokens,
    )


def _load_row(replica: Replica, question: Question) -> Row:
    """The load in requests: its rate, what a replica serves of it, and what a request costs."""
    tokens, fleet = mean_tokens(question.mixes), replica.fleet(question.volume, question.headroom)
    load = question.requests_per_s or question.volume / SECONDS_PER_MONTH / tokens
    return row(
        "requests",
        replica,
        load=replica.request,
        **fleet,
        requests_per_s=exact(load),
        requests_per_month=load * SECONDS_PER_MONTH,
        tokens_per_request=tokens,
        requests_per_s_per_worker=replica.tokens_per_s / tokens,
        usd_per_request=fleet["usd_per_month"] / (load * SECONDS_PER_MONTH),
        usd_per_request_whole=fleet["usd_per_month_whole"] / (load * SECONDS_PER_MONTH),
    )


def _budget_row(replica: Replica, question: Question, usd: float) -> Row:
    """The load that a sum a month carries in whole replicas, their headroom kept."""
    keeps, whole = question.headroom, math.floor(round(usd / HOURS_PER_MONTH / replica.usd_per_hour, 9))
    busy = max(0, whole - keeps.spares) * keeps.utilisation / keeps.burst
    carried = busy * SECONDS_PER_MONTH * replica.tokens_per_s
    fits = "yes" if carried[0] >= question.volume * (1 - 1e-9) else "no"
    return row(
        "budget",
        replica,
        budget_usd=usd,
        whole_workers=exact(whole),
        usd_per_month_whole=exact(whole * HOURS_PER_MONTH * replica.usd_per_hour),
        carried_tokens_per_month=carried,
        carried_requests_per_s=carried / SECONDS_PER_MONTH / mean_tokens(question.mixes),
        fits=None if replica.load.status == "not_possible" else fits,
    )


def _user_rows(replica: Replica, slo_ms: tuple[float, float]) -> list[Row]:
    """By prompt, how many clients at once were measured to wait no longer, and the next number, which waited longer."""
    rows = []
    for (prompt,), cells in alike(replica.by_clients, "scenario").items():
        most, beyond = users_within(cells, slo_ms)
        found: dict[str, Any] = {"scenario": prompt, "users": exact(most["concurrency"] if most else 0)}
        for prefix, cell in (("", most), ("next_", beyond)):
            figures = {name: cell[name] for name in ("ttft_ms_p95", "step_ms_p95")} if cell else {}
            found |= {f"{prefix}{name}": exact(ms) for name, ms in figures.items() if ms is not None}
        found["next_clients"] = exact(beyond["concurrency"]) if beyond else None
        found["n_calls"] = exact(most["n_groups"] * most["concurrency"]) if most else None
        failed = beyond and beyond["n_groups_with_failures"]
        why = f"{failed} groups of {found['next_clients'][0]:g} clients had calls that failed" if failed else None
        rows.append(row("users", replica, load=Coverage(why=why), **found))
    return rows


def _phase_split(
    question: Question, replicas: Sequence[Replica], times: Mapping[tuple[str, str], StepTimes]
) -> tuple[list[Row], list[Row], list[Replica]]:
    """Rows of requests, rows of token prices, and the replicas at the mixture's rate."""
    requests, prices, rated = [], [], []
    # Replicas that differ in no more than their output length have one phase-split price.
    at_once = ((each, question.batch or each.batch_size * each.clients) for each in replicas)
    once = {(each.backend, each.model, batch): each for each, batch in at_once}
    for (backend, model, batch), each in once.items():
        replica, phases = dataclasses.replace(each, batch_size=batch), times.get((backend, model), {})
        seconds = [split(replica, phases, mix, extrapolate=question.extrapolate) for mix in question.mixes]
        found = token_prices(question.mixes, seconds, replica.usd_per_hour)
        if question.itemised:
            requests += [request_row(replica, *of_kind) for of_kind in zip(question.mixes, seconds, strict=True)]
        prices.append(row("token_prices", replica, **vars(found), load=found, gen_tokens=None))
        if found.status != "not_possible":
            rated.append(at_mixture(replica, found, mean_tokens(question.mixes)))
    return requests, prices, rated


def _tier_pairs(question: Question, replicas: Sequence[Replica]) -> list[tuple[Replica, Replica]]:
    """The default and the premium model: those that were named, else the smallest and the largest of each backend.

    A name is a model's, or ``BACKEND/MODEL``; where it fits several replicas, the cheapest is meant.
    """
    named = []
    for name in question.tier_models or ():
        fitting = [each for each in replicas if name in (each.model, f"{each.backend}/{each.model}")]
        if not fitting:
            known = ", ".join(dict.fromkeys(replica.model for replica in replicas))
            raise UsageError(f"--tiers {name}: not in this run; it has: {known}")
        named.append(min(fitting, key=price))
    if named:
        return [(named[0], named[1])]
    backends: defaultdict[Any, list[Replica]] = defaultdict(list)
    for replica in replicas:
        backends[replica.backend, replica.batch_size, replica.gen_tokens].append(replica)
    return [(min(group, key=_size), max(group, key=_size)) for group in backends.values() if len(group) > 1]


def _size(replica: Replica) -> tuple[float, float]:
    """By which models are smaller and larger: their parameters, where they are known, then their price."""
    return replica.params_millions or 0.0, price(replica)
