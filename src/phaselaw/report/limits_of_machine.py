"""How near latency comes to what the machine can do: each cell's wall, with the figures that decided; and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from phaselaw.laws.memory import MEMORY_LAWS, MEMORY_PEAKS
from phaselaw.laws.physical_limit import OVERHEAD, PHYSICAL_LIMIT, WALL_SHARE, limits_in
from phaselaw.report.document import Axis, Curve, CurvePlot, Figure, Point, Section, display, section
from phaselaw.report.subject import Subject
from phaselaw.tables import Row, digits


def limits_of_machine(subject: Subject) -> Section:
    """Bytes, operations, shares of the limits and the wall of each cell; or why there are none."""
    title, rows = "The machine's limits", subject.rows(PHYSICAL_LIMIT.name)
    if not rows:
        return section(title, subject.why_not(PHYSICAL_LIMIT))
    phases = [row for row in rows if row["mode"] != "e2e_kv"]
    return section(
        title,
        "What a phase must move and compute at least, from the model's shape, against what this machine can do: "
        "read bandwidth at the cell's own working-set size, and arithmetic by large matrix products. A share is "
        f"the time that limit alone would take over the time that it took. The wall is the limit whose share is "
        f"the larger and at least {WALL_SHARE:.0%}; where neither is, most of the time is overhead: dispatch, "
        "small kernels, waiting. A share above 100 % is shown as it came out.",
        *_figures(subject, phases),
        display(PHYSICAL_LIMIT, phases),
        tuple(_walls(phases)),
    )


def _walls(rows: Sequence[Row]) -> Iterator[str]:
    """The wall of each backend and phase in a sentence, then each cell above the roof with its reason."""
    for law, phase in dict.fromkeys((row["law"], row["phase"]) for row in rows):
        models: dict[str, dict[str, None]] = {}
        for row in rows:
            if (row["law"], row["phase"]) == (law, phase) and row["wall"]:
                models.setdefault(row["wall"], {})[str(row["model"])] = None
        if models:
            yield f"{law}, {phase}. " + "; ".join(f"{wall}: {', '.join(names)}" for wall, names in models.items()) + "."
    worst = min((row for row in rows if row["wall"] == OVERHEAD), key=_larger_share, default=None)
    if worst is not None:
        yield f"Furthest from any limit: {_cell(worst)}: {worst['evidence']}."
    for row in rows:
        if row["above_the_roof"]:
            yield f"Above the roof: {_cell(row)} ({digits(_larger_share(row))} x the limit): {row['above_the_roof']}."


def _cell(row: Row) -> str:
    return f"{row['model']}, {row['scenario']}, {row['phase']}"


def _larger_share(row: Row) -> float:
    return max(row["bandwidth_share"] or 0.0, row["compute_share"] or 0.0)


def _figures(subject: Subject, rows: Sequence[Row]) -> Iterator[Figure]:
    """For each device: the bandwidth that decode reaches against the machine's, by working-set size."""
    limits = limits_in(subject.manifest)
    for device in dict.fromkeys(row["device"] for row in rows):
        of_device = limits.device(device) if limits else None
        roof = [
            Point(label="read bandwidth", x=at.working_set_bytes / 1e6, y=rate.median, low=rate.p25, high=rate.p75)
            for at in (of_device.read if of_device else ())
            for rate in (at.gb_per_s,)
        ]
        cells: dict[str, list[Point]] = {}
        for row in rows:
            if row["device"] == device and row["mode"] == "kv_decode":
                place = {"x": row["working_set_mb"], "y": row["bandwidth_gb_per_s"]}
                cells.setdefault(row["law"], []).append(Point(label=f"{row['model']}, {row['scenario']}", **place))
        if not (roof and cells):
            continue
        curves = (Curve(label=law, joined=False, points=tuple(points)) for law, points in cells.items())
        plot = CurvePlot(
            name=f"roofline-{device.replace(':', '')}",
            alt=f"Read bandwidth of decode against that of the machine ({device}), by working-set size",
            x=Axis(title="working set (MB)", log=True),
            y=Axis(title="read bandwidth (GB/s)", log=True),
            curves=(Curve(label="this machine", points=tuple(roof)), *curves),
        )
        yield Figure(
            plot=plot,
            caption="Decode against the machine's read bandwidth. Far below the line a step waits for something "
            "else than memory; near it, fewer or smaller weights are the only way to be faster.",
        )


def memory(subject: Subject) -> Section:
    """Memory predicted from the model's shape beside the measured peak; or why there is none."""
    rows = subject.rows(MEMORY_PEAKS.name)
    if not rows:
        return section("Memory", subject.why_not(MEMORY_PEAKS))
    return section(
        "Memory",
        "The highest peak of each cell's calls, in MB of 2^20 bytes, beside what the shape predicts. In process "
        "a call's peak holds the weights of every model that is loaded then and what Python and its libraries take; "
        "what a server takes beside its model is not known and is part of the error. Does it fit elsewhere: "
        "phaselaw memory.",
        display(MEMORY_PEAKS, rows),
        subject.table(MEMORY_LAWS),
    )
