"""Throughput against clients: what a served engine gains from more of them, and the laws that it follows.

Amdahl: ``X(N) = rate N / (1 + contention (N - 1))``. Universal scalability (Gunther): a further term
``coherency N (N - 1)`` in the denominator, so that throughput may fall again. Both are linear in ``N / X``, and are
fitted by non-negative least squares on relative error: no starting values, one answer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from scipy.optimize import nnls

from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import BUDGET, median_variance
from phaselaw.tables import Table

CONCURRENCY_THROUGHPUT = Table(
    name="concurrency_throughput",
    holds="rates and latencies by number of clients",
    why_empty="no served backend was called by different numbers of clients",
    keeps_budget=True,
    columns=(),
)
CONCURRENCY_FITS = Table(
    name="concurrency_fits",
    holds="laws of throughput against clients",
    why_empty="no served backend was called by different numbers of clients",
    keeps_budget=True,
    columns=(),
)

_CELL = ["backend", "backend_kind", "model", "params_millions_effective", "scenario", BUDGET, "concurrency"]
_LAW = [name for name in _CELL if name != "concurrency"]
_LAWS = {"amdahl": 2, "universal_scalability": 3}
"""Law to the number of its parameters; one value of N more is needed to fit it."""


def concurrency_throughput(rows: pl.DataFrame, *, level: float = 0.95) -> pl.DataFrame:
    """Per cell and number of clients: output tokens/s, the concurrency achieved, TTFT, ITL, e2e and queue delay.

    A group is the calls made at once; its throughput is their tokens over the time from the first send to the last
    token, with a t interval from its groups. Groups in which a call failed are counted, and left out. Only backends
    with several numbers of clients.
    """
    calls = rows.filter(
        (pl.col("mode") == "kv_decode") & ~pl.col("is_warmup") & pl.col("sent_at_ms").is_not_null()
    ).with_columns(pl.col("concurrency").cast(pl.Int64))
    whole = pl.col("sent_at_ms") + pl.col("client_e2e_ms")
    groups = (
        calls.group_by([*_CELL, "rep", "process_idx"] if "process_idx" in calls.columns else [*_CELL, "rep"])
        .agg(
            pl.len().cast(pl.Int64).alias("calls"),
            (1e3 * pl.col("gen_tokens_raw").sum() / (whole.max() - pl.col("sent_at_ms").min())).alias("tokens_per_s"),
            (pl.col("client_e2e_ms").sum() / (whole.max() - pl.col("sent_at_ms").min())).alias("achieved"),
            pl.col("ttft_ms", "itl_p50_ms", "client_e2e_ms", "queue_ms", "queue_delay_ms"),
        )
        .with_columns((pl.col("calls") == pl.col("concurrency")).alias("complete"))
    )
    several = groups.select([*_LAW, "concurrency"]).unique().group_by(_LAW).len().filter(pl.col("len") > 1).drop("len")
    groups = groups.join(several, on=_LAW, nulls_equal=True)
    whole_groups = groups.filter("complete")
    figures = ("ttft_ms", "itl_p50_ms", "client_e2e_ms", "queue_ms", "queue_delay_ms")
    return (
        whole_groups.group_by(_CELL)
        .agg(
            pl.len().cast(pl.Int64).alias("n_groups"),
            pl.col("achieved").median().alias("achieved_concurrency_median"),
            pl.col("tokens_per_s").median().alias("output_tokens_per_s_median"),
            pl.col("tokens_per_s").min().alias("output_tokens_per_s_min"),
            pl.col("tokens_per_s").max().alias("output_tokens_per_s_max"),
            pl.col("tokens_per_s").log().std().alias("log_sd"),
            *(pl.col(name).explode().median().alias(f"{name}_median") for name in figures),
            pl.col("ttft_ms").explode().quantile(0.95, "linear").alias("ttft_ms_p95"),
        )
        .join(groups.group_by(_CELL).agg((~pl.col("complete")).sum().cast(pl.Int64).alias("n_groups_with_failures")),
              on=_CELL, nulls_equal=True)
        .sort(_CELL)
        .pipe(_with_intervals, level)
    )  # fmt: skip


def _with_intervals(table: pl.DataFrame, level: float) -> pl.DataFrame:
    """The throughput's t interval from the scatter of its groups, on the log; empty where there was one group."""
    groups = table["n_groups"].to_numpy()
    factors = np.array([median_variance(int(n)) ** 0.5 for n in groups])
    deviation = table["log_sd"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    half = deviation * factors * stats.t.ppf(0.5 + level / 2, np.where(groups > 1, groups - 1, np.nan))
    middle = table["output_tokens_per_s_median"].to_numpy()
    return table.with_columns(
        pl.Series("output_tokens_per_s_ci_low", middle * np.exp(-half)).fill_nan(None),
        pl.Series("output_tokens_per_s_ci_high", middle * np.exp(half)).fill_nan(None),
    ).drop("log_sd")


def concurrency_fits(throughput: pl.DataFrame) -> pl.DataFrame:
    """Per model and scenario: Amdahl's law and the universal scalability law, and the clients at its peak.

    A law with ``p`` parameters is fitted where there are at least ``p + 1`` numbers of clients; elsewhere its figures
    are empty and ``n`` says why.
    """
    found: list[dict[str, Any]] = []
    for key, cells in throughput.group_by(_LAW, maintain_order=True):
        clients = cells["concurrency"].cast(pl.Float64).to_numpy()
        rate = cells["output_tokens_per_s_median"].to_numpy()
        for law, parameters in _LAWS.items():
            fit = _fit(clients, rate, parameters) if len(clients) > parameters else {}
            found.append(dict(zip(_LAW, key, strict=True)) | {"throughput_law": law, "n": len(clients)} | fit)
    figures = ["single_client_tokens_per_s", "contention", "coherency", "peak_clients", "peak_tokens_per_s", "r2"]
    schema = {name: throughput.schema[name] for name in _LAW} | {"throughput_law": pl.String, "n": pl.Int64}
    return pl.DataFrame(found, schema=schema | dict.fromkeys(figures, pl.Float64))


def _fit(clients: Floats, rate: Floats, parameters: int) -> dict[str, float | None]:
    """``N / X = a + b (N - 1) + c N (N - 1)`` with a, b, c >= 0, each equation divided by its left side."""
    terms = np.stack([np.ones_like(clients), clients - 1, clients * (clients - 1)], axis=1)[:, :parameters]
    solution, _ = nnls(terms * (rate / clients)[:, None], np.ones_like(rate))
    a, b, c = [*solution, 0.0][:3]
    if a <= 0:
        return {}
    contention, coherency = b / a, c / a
    fitted = clients / (terms @ solution)
    spread = float(((rate - rate.mean()) ** 2).sum())
    peak = math.sqrt((1 - contention) / coherency) if coherency > 0 and contention < 1 else None
    return {
        "single_client_tokens_per_s": 1 / a,
        "contention": contention,
        "coherency": coherency if parameters == 3 else None,
        "peak_clients": peak,
        "peak_tokens_per_s": None if peak is None else peak / (a + b * (peak - 1) + c * peak * (peak - 1)),
        "r2": 1 - float(((rate - fitted) ** 2).sum()) / spread if spread > 0 else None,
    }
