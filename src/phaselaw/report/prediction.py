"""Predictions: of a model that was not measured, and how good they are (method 3, *Prediction*)."""

from __future__ import annotations

import dataclasses

from phaselaw.laws.prediction import LAWS, Prediction, Predictions, Workload
from phaselaw.laws.structure import MEAN
from phaselaw.laws.validation import CHOSEN
from phaselaw.report.columns import MISSING, bracket, count, digits, number, percent, word
from phaselaw.report.document import Block, Bullets, Paragraph, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject, law_words
from phaselaw.tables import Col, Row

READING = (
    "Each model is predicted from the others alone. 'chosen' is what phaselaw predict does: the law is chosen anew "
    "from the others, by its leave-one-out error among them.",
    "Extrapolated: the model lies outside the others' range, as the smallest and the largest always do; phaselaw "
    "predict would refuse.",
    "Inside the others' range: of the models that are not extrapolated, how many intervals held.",
    "The share of intervals that held is of few models: its own interval (Clopper and Pearson) stands beside it.",
)
"""How to read the tables of left-out models."""


def validation(subject: Subject) -> Section:
    """Each model predicted from the others, and how many intervals held."""
    title = "How good predictions are"
    rows = subject.rows("prediction_validation")
    if not rows:
        note = subject.analysis.notes.get("prediction_validation", "too few models")
        return Section(title=title, blocks=(Paragraph(f"Not computed: {note}."),))
    blocks: tuple[Block, ...] = (
        Paragraph(
            "What these laws say of a model that was not measured, tried on the models that were. "
            "The command phaselaw predict makes such a prediction, inside the measured range. Here end to end, by the "
            "law that is chosen; the other phases and laws stand in analysis/prediction_validation.csv."
        ),
        coverages(tuple(row for row in subject.ordered("prediction_coverage") if row["predictor"] == CHOSEN)),
        left_out(tuple(row for row in rows if row["mode"] == "e2e_kv")),
        Bullets(READING),
    )
    return Section(title=title, blocks=blocks)


def left_out(rows: tuple[Row, ...]) -> Table:
    """The table of left-out models, each by the law that would have been chosen."""
    shown = tuple(
        row
        | {"held": "inside" if row["inside"] else "OUTSIDE", "beyond": "extrapolated" if row["extrapolated"] else ""}
        for row in rows
        if row["predictor"] == CHOSEN
    )
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("left out", "model"),
        number("M params", "params_millions_effective", "measured"),
        word("by", "predictor_used"),
        number("predicted ms", "latency_predicted_ms", "derived"),
        _ends("interval", "latency_predicted_ms"),
        number("measured ms", "latency_measured_ms", "measured"),
        number("error", "error", "derived", lambda value: MISSING if value is None else f"{100 * value:+.0f} %"),
        word("measured lies", "held"),
        word("", "beyond"),
        *_marked(shown),
    )
    return Table(caption="Each model predicted from the others.", columns=columns, rows=shown)


def coverages(rows: tuple[Row, ...]) -> Table:
    """The table of how many intervals held, by law."""
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("by", "predictor"),
        number("models", "n_models", "measured", count),
        number("intervals that held", "coverage", "derived", percent),
        Col(
            title="its interval",
            key="coverage_low",
            provenance="derived",
            of_row=lambda row: bracket(row["coverage_low"], row["coverage_high"], percent),
        ),
        number("asked", "asked", "assumed", percent),
        Col(
            title="inside the others' range",
            key="n_inside_interpolated",
            provenance="derived",
            of_row=lambda row: f"{row['n_inside_interpolated']} of {row['n_interpolated']}",
        ),
        number("typical error", "typical_factor", "derived", _factor),
        number("predicting the mean", "mean_factor", "derived", _factor),
        number("interval reaches", "interval_factor", "derived", _factor),
        *_marked(rows),
    )
    return Table(caption="How many prediction intervals held the measured latency.", columns=columns, rows=rows)


