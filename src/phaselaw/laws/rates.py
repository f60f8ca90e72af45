"""Each model's rate with its intervals, by name: of *one more run*, of the *long-run mean*, or of *this run* alone.

Rates, prices and worker counts go by these, so that one number has one interval everywhere. What they are made of is in
`phaselaw.laws.noise`. Plans push *draws* through their formulas, so that a price made of several measurements has an
interval (method 5, uncertainty). A quantity is one array: its value, then `N_DRAWS` draws for each of `INTERVALS`; NaN
where that is not known. So every formula is written once, on such arrays.

Each model's draws are exactly the t distribution of its interval in ``throughput_intervals``. Between models they are
joined as a multivariate t: what slows a unit slows all models of a backend, by the shared part of their variance, so
that it cancels in a ratio of two. A model's phases go together; backends do not. The draws are a scrambled Sobol
sequence: repeatable, and quantiles settle with few of them.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter

import numpy as np
import polars as pl
from scipy import special

from phaselaw.laws.noise import FEWEST_MODELS, Kind, Replicates, point_variance, scatter_by, units_of
from phaselaw.laws.options import Options
from phaselaw.laws.regression import Floats, t_half_width
from phaselaw.laws.summary import INCOMPLETE, MODEL_KEYS, by_cell, by_model, floats
from phaselaw.tables import BUDGET, Row, Table, plain, words

NOT_MEASURED = "not measured"
BASIS: dict[Kind, str] = {
    "hosts": "one more host",
    "runs": "one more run",
    "replicates": "one more run, back to back (another day is not measured)",
    "rounds": "this run only, over rounds",
    "repetitions": "this run only, over repetitions",
}
"""What the intervals of a rate hold, by the units that it was measured in."""

INTERVALS = ("", "_mean", "_within")
"""One more run; the long-run mean; this run only: what stands between a figure's name and ``_low`` or ``_high``."""

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

THROUGHPUT_INTERVALS = Table(
    name="throughput_intervals",
    holds="tokens/s with intervals, what prices stand on",
    columns=(
        *plain("backend backend_kind model model_kind", pl.String),
        *plain("params_millions_effective"),
        *plain("batch_size", pl.Int64),
        words("mode"),
        *plain("tokens_per_s"),
        *plain(" ".join(f"tokens_per_s{name}_{end}" for name in INTERVALS for end in ("low", "high"))),
        words("interval_basis"),
        *plain(f"n_rounds n_runs {BUDGET}", pl.Int64),
        INCOMPLETE,
        *plain("n_replicates", pl.Int64),
    ),
)


def another_run(bases: Iterable[str]) -> str:
    """What is said of another run where intervals of these bases don't tell it."""
    why = "; ".join(sorted({basis.removeprefix(NOT_MEASURED).removeprefix(": ") for basis in bases} - {""}))
    return f"What another run would give is {NOT_MEASURED}{why and f' ({why})'}"


def too_few(n: int, kind: Kind) -> str:
    """Why two units tell no interval of another."""
    return f"{NOT_MEASURED}: {n} {kind} of fewer than {FEWEST_MODELS} models need a third"


