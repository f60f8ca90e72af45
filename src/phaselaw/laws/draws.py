"""Draws of what a model's latency and rate may be, given how they scattered over runs, rounds or repetitions.

Plans push these through their formulas, so that a price made of several measurements has an interval (method 5,
uncertainty). A quantity is one array: its value, then `N_DRAWS` draws for each interval by name
(`phaselaw.laws.rates.INTERVALS`): of one more run, of the long-run mean, and of this run only; NaN where that is not
known. So every formula is written once, on such arrays.

Each model's draws are exactly the t distribution of its interval in ``throughput_intervals``. Between models they are
joined as a multivariate t: what slows a unit slows all models of a backend, by the shared part of their variance
(`phaselaw.laws.noise`), so that it cancels in a ratio of two. A model's phases go together; backends do not.
The draws are a scrambled Sobol sequence: repeatable, and quantiles settle with few of them.
"""

import dataclasses
import math
from collections.abc import Collection
from operator import itemgetter

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws import rates
from phaselaw.laws.noise import units_of
from phaselaw.laws.options import Options
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import MODEL_KEYS, by_cell, by_model
from phaselaw.tables import BUDGET, Row

N_DRAWS = 8180
"""Draws of one interval: of so many evenly spread ones the ends of a 95 % interval are two themselves, without rounding
(the 205th and the 7976th: 204.5 / 8180 = 0.025), so that a price's interval is exactly that of the rate it is from."""
SEED = 42
_ENDS = 0.5 - Options().level / 2, 0.5 + Options().level / 2
"""The shares of draws up to an interval's ends."""

Key = tuple[str, str, int, int | None, str]
"""Backend, model, batch size, decode budget, phase."""

_KEY = ["backend", "model", "batch_size", BUDGET, "mode"]
_key = itemgetter(*_KEY)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """One model's measured figures in one phase, each a quantity: a value and its draws."""

    latency_ms: Floats
    """Geometric mean over scenarios of the median latencies, in ms."""
    tokens_per_s: Floats
    """The same of the median rates."""
    basis: str
    """What intervals the draws know, in words."""


def draw(
    rows: pl.DataFrame, *, in_rounds: bool, between_runs: float | None = None, models: Collection[str] | None = None
) -> dict[Key, Draws]:
    """Draws for each model and phase of usable rows; ``in_rounds`` says whether ``rep`` is a round over all cells.

    ``between_runs`` is an assumed deviation between runs in place of the measured one; ``models`` are those to draw.
    """
    units = units_of(rows, in_rounds=in_rounds)
    per_model = by_model(by_cell(rows))
    known = {}
    for of in ("latency", "rate"):
        found = rates.deviations(units, units.scatter(of), between_runs)
        table = per_model.join(found, on=MODEL_KEYS, how="left", nulls_equal=True, maintain_order="left")
        known[of] = (table if models is None else table.filter(pl.col("model").is_in(list(models)))).to_dicts()
    joint = _Joint(known["rate"])
    return {
        _key(rate): Draws(
            latency_ms=joint.quantity(latency["latency_geomean_ms"], latency, slower=1),
            tokens_per_s=joint.quantity(rate["tokens_per_s_geomean"], rate, slower=-1),
            basis=rate["basis"] or rates.NOT_MEASURED,
        )
        for latency, rate in zip(known["latency"], known["rate"], strict=True)
    }


class _Joint:
    """Deviates of all models at once: what each model's log figure may be off by, over its standard error."""

    def __init__(self, models: list[Row]) -> None:
        names = dict.fromkeys(name for row in models for name in (row["backend"], (row["backend"], row["model"])))
        power = (N_DRAWS - 1).bit_length()
        points = stats.qmc.Sobol(len(names) + 1, scramble=True, rng=np.random.default_rng(SEED)).random_base2(power)
        tiny = 0.5 / (2**53)
        uniform = np.clip(points[:N_DRAWS], tiny, 1 - tiny)  # points of the open unit cube, evenly spread
        self._uniform = uniform[:, 0]
        self._normal = dict(zip(names, stats.norm.ppf(uniform[:, 1:]).T, strict=True))
        self._widths: dict[float, tuple[Floats, Floats]] = {}

    def quantity(self, value: float | None, row: Row, *, slower: int) -> Floats:
        """A quantity of a row of `rates.deviations`, which grows (1) or falls (-1) as a call gets slower."""
        draws = []
        for name in rates.INTERVALS:
            se, degrees = row[f"se{name}"], row["degrees_within" if name == "_within" else "degrees"]
            known = se is not None and degrees
            draws.append(np.exp(slower * se * self._deviates(row, degrees)) if known else np.full(N_DRAWS, np.nan))
        return (np.nan if value is None else value) * np.concatenate([[1.0], *draws])

    def _deviates(self, row: Row, degrees: float) -> Floats:
        """Draws of Student's t in the order of the joint distribution."""
        share = row["shared"] / row["variance"] if row["variance"] else 0.0
        of_all, own = self._normal[row["backend"]], self._normal[row["backend"], row["model"]]
        width, deviates = self._of_degrees(degrees)
        joint = (np.sqrt(share) * of_all + np.sqrt(1 - share) * own) * width
        ordered = np.empty(N_DRAWS)
        ordered[np.argsort(joint)] = deviates
        return ordered

    def _of_degrees(self, degrees: float) -> tuple[Floats, Floats]:
        """What makes normal draws a t's, the same for all models, and the t's own evenly spread values."""
        if degrees not in self._widths:
            even = (np.arange(N_DRAWS) + 0.5) / N_DRAWS
            if np.isinf(degrees):
                self._widths[degrees] = np.ones(N_DRAWS), stats.norm.ppf(even)
            else:
                width = np.sqrt(degrees / stats.chi2.ppf(self._uniform, degrees))
                # With one degree of freedom the tails are Cauchy's: beyond these limits a draw may as well be at them.
                self._widths[degrees] = width, np.clip(stats.t.ppf(even, degrees), -300.0, 300.0)
        return self._widths[degrees]


def evenly(*seeds: int) -> Floats:
    """`N_DRAWS` evenly spread values between 0 and 1; their order, by the seeds, has nothing to do with any other."""
    order: Floats = (np.random.default_rng([SEED, *seeds]).permutation(N_DRAWS) + 0.5) / N_DRAWS
    return order


def same_draws(value: float, draws: Floats) -> Floats:
    """A quantity whose draws are the same for every interval: of an input, or of what no run changes."""
    return np.concatenate([[value], np.tile(draws, len(rates.INTERVALS))])


def draws_of(quantity: Floats) -> list[Floats]:
    """The draws of each interval of `rates.INTERVALS`, empty where a quantity is given and not measured."""
    return np.split(quantity[1:], len(rates.INTERVALS))


def ends_of(quantity: Floats) -> Floats:
    """The quantity with the two ends of each interval alone; NaN where an interval is not known.

    What only grows, or only falls, with the quantity has for its ends what is worked out from these.
    """
    draws = quantity[1:].reshape(len(rates.INTERVALS), -1)
    ends = np.full((len(draws), 2), np.nan)
    if draws.size:
        known, at = ~np.isnan(draws).any(axis=1), [math.ceil(draws.shape[1] * share) - 1 for share in _ENDS]
        ends[known] = np.partition(draws[known], at)[:, at]
    return np.concatenate([quantity[:1], *ends])


def thinned(quantity: Floats, n: int) -> Floats:
    """The quantity with the first ``n`` draws of each interval, which are evenly spread by themselves."""
    return np.concatenate([quantity[:1], *(each[:n] for each in draws_of(quantity))])
