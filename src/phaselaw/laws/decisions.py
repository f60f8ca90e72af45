"""Decisions by rule, each with the figures that decided: regimes, what breaks first, and claims (TR121 4.1).

*What breaks first* as a model grows is TR121's question (method 3). A cold start that is a regime of its own breaks at
the smallest model on which it shows, before any growth; then whichever of latency and the price of a token grows more
from the smallest model to the largest, where latency follows parameters at all.

*Claims* are TR121's five, and two more. Nothing is worded for one data set: each row has the figures that decided and
the table that they stand in.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw import tables as col
from phaselaw.laws import structure
from phaselaw.laws.law_differences import SlopeDifference, paired_slope_difference, unpaired_slope_difference
from phaselaw.laws.noise import Replicates
from phaselaw.laws.options import Options
from phaselaw.laws.overhead import LINEAR, OVERHEAD_COMPUTE_FITS, POWER
from phaselaw.laws.regression import exponential
from phaselaw.laws.scaling import SCALING_FITS
from phaselaw.laws.structure import STRUCTURE_PREDICTORS
from phaselaw.laws.summary import DECODE_FRACTION_SUMMARY, GROUP_COLUMNS, PER_MODEL, REQUESTS, SETTING
from phaselaw.laws.verdicts import MIN_MODELS, NARROW, NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK, word
from phaselaw.laws.warmup import COLD_STARTS, UNSAFE_RATIO, WARMUP_EFFECT_SUMMARY, event_words
from phaselaw.records import ALL
from phaselaw.tables import BUDGET, Col, Row, Table, grouped, like

SIZE, DEPTH, OVERHEAD, MIXED, UNKNOWN, COLD_START = ("size", "depth", "overhead", "mixed", "unknown", "cold start")
"""Regimes; a cold start may also be what breaks first, and that may be unknown too."""
LATENCY, PRICE, ALIKE = "latency", "budget", "latency and budget alike"
NEITHER = "neither latency nor budget follows size"

OVERHEAD_SHARE = 0.5
"""An overhead that takes this share of the median model's latency governs it."""
ALIKE_WITHIN = 1.05
"""Growth factors of latency and price that differ by less than this factor are alike."""

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

REGIMES = Table(
    name="regimes",
    holds="the regime of each backend: what governs latency, by rule",
    why_empty="no e2e_kv rows to fit",
    columns=(
        *GROUP_COLUMNS,
        col.words("regime", "regime", reads="meaning"),
        col.words("reason", "because"),
        col.counted("n_models"),
        col.words("verdict"),
        *col.plain("slope slope_t_ci_low slope_t_ci_high r2 loo_mean loo_params loo_depth loo_params_depth"),
        *col.plain("overhead_share overhead_share_ci_low overhead_share_ci_high warmup_ratio_p95 warmup_added_ms_p95"),
        col.counted(BUDGET),
        *col.plain("cold_ratio_max cold_added_ms_max"),
    ),
)


def _span(title: str, name: str) -> Col:
    def text(row: Row) -> str:
        return f"{col.digits(row[f'smallest_{name}'])} to {col.digits(row[f'largest_{name}'])}"

    return Col(title=title, key=f"largest_{name}", provenance="measured", of_row=text)


