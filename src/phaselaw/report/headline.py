"""The first page: what grows, what governs it, what the run supports and what to do about it."""

from __future__ import annotations

import math

from phaselaw.laws.regimes import COLD_START, DEPTH, MIXED, OVERHEAD, SIZE, UNKNOWN
from phaselaw.laws.verdicts import NOT_IDENTIFIABLE, SUPPORTED, TOO_FEW, TREND, WEAK
from phaselaw.report.columns import count, digits, fixed, interval, number, word
from phaselaw.report.document import Block, Bullets, Paragraph, Row, Section, Table
from phaselaw.report.subject import Subject

REGIME_WORDS = {
    SIZE: "size: latency follows the parameter count",
    DEPTH: "depth: latency follows the number of layers, not the parameter count",
    OVERHEAD: "overhead: a cost that does not depend on the model's size takes most of the time",
    MIXED: "mixed: no single property of the models explains latency",
    UNKNOWN: "unknown: too little was measured to say",
    COLD_START: "cold start: a first call is so much slower that it is a regime of its own",
}

_ADVICE = {
    SIZE: "plan with the law in parameters, inside the measured range; predict a size that was not measured by it",
    DEPTH: "compare models by layers, not by parameters; a shallower model of the same size will be faster",
    OVERHEAD: "a smaller model buys little here: raise the batch size, or remove the overhead (a compiled or fused "
    "runtime), before buying hardware",
    MIXED: "measure each candidate model itself; don't carry one model's latency over to another",
    UNKNOWN: "measure more models, or more repetitions, before planning with a law",
    COLD_START: "keep a pool of warm workers, send a warmup call after each load, and set SLOs on the first call apart",
}


def lead(subject: Subject) -> tuple[str, ...]:
    """What the run says, a sentence a backend."""
    sentences = [_growth(subject, law) for law, _ in subject.laws()]
    if not sentences:
        sentences = ["No law could be fitted: no model has a usable end-to-end latency."]
    if subject.simulated:
        sentences.insert(0, "SIMULATED: latencies come from a stated law, nothing was measured.")
    return tuple(sentences)


def _growth(subject: Subject, law: str) -> str:
    by_size = sorted(
        (
            row
            for row in subject.rows("summary_by_model_backend_mode_agg", mode="e2e_kv")
            if row["law"] == law and row["params_millions_effective"]
        ),
        key=lambda row: float(row["params_millions_effective"]),
    )
    span = ""
    if len(by_size) >= 2:
        span = _span(by_size[0], by_size[-1])
    mine = [row for row in subject.rows("regimes") if row["law"] == law]
    regime = next((f"{row['regime']} ({row['reason']})" for row in mine if row["regime"] != COLD_START), UNKNOWN)
    first = "".join(
        f" First calls are unsafe in {row['phase']}: {row['reason']}." for row in mine if row["regime"] == COLD_START
    )
    return f"{law}: {regime}.{span}{first}"


def _span(small: Row, big: Row) -> str:
    """How latency and price grow from the smallest to the largest model."""
    params = [row["params_millions_effective"] for row in (small, big)]
    latency = digits(big["latency_geomean_ms"] / small["latency_geomean_ms"])
    grown = f"latency and the price of a token grow {latency} x"
    if not small["tokens_per_s_geomean"] or not big["tokens_per_s_geomean"]:
        grown = f"latency grows {latency} x"
    elif (price := digits(small["tokens_per_s_geomean"] / big["tokens_per_s_geomean"])) != latency:
        grown = f"latency grows {latency} x and the price of a token {price} x"
    return (
        f" From {digits(params[0])} to {digits(params[1])} M parameters ({digits(params[1] / params[0])} x), "
        f"end-to-end {grown}."
    )


