"""Per cell and per model: the statistics of latency and throughput that every law stands on (TR121 2.4)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phaselaw import tables as col
from phaselaw.laws.regression import Floats
from phaselaw.tables import BUDGET, IS_LATENCY, LAW, PHASE, Table, constants

GROUP = ["backend", "backend_kind", "batch_size", BUDGET, "mode"]
"""What one law is about: a backend at one batch size and decode budget, in one phase."""
SETTING = GROUP[:4]
"""The same in all phases."""
ORDER = ("backend", "batch_size", BUDGET, "mode")
"""The order in which laws stand in a table."""

MODEL = ["model", "model_kind", "params_millions_effective"]
MODEL_KEYS = [*GROUP, *MODEL]
CELL = [*MODEL_KEYS, "scenario"]
_MODEL_COLUMNS = (col.words("model"), col.words("model_kind"), *col.plain("params_millions_effective"))

_TOKENS = ["tokens_per_s", "tokens_per_s_compute", "tokens_total", "tokens_total_compute"]
_TOKENS += ["prompt_tokens", "prompt_tokens_raw", "prompt_tokens_compute"]
_TOKENS += ["gen_tokens", "gen_tokens_raw", "gen_tokens_target"]
_OTHERS = ["gpu_peak_mb", "ollama_load_ms", "params_millions_config", "params_millions_measured"]
_MEDIANS = {f"{name}_median": name for name in _TOKENS}
_MEDIANS |= {"cuda_event_median_ms": "cuda_event_ms"} | {f"{name}_median": name for name in _OTHERS}
"""Figures of a cell that are medians over its calls, by the column that they are of."""

GROUP_COLUMNS = (LAW, col.words("backend_kind"), col.counted("batch_size"), PHASE)
"""The columns of `GROUP`, the budget but for: that stands last."""
_ASKED = col.counted(BUDGET)
_VARIANCES = col.plain("latency_log_variance tokens_per_s_log_variance")
INCOMPLETE = col.words("incomplete", doc="the scenarios that the model lacks and others have; empty: none")
_BY_SIZE = ("params_millions_effective", "model", "model_kind")

CELLS = Table(
    name="summary_by_model_backend_mode",
    holds="latency, rates and tokens of each cell and phase",
    columns=(
        *GROUP_COLUMNS[:3],
        *_MODEL_COLUMNS,
        col.words("scenario"),
        PHASE,
        col.counted("n"),
        *col.plain("latency_mean_ms latency_median_ms latency_p95_ms latency_p99_ms"),
        *col.plain(" ".join(_MEDIANS)),
        *_VARIANCES,
        _ASKED,
    ),
    order=(*ORDER, "scenario", *_BY_SIZE),
)
PER_MODEL = Table(
    name="summary_by_model_backend_mode_agg",
    holds="the same of each model, over scenarios",
    columns=(
        *GROUP_COLUMNS[:3],
        *_MODEL_COLUMNS,
        PHASE,
        col.counted("n_scenarios"),
        *col.plain("latency_geomean_ms latency_median_of_medians_ms tokens_per_s_geomean tokens_per_s_compute_geomean"),
        *col.plain(" ".join(f"{name}_median" for name in _OTHERS)),
        *_VARIANCES,
        _ASKED,
        INCOMPLETE,
    ),
    order=(*ORDER, *_BY_SIZE),
)
REQUESTS = dataclasses.replace(
    PER_MODEL, name="requests_by_model", holds="the same, end to end as a request's user waits (`request_ms`)"
)
_NO_SHARE = "no model has both kv_decode and e2e_kv rows"
DECODE_FRACTION_BY_MODEL = Table(
    name="decode_fraction_by_model",
    holds="decode's share of end-to-end latency, of each model",
    why_empty=_NO_SHARE,
    keeps_budget=True,
    columns=(
        *GROUP_COLUMNS[:3],
        *_MODEL_COLUMNS[:2],
        *col.plain("kv_decode_latency_ms e2e_kv_latency_ms"),
        _ASKED,
        *col.plain("decode_fraction params_millions_effective"),
    ),
    order=("backend", "batch_size", BUDGET, "params_millions_effective", "model"),
)
DECODE_FRACTION_SUMMARY = Table(
    name="decode_fraction_summary",
    holds="decode's share of end-to-end latency, over models",
    why_empty=_NO_SHARE,
    keeps_budget=True,
    columns=(
        *GROUP_COLUMNS[:2],
        col.counted(BUDGET, "tokens", provenance="assumed"),
        col.counted("n_models", "models"),
        col.derived("decode_fraction_median", "median", col.percent),
        *col.interval("decode_fraction_p25", "decode_fraction_p75", "quartiles over models", col.percent),
        col.counted("batch_size"),
    ),
    order=("backend", "batch_size", BUDGET),
)
CUDA_EVENT_GAP_SUMMARY = Table(
    name="cuda_event_gap_summary",
    holds="wall clock against CUDA events",
    caption="Wall clock less CUDA events, as a share of the wall clock and in ms.",
    why_empty="no CUDA event times",
    columns=(
        *GROUP_COLUMNS[:2],
        PHASE,
        col.flag("is_warmup", "calls", lambda warmup: "warmup" if warmup else "measured"),
        col.counted("n", "rows"),
        col.derived("rel_gap_median", "gap, median", lambda gap: f"{col.digits(100 * gap)} %"),
        col.derived("rel_gap_p95", "gap, p95", lambda gap: f"{col.digits(100 * gap)} %"),
        col.derived("abs_gap_ms_median", "gap, median (ms)"),
        col.derived("abs_gap_ms_p95", "gap, p95 (ms)"),
        col.counted("batch_size"),
        _ASKED,
    ),
    order=("backend", "backend_kind", "mode", "is_warmup", "batch_size", BUDGET),
)

_MEDIAN_VARIANCES = np.array([0.0, 1.0, 0.5, 0.4487, 0.2982, 0.2868, 0.2147, 0.2104, 0.1682, 0.1661, 0.1383])
"""Of none to ten values."""


def median_variance(n: int | NDArray[np.int64]) -> Floats:
    """Variance of the median of ``n`` normal values of variance 1 (order statistics; pi / 2n beyond ten values)."""
    return np.where(np.less(n, 11), _MEDIAN_VARIANCES[np.minimum(n, 10)], math.pi / (2 * np.maximum(n, 1)))


def floats(table: pl.DataFrame, column: str) -> Floats:
    """A column as floats; missing is NaN."""
    return np.asarray(table[column].cast(pl.Float64).to_numpy())


def stated(models: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Columns of a run's table of models as text, empty where it lacks them."""
    lacking = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    known = models.select(pl.selectors.by_name(names, require_all=False).cast(pl.String))
    return pl.concat([lacking, known], how="diagonal")


