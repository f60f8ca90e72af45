"""What to do, by rule: each policy with the figure of this run that triggered it (TR121 section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from phaselaw.laws.claims import DOMINATES
from phaselaw.laws.decisions import ALIKE, COLD_START, DEPTH, LATENCY, MIXED, OVERHEAD, PRICE, SIZE, UNKNOWN
from phaselaw.laws.verdicts import TREND
from phaselaw.laws.warmup import UNSAFE_RATIO
from phaselaw.report.document import Section, display, section
from phaselaw.report.subject import Subject
from phaselaw.tables import Row, Table, digits, percent, words

_POLICIES = {
    SIZE: "Plan with the law in parameters, inside the measured range; predict a size that was not measured by it.",
    DEPTH: "Compare models by layers, not by parameters: a shallower model of the same size will be faster.",
    OVERHEAD: "A smaller model buys little here: raise the batch size, or remove the overhead (a compiled or fused "
    "runtime), before buying hardware.",
    MIXED: "Measure each candidate model itself; don't carry one model's latency over to another.",
    UNKNOWN: "Measure more models, or more repetitions, before planning with a law.",
    COLD_START: "Keep a pool of warm workers, send a warmup call after each load or deploy, and set SLOs on the first "
    "call apart.",
}
_BUDGET_LEVER = 1.5
"""The largest model's price over the smallest's, from which model choice is called a lever."""


_TABLE = Table(
    caption="Policies, each with the figure that triggered it.",
    columns=(words("policy", "policy"), words("because", "because"), words("table", "table")),
)


def guidance(subject: Subject) -> Section:
    """Policies that this run's figures call for, and what to watch in production (TR121 9.1, 9.2)."""
    rules = (_regimes, _decode, _loads, _prices, _early_stops, _suspects, _trends)
    rows = _merged(row for rule in rules for row in rule(subject))
    watch = (
        "Time to first token apart from decode tokens/s: the phases scale and break apart.",
        "tokens/s by prompt length, generation length and batch size, the axes along which these laws were fixed.",
        "First calls (worker age, time since its last request, whether the model was loaded) apart from warm ones.",
    )
    return section("Guidance", display(_TABLE, rows), "Measure in production, so that the laws stay true:", watch)


def _merged(rows: Iterable[Row]) -> tuple[Row, ...]:
    """One row a policy, with every place that calls for it."""
    found: dict[str, Row] = {}
    for row in rows:
        because = f"{row['where']}: {row['because']}"
        if row["policy"] in found:
            found[row["policy"]]["because"] += f"; {because}"
        else:
            found[row["policy"]] = row | {"because": because}
    return tuple(found.values())


def _row(policy: str, where: object, because: str, table: str) -> Row:
    return {"policy": policy, "where": str(where), "because": because, "table": table}


def _regimes(subject: Subject) -> Iterator[Row]:
    for row in subject.rows("regimes"):
        yield _row(_POLICIES[row["regime"]], f"{row['law']}, {row['phase']}", row["reason"], "regimes")


def _decode(subject: Subject) -> Iterator[Row]:
    for row in subject.rows("decode_fraction_summary"):
        share = row["decode_fraction_median"]
        tokens = f"decode is {percent(share)} of end to end at {row['gen_tokens_target']} tokens (median model)"
        if share >= DOMINATES:
            policy = "Plan capacity by decode tokens/s: a faster prefill alone will not be noticed end to end."
        else:
            policy = "Plan for both phases: prefill is too large a share to leave out."
        yield _row(policy, row["law"], tokens, "decode_fraction_summary")


def _loads(subject: Subject) -> Iterator[Row]:
    """Loads that dwarf the warm call: residency is a setting, not an accident."""
    worst: dict[str, Row] = {}
    for row in subject.rows("ollama_warmup_breakdown"):
        if row["warmup_load_median_ms"] and row["warmup_ratio_total_including_load"]:
            old = worst.get(row["law"])
            if old is None or row["warmup_load_median_ms"] > old["warmup_load_median_ms"]:
                worst[row["law"]] = row
    for law, row in worst.items():
        ratio, load = row["warmup_ratio_total_including_load"], row["warmup_load_median_ms"]
        if ratio >= UNSAFE_RATIO and load >= subject.analysis.options.cold_start_slo_ms:
            because = (
                f"{row['model']}, {row['scenario']}: {digits(load)} ms of loading; with it the first prefill takes "
                f"{digits(ratio)} x a warm one"
            )
            policy = "Keep models resident (or load them before traffic comes): loading is most of a cold first token."
            yield _row(policy, law, because, "ollama_warmup_breakdown")


def _prices(subject: Subject) -> Iterator[Row]:
    for row in subject.rows("what_breaks_first"):
        grows = {row["first"], row["then"]} & {LATENCY, PRICE, ALIKE}
        if grows and (row["price_factor"] or 0) >= _BUDGET_LEVER:
            times = digits(row["price_factor"])
            because = f"a token of {row['largest_model']} costs {times} x one of {row['smallest_model']}"
            policy = (
                "Make the larger model earn its price: route to it what the smaller one fails at, and measure quality "
                "before making it the default."
            )
            yield _row(policy, row["law"], because, "what_breaks_first")


def _early_stops(subject: Subject) -> Iterator[Row]:
    rows = [row for row in subject.rows("ollama_early_stop_summary") if row["early_stop_rate"]]
    for law in dict.fromkeys(row["law"] for row in rows):
        mine = [row for row in rows if row["law"] == law]
        worst = max(mine, key=lambda row: float(row["early_stop_rate"]))
        because = (
            f"{percent(worst['early_stop_rate'])} of {worst['model']}'s calls on {worst['scenario']} stopped before "
            f"{worst['gen_tokens_target']} tokens"
        )
        policy = "Compare models by time a token, not by time a reply: a model that says less looks faster."
        yield _row(policy, law, because, "ollama_early_stop_summary")


def _suspects(subject: Subject) -> Iterator[Row]:
    steps: dict[tuple[str, str], list[Row]] = {}
    for row in subject.rows("validity_findings"):
        if row["status"] != "caution":
            steps.setdefault((row["check"], row["next_step"]), []).append(row)
    for (check, step), found in steps.items():
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        where = dict.fromkeys(str(row["law"]) for row in found)
        yield _row(_sentence(step), ", ".join(where), f"{check} {first['status']}: {first['evidence']}{more}",
                   "validity_findings")  # fmt: skip


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _trends(subject: Subject) -> Iterator[Row]:
    for law, rows in subject.laws():
        mine = [row for row in rows if row["mode"] == "e2e_kv" and row["verdict"] == TREND and row["trend_exceptions"]]
        for row in mine:
            policy = "Measure the very model that you choose: the law is a trend, and some models are out of order."
            yield _row(policy, law, f"out of order end to end: {row['trend_exceptions']}", "scaling_fits")
