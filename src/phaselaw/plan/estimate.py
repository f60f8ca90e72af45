"""A figure with its interval, and how one is made of draws.

A quantity here is one array: the value first, then draws of what it may be (`phaselaw.laws.draws`). Every formula of
this folder is written once, on such arrays, so that a value and its interval come from the same arithmetic. Draws of
NaN mean that no interval could be measured; they spread through all arithmetic, so that no interval misses some noise.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from phaselaw.laws.draws import N_DRAWS
from phaselaw.laws.options import Options
from phaselaw.laws.regression import Floats

LEVEL = Options().level
"""Level of every interval of a plan."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its interval; ``low`` and ``high`` are ``None`` where no interval could be measured."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def named(self, name: str) -> dict[str, Any]:
        """As keys of a row: ``workers``, ``workers_low``, ``workers_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def exact(value: float) -> Floats:
    """A quantity that is given, not measured: it has no draws of its own."""
    return np.array([float(value)])


def without_interval(value: float) -> Floats:
    """A quantity whose noise was not measured."""
    return np.concatenate([[float(value)], np.full(N_DRAWS, math.nan)])


def estimate(quantity: Floats | None, *, level: float = LEVEL) -> Estimate:
    """The value of a quantity with the central interval of its draws.

    ``None`` for a value that is absent or not finite. A limit that is infinite is ``None`` too: nothing bounds it.
    """
    quantity = np.atleast_1d(math.nan if quantity is None else quantity)
    value, draws = _finite(quantity[0]), quantity[1:]
    if value is None or draws.size == 0 or np.isnan(draws).any():
        return Estimate(value=value)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    return Estimate(value=value, low=_finite(low), high=_finite(high))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
