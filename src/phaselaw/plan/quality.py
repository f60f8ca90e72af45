"""What a dearer model must do better to be worth its price (TR121 8.3.4).

Success rates are the user's to say: the share of requests that pass the user's own acceptance test, on the user's own
requests. phaselaw measures time, not quality. A rate that comes with the number of requests it was counted on (``n``)
brings its own uncertainty; one without is taken as exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from phaselaw.errors import UsageError
from phaselaw.laws.checks.checks import suspicions
from phaselaw.laws.draws import N_DRAWS, SEED
from phaselaw.laws.regression import Floats
from phaselaw.plan.estimate import estimate, exact, flat
from phaselaw.plan.mixes import number, read_table
from phaselaw.plan.workers import Worker


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Priced:
    """A worker with the price of one request and, where it is known, its success rate."""

    worker: Worker
    usd_per_request: Floats
    success_rate: Floats | None


def read_success_rates(path: Path, known: set[str]) -> dict[str, Floats]:
    """Success rates by model from a CSV: ``model, success_rate`` and, where counted, ``n`` (requests tried).

    With ``n`` the draws are Jeffreys' for a share, Beta(s + 1/2, n - s + 1/2). Raises `UsageError` naming file, line
    and column, also for a model that is not among the ``known``.
    """
    rates: dict[str, Floats] = {}
    for at, (line, row) in enumerate(read_table(path, ("model", "success_rate"))):
        where = f"{path}:{line}"
        rate = number(row, "success_rate", where)
        if rate > 1:
            raise UsageError(f"{where}: success_rate {rate:g}: give a share from 0 to 1")
        if row["model"] not in known:
            raise UsageError(f"{where}: model {row['model']!r} is not in this run; it has: {', '.join(sorted(known))}")
        if row["model"] in rates:
            raise UsageError(f"{where}: model {row['model']!r} is there twice")
        rates[row["model"]] = _draws(rate, number(row, "n", where), at) if row.get("n") else exact(rate)
    return rates


def _draws(rate: float, n: float, at: int) -> Floats:
    uniform = np.random.default_rng([SEED, at]).permutation((np.arange(N_DRAWS) + 0.5) / N_DRAWS)
    return np.concatenate([[rate], stats.beta.ppf(uniform, rate * n + 0.5, (1 - rate) * n + 0.5)])


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
        return np.where(fewer_failures > 0, extra_usd / fewer_failures, np.inf)


def success_row(priced: Priced) -> dict[str, Any]:
    """One model's cost of a request and of a success."""
    rate = priced.success_rate
    success = None if rate is None else usd_per_success(priced.usd_per_request, rate)
    return {
        **priced.worker.names,
        **flat(success_rate=rate, usd_per_request=priced.usd_per_request, usd_per_success=success),
    }


def break_even(small: Priced, big: Priced, failure_usd: float | None) -> dict[str, Any] | None:
    """``big`` in place of ``small``, judged on success and on the cost of failures.

    ``None`` where the cheaper model's success rate is not known: then nothing can be said.
    """
    if small.success_rate is None:
        return None
    needed = needed_success_rate(small.success_rate, small.usd_per_request, big.usd_per_request)
    row = {
        **big.worker.names,
        "than_backend": small.worker.backend,
        "than_model": small.worker.model,
        "suspect": suspicions((small.worker.suspect, big.worker.suspect)),
        **flat(
            cost_ratio=big.usd_per_request / small.usd_per_request,
            needed_success_rate=needed,
            success_rate=big.success_rate,
        ),
        "on_success": _on_success(needed, big.success_rate),
        "failure_usd": failure_usd,
    }
    if big.success_rate is None:
        return row | flat(needed_failure_usd=None) | {"on_failure_cost": "not known: no success rate"}
    worth = needed_failure_usd(big.usd_per_request - small.usd_per_request, big.success_rate - small.success_rate)
    return row | flat(needed_failure_usd=worth) | {"on_failure_cost": _on_failure(worth, failure_usd)}


def _on_success(needed: Floats, reached: Floats | None) -> str:
    told = estimate(needed)
    if told.value is not None and told.value > 1:
        certain = told.low is None or told.low > 1
        return "impossible" if certain else "impossible, though the interval reaches below 1"
    if reached is None:
        return "not known: no success rate"
    return verdict(reached - needed)


def _on_failure(worth: Floats, failure_usd: float | None) -> str:
    if not np.isfinite(worth[0]):
        return "never: it fails no less often"
    if failure_usd is None:
        return "depends on what a failure costs"
    # At infinity nothing pays: a finite stand-in keeps the comparison's sign.
    return verdict(failure_usd - np.where(np.isinf(worth), np.finfo(float).max, worth))


def verdict(gain: Floats) -> str:
    """By the interval of what is gained: pays, does not pay, or the measurements can't tell."""
    told = estimate(gain)
    pays = told.value is not None and told.value >= 0
    if told.low is not None and told.high is not None and told.low < 0 <= told.high:
        return f"can't be told: the interval holds both ({'pays' if pays else 'does not pay'} at the point)"
    return "pays" if pays else "does not pay"


def priced(worker: Worker, usd_per_request: Floats, rates: Mapping[str, Floats]) -> Priced:
    """A worker with its price and the rate of its model."""
    return Priced(worker=worker, usd_per_request=usd_per_request, success_rate=rates.get(worker.model))
