"""Throughput against clients: what a served engine gains from more of them, and the laws that it follows.

Amdahl: ``X(N) = rate N / (1 + contention (N - 1))``. Universal scalability (Gunther): a further term
``coherency N (N - 1)`` in the denominator, so that throughput may fall again. Both are linear in ``N / X``, and are
fitted by non-negative least squares on relative error: no starting values, one answer.
"""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.optimize import nnls

from phaselaw import tables as col
from phaselaw.laws.rates import with_ends
from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import OF_MODEL
from phaselaw.laws.summary import median_variance
from phaselaw.tables import BUDGET, Row, Table, alike, grouped

_ONE = "no served backend was called by different numbers of clients"
_GROUP = (*OF_MODEL, col.words("scenario", "scenario"), col.counted(BUDGET))

CONCURRENCY_THROUGHPUT = Table(
    name="concurrency_throughput",
    holds="rates and latencies by number of clients",
    why_empty=_ONE,
    keeps_budget=True,
    columns=(
        *(*_GROUP, col.counted("concurrency", "clients", provenance="assumed"), col.counted("n_groups")),
        col.measured("achieved_concurrency_median", "achieved"),
        col.measured("output_tokens_per_s_median", "output tokens/s"),
        *col.plain("output_tokens_per_s_min output_tokens_per_s_max"),
        col.measured("ttft_ms_median", "TTFT (ms)"),
        col.measured("itl_p50_ms_median", "ITL (ms)"),
        col.measured("client_e2e_ms_median", "end to end (ms)"),
        *(*col.plain("queue_ms_median queue_delay_ms_median"), col.measured("ttft_ms_p95", "TTFT p95 (ms)")),
        col.counted("n_groups_with_failures"),
        *col.interval("output_tokens_per_s_ci_low", "output_tokens_per_s_ci_high", "its interval", col.digits),
        *(col.derived("served_at_once", "served at once", col.count), *col.plain("step_ms_p95")),
    ),
    shows="backend model scenario concurrency achieved_concurrency_median output_tokens_per_s_median "
    "output_tokens_per_s_ci_low ttft_ms_median ttft_ms_p95 itl_p50_ms_median client_e2e_ms_median "
    "served_at_once",
)
_LAW = col.words("throughput_law", "law", of_row=lambda row: row["throughput_law"].replace("_", " ").capitalize())
CONCURRENCY_FITS = Table(
    name="concurrency_fits",
    holds="laws of throughput against clients",
    why_empty=_ONE,
    keeps_budget=True,
    columns=(
        *(*_GROUP, _LAW, col.counted("n"), *col.plain("single_client_tokens_per_s")),
        *(col.derived("contention", "contention"), col.derived("coherency", "coherency")),
        col.Col(key="peak_clients", title="clients at the peak", provenance="extrapolated"),
        *(*col.plain("peak_tokens_per_s"), col.derived("r2", "R2", col.fixed)),
    ),
)
_KEYS = [column.key for column in _GROUP]
_CELL = [*_KEYS, "concurrency"]
_TURN = ["run", "replicate", "rep"]


