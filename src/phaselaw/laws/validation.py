"""How good predictions are: each measured model left out in turn and predicted from the others (method 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from phaselaw import tables as col
from phaselaw.laws import prediction
from phaselaw.laws.prediction import LAWS
from phaselaw.laws.regression import exponential
from phaselaw.laws.structure import MEAN
from phaselaw.laws.summary import BUDGET, GROUP
from phaselaw.tables import LAW, PHASE, Row, Table, grouped

CHOSEN = "chosen"
"""The law that `phaselaw.laws.prediction.predict` would use: chosen anew from the others alone for each model."""
_FEW = "no law over four models, so that three are left to predict one from"
_GROUP = (LAW, col.words("backend_kind"), col.counted("batch_size"), PHASE)


def _signed(error: float | None) -> str:
    return col.MISSING if error is None else f"{100 * error:+.0f} %"


PREDICTION_VALIDATION = Table(
    name="prediction_validation",
    holds="each model predicted from the others",
    caption="Each model predicted from the others.",
    why_empty=_FEW,
    columns=(
        *(*_GROUP, col.words("predictor"), col.words("predictor_used", "by"), col.words("model", "left out")),
        *(col.measured("params_millions_effective", "M params"), col.counted("n_others")),
        col.measured("latency_measured_ms", "measured ms"),
        col.derived("latency_predicted_ms", "predicted ms"),
        *col.interval("latency_predicted_ms_low", "latency_predicted_ms_high", "interval", col.digits),
        col.derived("error", "error", _signed),
        col.Col(key="inside", title="measured lies", type=pl.Boolean, show=lambda held: ("OUTSIDE", "inside")[held]),
        col.Col(key="extrapolated", type=pl.Boolean, show=lambda beyond: "extrapolated" if beyond else ""),
        col.counted(BUDGET),
    ),
    shows="backend mode model params_millions_effective predictor_used latency_predicted_ms latency_predicted_ms_low "
    "latency_measured_ms error inside extrapolated",
)
PREDICTION_COVERAGE = Table(
    name="prediction_coverage",
    holds="how many prediction intervals held",
    caption="How many prediction intervals held the measured latency.",
    why_empty=_FEW,
    columns=(
        *(*_GROUP, col.words("predictor", "by"), col.counted("n_models", "models"), col.counted("n_inside")),
        col.derived("coverage", "intervals that held", col.percent),
        *col.interval("coverage_low", "coverage_high", "its interval", col.percent),
        col.assumed("asked", "asked", col.percent),
        col.derived("typical_factor", "typical error", col.factor),
        col.derived("mean_factor", "predicting the mean", col.factor),
        col.derived("interval_factor", "interval reaches", col.factor),
        col.counted("n_interpolated"),
        col.Col(
            key="n_inside_interpolated",
            title="inside the others' range",
            type=pl.Int64,
            provenance="derived",
            of_row=lambda row: f"{row['n_inside_interpolated']} of {row['n_interpolated']}",
        ),
        col.counted(BUDGET),
    ),
    shows="backend mode predictor n_models coverage coverage_low asked n_inside_interpolated typical_factor "
    "mean_factor interval_factor",
)


def prediction_validation(tables: Mapping[str, pl.DataFrame], *, level: float) -> pl.DataFrame:
    """The table ``prediction_validation``: each model predicted from the others, by each law and by the `CHOSEN` one.

    ``error`` is predicted / measured - 1; ``inside`` says whether the measured latency lies in the interval;
    ``extrapolated`` that the model lies outside of the range of the others, as the smallest and the largest do. The
    intervals are without the noise between runs: what a run does to all models is in the model left out as well.
    """
    groups = prediction.groups(tables)
    return PREDICTION_VALIDATION.frame(key | row for key, points in groups for row in _left_out(points, level))


def _left_out(points: pl.DataFrame, level: float) -> Iterator[Row]:
    for at, model in enumerate(points.iter_rows(named=True)):
        others = points.filter(np.arange(points.height) != at)
        properties = {name: model[name] for name in prediction.PROPERTIES if (model[name] or 0) > 0}
        fits = prediction.applicable(others, properties)
        chosen = prediction.best_law(fits, prediction.typical_factors(others, list(fits)))
        if chosen is None:
            continue
        latency = float(model["latency"])
        extrapolated = prediction.outside_range(others, properties) is not None
        shared = model | {"latency_measured_ms": latency, "extrapolated": extrapolated}
        for law in (CHOSEN, *(law for law in LAWS if law in fits)):
            used = fits[chosen if law == CHOSEN else law]
            value, low, high = used.latency_ms(properties, level, chosen_of=len(fits) if law == CHOSEN else 1)
            yield shared | {
                "predictor": law,
                "predictor_used": used.law,
                "n_others": used.models.height,
                "latency_predicted_ms": value,
                "latency_predicted_ms_low": low,
                "latency_predicted_ms_high": high,
                "error": value / latency - 1,
                "inside": low <= latency <= high,
            }
        mean = exponential(float(np.log(others["latency"].to_numpy()).mean()))
        by_mean = {"predictor": MEAN, "predictor_used": MEAN, "n_others": others.height}
        yield shared | by_mean | {"latency_predicted_ms": mean, "error": mean / latency - 1}


def prediction_coverage(validation: pl.DataFrame, *, level: float) -> pl.DataFrame:
    """The table ``prediction_coverage``: of how many left-out models the interval held the latency, by law.

    ``coverage_low`` and ``coverage_high`` are Clopper and Pearson's interval at the same level, as if the models were
    independent trials. ``typical_factor`` is what a prediction is off by, ``mean_factor`` the same for the others'
    geometric mean, ``interval_factor`` the median reach of an interval to either side, all factors. Last come the
    models inside the range of the others, as ``phaselaw predict`` asks for, and how many of their intervals held.
    """
    by_mean = grouped(validation.filter(pl.col("predictor") == MEAN), GROUP)
    means = {tuple(about.values()): _factor(group) for about, group in by_mean}
    rows = []
    for about, group in grouped(validation.filter(pl.col("predictor") != MEAN), [*GROUP, "predictor"]):
        n, inside, between = group.height, int(group["inside"].sum()), group.filter(~pl.col("extrapolated"))
        low, high = clopper_pearson(inside, n, level)
        reach = (group["latency_predicted_ms_high"] / group["latency_predicted_ms"]).to_numpy()
        figures: dict[str, Any] = {
            "n_models": n,
            "n_inside": inside,
            "coverage": inside / n,
            "coverage_low": low,
            "coverage_high": high,
            "asked": level,
            "typical_factor": _factor(group),
            "mean_factor": means.get(tuple(about[name] for name in GROUP)),
            "interval_factor": float(np.median(reach)),
            "n_interpolated": between.height,
            "n_inside_interpolated": int(between["inside"].sum()),
        }
        rows.append(about | figures)
    return PREDICTION_COVERAGE.frame(rows)


def clopper_pearson(hits: int, n: int, level: float) -> tuple[float, float]:
    """The exact interval of a share of which ``hits`` of ``n`` were seen (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def _factor(group: pl.DataFrame) -> float:
    """What predictions are off by: the exponential of the root mean square of log(predicted / measured)."""
    off = np.log((group["latency_predicted_ms"] / group["latency_measured_ms"]).to_numpy())
    return exponential(float(np.sqrt((off * off).mean())))
