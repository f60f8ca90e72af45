"""The plots of sweeps: a curve for each backend or model along an axis, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from phaselaw.laws.sweeps import in_order
from phaselaw.report.document import Axis, Curve, CurvePlot, Figure, Point
from phaselaw.tables import Row

AXIS_WORDS = {
    "gen_tokens": "generated tokens",
    "batch_size": "batch size",
    "prompt_tokens": "prompt tokens",
    "threads": "threads",
    "concurrency": "clients",
}

_MOST_CURVES = 6
"""Curves of one plot; of more models, those at even steps of size are drawn."""


def decode_share(rows: Sequence[Row]) -> Iterator[Figure]:
    """TR121's figure: the median over models of decode's share, per backend, against the tokens generated."""
    if len({row["gen_tokens_target"] for row in rows}) < 2:
        return
    batches = len({row["batch_size"] for row in rows}) > 1
    curves: dict[str, list[Point]] = {}
    for row in rows:
        label = f"{row['backend']}, batch {row['batch_size']:g}" if batches else str(row["backend"])
        spread = {"low": row["decode_fraction_p25"], "high": row["decode_fraction_p75"]}
        point = Point(label=label, x=row["gen_tokens_target"], y=row["decode_fraction_median"], **spread)
        curves.setdefault(label, []).append(point)
    plot = CurvePlot(
        name="decode-fraction-by-gen-tokens",
        alt="Decode's share of end-to-end latency against the tokens generated, a curve for each backend.",
        x=Axis(title="generated tokens", log=True),
        y=Axis(title="decode / end to end", percent=True),
        curves=_curves(curves),
        reference=0.95,
    )
    yield Figure(plot=plot, caption="Decode's share: median over models, band between the quartiles; line at 95 %.")


def exponents(axis: str, rows: Sequence[Row]) -> Iterator[Figure]:
    """The exponent of end-to-end latency at each value of an axis; ``rows`` have their ``setting`` in words."""
    curves: dict[str, list[Point]] = {}
    for row in rows:
        if row["mode"] == "e2e_kv" and row["slope_t_ci_low"] is not None:
            ends = {"low": row["slope_t_ci_low"], "high": row["slope_t_ci_high"]}
            point = Point(label=row["setting"], x=row["value"], y=row["slope"], **ends)
            curves.setdefault(row["setting"], []).append(point)
    if not curves:
        return
    title = AXIS_WORDS[axis]
    plot = CurvePlot(
        name=f"exponent-by-{axis.replace('_', '-')}",
        alt=f"The exponent of end-to-end latency in parameters against {title}.",
        x=Axis(title=title, log=True),
        y=Axis(title="exponent"),
        curves=_curves(curves),
        reference=0.0,
    )
    yield Figure(plot=plot, caption=f"Exponent (end to end) against {title}, with t intervals over models.")


def by_model(rows: Sequence[Row], *, axis: str, key: str, title: str) -> Iterator[Figure]:
    """A plot of ``key`` for each setting, the first three of them, with a curve for each model."""
    interval = {"latency_ms": "latency", "tokens_per_s": "tokens_per_s"}[key]
    settings: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda each: (each["params_millions_effective"] or 0, each["value"])):
        settings.setdefault(row["setting"], []).append(row)
    for at, (setting, group) in enumerate(sorted(settings.items(), key=lambda one: in_order(one[0]))[:3], start=1):
        curves: dict[str, list[Point]] = {}
        for row in group:
            ends = {"low": row[f"{interval}_ci_low"], "high": row[f"{interval}_ci_high"]}
            point = Point(label=str(row["model"]), x=row["value"], y=row[key], **ends)
            curves.setdefault(str(row["model"]), []).append(point)
        plot = CurvePlot(
            name=f"{key.replace('_', '-')}-by-{axis.replace('_', '-')}-{at}",
            alt=f"{title} against {AXIS_WORDS[axis]} on {setting}, a curve for each model.",
            x=Axis(title=AXIS_WORDS[axis], log=True),
            y=Axis(title=title, log=True),
            curves=_curves(curves),
            title=setting,
        )
        yield Figure(plot=plot, caption=f"{title[:1].upper()}{title[1:]} against {AXIS_WORDS[axis]} ({setting}).")


def clients(rows: Sequence[Row]) -> Iterator[Figure]:
    """Throughput against clients; its table stands under Concurrency."""
    curves: dict[str, list[Point]] = {}
    for row in rows:
        label = f"{row['model']} on {row['backend']}, {row['scenario']}"
        ends = {"low": row["output_tokens_per_s_ci_low"], "high": row["output_tokens_per_s_ci_high"]}
        point = Point(label=label, x=row["concurrency"], y=row["output_tokens_per_s_median"], **ends)
        curves.setdefault(label, []).append(point)
    if curves:
        plot = CurvePlot(
            name="throughput-by-clients",
            alt="Output tokens/s against the number of clients, a curve for each model.",
            x=Axis(title="clients", log=True),
            y=Axis(title="output tokens/s", log=True),
            curves=_curves(curves),
        )
        yield Figure(plot=plot, caption="Throughput against clients, with t intervals over groups of calls.")


def _curves(points: Mapping[str, Sequence[Point]]) -> tuple[Curve, ...]:
    """A curve for each label, or where they are too many for one plot some at even steps, first and last included."""
    names = list(points)
    if len(names) > _MOST_CURVES:
        names = [names[round(at * (len(names) - 1) / (_MOST_CURVES - 1))] for at in range(_MOST_CURVES)]
    return tuple(Curve(label=name, points=tuple(points[name])) for name in names)
