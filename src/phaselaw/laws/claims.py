"""The claim table: what a run says of TR121's five claims, and of two more, by rule (TR121 claim status; method 3).

Nothing here is worded for one data set: each row has the figures that decided and the table that they stand in.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw.laws import structure
from phaselaw.laws.decisions import end_to_end_laws, left_out_errors, of_group
from phaselaw.laws.law_differences import SlopeDifference, paired_slope_difference, unpaired_slope_difference
from phaselaw.laws.noise import Replicates
from phaselaw.laws.options import Options
from phaselaw.laws.regression import exponential
from phaselaw.laws.structure import STRUCTURE_PREDICTORS
from phaselaw.laws.summary import DECODE_FRACTION_SUMMARY, PER_MODEL, SETTING
from phaselaw.laws.verdicts import NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK, word
from phaselaw.laws.warmup import COLD_STARTS, UNSAFE_RATIO, WARMUP_EFFECT_SUMMARY, event_words
from phaselaw.tables import BUDGET, Col, Row, Table, counted, grouped, plain, words

ONE_EXPONENT = "one exponent describes inference"
ONE_ACROSS_BACKENDS = "one exponent describes all backends"
PARAMS_PREDICT = "parameters predict latency on this backend"
MEAN_IS_SAFE = "mean latency is safe under cold start"
DECODE_DOMINATES = "decode dominates end to end"
DEPTH_EXPLAINS = "depth explains latency better than parameters"

REFUTED, NOT_DISTINGUISHABLE = "refuted", "not distinguishable here"
HOLDS, NOT_SUPPORTED, UNSAFE, NOT_CHECKED = "holds", "not supported", "unsafe", "not checked"

DOMINATES = 0.9
"""A decode that takes this share of the whole, at the median model, dominates it."""


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
        *plain("backend other_backend", pl.String),
        counted("batch_size"),
        words("mode"),
        counted(BUDGET),
        words("coldness"),
    ),
)


def claims(tables: Mapping[str, pl.DataFrame], options: Options, replicates: Replicates | None = None) -> pl.DataFrame:
    """The table ``claims``: a row a claim and what it is about, TR121's five first.

    ``tables`` are an analysis' own, all that the claims draw on among them; ``replicates`` the runs or rounds that they
    are from, for the noise between them.
    """
    rules = {
        ONE_EXPONENT: (_one_exponent(tables, options.level, replicates), PER_MODEL.name),
        ONE_ACROSS_BACKENDS: (_across_backends(tables, options.level, replicates), "scaling_fits"),
        PARAMS_PREDICT: (_params_predict(tables), "scaling_fits, structure_predictors"),
        MEAN_IS_SAFE: (_mean_is_safe(tables, options.cold_start_slo_ms), COLD_STARTS.name),
        DECODE_DOMINATES: (_decode_dominates(tables), DECODE_FRACTION_SUMMARY.name),
        DEPTH_EXPLAINS: (_depth_explains(tables), STRUCTURE_PREDICTORS.name),
    }
    return CLAIMS.frame(
        row | {"claim": claim, "source_table": source} for claim, (rows, source) in rules.items() for row in rows
    )


def _row(about: Row, status: str, evidence: str, **figures: Any) -> Row:
    return about | {"subject": _words(about), "status": status, "evidence": evidence} | figures


def _words(about: Row) -> str:
    """A backend with its batch size, the kind of first call and the phase, as far as they say something."""
    batch = "" if about.get("batch_size") in (None, 1) else f", batch {about['batch_size']}"
    more = (f", {about[name]}" for name in ("coldness", "mode") if about.get(name))
    return f"{about['backend']}{batch}{''.join(more)}"


def _of_difference(about: Row, found: SlopeDifference, what: str, over: str, more: str = "") -> Row:
    """A row by whether two exponents are distinct."""
    apart = "" if found.distinct else f", at most {max(abs(found.low), abs(found.high)):.3f} apart"
    evidence = f"{what} {found.difference:+.3f} [{found.low:.3f}, {found.high:.3f}] {over}{apart}{more}"
    ends = {"estimate": found.difference, "low": found.low, "high": found.high, "n_models": found.n_models}
    return _row(about, REFUTED if found.distinct else NOT_DISTINGUISHABLE, evidence, **ends)


def _one_exponent(tables: Mapping[str, pl.DataFrame], level: float, replicates: Replicates | None) -> Iterator[Row]:
    for about, group in grouped(tables[PER_MODEL.name], SETTING):
        prefill, decode = (group.filter(pl.col("mode") == mode) for mode in ("prefill", "kv_decode"))
        found = paired_slope_difference(prefill, decode, level, replicates=replicates)
        shares = ""
        for row in of_group(tables[DECODE_FRACTION_SUMMARY.name], about)[:1]:
            share = row["decode_fraction_median"]
            shares = f"; of end to end, decode is {share:.1%} and prefill {1 - share:.1%} (median model)"
        if math.isnan(found.low):
            few = f"{found.n_models} models with both phases{shares}"
            yield _row(about, TOO_FEW, few, estimate=found.difference, n_models=found.n_models)
        else:
            over = f"over {found.n_models} models"
            yield _of_difference(about, found, "slope of prefill minus slope of decode", over, shares)


def _across_backends(tables: Mapping[str, pl.DataFrame], level: float, replicates: Replicates | None) -> Iterator[Row]:
    """Each pair of backends on end-to-end latency: the models they share, or, where too few, law against law."""
    groups = list(grouped(tables[PER_MODEL.name].filter(pl.col("mode") == "e2e_kv"), SETTING))
    laws = end_to_end_laws(tables)
    for (one, first), (other, second) in itertools.combinations(groups, 2):
        alike = one["batch_size"] == other["batch_size"] and one[BUDGET] == other[BUDGET]
        if one["backend"] == other["backend"] or not alike:
            continue
        found = paired_slope_difference(first, second, level, replicates=replicates)
        shared = "over the models that both ran"
        mine, theirs = of_group(laws, one), of_group(laws, other)
        if math.isnan(found.low) and mine and theirs:
            found, shared = unpaired_slope_difference(mine[0], theirs[0], level), "of laws over different models"
        if not math.isnan(found.low):
            about = {
                "backend": one["backend"],
                "other_backend": other["backend"],
                "mode": "e2e_kv",
                BUDGET: one[BUDGET],
            }
            over = f"{shared} ({found.n_models})"
            row = _of_difference(about, found, "difference of end-to-end slopes", over)
            yield row | {"subject": f"{_words(one)} against {_words(other)}"}


def _params_predict(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for law in end_to_end_laws(tables).iter_rows(named=True):
        errors = left_out_errors(tables, law)
        params, mean = errors.get(structure.PARAMS), errors.get(structure.MEAN)
        verdict, slope, low, high = (law[name] for name in ("verdict", "slope", "slope_t_ci_low", "slope_t_ci_high"))
        said = word(verdict)
        status = NOT_SUPPORTED if said == NOT_IDENTIFIABLE else verdict
        evidence = f"{verdict}: {law['n_models']} models"
        if slope is not None:
            interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            evidence = f"{verdict}: exponent {slope:.3f}{interval}, R2 {_figure(law['r2'])}, "
            evidence += f"rank correlation {_figure(law['spearman_rho_loglog'])}"
        if said == NOT_IDENTIFIABLE:
            evidence += " (the interval holds 0)"
        if said != verdict:
            evidence += f"; without {law['without_model']} exponent {law['slope_without']:.3f}"
        if params is None or mean is None:
            evidence += "; leaving one model out can't be tried"
        else:
            evidence += f"; a model left out is off by a factor {exponential(params):.2f}, predicting the mean by "
            evidence += f"{exponential(mean):.2f}"
            if params >= mean and said in {SUPPORTED, TREND}:
                status, evidence = WEAK, f"{evidence}: no better"
        yield _row(law, status, evidence, estimate=slope, low=low, high=high)


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _mean_is_safe(tables: Mapping[str, pl.DataFrame], slo_ms: float) -> Iterator[Row]:
    starts = tables[COLD_STARTS.name]
    if starts.is_empty():
        for about, _ in grouped(tables[PER_MODEL.name], SETTING):
            yield _row(about, NOT_CHECKED, COLD_STARTS.why_empty)
    for row in starts.iter_rows(named=True):
        evidence = f"{event_words(row)} (from {UNSAFE_RATIO:g} x and {slo_ms:g} ms on)"
        for old in of_group(tables[WARMUP_EFFECT_SUMMARY.name], row, "mode"):
            verdict = UNSAFE if old["cold_start"] else HOLDS
            evidence += f"; by TR121's rule, all warmups without their load, {verdict}: p95 {old['ratio_p95']:.1f} x, "
            evidence += f"{old['added_ms_p95']:.0f} ms added, worst {old['ratio_max']:.1f} x"
        yield _row(row, UNSAFE if row["n_unsafe"] else HOLDS, evidence, estimate=row["ratio_max"])


def _decode_dominates(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for row in tables[DECODE_FRACTION_SUMMARY.name].iter_rows(named=True):
        share = row["decode_fraction_median"]
        evidence = (
            f"decode is {share:.1%} of end to end at the median model (quartiles {row['decode_fraction_p25']:.1%} to "
            f"{row['decode_fraction_p75']:.1%}) for {row[BUDGET]} tokens"
        )
        yield _row(row, HOLDS if share >= DOMINATES else NOT_SUPPORTED, evidence, estimate=share)


def _depth_explains(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for about, group in grouped(tables[STRUCTURE_PREDICTORS.name].filter(pl.col("mode") == "e2e_kv"), SETTING):
        rows = {row["predictor"]: row for row in group.iter_rows(named=True) if row["loo_rmse_log"] is not None}
        if not {structure.DEPTH, structure.PARAMS} <= set(rows):
            yield _row(about, NOT_CHECKED, "layers of three models or more that differ are not known")
            continue
        depth, params = rows[structure.DEPTH], rows[structure.PARAMS]
        better_by = depth["loo_rmse_log"] - params["loo_rmse_log"]
        evidence = (
            f"a model left out is off by a factor {depth['loo_typical_factor']:.2f} by depth, "
            f"{params['loo_typical_factor']:.2f} by parameters; rank correlations {_figure(depth['spearman_rho'])} "
            f"and {_figure(params['spearman_rho'])}" + (f"; {depth['warning']}" if depth["warning"] else "")
        )
        status = HOLDS if better_by < 0 else NOT_SUPPORTED
        yield _row(about, status, evidence, estimate=better_by, n_models=depth["n_models"])
