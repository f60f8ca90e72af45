"""Sweeps: decode's share, exponents, rates and times along each axis, and where something changes (TR121 section 6)."""

from collections.abc import Iterator, Sequence

from phaselaw.laws.concurrency import CONCURRENCY_THROUGHPUT
from phaselaw.laws.sweep_relations import DECODE_BY_CONTEXT
from phaselaw.laws.sweeps import EXPONENT_BY_AXIS, EXPONENT_STABILITY, SWEEP_CHANGES, SWEEP_CURVES, held_words, in_order
from phaselaw.report.document import Axis, Block, CurvePlot, curves, display
from phaselaw.report.outline import WORDING
from phaselaw.report.subject import Subject, law_words
from phaselaw.tables import BUDGET, Row, Table, alike

AXIS_WORDS = WORDING["axes"]
_MOST_SENTENCES = 12
_MOST_PLOTS = 3
"""Plots of one kind, each of another setting."""


def sweeps(subject: Subject) -> Iterator[Block]:
    """What changes along each axis that was swept; nothing of a run that was not."""
    lengths = sorted({row["value"] for row in subject.rows(SWEEP_CURVES.name, axis="prompt_tokens")})
    if len(lengths) > 1 and _lengths_swept(subject):
        yield (
            f"Figures of all prompts together are geometric means over prompts of {lengths[0]:g} to {lengths[-1]:g} "
            "tokens; the sweep's tables and the step-time model keep the lengths apart."
        )
    shares = [row | {"named": law_words(row, budget=False)} for row in subject.rows("decode_fraction_summary")]
    yield from decode_share("decode-fraction-by-gen-tokens", shares)
    for axis, rows in _along(subject, SWEEP_CHANGES):
        sentences = _sentences(rows)
        more = len(sentences) - _MOST_SENTENCES
        yield f"Along {AXIS_WORDS[axis]}:"
        rest = (f"{more} more stand in analysis/sweep_changes.csv.",) if more > 0 else ()
        yield (*(f"{sentence}." for sentence in sentences[:_MOST_SENTENCES]), *rest)
    yield from _exponents(subject)
    for axis in ("batch_size", "threads"):
        yield from _by_model(subject, axis, "kv_decode", "tokens_per_s", "generated tokens/s")
    if _lengths_swept(subject):
        yield from _by_model(subject, "prompt_tokens", "prefill", "latency_ms", "prefill (ms)")
    contexts = [row for row in subject.rows(DECODE_BY_CONTEXT.name) if row["value_last"] >= 4 * row["value_first"]]
    if contexts:
        yield display(DECODE_BY_CONTEXT, contexts)
    yield from clients(subject)


def lead(subject: Subject) -> Iterator[str]:
    """What changes along each axis, in a sentence."""
    for axis, rows in _along(subject, SWEEP_CHANGES):
        yield f"Along {AXIS_WORDS[axis]}, {'; '.join(_sentences(rows)[:2])}."


def _lengths_swept(subject: Subject) -> bool:
    """Whether prompt lengths were an axis, rather than TR121's few prompts."""
    # By backend: tokenizers count the same few prompts differently.
    by_backend = alike(subject.rows(EXPONENT_BY_AXIS.name, axis="prompt_tokens"), "backend").values()
    return any(len({row["value"] for row in rows}) > 3 for rows in by_backend) or any(
        str(scenario).startswith("prompt_") for scenario in subject.run.rows["scenario"].unique()
    )


def _along(subject: Subject, table: Table) -> Iterator[tuple[str, list[Row]]]:
    """A table's rows by axis, each with its ``setting`` in words; those along prompts only where lengths were swept."""
    for (axis,), rows in alike(subject.rows(table.name), "axis").items():
        if axis != "prompt_tokens" or _lengths_swept(subject):
            yield axis, [*map(_with_setting, rows)]


def _with_setting(row: Row) -> Row:
    """A row with what was held beside its axis in words."""
    held = held_words(row)
    return row | {"setting": f"{row['backend']}, {held}" if held else str(row["backend"])}


def _sentences(rows: Sequence[Row]) -> list[str]:
    """What changes, end to end first; an exponent that moves in a phase has its row in the table of exponents."""
    worth = [row for row in rows if row["what"] != "the exponent" or row["mode"] == "e2e_kv"] or rows
    ordered = sorted(worth, key=lambda row: row["mode"] not in (None, "e2e_kv"))
    settings = [f"{row['backend']} ({row['held']})" if row["held"] else str(row["backend"]) for row in ordered]
    return [f"{setting}: {row['said']}" for setting, row in zip(settings, ordered, strict=True)]


