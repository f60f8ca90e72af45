"""Sweeps: decode's share, exponents, rates and times along each axis, and where something changes (TR121 section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from phaselaw.laws.concurrency import CONCURRENCY_THROUGHPUT
from phaselaw.laws.step_time import STEP_TIME_MODEL
from phaselaw.laws.sweep_relations import DECODE_BY_BATCH, DECODE_BY_CONTEXT, PREFILL_BY_LENGTH
from phaselaw.laws.sweeps import EXPONENT_BY_AXIS, EXPONENT_STABILITY, SWEEP_CHANGES, SWEEP_CURVES, held_words, in_order
from phaselaw.report.document import Axis, Block, Curve, CurvePlot, Figure, Point, Section, display
from phaselaw.report.subject import Subject
from phaselaw.tables import BUDGET, Row, Table

AXIS_WORDS = {
    "gen_tokens": "generated tokens",
    "batch_size": "batch size",
    "prompt_tokens": "prompt tokens",
    "threads": "threads",
    "concurrency": "clients",
}
_MOST_SENTENCES = 12
_MOST_CURVES = 6
"""Curves of one plot; of more models, those at even steps of size are drawn."""
_MOST_PLOTS = 3
"""Plots of one kind, each of another setting."""


def lead(subject: Subject) -> tuple[str, ...]:
    """What the sweeps say, in a sentence for each axis, for the head of the report."""
    lengths = sorted({row["value"] for row in subject.rows(SWEEP_CURVES.name, axis="prompt_tokens")})
    found = []
    if len(lengths) > 1 and _lengths_swept(subject):
        found.append(
            f"Figures of all prompts together are geometric means over prompts of {lengths[0]:g} to {lengths[-1]:g} "
            "tokens; the sweep's tables and the step-time model keep the lengths apart."
        )
    for axis, rows in _along(subject, SWEEP_CHANGES):
        sentences = _sentences(rows)
        more = f" ({len(sentences) - 2} more in the report)" if len(sentences) > 2 else ""
        found.append(f"Along {AXIS_WORDS[axis]}, {'; '.join(sentences[:2])}{more}.")
    return tuple(found)


def sweeps(subject: Subject) -> Section | None:
    """The section of a run that was swept; ``None`` for one that was not."""
    blocks = [
        *_decode_share(subject),
        *_changes(subject),
        *_exponents(subject),
        *_by_model(subject, "batch_size", "kv_decode", "tokens_per_s", "generated tokens/s"),
        *_by_model(subject, "threads", "kv_decode", "tokens_per_s", "generated tokens/s"),
        *_table(DECODE_BY_BATCH, subject.rows(DECODE_BY_BATCH.name)),
    ]
    if _lengths_swept(subject):
        blocks += _by_model(subject, "prompt_tokens", "prefill", "latency_ms", "prefill (ms)")
    contexts = [row for row in subject.rows(DECODE_BY_CONTEXT.name) if row["value_last"] >= 4 * row["value_first"]]
    blocks += _table(PREFILL_BY_LENGTH, subject.rows(PREFILL_BY_LENGTH.name))
    blocks += [*_table(DECODE_BY_CONTEXT, contexts), *_clients(subject)]
    step_times = display(STEP_TIME_MODEL, subject.rows(STEP_TIME_MODEL.name))
    return Section(title="Sweeps", blocks=(*blocks, step_times)) if blocks else None


def _lengths_swept(subject: Subject) -> bool:
    """Whether prompt lengths were an axis, rather than TR121's few prompts."""
    lengths: dict[str, set[float]] = {}
    for row in subject.rows(EXPONENT_BY_AXIS.name, axis="prompt_tokens"):
        # By backend: tokenizers count the same few prompts differently.
        lengths.setdefault(row["backend"], set()).add(row["value"])
    return any(len(values) > 3 for values in lengths.values()) or any(
        str(scenario).startswith("prompt_") for scenario in subject.run.rows["scenario"].unique()
    )


def _along(subject: Subject, table: Table) -> Iterator[tuple[str, list[Row]]]:
    """A table's rows by axis, each with its ``setting`` in words; those along prompts only where lengths were swept."""
    rows = subject.rows(table.name)
    for axis in dict.fromkeys(row["axis"] for row in rows):
        if axis != "prompt_tokens" or _lengths_swept(subject):
            yield str(axis), [_with_setting(row) for row in rows if row["axis"] == axis]


def _with_setting(row: Row) -> Row:
    """A row with what was held beside its axis in words."""
    held = held_words(row)
    return row | {"setting": f"{row['backend']}, {held}" if held else str(row["backend"])}


def _table(table: Table, rows: Sequence[Row]) -> list[Block]:
    """A table, where it has rows."""
    return [display(table, rows)] if rows else []


def _changes(subject: Subject) -> Iterator[Block]:
    for axis, rows in _along(subject, SWEEP_CHANGES):
        sentences = _sentences(rows)
        more = len(sentences) - _MOST_SENTENCES
        yield f"Along {AXIS_WORDS[axis]}:"
        rest = (f"{more} more stand in analysis/sweep_changes.csv.",) if more > 0 else ()
        yield (*(f"{sentence}." for sentence in sentences[:_MOST_SENTENCES]), *rest)


