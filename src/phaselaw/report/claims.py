"""Claim status: what a run says of TR121's claims, by rule, each with the figures that decided."""

from __future__ import annotations

from phaselaw.report.columns import doubted, word
from phaselaw.report.document import Paragraph, Section, Table
from phaselaw.report.subject import Subject
from phaselaw.tables import Row

TITLE = "Claim status"


def claim_status(subject: Subject) -> Section:
    """The claims with their status, evidence, and what speaks against the rows behind it."""
    rows = tuple(row | {"of": _of(row)} for row in subject.rows("claims"))
    if not rows:
        note = subject.analysis.notes.get("claims", "no usable rows")
        return Section(title=TITLE, blocks=(Paragraph(f"Not computed: {note}."),))
    said = Paragraph(
        "By rule, for any run; TR121's own claims come first. refuted: the interval leaves out that the claim is true. "
        "not distinguishable here: it does not, and the bound says how far apart the two can still be. "
        "not supported: the run does not show it, which is not to say that it is false. "
        "A claim on suspect rows says so: read the section on validity before it."
    )
    columns = (
        word("claim", "claim"),
        word("of", "of"),
        word("status", "status"),
        word("evidence", "evidence"),
        word("tables", "source_table"),
        *doubted(rows),
    )
    return Section(title=TITLE, blocks=(said, Table(caption="Claims.", columns=columns, rows=rows)))


def _of(row: Row) -> str:
    """What a claim is about, its phase in words."""
    return str(row["subject"]).removesuffix(f", {row['mode']}") + ("" if row["mode"] is None else f", {row['phase']}")
