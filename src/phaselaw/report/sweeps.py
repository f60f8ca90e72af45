"""Sweeps: decode's share, exponents, rates and times along each axis, and where something changes (TR121 section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from phaselaw.laws.sweeps import held_words
from phaselaw.report import sweep_plots as plots
from phaselaw.report.columns import count, digits, doubted, fixed, interval, number, percent, word
from phaselaw.report.document import Block, Bullets, Paragraph, Section, Table
from phaselaw.report.subject import Subject
from phaselaw.report.sweep_plots import AXIS_WORDS
from phaselaw.tables import Row

_MOST_SENTENCES = 12


def lead(subject: Subject) -> tuple[str, ...]:
    """What the sweeps say, in a sentence for each axis, for the head of the report."""
    said = list(_mean_over_lengths(subject))
    for axis, rows in _by_axis(subject.rows("sweep_changes")):
        if axis == "prompt_tokens" and not _is_swept(subject):
            continue
        sentences = _sentences(rows)
        more = f" ({len(sentences) - 2} more in the report)" if len(sentences) > 2 else ""
        said.append(f"Along {AXIS_WORDS[axis]}, {'; '.join(sentences[:2])}{more}.")
    return tuple(said)


def _mean_over_lengths(subject: Subject) -> Iterator[str]:
    """A word of warning where prompt lengths were swept, since the laws' rows of all prompts are means over them."""
    lengths = sorted({row["value"] for row in subject.rows("sweep_curves", axis="prompt_tokens")})
    if _is_swept(subject) and len(lengths) > 1:
        yield (
            f"Figures of all prompts together are geometric means over prompts of {lengths[0]:g} to {lengths[-1]:g} "
            "tokens; the sweep's tables and the step-time model keep the lengths apart."
        )


def sweeps(subject: Subject) -> Section | None:
    """The section of a run that was swept; ``None`` for one that was not."""
    blocks: list[Block] = [
        *plots.decode_share(subject.rows("decode_fraction_summary")),
        *_changes(subject),
        *_exponents(subject),
        *_rates(subject),
    ]
    blocks += [*_lengths(subject), *plots.clients(subject.rows("concurrency_throughput"))]
    return Section(title="Sweeps", blocks=(*blocks, *_step_times(subject))) if blocks else None


def _is_swept(subject: Subject) -> bool:
    """Whether prompt lengths were an axis, rather than TR121's few prompts."""
    lengths: dict[str, set[float]] = {}
    for row in subject.rows("exponent_by_axis", axis="prompt_tokens"):
        # By backend: tokenizers count the same few prompts differently.
        lengths.setdefault(row["backend"], set()).add(row["value"])
    return any(len(values) > 3 for values in lengths.values()) or any(
        str(scenario).startswith("prompt_") for scenario in subject.run.rows["scenario"].unique()
    )


