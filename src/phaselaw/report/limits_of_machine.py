"""How near latency comes to what the machine can do: each cell's wall, with the figures that decided."""

from __future__ import annotations

from phaselaw.laws.physical_limit import OVERHEAD, WALL_SHARE, limits_in
from phaselaw.machine.limits import DeviceLimits
from phaselaw.report.columns import digits, number, percent, word
from phaselaw.report.document import Axis, Block, Bullets, Curve, CurvePlot, Figure, Paragraph, Point, Section, Table
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import Row

TITLE = "The machine's limits"


def limits_of_machine(subject: Subject) -> Section:
    """Bytes, operations, shares of the limits and the wall of each cell; or why there are none."""
    rows = subject.rows("physical_limit")
    if not rows:
        note = subject.analysis.notes.get("physical_limit", "no limits of the machine are known")
        return Section(title=TITLE, blocks=(Paragraph(f"Not computed: {note}."),))
    phases = tuple(
        row | {"mb_per_token": row["bytes_per_token"] / 1e6, "mflop_per_token": row["flops_per_token"] / 1e6}
        for row in rows
        if row["mode"] != "e2e_kv"
    )
    blocks: list[Block] = [
        Paragraph(
            "What a phase must move and compute at least, from the model's shape, against what this machine can do: "
            "read bandwidth at the cell's own working-set size, and arithmetic by large matrix products. A share is "
            f"the time that limit alone would take over the time that it took. The wall is the limit whose share is "
            f"the larger and at least {WALL_SHARE:.0%}; where neither is, most of the time is overhead: dispatch, "
            "small kernels, waiting. A share above 100 % is shown as it came out."
        ),
        *_figures(subject, phases),
        Table(caption="Each cell against the machine's limits.", columns=_COLUMNS, rows=phases),
        Bullets(_said(phases)),
    ]
    return Section(title=TITLE, blocks=tuple(blocks))


_COLUMNS = (
    word("backend", "law"),
    word("model", "model"),
    word("scenario", "scenario"),
    word("phase", "phase"),
    number("MB read a token", "mb_per_token", "derived"),
    number("MFLOP a token", "mflop_per_token", "derived"),
    number("GB/s", "bandwidth_gb_per_s", "derived"),
    number("machine's GB/s there", "limit_gb_per_s", "measured"),
    number("share", "bandwidth_share", "derived", percent),
    number("GFLOP/s", "compute_gflop_per_s", "derived"),
    number("machine's GFLOP/s", "limit_gflop_per_s", "measured"),
    number("share", "compute_share", "derived", percent),
    word("wall", "wall"),
)


def _said(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The wall of each backend and phase in a sentence, then each cell above the roof with its reason."""
    items = []
    groups = dict.fromkeys((row["law"], row["phase"]) for row in rows)
    for law, phase in groups:
        mine = [row for row in rows if (row["law"], row["phase"]) == (law, phase) and row["wall"]]
        walls = dict.fromkeys(row["wall"] for row in mine)
        parts = [
            f"{wall}: {', '.join(dict.fromkeys(str(row['model']) for row in mine if row['wall'] == wall))}"
            for wall in walls
        ]
        if parts:
            items.append(f"{law}, {phase}. " + "; ".join(parts) + ".")
    worst = min((row for row in rows if row["wall"] == OVERHEAD), key=_larger_share, default=None)
    if worst is not None:
        items.append(f"Furthest from any limit: {worst['model']}, {worst['scenario']}, {worst['phase']}: "
                     f"{worst['evidence']}.")  # fmt: skip
    items += [
        f"Above the roof: {row['model']}, {row['scenario']}, {row['phase']} "
        f"({digits(_larger_share(row))} x the limit): {row['above_the_roof']}."
        for row in rows
        if row["above_the_roof"]
    ]
    return tuple(items)


def _larger_share(row: Row) -> float:
    return max(row["bandwidth_share"] or 0.0, row["compute_share"] or 0.0)


def _figures(subject: Subject, rows: tuple[Row, ...]) -> tuple[Figure, ...]:
    """For each device: the bandwidth that decode reaches against the machine's, by working-set size."""
    limits = limits_in(subject.manifest)
    found = []
    for device in dict.fromkeys(row["device"] for row in rows):
        of_device = None if limits is None else limits.device(device)
        decodes = [row for row in rows if row["device"] == device and row["mode"] == "kv_decode"]
        if of_device is not None and of_device.read and decodes:
            found.append(Figure(plot=_plot(of_device, device, decodes), caption=_CAPTION))
    return tuple(found)


_CAPTION = (
    "Decode against the machine's read bandwidth. Far below the line a step waits for something else than memory; "
    "near it, fewer or smaller weights are the only way to be faster."
)


def _plot(limits: DeviceLimits, device: str, decodes: list[Row]) -> CurvePlot:
    roof = Curve(
        label="this machine",
        points=tuple(
            Point(label="read bandwidth", x=point.working_set_bytes / 1e6, y=point.gb_per_s.median,
                  low=point.gb_per_s.p25, high=point.gb_per_s.p75)
            for point in limits.read
        ),
    )  # fmt: skip
    cells = tuple(
        Curve(
            label=law,
            joined=False,
            points=tuple(
                Point(label=f"{row['model']}, {row['scenario']}", x=row["working_set_mb"], y=row["bandwidth_gb_per_s"])
                for row in decodes
                if row["law"] == law
            ),
        )
        for law in dict.fromkeys(row["law"] for row in decodes)
    )
    return CurvePlot(
        name=f"roofline-{device.replace(':', '')}",
        alt=f"Read bandwidth of {PHASE_WORDS['kv_decode']} against that of the machine ({device}), by working-set size",
        x=Axis(title="working set (MB)", log=True),
        y=Axis(title="read bandwidth (GB/s)", log=True),
        curves=(roof, *cells),
    )


def memory(subject: Subject) -> Section:
    """Memory predicted from the model's shape beside the measured peak; or why there is none."""
    title, rows = "Memory", subject.rows("memory_peaks")
    if not rows:
        note = subject.analysis.notes.get("memory_peaks", "no peak was measured")
        return Section(title=title, blocks=(Paragraph(f"Not computed: {note}."),))
    columns = (
        word("backend", "law"),
        word("model", "model"),
        word("scenario", "scenario"),
        word("memory", "memory"),
        number("runtime", "runtime_mb", "measured"),
        number("other models", "other_weights_mb", "derived"),
        number("weights", "weights_mb", "measured"),
        number("cache", "kv_cache_mb", "derived"),
        number("activations", "activations_mb", "derived"),
        number("predicted", "predicted_mb", "derived"),
        number("measured", "measured_mb", "measured"),
        number("error", "error", "derived", percent),
    )
    said = Paragraph(
        "The highest peak of each cell's calls, in MB of 2^20 bytes, beside what the shape predicts. In process "
        "a call's peak holds the weights of every model loaded by then and what Python and its libraries take; what "
        "a server takes beside its model is not known and is part of the error. Does it fit elsewhere: phaselaw memory."
    )
    return Section(title=title, blocks=(said, Table(caption="Memory of each cell (MB).", columns=columns, rows=rows)))
