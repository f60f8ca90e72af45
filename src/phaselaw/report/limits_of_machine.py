"""How near latency comes to what the machine can do: each cell's wall, with the figures that decided."""

from collections.abc import Iterator, Sequence

from phaselaw.laws.physical_limit import PHYSICAL_LIMIT, limits_in
from phaselaw.report.document import Axis, Block, Curve, CurvePlot, Point, display
from phaselaw.report.subject import Subject
from phaselaw.tables import Row


def limits_of_machine(subject: Subject) -> Iterator[Block]:
    """Bytes, operations, shares of the limits and the wall of each cell; nothing where that is not known."""
    phases = [row for row in subject.rows(PHYSICAL_LIMIT.name) if row["mode"] != "e2e_kv"]
    if phases:
        yield from _figures(subject, phases)
        yield display(PHYSICAL_LIMIT, phases)


def _figures(subject: Subject, rows: Sequence[Row]) -> Iterator[CurvePlot]:
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
        yield CurvePlot(
            name=f"roofline-{device.replace(':', '')}",
            caption=f"Decode against the machine's read bandwidth ({device}). Far below the line a step waits for "
            "something else than memory; near it, fewer or smaller weights are the only way to be faster.",
            x=Axis(title="working set (MB)", log=True),
            y=Axis(title="read bandwidth (GB/s)", log=True),
            curves=(Curve(label="this machine", points=tuple(roof)), *curves),
        )
