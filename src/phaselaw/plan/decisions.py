"""One model or another: what a dearer one costs more and must do better; two models in one service (TR121 8.3, 9.3).

Success rates come from the user: the share of requests that pass the user's own acceptance test, on the user's own
requests. phaselaw measures time, not quality. A rate that comes with the number of requests it was counted on (``n``)
brings its own uncertainty; one without is taken as exact.

Two models in one service: routed, a share of the requests goes to the premium model and the rest to the default one.
In a cascade every request goes to the default model first and, where that fails, to the premium one too; both are paid.
"""

import dataclasses
from typing import Any

import numpy as np

from phaselaw.laws.checks.frame import suspicions
from phaselaw.laws.rates import thinned
from phaselaw.laws.regression import Floats
from phaselaw.plan.capacity import Headroom, estimate
from phaselaw.plan.coverage import worst
from phaselaw.plan.replicas import NO_HEADROOM, Replica
from phaselaw.plan.tables import row
from phaselaw.tables import Row

_STEPS = 1000
"""Shares tried for the one at which tiers stop paying: to a tenth of a percent."""
_DRAWS = 340
"""Draws of each interval on which they are tried."""
_NO_RATE = "not known: no success rate"


def decision_delta(small: Replica, big: Replica, tokens_per_month: float, headroom: Headroom = NO_HEADROOM) -> Row:
    """``big`` in place of ``small`` for a volume: dollars and replicas more, and the ratio of $/1M.

    The draws of both are of the same rounds, so what slowed both in a round cancels.
    """
    less, more = (each.fleet(tokens_per_month, headroom) for each in (small, big))
    return row(
        "decision_deltas",
        big,
        **_beside("than", small, small, big),
        delta_usd_per_month=more["usd_per_month"] - less["usd_per_month"],
        delta_usd_per_month_whole=more["usd_per_month_whole"] - less["usd_per_month_whole"],
        delta_workers=more["workers"] - less["workers"],
        price_ratio=more["usd_per_month"] / less["usd_per_month"],
    )


def _beside(role: str, other: Replica, *both: Replica) -> dict[str, Any]:
    """The names of the other model of a row about two, and the marks of ``both``."""
    marks = {"suspect": suspicions(each.suspect for each in both), "incomplete": any(each.incomplete for each in both)}
    stands_on = {"load": worst(each.load for each in both), "request": worst(each.request for each in both)}
    return {f"{role}_backend": other.backend, f"{role}_model": other.model} | marks | stands_on


def usd_per_success(usd_per_request: Floats, success_rate: Floats) -> Floats:
    """``C / p``; infinite where nothing succeeds."""
    with np.errstate(divide="ignore"):
        return usd_per_request / success_rate


def needed_success_rate(p_small: Floats, usd_small: Floats, usd_big: Floats) -> Floats:
    """``p_small x C_big / C_small``: what the dearer model's rate must reach; above 1 it can't."""
    return p_small * usd_big / usd_small


def needed_failure_usd(extra_usd: Floats, fewer_failures: Floats) -> Floats:
    """``(C_big - C_small) / (fail_small - fail_big)``: from which cost of a failure on the dearer model pays.

    Infinite where it fails no less often.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fewer_failures <= 0, np.inf, extra_usd / fewer_failures)


def success_row(replica: Replica, tokens_per_request: float) -> Row:
    """One model's cost of a request and of a success."""
    usd = replica.usd_per_request(tokens_per_request)
    success = usd_per_success(usd, replica.success_rate)
    return row("cost_per_success", replica, load=replica.request, usd_per_request=usd, usd_per_success=success)


def break_even(small: Replica, big: Replica, tokens_per_request: float, failure_usd: float | None) -> Row | None:
    """``big`` in place of ``small``, judged on success and on the cost of failures.

    ``None`` where the cheaper model's success rate is not known.
    """
    if np.isnan(small.success_rate[0]):
        return None
    less, more = (each.usd_per_request(tokens_per_request) for each in (small, big))
    needed = needed_success_rate(small.success_rate, less, more)
    worth = needed_failure_usd(more - less, big.success_rate - small.success_rate)
    return row(
        "break_even",
        big,
        **_beside("than", small, small, big) | {"load": worst((small.request, big.request))},
        cost_ratio=more / less,
        needed_success_rate=needed,
        on_success=_on_success(needed, big.success_rate),
        failure_usd=failure_usd,
        needed_failure_usd=worth,
        on_failure_cost=_on_failure(worth, failure_usd),
    )


def _on_success(needed: Floats, reached: Floats) -> str:
    rate = estimate(needed)
    if rate.value is not None and rate.value > 1:
        certain = rate.reach is None or rate.reach[0] > 1
        return "impossible" if certain else "impossible, though the interval reaches below 1"
    return verdict(reached - needed)


def _on_failure(worth: Floats, failure_usd: float | None) -> str:
    if np.isnan(worth[0]):
        return _NO_RATE
    if np.isinf(worth[0]):
        return "never: it fails no less often"
    if failure_usd is None:
        return "depends on what a failure costs"
    # At infinity nothing pays: a finite stand-in keeps the comparison's sign.
    return verdict(failure_usd - np.where(np.isinf(worth), np.finfo(float).max, worth))


