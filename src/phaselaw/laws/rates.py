"""Each model's rate with its intervals, by name: of *one more run*, of the *long-run mean*, or of *this run* alone.

Rates, prices and worker counts go by these (`phaselaw.laws.draws`), so that one number has one interval everywhere.
What they are made of is in `phaselaw.laws.noise`.
"""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from phaselaw.laws.noise import FEWEST_MODELS, Kind, Replicates, point_variance, scatter_by
from phaselaw.laws.regression import t_half_width
from phaselaw.laws.summary import INCOMPLETE, MODEL_KEYS, floats
from phaselaw.tables import BUDGET, Table, plain, words

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
    few = f"{NOT_MEASURED}: {units.n} {units.kind} of fewer than {FEWEST_MODELS} models need a third"
    why = pl.lit(few if units.n == 2 else NOT_MEASURED)
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
    half = t_half_width(floats(table, f"se{name}"), floats(table, "degrees"), level)
    for end, factor in (("low", np.exp(-half)), ("high", np.exp(half))):
        table = table.with_columns(pl.Series(f"{named}_{end}", floats(table, value) * factor).fill_nan(None))
    return table
