"""The first page: what breaks first, how latency grows, what governs it, and what the run supports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from phaselaw.laws import decisions
from phaselaw.laws.claims import CLAIMS
from phaselaw.laws.scaling import SCALING_FITS
from phaselaw.laws.verdicts import NARROW, NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK, word
from phaselaw.laws.warmup import LOADED, always_cold
from phaselaw.report import economics, few_models, sweeps, validity
from phaselaw.report.document import Block, Section, display, section
from phaselaw.report.subject import Subject
from phaselaw.tables import SUSPECT, Row, alike, bracket, digits, fixed, words

REGIME_WORDS = {
    decisions.SIZE: "size: latency follows the parameter count",
    decisions.DEPTH: "depth: latency follows the number of layers, not the parameter count",
    decisions.OVERHEAD: "overhead: a cost that does not depend on the model's size takes most of the time",
    decisions.MIXED: "mixed: no single property of the models explains latency",
    decisions.UNKNOWN: "unknown: too little was measured to say",
    decisions.COLD_START: "cold start: a first call is so much slower that it is a regime of its own",
}
_FEW_MODELS = 10
_LAW_COLUMNS = (
    *(column for column in SCALING_FITS.columns if column.key in ("backend", "mode", "slope", "slope_t_ci_low", "r2")),
    words("verdict", "verdict", of_row=lambda row: word(row["verdict"])),
)
"""Of the laws on a terminal: without what a verdict rests on."""


def lead(subject: Subject) -> tuple[str, ...]:
    """What the run says: of one or two models by name, of more two or three sentences a backend."""
    sentences = few_models.lead(subject) or [f"{answer}{_first_calls(row)}" for row, answer in _answers(subject)]
    if not sentences:
        unsized = subject.run.rows.filter((pl.col("status") == "ok") & pl.col("params_millions_effective").is_null())
        names = _joined(unsized["model"].unique(maintain_order=True).to_list())
        why = f"nothing says the parameters of {names}; give the study's params_millions for each"
        why = why if names else "no model has a usable end-to-end latency"
        sentences = [f"No law could be fitted: {why}."]
    sentences[:0] = [*_before_all(subject), *_of_cold_starts(subject)]
    marked = [row for row in subject.rows("scaling_fits", scenario="__all__") if row.get(SUSPECT)]
    if marked:
        laws = _joined(dict.fromkeys(str(row["law"]) for row in marked))
        checks = _joined(dict.fromkeys(part for row in marked for part in str(row[SUSPECT]).split(", ")))
        sentences.append(f"⚠ Laws of {laws} stand on suspect rows ({checks}); they are marked wherever they appear.")
    return tuple(sentences)


def _before_all(subject: Subject) -> Iterator[str]:
    """What a reader must know before any figure."""
    yield from (f"UNFINISHED: {line}." for line in subject.run.unfinished)
    if subject.simulated:
        yield "SIMULATED: latencies come from a stated law, nothing was measured."


def _answers(subject: Subject) -> Iterator[tuple[Row, str]]:
    """What breaks first on each backend, and what governs its latency."""
    for row in subject.rows("what_breaks_first"):
        yield row, f"{row['law']}: {_order(row)}. {_governs(subject, row)}"


def summary(subject: Subject) -> tuple[Block, ...]:
    """What a terminal shows: the answer, the laws or the figures of one or two models, trust, and the price."""
    blocks: Sequence[Block] = few_models.summary(subject)
    if not blocks:
        laws = display(dataclasses.replace(SCALING_FITS, columns=_LAW_COLUMNS, shows=""), exponents_of(subject))
        price = economics.price_range(subject.plan)
        blocks = (*(answer for _, answer in _answers(subject)), *sweeps.lead(subject)[:2], laws, price)
    return (*_before_all(subject), *blocks, f"Trust: {validity.trust(subject)}.")


def _of_cold_starts(subject: Subject) -> list[str]:
    """What first requests wait for where a study asks for nothing but cold starts (``cold: true``)."""
    backends = always_cold(subject.run)
    rows = [row for row in subject.rows("cold_starts", mode="prefill", coldness=LOADED) if row["backend"] in backends]
    return [
        f"{row['law']}, a study of cold starts: the first token of a request comes after "
        f"{digits(row['first_median_ms'])} ms (median), {digits(row['ratio_median'])} x a warm one's, "
        f"{digits(row['load_median_ms'])} ms of it loading: {row['n_unsafe']} of {row['n_calls']} are unsafe."
        for row in rows
    ]


def _order(row: Row) -> str:
    """What breaks first and what then."""
    if row["first"] == decisions.COLD_START:
        then = f"beyond it {row['then']}" if row["then"] == decisions.NEITHER else f"then {row['then']}"
        return f"first to break: the cold start, {then}"
    if row["first"] == decisions.UNKNOWN:
        return "what breaks first is unknown"
    return str(row["first"]) if row["first"] == decisions.NEITHER else f"first to break: {row['first']}"


def _governs(subject: Subject, row: Row) -> str:
    """Which regime it is, and how far latency spreads over the models."""
    regimes = subject.ordered("regimes", law=row["law"])
    regime = next((one for one in regimes if one["regime"] == decisions.SIZE), None)
    span = f"{digits(row['smallest_params_millions'])} to {digits(row['largest_params_millions'])} M parameters"
    if regime is not None:
        ends = bracket(regime["slope_t_ci_low"], regime["slope_t_ci_high"])
        grown = f"latency grows {digits(row['latency_factor'])} x"
        grown += f", the price of a token {digits(row['price_factor'])} x" if row["price_factor"] else ""
        return f"Size governs latency, as params^{fixed(regime['slope'])} {ends}: from {span}, {grown}."
    others = (one["regime"] for one in regimes)
    named = next((one for one in others if one not in {decisions.COLD_START, decisions.UNKNOWN}), None)
    if named is None or row["n_models"] < 2:
        return "Too little was measured to say what governs latency."
    governs = REGIME_WORDS[named].partition(": ")[2].capitalize()
    return (
        f"{governs}: over {span} the slowest model, {row['slowest_model']}, "
        f"takes {digits(row['slowest_to_fastest'])} x the fastest, {row['fastest_model']}."
    )


def _first_calls(row: Row) -> str:
    if row["cold_mode"] is None:
        return ""
    to = {"prefill": "to the first token", "e2e_kv": "to the last token"}.get(row["cold_mode"], "in decode")
    loading = f", {digits(row['cold_load_ms'])} ms of it loading" if row["cold_load_ms"] else ""
    return (
        f" The worst first call ({row['coldness']}) takes {digits(row['cold_ratio_max'])} x a warm one {to} "
        f"(+{digits(row['cold_added_ms_max'])} ms{loading}); {row['cold_n_unsafe']} of {row['cold_n_calls']} first "
        "calls are unsafe."
    )


def first_to_break(subject: Subject) -> Section:
    """The report's question, answered in a row a backend."""
    regimes = {row["law"]: row["regime"] for row in subject.ordered("regimes") if row["regime"] != decisions.COLD_START}
    firsts = subject.rows("what_breaks_first")
    rows = [row | {"regime": regimes.get(row["law"], decisions.UNKNOWN)} for row in firsts]
    table = subject.table(decisions.WHAT_BREAKS_FIRST, rows)
    columns = (*table.columns[:3], words("regime", "regime"), *table.columns[3:])
    return section(
        "What breaks first",
        "A cold start that is unsafe breaks before any growth. After it comes what grows more from the "
        "smallest model to the largest: end-to-end latency, or the price of a token.",
        dataclasses.replace(table, columns=columns) if rows else None,
    )


