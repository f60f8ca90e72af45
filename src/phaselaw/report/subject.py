"""What a report is about: a run, its tables, and the plan that was made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw.laws.analysis import Analysis
from phaselaw.report.document import Row
from phaselaw.runs import Run

PHASE_WORDS = {"prefill": "prefill", "kv_decode": "decode", "e2e_kv": "end to end"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """Everything that the sections of a report draw on."""

    run: Run
    analysis: Analysis
    plan: Mapping[str, Any]
    """What a first load would need and cost: the document of ``phaselaw plan --json`` at its defaults."""

    def rows(self, table: str, **equal: Any) -> tuple[Row, ...]:
        """Rows of an analysis table whose columns equal what is given, each with ``law`` and ``phase`` in words."""
        found = self.analysis.tables.get(table)
        if found is None:
            return ()
        return tuple(row for row in table_rows(found) if all(row.get(name) == value for name, value in equal.items()))

    def laws(self) -> Iterator[tuple[str, tuple[Row, ...]]]:
        """Each backend (at one batch size and budget) with the laws of its phases on all scenarios together."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows("scaling_fits", scenario="__all__"):
            groups.setdefault(str(row["law"]), []).append(row)
        order = {mode: at for at, mode in enumerate(PHASE_WORDS)}
        for law, rows in groups.items():
            yield law, tuple(sorted(rows, key=lambda row: order.get(row["mode"], len(order))))

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The run's manifest; empty where it has none."""
        return self.run.manifest or {}

    @property
    def simulated(self) -> bool:
        """Whether any of its latencies were simulated, so that nothing was measured there."""
        return "simulated" in self.run.rows["backend_kind"].to_list()


def table_rows(table: pl.DataFrame) -> tuple[Row, ...]:
    """Rows of a table, each with ``law`` (the backend with its settings) and ``phase`` in words."""
    return tuple(
        row | {"law": law_words(row), "phase": PHASE_WORDS.get(row.get("mode", ""), row.get("mode"))}
        for row in table.iter_rows(named=True)
    )


def law_words(row: Row) -> str:
    """A backend with its batch size, and its decode budget where the run has several."""
    words = str(row["backend"])
    if row.get("batch_size") not in (None, 1):
        words += f", batch {row['batch_size']:g}"
    if row.get("gen_tokens_target") is not None:
        words += f", {row['gen_tokens_target']:g} tokens"
    return words
