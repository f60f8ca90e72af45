"""A hosted API in place of own workers: what the same traffic costs there, and from which volume own workers pay."""

import datetime as dt
from collections.abc import Callable, Sequence
from importlib import metadata

import numpy as np

from phaselaw.errors import UsageError
from phaselaw.laws.regression import Floats
from phaselaw.plan.capacity import HOURS_PER_MONTH, SECONDS_PER_MONTH, Headroom, exact, mean_tokens
from phaselaw.plan.decisions import verdict
from phaselaw.plan.replicas import Replica
from phaselaw.plan.tables import row
from phaselaw.records import Mix
from phaselaw.tables import Row

_NOTHING = 1e-12  # a margin that is none but for rounding
Tariff = Callable[[float], tuple[float, float, float]]
"""Dollars for a million input, output and cached input tokens of requests whose prompt has so many tokens."""


def listed(name: str, now: dt.datetime) -> tuple[str, Tariff]:
    """A model's prices by the list of ``genai-prices``, offline, and what to call them; raises `UsageError`."""
    rather = "give --api-in and --api-out"
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        raise UsageError(f"--api {name}: needs a price list: pip install 'phaselaw[api]', or {rather}") from None

    def tariff(prompt_tokens: float) -> tuple[float, float, float]:
        n = max(1, round(prompt_tokens))
        uses = (Usage(input_tokens=n, output_tokens=n), Usage(input_tokens=n, cache_read_tokens=n))
        fresh, cached = (calc_price(each, name, genai_request_timestamp=now) for each in uses)
        usd = [float(each) / n * 1e6 for each in (fresh.input_price, fresh.output_price, cached.input_price)]
        return usd[0], usd[1], usd[2]

    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), name, genai_request_timestamp=now)
        if not found.total_price:
            raise LookupError
    except LookupError:
        raise UsageError(f"--api {name}: the list of genai-prices has no price of it; {rather}") from None
    edition = metadata.version("genai-prices")
    return f"{found.provider.name} {found.model.id}, genai-prices {edition} on {now:%Y-%m-%d}", tariff


def usd_per_token(tariff: Tariff, mixes: Sequence[Mix]) -> float:
    """Dollars for one token of a mixture, whichever it is."""
    usd = 0.0
    for mix in mixes:
        fresh, output, cached = tariff(mix.prompt_tokens)
        prompt = (1 - mix.cached_share) * fresh + mix.cached_share * cached
        usd += mix.share * (mix.prompt_tokens * prompt + mix.output_tokens * output) / 1e6
    return usd / sum(mix.share for mix in mixes) / mean_tokens(mixes)


def break_even(carried: Floats, usd_per_worker: float, idle: int, usd_per_token: float) -> tuple[Floats, Floats]:
    """The fewest workers, ``idle`` ones among them, that some volume pays for, and the least such volume; inf: never.

    ``k`` workers with load pay from ``(k + idle) usd_per_worker / usd_per_token`` on, if they carry so much.
    """
    margin = carried * usd_per_token / usd_per_worker - 1  # of a worker that is full
    never = (margin < -_NOTHING) | ((margin <= _NOTHING) & (idle > 0))
    loaded = np.ceil(idle / np.maximum(margin, _NOTHING) - 1e-9)
    workers = np.where(never, np.inf, np.maximum(1, loaded)) + idle
    return workers, workers * usd_per_worker / usd_per_token


def against(replica: Replica, price: float, tokens_per_month: float, keeps: Headroom) -> dict[str, Floats]:
    """Own workers, whole and all month; what they save against an API at a ``price`` of a token, and where they pay."""
    fleet, worker = replica.fleet(tokens_per_month, keeps), HOURS_PER_MONTH * replica.usd_per_hour
    carried = SECONDS_PER_MONTH * replica.tokens_per_s * keeps.utilisation / keeps.burst
    workers, first = break_even(carried, worker, keeps.spares, price)
    return fleet | {
        "saved_usd_per_month_whole": price * tokens_per_month - fleet["usd_per_month_whole"],
        "pays_from_tokens_per_month": first,
        "pays_from_workers": workers,
        "always_from_tokens_per_month": break_even(carried, worker, keeps.spares + 1, price)[1] - worker / price,
    }


def api_row(replica: Replica, price: float, tokens_per_month: float, keeps: Headroom) -> Row:
    """One model's own workers, whole and all month, against an API at a ``price`` of a token."""
    found = against(replica, price, tokens_per_month, keeps)
    pays = "never" if np.isinf(found["pays_from_workers"][0]) else verdict(found["saved_usd_per_month_whole"])
    dollars = exact(price * tokens_per_month)
    return row("api", replica, **found, usd_per_month_api=dollars, load=replica.request, pays=pays)


def by_volume(replica: Replica, price: float, tokens_per_month: float, keeps: Headroom) -> list[Row]:
    """A month of own workers and of the API, from a hundredth of the load to a hundred times it."""
    volumes = [tokens_per_month * 10.0 ** (step / 10) for step in range(-20, 21)]
    months = ({"tokens_per_month": each, "usd_per_month_api": exact(price * each)} for each in volumes)
    fleets = (month | replica.fleet(month["tokens_per_month"], keeps) for month in months)
    return [row("api_by_volume", replica, load=replica.request, **each) for each in fleets]
