"""What a validity check is, what it finds, and the marks that findings leave on every other table (method 3).

A check is a function that yields its findings and, as numbers, how many things it looked at::

    @check("drift", unit="backends", false_alarm_rate=0.01, rests_on="if calls scatter independently of each other",
           not_checked="too few cells or rounds", next_step="measure again on a quiet machine")
    def drift(evidence: Evidence) -> Findings:
        for key, rows in grouped(evidence.measured, ["backend", "batch_size"]):
            ...
            yield 1
            yield Finding(key, change, f"latency changed by {change:.0%}")

Findings mark rows in the column ``suspect``, last in every table that has a column ``backend``: a text, never null,
empty where no check suspects the row, else the names of those that do: ``prompt cache suspected, far off the law``.
What is computed from marked rows (a prediction, a price, a plan) keeps their marks: join them with `suspicions`.
Cautions mark nothing. No row is ever dropped for its mark.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

import polars as pl

from phaselaw.laws.disturbed import disturbed_calls
from phaselaw.laws.served import BASIS, STEP_TRUE
from phaselaw.records import ALL, PHASES, Run
from phaselaw.tables import BUDGET, SUSPECT, Row, Table, counted, derived, plain, words

Status = Literal["found", "suspected", "caution"]
"""``found``: the data show it; ``suspected``: another reading is named; ``caution``: no row is wrong, but read on."""
CLEAR, NOT_CHECKED = "clear", "not checked"

PREFILL, DECODE = ("prefill", "e2e_kv"), ("kv_decode", "e2e_kv")

SERVED = ("ollama", "openai", "llamacpp")
"""Kinds of engine that are servers: only they can reuse, cut or count prompts in a way of their own."""

CONVENTION = "count convention"
"""The check whose findings do not touch laws by the steps that ran."""

NAMED = "size from the name"
"""The check whose findings touch laws in parameters alone."""

GROUP_OF_MODEL = ["backend", "backend_kind", "batch_size", BUDGET, "model"]
CELL = [*GROUP_OF_MODEL, "scenario"]

VALIDITY_CHECKS = Table(
    name="validity_checks",
    holds="each check and whether it spoke up",
    columns=(
        words("check", "check"),
        words("status", "outcome"),
        counted("n_checked", "looked at"),
        words("unit", "of what"),
        counted("n_findings", "findings", provenance="derived"),
        derived("false_alarm_rate"),
        words("false_alarms", "false alarms"),
        words("not_checked", "why not"),
    ),
)
VALIDITY_FINDINGS = Table(
    name="validity_findings",
    holds="each finding with its evidence and the next step",
    why_empty="no check spoke up",
    columns=(
        *plain("check status backend", pl.String),
        *plain("batch_size", pl.Int64),
        *plain("model scenario modes", pl.String),
        derived("value", doc="the figure that decided, in the check's own unit"),
        *plain("evidence other_reading next_step", pl.String),
        *plain(BUDGET, pl.Int64),
    ),
)


PLACES = ("backend", "batch_size", BUDGET, "model", "scenario")
AS_DECLARED = ("as declared",)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or may be; what it leaves out is as its check declares it."""

    where: Row
    """Which rows it is about: a row with the `PLACES` that they share; where it lacks one, or has none, all rows."""
    value: float | None
    """The figure that decided, in the check's own unit."""
    evidence: str
    _: dataclasses.KW_ONLY
    status: Status | Literal[""] = ""
    modes: tuple[str, ...] = AS_DECLARED
    """The phases whose rows are touched."""
    next_step: str = ""
    other_reading: str | None = ""

    def declared(self, **declared: Any) -> Self:
        """The same with what it leaves out."""
        lacking = {name: value for name, value in declared.items() if getattr(self, name) in ("", AS_DECLARED)}
        return dataclasses.replace(self, **lacking)


Findings = Iterator[Finding | int]
"""What a check yields: its findings, and how many things it looked at, one by one or together."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """One check's outcome on one run."""

    check: str
    unit: str
    """What was looked at, in the plural."""
    n_checked: int
    findings: tuple[Finding, ...] = ()
    false_alarm_rate: float = 0.0
    """Where nothing is wrong, at most this share of what was looked at is *found*; 0: nothing is inferred."""
    rests_on: str = ""
    """What that rate assumes, or does not cover."""
    why_not: str = ""
    """Why nothing can be looked at, where that is so."""

    @property
    def not_checked(self) -> str | None:
        """Why nothing could be looked at; ``None`` where something was."""
        return None if self.n_checked or self.findings else self.why_not

    @property
    def status(self) -> str:
        """The outcome in a word; of several findings the first one's."""
        return self.findings[0].status if self.findings else NOT_CHECKED if self.not_checked else CLEAR

    @property
    def n_findings(self) -> int:
        return len(self.findings)

    @property
    def false_alarms(self) -> str:
        """How often it speaks up where nothing is wrong, in words."""
        rate = f"at most {100 * self.false_alarm_rate:g}% of {self.unit}" if self.false_alarm_rate else "not measured"
        return f"{rate}; {self.rests_on}" if self.rests_on else rate

    @classmethod
    def of_sweep(cls, results: Mapping[int, Self]) -> Self:
        """One check's outcomes on the runs of a sweep, by their decode budget, which each finding then names."""
        findings = [
            dataclasses.replace(finding, where=finding.where | {BUDGET: budget})
            for budget, result in results.items()
            for finding in result.findings
        ]
        looked_at = sum(result.n_checked for result in results.values())
        return dataclasses.replace(next(iter(results.values())), n_checked=looked_at, findings=tuple(findings))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the checks look at."""

    run: Run
    ok: pl.DataFrame
    """`phaselaw.laws.summary.usable` rows, warmups among them; ``run`` tells the runs of a pool apart."""
    measured: pl.DataFrame
    """The same without warmups."""
    per_model: pl.DataFrame
    """`phaselaw.laws.summary.by_model`'s table."""
    linearity: pl.DataFrame
    """`phaselaw.laws.served.decode_linearity`'s table."""

    @property
    def ours(self) -> bool:
        """Whether phaselaw itself measured this run."""
        return "phaselaw_version" in self.run.manifest

    @cached_property
    def disturbed(self) -> pl.DataFrame:
        """The measured calls that something else disturbed (`phaselaw.laws.disturbed`)."""
        return disturbed_calls(self.measured)


