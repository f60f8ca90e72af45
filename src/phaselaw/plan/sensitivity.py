"""How workers and dollars move with the volume and with what an hour costs (TR121 8.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import positive, usd_per_million_tokens, usd_per_month, workers_needed
from phaselaw.plan.estimate import flat
from phaselaw.plan.workers import Worker

TR121_TIERS = {"on-demand": 1.006, "spot": 0.302, "reserved 1 y": 0.704, "reserved 3 y": 0.503}
"""Dollars an hour: TR121 8.5, and the one-year reservation of its predecessor TR119."""

TR121_VOLUMES = (1e8, 1e9, 1e10)
"""Tokens a month (TR121 8.5)."""


def sensitivity(worker: Worker, volumes: Iterable[float], tiers: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row for each volume and tier: workers (a lower bound), $/1M and $/month of one worker's model."""
    rows = []
    for volume in volumes:
        workers = workers_needed(volume, worker.tokens_per_s)
        for tier, usd_per_hour in tiers.items():
            rows.append(
                {
                    **worker.names,
                    "tokens_per_month": volume,
                    "tier": tier,
                    "usd_per_hour": usd_per_hour,
                    **flat(
                        workers=workers,
                        usd_per_1m=usd_per_million_tokens(worker.tokens_per_s, usd_per_hour),
                        usd_per_month=usd_per_month(workers, usd_per_hour),
                    ),
                }
            )
    return rows


def read_tiers(text: str) -> dict[str, float]:
    """Tiers as typed: ``spot=0.302,on-demand=1.006``; raises `UsageError`."""
    tiers = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        try:
            price = float(value)
        except ValueError:
            raise UsageError(f"--rates {part!r}: give NAME=USD, such as spot=0.302") from None
        tiers[name.strip() or f"{price:g}"] = positive("--rates", price)
    return tiers


def read_volumes(text: str) -> tuple[float, ...]:
    """Monthly token volumes as typed: ``1e8,1e9``; raises `UsageError`."""
    try:
        return tuple(positive("--volumes", float(part)) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--volumes {text!r}: give tokens a month, such as 1e8,1e9") from None
