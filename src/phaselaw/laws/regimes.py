"""What governs latency on a backend, by rule, each with the figures that decided (TR121 4.1; method 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from phaselaw.laws import structure
from phaselaw.laws.overhead import LINEAR, POWER
from phaselaw.laws.verdicts import NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK
from phaselaw.tables import Table

REGIMES = Table(name="regimes", holds="what governs latency, by rule", why_empty="no e2e_kv rows to fit", columns=())

SIZE, DEPTH, OVERHEAD, MIXED, UNKNOWN, COLD_START = ("size", "depth", "overhead", "mixed", "unknown", "cold start")

OVERHEAD_SHARE = 0.5
"""An overhead that takes this share of the median model's latency governs it."""

_KEYS = ["backend", "backend_kind", "batch_size", "gen_tokens_target"]

SCHEMA: dict[str, type[pl.DataType]] = {
    "mode": pl.String,
    "regime": pl.String,
    "reason": pl.String,
    "n_models": pl.Int64,
    "verdict": pl.String,
    **dict.fromkeys(
        ("slope", "slope_t_ci_low", "slope_t_ci_high", "r2", "loo_mean", "loo_params", "loo_depth", "loo_params_depth",
         "overhead_share", "overhead_share_ci_low", "overhead_share_ci_high", "warmup_ratio_p95",
         "warmup_added_ms_p95"),
        pl.Float64,
    ),
}  # fmt: skip


def regimes(
    scaling: pl.DataFrame, predictors: pl.DataFrame, overhead: pl.DataFrame, warmup: pl.DataFrame
) -> pl.DataFrame:
    """One row a backend for e2e latency, and one for each of its phases in which cold start is a regime of its own.

    The overhead's share is that of the relative fit ``a + b P`` at the median model.
    """
    laws = scaling.filter((pl.col("mode") == "e2e_kv") & (pl.col("scenario") == "__all__"))
    rows = []
    for law in laws.iter_rows(named=True):
        key = {name: law[name] for name in _KEYS}
        errors = {row["predictor"]: row["loo_rmse_log"] for row in _of(predictors, key)}
        fits = {row["fit"]: row for row in _of(overhead, key)}
        regime, reason = _regime(law, errors, fits)
        line = fits.get(LINEAR, {})
        rows.append(
            key
            | {name: law[name] for name in ("mode", "n_models", "verdict", "slope", "r2")}
            | {name: law[name] for name in ("slope_t_ci_low", "slope_t_ci_high")}
            | {
                "regime": regime,
                "reason": reason,
                "loo_mean": errors.get(structure.MEAN),
                "loo_params": errors.get(structure.PARAMS),
                "loo_depth": errors.get(structure.DEPTH),
                "loo_params_depth": errors.get(structure.BOTH),
                "overhead_share": line.get("relative_share_at_median"),
                "overhead_share_ci_low": line.get("relative_share_at_median_ci_low"),
                "overhead_share_ci_high": line.get("relative_share_at_median_ci_high"),
            }
        )
    rows += [_cold_start(event) for event in warmup.iter_rows(named=True) if event["cold_start"]]
    schema = {name: scaling.schema[name] for name in _KEYS} | SCHEMA
    first = ["backend", "backend_kind", "batch_size"]
    return pl.DataFrame(rows, schema=schema).select(*first, *SCHEMA, "gen_tokens_target")


def _of(table: pl.DataFrame, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    same = [pl.col(name).eq_missing(pl.lit(value, dtype=table.schema[name])) for name, value in key.items()]
    return table.filter(pl.all_horizontal(same) & (pl.col("mode") == "e2e_kv")).to_dicts()


def _regime(
    law: Mapping[str, Any], errors: Mapping[str, float | None], fits: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    """The regime and, in words, the figures that decided."""
    verdict = law["verdict"]
    # Single properties only: params + depth is no axis that models could be lined up on.
    known = {name: error for name, error in errors.items() if error is not None and name != structure.BOTH}
    best = min(known, key=lambda name: round(known[name], 9)) if known else None
    share = fits.get(LINEAR, {}).get("relative_share_at_median")
    if verdict == TOO_FEW:
        return UNKNOWN, f"{law['n_models']} models: too few for a law"
    if verdict in {SUPPORTED, TREND}:
        certain = fits.get(POWER, {}).get("relative_share_at_median_ci_low")
        figures = f"latency grows as params^{law['slope']:.3f}, R2 {law['r2']:.3f}, {verdict}"
        if certain is not None and certain >= OVERHEAD_SHARE:
            return MIXED, f"{figures}; but at least {certain:.0%} of the median model's latency is overhead"
        return SIZE, figures
    if verdict == NOT_IDENTIFIABLE and best == structure.DEPTH:
        return DEPTH, (
            f"depth predicts a model left out best (off by {known[best]:.2f} in log latency, the mean by "
            f"{known.get(structure.MEAN, float('nan')):.2f}); no slope in parameters is identifiable"
        )
    if share is not None and share >= OVERHEAD_SHARE:
        return (OVERHEAD, f"overhead is {share:.0%} of the median model's latency in a + b P; the slope is {verdict}")
    if verdict == WEAK or best not in {None, structure.MEAN}:
        return (MIXED, f"the slope in parameters is {verdict}; {best or 'nothing'} predicts a model left out best")
    return UNKNOWN, f"the slope in parameters is {verdict}, and nothing predicts a model better than the mean"


def _cold_start(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in [*_KEYS, "mode"]} | {
        "regime": COLD_START,
        "reason": f"p95 over cells: {event['ratio_p95']:.1f} x the measured latency, "
        f"{event['added_ms_p95']:.0f} ms added",
        "warmup_ratio_p95": event["ratio_p95"],
        "warmup_added_ms_p95": event["added_ms_p95"],
    }
