"""A figure with its interval, and how one is had from draws.

A quantity here is one array: the point first, then draws of what the quantity may be (`phaselaw.laws.draws`). Every
formula of this folder is written once, on such arrays, so that a point and its interval come from the same arithmetic.
Draws of NaN mean that no interval could be measured; they spread through all arithmetic, so that no interval is made of
half the noise.
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


def exact(value: float) -> Floats:
    """A quantity that is given, not measured: all its draws are the value."""
    return np.array([float(value)])


def without_interval(value: float) -> Floats:
    """A quantity whose noise was not measured."""
    return np.concatenate([[float(value)], np.full(N_DRAWS, math.nan)])


def estimate(quantity: Floats, *, level: float = LEVEL) -> Estimate:
    """The point of a quantity with the central interval of its draws.

    ``None`` for a point that is no finite number. A limit that is infinite is ``None`` too: nothing bounds it.
    """
    quantity = np.atleast_1d(quantity)
    value = _finite(float(quantity[0]))
    draws = quantity[1:]
    if value is None or draws.size == 0 or np.isnan(draws).any():
        return Estimate(value=value)
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    return Estimate(value=value, low=_finite(float(low)), high=_finite(float(high)))


def flat(**quantities: Floats | None) -> dict[str, Any]:
    """Quantities as JSON keys: ``workers``, ``workers_low``, ``workers_high``, ...; ``None`` for one that is absent."""
    document: dict[str, Any] = {}
    for name, quantity in quantities.items():
        told = Estimate(value=None) if quantity is None else estimate(quantity)
        document |= {name: told.value, f"{name}_low": told.low, f"{name}_high": told.high}
    return document


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
