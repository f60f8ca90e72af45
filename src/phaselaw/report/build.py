"""The whole report: a first screen, then the chapters of ``outline.toml``, each a picture and a sentence first."""

from collections.abc import Callable, Iterable
from typing import Any

from phaselaw.laws.analysis import DECLARED
from phaselaw.laws.summary import REQUESTS
from phaselaw.report import (
    comparison,
    economics,
    few_models,
    front,
    performance,
    prediction,
    provenance,
    scaling,
    sweeps,
)
from phaselaw.report.document import Block, Chapter, Document, DotPlot, Plot, Section, Words, dots, section
from phaselaw.report.guidance import guidance
from phaselaw.report.outline import CHAPTERS, GLOSSARY
from phaselaw.report.subject import Subject
from phaselaw.report.validity import trust, validity
from phaselaw.tables import alike, digits

_MADE: dict[str, Callable[[Subject], Iterable[Block | None]]] = {
    "Each model and prompt": few_models.by_prompt,
    "Performance by model": performance.by_model,
    "Scaling exponents": scaling.exponents,
    "Scenario by scenario": scaling.by_scenario,
    "Sweeps": sweeps.sweeps,
    "Concurrency": sweeps.at_once,
    "Runs side by side": comparison.side_by_side,
    "The same weights on several engines": comparison.engines,
    "First calls": performance.first_calls,
    "Validity": validity,
    "What this run does not tell": provenance.limits,
    "How good predictions are": prediction.validation,
    "Early stops": performance.early_stops,
    "Regimes": scaling.regimes,
    "Overhead and compute": scaling.overhead_and_compute,
    "The machine's limits": scaling.limits_of_machine,
    "Guidance": guidance,
    "Words": lambda _: (Words(tuple(GLOSSARY.items())),),
    "Environment": provenance.environment,
    "Workload": provenance.workload,
    "Acceptance": provenance.acceptance,
    "How to reproduce": provenance.reproduce,
    "Files": provenance.index,
}
"""By title, what a section shows beside the tables that the outline names."""


def build(subject: Subject, slo_ms: tuple[float, float] | None = None) -> Document:
    """The report of a run as a document; its summary is in five lines where users wait ``slo_ms`` at most."""
    summary = front.summary(subject) if slo_ms is None else tuple(few_models.in_short(subject, slo_ms))
    chapters = []
    for title, outlined in CHAPTERS.items():
        said, picture = _FIRST[title]
        sections = [found for each in outlined if (found := _section(subject, each))]
        sections += economics.of_report(subject.plan) if title == "Cost" else ()
        chapters.append(Chapter(title=title, said=said(subject), picture=picture(subject), sections=tuple(sections)))
    return Document(
        name=str(subject.run.manifest.get("run_name") or subject.run.path.name),
        title=front.question(subject),
        front=economics.in_currency(front.front(subject), subject.plan.mark),
        chapters=tuple(chapters),
        summary=economics.in_currency(summary, subject.plan.mark),
        planner=(known := subject.plan.planner()) and known | {"mark": subject.plan.mark},
    )


def _section(subject: Subject, outlined: dict[str, Any]) -> Section | None:
    """What a section says, and what it shows; ``None`` where it has nothing to show."""
    title, slo = outlined["title"], f"{subject.analysis.options.cold_start_slo_ms:g}"
    made = [*_MADE[title](subject)] if title in _MADE else []
    tables = [table for name in outlined.get("tables", ()) if (table := subject.table(DECLARED[name])).rows]
    says = (text.replace("{slo}", slo) for text in outlined.get("says", ()))
    return section(title, *says, *made, *tables) if made or tables else None


def _speed(subject: Subject) -> str:
    ends = []
    for (law,), rows in alike(subject.ordered(REQUESTS.name, mode="e2e_kv"), "law").items():
        told = (f"{row['model']} answers in {digits(row['latency_geomean_ms'])} ms" for row in (rows[0], rows[-1]))
        ends.append(f"{' and '.join(dict.fromkeys(told))} ({law})")
    return f"End to end, {front.joined(ends)}." if ends else "No model has a usable end-to-end latency."


def _cold_start(subject: Subject) -> str:
    rows = subject.rows("cold_starts")
    worst = max(rows, key=lambda row: float(row["added_ms_max"]), default=None)
    if worst is None:
        return "No first call was measured beside warm ones."
    unsafe, calls = (sum(row[name] for row in rows if row["mode"] == "prefill") for name in ("n_unsafe", "n_calls"))
    where = f"{worst['worst_model']}, {worst['coldness']}"
    return f"Of {calls} first calls {unsafe} are unsafe; the worst adds {digits(worst['added_ms_max'])} ms ({where})."


def _explained(subject: Subject) -> str:
    return " ".join(few_models.bound(subject)) or front.regime(subject) or "No regime: too little was measured."


def _rates(subject: Subject) -> DotPlot | None:
    """The price of 1M tokens by model, at each hourly rate."""
    rows = subject.plan.rows("sensitivity")
    volume = rows[0]["tokens_per_month"] if rows else None
    at = (row for row in rows if row["tokens_per_month"] == volume)
    named = [row | {"named": few_models.short_name(row["model"]) + economics.mark(row)} for row in at]
    return dots("price-by-rate", named)


_FIRST: dict[str, tuple[Callable[[Subject], str], Callable[[Subject], Plot | None]]] = {
    "Speed": (_speed, lambda subject: few_models.waits(subject) or scaling.picture(subject)),
    "Cold start": (_cold_start, performance.waits),
    "Trust": (lambda of: f"The run is {trust(of)}.", lambda of: dots("exponents", of.laws())),
    "What explains it": (
        _explained,
        lambda subject: dots("which-property", subject.rows("structure_predictors", mode="e2e_kv")),
    ),
    "Cost": (lambda of: economics.in_short(of.plan), _rates),
    "Everything": (
        lambda of: (
            f"{of.run.rows.height:,} rows of {of.run.rows['model'].n_unique():,} models: what was asked, on which "
            "machine, and how to do it again."
        ),
        lambda of: dots("prompts", provenance.prompts(of)),
    ),
}
"""By chapter, the sentence and the picture that it opens with."""