def exponents(subject: Subject) -> Section:
    """The headline: one exponent a backend and phase."""
    rows = tuple(row for _, laws in subject.laws() for row in laws)
    level = f"{subject.analysis.options.level:.0%}"
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        number("models", "n_models", "measured", count),
        number("exponent", "slope", "derived", fixed),
        interval(f"{level} interval", "slope_t_ci_low", "slope_t_ci_high"),
        number("R2", "r2", "derived", fixed),
        number("rank correlation", "spearman_rho_loglog", "derived", fixed),
        word("verdict", "verdict"),
        interval("TR121's bootstrap", "slope_ci_low", "slope_ci_high"),
        word("its verdict", "tr121_verdict"),
    )
    blocks = (
        Paragraph(
            "The exponent says how latency grows with parameters: at 0.5, a model four times as big takes twice as "
            "long; at 0, size does not matter. Fitted by least squares on log-log axes to each model's median latency, "
            "averaged over scenarios (geometric mean)."
        ),
        Table(caption="latency ~ params^exponent, by backend and phase.", columns=columns, rows=rows),
        Bullets(_reading(rows, level)),
    )
    return Section(title="Scaling exponents", blocks=blocks)


def _reading(rows: tuple[Row, ...], level: str) -> tuple[str, ...]:
    items = [
        f"The {level} interval is a t interval over models: it covers at small n. TR121's percentile bootstrap stands "
        "beside it; with so few models it is too narrow.",
        f"{SUPPORTED}: the interval leaves out 0 and R2 is at least 0.7. {WEAK}: it leaves out 0, R2 is below 0.7. "
        f"{NOT_IDENTIFIABLE}: it holds 0. {TOO_FEW}: fewer than 3 models.",
    ]
    items += [
        f"{row['law']}, {row['phase']}: a trend, not an order. Out of order: {row['trend_exceptions']}."
        for row in rows
        if row["verdict"] == TREND and row.get("trend_exceptions")
    ]
    noise = [row for row in rows if row.get("slope_call_noise_se") is not None]
    if noise:
        worst = max(noise, key=lambda row: row["slope_call_noise_se"])
        items.append(
            f"Of an exponent's uncertainty, the scatter of calls is at most {fixed(worst['slope_call_noise_se'], 4)} "
            f"(standard error; {worst['law']}, {worst['phase']}); the rest is how models differ. Noise between runs "
            "was not measured: it takes several runs."
        )
    return tuple(items)


def regimes(subject: Subject) -> Section:
    """What governs latency on each backend, by rule, with the figures that decided."""
    rows = tuple(row | {"meaning": REGIME_WORDS.get(row["regime"], row["regime"])} for row in subject.rows("regimes"))
    columns = (
        word("backend", "law"), word("phase", "phase"), word("regime", "meaning"), word("because", "reason"),
    )  # fmt: skip
    advice = tuple(
        f"{row['law']}, {row['phase']} ({row['regime']}): {_ADVICE[row['regime']]}."
        for row in rows
        if row["regime"] in _ADVICE
    )
    blocks = (Table(caption="The regime of each backend, and what decided.", columns=columns, rows=rows),
              Paragraph("What follows from it:"), Bullets(advice))  # fmt: skip
    return Section(title="Regimes", blocks=blocks if advice else blocks[:1])


def supports(subject: Subject) -> Section:
    """What can be concluded from this run, and what can't."""
    yes, no = [], []
    for law, rows in subject.laws():
        for row in rows:
            phrase = f"{law}, {row['phase']}"
            if row["verdict"] in {SUPPORTED, TREND}:
                yes.append(
                    f"{phrase}: latency grows with parameters between the smallest and the largest model measured."
                )
            else:
                no.append(f"{phrase}: no law in parameters to plan with ({row['verdict']}).")
    no.append("Sizes outside the measured range: every law here is fitted inside it.")
    no.append("Other prompt lengths, decode budgets and batch sizes than the ones measured.")
    no.append("Load: every call ran alone, so there is no queueing here.")
    if _few_models(subject):
        no.append("Fine differences between exponents: with so few models the intervals are wide.")
    if subject.simulated:
        yes, no = [], ["Anything about real machines: the latencies are simulated.", *no]
    blocks: tuple[Block, ...] = (Paragraph("This run supports:"), Bullets(tuple(yes))) if yes else ()
    return Section(
        title="What this run supports, and what it does not",
        blocks=(*blocks, Paragraph("It does not support:"), Bullets(tuple(no))),
    )


def _few_models(subject: Subject) -> bool:
    counts = [row["n_models"] for _, rows in subject.laws() for row in rows]
    return bool(counts) and min(counts) < 10 and not math.isnan(min(counts))
