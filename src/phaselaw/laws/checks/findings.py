"""What a validity check says: its findings, each with its evidence and the next step, and what it looked at."""

from __future__ import annotations

import dataclasses
from typing import Literal

import polars as pl

from phaselaw.laws.summary import BUDGET
from phaselaw.records import Run

Status = Literal["found", "suspected", "caution"]
"""``found``: shown by the data; ``suspected``: another reading is named; ``caution``: no row is wrong, but read on."""

PREFILL, DECODE, ALL_PHASES = ("prefill", "e2e_kv"), ("kv_decode", "e2e_kv"), ("prefill", "kv_decode", "e2e_kv")

SERVED = ("ollama", "openai", "llamacpp")
"""Kinds of engine that are servers: what a server does with prompts, counts and memory can befall only them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Which rows a finding is about; ``None`` is all of them."""

    backend: str
    batch_size: int | None = None
    gen_tokens_target: int | None = None
    model: str | None = None
    scenario: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or may be."""

    check: str
    status: Status
    where: Where
    modes: tuple[str, ...]
    """The phases whose rows are touched."""
    value: float | None
    """The figure that decided, in the check's own unit."""
    evidence: str
    next_step: str
    other_reading: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One check's outcome on one run."""

    check: str
    unit: str
    """What was looked at, in the plural."""
    n_checked: int
    findings: tuple[Finding, ...] = ()
    false_alarm_rate: float = 0.0
    """The share of what was looked at that is *found* at most where nothing is wrong; 0: nothing is inferred."""
    rests_on: str = ""
    """What that rate takes for granted, or does not hold for."""
    not_checked: str | None = None
    """Why nothing could be looked at; ``None`` where something was."""

    def at_budget(self, gen_tokens: int) -> Checked:
        """The same of a run whose every call had this decode budget: no finding is of another."""
        wheres = [dataclasses.replace(each.where, gen_tokens_target=gen_tokens) for each in self.findings]
        pairs = zip(self.findings, wheres, strict=True)
        return dataclasses.replace(
            self, findings=tuple(dataclasses.replace(each, where=where) for each, where in pairs)
        )

    @property
    def false_alarms(self) -> str:
        """How often it would speak up where nothing is wrong, in words."""
        rate = f"at most {100 * self.false_alarm_rate:g}% of {self.unit}" if self.false_alarm_rate else "none known"
        return f"{rate}; {self.rests_on}" if self.rests_on else rate


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
        return "phaselaw_version" in (self.run.manifest or {})


def text(rows: pl.DataFrame, name: str) -> pl.Expr:
    """A column that not every file has, as text; empty where it is absent."""
    return pl.col(name).cast(pl.String) if name in rows.columns else pl.lit(None, dtype=pl.String)


GROUP_OF_MODEL = ["backend", "backend_kind", "batch_size", BUDGET, "model"]