def deviations(units: Replicates, scatter: pl.DataFrame, between_runs: float | None = None) -> pl.DataFrame:
    """The standard error of a log figure for each of `INTERVALS`, beside its `Replicates.scatter`; null where none.

    ``basis`` says which intervals there are, or why there are none. ``between_runs`` is given where the standard
    deviation between runs, of the log, is assumed and not measured: it is taken for each model's own, and known
    exactly. How far this run's own scatter goes stays as it was measured.
    """
    known = pl.when(pl.col("degrees") > 0)
    of_point = pl.lit(pl.Series(point_variance(scatter["n"].to_numpy(), units.kind)))
    variances = dict.fromkeys(INTERVALS, pl.lit(None, pl.Float64)) | (
        {"": 1 + of_point, "_mean": of_point} if units.between_runs else {"_within": of_point}
    )
    why = pl.lit(too_few(units.n, units.kind) if units.n == 2 else NOT_MEASURED)
    found = scatter.with_columns(
        *(known.then((pl.col("variance") * factor).sqrt()).alias(f"se{name}") for name, factor in variances.items()),
        degrees_within=pl.col("degrees"),
        basis=known.then(pl.lit(BASIS[units.kind])).otherwise(why),
    )
    if between_runs is None:
        return found
    runs = units.n if units.kind in ("hosts", "runs") else 1
    return found.with_columns(
        degrees=pl.lit(math.inf),
        shared=pl.lit(0.0),
        variance=pl.lit(between_runs**2),
        se=pl.lit(between_runs * math.sqrt(1 + 1 / runs)),
        se_mean=pl.lit(between_runs / math.sqrt(runs)),
        basis=pl.lit(f"one more run, assumed: runs differ by {100 * between_runs:.3g} %"),
    )


def deviations_of(units: Replicates, logs: pl.DataFrame, group: Sequence[str], each: Sequence[str]) -> pl.DataFrame:
    """`deviations` of the ``log`` of each ``group`` and ``each`` in each unit; the group shares one variance."""
    return deviations(units, scatter_by(units.centred(logs, [*group, *each]), group, each, units.kind))


def throughput_intervals(units: Replicates, per_model: pl.DataFrame, level: float) -> pl.DataFrame:
    """Tokens/s of each model and phase (TR121's geometric mean over scenarios) with t intervals on its log.

    ``interval_basis`` says which there are, or why none; ``n_rounds`` (or repetitions), ``n_replicates`` and ``n_runs``
    how many units there are.
    """
    found = deviations(units, units.scatter("rate"))
    table = per_model.join(found, on=MODEL_KEYS, how="left", nulls_equal=True, maintain_order="left")
    table = table.rename({"tokens_per_s_geomean": "tokens_per_s"})
    for name in INTERVALS:
        table = with_ends(table, "tokens_per_s", level, name)
    counted = "n_replicates" if units.kind == "replicates" else "n_runs" if units.between_runs else "n_rounds"
    counts = {"n_runs": pl.lit(1), counted: pl.col("n").fill_null(0)}
    basis = pl.col("basis").fill_null(NOT_MEASURED)
    return THROUGHPUT_INTERVALS.frame(table.with_columns(interval_basis=basis, **counts))


def with_ends(table: pl.DataFrame, value: str, level: float, name: str = "", *, named: str = "") -> pl.DataFrame:
    """The table with both ends of an interval of ``value``: a t interval of its log by ``se{name}`` and ``degrees``.

    They are ``named`` so, else as the value and the interval are.
    """
    named = named or f"{value}{name}"
    half, values = t_half_width(floats(table, f"se{name}"), floats(table, "degrees"), level), floats(table, value)
    ends = {"low": values * np.exp(-half), "high": values * np.exp(half)}
    return table.with_columns(pl.Series(f"{named}_{end}", each).fill_nan(None) for end, each in ends.items())


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
        found = deviations(units, units.scatter(of), between_runs)
        table = per_model.join(found, on=MODEL_KEYS, how="left", nulls_equal=True, maintain_order="left")
        known[of] = (table if models is None else table.filter(pl.col("model").is_in(list(models)))).to_dicts()
    joint = _Joint(known["rate"])
    return {
        _key(rate): Draws(
            latency_ms=joint.quantity(latency["latency_geomean_ms"], latency, slower=1),
            tokens_per_s=joint.quantity(rate["tokens_per_s_geomean"], rate, slower=-1),
            basis=rate["basis"] or NOT_MEASURED,
        )
        for latency, rate in zip(known["latency"], known["rate"], strict=True)
    }


