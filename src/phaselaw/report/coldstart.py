"""Cold start and early stops: what averages hide (TR121 sections 4.1.1 and 7)."""

from __future__ import annotations

from phaselaw.report.columns import count, fixed, number, percent, word
from phaselaw.report.document import Axis, DotPlot, Figure, Paragraph, Point, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject


def cold_start(subject: Subject) -> Section:
    """Warmup calls against measured ones, as ratios and in milliseconds, with the worst events."""
    rows = subject.rows("warmup_effect_summary")
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
    worst = (
        word("backend", "law"),
        word("phase", "phase"),
        word("model", "worst_model"),
        word("scenario", "worst_scenario"),
        number("first call (ms)", "worst_warmup_ms", "measured"),
        number("measured (ms)", "worst_measured_ms", "measured"),
    )
    blocks = (
        Paragraph(
            "A warmup call's latency over the median of the measured calls of its cell. Warmups are kept as data and "
            "left out of every law. Cold start is a regime of its own where p95 of the ratio is at least 2 and it adds "
            f"at least {subject.analysis.options.cold_start_slo_ms:g} ms."
        ),
        Table(caption="Warmup / measured, over cells.", columns=summary, rows=rows),
        _ratios(subject),
        Table(caption="The worst ratio of each.", columns=worst, rows=rows),
    )
    return Section(title="Cold start", blocks=blocks)


def _ratios(subject: Subject) -> Figure:
    groups: dict[str, list[Point]] = {}
    for row in subject.rows("warmup_effect"):
        label = f"{row['law']}, {PHASE_WORDS.get(row['mode'], row['mode'])}"
        name = f"{row['model']}, {row['scenario']}"
        groups.setdefault(label, []).append(Point(label=name, x=row["warmup_to_measured_ratio"], y=0.0))
    plot = DotPlot(
        name="warmup",
        alt="Ratio of warmup to measured latency of every cell, by backend and phase.",
        axis=Axis(title="warmup latency / measured latency", log=True),
        reference=1.0,
        rows=tuple((label, tuple(points)) for label, points in groups.items()),
    )
    return Figure(plot=plot, caption="Every cell's warmup against its measured calls; 1 is no cold start.")


def early_stops(subject: Subject) -> Section | None:
    """Models that stopped before the budget; ``None`` where the engines never stop early."""
    rows = subject.rows("ollama_early_stop_summary")
    if not rows:
        return None
    columns = (
        word("backend", "backend"),
        word("model", "model"),
        word("scenario", "scenario"),
        number("calls", "n", "measured", count),
        number("tokens asked", "gen_tokens_target", "assumed", count),
        number("median tokens generated", "gen_tokens_raw_median", "measured", count),
        number("stopped early", "early_stop_rate", "derived", percent),
        word("usual reason", "done_reason_mode"),
    )
    blocks = (
        Paragraph(
            "Where a model stopped early, its decode is scaled to the tokens asked for, at the pace that was seen: "
            "otherwise a model that says less would look faster."
        ),
        Table(caption="Early stops by model and scenario.", columns=columns, rows=rows),
        Table(
            caption="Exponents without the calls that stopped early.",
            columns=(
                word("backend", "law"),
                word("phase", "phase"),
                number("models", "n_models", "measured", count),
                number("exponent", "slope", "derived", fixed),
                number("R2", "r2", "derived", fixed),
                word("verdict", "verdict"),
            ),
            rows=subject.rows("scaling_fits_length_limited"),
        ),
    )
    return Section(title="Early stops", blocks=blocks)
