"""Runs against runs, in words: the tables of ``phaselaw compare``."""

from __future__ import annotations

from phaselaw.laws.regression_test import EACH_CELL, FASTER, WHOLE, WITHIN_RUNS, RegressionTest
from phaselaw.report.document import Table, display
from phaselaw.report.subject import law_words, table_rows
from phaselaw.tables import BUDGET


def whole(comparison: RegressionTest) -> Table:
    """Each backend and phase as a whole."""
    return display(WHOLE, table_rows(comparison.whole))


def cells(comparison: RegressionTest) -> Table:
    """Each cell and phase that both sides have."""
    several = comparison.cells[BUDGET].n_unique() > 1
    return display(EACH_CELL, table_rows(comparison.cells, budget=several))


def reading(comparison: RegressionTest) -> tuple[str, ...]:
    """How the comparison came out and what it stands on, in sentences."""
    said = [_outcome(comparison)]
    if comparison.judged and comparison.n_not_judged:
        said.append(f"{comparison.n_not_judged} ratios are not judged: some run lacks their cells.")
    if comparison.basis != WITHIN_RUNS:
        said.append(
            f"In brackets: {comparison.level:.0%} intervals of one ratio, by how far runs of one side differ; p is "
            f"corrected for all {comparison.whole.height + comparison.cells.height} ratios (Holm)."
        )
    else:
        said.append(
            f"In brackets: {comparison.level:.0%} intervals by the scatter of calls within these runs only. Runs of "
            "the same thing differ by more than that: a ratio outside of its interval is no regression yet."
        )
    for side, lacking in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if lacking.height:
            names = ", ".join(
                f"{law_words(row)} {row['model']} {row['scenario']}" for row in lacking.iter_rows(named=True)
            )
            said.append(f"Only in {side}, not compared: {names}.")
    return tuple(said)


def _outcome(comparison: RegressionTest) -> str:
    beyond = f"more than {comparison.threshold:.1%}"
    if comparison.basis == WITHIN_RUNS:
        return "Significance can't be judged: that takes two or more runs a side (RUN RUN --with RUN RUN)."
    if not comparison.judged:
        return "Significance can't be judged: no cell was measured in every run."
    faster = sum(int((table["verdict"] == FASTER).sum()) for table in (comparison.whole, comparison.cells))
    if comparison.n_slower:
        return f"REGRESSION: {comparison.n_slower} ratios are significantly {beyond} slower, {faster} {beyond} faster."
    return f"No significant regression of {beyond}; {faster} ratios are significantly {beyond} faster."
