"""How latency grows with size and what governs it, drawn and in tables (TR121 5)."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import special

from phaselaw.laws import decisions, overhead, scaling
from phaselaw.laws.physical_limit import PHYSICAL_LIMIT, limits_in
from phaselaw.laws.regression import Floats
from phaselaw.records import ALL
from phaselaw.report.document import Axis, Block, Curve, CurvePlot, Panels, Point, Table, display
from phaselaw.report.outline import WORDING
from phaselaw.report.subject import Subject
from phaselaw.tables import SUSPECT, Row, alike, digits, fixed, in_full

_MOST_PANELS = 12
"""Beyond these the page would take long to draw and to load."""
_PARAMS, _LATENCY = Axis(title="parameters (millions)", log=True), Axis(title="median latency (ms)", log=True)
_CAPTION = (
    "Median latency against parameters by phase. Line: least squares; band: its interval; dashed: on suspect rows."
)


def picture(subject: Subject) -> Panels | None:
    """A panel a backend, its phases in one; ``None`` without laws."""
    panels = [by_phase(subject, name, laws) for (name,), laws in alike(subject.laws(), "law").items()]
    rest = len(panels) - _MOST_PANELS
    caption = f"{_CAPTION} {rest} more are in the tables alone." if rest > 0 else _CAPTION
    return Panels(name="scaling", caption=caption, panels=tuple(panels[:_MOST_PANELS])) if panels else None


def by_phase(subject: Subject, title: str, laws: Sequence[Row]) -> CurvePlot:
    """Latency against parameters with the law of each phase; the models are named at their end-to-end latency."""
    curves = [curve for at, law in enumerate(laws) for curve in _curves(subject, law, at, law is laws[-1])]
    suspect = dict.fromkeys(part for law in laws if law.get(SUSPECT) for part in law[SUSPECT].split(", "))
    return CurvePlot(
        name="latency-by-phase",
        caption=_CAPTION,
        x=_PARAMS,
        y=_LATENCY,
        curves=tuple(curves),
        title=title,
        warning=", ".join(suspect),
    )


def _curves(subject: Subject, law: Row, colour: int, named: bool) -> Iterator[Curve]:
    """A law between the smallest and the largest model, with its band; and the models that it was fitted to."""
    models_of = subject.rows("summary_by_model_backend_mode_agg", mode=law["mode"], law=law["law"])
    known = [row for row in models_of if (row["params_millions_effective"] or 0) > 0]
    points = tuple(
        Point(label=row["model"], x=row["params_millions_effective"], y=row["latency_geomean_ms"]) for row in known
    )
    models = Curve(label="", points=points, joined=False, named=named, colour=colour)
    told = f"{law['phase']}: {law['verdict']}"
    if law["slope"] is not None and points:
        sizes = [math.log10(point.x) for point in points]
        at = np.linspace(min(sizes), max(sizes), 24)
        line, half = law["log10_intercept"] + law["slope"] * at, band(law, at, subject.analysis.options.level)
        shown = {"x": at, "y": line} | ({} if half is None else {"low": line - half, "high": line + half})
        rows = (10 ** np.stack(list(shown.values()), axis=1)).tolist()
        drawn = tuple(Point(label="", **dict(zip(shown, row, strict=True))) for row in rows)
        told = f"{law['phase']}: 10 x as big, {digits(10 ** min(law['slope'], 99.0), 2)} x as long"
        yield Curve(label=told, points=drawn, dots=False, dashed=bool(law.get(SUSPECT)), colour=colour)
    yield models


def band(law: Row, log10_params: Floats, level: float) -> Floats | None:
    """Half the width, in log10 of latency, of the interval of the law's line; ``None`` without degrees of freedom."""
    degrees, squares = law["n_models"] - 2, law["log10_params_sum_of_squares"]
    if degrees < 1 or law["residual_sd_log10"] is None or not squares > 0:
        return None
    spread = 1 / law["n_models"] + (log10_params - law["log10_params_mean"]) ** 2 / squares
    half: Floats = special.stdtrit(degrees, 0.5 + level / 2) * law["residual_sd_log10"] * np.sqrt(spread)
    return half


