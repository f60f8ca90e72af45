"""Scaling plots: each law with its interval band and its models named, on all scenarios and on each."""

from __future__ import annotations

import re

from phaselaw.report.columns import count, fixed, interval, number, word
from phaselaw.report.document import Block, Figure, Law, Panel, Paragraph, Point, Row, ScalingPlot, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject


def plots(subject: Subject) -> Section:
    """A figure a backend, a panel a phase."""
    figures: list[Block] = []
    for name, laws in subject.laws():
        panels = tuple(_panel(subject, row, str(row["phase"])) for row in laws)
        alt = "; ".join(f"{row['phase']}: exponent {fixed(row['slope'])}, {row['verdict']}" for row in laws)
        figures.append(
            Figure(
                plot=ScalingPlot(
                    name=f"scaling-{file_name(name)}",
                    alt=f"Latency against parameters on {name}. {alt}.",
                    panels=panels,
                ),
                caption=f"{name}: median latency (geometric mean over scenarios) against parameters. Line: least "
                f"squares; band: its {subject.analysis.options.level:.0%} interval.",
            )
        )
    if not figures:
        figures.append(Paragraph("No law could be fitted, so there is nothing to plot."))
    return Section(title="Scaling plots", blocks=tuple(figures))


def by_scenario(subject: Subject) -> Section:
    """The same laws for each scenario alone."""
    rows = tuple(row for row in subject.rows("scaling_fits") if row["scenario"] != "__all__")
    columns = (
        word("backend", "law"),
        word("phase", "phase"),
        word("scenario", "scenario"),
        number("models", "n_models", "measured", count),
        number("exponent", "slope", "derived", fixed),
        interval("interval", "slope_t_ci_low", "slope_t_ci_high"),
        number("R2", "r2", "derived", fixed),
        word("verdict", "verdict"),
    )
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    figures = []
    for name in dict.fromkeys(str(row["law"]) for row in rows):
        mine = [row for row in rows if row["law"] == name and row["mode"] == "e2e_kv"]
        if len(scenarios) > 1 and mine:
            figures.append(
                Figure(
                    plot=ScalingPlot(
                        name=f"scenarios-{file_name(name)}",
                        alt=f"End-to-end latency against parameters on {name}, a panel for each scenario.",
                        panels=tuple(_panel(subject, row, str(row["scenario"])) for row in mine),
                    ),
                    caption=f"{name}: end-to-end latency by scenario.",
                )
            )
    table = Table(caption="Each law on one scenario's medians alone.", columns=columns, rows=rows)
    return Section(title="Scenario by scenario", blocks=(table, *figures))


def _panel(subject: Subject, row: Row, title: str) -> Panel:
    if row["scenario"] == "__all__":
        source, latency = "summary_by_model_backend_mode_agg", "latency_geomean_ms"
        equal = {"mode": row["mode"]}
    else:
        source, latency = "summary_by_model_backend_mode", "latency_median_ms"
        equal = {"mode": row["mode"], "scenario": row["scenario"]}
    points = tuple(
        Point(label=str(model["model"]), x=model["params_millions_effective"], y=model[latency])
        for model in subject.rows(source, **equal)
        if model["law"] == row["law"] and (model["params_millions_effective"] or 0) > 0
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
    return Panel(title=PHASE_WORDS.get(title, title), points=points, law=law)


def file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:80] or "unnamed"
