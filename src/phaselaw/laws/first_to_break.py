"""What breaks first as a model grows: the cold start, latency or the budget (TR121's question; method 3).

By rule, each with the figures that decided: a cold start that is a regime of its own breaks at the smallest model on
which it shows, before any growth; then whichever of latency and the price of a token grows more from the smallest
model to the largest, where latency follows parameters at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw.laws.summary import BUDGET
from phaselaw.laws.verdicts import NOT_IDENTIFIABLE, SUPPORTED, TREND, WEAK
from phaselaw.laws.warmup import UNSAFE_RATIO
from phaselaw.tables import Table

WHAT_BREAKS_FIRST = Table(
    name="what_breaks_first",
    holds="cold start, latency or budget, by rule",
    why_empty="no e2e_kv rows with a parameter count",
    columns=(),
)

COLD_START, LATENCY, BUDGET_FIRST, ALIKE, NEITHER, UNKNOWN = (
    "cold start",
    "latency",
    "budget",
    "latency and budget alike",
    "neither latency nor budget follows size",
    "unknown",
)

ALIKE_WITHIN = 1.05
"""Growth factors of latency and price that differ by less than this factor are alike."""

_KEYS = ["backend", "backend_kind", "batch_size", BUDGET]

SCHEMA: dict[str, type[pl.DataType]] = {
    "backend": pl.String,
    "backend_kind": pl.String,
    "batch_size": pl.Int64,
    "first": pl.String,
    "then": pl.String,
    "n_models": pl.Int64,
    **dict.fromkeys(("smallest_model", "largest_model", "fastest_model", "slowest_model"), pl.String),
    **dict.fromkeys(
        ("smallest_params_millions", "largest_params_millions", "smallest_latency_ms", "largest_latency_ms",
         "latency_factor", "price_factor", "law_factor", "law_factor_low", "law_factor_high", "slowest_to_fastest"),
        pl.Float64,
    ),
    "cold_mode": pl.String,
    "cold_model": pl.String,
    **dict.fromkeys(("cold_params_millions", "cold_ratio_p95", "cold_added_ms_p95"), pl.Float64),
    BUDGET: pl.Int64,
}  # fmt: skip


def what_breaks_first(tables: Mapping[str, pl.DataFrame], *, cold_start_ms: float) -> pl.DataFrame:
    """The table ``what_breaks_first``: a row a backend.

    ``tables`` are an analysis' own: ``summary_by_model_backend_mode_agg``, ``scaling_fits``, ``warmup_effect`` and its
    summary. Factors are of the largest model over the smallest: end-to-end latency, and the price of a token (the
    inverse of tokens/s). ``law_factor`` is the same growth of latency by the law, with its interval. A first call is
    too slow on a model where it takes `UNSAFE_RATIO` times as long and ``cold_start_ms`` more.
    """
    return pl.DataFrame(list(_rows(tables, cold_start_ms)), schema=SCHEMA)


def _rows(tables: Mapping[str, pl.DataFrame], cold_start_ms: float) -> Iterator[dict[str, Any]]:
    sized = pl.col("params_millions_effective").is_finite() & (pl.col("params_millions_effective") > 0)
    latency = tables["summary_by_model_backend_mode_agg"].filter((pl.col("mode") == "e2e_kv") & sized)
    laws = tables["scaling_fits"].filter((pl.col("mode") == "e2e_kv") & (pl.col("scenario") == "__all__"))
    for key, group in latency.sort("params_millions_effective").group_by(_KEYS, maintain_order=True):
        about = dict(zip(_KEYS, key, strict=True))
        models = group.to_dicts()
        law = next(iter(_of(laws, about)), {})
        row = about | _growth(models, law) | _cold(tables, about, cold_start_ms)
        yield row | _order(row, str(law.get("verdict")), law.get("slope"))


def _of(table: pl.DataFrame, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [name for name in about if name in table.columns]
    same = [pl.col(name).eq_missing(pl.lit(about[name], dtype=table.schema[name])) for name in names]
    return table.filter(pl.all_horizontal(same)).to_dicts()


def _growth(models: list[dict[str, Any]], law: Mapping[str, Any]) -> dict[str, Any]:
    """How latency and price grow over models in ascending order of parameters."""
    small, big = models[0], models[-1]
    by_latency = sorted(models, key=lambda row: float(row["latency_geomean_ms"]))
    fast, slow = by_latency[0], by_latency[-1]
    found: dict[str, Any] = {
        "n_models": len(models),
        "smallest_model": small["model"],
        "largest_model": big["model"],
        "fastest_model": fast["model"],
        "slowest_model": slow["model"],
        "smallest_params_millions": small["params_millions_effective"],
        "largest_params_millions": big["params_millions_effective"],
        "smallest_latency_ms": small["latency_geomean_ms"],
        "largest_latency_ms": big["latency_geomean_ms"],
        "latency_factor": big["latency_geomean_ms"] / small["latency_geomean_ms"],
        "price_factor": _ratio(small["tokens_per_s_geomean"], big["tokens_per_s_geomean"]),
        "slowest_to_fastest": slow["latency_geomean_ms"] / fast["latency_geomean_ms"],
    }
    log_span = math.log(big["params_millions_effective"] / small["params_millions_effective"])
    for name, source in (
        ("law_factor", "slope"),
        ("law_factor_low", "slope_t_ci_low"),
        ("law_factor_high", "slope_t_ci_high"),
    ):
        slope = law.get(source)
        found[name] = None if slope is None or slope * log_span > 700 else math.exp(slope * log_span)
    return found


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over and under else None


def _cold(tables: Mapping[str, pl.DataFrame], about: dict[str, Any], cold_start_ms: float) -> dict[str, Any]:
    """The phase whose cold start is a regime of its own, and the smallest model on which it shows."""
    unsafe = [row for row in _of(tables["warmup_effect_summary"], about) if row["cold_start"]]
    if not unsafe:
        return {}
    worst = max(unsafe, key=lambda row: float(row["added_ms_p95"]))
    cells = [
        cell
        for cell in _of(tables["warmup_effect"], about | {"mode": worst["mode"]})
        if cell["warmup_to_measured_ratio"] >= UNSAFE_RATIO and cell["warmup_minus_measured_ms"] >= cold_start_ms
    ]
    smallest = min(cells, key=lambda cell: float(cell["params_millions_effective"] or math.inf), default={})
    return {
        "cold_mode": worst["mode"],
        "cold_model": smallest.get("model"),
        "cold_params_millions": smallest.get("params_millions_effective"),
        "cold_ratio_p95": worst["ratio_p95"],
        "cold_added_ms_p95": worst["added_ms_p95"],
    }


def _order(row: Mapping[str, Any], verdict: str, slope: float | None) -> dict[str, Any]:
    latency, price = row["latency_factor"], row["price_factor"]
    if price is None or verdict not in {SUPPORTED, TREND, WEAK, NOT_IDENTIFIABLE}:
        grown = UNKNOWN
    elif verdict == NOT_IDENTIFIABLE or slope is None or slope <= 0:
        grown = NEITHER
    elif max(latency / price, price / latency) < ALIKE_WITHIN:
        grown = ALIKE
    else:
        grown = LATENCY if latency > price else BUDGET_FIRST
    return {"first": COLD_START, "then": grown} if "cold_mode" in row else {"first": grown, "then": None}
