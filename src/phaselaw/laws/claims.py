"""The claim table: what a run says of TR121's five claims, and of two more, by rule (TR121 claim status; method 3).

Nothing here is worded for one data set: each row has the figures that decided and the table that they stand in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw.laws import structure
from phaselaw.laws.law_differences import paired_slope_difference, unpaired_slope_difference
from phaselaw.laws.noise import Replicates
from phaselaw.laws.options import Options
from phaselaw.laws.regression import exponential
from phaselaw.laws.summary import BUDGET
from phaselaw.laws.verdicts import NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK
from phaselaw.laws.warmup import UNSAFE_RATIO
from phaselaw.tables import Table

CLAIMS = Table(name="claims", holds="TR121's claims and two more, by rule", columns=())

ONE_EXPONENT = "one exponent describes inference"
ONE_ACROSS_BACKENDS = "one exponent describes all backends"
PARAMS_PREDICT = "parameters predict latency on this backend"
MEAN_IS_SAFE = "mean latency is safe under cold start"
DECODE_DOMINATES = "decode dominates end to end"
DEPTH_EXPLAINS = "depth explains latency better than parameters"

REFUTED, NOT_SUPPORTED, NOT_DISTINGUISHABLE, UNSAFE, HOLDS, NOT_CHECKED = (
    "refuted",
    "not supported",
    "not distinguishable here",
    "unsafe",
    "holds",
    "not checked",
)

DOMINATES = 0.9
"""A decode that takes this share of the whole, at the median model, dominates it."""

_BACKEND = ["backend", "backend_kind", "batch_size", BUDGET]
_PHASES = ("prefill", "kv_decode", "e2e_kv")

SCHEMA: dict[str, type[pl.DataType]] = {
    "claim": pl.String,
    "subject": pl.String,
    "status": pl.String,
    "evidence": pl.String,
    "estimate": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n_models": pl.Int64,
    "source_table": pl.String,
    "backend": pl.String,
    "other_backend": pl.String,
    "batch_size": pl.Int64,
    "mode": pl.String,
    BUDGET: pl.Int64,
}


def claims(tables: Mapping[str, pl.DataFrame], options: Options, replicates: Replicates | None = None) -> pl.DataFrame:
    """The table ``claims``: a row a claim and what it is about, TR121's five first.

    ``tables`` are an analysis' own, all that the claims draw on among them; ``replicates`` the runs or rounds that they
    are from, for the noise between them.
    """
    rows = [
        *_one_exponent(tables, options.level, replicates),
        *_across_backends(tables, options.level, replicates),
        *_params_predict(tables),
        *_mean_is_safe(tables, options.cold_start_slo_ms),
        *_decode_dominates(tables),
        *_depth_explains(tables),
    ]
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def _row(
    claim: str, status: str, evidence: str, table: str, about: Mapping[str, Any], **figures: Any
) -> dict[str, Any]:
    row = {name: about.get(name) for name in ("backend", "other_backend", "batch_size", "mode", BUDGET)}
    return row | {"claim": claim, "subject": _words(about), "status": status, "evidence": evidence,
                  "source_table": table} | figures  # fmt: skip


def _words(about: Mapping[str, Any]) -> str:
    """A backend with its batch size and phase, as far as they say something."""
    words = [str(about["backend"])]
    if about.get("batch_size") not in (None, 1):
        words.append(f"batch {about['batch_size']}")
    if about.get("mode"):
        words.append(str(about["mode"]))
    return ", ".join(words)


def _backends(table: pl.DataFrame) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    for key, group in table.group_by(_BACKEND, maintain_order=True):
        yield dict(zip(_BACKEND, key, strict=True)), group


def _one_exponent(
    tables: Mapping[str, pl.DataFrame], level: float, replicates: Replicates | None
) -> Iterator[dict[str, Any]]:
    for about, group in _backends(tables["summary_by_model_backend_mode_agg"]):
        prefill, decode = (group.filter(pl.col("mode") == mode) for mode in _PHASES[:2])
        found = paired_slope_difference(prefill, decode, level, replicates=replicates)
        share = _decode_share(tables, about)
        said = (
            ""
            if share is None
            else f"; of end to end, decode is {share:.1%} and prefill {1 - share:.1%} (median model)"
        )
        if math.isnan(found.low):
            status, evidence = TOO_FEW, f"{found.n_models} models with both phases{said}"
        else:
            status = REFUTED if found.distinct else NOT_DISTINGUISHABLE
            apart = "" if found.distinct else f", at most {found.at_most:.3f} apart"
            evidence = (
                f"slope of prefill minus slope of decode {found.difference:+.3f} "
                f"[{found.low:.3f}, {found.high:.3f}] over {found.n_models} models{apart}{said}"
            )
        yield _row(
            ONE_EXPONENT, status, evidence, "summary_by_model_backend_mode_agg", about, estimate=found.difference,
            low=found.low, high=found.high, n_models=found.n_models,
        )  # fmt: skip


def _decode_share(tables: Mapping[str, pl.DataFrame], about: Mapping[str, Any]) -> float | None:
    rows = _of(tables["decode_fraction_summary"], about)
    return rows[0]["decode_fraction_median"] if rows else None


def _of(table: pl.DataFrame, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [name for name in (*_BACKEND, "mode") if name in about and name in table.columns]
    same = [pl.col(name).eq_missing(pl.lit(about[name], dtype=table.schema[name])) for name in names]
    return table.filter(pl.all_horizontal(same)).to_dicts()


def _across_backends(
    tables: Mapping[str, pl.DataFrame], level: float, replicates: Replicates | None
) -> Iterator[dict[str, Any]]:
    """Each pair of backends on end-to-end latency: the models they share, or, where too few, law against law."""
    latency = tables["summary_by_model_backend_mode_agg"].filter(pl.col("mode") == "e2e_kv")
    groups = list(_backends(latency))
    laws = tables["scaling_fits"].filter((pl.col("scenario") == "__all__") & (pl.col("mode") == "e2e_kv"))
    for (one, first), (other, second) in itertools.combinations(groups, 2):
        alike = one["batch_size"] == other["batch_size"] and one[BUDGET] == other[BUDGET]
        if one["backend"] == other["backend"] or not alike:
            continue
        found = paired_slope_difference(first, second, level, replicates=replicates)
        shared = "over the models that both ran"
        if math.isnan(found.low):
            mine, theirs = _of(laws, one), _of(laws, other)
            if not mine or not theirs:
                continue
            found, shared = unpaired_slope_difference(mine[0], theirs[0], level), "of laws over different models"
        if math.isnan(found.low):
            continue
        apart = "" if found.distinct else f", at most {found.at_most:.3f} apart"
        about = {"backend": one["backend"], "other_backend": other["backend"], "mode": "e2e_kv", BUDGET: one[BUDGET]}
        yield _row(
            ONE_ACROSS_BACKENDS,
            REFUTED if found.distinct else NOT_DISTINGUISHABLE,
            f"difference of end-to-end slopes {found.difference:+.3f} [{found.low:.3f}, {found.high:.3f}] {shared} "
            f"({found.n_models}){apart}",
            "scaling_fits", about, subject=f"{_words(one)} against {_words(other)}",
            estimate=found.difference, low=found.low, high=found.high, n_models=found.n_models,
        )  # fmt: skip


def _params_predict(tables: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    laws = tables["scaling_fits"].filter((pl.col("scenario") == "__all__") & (pl.col("mode") == "e2e_kv"))
    for law in laws.iter_rows(named=True):
        errors = {row["predictor"]: row["loo_rmse_log"] for row in _of(tables["structure_predictors"], law)}
        params, mean = errors.get(structure.PARAMS), errors.get(structure.MEAN)
        verdict = law["verdict"]
        status = verdict if verdict in {SUPPORTED, TREND, WEAK, TOO_FEW} else NOT_SUPPORTED
        better = "; leaving one model out can't be tried"
        if params is not None and mean is not None:
            better = (
                f"; a model left out is off by a factor {exponential(params):.2f}, predicting the mean by "
                f"{exponential(mean):.2f}"
            )
            if params >= mean and status in {SUPPORTED, TREND}:
                status, better = WEAK, f"{better}: no better"
        slope = f"{law['verdict']}: {law['n_models']} models"
        if law["slope"] is not None:
            interval = ""
            if law["slope_t_ci_low"] is not None:
                interval = f" [{law['slope_t_ci_low']:.3f}, {law['slope_t_ci_high']:.3f}]"
            slope = f"{law['verdict']}: exponent {law['slope']:.3f}{interval}, R2 {_figure(law['r2'])}, "
            slope += f"rank correlation {_figure(law['spearman_rho_loglog'])}"
        if verdict == NOT_IDENTIFIABLE:
            slope += " (the interval holds 0)"
        yield _row(
            PARAMS_PREDICT, status, slope + better, "scaling_fits, structure_predictors", law, estimate=law["slope"],
            low=law["slope_t_ci_low"], high=law["slope_t_ci_high"], n_models=law["n_models"],
        )  # fmt: skip


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _mean_is_safe(tables: Mapping[str, pl.DataFrame], slo_ms: float) -> Iterator[dict[str, Any]]:
    summary = tables["warmup_effect_summary"]
    if summary.is_empty():
        for about, _ in _backends(tables["summary_by_model_backend_mode_agg"]):
            why = "no cell has both warmup and measured calls"
            yield _row(MEAN_IS_SAFE, NOT_CHECKED, why, "warmup_effect_summary", about)
    for row in summary.iter_rows(named=True):
        yield _row(
            MEAN_IS_SAFE,
            UNSAFE if row["cold_start"] else HOLDS,
            f"first calls over measured ones: p95 {row['ratio_p95']:.1f} x, {row['added_ms_p95']:.0f} ms added; worst "
            f"{row['ratio_max']:.1f} x ({row['worst_model']}, {row['worst_scenario']}: {row['worst_warmup_ms']:.0f} ms "
            f"for {row['worst_measured_ms']:.0f} ms); unsafe from {UNSAFE_RATIO:g} x and {slo_ms:g} ms on",
            "warmup_effect_summary", row, estimate=row["ratio_p95"],
        )  # fmt: skip


def _decode_dominates(tables: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    for row in tables["decode_fraction_summary"].iter_rows(named=True):
        share = row["decode_fraction_median"]
        yield _row(
            DECODE_DOMINATES,
            HOLDS if share >= DOMINATES else NOT_SUPPORTED,
            f"decode is {share:.1%} of end to end at the median model (quartiles {row['decode_fraction_p25']:.1%} to "
            f"{row['decode_fraction_p75']:.1%}) for {row[BUDGET]} tokens",
            "decode_fraction_summary", row, estimate=share, n_models=row["n_models"],
        )  # fmt: skip


def _depth_explains(tables: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    for about, group in _backends(tables["structure_predictors"].filter(pl.col("mode") == "e2e_kv")):
        rows = {row["predictor"]: row for row in group.iter_rows(named=True)}
        depth, params = rows.get(structure.DEPTH), rows.get(structure.PARAMS)
        if depth is None or params is None or depth["loo_rmse_log"] is None or params["loo_rmse_log"] is None:
            why = "layers of three models or more that differ are not known"
            yield _row(DEPTH_EXPLAINS, NOT_CHECKED, why, "structure_predictors", about)
            continue
        better = depth["loo_rmse_log"] < params["loo_rmse_log"]
        evidence = (
            f"a model left out is off by a factor {depth['loo_typical_factor']:.2f} by depth, "
            f"{params['loo_typical_factor']:.2f} by parameters; rank correlations {_figure(depth['spearman_rho'])} "
            f"and {_figure(params['spearman_rho'])}"
        )
        if depth["warning"]:
            evidence += f"; {depth['warning']}"
        yield _row(
            DEPTH_EXPLAINS, HOLDS if better else NOT_SUPPORTED, evidence, "structure_predictors", about,
            estimate=depth["loo_rmse_log"] - params["loo_rmse_log"], n_models=depth["n_models"],
        )  # fmt: skip
