"""What a report is about: a run, its tables, and the plan that was made of it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import polars as pl

from phaselaw import tables
from phaselaw.laws.analysis import Analysis
from phaselaw.records import Run
from phaselaw.report.document import Table, display
from phaselaw.report.economics import Plan
from phaselaw.tables import Row

PHASE_WORDS = {"prefill": "prefill", "kv_decode": "decode", "e2e_kv": "end to end"}


def in_order(mode: Any) -> int:
    """The place of a phase; before all of them what is of none."""
    return [None, *PHASE_WORDS].index(mode if mode in PHASE_WORDS else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Companion:
    """A run, analysed."""

    name: str
    run: Run
    analysis: Analysis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject(Companion):
    """Everything that the sections of a report draw on."""

    plan: Plan
    """What a first load would need and cost, at the defaults of ``phaselaw plan``."""
    beside: tuple[Companion, ...] = ()
    """Further runs whose laws stand beside this one's."""

    def rows(self, table: str, **equal: Any) -> tuple[Row, ...]:
        """Rows of an analysis table whose columns equal what is given, each with ``law`` and ``phase`` in words."""
        budget, batch = (self.run.rows[name].n_unique() > 1 for name in ("gen_tokens_target", "batch_size"))
        rows = table_rows(self.analysis.tables.get(table, pl.DataFrame()), budget=budget, batch=batch)
        return tuple(row for row in rows if all(row.get(name) == value for name, value in equal.items()))

    def ordered(self, table: str, **equal: Any) -> tuple[Row, ...]:
        """`rows` as people read them: by backend, phase (prefill first), size of model, and length of prompt."""
        rows = self.rows(table, **equal)
        laws, scenarios = list(dict.fromkeys(row["law"] for row in rows)), self._scenarios

        def key(row: Row) -> tuple[float, ...]:
            size = row.get("params_millions_effective") or row.get("params_millions_effective_median") or 0.0
            return laws.index(row["law"]), in_order(row.get("mode")), size, scenarios.get(row.get("scenario"), -1)

        return tuple(sorted(rows, key=key))

    @functools.cached_property
    def _scenarios(self) -> dict[Any, int]:
        """The place of each scenario, the shortest prompt first."""
        lengths = self.run.rows.group_by("scenario", maintain_order=True).agg(pl.col("prompt_tokens_raw").median())
        shortest_first = lengths.sort("prompt_tokens_raw", "scenario")["scenario"]
        return {scenario: at for at, scenario in enumerate(shortest_first)}

    def table(self, table: tables.Table, rows: Sequence[Row] | None = None, **changes: Any) -> Table:
        """A declared table as the report shows it: of these rows, or all of the run's, with changes of its declaration.

        The changes are of ``caption`` and ``shows``.
        """
        return display(dataclasses.replace(table, **changes), self.ordered(table.name) if rows is None else rows)

    def laws(self) -> tuple[Row, ...]:
        """The laws of each backend (at one batch size and budget) and phase, on all scenarios together."""
        return self.ordered("scaling_fits", scenario="__all__")


def table_rows(table: pl.DataFrame, *, budget: bool = True, batch: bool | None = None) -> tuple[Row, ...]:
    """Rows of a table, each with ``law`` (the backend with its settings, `law_words`) and ``phase`` in words."""
    of_table = batch is None and "batch_size" in table.columns and table["batch_size"].n_unique() > 1
    several: dict[str, bool] = {"budget": budget, "batch": batch or of_table}
    return tuple(
        row | {"law": law_words(row, **several), "phase": PHASE_WORDS.get(row.get("mode", ""), row.get("mode"))}
        for row in table.iter_rows(named=True)
    )


def law_words(row: Row, *, budget: bool = True, batch: bool = False) -> str:
    """A backend with its batch size and its decode budget; without those of which a run has but one."""
    if row.get("backend") is None:
        return ""
    words = str(row["backend"])
    if row.get("batch_size") is not None and (batch or row["batch_size"] != 1):
        words += f", batch {row['batch_size']:g}"
    if budget and row.get("gen_tokens_target") is not None:
        words += f", {row['gen_tokens_target']:g} tokens"
    return words