def _sentences(rows: Sequence[Row]) -> list[str]:
    """What changes, end to end first; an exponent that moves in a phase has its row in the table of exponents."""
    worth = [row for row in rows if row["what"] != "the exponent" or row["mode"] == "e2e_kv"] or rows
    ordered = sorted(worth, key=lambda row: row["mode"] not in (None, "e2e_kv"))
    settings = [f"{row['backend']} ({row['held']})" if row["held"] else str(row["backend"]) for row in ordered]
    return [f"{setting}: {row['said']}" for setting, row in zip(settings, ordered, strict=True)]


def _decode_share(subject: Subject) -> Iterator[Figure]:
    """TR121's figure: the median over models of decode's share, per backend, against the tokens generated."""
    rows = subject.rows("decode_fraction_summary")
    if len({row[BUDGET] for row in rows}) < 2:
        return
    batches = len({row["batch_size"] for row in rows}) > 1
    labels = [f"{row['backend']}, batch {row['batch_size']:g}" if batches else str(row["backend"]) for row in rows]
    plot = CurvePlot(
        name="decode-fraction-by-gen-tokens",
        alt="Decode's share of end-to-end latency against the tokens generated, a curve for each backend.",
        x=Axis(title="generated tokens", log=True),
        y=Axis(title="decode / end to end", percent=True),
        curves=_curves(rows, labels, BUDGET, "decode_fraction_median", "decode_fraction_p25", "decode_fraction_p75"),
        reference=0.95,
    )
    yield Figure(plot=plot, caption="Decode's share: median over models, band between the quartiles; line at 95 %.")


def _exponents(subject: Subject) -> Iterator[Block]:
    """The exponent of end-to-end latency at each value of each axis, and whether it is stable."""
    for axis, rows in _along(subject, EXPONENT_BY_AXIS):
        known = [row for row in rows if row["mode"] == "e2e_kv" and row["slope_t_ci_low"] is not None]
        labels, title = [row["setting"] for row in known], AXIS_WORDS[axis]
        if known:
            plot = CurvePlot(
                name=f"exponent-by-{axis.replace('_', '-')}",
                alt=f"The exponent of end-to-end latency in parameters against {title}.",
                x=Axis(title=title, log=True),
                y=Axis(title="exponent"),
                curves=_curves(known, labels, "value", "slope", "slope_t_ci_low", "slope_t_ci_high"),
                reference=0.0,
            )
            yield Figure(plot=plot, caption=f"Exponent (end to end) against {title}, with t intervals over models.")
    yield from _table(EXPONENT_STABILITY, [row for _, rows in _along(subject, EXPONENT_STABILITY) for row in rows])


def _by_model(subject: Subject, axis: str, mode: str, key: str, title: str) -> Iterator[Figure]:
    """A plot of ``key`` along an axis for each of the first settings, with a curve for each model."""
    settings: dict[str, list[Row]] = {}
    rows = subject.rows(SWEEP_CURVES.name, axis=axis, mode=mode)
    for row in sorted(rows, key=lambda each: (each["params_millions_effective"] or 0, each["value"])):
        settings.setdefault(_with_setting(row)["setting"], []).append(row)
    low, high = (f"{key.removesuffix('_ms')}_ci_{end}" for end in ("low", "high"))
    for at, setting in enumerate(sorted(settings, key=in_order)[:_MOST_PLOTS], start=1):
        group = settings[setting]
        plot = CurvePlot(
            name=f"{key.replace('_', '-')}-by-{axis.replace('_', '-')}-{at}",
            alt=f"{title} against {AXIS_WORDS[axis]} on {setting}, a curve for each model.",
            x=Axis(title=AXIS_WORDS[axis], log=True),
            y=Axis(title=title, log=True),
            curves=_curves(group, [str(row["model"]) for row in group], "value", key, low, high),
            title=setting,
        )
        yield Figure(plot=plot, caption=f"{title[:1].upper()}{title[1:]} against {AXIS_WORDS[axis]} ({setting}).")


def _clients(subject: Subject) -> Iterator[Figure]:
    """Throughput against clients; its table stands under Concurrency."""
    rows = subject.rows(CONCURRENCY_THROUGHPUT.name)
    if rows:
        labels = [f"{row['model']} on {row['backend']}, {row['scenario']}" for row in rows]
        keys = (f"output_tokens_per_s_{figure}" for figure in ("median", "ci_low", "ci_high"))
        plot = CurvePlot(
            name="throughput-by-clients",
            alt="Output tokens/s against the number of clients, a curve for each model.",
            x=Axis(title="clients", log=True),
            y=Axis(title="output tokens/s", log=True),
            curves=_curves(rows, labels, "concurrency", *keys),
        )
        yield Figure(plot=plot, caption="Throughput against clients, with t intervals over groups of calls.")


def _curves(rows: Sequence[Row], labels: Sequence[str], x: str, y: str, *ends: str) -> tuple[Curve, ...]:
    """A curve for each label, or where they are too many for one plot some at even steps, first and last included."""
    curves: dict[str, list[Point]] = {}
    for label, row in zip(labels, rows, strict=True):
        interval: dict[str, Any] = dict(zip(("low", "high"), (row[end] for end in ends), strict=True))
        curves.setdefault(label, []).append(Point(label=label, x=row[x], y=row[y], **interval))
    names = list(curves)
    if len(names) > _MOST_CURVES:
        names = [names[round(at * (len(names) - 1) / (_MOST_CURVES - 1))] for at in range(_MOST_CURVES)]
    return tuple(Curve(label=name, points=tuple(curves[name])) for name in names)