class _Joint:
    """Deviates of all models at once: what each model's log figure may be off by, over its standard error."""

    def __init__(self, models: list[Row]) -> None:
        from scipy.stats import qmc  # half a second to load, for plans alone

        names = dict.fromkeys(name for row in models for name in (row["backend"], (row["backend"], row["model"])))
        sobol, tiny = qmc.Sobol(len(names) + 1, scramble=True, rng=np.random.default_rng(SEED)), 0.5 / (2**53)
        points = sobol.random_base2((N_DRAWS - 1).bit_length())[:N_DRAWS]
        uniform = np.clip(points, tiny, 1 - tiny)  # points of the open unit cube, evenly spread
        self._above = 1 - uniform[:, 0]
        self._normal = dict(zip(names, special.ndtri(uniform[:, 1:]).T, strict=True))
        self._widths: dict[float, tuple[Floats, Floats]] = {}

    def quantity(self, value: float | None, row: Row, *, slower: int) -> Floats:
        """A quantity of a row of `deviations`, which grows (1) or falls (-1) as a call gets slower."""
        draws = []
        for name in INTERVALS:
            se, degrees = row[f"se{name}"], row["degrees_within" if name == "_within" else "degrees"]
            known = se is not None and degrees
            draws.append(np.exp(slower * se * self._deviates(row, degrees)) if known else np.full(N_DRAWS, np.nan))
        return (np.nan if value is None else value) * np.concatenate([[1.0], *draws])

    def _deviates(self, row: Row, degrees: float) -> Floats:
        """Draws of Student's t in the order of the joint distribution."""
        share = row["shared"] / row["variance"] if row["variance"] else 0.0
        of_all, own = self._normal[row["backend"]], self._normal[row["backend"], row["model"]]
        if degrees not in self._widths:
            even = (np.arange(N_DRAWS) + 0.5) / N_DRAWS
            # What makes normal draws a t's, the same for all models.
            width = np.sqrt(1.0 if np.isinf(degrees) else degrees / special.chdtri(degrees, self._above))
            # With one degree of freedom the tails are Cauchy's: beyond these limits a draw may as well be at them.
            self._widths[degrees] = np.asarray(width), np.clip(special.stdtrit(degrees, even), -300.0, 300.0)
        width, deviates = self._widths[degrees]
        joint = (np.sqrt(share) * of_all + np.sqrt(1 - share) * own) * width
        ordered = np.empty(N_DRAWS)
        ordered[np.argsort(joint)] = deviates
        return ordered


def evenly(*seeds: int) -> Floats:
    """`N_DRAWS` evenly spread values between 0 and 1; their order, by the seeds, has nothing to do with any other."""
    return np.asarray((np.random.default_rng([SEED, *seeds]).permutation(N_DRAWS) + 0.5) / N_DRAWS)


def same_draws(value: float, draws: Floats) -> Floats:
    """A quantity whose draws are the same for every interval: of an input, or of what no run changes."""
    return np.concatenate([[value], np.tile(draws, len(INTERVALS))])


def draws_of(quantity: Floats) -> list[Floats]:
    """The draws of each interval of `INTERVALS`, empty where a quantity is given and not measured."""
    return np.split(quantity[1:], len(INTERVALS))


def ends_of(quantity: Floats) -> Floats:
    """The quantity with the two ends of each interval alone; NaN where an interval is not known.

    What only grows, or only falls, with the quantity has for its ends what is worked out from these.
    """
    draws = quantity[1:].reshape(len(INTERVALS), -1)
    ends = np.full((len(draws), 2), np.nan)
    if draws.size:
        known, at = ~np.isnan(draws).any(axis=1), [math.ceil(draws.shape[1] * share) - 1 for share in _ENDS]
        ends[known] = np.partition(draws[known], at)[:, at]
    return np.concatenate([quantity[:1], *ends])


def thinned(quantity: Floats, n: int) -> Floats:
    """The quantity with the first ``n`` draws of each interval, which are evenly spread by themselves."""
    return np.concatenate([quantity[:1], *(each[:n] for each in draws_of(quantity))])
