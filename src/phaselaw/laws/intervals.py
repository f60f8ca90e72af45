"""Throughput with an interval: what prices and worker counts stand on (issue: the first price; method 3).

The interval is of this run: it holds the noise of calls and, where calls were made in rounds, the noise between rounds.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws.summary import GROUP, MODEL, median_variance

ROUNDS = "rounds, within this run only"
CELLS = "repetitions within cells, within this run only"
NOT_MEASURED = "not measured"

_KEYS = [*GROUP, *MODEL]


def points_in_rounds(rows: pl.DataFrame, per_model: pl.DataFrame) -> pl.DataFrame:
    """The points of `phaselaw.laws.scaling.points_of`, measured in each round (``rep``) alone.

    A model's mean over scenarios stands only for the rounds in which all its scenarios were measured.
    """
    keyed = rows.filter(pl.col("rep").is_not_null())
    of_scenario = keyed.group_by([*_KEYS, "scenario", "rep"], maintain_order=True).agg(
        pl.col("latency_ms").log().mean().alias("log")
    )
    of_all = (
        of_scenario.group_by([*_KEYS, "rep"], maintain_order=True)
        .agg(pl.col("log").mean(), pl.len().alias("seen"))
        .join(per_model.select(*_KEYS, "n_scenarios"), on=_KEYS, nulls_equal=True)
        .filter(pl.col("seen") == pl.col("n_scenarios"))
    )
    columns = [*_KEYS, "scenario", "aggregation", "rep", pl.col("log").exp().alias("latency")]
    return pl.concat(
        [
            of_all.with_columns(
                pl.lit("__all__").alias("scenario"), pl.lit("geomean_across_scenarios").alias("aggregation")
            ).select(columns),
            of_scenario.with_columns(pl.lit("scenario").alias("aggregation")).select(columns),
        ]
    )


def throughput_intervals(
    rows: pl.DataFrame, cells: pl.DataFrame, per_model: pl.DataFrame, *, in_rounds: bool, level: float
) -> pl.DataFrame:
    """Tokens/s of each model and phase (TR121's geometric mean over scenarios) with a t interval on its log.

    With ``in_rounds`` the unit is the round, since a round's calls share its noise; else the repetition within a cell.
    ``interval_basis`` says which, or that a single repetition left nothing to measure.
    """
    spread = _spread_over_rounds(rows) if in_rounds else _spread_within_cells(cells)
    table = per_model.join(spread, on=_KEYS, how="left", nulls_equal=True, maintain_order="left")
    se = table["log_se"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    degrees = table["degrees"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    half = se * stats.t.ppf(0.5 + level / 2, degrees)
    rate = table["tokens_per_s_geomean"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    basis = np.where(np.isfinite(half), ROUNDS if in_rounds else CELLS, NOT_MEASURED)
    return table.select(
        "backend", "backend_kind", *MODEL, "batch_size", "mode", pl.col("tokens_per_s_geomean").alias("tokens_per_s"),
        pl.Series("tokens_per_s_low", rate * np.exp(-half)).fill_nan(None),
        pl.Series("tokens_per_s_high", rate * np.exp(half)).fill_nan(None),
        pl.Series("interval_basis", basis, dtype=pl.String),
        pl.col("n_rounds").fill_null(0).cast(pl.Int64),
        "gen_tokens_target",
    )  # fmt: skip


def _spread_over_rounds(rows: pl.DataFrame) -> pl.DataFrame:
    """Per model and phase: the standard error of the log rate from its scatter over rounds, and the rounds' number.

    Each call's log rate is taken relative to its cell's mean, so that a call that failed doesn't shift its round.
    """
    relative = rows.filter(pl.col("rep").is_not_null() & (pl.col("tokens_per_s") > 0)).select(
        *_KEYS,
        "rep",
        pl.col("tokens_per_s").log() - pl.col("tokens_per_s").log().mean().over([*_KEYS, "scenario"]),
    )
    spread = (
        relative.group_by([*_KEYS, "rep"], maintain_order=True)
        .agg(pl.col("tokens_per_s").mean())
        .group_by(_KEYS, maintain_order=True)
        .agg(pl.col("tokens_per_s").std().alias("sd"), pl.len().cast(pl.Int64).alias("n_rounds"))
    )
    # The point is a mean of medians over rounds: a median's variance, not a mean's.
    factors = {n: median_variance(n) ** 0.5 for n in spread["n_rounds"].unique()}
    return spread.select(
        *_KEYS,
        "n_rounds",
        (pl.col("sd") * pl.col("n_rounds").replace_strict(factors, return_dtype=pl.Float64)).alias("log_se"),
        (pl.col("n_rounds") - 1).cast(pl.Float64).alias("degrees"),
    )


def _spread_within_cells(cells: pl.DataFrame) -> pl.DataFrame:
    """Per model and phase: the standard error of the log rate from the calls' scatter within cells.

    Degrees of freedom by Welch and Satterthwaite.
    """
    variance = pl.col("tokens_per_s_log_variance")
    known = variance.null_count() == 0
    degrees = variance.sum() ** 2 / (variance**2 / (pl.col("n") - 1)).sum()
    return cells.group_by(_KEYS, maintain_order=True).agg(
        pl.col("n").min().alias("n_rounds"),
        pl.when(known).then(variance.sum().sqrt() / pl.len()).alias("log_se"),
        pl.when(known).then(degrees).alias("degrees"),
    )