def exponents_of(subject: Subject) -> tuple[Row, ...]:
    """The law of each backend and phase, all scenarios together."""
    return tuple(row for _, laws in subject.laws() for row in laws)


def exponents(subject: Subject) -> Section:
    """The headline: one exponent a backend and phase."""
    rows = exponents_of(subject)
    level = f"{subject.analysis.options.level:.0%}"
    return section(
        "Scaling exponents",
        "The exponent says how latency grows with parameters: at 0.5, a model four times as big takes twice as long; "
        "at 0, size does not matter. Fitted by least squares on log-log axes to each model's median latency, averaged "
        "over scenarios (geometric mean).",
        subject.table(
            SCALING_FITS,
            rows,
            caption=f"latency ~ params^exponent, by backend and phase, with {level} intervals.",
            shows="backend mode n_models slope slope_t_ci_low r2 spearman_rho_loglog verdict slope_without "
            "slope_hc2_ci_low slope_ci_low tr121_verdict",
        ),
        _reading(rows, level),
    )


def _reading(rows: tuple[Row, ...], level: str) -> tuple[str, ...]:
    items = [
        f"The {level} interval is a t interval over models: it covers at small n. TR121's percentile bootstrap stands "
        "beside it; with so few models it is too narrow.",
        f"{SUPPORTED}: the interval leaves out 0 and R2 is at least 0.7; (trend): some models are out of order. "
        f"{WEAK}: it leaves out 0, R2 is below 0.7. {NOT_IDENTIFIABLE}: it holds 0. {TOO_FEW}: fewer than 3 models. "
        f"{NARROW}: the largest is less than twice the smallest.",
        "Rests on a model: the line follows it by more than half (leverage), and without it the exponent is outside of "
        "the interval, or the verdict another. HC2's interval allows for models that scatter unequally about the law; "
        "where that is found it is the interval.",
    ]
    trends = [row for row in rows if word(row["verdict"]) == TREND and row.get("trend_exceptions")]
    for (law, models), mine in alike(trends, "law", "trend_exceptions").items():
        items.append(f"{law}: out of order in {_phases(mine)}: {models}.")
    noise = [row for row in rows if row.get("slope_call_noise_se") is not None]
    if noise:
        worst = max(noise, key=lambda row: row["slope_call_noise_se"])
        items.append(
            f"Of an exponent's uncertainty, the scatter of calls is at most {fixed(worst['slope_call_noise_se'], 4)} "
            f"(standard error; {worst['law']}, {worst['phase']}); the rest is how models differ."
        )
    return tuple(items)


