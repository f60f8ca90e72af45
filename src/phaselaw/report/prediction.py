"""Predictions: of a model that was not measured, and how good they are (method 3, *Prediction*)."""

import dataclasses
from collections.abc import Iterator, Sequence

from phaselaw import tables as col
from phaselaw.laws import prediction as laws
from phaselaw.laws.structure import MEAN
from phaselaw.report.document import Block, Table, display
from phaselaw.report.outline import WORDING
from phaselaw.report.subject import PHASE_WORDS, Subject, in_order, law_words
from phaselaw.tables import LAW, PHASE, Row

READING = tuple(WORDING["left_out"].values())
"""How to read the tables of left-out models."""

_PREDICTED = col.Table(
    caption="Latency of one call, and its rate.",
    columns=(
        *(LAW, PHASE, col.words("predictor", "by"), col.words("choice"), col.counted("n_models", "models")),
        col.derived("typical_factor", "typical error", col.factor),
        col.derived("latency_ms", "latency ms"),
        *col.interval("latency_ms_low", "latency_ms_high", "interval", col.digits),
        col.derived("tokens_per_s", "tokens/s"),
        *col.interval("tokens_per_s_low", "tokens_per_s_high", "tokens/s interval", col.digits),
        *(col.words("interval_holds", "intervals hold"), col.words("beyond")),
    ),
)
_SHOWN = "backend mode predictor choice typical_factor latency_ms latency_ms_low tokens_per_s tokens_per_s_low "
_SHOWN += "n_models interval_holds"


def validation(subject: Subject) -> Iterator[Block]:
    """Each model predicted from the others, and how many intervals held."""
    rows, coverage = subject.rows(laws.PREDICTION_VALIDATION.name, mode="e2e_kv"), laws.PREDICTION_COVERAGE
    if rows:
        yield subject.table(coverage, subject.ordered(coverage.name, predictor=laws.CHOSEN))
        yield left_out(rows)
        yield READING


def left_out(rows: Sequence[Row]) -> Table:
    """The table of left-out models, each by the law that would have been chosen."""
    return display(laws.PREDICTION_VALIDATION, [row for row in rows if row["predictor"] == laws.CHOSEN])


def predicted(predictions: laws.Predictions) -> Table:
    """The table of predictions: the law that is used first, the others beside it."""
    rows = [
        row | {"choice": "used" if row["used"] else "beside", "beyond": row["provenance"] if row["outside"] else ""}
        for row in _rows(predictions, predictions.rows)
    ]
    rows.sort(key=lambda row: (row["law"], in_order(row["mode"]), not row["used"]))
    beyond = " beyond" if any(row["beyond"] for row in rows) else ""
    return display(dataclasses.replace(_PREDICTED, shows=_SHOWN + beyond), rows)


def reading(predictions: laws.Predictions) -> tuple[str, ...]:
    """What the predictions are of, which law is used and why, in sentences."""
    rows = _rows(predictions, predictions.rows)
    found, measured = {row["predictor"] for row in rows}, {row["law"] for row in rows}
    known = [law for law in laws.LAWS if law in found]
    return (
        f"In brackets: {col.in_full(rows[0]['level'])} prediction intervals, where the latency of one new model lies: "
        "how far models scatter about the law, and the law's own uncertainty, in one more run or in this run only, as "
        "'intervals hold' says. Latencies are of calls that run alone.",
        "Used is the law that is off by the least when a measured model is left out (typical error, a factor), of "
        f"those that the stated properties allow: {', '.join(known)}."
        + (" Its interval is wider for having been chosen." if len(known) > 1 else ""),
        *(
            f"{row['law']}, {row['phase']}: no law predicts a model that was left out better than the {MEAN} of the "
            f"others does ({col.factor(row['typical_factor'])} against {col.factor(row['mean_factor'])})."
            for row in rows
            if row["used"] and row["mean_factor"] and (row["typical_factor"] or 0.0) >= row["mean_factor"]
        ),
        *(
            f"{row['law']}: tokens/s are of this run's own calls, {col.digits(row['tokens'].get('prefill'))} prompt "
            f"and {col.digits(row['tokens'].get('kv_decode'))} generated tokens (geometric mean over the scenarios "
            f"{', '.join(row['scenarios'])})."
            for row in _rows(predictions, predictions.workloads)
            if row["law"] in measured
        ),
        *dict.fromkeys(
            f"EXTRAPOLATED on {row['law']}: {row['outside']}; no measurement says that the law holds there."
            for row in rows
            if row["outside"]
        ),
        *dict.fromkeys(
            f"SUSPECT on {row['law']}, {row['phase']}: {row['suspect']} (see the validity checks)."
            for row in rows
            if row["suspect"]
        ),
    )


def _rows(of: laws.Predictions, found: Sequence[laws.Prediction | laws.Workload]) -> list[Row]:
    """The fields of each, and its ``law`` and ``phase`` in words."""
    rows = [dataclasses.asdict(each) for each in found]
    for row in rows:
        row |= {"law": law_words(row, batch=of.several_batches), "phase": PHASE_WORDS.get(row.get("mode", ""))}
    return rows
