"""Scaling plots, and what explains a model's latency: its parameters, its shape, or an overhead (TR121 5, A)."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from phaselaw.laws import overhead, scaling, structure
from phaselaw.laws.noise import ALL
from phaselaw.report.document import Block, Figure, Panel, Point, ScalingLaw, ScalingPlot, Section, section
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import SUSPECT, Row, bracket, fixed

_MOST_PANELS = 48
"""Of a section: beyond these the page would take long to draw and to load."""


def plots(subject: Subject) -> Section:
    """A figure a backend, a panel a phase."""
    laws = dict(subject.laws())
    phases, drawn, rest = _drawn([*laws], scenarios=1)
    figures: list[Block] = []
    for name in drawn:
        panels = tuple(_panel(subject, row, str(row["phase"])) for row in laws[name] if row["mode"] in phases)
        if panels:
            alt = f"Latency against parameters on {name}"
            figures.append(
                Figure(
                    plot=ScalingPlot(name=f"scaling-{file_name(name)}", alt=alt, panels=panels),
                    caption=f"{name}: median latency (geometric mean over scenarios) against parameters. Line: least "
                    f"squares; band: its {subject.analysis.options.level:.0%} interval; dashed: on suspect rows.",
                )
            )
    none = None if figures or rest else "No law could be fitted, so there is nothing to plot."
    return section("Scaling plots", rest, *figures, none)


def by_scenario(subject: Subject) -> Section:
    """The same laws for each scenario alone: one exponent may hide several."""
    rows = tuple(row for row in subject.ordered("scaling_fits") if row["scenario"] != ALL)
    several = len({row["scenario"] for row in rows}) > 1
    figures = _scenario_figures(subject, rows) if several else ()
    return section("Scenario by scenario", subject.table(scaling.SCALING_FITS, rows), *figures)


def _scenario_figures(subject: Subject, rows: Sequence[Row]) -> Iterator[str | Block | None]:
    """A figure a backend and phase."""
    laws = [*dict.fromkeys(str(row["law"]) for row in rows)]
    phases, drawn, rest = _drawn(laws, scenarios=len({row["scenario"] for row in rows}))
    yield rest
    for law, mode in itertools.product(drawn, phases):
        mine = [row for row in rows if row["law"] == law and row["mode"] == mode]
        if mine:
            phase = PHASE_WORDS[mode]
            plot = ScalingPlot(
                name=f"scenarios-{file_name(law)}-{file_name(phase)}",
                alt=f"Latency of {phase} against parameters on {law}, a panel for each scenario",
                panels=tuple(_panel(subject, row, str(row["scenario"])) for row in mine[:_MOST_PANELS]),
            )
            yield Figure(plot=plot, caption=f"{law}: {phase} latency by scenario.")


def _drawn(laws: Sequence[str], *, scenarios: int) -> tuple[tuple[str, ...], Sequence[str], str | None]:
    """The phases and laws that are drawn, and where those are that are not: of a run with many the page stays small."""
    phases = tuple(PHASE_WORDS) if len(laws) * scenarios * len(PHASE_WORDS) <= _MOST_PANELS else ("e2e_kv",)
    drawn = laws[: max(1, _MOST_PANELS // (scenarios * len(phases)))]
    if len(phases) == len(PHASE_WORDS) and len(drawn) == len(laws):
        return phases, drawn, None
    which = "" if len(drawn) == len(laws) else f", of {len(drawn)} of {len(laws)} laws"
    rest = "Prefill and decode" if not which else "All others"
    drawn_are = f"Drawn are end-to-end latencies alone{which}."
    return phases, drawn, f"{drawn_are} {rest} stand in the tables and in analysis/scaling_fits.csv."


def _panel(subject: Subject, row: Row, title: str) -> Panel:
    latency = "latency_geomean_ms" if row["scenario"] == ALL else "latency_median_ms"
    points = tuple(
        Point(label=str(model["model"]), x=model["params_millions_effective"], y=model[latency])
        for model in subject.models_of(row)
        if (model["params_millions_effective"] or 0) > 0
    )
    law = None
    if row["slope"] is not None:
        parts: Row = {field.name: row.get(field.name) for field in dataclasses.fields(ScalingLaw)}
        law = ScalingLaw(**parts | {"level": subject.analysis.options.level})
    return Panel(title=title, points=points, law=law, said=_in_a_line(row), warning=row.get(SUSPECT) or "")


def _in_a_line(row: Row) -> str:
    """A law in a line: its exponent, how well it fits, what that is called."""
    if row["slope"] is None:
        return str(row["verdict"])
    ends = bracket(row["slope_t_ci_low"], row["slope_t_ci_high"])
    return f"exponent {fixed(row['slope'])} {ends}: {row['verdict']}"


def file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:80] or "unnamed"


def architecture(subject: Subject) -> Section | None:
    """Each model's layers and width, and how latency goes with them; ``None`` where no layers are known (TR121 A)."""
    models = subject.rows(structure.MODEL_ARCHITECTURE.name)
    if not models:
        return None
    return section(
        "Model structure",
        "Parameter counts hide shape: a deep, narrow model takes more sequential steps a token than a shallow, wide "
        "one of the same size. With so few models only a rank correlation near 1 says much, and of many p-values one "
        "in twenty falls below 0.05 by chance.",
        subject.table(
            structure.MODEL_ARCHITECTURE, sorted(models, key=lambda row: float(row["params_millions_effective"] or 0))
        ),
        subject.table(structure.ARCHITECTURE_CORRELATIONS),
    )


def predictors(subject: Subject) -> Section:
    """Parameters, depth, width and bytes compared by how well each predicts a model left out."""
    title = "Which property explains latency"
    if not subject.rows(structure.STRUCTURE_PREDICTORS.name):
        return section(title, subject.why_not(structure.STRUCTURE_PREDICTORS))
    return section(
        title,
        "Each model is left out in turn and predicted from the others. The typical error is a factor: at 1.5 x a "
        "prediction is usually off by half. 'mean' predicts the others' geometric mean, whatever the model: a "
        "property that does no better explains nothing.",
        subject.table(structure.STRUCTURE_PREDICTORS),
        subject.table(structure.MULTIVARIATE_FITS),
    )


def overhead_and_compute(subject: Subject) -> Section:
    """The part of latency that does not shrink with the model."""
    rows = subject.ordered(overhead.OVERHEAD_COMPUTE_FITS.name)
    # In a + b P the exponent is 1 by definition: it has no interval.
    rows = tuple(row if row["s"] is not None else row | {"relative_s_ci_low": None} for row in rows)
    return section(
        "Overhead and compute",
        "latency = a + b P^s, fitted in relative error. With few models the split is often not determined: then the "
        "interval of the share reaches from 0 to 100 %, and no conclusion should rest on it. TR121's least squares in "
        "milliseconds stand in analysis/overhead_compute_fits.csv.",
        subject.table(overhead.OVERHEAD_COMPUTE_FITS, rows),
    )
