"""Validity: what was looked at, what was found, with its evidence, what else it may be, and the next step."""

from __future__ import annotations

import dataclasses

from phaselaw.laws.checks.frame import VALIDITY_CHECKS, VALIDITY_FINDINGS
from phaselaw.report.document import Paragraph, Section, Table, display
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import MISSING, Row, words

TITLE = "Validity"
_NAMED = 3
"""More places than this are counted, not named."""
_COLUMNS = (
    words("check", "check"),
    words("status", "outcome"),
    words("place", "where"),
    words("evidence", "evidence"),
    words("laws", "laws touched"),
    words("other_reading", "other reading"),
    words("next_step", "next step"),
)
_BRIEF = _COLUMNS[:4]


def validity(subject: Subject) -> Section:
    """The findings, the laws that they touch, and every check with what it looked at."""
    found = grouped(subject)
    checks = display(VALIDITY_CHECKS, subject.rows(VALIDITY_CHECKS.name))
    lead = (
        "Rules look for what would make these numbers mean something else. found: the data show it. suspected: another "
        "reading is named. caution: no row is wrong, but read on. Nothing is dropped: a law, a price or a plan on rows "
        "that are found or suspected is marked wherever it stands."
    )
    if not found:
        return Section(title=TITLE, blocks=(Paragraph(f"{lead} No check spoke up."), checks))
    each = tuple(row | {"place": _place(row)} for row in subject.rows(VALIDITY_FINDINGS.name))
    tables = (
        Table(caption="What the checks found.", columns=_COLUMNS, rows=found),
        Table(caption="Each finding with its evidence.", columns=_BRIEF, rows=each),
    )
    return Section(title=TITLE, blocks=(Paragraph(lead), *tables, checks))


def brief(section: Section) -> Table | None:
    """What the checks found, as far as it fits a terminal; ``None`` of another section, and where none spoke up."""
    tables = [block for block in section.blocks if isinstance(block, Table)]
    if section.title != TITLE or len(tables) == 1:
        return None
    return dataclasses.replace(tables[0], columns=_BRIEF)


def grouped(subject: Subject) -> tuple[Row, ...]:
    """Findings of one check, outcome and backend as one row: where, the strongest evidence, the laws touched."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in subject.rows(VALIDITY_FINDINGS.name):
        groups.setdefault((row["check"], row["status"], row["law"]), []).append(row)
    return tuple(_group(subject, rows) for rows in groups.values())


def _group(subject: Subject, rows: list[Row]) -> Row:
    strongest = max(rows, key=lambda row: abs(row["value"] or 0.0))
    places = list(dict.fromkeys(map(_place, rows)))
    where, evidence = "; ".join(places), strongest["evidence"]
    if len(places) > _NAMED:
        models = len({row["model"] for row in rows})
        where = f"{rows[0]['law']}: {len(places)} cells of {models} model{'s' * (models > 1)}"
    if len(places) > 1:
        evidence = f"{_place(strongest)}: {evidence}"
    return strongest | {"place": where, "evidence": evidence, "laws": _laws(subject, strongest)}


def _laws(subject: Subject, finding: Row) -> str:
    """The laws on all scenarios that are marked for findings like this one."""
    mark = finding["check"] if finding["status"] == "found" else f"{finding['check']} {finding['status']}"
    laws = [
        f"{law['law']}, {law['phase']}"
        for law in subject.rows("scaling_fits", scenario="__all__")
        if law["law"].startswith(finding["law"]) and mark in (law.get("suspect") or "").split(", ")
    ]
    return "; ".join(laws) or MISSING


def _place(row: Row) -> str:
    """The backend, model, scenario and phase that a finding names."""
    phases = str(row["modes"]).split(",")
    one_phase = PHASE_WORDS.get(phases[0]) if len(phases) == 1 else None
    return ", ".join(str(part) for part in (row["law"], row["model"], row["scenario"], one_phase) if part)
