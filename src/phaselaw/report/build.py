"""The whole report, section by section, in TR121's order: first what decides, then what it stands on."""

from __future__ import annotations

from phaselaw.report import (
    comparison,
    economics,
    few_models,
    guidance,
    headline,
    limits_of_machine,
    performance,
    prediction,
    provenance,
    scaling,
    served,
    sweeps,
    validity,
)
from phaselaw.report.document import Document
from phaselaw.report.subject import Subject


def build(subject: Subject) -> Document:
    """The report of a run as a document."""
    name = subject.manifest.get("run_name") or subject.run.path.name
    each_model = few_models.by_prompt(subject)
    of_laws = (headline.first_to_break(subject), headline.exponents(subject), headline.regimes(subject))
    sections = (
        *((each_model,) if each_model else of_laws[:2]),
        headline.claim_status(subject),
        None if each_model else of_laws[2],
        headline.supports(subject),
        validity.validity(subject),
        guidance.guidance(subject),
        comparison.laws_side_by_side(subject),
        provenance.method(),
        provenance.environment(subject),
        provenance.workload(subject),
        provenance.acceptance(subject),
        performance.by_model(subject),
        scaling.plots(subject),
        scaling.by_scenario(subject),
        scaling.architecture(subject),
        scaling.predictors(subject),
        scaling.overhead_and_compute(subject),
        limits_of_machine.limits_of_machine(subject),
        limits_of_machine.memory(subject),
        prediction.validation(subject),
        performance.decode_share(subject),
        sweeps.sweeps(subject),
        performance.cold_start(subject),
        performance.early_stops(subject),
        served.served_engines(subject),
        served.device_clock(subject),
        served.concurrency(subject),
        comparison.engines(subject),
        *economics.of_report(subject.plan),
        provenance.limits(subject),
        provenance.reproduce(subject),
        provenance.index(subject),
    )
    return Document(
        title=f"Scaling report: {name}",
        lead=(*headline.lead(subject), *sweeps.lead(subject)),
        sections=tuple(section for section in sections if section is not None),
        summary=headline.summary(subject),
    )
