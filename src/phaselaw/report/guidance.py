"""What to do, by rule: each policy with the figure of this run that triggered it (TR121 section 9)."""

import statistics
from collections.abc import Iterable, Iterator

import polars as pl

from phaselaw.laws.decisions import ALIKE, DOMINATES, LATENCY, PRICE
from phaselaw.laws.law_differences import stem
from phaselaw.laws.verdicts import TREND, word
from phaselaw.laws.warmup import event_words
from phaselaw.records import ALL
from phaselaw.report.document import Block, display
from phaselaw.report.outline import WORDING
from phaselaw.report.subject import Subject, table_rows
from phaselaw.tables import BUDGET, Row, Table, alike, digits, percent, words

_BUDGET_LEVER = 1.5
"""The largest model's price over the smallest's, from which model choice is called a lever."""

_BATCHING_PAYS = 1.5
"""The tokens/s of the largest batch over those of the smallest, from which on batching pays."""

_TABLE = Table(
    caption="Policies, each with the figure that triggered it.",
    columns=(words("policy", "policy"), words("because", "because"), words("table", "table")),
)
Advice = Iterator[tuple[str, str, str]]
"""Of each row that calls for one: a policy, where it applies, and because of which figure."""


def _regimes(rows: Iterable[Row]) -> Advice:
    for row in rows:
        yield WORDING["policies"][row["regime"]], f"{row['law']}, {row['phase']}", row["reason"]


def _decode(rows: Iterable[Row]) -> Advice:
    for row in rows:
        share = row["decode_fraction_median"]
        asked = "" if row[BUDGET] is None else f" at {row[BUDGET]} tokens"
        because = f"decode is {percent(share)} of end to end{asked} (median model)"
        yield WORDING["advice"]["decode" if share >= DOMINATES else "phases"], row["law"], because


def _loads(rows: Iterable[Row]) -> Advice:
    """Unsafe first calls that are loading for the most part: residency is a setting, not an accident."""
    policy = WORDING["advice"]["loads"]
    unsafe = (row for row in rows if row["mode"] == "prefill" and row["n_unsafe"])
    loads = [row for row in unsafe if 2 * (row["worst_load_ms"] or 0) > row["worst_first_ms"]]
    for (law,), mine in alike(loads, "law").items():
        yield policy, law, event_words(max(mine, key=lambda row: float(row["worst_load_ms"])))


def _prices(rows: Iterable[Row]) -> Advice:
    policy = WORDING["advice"]["price"]
    for row in rows:
        if {row["first"], row["then"]} & {LATENCY, PRICE, ALIKE} and (row["price_factor"] or 0) >= _BUDGET_LEVER:
            because = f"a token of {row['largest_model']} costs {digits(row['price_factor'])} x one of "
            yield policy, row["law"], because + row["smallest_model"]


def _early_stops(rows: Iterable[Row]) -> Advice:
    policy = WORDING["advice"]["early stops"]
    for (law,), mine in alike((row for row in rows if row["early_stop_rate"]), "law").items():
        worst = max(mine, key=lambda row: float(row["early_stop_rate"]))
        calls = f"{percent(worst['early_stop_rate'])} of {worst['model']}'s calls on {worst['scenario']}"
        yield policy, law, f"{calls} stopped before {worst['gen_tokens_target']} tokens"


def _batches(rows: Iterable[Row]) -> Advice:
    """What the largest batch that was measured gains over the smallest (TR121 4.4, 9.2)."""
    known = [row | {"stem": stem(row["backend"])} for row in rows]
    for (backend, budget), mine in alike(known, "stem", BUDGET).items():
        by_size = sorted(alike(mine, "batch_size").items())
        ((least,), of_least), ((most,), of_most) = by_size[0], by_size[-1]
        before, after = ({row["model"]: row["tokens_per_s_geomean"] for row in each} for each in (of_least, of_most))
        gains = [after[model] / rate for model, rate in before.items() if after.get(model) and rate]
        if least < most and gains:
            gain, tokens = statistics.median(gains), "" if budget is None else f" of {budget} tokens"
            policy = WORDING["advice"]["batching" if gain >= _BATCHING_PAYS else "no batching"]
            because = f"batches of {most} decode{tokens} at {digits(gain)} x the tokens/s of batches of {least}"
            yield policy, backend, f"{because} (median of {len(gains)} models)"


