"""Validity: what was looked at, what was found, with its evidence, what else it may be, and the next step."""

from __future__ import annotations

from typing import Literal, NamedTuple

from phaselaw.laws.checks.frame import NOT_CHECKED, VALIDITY_CHECKS, VALIDITY_FINDINGS
from phaselaw.laws.disturbed import WITHOUT_DISTURBED
from phaselaw.laws.off_rounds import WITHOUT_OFF_ROUNDS
from phaselaw.report.document import Section, Table, display, section
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import MISSING, Row, words

_NAMED = 3
"""More places than this are counted, not named."""
_TITLES = {
    "check": "check",
    "status": "outcome",
    "place": "where",
    "evidence": "evidence",
    "laws": "laws touched",
    "other_reading": "other reading",
    "next_step": "next step",
}
_COLUMNS = tuple(words(key, title) for key, title in _TITLES.items())


def validity(subject: Subject) -> Section:
    """The findings, the laws that they touch, and every check with what it looked at."""
    lead = (
        "Rules look for what would make these numbers mean something else. found: the data show it. suspected: another "
        "reading is named. caution: no row is wrong, but read on. Nothing is dropped: a law, a price or a plan on rows "
        "that are found or suspected is marked wherever it stands."
    )
    checks = display(VALIDITY_CHECKS, subject.rows(VALIDITY_CHECKS.name))
    findings = tuple(row | {"place": _place(row)} for row in subject.rows(VALIDITY_FINDINGS.name))
    if not findings:
        return section("Validity", f"{lead} No check spoke up.", checks)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in findings:
        groups.setdefault((row["check"], row["status"], row["law"]), []).append(row)
    grouped = Table(
        caption="What the checks found.",
        columns=_COLUMNS,
        rows=tuple(_group(subject, rows) for rows in groups.values()),
    )
    each = Table(caption="Each finding with its evidence.", columns=_COLUMNS[:4], rows=findings)
    without = [table for each in (WITHOUT_OFF_ROUNDS, WITHOUT_DISTURBED) if (table := subject.table(each)).rows]
    return section("Validity", lead, grouped, each, *without, checks)


class Trust(NamedTuple):
    """Whether a run's rows can be trusted, in a word, and why."""

    mark: Literal["sound", "with cautions", "suspect"]
    findings: int
    """Findings of that kind; of a sound run the checks that looked at something."""
    checks: tuple[str, ...]
    """The checks that found them."""

    def __str__(self) -> str:
        if self.mark == "sound":
            return f"sound ({self.findings} checks looked, none spoke up)"
        return f"{self.mark} ({self.findings} finding{'s' * (self.findings > 1)}: {', '.join(self.checks)})"


def trust(subject: Subject) -> Trust:
    """The mark of the whole run: suspect where any row may mean something else, else with cautions, else sound."""
    findings = subject.rows(VALIDITY_FINDINGS.name)
    doubts = [row for row in findings if row["status"] != "caution"]
    if not findings:
        looked = sum(row["status"] != NOT_CHECKED for row in subject.rows(VALIDITY_CHECKS.name))
        return Trust("sound", looked, ())
    names = tuple(dict.fromkeys(row["check"] for row in doubts or findings))
    return Trust("suspect" if doubts else "with cautions", len(doubts or findings), names)


def _group(subject: Subject, rows: list[Row]) -> Row:
    """Findings of one check, outcome and backend as one row: where, the strongest evidence, the laws touched."""
    strongest = max(rows, key=lambda row: abs(row["value"] or 0.0))
    places = list(dict.fromkeys(row["place"] for row in rows))
    where, evidence = "; ".join(places), strongest["evidence"]
    if len(places) > _NAMED:
        models = len({row["model"] for row in rows})
        where = f"{rows[0]['law']}: {len(places)} cells of {models} model{'s' * (models > 1)}"
    if len(places) > 1:
        evidence = f"{strongest['place']}: {evidence}"
    mark = strongest["check"] if strongest["status"] == "found" else f"{strongest['check']} {strongest['status']}"
    laws = [
        f"{law['law']}, {law['phase']}"
        for law in subject.rows("scaling_fits", scenario="__all__")
        if law["law"].startswith(strongest["law"]) and mark in (law.get("suspect") or "").split(", ")
    ]
    return strongest | {"place": where, "evidence": evidence, "laws": "; ".join(laws) or MISSING}


def _place(row: Row) -> str:
    """The backend, model, scenario and phase that a finding names."""
    return ", ".join(filter(None, (row["law"], row["model"], row["scenario"], PHASE_WORDS.get(row["modes"]))))
