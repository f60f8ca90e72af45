"""Per cell and per model: the statistics of latency and throughput that every law stands on (TR121 2.4)."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from phaselaw.tables import BUDGET as BUDGET
from phaselaw.tables import IS_LATENCY, Table, constants

CELLS = Table(
    name="summary_by_model_backend_mode", holds="latency, rates and tokens of each cell and phase", columns=()
)
PER_MODEL = Table(name="summary_by_model_backend_mode_agg", holds="the same of each model, over scenarios", columns=())
DECODE_FRACTION_BY_MODEL = Table(
    name="decode_fraction_by_model",
    holds="decode's share, of each model",
    why_empty="no model has both kv_decode and e2e_kv rows",
    keeps_budget=True,
    columns=(),
)
DECODE_FRACTION_SUMMARY = Table(
    name="decode_fraction_summary",
    holds="decode's share, over models",
    why_empty="no model has both kv_decode and e2e_kv rows",
    keeps_budget=True,
    columns=(),
)

GROUP = ["backend", "backend_kind", "batch_size", BUDGET, "mode"]
"""What one law is about: a backend at one batch size and decode budget, in one phase."""

MODEL = ["model", "model_kind", "params_millions_effective"]

_MEDIANS = {
    "tokens_per_s_median": "tokens_per_s",
    "tokens_per_s_compute_median": "tokens_per_s_compute",
    "tokens_total_median": "tokens_total",
    "tokens_total_compute_median": "tokens_total_compute",
    "prompt_tokens_median": "prompt_tokens",
    "prompt_tokens_raw_median": "prompt_tokens_raw",
    "prompt_tokens_compute_median": "prompt_tokens_compute",
    "gen_tokens_median": "gen_tokens",
    "gen_tokens_raw_median": "gen_tokens_raw",
    "gen_tokens_target_median": "gen_tokens_target",
    "cuda_event_median_ms": "cuda_event_ms",
    "gpu_peak_mb_median": "gpu_peak_mb",
    "ollama_load_ms_median": "ollama_load_ms",
    "params_millions_config_median": "params_millions_config",
    "params_millions_measured_median": "params_millions_measured",
}


_MEDIAN_VARIANCES = (1.0, 0.5, 0.4487, 0.2982, 0.2868, 0.2147, 0.2104, 0.1682, 0.1661, 0.1383)


def median_variance(n: int) -> float:
    """Variance of the median of ``n`` normal values of variance 1 (order statistics; pi / 2n beyond ten values)."""
    return _MEDIAN_VARIANCES[n - 1] if n <= len(_MEDIAN_VARIANCES) else math.pi / (2 * n)


def variance_for_t(n: int) -> float:
    """Variance of the median of ``n`` values of variance 1, for an interval by the t quantile of their deviation.

    Midway between that of a median and that of a mean. The median's own would be right for a deviation that is known;
    estimated from the same few values it makes intervals cover up to 98 % rather than 95 (`benchmarks/coverage.py`).
    """
    return (median_variance(n) + 1.0 / n) / 2.0


def usable(rows: pl.DataFrame, *, include_warmup: bool = False) -> pl.DataFrame:
    """The rows that laws are fitted on: ``ok``, one client, a latency, warmups left out unless asked for."""
    kept = (pl.col("status") == "ok") & IS_LATENCY & (pl.col("concurrency").fill_null(1) == 1)
    return rows.filter(kept if include_warmup else kept & ~pl.col("is_warmup"))


def runs_pooled(rows: pl.DataFrame) -> int:
    """The most runs that one law is over: 1 where each run measured something else, such as a decode budget."""
    if rows.select(pl.col("run").n_unique()).item() < 2:
        return min(rows.height, 1)
    runs = rows.group_by(GROUP).agg(pl.col("run").n_unique())["run"].max()
    return int(np.asarray(runs))


_CELL = [*GROUP, *MODEL, "scenario"]
_LOG_VARIANCES = ["latency_log_variance", "tokens_per_s_log_variance"]
_OVER_RUNS = ["latency_median_ms", "tokens_per_s_median", "tokens_per_s_compute_median"]
"""Medians that are geometric means over runs where several are pooled."""


def by_cell(rows: pl.DataFrame) -> pl.DataFrame:
    """TR121's ``summary_by_model_backend_mode``: n, mean, median, p95, p99 of each cell and phase.

    Percentiles interpolate linearly. Ours follow: the variance of the natural log of the median latency, and of the
    median rate, from the scatter of the cell's calls (empty where the cell has one), and the decode budget. Of several
    runs the median latency and rates are geometric means over the runs' medians, so that each run weighs the same.
    """
    latency = pl.col("latency_ms")
    cells = _grouped(
        rows,
        _CELL,
        latency.mean().alias("latency_mean_ms"),
        latency.quantile(0.95, "linear").alias("latency_p95_ms"),
        latency.quantile(0.99, "linear").alias("latency_p99_ms"),
        *(pl.col(source).cast(pl.Float64).median().alias(name) for name, source in _MEDIANS.items()),
    )
    if runs_pooled(rows) > 1:
        variances = (_mean_variance(name) for name in _LOG_VARIANCES)
        each = by_cell_and_run(rows).group_by(_CELL, maintain_order=True)
        over_runs = each.agg(pl.col(_OVER_RUNS).log().mean().exp(), *variances)
        cells = cells.drop(*_OVER_RUNS, *_LOG_VARIANCES).join(over_runs, on=_CELL, nulls_equal=True)
    first = ["backend", "backend_kind", "batch_size", *MODEL, "scenario", "mode", "n", "latency_mean_ms"]
    first += ["latency_median_ms", "latency_p95_ms", "latency_p99_ms", *_MEDIANS]
    return _ordered(cells, first).sort([*_SORTED[:4], "scenario", *_SORTED[4:]])


def by_cell_and_run(rows: pl.DataFrame) -> pl.DataFrame:
    """Each cell in each ``run`` alone: ``n``, the medians of latency and rates, and the variances of their logs."""
    rates = (pl.col(_MEDIANS[name]).median().alias(name) for name in _OVER_RUNS[1:])
    return _grouped(rows, [*_CELL, "run"], *rates).sort([*_SORTED[:4], "scenario", *_SORTED[4:], "run"])


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
    factors = {n: median_variance(n) for n in found["n"].unique()}
    return found.with_columns(pl.col(_LOG_VARIANCES) * pl.col("n").replace_strict(factors, return_dtype=pl.Float64))


def _mean_variance(name: str) -> pl.Expr:
    """The variance of a mean from those of its parts, none unless all are known: a sum over some would be too small."""
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum() / pl.len().cast(pl.Float64) ** 2)


def by_model(cells: pl.DataFrame) -> pl.DataFrame:
    """TR121's ``summary_by_model_backend_mode_agg``: geometric means over scenarios of a model's medians.

    Ours follow: the variance of the log of each mean, as its cells' variances give it.
    """
    aggregated = cells.group_by([*GROUP, *MODEL], maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_scenarios"),
        pl.col("latency_median_ms").log().mean().exp().alias("latency_geomean_ms"),
        pl.col("latency_median_ms").median().alias("latency_median_of_medians_ms"),
        pl.col("tokens_per_s_median").log().mean().exp().alias("tokens_per_s_geomean"),
        pl.col("tokens_per_s_compute_median").log().mean().exp().alias("tokens_per_s_compute_geomean"),
        pl.col("gpu_peak_mb_median").median(),
        pl.col("ollama_load_ms_median").median(),
        pl.col("params_millions_config_median").median(),
        pl.col("params_millions_measured_median").median(),
        *(_mean_variance(name) for name in _LOG_VARIANCES),
    )
    return _ordered(aggregated, ["backend", "backend_kind", "batch_size", *MODEL, "mode"]).sort(_SORTED)


_SORTED = ["backend", "batch_size", "gen_tokens_target", "mode", "params_millions_effective", "model", "model_kind"]


def _ordered(table: pl.DataFrame, first: list[str]) -> pl.DataFrame:
    """The columns ``first``, then the others, the decode budget last."""
    rest = [name for name in table.columns if name not in {*first, "gen_tokens_target"}]
    return table.select([*first, *rest, "gen_tokens_target"])


def decode_fractions(per_model: pl.DataFrame) -> pl.DataFrame:
    """``decode_fraction_by_model``: ``kv_decode / e2e_kv`` of each model's aggregates (method 4)."""
    keys = ["backend", "backend_kind", "batch_size", *MODEL, "gen_tokens_target"]
    phases = [
        per_model.filter(pl.col("mode") == mode).select(*keys, pl.col("latency_geomean_ms").alias(f"{mode}_latency_ms"))
        for mode in ("kv_decode", "e2e_kv")
    ]
    joined = phases[0].join(phases[1], on=keys, nulls_equal=True)
    share = pl.col("kv_decode_latency_ms") / pl.col("e2e_kv_latency_ms")
    return (
        joined.with_columns(share.alias("decode_fraction"))
        .select(
            "backend", "backend_kind", "batch_size", "model", "model_kind", "kv_decode_latency_ms", "e2e_kv_latency_ms",
            "gen_tokens_target", "decode_fraction", "params_millions_effective",
        )
        .sort(["backend", "batch_size", "gen_tokens_target", "params_millions_effective", "model"])
    )  # fmt: skip


def decode_fraction_summary(fractions: pl.DataFrame) -> pl.DataFrame:
    """Median and quartiles over models of the decode fraction, per backend, batch size and decode budget."""
    share = pl.col("decode_fraction")
    keys = ["backend", "backend_kind", "gen_tokens_target"]
    return (
        fractions.group_by([*keys, "batch_size"], maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("n_models"),
            share.median().alias("decode_fraction_median"),
            share.quantile(0.25, "linear").alias("decode_fraction_p25"),
            share.quantile(0.75, "linear").alias("decode_fraction_p75"),
        )
        .select(
            [*keys, "n_models", "decode_fraction_median", "decode_fraction_p25", "decode_fraction_p75", "batch_size"]
        )
        .sort(["backend", "batch_size", "gen_tokens_target"])
    )
