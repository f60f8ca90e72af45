"""Validity: what was looked at, what was found, with its evidence, what else it may be, and the next step."""

from collections.abc import Iterator

from phaselaw.laws.checks.frame import NOT_CHECKED, VALIDITY_CHECKS, VALIDITY_FINDINGS
from phaselaw.laws.disturbed import WITHOUT_DISTURBED, WITHOUT_OFF_ROUNDS
from phaselaw.report.document import Block, Table, Trust
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import MISSING, Row, alike, texts

_NAMED = 3
"""More places than this are counted, not named."""
_FINDING = texts(check="check", status="outcome", place="where", evidence="evidence")
_MORE = texts(laws="laws touched", other_reading="other reading", next_step="next step")


def validity(subject: Subject) -> Iterator[Block]:
    """The findings and the laws that they touch."""
    findings = subject.rows(VALIDITY_FINDINGS.name)
    if not findings:
        yield "No check spoke up."
        return
    for row in findings:
        places = row["law"], row["model"], row["scenario"], PHASE_WORDS.get(row["modes"])
        row["place"] = ", ".join(filter(None, places))
    grouped = tuple(_group(subject, rows) for rows in alike(findings, "check", "status", "law").values())
    yield Table(caption="What the checks found.", columns=(*_FINDING, *_MORE), rows=grouped)
    yield Table(caption="Each finding with its evidence.", columns=_FINDING, rows=findings)
    yield from (table for each in (WITHOUT_OFF_ROUNDS, WITHOUT_DISTURBED) if (table := subject.table(each)).rows)


def trust(subject: Subject) -> Trust:
    """The mark of the whole run: suspect where any row may mean something else, else with cautions, else sound."""
    findings = subject.rows(VALIDITY_FINDINGS.name)
    doubts = [row for row in findings if row["status"] != "caution"]
    if not findings:
        looked = sum(row["status"] != NOT_CHECKED for row in subject.rows(VALIDITY_CHECKS.name))
        if not (subject.run.rows["status"] == "ok").any():
            return Trust("suspect", 1, ("no call can be used",))
        return Trust("sound", looked, ())
    names = tuple(dict.fromkeys(row["check"] for row in doubts or findings))
    return Trust("suspect" if doubts else "with cautions", len(doubts or findings), names)


def _group(subject: Subject, rows: list[Row]) -> Row:
    """Findings of one check, outcome and backend as one row: where, the strongest evidence, the laws touched."""
    strongest = max(rows, key=lambda row: abs(row["value"] or 0.0))
    places = list(dict.fromkeys(row["place"] for row in rows))
    where, evidence = "; ".join(places), strongest["evidence"]
    if len(places) > _NAMED:
        cells = {(row["model"], row["scenario"]) for row in rows if row["scenario"] is not None}
        models = len({row["model"] for row in rows})
        counted = f"{models} model{'s' * (models > 1)}"
        where = f"{rows[0]['law']}: " + (f"{len(cells)} cells of {counted}" if cells else counted)
    if len(places) > 1:
        evidence = f"{strongest['place']}: {evidence}"
    mark = strongest["check"] if strongest["status"] == "found" else f"{strongest['check']} {strongest['status']}"
    laws = [
        f"{law['law']}, {law['phase']}"
        for law in subject.rows("scaling_fits", scenario="__all__")
        if law["law"].startswith(strongest["law"]) and mark in (law.get("suspect") or "").split(", ")
    ]
    return strongest | {"place": where, "evidence": evidence, "laws": "; ".join(laws) or MISSING}
