"""What a fit may be taken for, by rule (method 3): supported, weak, not identifiable, or no verdict at all."""

import math
from collections.abc import Sequence

SUPPORTED, TREND, WEAK = "supported", "supported (trend)", "weak"
NOT_IDENTIFIABLE, TOO_FEW, NARROW = "not identifiable", "too few models", "range too narrow"

R2_SUPPORTED = 0.7
MIN_MODELS = 3
"""Below this a slope has no interval."""
LEAST_RANGE = 2.0
"""Largest over smallest model, below which no exponent is told from what else the models differ in."""
_RESTS = " (rests on "


def verdict(*, n_models: int, low: float, high: float, r2: float, rho: float, span: float) -> str:
    """The verdict of a slope with its interval ``[low, high]``; ``rho`` is Spearman's, ``span`` largest over smallest.

    *Supported* leaves out 0 with R2 >= 0.7, as a *trend* where the order of the models is not that of their latency.
    """
    if n_models < MIN_MODELS:
        return TOO_FEW
    if span < LEAST_RANGE:
        return NARROW
    if not (math.isfinite(low) and math.isfinite(high)) or low <= 0 <= high:
        return NOT_IDENTIFIABLE
    if not r2 >= R2_SUPPORTED:
        return WEAK
    return SUPPORTED if abs(rho) >= 1 - 1e-9 else TREND


def resting_on(verdict: str, models: Sequence[str]) -> str:
    """A verdict with the models, if any, without each of which it would be another, or its exponent out of bounds."""
    return f"{verdict}{_RESTS}{' or '.join(models)})" if models else verdict


def word(verdict: str) -> str:
    """A verdict without the models that it rests on."""
    return verdict.split(_RESTS)[0]


def out_of_order(names: Sequence[str], values: Sequence[float]) -> list[str]:
    """The fewest models that must be taken out for ``values`` to rise strictly from one to the next."""

    def rank(run: list[int]) -> tuple[int, float, int]:
        """The longest, of these the one that ends lowest, of these the last."""
        return len(run), -values[run[-1]], run[-1]

    runs: list[list[int]] = []
    for index, value in enumerate(values):
        before = max((run for run in runs if values[run[-1]] < value), key=rank, default=[])
        runs.append([*before, index])
    kept = max(runs, key=rank, default=[])
    return [name for index, name in enumerate(names) if index not in kept]
