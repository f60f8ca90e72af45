"""Workers and dollars of a token volume on one kind of worker (method 5, first point; TR121 8.1-8.3).

Everything is derived from the measured end-to-end tokens/s of a worker. The fraction of workers is a lower bound: a
fleet that is busy all the time, without bursts, queues or spares. Whole workers have the headroom that is asked for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from phaselaw.errors import UsageError
from phaselaw.laws.regression import Floats
from phaselaw.plan.estimate import flat
from phaselaw.plan.workers import Worker

SECONDS_PER_MONTH = 30 * 86_400
"""TR121's month of 30 days."""

HOURS_PER_MONTH = SECONDS_PER_MONTH / 3600


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Headroom:
    """What whole workers keep free; the default is none. Raises `UsageError` for what makes no sense."""

    utilisation: float = 1.0
    """Share of its time that a worker may be busy."""
    burst: float = 1.0
    """Peak load over the mean, which the fleet must carry."""
    spares: int = 0
    """Workers on top, for those that fail."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise UsageError(f"--utilisation {self.utilisation:g}: give a share above 0 and at most 1")
        if not 1 <= self.burst < float("inf"):
            raise UsageError(f"--burst {self.burst:g}: give peak load over mean load, 1 or more")
        if self.spares < 0:
            raise UsageError(f"--spares {self.spares}: give a count, 0 or more")


def average_tokens_per_s(tokens_per_month: float) -> float:
    """Average load in tokens/s of a monthly volume, over a month of 30 days."""
    return tokens_per_month / SECONDS_PER_MONTH


def workers_needed(tokens_per_month: float | Floats, tokens_per_s: Floats) -> Floats:
    """Workers, as a fraction, that serve a monthly volume when busy all the time."""
    needed: Floats = tokens_per_month / SECONDS_PER_MONTH / tokens_per_s
    return needed


def whole_workers(workers: Floats, headroom: Headroom) -> Floats:
    """``ceil(workers x burst / utilisation) + spares``: a fleet of whole workers; no load still keeps the spares."""
    exact = workers * headroom.burst / headroom.utilisation
    # A product that is whole but for rounding is whole.
    return np.ceil(np.round(exact, 9)) + headroom.spares


def usd_per_million_tokens(tokens_per_s: Floats, usd_per_hour: float) -> Floats:
    """``1e6 / tokens_per_s / 3600 x usd_per_hour``: dollars for a million tokens under time-priced compute."""
    price: Floats = 1e6 / tokens_per_s / 3600.0 * usd_per_hour
    return price


def usd_per_month(workers: Floats, usd_per_hour: float) -> Floats:
    """Dollars for so many workers' hours of a month."""
    return workers * HOURS_PER_MONTH * usd_per_hour


def positive(option: str, value: float) -> float:
    """The value; raises `UsageError` naming the option where it is no positive finite number."""
    if not 0 < value < float("inf"):
        raise UsageError(f"{option} {value:g}: give a positive number")
    return value


def capacity_row(worker: Worker, tokens_per_month: float, headroom: Headroom) -> dict[str, Any]:
    """One worker's row: rate, workers as a fraction and whole, $/1M, $/month of the time used and of the fleet."""
    workers = workers_needed(tokens_per_month, worker.tokens_per_s)
    whole = whole_workers(workers, headroom)
    return {
        **worker.names,
        **flat(
            tokens_per_s=worker.tokens_per_s,
            workers=workers,
            usd_per_1m=usd_per_million_tokens(worker.tokens_per_s, worker.usd_per_hour),
            usd_per_month=usd_per_month(workers, worker.usd_per_hour),
            whole_workers=whole,
            usd_per_month_whole=usd_per_month(whole, worker.usd_per_hour),
        ),
        "usd_per_hour": worker.usd_per_hour,
        "rate_status": worker.rate_status,
        "interval_basis": worker.interval_basis,
    }