def _padding(rows: Iterable[Row]) -> Advice:
    """The share of prompt tokens that a batch computes for nothing, where any were.

    Some count the tokens of one prompt of a batch: then as many as the batch is large are computed, none for nothing.
    """
    asked, computed = "prompt_tokens_raw_median", "prompt_tokens_compute_median"
    known = (row for row in rows if row[asked] and row[computed])
    padded = (row for row in known if row[asked] < row[computed] < row[asked] * row["batch_size"])
    for (law,), mine in alike(padded, "law").items():
        worst = max(mine, key=lambda row: row[computed] / row[asked])
        share = percent(1 - worst[asked] / worst[computed])
        yield WORDING["advice"]["padding"], law, f"{share} of the prompt tokens on {worst['scenario']} are padding"


def _suspects(rows: Iterable[Row]) -> Advice:
    doubts = (row for row in rows if row["status"] != "caution")
    for (check, step), found in alike(doubts, "check", "next_step").items():
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        where = ", ".join(dict.fromkeys(row["law"] for row in found))
        policy = f"{step[:1].upper()}{step[1:]}".rstrip(".") + "."
        yield policy, where, f"{check} {found[0]['status']}: {found[0]['evidence']}{more}"


def _trends(rows: Iterable[Row]) -> Advice:
    policy = WORDING["advice"]["trend"]
    for row in rows:
        over_all = row["mode"] == "e2e_kv" and row["scenario"] == ALL
        if over_all and word(row["verdict"]) == TREND and row["trend_exceptions"]:
            yield policy, row["law"], f"out of order end to end: {row['trend_exceptions']}"


_RULES = {
    "regimes": _regimes,
    "decode_fraction_summary": _decode,
    "cold_starts": _loads,
    "what_breaks_first": _prices,
    "ollama_early_stop_summary": _early_stops,
    "summary_by_model_backend_mode_agg": _batches,
    "summary_by_model_backend_mode": _padding,
    "validity_findings": _suspects,
    "scaling_fits": _trends,
}
"""By table, the rule that reads its rows."""
_OF_BATCHES = {
    "summary_by_model_backend_mode_agg": pl.col("mode") == "kv_decode",
    "summary_by_model_backend_mode": (pl.col("mode") == "prefill") & (pl.col("batch_size") > 1),
}
"""Rules on batches read the runs beside this one, too, and only these rows: a run may have thousands of cells."""


def guidance(subject: Subject) -> Iterator[Block]:
    """Policies that this run's figures call for (TR121 9.1, 9.2)."""
    found: dict[str, Row] = {}
    prompt = pl.coalesce("seq_len", pl.col("prompt_tokens_raw") / pl.col("batch_size"))
    least, most = subject.run.rows.select(prompt.min().alias("least"), prompt.max().alias("most")).row(0)
    lengths = {"decode_fraction_summary": f", prompts of {least:,.0f} to {most:,.0f} tokens"} if most else {}
    for table, rule in _RULES.items():
        if (needed := _OF_BATCHES.get(table)) is None:
            runs = {"": subject.rows(table)}
        else:  # TR121 measured larger batches in a run of their own
            several = {"": subject.analysis} | {f"{each.name}, ": each.analysis for each in subject.beside}
            runs = {run: table_rows(each.tables[table].filter(needed)) for run, each in several.items()}
        for run, rows in runs.items():
            for policy, where, because in rule(rows):
                row = found.setdefault(policy, {"policy": policy, "because": [], "table": table})
                row["because"].append(f"{run}{where}: {because}{lengths.get(table, '')}")
    yield display(_TABLE, [row | {"because": "; ".join(row["because"])} for row in found.values()])
