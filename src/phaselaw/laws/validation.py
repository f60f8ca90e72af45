"""How good predictions are: each measured model left out in turn and predicted from the others (method 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw.laws import prediction
from phaselaw.laws.prediction import LAWS, NewModel
from phaselaw.laws.regression import exponential
from phaselaw.laws.structure import MEAN
from phaselaw.laws.summary import BUDGET, GROUP
from phaselaw.tables import Table

PREDICTION_VALIDATION = Table(
    name="prediction_validation",
    holds="each model predicted from the others",
    why_empty="no law over four models, so that three are left to predict one from",
    columns=(),
)
PREDICTION_COVERAGE = Table(
    name="prediction_coverage",
    holds="how many prediction intervals held",
    why_empty="no law over four models, so that three are left to predict one from",
    columns=(),
)

CHOSEN = "chosen"
"""The law that `phaselaw.laws.prediction.predict` would use: chosen anew from the others alone for each model."""

VALIDATION: dict[str, type[pl.DataType]] = {
    "predictor": pl.String,
    "predictor_used": pl.String,
    "model": pl.String,
    "params_millions_effective": pl.Float64,
    "n_others": pl.Int64,
    **dict.fromkeys(
        ("latency_measured_ms", "latency_predicted_ms", "latency_predicted_ms_low", "latency_predicted_ms_high",
         "error"), pl.Float64),
    "inside": pl.Boolean,
    "extrapolated": pl.Boolean,
}  # fmt: skip

COVERAGE: dict[str, type[pl.DataType]] = {
    "predictor": pl.String,
    "n_models": pl.Int64,
    "n_inside": pl.Int64,
    **dict.fromkeys(
        ("coverage", "coverage_low", "coverage_high", "asked", "typical_factor", "mean_factor", "interval_factor"),
        pl.Float64,
    ),
    "n_interpolated": pl.Int64,
    "n_inside_interpolated": pl.Int64,
}

_FIRST = ["backend", "backend_kind", "batch_size", "mode"]


def prediction_validation(tables: Mapping[str, pl.DataFrame], *, level: float) -> pl.DataFrame:
    """The table ``prediction_validation``: each model predicted from the others, by each law and by the `CHOSEN` one.

    ``error`` is predicted / measured - 1; ``inside`` says whether the measured latency lies in the interval;
    ``extrapolated`` that the model lies outside of the range of the others, as the smallest and the largest do. The
    intervals are without the noise between runs: what a run does to all models is in the model left out as well.
    """
    rows = [key | row for key, points in prediction.groups(tables) for row in _left_out(points, level)]
    return _table(rows, VALIDATION, tables)


def prediction_coverage(validation: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """The table ``prediction_coverage``: of how many left-out models the interval held the latency, by law.

    ``coverage_low`` and ``coverage_high`` are Clopper and Pearson's interval at the same level, as if the models were
    independent trials. ``typical_factor`` is what a prediction is off by, ``mean_factor`` the same for the others'
    geometric mean, ``interval_factor`` the median reach of an interval to either side, all factors. Last come the
    models inside the range of the others, as ``phaselaw predict`` asks for, and how many of their intervals held.
    """
    rows = []
    means = dict(_by(validation.filter(pl.col("predictor") == MEAN), GROUP))
    for key, group in _by(validation.filter(pl.col("predictor") != MEAN), [*GROUP, "predictor"]):
        n, inside = group.height, int(group["inside"].sum())
        low, high = clopper_pearson(inside, n, level)
        between, mean = group.filter(~pl.col("extrapolated")), means.get(key[:-1])
        mean_factor = None if mean is None else _factor(mean)
        reach = (group["latency_predicted_ms_high"] / group["latency_predicted_ms"]).to_numpy()
        rows.append(
            dict(zip([*GROUP, "predictor"], key, strict=True))
            | {"n_models": n, "n_inside": inside, "coverage": inside / n, "coverage_low": low, "coverage_high": high,
               "asked": level, "typical_factor": _factor(group), "mean_factor": mean_factor,
               "interval_factor": float(np.median(reach)), "n_interpolated": between.height,
               "n_inside_interpolated": int(between["inside"].sum())}
        )  # fmt: skip
    return _table(rows, COVERAGE, {"summary_by_model_backend_mode_agg": validation})


def clopper_pearson(hits: int, n: int, level: float) -> tuple[float, float]:
    """The exact interval of a share of which ``hits`` of ``n`` were seen (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def _left_out(points: pl.DataFrame, level: float) -> Iterator[dict[str, Any]]:
    for at, model in enumerate(points.iter_rows(named=True)):
        others = points.filter(np.arange(points.height) != at)
        properties = {name: model[name] for name in prediction.PROPERTIES if (model[name] or 0) > 0}
        fits = prediction.applicable(others, properties)
        chosen = prediction.best_law(fits, prediction.typical_factors(others, list(fits)))
        if chosen is None:
            continue
        outside = prediction.outside_range(others, NewModel(**_as_new(properties)))
        shared = {"model": model["model"], "params_millions_effective": model["params_millions_effective"],
                  "extrapolated": outside is not None}  # fmt: skip
        measured = float(model["latency"])
        for law in (CHOSEN, *(law for law in LAWS if law in fits)):
            used = chosen if law == CHOSEN else law
            by = {"predictor": law, "predictor_used": used, "n_others": fits[used].models.height}
            predicted = fits[used].latency_ms(properties, level, chosen_of=len(fits) if law == CHOSEN else 1)
            yield shared | by | _scored(measured, predicted)
        mean = exponential(float(np.log(others["latency"].to_numpy()).mean()))
        by_mean = {"predictor": MEAN, "predictor_used": MEAN, "n_others": others.height}
        yield (
            shared
            | by_mean
            | {"latency_measured_ms": measured, "latency_predicted_ms": mean, "error": mean / measured - 1}
        )


def _as_new(properties: Mapping[str, float]) -> dict[str, Any]:
    return {
        "params_millions": properties["params_millions_effective"],
        "n_layer": properties.get("n_layer"),
        "n_embd": properties.get("n_embd"),
    }


def _scored(measured: float, predicted: tuple[float, float, float]) -> dict[str, Any]:
    value, low, high = predicted
    return {
        "latency_measured_ms": measured,
        "latency_predicted_ms": value,
        "latency_predicted_ms_low": low,
        "latency_predicted_ms_high": high,
        "error": value / measured - 1,
        "inside": low <= measured <= high,
    }


def _factor(group: pl.DataFrame) -> float:
    """What predictions are off by: the exponential of the root mean square of log(predicted / measured)."""
    off = np.log((group["latency_predicted_ms"] / group["latency_measured_ms"]).to_numpy())
    return exponential(float(np.sqrt((off * off).mean())))


def _by(table: pl.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    yield from table.group_by(keys, maintain_order=True)


def _table(
    rows: list[dict[str, Any]], schema: Mapping[str, type[pl.DataType]], like: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """Rows as a table: the group's columns with the types they have in the aggregate, then ``schema``."""
    known = like["summary_by_model_backend_mode_agg"].schema
    keys = {name: known.get(name, pl.Int64()) for name in GROUP}
    return pl.DataFrame(rows, schema=keys | dict(schema)).select(*_FIRST, *schema, BUDGET)
