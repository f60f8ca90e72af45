"""What laws are fitted to: a point a model, per scenario and over all; and the same in each round, or run, alone."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import polars as pl

from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET, GROUP, MODEL, by_cell_and_run, runs_pooled
from phaselaw.records import Run
from phaselaw.tables import Table

SUMMARY_BY_MODEL_AND_RUN = Table(
    name="summary_by_model_and_run",
    holds="each model's latency in each run, of runs that were pooled",
    why_empty="one run: several of one study are pooled (phaselaw analyze RUN RUN --out DIR)",
    columns=(),
)

ALL = "__all__"
"""The ``scenario`` of a law on the geometric means over scenarios."""

KEYS = [*GROUP, "scenario", "aggregation"]
"""What tells one law from another."""

_MODEL_KEYS = [*GROUP, *MODEL]


UnitKind = Literal["rounds", "runs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units:
    """The points of each unit alone, between which noise is estimated: the runs of a pool, or the rounds of one run."""

    kind: UnitKind
    n: int
    points: pl.DataFrame
    """As `points_of`, with the column ``unit``."""

    def of(self, models: pl.DataFrame) -> Units:
        """The units' points of these models alone."""
        kept = self.points.join(models.select(_MODEL_KEYS).unique(), on=_MODEL_KEYS, how="semi", nulls_equal=True)
        return dataclasses.replace(self, points=kept)

    def by_model(self) -> pl.DataFrame:
        """The geometric means over scenarios alone, named as in `phaselaw.laws.summary.by_model`, with ``unit``."""
        of_all = self.points.filter(pl.col("scenario") == ALL)
        return of_all.select(*_MODEL_KEYS, "unit", pl.col("latency").alias("latency_geomean_ms"))


def logs_by_unit(by_model: pl.DataFrame, models: pl.DataFrame) -> Floats:
    """Log latencies, (units, models), from rows of `Units.by_model`: one group's models in their order.

    Only of units that hold all of the models.
    """
    numbered = models.select(_MODEL_KEYS).with_row_index("at")
    found = by_model.join(numbered, on=_MODEL_KEYS, nulls_equal=True).sort("unit", "at")
    whole = found.filter(pl.len().over("unit") == models.height)
    logs: Floats = np.log(whole["latency_geomean_ms"].to_numpy()).reshape(-1, models.height)
    return logs


def by_model_and_run(units: Units | None, per_model: pl.DataFrame) -> pl.DataFrame:
    """The table ``summary_by_model_and_run``: each model's aggregate in each run of a pool; empty for one run alone."""
    if units is not None and units.kind == "runs":
        return units.by_model().rename({"unit": "run"}).sort(*_SORTED, "run")
    none = per_model.clear().with_columns(pl.lit(None, dtype=pl.String).alias("run"))
    return none.select(*_MODEL_KEYS, "run", "latency_geomean_ms")


_SORTED = ["backend", "batch_size", BUDGET, "mode", "params_millions_effective", "model"]


def points_of(cells: pl.DataFrame, per_model: pl.DataFrame) -> pl.DataFrame:
    """What scaling laws are fitted to: each model's median latency per scenario, and its mean over scenarios."""
    of_scenario = cells.select(
        *_MODEL_KEYS, "scenario", pl.lit("scenario").alias("aggregation"),
        pl.col("latency_median_ms").alias("latency"), "latency_log_variance",
    )  # fmt: skip
    of_all = per_model.select(
        *_MODEL_KEYS, pl.lit(ALL).alias("scenario"), pl.lit("geomean_across_scenarios").alias("aggregation"),
        pl.col("latency_geomean_ms").alias("latency"), "latency_log_variance",
    )  # fmt: skip
    return pl.concat([of_all, of_scenario])


def units_of(rows: pl.DataFrame, per_model: pl.DataFrame, run: Run) -> Units | None:
    """The units that ``rows`` are from: runs where there are several, else rounds where the run was made in rounds.

    ``None`` where nothing tells calls apart that did not share their noise. A model's mean over scenarios stands only
    for the units in which all its scenarios were measured.
    """
    n_runs = runs_pooled(rows)
    if n_runs > 1:
        each = by_cell_and_run(rows).select(
            *_MODEL_KEYS, "scenario", pl.col("run").alias("unit"), pl.col("latency_median_ms").log().alias("log")
        )
        return Units(kind="runs", n=n_runs, points=_points_in(each, per_model))
    if run.order != "rounds":
        return None
    known = rows.filter(pl.col("rep").is_not_null())
    each = known.group_by([*_MODEL_KEYS, "scenario", pl.col("rep").alias("unit")], maintain_order=True).agg(
        pl.col("latency_ms").log().mean().alias("log")
    )
    return Units(kind="rounds", n=known["rep"].n_unique(), points=_points_in(each, per_model))


def _points_in(each: pl.DataFrame, per_model: pl.DataFrame) -> pl.DataFrame:
    """The points of each unit from the ``log`` latency of its cells."""
    of_all = (
        each.group_by([*_MODEL_KEYS, "unit"], maintain_order=True)
        .agg(pl.col("log").mean(), pl.len().alias("seen"))
        .join(per_model.select(*_MODEL_KEYS, "n_scenarios"), on=_MODEL_KEYS, nulls_equal=True)
        .filter(pl.col("seen") == pl.col("n_scenarios"))
        .with_columns(pl.lit(ALL).alias("scenario"), pl.lit("geomean_across_scenarios").alias("aggregation"))
    )
    columns = [*_MODEL_KEYS, "scenario", "aggregation", "unit", pl.col("log").exp().alias("latency")]
    of_scenario = each.with_columns(pl.lit("scenario").alias("aggregation"))
    return pl.concat([of_all.select(columns), of_scenario.select(columns)])
