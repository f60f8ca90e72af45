"""Several runs in one report: what each was, and their laws side by side (TR121 is one report over five runs)."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from phaselaw.laws.side_by_side import stem
from phaselaw.report.columns import MISSING, bracket, count, doubted, fixed, interval, number, word
from phaselaw.report.document import Axis, DotPlot, Figure, Paragraph, Point, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Companion, Subject, table_rows
from phaselaw.tables import Col, Row

TABLE = "laws_side_by_side"


def laws(subject: Subject) -> Section | None:
    """The runs and their laws; ``None`` where the report is of one run."""
    found = subject.analysis.tables.get(TABLE)
    if found is None or not subject.beside:
        return None
    order = list(PHASE_WORDS)
    several = found["gen_tokens_target"].n_unique() > 1
    rows = tuple(
        sorted(table_rows(found, budget=several), key=lambda row: (stem(row["backend"]), order.index(row["mode"])))
    )
    columns = (
        word("phase", "phase"),
        word("run", "run"),
        word("backend", "law"),
        number("models", "n_models", "measured", count),
        number("exponent", "slope", "derived", fixed),
        interval("interval", "slope_t_ci_low", "slope_t_ci_high"),
        number("R2", "r2", "derived", fixed),
        word("verdict", "verdict"),
        Col(title="difference", key="difference", provenance="derived", of_row=_difference),
        Col(title="how", key="differs_in", of_row=_how),
        *doubted(rows),
    )
    said = Paragraph(
        "A difference is this run's exponent less the first run's, of the same backend and phase. An interval that "
        "holds 0 shows no change. Over the same models it is of their paired differences, since what a model does to "
        "both runs alike cancels; else of two independent laws, which is wider. Each interval stands alone: of twenty "
        "true zeros one is missed. How much a mere repetition would differ is in none of them."
    )
    blocks = (
        Table(caption="The runs.", columns=_RUN_COLUMNS, rows=_runs(subject)),
        said,
        Table(caption="Laws over all scenarios, run by run.", columns=columns, rows=rows),
        _forest(rows),
    )
    return Section(title="Runs side by side", blocks=blocks)


def _difference(row: Row) -> str:
    if row["difference"] is None:
        return MISSING
    ends = bracket(row["difference_low"], row["difference_high"])
    return f"{row['difference']:+.3f}" + ("" if ends == MISSING else f" {ends}")


def _how(row: Row) -> str:
    """How a difference was worked out, and what differs beside the run."""
    if row["against"] is None:
        return MISSING
    return "; ".join(part for part in (row["difference_basis"], row["differs_in"]) if part)


_RUN_COLUMNS = (
    word("run", "run"),
    word("backends", "backends"),
    number("models", "models", "measured", count),
    word("batch sizes", "batches"),
    word("tokens asked", "budgets"),
    number("rows", "rows", "measured", count),
    number("failed", "failed", "measured", count),
    Col(title="study SHA-256", key="sha256", of_row=lambda row: (row["sha256"] or MISSING)[:12]),
)


def _runs(subject: Subject) -> tuple[Row, ...]:
    first = Companion(name=name_of(subject), run=subject.run, analysis=subject.analysis)
    return tuple(_run(each) for each in (first, *subject.beside))


def name_of(subject: Subject) -> str:
    """What the first run is called beside the others."""
    found = subject.analysis.tables[TABLE]
    return str(found["run"][0]) if found.height else str(subject.manifest.get("run_name") or subject.run.path.name)


def _run(each: Companion) -> Row:
    rows, manifest = each.run.rows, each.run.manifest or {}

    def said(column: str) -> str:
        values: Sequence[object] = rows[column].unique().drop_nulls().sort().to_list()
        return ", ".join(str(value) for value in values)

    return {
        "run": each.name,
        "backends": said("backend"),
        "models": rows["model"].n_unique(),
        "batches": said("batch_size"),
        "budgets": said("gen_tokens_target"),
        "rows": rows.height,
        "failed": rows.filter(pl.col("status") != "ok").height,
        "sha256": manifest.get("config_sha256"),
    }


def _forest(rows: tuple[Row, ...]) -> Figure:
    """End-to-end exponents with their intervals, one under the other."""
    shown = [row for row in rows if row["mode"] == "e2e_kv" and row["slope"] is not None]
    plot = DotPlot(
        name="runs-side-by-side",
        alt="End-to-end exponent of each run and backend with its interval",
        axis=Axis(title="exponent, end to end"),
        reference=0.0,
        rows=tuple(
            (
                f"{row['law']} – {row['run']}",
                (
                    Point(
                        label=f"{row['law']}, {row['run']}",
                        x=row["slope"],
                        y=0.0,
                        low=row["slope_t_ci_low"],
                        high=row["slope_t_ci_high"],
                    ),
                ),
            )
            for row in shown
        ),
    )
    widest = max(shown, key=lambda row: (row["slope_t_ci_high"] or 0) - (row["slope_t_ci_low"] or 0), default=None)
    note = ""
    if widest is not None and widest["slope_t_ci_low"] is not None:
        ends = bracket(widest["slope_t_ci_low"], widest["slope_t_ci_high"])
        note = f" The widest is {widest['law']} of {widest['run']}, {ends}, over {widest['n_models']} models."
    return Figure(plot=plot, caption=f"End-to-end exponents with their intervals; 0 (dotted) is no law.{note}")