def _joined(words: Iterable[str]) -> str:
    *most, last = words or ("",)
    return f"{', '.join(most)} and {last}" if most else last


def regimes(subject: Subject) -> Section:
    """What governs latency on each backend, by rule, with the figures that decided."""
    rows = [row | {"meaning": REGIME_WORDS[row["regime"]]} for row in subject.ordered(decisions.REGIMES.name)]
    return section("Regimes", subject.table(decisions.REGIMES, rows))


def supports(subject: Subject) -> Section:
    """What can be concluded from this run, what only with care, and what can't."""
    yes, care, no = [], [], []
    for law, rows in subject.laws():
        sound = [row for row in rows if word(row["verdict"]) in {SUPPORTED, TREND} and not row.get(SUSPECT)]
        marked = [row for row in rows if word(row["verdict"]) in {SUPPORTED, TREND} and row.get(SUSPECT)]
        grows = "latency grows with parameters between the smallest and the largest model measured"
        if sound:
            yes.append(f"{law}, {_phases(sound)}: {grows}.")
        care += [f"{law}, {row['phase']}: {grows}, if its rows are sound ({row[SUSPECT]})." for row in marked]
        for verdict in (WEAK, NOT_IDENTIFIABLE, TOO_FEW, NARROW):
            mine = [row for row in rows if word(row["verdict"]) == verdict]
            if mine:
                no.append(f"{law}, {_phases(mine)}: no law in parameters to plan with ({verdict}).")
    no += [
        "Sizes outside the measured range: every law here is fitted inside it.",
        "Other prompt lengths, decode budgets and batch sizes than the ones measured.",
        "Load: every call ran alone, so there is no queueing here.",
        "Answers' quality: only time was measured.",
    ]
    counts = [row["n_models"] for _, rows in subject.laws() for row in rows]
    if counts and min(counts) < _FEW_MODELS:
        no.append("Fine differences between exponents: with so few models the intervals are wide.")
    if subject.simulated:
        yes, care, no = [], [], ["Anything about real machines: the latencies are simulated.", *no]
    lists = {"It supports:": yes, "Only with care:": care, "It does not support:": no}
    return section(
        "What this run supports, and what it does not",
        *(each for heading, items in lists.items() if items for each in (heading, items)),
    )


def _phases(rows: Iterable[Row]) -> str:
    return _joined([str(row["phase"]) for row in rows])


CLAIM_STATUS = "Claim status"


def claim_status(subject: Subject) -> Section:
    """The claims with their status, evidence, and what speaks against the rows behind it."""
    rows = subject.rows(CLAIMS.name)
    if not rows:
        return section(CLAIM_STATUS, subject.why_not(CLAIMS))
    return section(
        CLAIM_STATUS,
        "By rule, for any run; TR121's own claims come first. refuted: the interval leaves out that the claim is true. "
        "not distinguishable here: it does not, and the bound says how far apart the two can still be. "
        "not supported: the run does not show it, which is not to say that it is false. "
        "A claim on suspect rows says so: read the section on validity before it.",
        subject.table(CLAIMS, rows),
    )
