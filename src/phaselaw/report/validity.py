"""Validity: what was looked at, what was found, with its evidence, what else it may be, and the next step."""

from __future__ import annotations

import dataclasses

from phaselaw.report.columns import MISSING, count, word
from phaselaw.report.columns import number as numbers
from phaselaw.report.document import Block, Paragraph, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import Row

TITLE = "Validity"
_NAMED = 3
"""More places than this are counted, not named."""


def validity(subject: Subject) -> Section:
    """The findings, the laws that they touch, and every check with what it looked at."""
    found = grouped(subject)
    checks = Table(
        caption="Every check, whether it spoke up or not.",
        columns=(
            word("check", "check"),
            word("outcome", "status"),
            numbers("looked at", "n_checked", "measured", count),
            word("of what", "unit"),
            numbers("findings", "n_findings", "derived", count),
            word("false alarms", "false_alarms"),
            word("why not", "not_checked"),
        ),
        rows=tuple(subject.analysis.tables["validity_checks"].iter_rows(named=True)),
    )
    blocks: list[Block] = [Paragraph(_lead(found))]
    if found:
        blocks += [_summary(found), _each(subject)]
    return Section(title=TITLE, blocks=(*blocks, checks))


def _lead(found: tuple[Row, ...]) -> str:
    said = (
        "Rules look for what would make these numbers mean something else. found: the data show it. suspected: another "
        "reading is named. caution: no row is wrong, but read on. Nothing is dropped: a law, a price or a plan on rows "
        "that are found or suspected is marked wherever it stands."
    )
    return said if found else f"{said} No check spoke up."


def _summary(found: tuple[Row, ...]) -> Table:
    columns = (
        word("check", "check"),
        word("outcome", "status"),
        word("where", "places"),
        word("evidence", "evidence"),
        word("laws touched", "laws"),
        word("other reading", "other_reading"),
        word("next step", "next_step"),
    )
    return Table(caption="What the checks found.", columns=columns, rows=found)


def brief(section: Section) -> Table | None:
    """What the checks found, as far as it fits a terminal; ``None`` of another section, and where none spoke up."""
    tables = [block for block in section.blocks if isinstance(block, Table)]
    if section.title != TITLE or len(tables) == 1:
        return None
    return dataclasses.replace(tables[0], columns=tables[0].columns[:4])


def _each(subject: Subject) -> Table:
    rows = tuple(row | {"place": _place(row)} for row in subject.rows("validity_findings"))
    columns = (word("check", "check"), word("outcome", "status"), word("where", "place"), word("evidence", "evidence"))
    return Table(caption="Each finding with its evidence.", columns=columns, rows=rows)


def grouped(subject: Subject) -> tuple[Row, ...]:
    """Findings of one check, outcome and backend as one row: where, the strongest evidence, the laws touched."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in subject.rows("validity_findings"):
        groups.setdefault((row["check"], row["status"], row["law"]), []).append(row)
    return tuple(_group(subject, rows) for rows in groups.values())


def _group(subject: Subject, rows: list[Row]) -> Row:
    strongest = max(rows, key=lambda row: abs(row["value"] or 0.0))
    places = list(dict.fromkeys(_place(row) for row in rows))
    where = "; ".join(places)
    if len(places) > _NAMED:
        models = len({row["model"] for row in rows})
        where = f"{rows[0]['law']}: {len(places)} cells of {models} model{'s' * (models > 1)}"
    evidence = strongest["evidence"]
    if len(places) > 1:
        evidence = f"{_place(strongest)}: {evidence}"
    return strongest | {"places": where, "evidence": evidence, "laws": _laws(subject, rows)}


def _laws(subject: Subject, rows: list[Row]) -> str:
    """The laws on all scenarios that are marked for these findings."""
    first = rows[0]
    mark = first["check"] if first["status"] == "found" else f"{first['check']} {first['status']}"
    laws = [
        f"{law['law']}, {law['phase']}"
        for law in subject.rows("scaling_fits", scenario="__all__")
        if law["law"].startswith(first["law"]) and mark in (law.get("suspect") or "").split(", ")
    ]
    return "; ".join(laws) or MISSING


def _place(row: Row) -> str:
    """The backend, model, scenario and phase that a finding names."""
    phases = str(row["modes"]).split(",")
    one_phase = PHASE_WORDS.get(phases[0]) if len(phases) == 1 else None
    return ", ".join(str(part) for part in (row["law"], row["model"], row["scenario"], one_phase) if part)
