"""Scaling plots: each law with its interval band and its models named, on all scenarios and on each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from phaselaw.report.columns import bracket, count, doubted, fixed, interval, number, word
from phaselaw.report.document import Block, Figure, Law, Panel, Paragraph, Point, ScalingPlot, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import SUSPECT, Row

_MOST_PANELS = 48
"""Of a section: beyond these the page would take long to draw and to load."""


def plots(subject: Subject) -> Section:
    """A figure a backend, a panel a phase."""
    laws = dict(subject.laws())
    phases, drawn, rest = _drawn([*laws], scenarios=1)
    figures: list[Block] = [*rest]
    for name in drawn:
        panels = tuple(_panel(subject, row, str(row["phase"])) for row in laws[name] if row["mode"] in phases)
        if not panels:
            continue
        figures.append(
            Figure(
                plot=ScalingPlot(
                    name=f"scaling-{file_name(name)}", alt=f"Latency against parameters on {name}", panels=panels
                ),
                caption=f"{name}: median latency (geometric mean over scenarios) against parameters. Line: least "
                f"squares; band: its {subject.analysis.options.level:.0%} interval; dashed: on suspect rows.",
            )
        )
    if not figures:
        figures.append(Paragraph("No law could be fitted, so there is nothing to plot."))
    return Section(title="Scaling plots", blocks=tuple(figures))


def by_scenario(subject: Subject) -> Section:
    """The same laws for each scenario alone: one exponent may hide several."""
    rows = tuple(row for row in subject.ordered("scaling_fits") if row["scenario"] != "__all__")
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("scenario", "scenario"),
        number("models", "n_models", "measured", count),
        number("exponent", "slope", "derived", fixed),
        interval("interval", "slope_t_ci_low", "slope_t_ci_high"),
        number("R2", "r2", "derived", fixed),
        number("rank correlation", "spearman_rho_loglog", "derived", fixed),
        word("verdict", "verdict"),
        *doubted(rows),
    )
    table = Table(caption="Each law on one scenario's medians alone.", columns=columns, rows=rows)
    several = len({row["scenario"] for row in rows}) > 1
    return Section(title="Scenario by scenario", blocks=(table, *(_scenario_figures(subject, rows) if several else ())))


def _scenario_figures(subject: Subject, rows: tuple[Row, ...]) -> Iterator[Block]:
    """A figure a backend and phase."""
    laws = [str(row["law"]) for row in rows]
    phases, drawn, rest = _drawn([*dict.fromkeys(laws)], scenarios=len({row["scenario"] for row in rows}))
    yield from rest
    for law in drawn:
        for mode in phases:
            mine = [row for row in rows if row["law"] == law and row["mode"] == mode]
            if not mine:
                continue
            phase = PHASE_WORDS[mode]
            yield Figure(
                plot=ScalingPlot(
                    name=f"scenarios-{file_name(law)}-{file_name(phase)}",
                    alt=f"Latency of {phase} against parameters on {law}, a panel for each scenario",
                    panels=tuple(_panel(subject, row, str(row["scenario"])) for row in mine),
                ),
                caption=f"{law}: {phase} latency by scenario.",
            )


def _drawn(laws: Sequence[str], *, scenarios: int) -> tuple[tuple[str, ...], Sequence[str], tuple[Paragraph, ...]]:
    """The phases and laws that are drawn, and where those are that are not: of a run with many the page stays small."""
    phases = tuple(PHASE_WORDS) if len(laws) * scenarios * len(PHASE_WORDS) <= _MOST_PANELS else ("e2e_kv",)
    drawn = laws[: max(1, _MOST_PANELS // (scenarios * len(phases)))]
    if len(phases) == len(PHASE_WORDS) and len(drawn) == len(laws):
        return phases, drawn, ()
    which = "" if len(drawn) == len(laws) else f", of {len(drawn)} of {len(laws)} laws"
    rest = "Prefill and decode" if not which else "All others"
    said = f"Drawn are end-to-end latencies alone{which}. {rest} stand in the tables and in analysis/scaling_fits.csv."
    return phases, drawn, (Paragraph(said),)


def _panel(subject: Subject, row: Row, title: str) -> Panel:
    latency = "latency_geomean_ms" if row["scenario"] == "__all__" else "latency_median_ms"
    points = tuple(
        Point(label=str(model["model"]), x=model["params_millions_effective"], y=model[latency])
        for model in subject.models_of(row)
        if (model["params_millions_effective"] or 0) > 0
    )
    law = None
    if row["slope"] is not None:
        law = Law(
            slope=row["slope"],
            log10_intercept=row["log10_intercept"],
            residual_sd_log10=row["residual_sd_log10"],
            log10_params_mean=row["log10_params_mean"],
            log10_params_sum_of_squares=row["log10_params_sum_of_squares"],
            n_models=row["n_models"],
            level=subject.analysis.options.level,
        )
    return Panel(title=title, points=points, law=law, said=_said(row), warning=row.get(SUSPECT) or "")


def _said(row: Row) -> str:
    """A law in a line: its exponent, how well it fits, what that is called."""
    if row["slope"] is None:
        return str(row["verdict"])
    ends = bracket(row["slope_t_ci_low"], row["slope_t_ci_high"])
    return f"exponent {fixed(row['slope'])} {ends}: {row['verdict']}"


def file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:80] or "unnamed"
