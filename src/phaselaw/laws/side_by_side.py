"""The laws of several runs side by side: how far each run's exponents are from the first run's (TR121 4.1.2, 4.4).

TR121 is one report over five runs: other decode budgets, batch sizes and models. Laws are paired by backend and phase;
what else differs between the two is named beside their difference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from phaselaw.laws.slope_difference import SlopeDifference, paired_slope_difference, unpaired_slope_difference
from phaselaw.laws.summary import BUDGET
from phaselaw.tables import Table

LAWS_SIDE_BY_SIDE = Table(name="laws_side_by_side", holds="laws of several runs and their differences", columns=())

PAIRED, INDEPENDENT, NONE = "paired over models", "independent laws (Welch)", "no interval"

_BATCH = re.compile(r"_bs\d+$")
"""How TR121 tells batch sizes apart in the names of its backends."""
_COPIED = ("n_models", "slope", "slope_t_ci_low", "slope_t_ci_high", "r2", "verdict")

SCHEMA: dict[str, type[pl.DataType]] = {
    "run": pl.String,
    "backend": pl.String,
    "batch_size": pl.Int64,
    BUDGET: pl.Int64,
    "mode": pl.String,
    "n_models": pl.Int64,
    **dict.fromkeys(("slope", "slope_t_ci_low", "slope_t_ci_high", "r2"), pl.Float64),
    "verdict": pl.String,
    "suspect": pl.String,
    "against": pl.String,
    **dict.fromkeys(("difference", "difference_low", "difference_high"), pl.Float64),
    "difference_basis": pl.String,
    "differs_in": pl.String,
}

SCENARIOS = "scenarios"

Tables = Mapping[str, pl.DataFrame]


def side_by_side(runs: Sequence[tuple[str, Tables]], level: float) -> pl.DataFrame:
    """The table ``laws_side_by_side``: every run's laws over all scenarios, each with its difference from the first's.

    ``runs`` are (name, an analysis' tables). A difference is this law's slope minus that of the first run's law of the
    same backend and phase (of several, the one most alike in batch size and budget). Its interval: where both are over
    the same models, of the slope of log(this / first) on log parameters, since what a model does to both alike cancels;
    else of two independent slopes.
    """
    (first, *_), laws = runs, [(name, tables, _laws(tables)) for name, tables in runs]
    rows = []
    for name, tables, found in laws:
        for law in found:
            row = {key: law.get(key) for key in ("backend", "batch_size", BUDGET, "mode", "suspect", *_COPIED)}
            reference = None if name == first[0] else _most_alike(law, laws[0][2])
            rows.append({"run": name} | row | _difference(law, tables, reference, laws[0], level))
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def _laws(tables: Tables) -> list[dict[str, Any]]:
    return tables["scaling_fits"].filter(pl.col("scenario") == "__all__").to_dicts()


def stem(backend: str) -> str:
    """A backend's name without the batch size that TR121 ends it with."""
    return _BATCH.sub("", backend)


def _most_alike(law: Mapping[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    same = [one for one in others if (stem(one["backend"]), one["mode"]) == (stem(law["backend"]), law["mode"])]
    alike = ("backend", "batch_size", BUDGET)
    return max(same, key=lambda one: sum(one.get(key) == law.get(key) for key in alike), default=None)


def _difference(
    law: dict[str, Any], tables: Tables, reference: dict[str, Any] | None,
    first: tuple[str, Tables, Sequence[dict[str, Any]]], level: float,
) -> dict[str, Any]:  # fmt: skip
    if reference is None or law["slope"] is None or reference["slope"] is None:
        return {}
    mine, theirs = _points(tables, law), _points(first[1], reference)
    keys = ["model", "params_millions_effective"]
    shared = mine.join(theirs, on=keys).height
    found, basis = None, PAIRED
    if shared == mine.height == theirs.height:
        found = paired_slope_difference(mine, theirs, level)
    elif law["slope_se"] is not None and reference["slope_se"] is not None:
        basis, found = INDEPENDENT, unpaired_slope_difference(law, reference, level)
    known = found is not None and not math.isnan(found.low)
    return {
        "against": first[0],
        "difference": law["slope"] - reference["slope"],
        "difference_basis": basis if known else NONE,
        "differs_in": _differs(
            law | {SCENARIOS: _scenarios(tables, law)},
            reference | {SCENARIOS: _scenarios(first[1], reference)},
            (shared, mine.height, theirs.height),
        ),
    } | (_ends(found) if known and found is not None else {})


def _ends(found: SlopeDifference) -> dict[str, float]:
    return {"difference_low": found.low, "difference_high": found.high}


def _scenarios(tables: Tables, law: Mapping[str, Any]) -> str:
    cells = tables["summary_by_model_backend_mode"].filter(pl.col("backend") == law["backend"])
    return ", ".join(cells["scenario"].unique().sort())


def _points(tables: Tables, law: Mapping[str, Any]) -> pl.DataFrame:
    table = tables["summary_by_model_backend_mode_agg"]
    keys = ("backend", "batch_size", BUDGET, "mode")
    same = [pl.col(name).eq_missing(pl.lit(law[name], dtype=table.schema[name])) for name in keys]
    usable = (pl.col("params_millions_effective") > 0) & (pl.col("latency_geomean_ms") > 0)
    return table.filter(pl.all_horizontal(same) & usable)


def _differs(law: Mapping[str, Any], reference: Mapping[str, Any], models: tuple[int, int, int]) -> str:
    """What differs beside the run itself, in words; empty where nothing that is known does."""
    said = []
    for key, word in (("batch_size", "batch"), (BUDGET, "tokens"), (SCENARIOS, "scenarios")):
        if law.get(key) != reference.get(key) and law.get(key) is not None and reference.get(key) is not None:
            said.append(f"{word} {law[key]} against {reference[key]}")
    shared, mine, theirs = models
    if not shared == mine == theirs:
        said.append(f"models: {shared} shared, {mine} against {theirs}")
    return "; ".join(said)
