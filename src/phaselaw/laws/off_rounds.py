"""Rounds and replicates that are off as a whole, and laws and prices without them."""

import math

import numpy as np
import polars as pl

from phaselaw.laws.noise import points_of
from phaselaw.laws.options import Options
from phaselaw.laws.scaling import scaling_fits
from phaselaw.laws.summary import CELLS, GROUP, GROUP_COLUMNS, ORDER, by_cell, by_model
from phaselaw.tables import BUDGET, Table, counted, derived, digits, factor, grouped, words

FAR, USUAL, SCALES = 1.25, 0.05, 5.0
"""A round is off by this factor or more, and by so many robust standard deviations of rounds, taken as 5 % or more."""
LEAST = 3
"""Rounds, or replicates, below which none can be held against the others."""
EXPONENT, RATE = "exponent", "tokens/s"

_ROUND = ["backend", "batch_size", "run", "replicate", "rep"]
_UNITS = (("replicate", ["replicate"]), ("round", ["replicate", "rep"]))
WITHOUT_OFF_ROUNDS = Table(
    name="laws_without_off_rounds",
    holds="exponents, rates and prices with and without the rounds or replicates that are off as a whole",
    caption="Exponents, rates and prices without the rounds or replicates that are off as a whole.",
    why_empty="no round or replicate is off as a whole",
    columns=(
        *GROUP_COLUMNS,
        words("model", "model"),
        words("figure", "figure"),
        derived("value", "value", digits),
        derived("without", "without them", digits),
        derived("price_factor", "price without them", factor),
        counted(BUDGET),
    ),
    order=(*ORDER, "figure", "model"),
)


def off_rounds(rows: pl.DataFrame, *, in_rounds: bool) -> pl.DataFrame:
    """The rounds among usable measured rows that are off as a whole: `_ROUND`, ``unit`` and the ``factor`` it is off.

    A unit's level is the median over cells of its calls relative to their cell's median over units. Replicates are
    judged first; rounds, where calls were made ``in_rounds``, if none of these is off.
    """
    found = []
    calls = rows.filter(pl.col("mode") == "e2e_kv", pl.col("rep").is_not_null())
    for _, mine in grouped(calls, ["backend", "batch_size", "run"]):
        for unit, keys in _UNITS[: 1 + in_rounds]:
            factors = _off(mine, keys)
            if not factors.is_empty():
                rounds = mine.select(_ROUND).unique(maintain_order=True)
                found.append(rounds.join(factors, on=keys, nulls_equal=True).with_columns(unit=pl.lit(unit)))
                break
    schema = {name: rows.schema[name] for name in _ROUND} | {"factor": pl.Float64, "unit": pl.String}
    return pl.concat(found) if found else pl.DataFrame(schema=schema)


def _off(calls: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    cell = [*GROUP, "model", "scenario"]
    log = pl.col("latency_ms").log()
    units = calls.group_by([*keys, *cell]).agg(log=log.median())
    levels = (
        units.with_columns(pl.col("log") - pl.col("log").median().over(cell)).group_by(keys).agg(pl.col("log").median())
    )
    if levels.height < LEAST:
        return levels.clear().select(*keys, factor="log")
    off = levels["log"].to_numpy() - np.median(levels["log"].to_numpy())
    scale = max(1.4826 * float(np.median(np.abs(off))), USUAL)
    far = np.abs(off) >= max(math.log(FAR), SCALES * scale)
    return levels.select(keys).with_columns(factor=np.exp(off)).filter(pl.Series(far)).sort(keys)


def without_off_rounds(rows: pl.DataFrame, options: Options, *, in_rounds: bool) -> pl.DataFrame:
    """``laws_without_off_rounds``: each law's exponent, each model's end-to-end rate, and the price that follows."""
    off = off_rounds(rows, in_rounds=in_rounds)
    if off.is_empty():
        return WITHOUT_OFF_ROUNDS.frame()
    touched = rows.join(off, on=["backend", "batch_size"], how="semi")
    both = [_figures(each, options) for each in (touched, touched.join(off, on=_ROUND, how="anti", nulls_equal=True))]
    on = [*GROUP, "model", "figure"]
    found = both[0].join(both[1].rename({"value": "without"}), on=on, how="left", nulls_equal=True)
    price = pl.when(pl.col("figure") == RATE).then(pl.col("value") / pl.col("without"))
    return WITHOUT_OFF_ROUNDS.frame(found.with_columns(price_factor=price))


def _figures(rows: pl.DataFrame, options: Options) -> pl.DataFrame:
    per_model = by_model(by_cell(rows))
    laws = scaling_fits(points_of(CELLS.frame(), per_model), None, options)
    laws = laws.with_columns(model=pl.lit(None, pl.String), figure=pl.lit(EXPONENT), value="slope")
    rates = per_model.filter(pl.col("mode") == "e2e_kv")
    rates = rates.with_columns(figure=pl.lit(RATE), value="tokens_per_s_geomean")
    return pl.concat(each.select(*GROUP, "model", "figure", "value") for each in (laws, rates))
