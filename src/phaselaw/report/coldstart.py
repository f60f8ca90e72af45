"""Cold start and early stops: what averages hide (TR121 sections 4.1.1 and 7)."""

from __future__ import annotations

from phaselaw.report.columns import count, doubted, fixed, interval, number, percent, word
from phaselaw.report.document import Axis, Block, DotPlot, Figure, Paragraph, Point, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import Row

_WORST = 5


def cold_start(subject: Subject) -> Section:
    """Warmup calls against measured ones, as ratios and in milliseconds, with the worst events."""
    rows = subject.ordered("warmup_effect_summary")
    if not rows:
        note = subject.analysis.notes.get("warmup_effect", "no warmup calls")
        return Section(title="Cold start", blocks=(Paragraph(f"Not computed: {note}."),))
    summary = (
        word("backend", "law"),
        word("phase", "phase"),
        number("cells", "n_cells", "measured", count),
        number("median ratio", "ratio_median", "derived"),
        number("p95", "ratio_p95", "derived"),
        number("worst", "ratio_max", "derived"),
        number("p95 added (ms)", "added_ms_p95", "derived"),
        number("most added (ms)", "added_ms_max", "derived"),
    )
    blocks: list[Block] = [
        Paragraph(
            "A warmup call's latency over the median of the measured calls of its cell. Warmups are kept as data and "
            "left out of every law. Cold start is a regime of its own where p95 of the ratio is at least 2 and p95 of "
            f"what it adds at least {subject.analysis.options.cold_start_slo_ms:g} ms."
        ),
        Table(caption="Warmup / measured, over cells.", columns=(*summary, *doubted(rows)), rows=rows),
        _ratios(subject),
        _worst(subject),
    ]
    return Section(title="Cold start", blocks=(*blocks, *_loads(subject)))


def _worst(subject: Subject) -> Table:
    """The events that cost most: a ratio hides how little a fast model loses, and a mean hides them all."""
    by_added = sorted(
        (row for row in subject.ordered("warmup_effect") if row["warmup_minus_measured_ms"] > 0),
        key=lambda row: -float(row["warmup_minus_measured_ms"]),
    )
    rows = tuple(row for phase in PHASE_WORDS for row in [r for r in by_added if r["mode"] == phase][:_WORST])
    return Table(
        caption=f"The worst events in milliseconds, the {_WORST} of each phase that add most.",
        columns=(
            word("phase", "phase"),
            word("backend", "law"),
            word("model", "model"),
            word("scenario", "scenario"),
            number("first call (ms)", "warmup_median_ms", "measured"),
            number("measured (ms)", "measured_median_ms", "measured"),
            number("added (ms)", "warmup_minus_measured_ms", "derived"),
            number("ratio", "warmup_to_measured_ratio", "derived"),
            *doubted(rows),
        ),
        rows=rows,
    )


def _loads(subject: Subject) -> tuple[Block, ...]:
    """Loading told apart from the first prefill, where a server reports it (TR121 7.1.1)."""
    rows = subject.ordered("ollama_warmup_breakdown")
    if not rows:
        return ()
    columns = (
        word("backend", "law"),
        word("model", "model"),
        word("scenario", "scenario"),
        number("cold prefill (ms)", "warmup_prefill_infer_median_ms", "measured"),
        number("cold load (ms)", "warmup_load_median_ms", "measured"),
        number("warm prefill (ms)", "measured_prefill_infer_median_ms", "measured"),
        number("warm load (ms)", "measured_load_median_ms", "measured"),
        number("ratio, prefill", "warmup_ratio_infer_only", "derived"),
        number("ratio with load", "warmup_ratio_total_including_load", "derived"),
        *doubted(rows),
    )
    said = Paragraph(
        "On a server a cold first token waits for loading too, which depends on whether the model was still resident: "
        "a setting, not a property of the model."
    )
    return said, Table(caption="Cold start taken apart: loading and the first prefill.", columns=columns, rows=rows)


def _ratios(subject: Subject) -> Figure:
    groups: dict[str, list[Point]] = {}
    for row in subject.ordered("warmup_effect"):
        label = f"{row['law']}, {PHASE_WORDS.get(row['mode'], row['mode'])}"
        name = f"{row['model']}, {row['scenario']}"
        groups.setdefault(label, []).append(Point(label=name, x=row["warmup_to_measured_ratio"], y=0.0))
    plot = DotPlot(
        name="warmup",
        alt="Ratio of warmup to measured latency of every cell, a row for each backend and phase",
        axis=Axis(title="warmup latency / measured latency", log=True),
        reference=1.0,
        rows=tuple((label, tuple(points)) for label, points in groups.items()),
    )
    return Figure(plot=plot, caption="Every cell's warmup against its measured calls; 1 (dotted) is no cold start.")


def early_stops(subject: Subject) -> Section | None:
    """Models that stopped before the budget; ``None`` where the engines never stop early (TR121 4.1.1)."""
    rows = subject.ordered("ollama_early_stop_summary")
    if not rows:
        return None
    limited = subject.ordered("scaling_fits_length_limited")
    blocks = (
        Paragraph(
            "Where a model stopped early, its decode is scaled to the tokens asked for, at the pace that was seen: "
            "otherwise a model that says less would look faster. The laws without those calls stand below: where they "
            "agree with the laws above, the scaling made no exponent."
        ),
        _stops_by_scenario(rows),
        Table(
            caption="Early stops by model and scenario.",
            columns=(
                word("backend", "law"),
                word("model", "model"),
                word("scenario", "scenario"),
                number("calls", "n", "measured", count),
                number("tokens asked", "gen_tokens_target", "assumed", count),
                number("median tokens generated", "gen_tokens_raw_median", "measured", count),
                number("stopped early", "early_stop_rate", "derived", percent),
                word("usual reason", "done_reason_mode"),
            ),
            rows=rows,
        ),
        Table(
            caption="Exponents without the decodes that stopped early.",
            columns=(
                word("backend", "law"),
                word("phase", "phase"),
                number("models", "n_models", "measured", count),
                number("exponent", "slope", "derived", fixed),
                interval("interval", "slope_t_ci_low", "slope_t_ci_high"),
                number("R2", "r2", "derived", fixed),
                word("verdict", "verdict"),
                *doubted(limited),
            ),
            rows=limited,
        ),
    )
    return Section(title="Early stops", blocks=blocks)


def _stops_by_scenario(rows: tuple[Row, ...]) -> Table:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["law"]), str(row["scenario"])), []).append(row)
    merged = tuple(
        {
            "law": law,
            "scenario": scenario,
            "models": len(mine),
            "calls": sum(row["n"] for row in mine),
            "rate": sum(row["n"] * (row["early_stop_rate"] or 0) for row in mine) / sum(row["n"] for row in mine),
        }
        for (law, scenario), mine in groups.items()
    )
    return Table(
        caption="Early stops by scenario, over models.",
        columns=(
            word("backend", "law"),
            word("scenario", "scenario"),
            number("models", "models", "measured", count),
            number("calls", "calls", "measured", count),
            number("stopped early", "rate", "derived", percent),
        ),
        rows=merged,
    )