WHAT_BREAKS_FIRST = Table(
    name="what_breaks_first",
    holds="cold start, latency or budget, by rule",
    caption="As the model grows, what breaks first: latency, the cold start, or the budget?",
    why_empty="no e2e_kv rows with a parameter count",
    columns=(
        *GROUP_COLUMNS[:3],
        col.words("first", "first"),
        col.words("then", "then"),
        col.counted("n_models"),
        *col.plain("smallest_model largest_model fastest_model slowest_model", pl.String),
        *col.plain("smallest_params_millions"),
        _span("parameters (M)", "params_millions"),
        *col.plain("smallest_latency_ms"),
        _span("latency (ms)", "latency_ms"),
        col.derived("latency_factor", "latency grows", col.factor),
        col.derived("price_factor", "price grows", col.factor),
        *col.plain("law_factor"),
        *col.interval("law_factor_low", "law_factor_high", "by the law", col.digits),
        *col.plain("slowest_to_fastest"),
        *col.plain("cold_mode cold_model", pl.String),
        *col.plain("cold_params_millions cold_ratio_p95 cold_added_ms_p95"),
        col.counted(BUDGET),
        col.words("coldness"),
        col.derived("cold_ratio_max", "worst first call", col.factor),
        col.derived("cold_added_ms_max", "added (ms)"),
        col.measured("cold_load_ms", "of which loading"),
        *col.plain("cold_n_calls cold_n_unsafe", pl.Int64),
    ),
    shows="backend first then largest_params_millions largest_latency_ms latency_factor law_factor_low price_factor "
    "cold_ratio_max cold_added_ms_max cold_load_ms",
)


def _about(row: Row) -> str:
    """What a claim is about, its phase in words."""
    return str(row["subject"]).removesuffix(f", {row['mode']}") + ("" if row["mode"] is None else f", {row['phase']}")


CLAIMS = Table(
    name="claims",
    holds="TR121's claims and two more, by rule",
    columns=(
        col.words("claim", "claim"),
        Col(key="subject", title="of", type=pl.String, of_row=_about),
        col.words("status", "status"),
        col.words("evidence", "evidence"),
        *col.plain("estimate low high"),
        col.counted("n_models"),
        col.words("source_table", "tables"),
        *col.plain("backend other_backend", pl.String),
        col.counted("batch_size"),
        col.words("mode"),
        col.counted(BUDGET),
        col.words("coldness"),
    ),
)


def of_group(table: pl.DataFrame, about: Mapping[str, Any], *names: str) -> list[Row]:
    """The rows of a table that are about the same backend, batch size and budget, and alike in ``names`` too."""
    known = [name for name in (*SETTING, *names) if name in about and name in table.columns]
    return like(table, about, known).to_dicts()