Check = Callable[[Evidence], CheckResult]


def check(
    name: str,
    *,
    unit: str,
    rests_on: str,
    not_checked: str,
    false_alarm_rate: float = 0.0,
    status: Status = "found",
    modes: tuple[str, ...] = PHASES,
    other_reading: str | None = None,
    next_step: str = "",
) -> Callable[[Callable[[Evidence], Findings]], Check]:
    """Make a check of a function that yields findings; ``not_checked`` is the reason where it looked at nothing.

    The last four stand for all findings that do not say otherwise.
    """

    def made(function: Callable[[Evidence], Findings]) -> Check:
        @functools.wraps(function)
        def checked(evidence: Evidence) -> CheckResult:
            told = list(function(evidence))
            shared = {"status": status, "modes": modes, "other_reading": other_reading, "next_step": next_step}
            return CheckResult(
                check=name,
                unit=unit,
                n_checked=sum(each for each in told if isinstance(each, int)),
                findings=tuple(each.declared(**shared) for each in told if isinstance(each, Finding)),
                false_alarm_rate=false_alarm_rate,
                rests_on=rests_on,
                why_not=not_checked,
            )

        return checked

    return made


def validity_checks(results: Iterable[CheckResult]) -> pl.DataFrame:
    """``validity_checks``: a row a check, whether it spoke up or not."""
    return VALIDITY_CHECKS.frame({name: getattr(result, name) for name in VALIDITY_CHECKS.schema} for result in results)


def validity_findings(results: Iterable[CheckResult]) -> pl.DataFrame:
    """``validity_findings``: a row a finding, with its evidence, what else it may be, and the next step."""
    return VALIDITY_FINDINGS.frame(
        {name: finding.where.get(name) for name in PLACES}
        | {name: getattr(finding, name) for name in ("status", "value", "evidence", "other_reading", "next_step")}
        | {"check": result.check, "modes": ",".join(finding.modes)}
        for result in results
        for finding in result.findings
    )


def marked(table: pl.DataFrame, results: Sequence[CheckResult]) -> pl.DataFrame:
    """A table of laws, models or cells with the column `SUSPECT`; one without a backend stays as it is.

    A finding marks a row of its phases where every property that both name is the same: one of a single model marks
    that model's rows and each law that the model is in. A row that leaves a property empty depends on all its values.
    """
    if "backend" not in table.columns or SUSPECT in table.columns:
        return table
    marks = [
        pl.when(_touched(table, result.check, finding)).then(
            pl.lit(result.check if finding.status == "found" else f"{result.check} {finding.status}")
        )
        for result in results
        for finding in result.findings
        if finding.status != "caution" and finding.modes
    ]
    names = pl.concat_list(marks or [pl.lit(None, dtype=pl.String)])
    return table.with_columns(names.list.drop_nulls().list.unique(maintain_order=True).list.join(", ").alias(SUSPECT))


def _touched(table: pl.DataFrame, check: str, finding: Finding) -> pl.Expr:
    touched: pl.Expr = pl.col("backend") == finding.where["backend"]
    if "other_backend" in table.columns:
        touched |= pl.col("other_backend") == finding.where["backend"]
    touched = touched.fill_null(False)
    for name in PLACES[1:]:
        value = finding.where.get(name)
        if name in table.columns and value is not None:
            alike = [value, ALL] if name == "scenario" else [value]
            touched &= pl.col(name).is_null() | pl.col(name).is_in(alike)
    if "mode" in table.columns:
        touched &= pl.col("mode").is_null() | pl.col("mode").is_in(finding.modes)
    if check == NAMED and "n_models" not in table.columns:
        touched &= pl.lit(False)
    if BASIS in table.columns and check == CONVENTION:
        touched &= pl.col(BASIS) != STEP_TRUE
    return touched


def suspicions(marks: Iterable[str | None]) -> str:
    """The mark of what is computed from several rows: each of their checks once, in order."""
    return ", ".join(dict.fromkeys(each for mark in marks if mark for each in mark.split(", ")))
