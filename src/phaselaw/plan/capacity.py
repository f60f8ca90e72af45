"""The arithmetic of a plan: replicas and dollars for a volume of tokens (method 5, first point; TR121 8.1-8.3).

Everything is derived from the measured end-to-end tokens/s of a replica (a worker, in the output). The fraction of
replicas is a lower bound: a fleet that is busy all the time, without bursts, queues or spares. Whole replicas have the
headroom that is asked for. A request costs what its tokens do, a prompt token as much as a generated one.

A quantity of a plan is one array: its value, then draws (`phaselaw.laws.rates`). Draws of NaN mean that no interval
could be measured; they spread through all arithmetic, so that no interval misses some noise.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from phaselaw.errors import UsageError
from phaselaw.laws.rates import ends_of
from phaselaw.laws.regression import Floats
from phaselaw.records import Mix, finite

SECONDS_PER_MONTH = 30 * 86_400
"""TR121's month of 30 days."""
HOURS_PER_MONTH = SECONDS_PER_MONTH / 3600


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Headroom:
    """What whole replicas keep free; the default is none. Raises `UsageError` for what makes no sense."""

    utilisation: float = 1.0
    """Share of its time that a replica may be busy."""
    burst: float = 1.0
    """Peak load over the mean, which the fleet must carry."""
    spares: int = 0
    """Replicas on top, for those that fail."""

    def __post_init__(self) -> None:
        if not 1e-6 <= self.utilisation <= 1:
            raise UsageError(f"--utilisation {self.utilisation:g}: give a share above 0 (0.000001 or more), at most 1")
        if not 1 <= self.burst <= 1e6:
            raise UsageError(f"--burst {self.burst:g}: give peak load over mean load, 1 or more, at most 1e6")
        if self.spares < 0:
            raise UsageError(f"--spares {self.spares}: give a count, 0 or more")


def whole_workers(workers: Floats, headroom: Headroom) -> Floats:
    """``ceil(workers x burst / utilisation - 1e-9) + spares``, one at least; no load keeps the spares alone."""
    load = workers * headroom.burst / headroom.utilisation
    # A product that is whole but for rounding is whole. (NaN is above nothing, and stays through the maximum.)
    whole: Floats = np.maximum(np.ceil(load - 1e-9), 1.0 * (load > 0)) + headroom.spares
    return whole


def all_taken_share(offered: Floats, places: Floats) -> Floats:
    """Erlang's C: the share of requests that come at random and find all places taken, where so many are there at once.

    Of ``places`` that serve one request each, all as fast; ``offered`` is the mean number of requests in service.
    """
    busy = np.minimum(offered / places, 1.0)
    logged = special.xlogy(places, offered) - offered - special.gammaln(places + 1)
    blocked = np.minimum(np.exp(logged) / special.gammaincc(places + 1, offered), 1.0)  # Erlang's B
    share: Floats = np.where(busy < 1, blocked / (1 - busy * (1 - blocked)), busy)
    return share


def mean_tokens(mixes: Sequence[Mix]) -> float:
    """Tokens of the average request of a mixture."""
    return sum(mix.share * mix.tokens for mix in mixes) / sum(mix.share for mix in mixes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its intervals; ends are ``None`` where an interval could not be measured."""

    value: float | None
    low: float | None = None
    """What one more run would give, which plans go by: from two runs, or replicates, on."""
    high: float | None = None
    mean_low: float | None = None
    """The long-run mean of runs."""
    mean_high: float | None = None
    within_low: float | None = None
    """Only how far this run's own calls leave it open."""
    within_high: float | None = None

    def named(self, name: str) -> dict[str, Any]:
        """As keys of a row: ``workers``, ``workers_low``, ``workers_mean_low``, and so on."""
        return {name: self.value} | {f"{name}_{end}": getattr(self, end) for end in _ENDS}

    @property
    def reach(self) -> tuple[float, float] | None:
        """The widest that is known of where it lies: that of one more run, else what this run leaves open."""
        for low, high in ((self.low, self.high), (self.within_low, self.within_high)):
            if low is not None and high is not None:
                return low, high
        return None


_ENDS = tuple(field.name for field in dataclasses.fields(Estimate) if field.name != "value")


def exact(value: float) -> Floats:
    """A quantity that is given, not measured: it has no draws of its own."""
    return np.array([float(value)])


UNKNOWN = exact(math.nan)
"""A quantity that is not known: everything made of it is not known either."""


def estimate(quantity: Floats | None) -> Estimate:
    """The value of a quantity with the central interval of each of its draws.

    ``None`` for a value that is absent or not finite. A limit that is infinite is ``None`` too: nothing bounds it.
    """
    value, *ends = map(finite, ends_of(np.atleast_1d(math.nan if quantity is None else quantity)).tolist())
    return Estimate(value=value, **dict(zip(_ENDS, ends if value is not None else (), strict=False)))
