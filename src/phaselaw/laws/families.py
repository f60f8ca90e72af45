"""What kind a model is, its family and quantisation, and the laws of one family alone (method 3)."""

from __future__ import annotations

import polars as pl

from phaselaw.laws.noise import ALL, Replicates, points_of
from phaselaw.laws.options import Options
from phaselaw.laws.scaling import scaling_fits
from phaselaw.laws.summary import GROUP
from phaselaw.laws.verdicts import MIN_MODELS
from phaselaw.records import Run
from phaselaw.tables import Table

SCALING_FITS_BY_FAMILY = Table(
    name="scaling_fits_by_family",
    holds="a law of each family of models",
    why_empty="no backend with several families, one of them of three models or more",
    columns=(),
)

KINDS = {"family": "families", "quantization_level": "quantisations"}
"""Columns of a run's model table that tell models of a kind from others, and their plural in words."""

_KEY = ["backend", "model", "model_kind"]


def kinds_of(run: Run) -> pl.DataFrame:
    """One row a backend and model of the run, with the columns of `KINDS`, empty where the run does not tell."""
    models = run.rows.select(_KEY).unique(maintain_order=True)
    nothing = [pl.lit(None, dtype=pl.String).alias(name) for name in KINDS]
    if not {"model", "kind"} <= set(run.models.columns):
        return models.with_columns(nothing)
    missing = [each for each, name in zip(nothing, KINDS, strict=True) if name not in run.models.columns]
    told = run.models.with_columns(missing).rename({"kind": "model_kind"})
    on = _KEY if "backend" in told.columns else _KEY[1:]
    told = told.select(*(pl.col(name).cast(pl.String) for name in (*on, *KINDS))).unique(on, keep="first")
    return models.join(told, on=on, how="left", nulls_equal=True, maintain_order="left")


def scaling_fits_by_family(
    cells: pl.DataFrame, per_model: pl.DataFrame, run: Run, options: Options, *, replicates: Replicates | None
) -> pl.DataFrame:
    """``scaling_fits`` on the aggregate of each family of three models or more, where a backend has several families.

    The columns are those of ``scaling_fits``, with ``family`` after ``aggregation``.
    """
    kinds = kinds_of(run).select(*_KEY, "family")
    known = per_model.join(kinds, on=_KEY, how="left", nulls_equal=True).filter(pl.col("family").is_not_null())
    known = known.filter(pl.col("family").n_unique().over(GROUP) > 1, pl.len().over([*GROUP, "family"]) >= MIN_MODELS)
    fits = []
    for (family,), part in known.group_by("family", maintain_order=True):
        points = points_of(cells.clear(), part.drop("family")).filter(pl.col("scenario") == ALL)
        mine = None if replicates is None else replicates.of(part)
        fits.append(scaling_fits(points, mine, options).with_columns(pl.lit(family, dtype=pl.String).alias("family")))
    if not fits:
        empty = scaling_fits(points_of(cells.clear(), per_model.clear()), None, options)
        fits = [empty.with_columns(pl.lit(None, dtype=pl.String).alias("family"))]
    table = pl.concat(fits).sort(["backend", "batch_size", "gen_tokens_target", "mode", "family"])
    first = table.columns[: table.columns.index("aggregation") + 1]
    return table.select(*first, "family", pl.exclude([*first, "family"]))