def decode_share(name: str, rows: Sequence[Row]) -> Iterator[CurvePlot]:
    """TR121's figure: decode's share, median over models, against the tokens generated, a curve for each ``named``.

    Nothing of what was measured at one budget alone.
    """
    series = [mine for mine in alike(rows, "named").values() if len(mine) > 1]
    if not series:
        return
    swept = [each for mine in series for each in mine]
    yield CurvePlot(
        name=name,
        caption="Decode's share of the whole, by backend: median over models, band between quartiles; line at 95 %.",
        x=Axis(title="generated tokens", log=True),
        y=Axis(title="decode / end to end", percent=True),
        curves=curves(swept, "named", BUDGET, "decode_fraction_median", "decode_fraction_p25", "decode_fraction_p75"),
        reference=0.95,
        title=str(swept[0]["named"]) if len(series) == 1 else "",
    )


def _exponents(subject: Subject) -> Iterator[Block]:
    """The exponent of end-to-end latency at each value of each axis, and whether it is stable."""
    for axis, rows in _along(subject, EXPONENT_BY_AXIS):
        known = [row for row in rows if row["mode"] == "e2e_kv" and row["slope_t_ci_low"] is not None]
        title = AXIS_WORDS[axis]
        if known:
            yield CurvePlot(
                name=f"exponent-by-{axis.replace('_', '-')}",
                caption=f"Exponent (end to end) against {title}, with t intervals over models.",
                x=Axis(title=title, log=True),
                y=Axis(title="exponent"),
                curves=curves(known, "setting", "value", "slope", "slope_t_ci_low", "slope_t_ci_high"),
                reference=0.0,
            )
    if stability := [row for _, rows in _along(subject, EXPONENT_STABILITY) for row in rows]:
        yield display(EXPONENT_STABILITY, stability)


def _by_model(subject: Subject, axis: str, mode: str, key: str, title: str) -> Iterator[CurvePlot]:
    """A plot of ``key`` along an axis for each of the first settings, with a curve for each model."""
    rows = (_with_setting(row) for row in subject.rows(SWEEP_CURVES.name, axis=axis, mode=mode) if row[key])
    by_size = sorted(rows, key=lambda row: (row["params_millions_effective"] or 0, row["value"]))
    settings = sorted(alike(by_size, "setting").items(), key=lambda group: in_order(group[0][0]))
    low, high = (f"{key.removesuffix('_ms')}_ci_{end}" for end in ("low", "high"))
    for at, ((setting,), group) in enumerate(settings[:_MOST_PLOTS], start=1):
        yield CurvePlot(
            name=f"{key.replace('_', '-')}-by-{axis.replace('_', '-')}-{at}",
            caption=f"{title[:1].upper()}{title[1:]} against {AXIS_WORDS[axis]} on {setting}, a curve for each model.",
            x=Axis(title=AXIS_WORDS[axis], log=True),
            y=Axis(title=title, log=True),
            curves=curves(group, "model", "value", key, low, high),
            title=setting,
        )


def clients(subject: Subject) -> Iterator[CurvePlot]:
    """Throughput against clients; its table stands under Concurrency."""
    rows = [row for row in subject.ordered(CONCURRENCY_THROUGHPUT.name) if row["output_tokens_per_s_median"]]
    if rows:
        rows = [row | {"named": f"{row['model']} on {row['backend']}, {row['scenario']}"} for row in rows]
        keys = (f"output_tokens_per_s_{figure}" for figure in ("median", "ci_low", "ci_high"))
        yield CurvePlot(
            name="throughput-by-clients",
            caption="Throughput against clients, a curve for each model, with t intervals over groups of calls.",
            x=Axis(title="clients", log=True),
            y=Axis(title="output tokens/s", log=True),
            curves=curves(rows, "named", "concurrency", *keys),
            title="Throughput by clients",
        )


def at_once(subject: Subject) -> Iterator[str]:
    """How many requests a server serves at once, where more clients than that called it."""
    cells = subject.rows(CONCURRENCY_THROUGHPUT.name)
    for (backend,), rows in alike((row for row in cells if row["served_at_once"] is not None), "backend").items():
        most, clients = (max(float(row[name]) for row in rows) for name in ("served_at_once", "concurrency"))
        if most < clients:
            served = "one request at a time" if most <= 1 else f"{most:g} requests at once"
            how = " (OLLAMA_NUM_PARALLEL)" if rows[0]["backend_kind"] == "ollama" else ""
            yield f"{backend} served {served}: others waited for their first token{how}."