def _by_axis(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for axis in dict.fromkeys(row["axis"] for row in rows):
        yield str(axis), [row for row in rows if row["axis"] == axis]


def _with_setting(row: Row) -> Row:
    """A row with what was held beside its axis in words."""
    held = held_words(row)
    return row | {"setting": f"{row['backend']}, {held}" if held else str(row["backend"])}


def _changes(subject: Subject) -> Iterator[Block]:
    for axis, rows in _by_axis(subject.rows("sweep_changes")):
        if axis == "prompt_tokens" and not _is_swept(subject):
            continue
        sentences = _sentences(rows)
        more = len(sentences) - _MOST_SENTENCES
        yield Paragraph(f"Along {AXIS_WORDS[axis]}:")
        rest = (f"{more} more stand in analysis/sweep_changes.csv.",) if more > 0 else ()
        yield Bullets((*(f"{sentence}." for sentence in sentences[:_MOST_SENTENCES]), *rest))


def _sentences(rows: Sequence[Row]) -> list[str]:
    """What changes, end to end first; an exponent that moves in a phase has its row in the table of exponents."""
    worth = [row for row in rows if row["what"] != "the exponent" or row["mode"] == "e2e_kv"] or rows
    ordered = sorted(worth, key=lambda row: row["mode"] not in (None, "e2e_kv"))
    settings = [f"{row['backend']} ({row['held']})" if row["held"] else str(row["backend"]) for row in ordered]
    return [f"{setting}: {row['said']}" for setting, row in zip(settings, ordered, strict=True)]


def _exponents(subject: Subject) -> Iterator[Block]:
    for axis, rows in _by_axis(subject.rows("exponent_by_axis")):
        if axis == "prompt_tokens" and not _is_swept(subject):
            continue
        yield from plots.exponents(axis, [_with_setting(row) for row in rows])
    prompts = _is_swept(subject)
    stability = [row for row in subject.rows("exponent_stability") if prompts or row["axis"] != "prompt_tokens"]
    if stability:
        columns = (
            word("axis", "axis"),
            word("setting", "setting"),
            word("phase", "phase"),
            number("models", "n_models", "measured", count),
            number("from", "value_first", "measured", count),
            number("exponent there", "exponent_first", "derived", fixed),
            number("to", "value_last", "measured", count),
            number("exponent there", "exponent_last", "derived", fixed),
            number("change per tenfold", "change_per_tenfold", "derived", fixed),
            interval("95 % CI", "change_ci_low", "change_ci_high"),
            word("verdict", "stability"),
            *doubted(stability),
        )
        yield Table(
            caption="Is the exponent stable? Each model's own slope along the axis, against its size: a t interval "
            "over models. What puts a model off the law cancels. A trend is tested, at 95 % for each row alone.",
            columns=columns,
            rows=tuple(_with_setting(row) for row in stability),
        )


def _rates(subject: Subject) -> Iterator[Block]:
    """Throughput against the batch and against threads: one plot for each backend and what was held."""
    for axis, mode in (("batch_size", "kv_decode"), ("threads", "kv_decode")):
        rows = subject.rows("sweep_curves", axis=axis, mode=mode)
        yield from plots.by_model(
            [_with_setting(row) for row in rows], axis=axis, key="tokens_per_s", title="generated tokens/s"
        )
    fits = subject.rows("decode_by_batch")
    if fits:
        columns = (
            word("backend", "backend"),
            word("model", "model"),
            number("context (tokens)", "tokens", "measured", count),
            number("step (ms)", "constant_ms", "derived"),
            number("and for each sequence (ms)", "per_unit_ms", "derived"),
            interval("95 % CI", "per_unit_ci_low", "per_unit_ci_high", digits),
            number("half of the largest rate at batch", "equal_at", "derived"),
            interval("95 % CI", "equal_at_ci_low", "equal_at_ci_high", digits),
            *doubted(fits),
        )
        yield Table(caption="A decode step against the batch.", columns=columns, rows=fits)


def _lengths(subject: Subject) -> Iterator[Block]:
    """Prefill against the prompt's length, and the decode step against the context."""
    if _is_swept(subject):
        prefills = [_with_setting(row) for row in subject.rows("sweep_curves", axis="prompt_tokens", mode="prefill")]
        yield from plots.by_model(prefills, axis="prompt_tokens", key="latency_ms", title="prefill (ms)")
    fits = subject.rows("prefill_by_length")
    if fits:
        columns = (
            word("backend", "backend"),
            word("model", "model"),
            number("batch", "batch", "measured", count),
            number("ms for each token", "per_token_ms", "derived"),
            number("ms for each pair", "per_pair_ms", "derived"),
            interval("95 % CI", "per_pair_ci_low", "per_pair_ci_high", digits),
            word("the square is", "quadratic"),
            number("its share at the longest", "quadratic_share_at_last", "derived", percent),
            number("half of the whole at (tokens)", "half_at_tokens", "derived"),
            interval("95 % CI", "half_at_ci_low", "half_at_ci_high", digits),
            *doubted(fits),
        )
        yield Table(caption="Prefill against prompt length: attention's square.", columns=columns, rows=fits)
    contexts = [row for row in subject.rows("decode_by_context") if row["value_last"] >= 4 * row["value_first"]]
    if contexts:
        of_context = (
            word("backend", "backend"),
            word("model", "model"),
            number("batch", "batch", "measured", count),
            number("step without context (ms)", "constant_ms", "derived"),
            number("ms for 1,000 tokens", "per_thousand_ms", "derived"),
            word("growth is", "growth"),
            number("as much as all else at (tokens)", "equal_at", "derived"),
            interval("95 % CI", "equal_at_ci_low", "equal_at_ci_high", digits),
        )
        grown = tuple(row | {"per_thousand_ms": 1e3 * row["per_unit_ms"]} for row in contexts)
        yield Table(caption="A decode step against the context.", columns=of_context, rows=grown)


def _step_times(subject: Subject) -> Iterator[Block]:
    """The model that prices and capacities of other shapes stand on."""
    rows = subject.rows("step_time_model")
    columns = (
        word("backend", "backend"),
        word("model", "model"),
        word("phase", "phase"),
        word("form", "form"),
        number("points", "n_points", "measured", count),
        number("off on left-out points (RMS)", "left_out_rms", "derived", _percent),
        number("at most", "left_out_max", "derived", _percent),
        interval("batch", "batch_min", "batch_max", count),
        interval("tokens", "tokens_min", "tokens_max", count),
        *doubted(rows),
    )
    yield Table(
        caption="The step-time model: prefill and decode step by batch and length. It is asked only inside its range; "
        "points left out lie between two others.",
        columns=columns,
        rows=rows,
    )


def _percent(value: float | None) -> str:
    return digits(None) if value is None else percent(value)
