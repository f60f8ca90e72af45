"""Capacity and price of a token volume on one kind of worker (method 5, first point; TR121 8.1-8.3).

Everything is derived from the measured end-to-end tokens/s of a worker. The worker count is a fraction and a lower
bound: a fleet that is busy all the time, without bursts, queues or spares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from phaselaw.errors import UsageError

SECONDS_PER_MONTH = 30 * 86_400
"""TR121's month of 30 days."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its interval; ``low`` and ``high`` are ``None`` where no interval could be measured."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CapacityRow:
    """What one model on one backend needs for a volume of tokens."""

    backend: str
    model: str
    batch_size: int
    gen_tokens: int | None
    """Decode budget of the measurement the rate is from."""
    tokens_per_s: Estimate
    """Measured: end-to-end tokens (prompt and generated) a second and worker."""
    workers: Estimate
    """Derived: workers busy all the time, a lower bound."""
    usd_per_1m: Estimate
    """Derived: dollars for a million tokens."""
    usd_per_month: Estimate
    """Derived: dollars a month for the volume."""
    interval_basis: str
    """What the intervals hold: ``rounds, within this run only``, or why there are none."""
    suspect: str = ""
    """The validity checks that speak against the rows behind it (`phaselaw.laws.validity.checks`); empty: none."""


def average_tokens_per_s(tokens_per_month: float) -> float:
    """Average load in tokens/s of a monthly volume, over a month of 30 days."""
    return tokens_per_month / SECONDS_PER_MONTH


def workers_needed(tokens_per_month: float, tokens_per_s: float) -> float:
    """Workers, as a fraction, that serve a monthly volume when busy all the time."""
    return average_tokens_per_s(tokens_per_month) / tokens_per_s


def usd_per_million_tokens(tokens_per_s: float, usd_per_hour: float) -> float:
    """``1e6 / tokens_per_s / 3600 x usd_per_hour``: dollars for a million tokens under time-priced compute."""
    return 1e6 / tokens_per_s / 3600.0 * usd_per_hour


def capacity(
    throughput: Iterable[Mapping[str, Any]], *, tokens_per_month: float, usd_per_hour: float
) -> list[CapacityRow]:
    """Workers and prices for each row of the ``throughput_intervals`` table whose phase is ``e2e_kv``.

    Raises `UsageError` where the volume or the price is not a positive finite number.
    """
    for name, value in (("--tokens-per-month", tokens_per_month), ("--usd-per-hour", usd_per_hour)):
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} {value:g}: give a positive number")
    return [
        _row(dict(row), tokens_per_month, usd_per_hour)
        for row in throughput
        if row["mode"] == "e2e_kv" and row["tokens_per_s"]
    ]


def _row(measured: dict[str, Any], tokens_per_month: float, usd_per_hour: float) -> CapacityRow:
    rate = Estimate(
        value=measured["tokens_per_s"], low=measured["tokens_per_s_low"], high=measured["tokens_per_s_high"]
    )

    def derived(value: float) -> float:
        return workers_needed(tokens_per_month, value)

    def price(value: float) -> float:
        return usd_per_million_tokens(value, usd_per_hour)

    def month(value: float) -> float:
        return price(value) * tokens_per_month / 1e6

    def falling(of: Any) -> Estimate:
        """A figure that falls as the rate rises: its low end is at the rate's high end."""
        return Estimate(
            value=of(rate.value),
            low=None if rate.high is None else of(rate.high),
            high=None if rate.low is None else of(rate.low),
        )

    return CapacityRow(
        backend=measured["backend"],
        model=measured["model"],
        batch_size=int(measured["batch_size"]),
        gen_tokens=None if measured.get("gen_tokens_target") is None else int(measured["gen_tokens_target"]),
        tokens_per_s=rate,
        workers=falling(derived),
        usd_per_1m=falling(price),
        usd_per_month=falling(month),
        interval_basis=measured["interval_basis"],
        suspect=measured.get("suspect") or "",
    )


def flat(row: CapacityRow) -> dict[str, Any]:
    """A row as flat JSON keys: ``workers``, ``workers_low``, ``workers_high``, ..."""
    document: dict[str, Any] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Estimate):
            document[field.name] = value.value
            document[f"{field.name}_low"], document[f"{field.name}_high"] = value.low, value.high
        else:
            document[field.name] = value
    return document