def by_size(points: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The points that have a parameter count and a positive ``latency``, law after law, models ascending in size."""
    sound = (pl.col(name).is_finite() & (pl.col(name) > 0) for name in ("params_millions_effective", "latency"))
    return points.filter(*sound).sort([*keys, *_BY_SIZE])


def usable(rows: pl.DataFrame, *, include_warmup: bool = False) -> pl.DataFrame:
    """The rows that laws are fitted on: ``ok``, one client, a latency, warmups left out unless asked for."""
    kept = (pl.col("status") == "ok") & IS_LATENCY & (pl.col("concurrency").fill_null(1) == 1)
    return rows.filter(kept if include_warmup else kept & ~pl.col("is_warmup"))


Unit = Literal["run", "replicate"]
"""What may be measured again and again, so that its scatter tells what another one would give."""


def unit_of(rows: pl.DataFrame) -> tuple[Unit, int]:
    """The outermost level of which a law is over two or more, pooled runs, else the replicates of a run; and how many.

    That is 1 where nothing was measured again, and 0 without rows. Runs that each measured something else, such as a
    decode budget, are no level.
    """
    levels = rows.select(pl.col("run", "replicate").n_unique()).row(0)
    if max(levels) > 1:
        most = rows.group_by(GROUP).agg(pl.col("run", "replicate").n_unique()).select(pl.col("run", "replicate").max())
        levels = most.row(0)
    runs, replicates = levels
    return ("replicate", replicates) if replicates > 1 >= runs else ("run", runs)


_LOG_VARIANCES = ["latency_log_variance", "tokens_per_s_log_variance"]

_OVER_UNITS = ["latency_median_ms", "tokens_per_s_median", "tokens_per_s_compute_median"]
"""Medians that are geometric means over runs, or replicates, where there are several."""


def as_requests(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with what a user waits for a request in place of ``e2e_kv``, where a run of ours has it."""
    latency, waited = pl.col("latency_ms"), pl.when(pl.col("mode") == "e2e_kv").then(pl.col("request_ms"))
    rates = pl.col("tokens_per_s", "tokens_per_s_compute") * pl.coalesce(latency / waited, 1.0)
    return rows.with_columns(rates, pl.coalesce(waited, latency).alias("latency_ms"))


def by_cell(rows: pl.DataFrame) -> pl.DataFrame:
    """TR121's ``summary_by_model_backend_mode``: n, mean, median, p95, p99 of each cell and phase.

    Percentiles interpolate linearly. Ours follow: the variance of the natural log of the median latency, and of the
    median rate, from the scatter of the cell's calls (empty where the cell has one), and the decode budget. Of several
    units (`unit_of`) the median latency and rates are geometric means over theirs, so that each weighs the same.
    """
    latency = pl.col("latency_ms")
    cells = _grouped(
        rows,
        CELL,
        latency.mean().alias("latency_mean_ms"),
        latency.quantile(0.95, "linear").alias("latency_p95_ms"),
        latency.quantile(0.99, "linear").alias("latency_p99_ms"),
        *(pl.col(source).cast(pl.Float64).median().alias(name) for name, source in _MEDIANS.items()),
    )
    unit, n = unit_of(rows)
    if n > 1:
        over_units = _mean_over(by_cell_and_unit(rows, unit), CELL).drop("n")
        cells = cells.drop(*_OVER_UNITS, *_LOG_VARIANCES).join(over_units, on=CELL, nulls_equal=True)
    return CELLS.frame(cells)


def by_cell_and_unit(rows: pl.DataFrame, unit: Unit) -> pl.DataFrame:
    """Each cell in each run, or replicate, alone: medians of latency and rates, and the variances of their logs.

    Those of a run of several replicates are geometric means over its replicates' medians.
    """
    rates = (pl.col(_MEDIANS[name]).median().alias(name) for name in _OVER_UNITS[1:])
    several = unit == "run" and rows["replicate"].n_unique() > 1
    each = _grouped(rows, [*CELL, unit, "replicate"] if several else [*CELL, unit], *rates)
    return (_mean_over(each, [*CELL, unit]) if several else each).sort(*CELLS.order, unit)


def _mean_over(each: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The geometric means of medians by ``keys``, with ``n`` and the variances of their logs."""
    variances = (_mean_variance(name) for name in _LOG_VARIANCES)
    means = pl.col(_OVER_UNITS).log().mean().exp()
    return each.group_by(keys, maintain_order=True).agg(pl.col("n").sum(), means, *variances)


def _grouped(rows: pl.DataFrame, keys: list[str], *figures: pl.Expr) -> pl.DataFrame:
    """Figures of each group of calls, with ``n``, the median latency and the variances of the log medians."""
    latency = pl.col("latency_ms")
    texts = [name for name in keys if rows.schema[name] == pl.String]
    # Keys as codes: a third of the memory and of the time that grouping by texts takes.
    needed = rows.lazy().select(*dict.fromkeys([*keys, "latency_ms", *_MEDIANS.values()]))
    # A key of one value tells no groups apart, and each row's keys are held in one piece until the medians are taken.
    alike = constants(rows.select(keys))
    telling = [name for name in keys if name not in alike] or keys[:1]
    grouped = (
        needed.cast(dict.fromkeys(texts, pl.Categorical))
        .group_by(telling)
        .agg(
            pl.col(name for name in keys if name not in telling).first(),
            latency.len().cast(pl.Int64).alias("n"),
            latency.median().alias("latency_median_ms"),
            *figures,
            latency.log().var().alias("latency_log_variance"),
            pl.col("tokens_per_s").log().var().alias("tokens_per_s_log_variance"),
        )
    )
    found = grouped.select(*keys, pl.exclude(keys)).cast(dict.fromkeys(texts, pl.String)).collect()
    return found.with_columns(pl.col(_LOG_VARIANCES) * pl.Series(median_variance(found["n"].to_numpy())))


def _mean_variance(name: str) -> pl.Expr:
    """The variance of a mean from those of its parts, none unless all are known: a sum over some would be too small."""
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum() / pl.len().cast(pl.Float64) ** 2)


def by_model(cells: pl.DataFrame, *, as_is: bool = False) -> pl.DataFrame:
    """TR121's ``summary_by_model_backend_mode_agg``: geometric means over scenarios of a model's medians.

    Ours follow: the variance of the log of each mean, as its cells' variances give it; and `INCOMPLETE`. A model that
    lacks scenarios is compared over those that it has: its mean over them, times how far the complete models' mean over
    all lies from theirs over the same. Where no model is complete, or ``as_is`` (TR121's filters), means stay alone.
    """
    # The scenarios that a model lacks and others have.
    each = pl.col("scenario").unique()
    scenarios, of_all = cells.group_by(MODEL_KEYS).agg(own=each), cells.group_by(GROUP).agg(of_all=each)
    lacking = scenarios.join(of_all, on=GROUP, nulls_equal=True).select(
        *MODEL_KEYS, lacking=pl.col("of_all").list.set_difference("own").list.sort()
    )
    complete = pl.col("lacking").list.len() == 0
    cells = cells.join(lacking, on=MODEL_KEYS, nulls_equal=True, maintain_order="left")
    # By which an incomplete model's mean is off: the complete models' mean over all scenarios less that over its own.
    typical = {name: pl.when(complete).then(pl.col(name).log()).mean() for name in _OVER_UNITS}
    cells = cells.with_columns(log.over([*GROUP, "scenario"]).alias(f"{name}_typical") for name, log in typical.items())
    cells = cells.with_columns(
        pl.when(~complete)
        .then(log.over(GROUP) - pl.col(f"{name}_typical").mean().over(MODEL_KEYS))
        .fill_null(0.0)
        .alias(f"{name}_beside")
        for name, log in typical.items()
    )
    own = {name: pl.col(name).log().mean() for name in _OVER_UNITS}
    beside = {name: own[name] + (0.0 if as_is else pl.col(f"{name}_beside").first()) for name in own}
    found = cells.group_by(MODEL_KEYS, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_scenarios"),
        pl.col("latency_median_ms").median().alias("latency_median_of_medians_ms"),
        *(log.exp().alias(name.replace("median", "geomean")) for name, log in beside.items()),
        pl.col([f"{name}_median" for name in _OTHERS]).median(),
        *(_mean_variance(name) for name in _LOG_VARIANCES),
    )
    words = pl.format("lacks {}", pl.col("lacking").list.join(", "))
    lacks = lacking.select(*MODEL_KEYS, incomplete=pl.when(~complete).then(words))
    return PER_MODEL.frame(found.join(lacks, on=MODEL_KEYS, nulls_equal=True, maintain_order="left"))


def decode_fractions(per_model: pl.DataFrame) -> pl.DataFrame:
    """``decode_fraction_by_model``: ``kv_decode / e2e_kv`` of each model's aggregates (method 4)."""
    keys = ["backend", "backend_kind", "batch_size", *MODEL, BUDGET]
    decode, end_to_end = (
        per_model.filter(pl.col("mode") == mode).select(*keys, pl.col("latency_geomean_ms").alias(f"{mode}_latency_ms"))
        for mode in ("kv_decode", "e2e_kv")
    )
    share = pl.col("kv_decode_latency_ms") / pl.col("e2e_kv_latency_ms")
    return DECODE_FRACTION_BY_MODEL.frame(
        decode.join(end_to_end, on=keys, nulls_equal=True).with_columns(share.alias("decode_fraction"))
    )


def decode_fraction_summary(fractions: pl.DataFrame) -> pl.DataFrame:
    """Median and quartiles over models of the decode fraction, per backend, batch size and decode budget."""
    share = pl.col("decode_fraction")
    return DECODE_FRACTION_SUMMARY.frame(
        fractions.group_by(["backend", "backend_kind", BUDGET, "batch_size"], maintain_order=True).agg(
            pl.len().alias("n_models"),
            share.median().alias("decode_fraction_median"),
            share.quantile(0.25, "linear").alias("decode_fraction_p25"),
            share.quantile(0.75, "linear").alias("decode_fraction_p75"),
        )
    )


def cuda_event_gap_summary(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """Per backend, phase and ``is_warmup``: ``|wall - event| / wall`` and the gap in ms, median and p95 (TR121 2.2.1).

    The gap is what the host adds to the time of the device.
    """
    wall, event = pl.col("latency_ms"), pl.col("cuda_event_ms")
    gap = (wall - event).abs()
    return CUDA_EVENT_GAP_SUMMARY.frame(
        ok_rows.filter(event.is_not_null() & (wall > 0))
        .group_by(CUDA_EVENT_GAP_SUMMARY.order, maintain_order=True)
        .agg(
            pl.len().alias("n"),
            (gap / wall).median().alias("rel_gap_median"),
            (gap / wall).quantile(0.95, "linear").alias("rel_gap_p95"),
            gap.median().alias("abs_gap_ms_median"),
            gap.quantile(0.95, "linear").alias("abs_gap_ms_p95"),
        )
    )
