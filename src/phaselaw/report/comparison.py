"""Runs and engines compared: their laws side by side in a report, and run against run (``phaselaw compare``)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import polars as pl

from phaselaw.laws import regression_test
from phaselaw.laws.decisions import REGIMES
from phaselaw.laws.engine_ratios import CONSTANT, ENGINE_LAWS, ENGINE_RATIOS, EXPONENT
from phaselaw.laws.law_differences import LAWS_SIDE_BY_SIDE, stem
from phaselaw.laws.served import EARLY_STOP_SUMMARY
from phaselaw.laws.summary import DECODE_FRACTION_SUMMARY
from phaselaw.laws.warmup import COLD_STARTS
from phaselaw.report import performance, scaling, sweeps
from phaselaw.report.document import Block, Section, display, dots
from phaselaw.report.subject import Companion, Subject, in_order, law_words, table_rows
from phaselaw.tables import BUDGET, MISSING, Col, Row, bracket, counted, digits, fixed, in_full, two_places, words
from phaselaw.tables import Table as Declared

_RUN = words("run", "run")
_RUNS = Declared(
    caption="The runs.",
    columns=(
        *(_RUN, words("backend", "backends"), counted("models", "models")),
        *(words("batch_size", "batch sizes"), words(BUDGET, "tokens asked")),
        *(counted("rows", "rows"), counted("failed", "failed")),
        Col(key="sha256", title="study SHA-256", of_row=lambda row: (row["sha256"] or MISSING)[:12]),
    ),
)


_Rows = Callable[[Iterable[Row]], Iterable[Row]]
_BESIDE: tuple[tuple[Declared, Declared, _Rows], ...] = (
    (DECODE_FRACTION_SUMMARY, DECODE_FRACTION_SUMMARY, iter),
    (EARLY_STOP_SUMMARY, performance.STOPS_BY_SCENARIO, performance.stops_by_scenario),
    (COLD_STARTS, COLD_STARTS, lambda rows: (row for row in rows if row["mode"] == "prefill")),
    (REGIMES, REGIMES, scaling.with_meaning),
)
"""What stands side by side beside the laws: a table of each run, as what it is shown, and which rows of it."""


def side_by_side(subject: Subject) -> Iterator[Block]:
    """The runs and what each says (TR121 is one report over five runs); nothing where the report is of one run."""
    found = subject.analysis.tables.get(LAWS_SIDE_BY_SIDE.name)
    if found is None or not subject.beside:
        return
    rows = table_rows(found, budget=found[BUDGET].n_unique() > 1)
    rows = tuple(sorted(rows, key=lambda row: (stem(row["backend"]), in_order(row["mode"]))))
    runs = (subject, *subject.beside)
    yield display(_RUNS, [_run(each) for each in runs])
    yield display(LAWS_SIDE_BY_SIDE, rows)
    yield from filter(None, [dots("runs-side-by-side", [row for row in rows if row["mode"] == "e2e_kv"])])
    shares = _of_runs(runs, DECODE_FRACTION_SUMMARY, iter)
    named = (row | {"named": f"{row['run']}: {law_words(row, budget=False)}"} for row in shares)
    yield from sweeps.decode_share("decode-fraction-of-runs", list(named))
    for table, shown, kept in _BESIDE:
        if of_runs := _of_runs(runs, table, kept):
            shows = shown.shows and f"run {shown.shows}"
            yield display(replace(shown, columns=(_RUN, *shown.columns), shows=shows), of_runs)


def _of_runs(runs: Sequence[Companion], table: Declared, kept: _Rows) -> list[Row]:
    """Rows of a table of each run, the first run's first, each with its ``run``."""
    return [row | {"run": each.name} for each in runs for row in kept(table_rows(each.analysis.tables[table.name]))]


def _run(each: Companion) -> Row:
    rows = each.run.rows
    values = {name: rows[name].unique().drop_nulls().sort().to_list() for name in ("backend", "batch_size", BUDGET)}
    return {name: ", ".join(map(str, those)) for name, those in values.items()} | {
        "run": each.name,
        "models": rows["model"].n_unique(),
        "rows": rows.height,
        "failed": rows.filter(pl.col("status") != "ok").height,
        "sha256": each.run.manifest.get("config_sha256"),
    }


def engines(subject: Subject) -> Iterator[Block]:
    """The same weights on several engines: ratios of latency, and what of the law changes; nothing without any."""
    ratios, laws = subject.rows(ENGINE_RATIOS.name), subject.rows(ENGINE_LAWS.name)
    if ratios:
        yield f"Ratios are latencies over those of {ratios[0]['reference']} for the same weights, prompt and budget."
        findings = " ".join(_change(row) for row in laws if row["mode"] == "e2e_kv")
        yield findings or "No phase was measured end to end on two engines."
        yield display(ENGINE_LAWS, laws)
        yield display(ENGINE_RATIOS, ratios)


