"""Several runs in one report: what each was, and their laws side by side (TR121 is one report over five runs)."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from phaselaw.laws.law_differences import LAWS_SIDE_BY_SIDE, stem
from phaselaw.report.document import Axis, DotPlot, Figure, Paragraph, Point, Section, display
from phaselaw.report.subject import PHASE_WORDS, Companion, Subject, table_rows
from phaselaw.tables import MISSING, Col, Row, Table, bracket, counted, words

_RUNS = Table(
    caption="The runs.",
    columns=(
        words("run", "run"),
        words("backends", "backends"),
        counted("models", "models"),
        words("batches", "batch sizes"),
        words("budgets", "tokens asked"),
        counted("rows", "rows"),
        counted("failed", "failed"),
        Col(key="sha256", title="study SHA-256", of_row=lambda row: (row["sha256"] or MISSING)[:12]),
    ),
)


def laws(subject: Subject) -> Section | None:
    """The runs and their laws; ``None`` where the report is of one run."""
    found = subject.analysis.tables.get(LAWS_SIDE_BY_SIDE.name)
    if found is None or not subject.beside:
        return None
    order = list(PHASE_WORDS)
    several = found["gen_tokens_target"].n_unique() > 1
    rows = tuple(
        sorted(table_rows(found, budget=several), key=lambda row: (stem(row["backend"]), order.index(row["mode"])))
    )
    said = Paragraph(
        "A difference is this run's exponent less the first run's, of the same backend and phase. An interval that "
        "holds 0 shows no change. Over the same models it is of their paired differences, since what a model does to "
        "both runs alike cancels; else of two independent laws, which is wider. Each interval stands alone: of twenty "
        "true zeros one is missed. How much a mere repetition would differ is in none of them."
    )
    first = Companion(name=name_of(subject), run=subject.run, analysis=subject.analysis)
    runs = [_run(each) for each in (first, *subject.beside)]
    blocks = (display(_RUNS, runs), said, display(LAWS_SIDE_BY_SIDE, rows), _forest(rows))
    return Section(title="Runs side by side", blocks=blocks)


def name_of(subject: Subject) -> str:
    """What the first run is called beside the others."""
    found = subject.analysis.tables[LAWS_SIDE_BY_SIDE.name]
    return str(found["run"][0]) if found.height else str(subject.manifest.get("run_name") or subject.run.path.name)


def _run(each: Companion) -> Row:
    rows, manifest = each.run.rows, each.run.manifest or {}

    def values_of(column: str) -> str:
        values: Sequence[object] = rows[column].unique().drop_nulls().sort().to_list()
        return ", ".join(str(value) for value in values)

    return {
        "run": each.name,
        "backends": values_of("backend"),
        "models": rows["model"].n_unique(),
        "batches": values_of("batch_size"),
        "budgets": values_of("gen_tokens_target"),
        "rows": rows.height,
        "failed": rows.filter(pl.col("status") != "ok").height,
        "sha256": manifest.get("config_sha256"),
    }


def _forest(rows: tuple[Row, ...]) -> Figure:
    """End-to-end exponents with their intervals, one under the other."""
    shown_laws = [row for row in rows if row["mode"] == "e2e_kv" and row["slope"] is not None]
    points = {
        f"{row['law']} – {row['run']}": Point(
            label=f"{row['law']}, {row['run']}",
            x=row["slope"],
            y=0.0,
            low=row["slope_t_ci_low"],
            high=row["slope_t_ci_high"],
        )
        for row in shown_laws
    }
    plot = DotPlot(
        name="runs-side-by-side",
        alt="End-to-end exponent of each run and backend with its interval",
        axis=Axis(title="exponent, end to end"),
        reference=0.0,
        rows=tuple((label, (point,)) for label, point in points.items()),
    )
    widest = max(shown_laws, key=lambda row: (row["slope_t_ci_high"] or 0) - (row["slope_t_ci_low"] or 0), default=None)
    note = ""
    if widest is not None and widest["slope_t_ci_low"] is not None:
        ends = bracket(widest["slope_t_ci_low"], widest["slope_t_ci_high"])
        note = f" The widest is {widest['law']} of {widest['run']}, {ends}, over {widest['n_models']} models."
    return Figure(plot=plot, caption=f"End-to-end exponents with their intervals; 0 (dotted) is no law.{note}")
