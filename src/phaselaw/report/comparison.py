"""Runs against runs, in words: the tables of ``phaselaw compare``."""

from __future__ import annotations

from phaselaw.laws.comparison import FASTER, SLOWER, WITHIN_RUNS, Comparison
from phaselaw.report.columns import bracket, count, fixed, number, word
from phaselaw.report.document import Table
from phaselaw.report.subject import law_words, table_rows
from phaselaw.tables import Col, Row

_FIGURES = (
    number("A ms", "latency_a_ms", "measured"),
    number("B ms", "latency_b_ms", "measured"),
    number("B / A", "ratio", "derived", fixed),
    Col(
        title="interval",
        key="ratio_low",
        provenance="derived",
        of_row=lambda row: bracket(row["ratio_low"], row["ratio_high"]),
    ),
    number("p (Holm)", "p_slower_holm", "derived", fixed),
    Col(title="verdict", key="verdict", of_row=lambda row: _verdict(row)),
)


def whole(comparison: Comparison) -> Table:
    """Each backend and phase as a whole."""
    columns = (word("backend", "law"), word("phase", "phase"), number("cells", "n_cells", "measured", count), *_FIGURES)
    return Table(
        caption="All cells of a backend and phase that every run has, geometric mean.",
        columns=columns,
        rows=table_rows(comparison.whole),
    )


def cells(comparison: Comparison) -> Table:
    """Each cell and phase that both sides have."""
    rows = table_rows(comparison.cells)
    if len({row["gen_tokens_target"] for row in rows}) < 2:
        rows = tuple(row | {"law": law_words(row | {"gen_tokens_target": None})} for row in rows)
    columns = (
        word("backend", "law"), word("phase", "phase"), word("model", "model"), word("scenario", "scenario"), *_FIGURES,
    )  # fmt: skip
    return Table(caption="Each cell, by phase.", columns=columns, rows=rows)


def reading(comparison: Comparison) -> tuple[str, ...]:
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


def _outcome(comparison: Comparison) -> str:
    beyond = f"more than {comparison.threshold:.1%}"
    if comparison.basis == WITHIN_RUNS:
        return "Significance can't be judged: that takes two or more runs a side (RUN RUN --with RUN RUN)."
    if not comparison.judged:
        return "Significance can't be judged: no cell was measured in every run."
    faster = sum(int((table["verdict"] == FASTER).sum()) for table in (comparison.whole, comparison.cells))
    if comparison.n_slower:
        return f"REGRESSION: {comparison.n_slower} ratios are significantly {beyond} slower, {faster} {beyond} faster."
    return f"No significant regression of {beyond}; {faster} ratios are significantly {beyond} faster."


def _verdict(row: Row) -> str:
    return str(row["verdict"]).upper() if row["verdict"] == SLOWER else str(row["verdict"])