def _change(row: Row) -> str:
    """How a law changes from the reference engine's, in a sentence."""
    who = f"{row['law']} against {row['reference']}, end to end"
    if row["slope_difference"] is None:
        return f"{who}: too few models in common ({row['n_models']}) to tell a law's change."
    slopes = (
        f"exponents {fixed(row['slope'])} and {fixed(row['slope_reference'])}, difference "
        f"{fixed(row['slope_difference'])} {bracket(row['slope_difference_low'], row['slope_difference_high'])} over "
        f"{row['n_models']} models"
    )
    ends = bracket(row["ratio_at_mean_low"], row["ratio_at_mean_high"], two_places)
    size = f"{digits(row['params_millions_mean'])} million parameters"
    ratio = f"ratio {two_places(row['ratio_at_mean'])} {ends} at {size}"
    changes = {EXPONENT: "the exponent changes", CONSTANT: "only the constant is seen to change"}
    return f"{who}: {changes.get(row['changes'], 'no change is shown')} ({slopes}; {ratio})."


def run_against_run(comparison: regression_test.RegressionTest) -> Section:
    """The tables of ``phaselaw compare`` (each cell, each backend as a whole), and how to read them, in sentences."""
    cells = table_rows(comparison.cells, budget=comparison.cells[BUDGET].n_unique() > 1)
    asked = [(regression_test.MODELS, comparison.models)] if comparison.models.height else []
    shown = [display(table, table_rows(rows)) for table, rows in (*asked, (regression_test.WHOLE, comparison.whole))]
    tables = [display(regression_test.EACH_CELL, cells), *shown]
    reading = [_outcome(comparison)]
    if comparison.judged and comparison.n_not_judged:
        reading.append(f"{comparison.n_not_judged} ratios are not judged: some run lacks their cells.")
    reading.append(
        f"In brackets: {in_full(comparison.level)} intervals by the scatter of calls within these runs only. "
        "Runs of the same thing differ by more than that: a ratio outside of its interval is no regression yet."
        if comparison.basis == regression_test.WITHIN_RUNS
        else f"In brackets: {in_full(comparison.level)} intervals of one ratio, by how far the same thing differs "
        f"{comparison.basis}; p is corrected for all that is asked of models and of everything (Holm; end to end has "
        "most of what may go wrong). A cell has the verdict of its model, else of everything, where it lies beyond the "
        "threshold, too."
    )
    for side, lacking in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        names = [f"{law_words(row)} {row['model']} {row['scenario']}" for row in lacking.iter_rows(named=True)]
        reading += [f"Only in {side}, not compared: {', '.join(names)}."] if names else []
    return Section(title="", blocks=(*tables, *reading))


def _outcome(comparison: regression_test.RegressionTest) -> str:
    beyond = f"more than {comparison.threshold:.1%}"
    if comparison.basis == regression_test.WITHIN_RUNS:
        return (
            "Significance can't be judged: that takes two or more runs a side (RUN RUN --with RUN RUN), or replicates "
            "in them."
        )
    if not comparison.judged:
        return "Significance can't be judged: no cell was measured in every run."
    said = [*_findings(comparison, regression_test.SLOWER), *_findings(comparison, regression_test.FASTER)]
    if comparison.n_slower:
        return f"REGRESSION of {beyond}: {'; '.join(said)}."
    found = f" And {'; '.join(said)}." if said else ""
    if comparison.outcome == regression_test.CANT_TELL:
        needed = comparison.runs_needed
        runs = f"that takes {needed} runs a side" if needed else "no number of runs up to a thousand would tell"
        return (
            f"No significant regression of {beyond}, but one can't be ruled out: {runs}, as far as these differ.{found}"
        )
    return f"No regression of {beyond}: no ratio end to end can be that large.{found}"


def _findings(comparison: regression_test.RegressionTest, verdict: str) -> list[str]:
    """What moved, in words: everything of a backend and phase, then models beside the others."""
    found = []
    for rows in (comparison.whole, comparison.models):
        for row in table_rows(rows.filter(pl.col("verdict") == verdict)):
            beside = " than the others" if row.get("relative") else ""
            factor = row["ratio"] if verdict == regression_test.SLOWER else 1 / row["ratio"]
            what = f"{row.get('model') or 'everything'} on {row['law']}, {row['phase']}"
            found.append(f"{what}, is {verdict} by {digits(factor)} x{beside}")
    return found