def by_scenario(subject: Subject) -> Iterator[Table]:
    """The laws of each scenario alone."""
    rows = [row for row in subject.ordered("scaling_fits") if row["scenario"] != ALL]
    if any(row["slope"] is not None for row in rows):
        yield subject.table(scaling.SCALING_FITS, rows)


def overhead_and_compute(subject: Subject) -> Iterator[Table]:
    """The part of latency that does not shrink with the model."""
    rows = subject.ordered(overhead.OVERHEAD_COMPUTE_FITS.name)
    # In a + b P the exponent is 1 by definition: it has no interval.
    yield subject.table(
        overhead.OVERHEAD_COMPUTE_FITS,
        [row if row["s"] is not None else row | {"relative_s_ci_low": None} for row in rows],
    )
    lines = [row for row in rows if row["fit"] == overhead.LINEAR and row["r2"] is not None]
    if lines:
        said = "TR121's latency = a + b P, least squares in ms (5.2.1): descriptive, the largest models decide it."
        shows = "backend mode n_models a_ms b_ms_per_million_params r2"
        yield subject.table(overhead.OVERHEAD_COMPUTE_FITS, lines, caption=said, shows=shows)


def exponents(subject: Subject) -> Iterator[Block]:
    """One exponent a backend and phase."""
    rows = subject.laws()
    if all(row["slope"] is None for row in rows):
        return
    yield subject.table(
        scaling.SCALING_FITS,
        rows,
        caption=f"Exponents by backend and phase, with {in_full(subject.analysis.options.level)} intervals.",
        shows="backend mode n_models slope slope_t_ci_low r2 spearman_rho_loglog verdict slope_without "
        "slope_hc2_ci_low slope_ci_low tr121_verdict",
    )
    noise = [row for row in rows if row.get("slope_call_noise_se") is not None]
    if noise:
        worst = max(noise, key=lambda row: row["slope_call_noise_se"])
        yield (
            f"Of an exponent's uncertainty, the scatter of calls is at most {fixed(worst['slope_call_noise_se'], 4)} "
            f"(standard error; {worst['law']}, {worst['phase']}); the rest is how models differ."
        )


def regimes(subject: Subject) -> Iterator[Table]:
    """What governs latency on each backend, by rule, with the figures that decided."""
    rows = subject.ordered(decisions.REGIMES.name)
    if any(row["regime"] != decisions.UNKNOWN for row in rows):
        yield subject.table(decisions.REGIMES, with_meaning(rows))


def with_meaning(rows: Iterable[Row]) -> list[Row]:
    """Rows of ``regimes``, each with what its regime means."""
    return [row | {"meaning": WORDING["regimes"][row["regime"]]} for row in rows]


def limits_of_machine(subject: Subject) -> Iterator[Block]:
    """How near latency comes to what the machine can do: each cell's wall, with the figures that decided."""
    phases = [row for row in subject.rows(PHYSICAL_LIMIT.name) if row["mode"] != "e2e_kv"]
    limits, decodes = limits_in(subject.run.manifest), [row for row in phases if row["mode"] == "kv_decode"]
    # For each device: the bandwidth that decode reaches against the machine's, by working-set size.
    for (device,), of_device in alike(decodes, "device").items():
        known = limits.device(device) if limits else None
        roof = [
            Point(label="read bandwidth", x=at.working_set_bytes / 1e6, y=rate.median, low=rate.p25, high=rate.p75)
            for at in (known.read if known else ())
            for rate in (at.gb_per_s,)
        ]
        if not roof:
            continue
        measured = []
        for (law,), rows in alike(of_device, "law").items():
            places = ((row, row["working_set_mb"], row["bandwidth_gb_per_s"]) for row in rows)
            points = tuple(Point(label=f"{row['model']}, {row['scenario']}", x=x, y=y) for row, x, y in places)
            measured.append(Curve(label=law, joined=False, points=points))
        yield CurvePlot(
            name=f"roofline-{device.replace(':', '')}",
            caption=f"Decode against the machine's read bandwidth ({device}). Far below the line a step waits for "
            "something else than memory; near it, fewer or smaller weights are the only way to be faster.",
            x=Axis(title="working set (MB)", log=True),
            y=Axis(title="read bandwidth (GB/s)", log=True),
            curves=(Curve(label="this machine", points=tuple(roof)), *measured),
        )
    if phases:
        yield display(PHYSICAL_LIMIT, phases)
