"""Throughput with an interval: what prices and worker counts stand on (method 3).

Of several runs the unit is the run, and the interval holds the noise between runs. Of one run it holds the noise of
calls and, where calls were made in rounds, the noise between rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.summary import GROUP, MODEL, by_cell_and_run, median_variance, runs_pooled, variance_for_t
from phaselaw.tables import Table

THROUGHPUT_INTERVALS = Table(
    name="throughput_intervals", holds="tokens/s with intervals, what prices stand on", columns=()
)

RUNS = "runs, the noise between them included"
ROUNDS = "rounds, within this run only"
CELLS = "repetitions within cells, within this run only"
NOT_MEASURED = "not measured"

_KEYS = [*GROUP, *MODEL]


def throughput_intervals(
    rows: pl.DataFrame, cells: pl.DataFrame, per_model: pl.DataFrame, *, in_rounds: bool, level: float
) -> pl.DataFrame:
    """Tokens/s of each model and phase (TR121's geometric mean over scenarios) with a t interval on its log.

    The unit is the run where there are several; else, with ``in_rounds``, the round, since a round's calls share its
    noise; else the repetition within a cell. ``interval_basis`` says which, or that a single unit left nothing to
    measure; ``n_rounds`` (or repetitions) and ``n_runs`` how many there are.
    """
    several = runs_pooled(rows) > 1
    basis = RUNS if several else ROUNDS if in_rounds else CELLS
    if several:
        spread = _spread_over(by_cell_and_run(rows).rename({"tokens_per_s_median": "rate"}), "run", _mean_variance)
    elif in_rounds:
        known = rows.filter(pl.col("rep").is_not_null()).rename({"tokens_per_s": "rate"})
        spread = _spread_over(known, "rep", variance_for_t)
    else:
        spread = spread_within_cells(cells)
    table = per_model.join(spread, on=_KEYS, how="left", nulls_equal=True, maintain_order="left")
    se = table["log_se"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    degrees = table["degrees"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    half = se * stats.t.ppf(0.5 + level / 2, degrees)
    rate = table["tokens_per_s_geomean"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    n_units, none = pl.col("n_units").fill_null(0).cast(pl.Int64), pl.lit(None, dtype=pl.Int64)
    return table.select(
        "backend", "backend_kind", *MODEL, "batch_size", "mode", pl.col("tokens_per_s_geomean").alias("tokens_per_s"),
        pl.Series("tokens_per_s_low", rate * np.exp(-half)).fill_nan(None),
        pl.Series("tokens_per_s_high", rate * np.exp(half)).fill_nan(None),
        pl.Series("interval_basis", np.where(np.isfinite(half), basis, NOT_MEASURED), dtype=pl.String),
        (none if several else n_units).alias("n_rounds"),
        (n_units if several else pl.lit(1, dtype=pl.Int64)).alias("n_runs"),
        "gen_tokens_target",
    )  # fmt: skip


def _mean_variance(n: int) -> float:
    """Variance of the mean of ``n`` values of variance 1."""
    return 1.0 / n


def _spread_over(cells: pl.DataFrame, unit: str, variance: Callable[[int], float]) -> pl.DataFrame:
    """Per model and phase: the standard error of the log ``rate`` from its scatter over units, and their number.

    Each log rate is taken relative to its cell's mean, so that a call that failed doesn't shift its unit. ``variance``
    is that of a point made of so many units, each of variance 1.
    """
    log = pl.col("rate").log()
    spread = (
        cells.filter(pl.col("rate") > 0)
        .select(*_KEYS, unit, (log - log.mean().over([*_KEYS, "scenario"])).alias("log"))
        .group_by([*_KEYS, unit], maintain_order=True)
        .agg(pl.col("log").mean())
        .group_by(_KEYS, maintain_order=True)
        .agg(pl.col("log").std().alias("sd"), pl.len().cast(pl.Int64).alias("n_units"))
    )
    factors = {n: variance(n) ** 0.5 for n in spread["n_units"].unique()}
    return spread.select(
        *_KEYS,
        "n_units",
        (pl.col("sd") * pl.col("n_units").replace_strict(factors, return_dtype=pl.Float64)).alias("log_se"),
        (pl.col("n_units") - 1).cast(pl.Float64).alias("degrees"),
    )


def spread_within_cells(cells: pl.DataFrame) -> pl.DataFrame:
    """Per model and phase: the standard error of the log rate from the calls' scatter within cells.

    Degrees of freedom midway between Satterthwaite's, too few for variances from so few calls, and Welch's correction
    of them (Biometrika 34, 1947), too many where cells scatter differently; at least the fewest of a cell and at most
    those of all.
    """
    factors = {n: variance_for_t(n) / median_variance(n) for n in cells["n"].unique()}
    n = pl.col("n")
    variance = pl.col("tokens_per_s_log_variance") * n.replace_strict(factors, return_dtype=pl.Float64)
    known = variance.null_count() == 0
    satterthwaite = variance.sum() ** 2 / (variance**2 / (n - 1)).sum()
    welch = variance.sum() ** 2 / (variance**2 / (n + 1)).sum() - 2
    degrees = (satterthwaite + pl.max_horizontal(welch, (n - 1).min())) / 2
    return cells.group_by(_KEYS, maintain_order=True).agg(
        n.min().alias("n_units"),
        pl.when(known).then(variance.sum().sqrt() / pl.len()).alias("log_se"),
        pl.when(known).then(pl.min_horizontal(degrees, (n - 1).sum())).alias("degrees"),
    )
