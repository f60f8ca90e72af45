"""The whole report, section by section, in TR121's order: first what decides, then what it stands on."""

from __future__ import annotations

from phaselaw.report import (
    economics,
    engine_ratios,
    guidance,
    headline,
    law_differences,
    limits_of_machine,
    performance,
    prediction,
    provenance,
    reproduce,
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
    sections = (
        headline.first_to_break(subject),
        headline.exponents(subject),
        headline.claim_status(subject),
        headline.regimes(subject),
        headline.supports(subject),
        validity.validity(subject),
        guidance.guidance(subject),
        law_differences.laws(subject),
        provenance.method(subject),
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
        engine_ratios.compared(subject),
        *economics.of_report(subject.plan),
        reproduce.limits(subject),
        reproduce.reproduce(subject),
        reproduce.index(subject),
    )
    return Document(
        title=f"Scaling report: {name}",
        lead=(*headline.lead(subject), *sweeps.lead(subject)),
        sections=tuple(section for section in sections if section is not None),
    )
