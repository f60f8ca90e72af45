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
from phaselaw.laws.decisions import end_to_end_laws, of_group
from phaselaw.laws.law_differences import paired_slope_difference, unpaired_slope_difference
from phaselaw.laws.noise import Replicates
from phaselaw.laws.options import Options
from phaselaw.laws.regression import exponential
from phaselaw.laws.structure import STRUCTURE_PREDICTORS
from phaselaw.laws.summary import DECODE_FRACTION_SUMMARY, PER_MODEL
from phaselaw.laws.verdicts import NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK
from phaselaw.laws.warmup import UNSAFE_RATIO, WARMUP_EFFECT_SUMMARY
from phaselaw.tables import BUDGET, Col, Row, Table, counted, grouped, plain, words

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


def _about(row: Row) -> str:
    """What a claim is about, its phase in words."""
    return str(row["subject"]).removesuffix(f", {row['mode']}") + ("" if row["mode"] is None else f", {row['phase']}")


CLAIMS = Table(
    name="claims",
    holds="TR121's claims and two more, by rule",
    caption="Claims.",
    columns=(
        words("claim", "claim"),
        Col(key="subject", title="of", type=pl.String, of_row=_about),
        words("status", "status"),
        words("evidence", "evidence"),
        *plain("estimate low high"),
        counted("n_models"),
        words("source_table", "tables"),
        words("backend"),
        words("other_backend"),
        counted("batch_size"),
        words("mode"),
        counted(BUDGET),
    ),
)


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
    return CLAIMS.frame(rows)


def _row(claim: str, status: str, evidence: str, table: str, about: Mapping[str, Any], **figures: Any) -> Row:
    row = {name: about.get(name) for name in ("backend", "other_backend", "batch_size", "mode", BUDGET)}
    return (
        row
        | {"claim": claim, "subject": _words(about), "status": status, "evidence": evidence, "source_table": table}
        | figures
    )


def _words(about: Mapping[str, Any]) -> str:
    """A backend with its batch size and phase, as far as they say something."""
    words = [str(about["backend"])]
    if about.get("batch_size") not in (None, 1):
        words.append(f"batch {about['batch_size']}")
    if about.get("mode"):
        words.append(str(about["mode"]))
    return ", ".join(words)


def _one_exponent(tables: Mapping[str, pl.DataFrame], level: float, replicates: Replicates | None) -> Iterator[Row]:
    for about, group in grouped(tables[PER_MODEL.name], _BACKEND):
        prefill, decode = (group.filter(pl.col("mode") == mode) for mode in ("prefill", "kv_decode"))
        found = paired_slope_difference(prefill, decode, level, replicates=replicates)
        shares = of_group(tables[DECODE_FRACTION_SUMMARY.name], about)
        share = shares[0]["decode_fraction_median"] if shares else None
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
            ONE_EXPONENT,
            status,
            evidence,
            PER_MODEL.name,
            about,
            estimate=found.difference,
            low=found.low,
            high=found.high,
            n_models=found.n_models,
        )


def _across_backends(tables: Mapping[str, pl.DataFrame], level: float, replicates: Replicates | None) -> Iterator[Row]:
    """Each pair of backends on end-to-end latency: the models they share, or, where too few, law against law."""
    latency = tables[PER_MODEL.name].filter(pl.col("mode") == "e2e_kv")
    groups = list(grouped(latency, _BACKEND))
    laws = end_to_end_laws(tables)
    for (one, first), (other, second) in itertools.combinations(groups, 2):
        alike = one["batch_size"] == other["batch_size"] and one[BUDGET] == other[BUDGET]
        if one["backend"] == other["backend"] or not alike:
            continue
        found = paired_slope_difference(first, second, level, replicates=replicates)
        shared = "over the models that both ran"
        if math.isnan(found.low):
            mine, theirs = of_group(laws, one), of_group(laws, other)
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
            "scaling_fits",
            about,
            subject=f"{_words(one)} against {_words(other)}",
            estimate=found.difference,
            low=found.low,
            high=found.high,
            n_models=found.n_models,
        )


def _params_predict(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for law in end_to_end_laws(tables).iter_rows(named=True):
        errors = {
            row["predictor"]: row["loo_rmse_log"] for row in of_group(tables[STRUCTURE_PREDICTORS.name], law, "mode")
        }
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
            PARAMS_PREDICT,
            status,
            slope + better,
            "scaling_fits, structure_predictors",
            law,
            estimate=law["slope"],
            low=law["slope_t_ci_low"],
            high=law["slope_t_ci_high"],
            n_models=law["n_models"],
        )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _mean_is_safe(tables: Mapping[str, pl.DataFrame], slo_ms: float) -> Iterator[Row]:
    summary = tables[WARMUP_EFFECT_SUMMARY.name]
    if summary.is_empty():
        for about, _ in grouped(tables[PER_MODEL.name], _BACKEND):
            why = "no cell has both warmup and measured calls"
            yield _row(MEAN_IS_SAFE, NOT_CHECKED, why, WARMUP_EFFECT_SUMMARY.name, about)
    for row in summary.iter_rows(named=True):
        yield _row(
            MEAN_IS_SAFE,
            UNSAFE if row["cold_start"] else HOLDS,
            f"first calls over measured ones: p95 {row['ratio_p95']:.1f} x, {row['added_ms_p95']:.0f} ms added; worst "
            f"{row['ratio_max']:.1f} x ({row['worst_model']}, {row['worst_scenario']}: {row['worst_warmup_ms']:.0f} ms "
            f"for {row['worst_measured_ms']:.0f} ms); unsafe from {UNSAFE_RATIO:g} x and {slo_ms:g} ms on",
            WARMUP_EFFECT_SUMMARY.name,
            row,
            estimate=row["ratio_p95"],
        )


def _decode_dominates(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for row in tables[DECODE_FRACTION_SUMMARY.name].iter_rows(named=True):
        share = row["decode_fraction_median"]
        yield _row(
            DECODE_DOMINATES,
            HOLDS if share >= DOMINATES else NOT_SUPPORTED,
            f"decode is {share:.1%} of end to end at the median model (quartiles {row['decode_fraction_p25']:.1%} to "
            f"{row['decode_fraction_p75']:.1%}) for {row[BUDGET]} tokens",
            DECODE_FRACTION_SUMMARY.name,
            row,
            estimate=share,
            n_models=row["n_models"],
        )


def _depth_explains(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for about, group in grouped(tables[STRUCTURE_PREDICTORS.name].filter(pl.col("mode") == "e2e_kv"), _BACKEND):
        rows = {row["predictor"]: row for row in group.iter_rows(named=True)}
        depth, params = rows.get(structure.DEPTH), rows.get(structure.PARAMS)
        if depth is None or params is None or depth["loo_rmse_log"] is None or params["loo_rmse_log"] is None:
            why = "layers of three models or more that differ are not known"
            yield _row(DEPTH_EXPLAINS, NOT_CHECKED, why, STRUCTURE_PREDICTORS.name, about)
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
            DEPTH_EXPLAINS,
            HOLDS if better else NOT_SUPPORTED,
            evidence,
            STRUCTURE_PREDICTORS.name,
            about,
            estimate=depth["loo_rmse_log"] - params["loo_rmse_log"],
            n_models=depth["n_models"],
        )
