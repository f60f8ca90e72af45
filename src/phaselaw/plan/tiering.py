"""Two models in one service: routed tiers, and the cascade (method 5; TR121 9.3).

Routed: a share of the requests goes to the premium model, the rest to the default one. Cascade: every request goes to
the default model first and, where that fails, to the premium one as well; then both are paid.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from phaselaw.errors import UsageError
from phaselaw.laws.checks.checks import suspicions
from phaselaw.laws.regression import Floats
from phaselaw.plan.capacity import Headroom, usd_per_month, whole_workers, workers_needed
from phaselaw.plan.estimate import exact, flat
from phaselaw.plan.quality import Priced, usd_per_success, verdict

_STEPS = 1000
"""Shares tried for the one at which tiers stop paying: to a tenth of a percent."""
_DRAWS = 1024
"""Draws on which they are tried."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiers:
    """A default and a premium tier under one load."""

    default: Priced
    premium: Priced
    tokens_per_month: float
    headroom: Headroom

    def workers(self, tier: Priced, share: float | Floats) -> Floats:
        """Workers, as a fraction, that a tier needs for a share of the load."""
        return share * workers_needed(self.tokens_per_month, tier.worker.tokens_per_s)

    def fleet(self, tier: Priced, share: float | Floats) -> Floats:
        """Whole workers of a tier; a tier that gets no load is not built."""
        workers = self.workers(tier, share)
        return np.where(workers > 0, whole_workers(workers, self.headroom), 0.0)

    def fleet_usd(self, share: float | Floats) -> Floats:
        """Dollars a month for the whole workers of both tiers, where the premium one gets a share."""
        default = usd_per_month(self.fleet(self.default, 1 - share), self.default.worker.usd_per_hour)
        return default + usd_per_month(self.fleet(self.premium, share), self.premium.worker.usd_per_hour)


def routed_row(tiers: Tiers, premium_share: float) -> dict[str, Any]:
    """Cost and fleet of routed tiers, beside the premium model alone. Raises `UsageError` for a share out of 0..1.

    ``stops_paying_share``: the largest routed share at which the whole workers of both tiers cost less a month than the
    premium model's alone; ``None`` where they never do. As fractions of workers, tiers pay at any share below 1.
    """
    if not 0 <= premium_share <= 1:
        raise UsageError(f"--premium-share {premium_share:g}: give a share from 0 to 1")
    default, premium = tiers.default, tiers.premium
    shares = (1 - premium_share, premium_share)
    workers = [tiers.workers(tier, share) for tier, share in zip((default, premium), shares, strict=True)]
    fleets = [tiers.fleet(tier, share) for tier, share in zip((default, premium), shares, strict=True)]
    used = usd_per_month(workers[0], default.worker.usd_per_hour)
    used = used + usd_per_month(workers[1], premium.worker.usd_per_hour)
    alone = usd_per_month(tiers.workers(premium, 1.0), premium.worker.usd_per_hour)
    blended = shares[0] * default.usd_per_request + shares[1] * premium.usd_per_request
    rate = None
    if default.success_rate is not None and premium.success_rate is not None:
        rate = shares[0] * default.success_rate + shares[1] * premium.success_rate
    return {
        **_names(tiers),
        "premium_share": premium_share,
        **flat(
            usd_per_1k_requests=blended * 1000,
            usd_per_month=used,
            workers=workers[0] + workers[1],
            whole_workers_default=fleets[0],
            whole_workers_premium=fleets[1],
            usd_per_month_whole=tiers.fleet_usd(premium_share),
            saved_usd_per_month=alone - used,
            success_rate=rate,
            usd_per_success=None if rate is None else usd_per_success(blended, rate),
            stops_paying_share=_stops_paying(tiers),
        ),
    }


def _stops_paying(tiers: Tiers) -> Floats:
    """The largest share, in steps, at which two fleets cost less than one; NaN where they never do.

    All shares at once, on a part of the draws: the first of a Sobol sequence are evenly spread by themselves.
    """
    shares = np.arange(_STEPS + 1)[:, None] / _STEPS
    few = dataclasses.replace(tiers, default=_thinned(tiers.default), premium=_thinned(tiers.premium))
    alone = few.fleet_usd(1.0)
    # Half a cent: the same workers summed in another order are no saving.
    pays = few.fleet_usd(shares) < alone - 0.005
    found: Floats = np.where(pays.any(axis=0) & ~np.isnan(alone), np.where(pays, shares, 0.0).max(axis=0), np.nan)
    return found


def _thinned(tier: Priced) -> Priced:
    worker = dataclasses.replace(tier.worker, tokens_per_s=tier.worker.tokens_per_s[: 1 + _DRAWS])
    return dataclasses.replace(tier, worker=worker)


def cascade_row(tiers: Tiers) -> dict[str, Any]:
    """The cascade's cost, fleet and latency, and up to which share of escalations it is cheaper than premium alone.

    ``C_small + e C_big`` with ``e = 1 - p_small`` escalated: cheaper than ``C_big`` while ``e < 1 - C_small / C_big``.
    The success rate is that of independent failures; requests that are hard for one model tend to be for the other, so
    it is an upper bound. Cost and fleet don't depend on it. What needs a success rate is ``None`` without one.
    """
    default, premium = tiers.default, tiers.premium
    row = {**_names(tiers), **flat(stops_paying_escalated_share=1 - default.usd_per_request / premium.usd_per_request)}
    if default.success_rate is None:
        names = ("escalated_share", "usd_per_1k_requests", "usd_per_month", "workers", "whole_workers_default",
                 "whole_workers_premium", "usd_per_month_whole", "mean_latency_s", "escalated_latency_s",
                 "success_rate_at_most", "usd_per_success_at_least")  # fmt: skip
        return row | flat(**dict.fromkeys(names)) | {"pays": "not known: no success rate"}
    escalated = 1 - default.success_rate
    cost = default.usd_per_request + escalated * premium.usd_per_request
    workers = [tiers.workers(default, 1.0), tiers.workers(premium, escalated)]
    fleets = [tiers.fleet(default, 1.0), tiers.fleet(premium, escalated)]
    prices = (default.worker.usd_per_hour, premium.worker.usd_per_hour)
    first, second = default.worker.e2e_s, premium.worker.e2e_s
    latency = None if first is None or second is None else (first + escalated * second, first + second)
    rate = None if premium.success_rate is None else default.success_rate + escalated * premium.success_rate
    return (
        row
        | flat(
            escalated_share=escalated,
            usd_per_1k_requests=cost * 1000,
            usd_per_month=sum((usd_per_month(w, p) for w, p in zip(workers, prices, strict=True)), exact(0)),
            workers=workers[0] + workers[1],
            whole_workers_default=fleets[0],
            whole_workers_premium=fleets[1],
            usd_per_month_whole=sum((usd_per_month(w, p) for w, p in zip(fleets, prices, strict=True)), exact(0)),
            mean_latency_s=None if latency is None else latency[0],
            escalated_latency_s=None if latency is None else latency[1],
            success_rate_at_most=rate,
            usd_per_success_at_least=None if rate is None else usd_per_success(cost, rate),
        )
        | {"pays": verdict(premium.usd_per_request - cost)}
    )


def _names(tiers: Tiers) -> dict[str, Any]:
    return {
        **tiers.default.worker.names,
        "premium_backend": tiers.premium.worker.backend,
        "premium_model": tiers.premium.worker.model,
        "suspect": suspicions((tiers.default.worker.suspect, tiers.premium.worker.suspect)),
    }