def verdict(gain: Floats) -> str:
    """By the interval of what is gained: pays, does not pay, or undecided."""
    gained = estimate(gain)
    if gained.value is None:
        return _NO_RATE
    pays = gained.value >= 0
    if gained.reach is not None and gained.reach[0] < 0 <= gained.reach[1]:
        return f"can't be told: the interval holds both ({'pays' if pays else 'does not pay'} at the point)"
    return "pays" if pays else "does not pay"


@dataclasses.dataclass(frozen=True)
class Tiers:
    """A default and a premium model under one load."""

    default: Replica
    premium: Replica
    tokens_per_month: float
    tokens_per_request: float
    headroom: Headroom

    def costs(self, shares: tuple[float | Floats, float | Floats]) -> dict[str, Floats]:
        """What both need and cost where the default and the premium model serve such shares of the requests."""
        fleets = []
        for tier, share in zip((self.default, self.premium), shares, strict=True):
            fleet = tier.fleet(share * self.tokens_per_month, self.headroom)
            fleet["usd_per_1k_requests"] = share * tier.usd_per_request(self.tokens_per_request) * 1000
            for name in ("whole_workers", "usd_per_month_whole"):
                # A tier that gets no load is not built, not even its spares.
                fleet[name] = np.where(np.equal(share, 0), 0.0, fleet[name])
            fleets.append(fleet)
        default, premium = fleets
        names = ("usd_per_1k_requests", "usd_per_month", "workers", "usd_per_month_whole")
        whole = {"whole_workers_default": default["whole_workers"], "whole_workers_premium": premium["whole_workers"]}
        return {name: default[name] + premium[name] for name in names} | whole


def routed_row(tiers: Tiers, premium_share: float) -> Row:
    """Cost and fleet of routed tiers, beside the premium model alone.

    ``stops_paying_share``: the largest routed share at which the whole replicas of both tiers cost less than those of
    the premium model alone; ``None`` where they never do. As fractions of replicas, tiers pay at any share below 1.
    """
    costs = tiers.costs((1 - premium_share, premium_share))
    rate = (1 - premium_share) * tiers.default.success_rate + premium_share * tiers.premium.success_rate
    alone = tiers.premium.fleet(tiers.tokens_per_month, tiers.headroom)
    return row(
        "tiering",
        tiers.default,
        **_beside("premium", tiers.premium, tiers.default, tiers.premium) | costs,
        premium_share=premium_share,
        saved_usd_per_month=alone["usd_per_month"] - costs["usd_per_month"],
        saved_usd_per_month_whole=alone["usd_per_month_whole"] - costs["usd_per_month_whole"],
        success_rate=rate,
        usd_per_success=usd_per_success(costs["usd_per_1k_requests"] / 1000, rate),
        stops_paying_share=_stops_paying(tiers),
    )


def _stops_paying(tiers: Tiers) -> Floats:
    """The largest share, in steps, at which two fleets cost less than one; NaN where they never do.

    All shares at once, on a part of the draws.
    """
    shares = np.arange(_STEPS + 1)[:, None] / _STEPS
    default, premium = (
        dataclasses.replace(each, tokens_per_s=thinned(each.tokens_per_s, _DRAWS))
        for each in (tiers.default, tiers.premium)
    )
    few = dataclasses.replace(tiers, default=default, premium=premium)
    alone = few.costs((0.0, 1.0))["usd_per_month_whole"]
    # Half a cent: the same replicas summed in another order are no saving.
    pays = few.costs((1 - shares, shares))["usd_per_month_whole"] < alone - 0.005
    found: Floats = np.where(pays.any(axis=0) & ~np.isnan(alone), np.where(pays, shares, 0.0).max(axis=0), np.nan)
    return found


def cascade_row(tiers: Tiers) -> Row:
    """The cascade's cost, fleet and latency, and up to which share of escalations it is cheaper than premium alone.

    ``C_small + e C_big`` with ``e = 1 - p_small`` escalated: cheaper than ``C_big`` while ``e < 1 - C_small / C_big``.
    The success rate is that of independent failures; requests that are hard for one model tend to be for the other, so
    it is an upper bound. Cost and fleet don't depend on it. What needs a success rate is ``None`` without one.
    """
    small, big = (each.usd_per_request(tiers.tokens_per_request) for each in (tiers.default, tiers.premium))
    first, second = tiers.default.e2e_s, tiers.premium.e2e_s
    escalated = 1 - tiers.default.success_rate
    about = _beside("premium", tiers.premium, tiers.default, tiers.premium)
    about |= {"stops_paying_escalated_share": 1 - small / big}
    if np.isnan(escalated[0]):
        return row("cascade", tiers.default, **about, pays=_NO_RATE)
    cost, rate = small + escalated * big, tiers.default.success_rate + escalated * tiers.premium.success_rate
    return row(
        "cascade",
        tiers.default,
        **about | tiers.costs((1.0, escalated)),
        escalated_share=escalated,
        pays=verdict(big - cost),
        mean_latency_s=first + escalated * second,
        escalated_latency_s=first + second,
        success_rate_at_most=rate,
        usd_per_success_at_least=usd_per_success(cost, rate),
    )