def end_to_end_laws(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The laws of end-to-end latency over all scenarios."""
    return tables[SCALING_FITS.name].filter((pl.col("mode") == "e2e_kv") & (pl.col("scenario") == ALL))


def left_out_errors(tables: Mapping[str, pl.DataFrame], law: Row) -> dict[str, float | None]:
    """By predictor: the error, in natural log units, of predicting a model of this law that was left out."""
    predictors = of_group(tables[structure.STRUCTURE_PREDICTORS.name], law, "mode")
    return {row["predictor"]: row["loo_rmse_log"] for row in predictors}


def regimes(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """One row a backend for e2e latency, and one for each of its phases in which cold start is a regime of its own.

    The overhead's share is that of the relative fit ``a + b P`` at the median model.
    """
    rows = []
    for law in end_to_end_laws(tables).iter_rows(named=True):
        errors = left_out_errors(tables, law)
        fits = {row["fit"]: row for row in of_group(tables[OVERHEAD_COMPUTE_FITS.name], law, "mode")}
        regime, reason = _regime(law, errors, fits)
        line = fits.get(LINEAR, {})
        rows.append(
            law
            | {"regime": regime, "reason": reason}
            | {f"loo_{name}": errors.get(predictor) for name, predictor in _LOO.items()}
            | {f"overhead_share{end}": line.get(f"relative_share_at_median{end}") for end in _ENDS}
        )
    for about, starts in grouped(_unsafe(tables), [*SETTING, "mode"]):
        events = starts.sort("added_ms_max", descending=True).to_dicts()
        cold = {"regime": COLD_START, "reason": "; ".join(map(event_words, events))}
        cold |= {f"cold_{name}": max(each[name] for each in events) for name in ("ratio_max", "added_ms_max")}
        for old in of_group(tables[WARMUP_EFFECT_SUMMARY.name], about, "mode"):
            cold |= {"warmup_ratio_p95": old["ratio_p95"], "warmup_added_ms_p95": old["added_ms_p95"]}
        rows.append(about | cold)
    return REGIMES.frame(rows)


def _unsafe(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return tables[COLD_STARTS.name].filter(pl.col("n_unsafe") > 0)


_ENDS = ("", "_ci_low", "_ci_high")
_LOO = {"mean": structure.MEAN, "params": structure.PARAMS, "depth": structure.DEPTH, "params_depth": structure.BOTH}


def _regime(
    law: Mapping[str, Any], errors: Mapping[str, float | None], fits: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    """The regime and, in words, the figures that decided."""
    verdict = word(law["verdict"])
    # Single properties only: params + depth is no axis that models could be lined up on.
    known = {name: error for name, error in errors.items() if error is not None and name != structure.BOTH}
    best = min(known, key=lambda name: round(known[name], 9)) if known else None
    share = fits.get(LINEAR, {}).get("relative_share_at_median")
    if verdict == TOO_FEW:
        return UNKNOWN, f"{law['n_models']} models: too few for a law"
    if verdict == NARROW:
        return UNKNOWN, "the models are too near in size for a law"
    if verdict in {SUPPORTED, TREND}:
        certain = fits.get(POWER, {}).get("relative_share_at_median_ci_low")
        grows = "grows" if law["slope"] > 0 else "falls"
        figures = f"latency {grows} as params^{law['slope']:.3f}, R2 {law['r2']:.3f}, {law['verdict']}"
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


def what_breaks_first(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The table ``what_breaks_first``: a row a backend.

    Factors are of the largest model over the smallest: end-to-end latency, and the price of a token (the inverse of
    tokens/s). ``law_factor`` is the same growth of latency by the law, with its interval. A cold start breaks first
    where a first call is unsafe.
    """
    sized = pl.col("params_millions_effective").is_finite() & (pl.col("params_millions_effective") > 0)
    latency = tables[REQUESTS.name].filter((pl.col("mode") == "e2e_kv") & sized).sort("params_millions_effective")
    laws, rows = end_to_end_laws(tables), []
    for about, group in grouped(latency, SETTING):
        law = next(iter(of_group(laws, about)), {})
        row, cold = about | _growth(group.to_dicts(), law), _cold(tables, about)
        latency_factor, price_factor = row["latency_factor"], row["price_factor"]
        verdict, slope = word(str(law.get("verdict"))), law.get("slope")
        if price_factor is None or verdict not in {SUPPORTED, TREND, WEAK, NOT_IDENTIFIABLE}:
            grown = UNKNOWN
        elif verdict == NOT_IDENTIFIABLE or slope is None or slope <= 0:
            grown = NEITHER
        elif max(latency_factor / price_factor, price_factor / latency_factor) < ALIKE_WITHIN:
            grown = ALIKE
        else:
            grown = LATENCY if latency_factor > price_factor else PRICE
        first = {"first": COLD_START, "then": grown} if cold else {"first": grown}
        rows.append(row | cold | first)
    return WHAT_BREAKS_FIRST.frame(rows)


def _growth(models: list[Row], law: Mapping[str, Any]) -> Row:
    """How latency and price grow over models in ascending order of parameters."""
    small, big = models[0], models[-1]
    fast, slow = small["tokens_per_s_geomean"], big["tokens_per_s_geomean"]
    by_latency = sorted(models, key=lambda row: float(row["latency_geomean_ms"]))
    named = {"smallest": small, "largest": big, "fastest": by_latency[0], "slowest": by_latency[-1]}
    found: Row = {f"{which}_model": row["model"] for which, row in named.items()} | {
        "n_models": len(models),
        "smallest_params_millions": small["params_millions_effective"],
        "largest_params_millions": big["params_millions_effective"],
        "smallest_latency_ms": small["latency_geomean_ms"],
        "largest_latency_ms": big["latency_geomean_ms"],
        "latency_factor": big["latency_geomean_ms"] / small["latency_geomean_ms"],
        "price_factor": fast / slow if fast and slow else None,
        "slowest_to_fastest": by_latency[-1]["latency_geomean_ms"] / by_latency[0]["latency_geomean_ms"],
    }
    log_span = math.log(big["params_millions_effective"] / small["params_millions_effective"])
    ends = {"law_factor": "slope", "law_factor_low": "slope_t_ci_low", "law_factor_high": "slope_t_ci_high"}
    for name, source in ends.items():
        slope = law.get(source)
        found[name] = None if slope is None or slope * log_span > 700 else math.exp(slope * log_span)
    return found


def _cold(tables: Mapping[str, pl.DataFrame], about: Row) -> Row:
    """The worst unsafe first call to its first token, else of another phase; and the smallest model that has one."""
    unsafe = of_group(_unsafe(tables), about)
    if not unsafe:
        return {}
    worst = max(unsafe, key=lambda row: (row["mode"] == "prefill", float(row["added_ms_max"])))
    kinds = of_group(tables[COLD_STARTS.name], worst, "mode")
    alike = [row for row in unsafe if row["mode"] == worst["mode"]]
    smallest = min(alike, key=lambda row: float(row["smallest_params_millions"] or math.inf))
    old = next(iter(of_group(tables[WARMUP_EFFECT_SUMMARY.name], worst, "mode")), {})
    return {
        **{f"cold_{name}": worst[name] for name in ("mode", "added_ms_max")},
        "cold_ratio_max": max(float(row["ratio_max"]) for row in alike),
        "coldness": worst["coldness"],
        "cold_load_ms": worst["worst_load_ms"],
        "cold_model": smallest["smallest_model"],
        "cold_params_millions": smallest["smallest_params_millions"],
        "cold_ratio_p95": old.get("ratio_p95"),
        "cold_added_ms_p95": old.get("added_ms_p95"),
        "cold_n_calls": sum(row["n_calls"] for row in kinds),
        "cold_n_unsafe": sum(row["n_unsafe"] for row in kinds),
    }


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
        shares, n = "", found.n_models
        for row in of_group(tables[DECODE_FRACTION_SUMMARY.name], about)[:1]:
            share = row["decode_fraction_median"]
            shares = f"; of end to end, decode is {share:.1%} and prefill {1 - share:.1%} (median model)"
        if math.isnan(found.low):
            few, status = f"{n} model{'s' * (n != 1)} with both phases{shares}", TOO_FEW if n < MIN_MODELS else NARROW
            yield _row(about, status, few, estimate=found.difference, n_models=n)
        else:
            yield _of_difference(about, found, "slope of prefill minus slope of decode", f"over {n} models", shares)


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
            evidence = f"{verdict}: exponent {slope:.3f}{interval}, R2 {col.two_places(law['r2'])}, "
            evidence += f"rank correlation {col.two_places(law['spearman_rho_loglog'])}"
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
            evidence += f"{col.digits(old['added_ms_p95'])} ms added, worst {old['ratio_max']:.1f} x"
        worst = row["worst_first_ms"] / row["worst_warm_ms"]
        yield _row(row, UNSAFE if row["n_unsafe"] else HOLDS, evidence, estimate=worst)


def _decode_dominates(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    for row in tables[DECODE_FRACTION_SUMMARY.name].iter_rows(named=True):
        share, asked = row["decode_fraction_median"], "" if row[BUDGET] is None else f" for {row[BUDGET]} tokens"
        evidence = (
            f"decode is {share:.1%} of end to end at the median model (quartiles {row['decode_fraction_p25']:.1%} to "
            f"{row['decode_fraction_p75']:.1%}){asked}"
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
            f"{params['loo_typical_factor']:.2f} by parameters; rank correlations "
            f"{col.two_places(depth['spearman_rho'])} and {col.two_places(params['spearman_rho'])}"
            + (f"; {depth['warning']}" if depth["warning"] else "")
        )
        status = HOLDS if better_by < 0 else NOT_SUPPORTED
        yield _row(about, status, evidence, estimate=better_by, n_models=depth["n_models"])
