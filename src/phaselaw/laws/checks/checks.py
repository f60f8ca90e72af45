"""All validity checks of a run, as two tables, and the marks that they leave on every other table (method 3).

The mark is the column ``suspect`` (`SUSPECT`), last in every table that has a column ``backend``: a text, never null,
empty where nothing speaks against the row, else the checks that do, as ``prompt cache suspected, far off the law``.
What is worked out from marked rows (a prediction, a price, a plan) carries their marks on: take them from the rows
with `suspicions`. Cautions mark nothing. No row is ever dropped for its mark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import polars as pl

from phaselaw.laws.checks import cells, laws, models, order, served
from phaselaw.laws.checks.findings import Checked, Evidence, Finding, Where
from phaselaw.laws.points import ALL
from phaselaw.laws.served import BASIS, STEP_TRUE
from phaselaw.laws.summary import BUDGET
from phaselaw.tables import Table

VALIDITY_CHECKS = Table(name="validity_checks", holds="each check and whether it spoke up", columns=())
VALIDITY_FINDINGS = Table(
    name="validity_findings",
    holds="each finding with its evidence and the next step",
    why_empty="no check spoke up",
    columns=(),
)

CLEAR, NOT_CHECKED = "clear", "not checked"

_WHERE = [field.name for field in dataclasses.fields(Where)]

FINDINGS: dict[str, type[pl.DataType]] = {
    "check": pl.String,
    "status": pl.String,
    "backend": pl.String,
    "batch_size": pl.Int64,
    "model": pl.String,
    "scenario": pl.String,
    "modes": pl.String,
    "value": pl.Float64,
    "evidence": pl.String,
    "other_reading": pl.String,
    "next_step": pl.String,
    BUDGET: pl.Int64,
}
CHECKS: dict[str, type[pl.DataType]] = {
    "check": pl.String,
    "status": pl.String,
    "n_checked": pl.Int64,
    "unit": pl.String,
    "n_findings": pl.Int64,
    "false_alarm_rate": pl.Float64,
    "false_alarms": pl.String,
    "not_checked": pl.String,
}

SUSPECT = "suspect"
"""The column that marks a row which stands on suspect rows, with the checks' names; empty where none spoke up."""


def check(evidence: Evidence) -> list[Checked]:
    """Every check's outcome, in a fixed order."""
    cache = served.prompt_cache(evidence)
    return [
        cache,
        served.count_convention(evidence),
        served.prompt_cut(evidence),
        laws.far_off(evidence, cache),
        models.spill(evidence),
        models.labels(evidence),
        laws.heterogeneous(evidence),
        order.drift(evidence),
        order.throttling(evidence),
        cells.repetitions(evidence),
        cells.comparable(evidence),
    ]


def validity_checks(outcomes: Sequence[Checked]) -> pl.DataFrame:
    """``validity_checks``: a row a check, whether it spoke up or not."""
    rows = [
        {
            "check": outcome.check,
            "status": outcome.findings[0].status if outcome.findings else NOT_CHECKED if outcome.not_checked else CLEAR,
            "n_checked": outcome.n_checked,
            "unit": outcome.unit,
            "n_findings": len(outcome.findings),
            "false_alarm_rate": outcome.false_alarm_rate,
            "false_alarms": outcome.false_alarms,
            "not_checked": None if outcome.findings else outcome.not_checked,
        }
        for outcome in outcomes
    ]
    return pl.DataFrame(rows, schema=CHECKS)


def validity_findings(outcomes: Sequence[Checked]) -> pl.DataFrame:
    """``validity_findings``: a row a finding, with its evidence, what else it may be, and the next step."""
    rows = [
        {name: getattr(finding.where, name) for name in _WHERE}
        | {
            "check": finding.check,
            "status": finding.status,
            "modes": ",".join(finding.modes),
            "value": finding.value,
            "evidence": finding.evidence,
            "other_reading": finding.other_reading,
            "next_step": finding.next_step,
        }
        for outcome in outcomes
        for finding in outcome.findings
    ]
    return pl.DataFrame(rows, schema=FINDINGS)


def marked(table: pl.DataFrame, outcomes: Sequence[Checked]) -> pl.DataFrame:
    """A table of laws, models or cells with the column `SUSPECT`; one without a backend stays as it is.

    A finding touches a row of its phases where every property that both name is the same: one of a single model touches
    that model's rows and each law that the model is in. A row that leaves one of them empty stands on all of them.
    """
    if "backend" not in table.columns or SUSPECT in table.columns:
        return table
    findings = [each for outcome in outcomes for each in outcome.findings if each.status != "caution" and each.modes]
    said = pl.concat_list([pl.lit(None, dtype=pl.String)] if not findings else [_said(table, f) for f in findings])
    return table.with_columns(said.list.drop_nulls().list.unique(maintain_order=True).list.join(", ").alias(SUSPECT))


def suspicions(marks: Iterable[str | None]) -> str:
    """The mark of what stands on several rows: each check of theirs once, in order."""
    return ", ".join(dict.fromkeys(each for mark in marks if mark for each in mark.split(", ")))


def _said(table: pl.DataFrame, finding: Finding) -> pl.Expr:
    touched = pl.lit(True)
    for name in _WHERE:
        value = getattr(finding.where, name)
        if value is None or name not in table.columns:
            continue
        same = pl.col(name) == value
        if name == "scenario":
            same |= pl.col(name) == ALL
        elif name == "backend" and "other_backend" in table.columns:
            same |= pl.col("other_backend") == value
        if name != "backend":
            same |= pl.col(name).is_null()
        touched &= same.fill_null(False)
    if "mode" in table.columns:
        touched &= pl.col("mode").is_null() | pl.col("mode").is_in(finding.modes)
    if BASIS in table.columns and finding.check == served.CONVENTION:
        touched &= pl.col(BASIS) != STEP_TRUE
    words = finding.check if finding.status == "found" else f"{finding.check} {finding.status}"
    return pl.when(touched).then(pl.lit(words)).otherwise(pl.lit(None, dtype=pl.String))