def predicted(predictions: Predictions) -> Table:
    """The table of predictions: the law that is used first, the others beside it."""
    phases = list(PHASE_WORDS)
    rows = tuple(
        _row(row)
        | {
            "law": law_words(_row(row)),
            "phase": PHASE_WORDS[row.mode],
            "choice": "used" if row.used else "beside",
            "beyond": row.provenance if row.outside else "",
        }
        for row in sorted(
            predictions.rows, key=lambda row: (law_words(_row(row)), phases.index(row.mode), not row.used)
        )
    )
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("by", "predictor"),
        word("", "choice"),
        number("models", "n_models", "measured", count),
        number("typical error", "typical_factor", "derived", _factor),
        number("latency ms", "latency_ms", "derived"),
        _ends("interval", "latency_ms"),
        number("tokens/s", "tokens_per_s", "derived"),
        _ends("interval", "tokens_per_s"),
        word("intervals hold", "interval_holds"),
        *((word("", "beyond"),) if any(row["beyond"] for row in rows) else ()),
        *_marked(rows),
    )
    return Table(caption="Latency of one call, and its rate.", columns=columns, rows=rows)


def reading(predictions: Predictions) -> tuple[str, ...]:
    """What the predictions are of, which law is used and why, in sentences."""
    level = predictions.rows[0].level
    said = [
        f"In brackets: {level:.0%} prediction intervals, where the latency of one new model lies: how far models "
        "scatter about the law, and the law's own uncertainty. Latencies are of calls that run alone.",
        "Used is the law that is off by the least when a measured model is left out (typical error, a factor), of "
        f"those that the stated properties allow: {', '.join(_laws(predictions))}."
        + (" Its interval is wider for having been chosen." if len(_laws(predictions)) > 1 else ""),
        *_no_better_than_the_mean(predictions),
        *(_workload(each) for each in predictions.workloads if _of(each, predictions)),
        *dict.fromkeys(
            f"EXTRAPOLATED on {law_words(_row(row))}: {row.outside}; no measurement says that the law holds there."
            for row in predictions.rows
            if row.outside
        ),
        *dict.fromkeys(
            f"SUSPECT on {law_words(_row(row))}, {PHASE_WORDS[row.mode]}: {row.suspect} (see the validity checks)."
            for row in predictions.rows
            if row.suspect
        ),
    ]
    return tuple(said)


def _laws(predictions: Predictions) -> list[str]:
    found = {row.predictor for row in predictions.rows}
    return [law for law in LAWS if law in found]


def _no_better_than_the_mean(predictions: Predictions) -> list[str]:
    """Where no law is off by less than the geometric mean of the other models."""
    return [
        f"{law_words(_row(row))}, {PHASE_WORDS[row.mode]}: no law predicts a model that was left out better than the "
        f"{MEAN} of the others does ({_factor(row.typical_factor)} against {_factor(row.mean_factor)})."
        for row in predictions.rows
        if row.used and None not in (row.typical_factor, row.mean_factor)
        if (row.typical_factor or 0) >= (row.mean_factor or 0)
    ]


def _workload(workload: Workload) -> str:
    tokens = workload.tokens
    prompt, generated = (digits(tokens.get(phase)) for phase in ("prefill", "kv_decode"))
    names = ", ".join(workload.scenarios)
    return (
        f"{law_words(_row(workload))}: tokens/s are of this run's own calls, {prompt} prompt and {generated} generated "
        f"tokens (geometric mean over the scenarios {names})."
    )


def _of(workload: Workload, predictions: Predictions) -> bool:
    def where(about: Workload | Prediction) -> tuple[str, int, int | None]:
        return about.backend, about.batch_size, about.gen_tokens_target

    return where(workload) in {where(row) for row in predictions.rows}


def _row(about: Prediction | Workload) -> Row:
    return {field.name: getattr(about, field.name) for field in dataclasses.fields(about)}


def _factor(value: float | None) -> str:
    return MISSING if value is None else f"{digits(value)} x"


def _ends(title: str, key: str) -> Col:
    def show(row: Row) -> str:
        return bracket(row.get(f"{key}_low"), row.get(f"{key}_high"), digits)

    return Col(title=title, key=f"{key}_low", provenance="derived", of_row=show)


def _marked(rows: tuple[Row, ...]) -> tuple[Col, ...]:
    """A column of the validity checks that spoke up, where any did."""
    return (word("suspect", "suspect"),) if any(row.get("suspect") for row in rows) else ()