def concurrency_throughput(rows: pl.DataFrame, level: float = 0.95) -> pl.DataFrame:
    """Per cell and number of clients: output tokens/s, the concurrency achieved, TTFT, ITL, e2e and queue delay.

    A group is the calls made at once; its throughput is their tokens over the time from the first send to the last
    token, with a t interval on its log from the scatter of its groups, empty where there was one. Groups in which a
    call failed are counted, and left out: where each did, there are no other figures. Only backends with several
    numbers of clients. ``served_at_once``: how many of a group's calls waited for their first token less than half a
    lone request longer than a lone one does.
    """
    alone, first, whole = pl.col("concurrency") == 1, pl.col("ttft_ms"), pl.col("request_ms")
    at_once = first < (first.filter(alone).median() + whole.filter(alone).median() / 2).over(_KEYS)
    sent, took = pl.col("sent_at_ms"), pl.col("client_e2e_ms")
    span = (sent + took).max() - sent.min()
    figures = ("ttft_ms", "itl_p50_ms", "client_e2e_ms", "queue_ms", "queue_delay_ms")
    rate, ok = pl.col("rate"), pl.col("status") == "ok"
    table = (
        rows.filter(pl.col("mode") == "kv_decode", ~pl.col("is_warmup"), pl.col(BUDGET).ne_missing(1))
        .filter((ok & sent.is_not_null()) | (pl.col("status") == "error"))
        .with_columns(pl.col("concurrency").cast(pl.Int64))
        .with_columns(at_once=at_once)
        .group_by([*_CELL, *_TURN, "process_idx"])
        .agg(
            pl.when(pl.col("at_once").null_count() == 0).then(pl.col("at_once").sum()),
            (ok.sum() == pl.col("concurrency").first()).alias("complete"),
            (1e3 * pl.col("gen_tokens_raw").sum() / span).alias("rate"),
            (took.sum() / span).alias("achieved"),
            pl.col(*figures, "decode_step_ms"),
        )
        .filter(pl.col("concurrency").n_unique().over(_KEYS) > 1)
        .with_columns(n_groups_with_failures=pl.struct(_TURN).filter(~pl.col("complete")).n_unique().over(_CELL))
        .with_columns(pl.when("complete").then(pl.col("at_once", "rate", "achieved", *figures, "decode_step_ms")))
        .group_by(_CELL)
        .agg(
            pl.col("complete").sum().cast(pl.Int64).alias("n_groups"),
            pl.col("n_groups_with_failures").first().cast(pl.Int64),
            pl.col("achieved").median().alias("achieved_concurrency_median"),
            pl.col("at_once").median().alias("served_at_once"),
            rate.median().alias("output_tokens_per_s_median"),
            rate.min().alias("output_tokens_per_s_min"),
            rate.max().alias("output_tokens_per_s_max"),
            rate.log().std().alias("log_sd"),
            *(pl.col(name).explode().median().alias(f"{name}_median") for name in figures),
            pl.col("ttft_ms").explode().quantile(0.95, "linear").alias("ttft_ms_p95"),
            pl.col("decode_step_ms").explode().quantile(0.95, "linear").alias("step_ms_p95"),
        )
        .sort(_CELL)
    )
    deviations = pl.Series(np.sqrt(median_variance(table["n_groups"].to_numpy())))
    table = table.with_columns(se=pl.col("log_sd") * deviations, degrees=pl.col("n_groups") - 1)
    table = with_ends(table, "output_tokens_per_s_median", level, named="output_tokens_per_s_ci")
    return CONCURRENCY_THROUGHPUT.frame(table)


def users_within(cells: Sequence[Row], slo_ms: tuple[float, float]) -> tuple[Row | None, Row | None]:
    """Of one model's cells on one prompt, by clients: the last one within ``slo_ms``, and the next, which was not.

    Within: 95 % of its clients waited no longer than that for the first token, and for each further one; no group of
    them had a call that failed. A number of clients beyond one that was not is not looked at.
    """
    most = None
    for cell in cells:
        waits = zip((cell["ttft_ms_p95"], cell["step_ms_p95"]), slo_ms, strict=True)
        quick = all(longest == math.inf or (wait is not None and wait <= longest) for wait, longest in waits)
        if not quick or cell["n_groups_with_failures"]:
            return most, cell
        most = cell
    return most, None


def users_on_all(cells: Sequence[Row], slo_ms: tuple[float, float]) -> int:
    """Of one model's cells: the most clients that were within ``slo_ms`` on every prompt; 0 where one was not."""
    most = (users_within(of_prompt, slo_ms)[0] for of_prompt in alike(cells, "scenario").values())
    return min(cell["concurrency"] if cell else 0 for cell in most)


def concurrency_fits(throughput: pl.DataFrame) -> pl.DataFrame:
    """Per model and scenario: Amdahl's law and the universal scalability law, and the clients at its peak.

    A law with ``p`` parameters is fitted where there are at least ``p + 1`` numbers of clients; elsewhere its figures
    are empty and ``n`` says why.
    """
    rows = []
    for about, cells in grouped(throughput.drop_nulls("output_tokens_per_s_median"), _KEYS):
        clients = cells["concurrency"].cast(pl.Float64).to_numpy()
        rate = cells["output_tokens_per_s_median"].to_numpy()
        for law, parameters in (("amdahl", 2), ("universal_scalability", 3)):
            fit = _fit(clients, rate, parameters) if len(clients) > parameters else {}
            rows.append(about | {"throughput_law": law, "n": len(clients)} | fit)
    return CONCURRENCY_FITS.frame(rows)


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
