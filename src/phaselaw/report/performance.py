"""What was measured: each model's latency and rates, decode's share, cold starts, early stops (TR121 3.5, 4, 6, 7)."""

from __future__ import annotations

from collections.abc import Iterable

from phaselaw import tables as col
from phaselaw.laws import scaling, served, summary, warmup
from phaselaw.laws.checks.frame import suspicions
from phaselaw.report.document import Axis, DotPlot, Figure, Point, Section, display, section
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import LAW, MODEL, SUSPECT, Row, Table, alike

_BY_MODEL = Table(
    caption="Medians over repetitions, geometric means over scenarios. End to end is what a request's user "
    "waits for, where the run has it (request_ms). tok/s counts the tokens of the phase: prompt, "
    "generated, or both.",
    columns=(
        LAW,
        MODEL,
        col.measured("params", "params (M)"),
        col.measured("prefill_ms", "prefill (ms)"),
        col.derived("prefill_rate", "prefill tok/s"),
        col.measured("kv_decode_ms", "decode (ms)"),
        col.derived("kv_decode_rate", "decode tok/s"),
        col.derived("step_ms", "ms a token"),
        col.measured("e2e_kv_ms", "end to end (ms)"),
        col.figure("tokens_per_s", "end to end tok/s", provenance="measured"),
    ),
)
_STOPS_BY_SCENARIO = Table(
    caption="Early stops by scenario, over models.",
    columns=(
        LAW,
        col.words("scenario", "scenario"),
        col.counted("models", "models"),
        col.counted("calls", "calls"),
        col.derived("rate", "stopped early", col.percent),
    ),
)
_WORST = 5


def by_model(subject: Subject) -> Section:
    """One row a model and backend, the phases side by side (TR121 3.5)."""
    merged: dict[tuple[str, str], Row] = {}
    for row in subject.rows(summary.REQUESTS.name):
        mode, rate = row["mode"], row["tokens_per_s_geomean"]
        about = {name: row[name] for name in ("backend", "law", "model")}
        about |= {"params": row["params_millions_effective"], SUSPECT: ""}
        line = merged.setdefault((row["law"], row["model"]), about)
        line |= {f"{mode}_ms": row["latency_geomean_ms"], f"{mode}_rate": rate}
        line[SUSPECT] = suspicions([line[SUSPECT], row.get(SUSPECT)])
        if mode == "kv_decode" and rate:
            line["step_ms"] = 1000 * row["batch_size"] / rate
    for rate in subject.rows("throughput_intervals", mode="e2e_kv"):
        line = merged.get((rate["law"], rate["model"]), {})
        line |= {name: value for name, value in rate.items() if name.startswith("tokens_per_s")}
    return section("Performance by model", display(_BY_MODEL, tuple(merged.values())))


def decode_share(subject: Subject) -> Section | None:
    """Which share of the whole the decode is (TR121 section 6); ``None`` without models that have both phases."""
    rows = subject.rows(summary.DECODE_FRACTION_SUMMARY.name)
    if not rows:
        return None
    models = subject.ordered(summary.DECODE_FRACTION_BY_MODEL.name)
    plot = DotPlot(
        name="decode-share",
        alt="Decode's share of end-to-end latency of each model, a row for each backend",
        axis=Axis(title="decode / end to end", percent=True),
        reference=None,
        rows=_dots(models, "decode_fraction", "law"),
    )
    return section(
        "Decode's share of the whole",
        "Where decode is nearly all of end to end, the fleet is sized by decode tokens/s, and a faster prefill shows "
        "only in the time to the first token.",
        subject.table(summary.DECODE_FRACTION_SUMMARY, rows),
        Figure(plot=plot, caption="Each model's decode as a share of its end-to-end latency."),
    )


def _dots(rows: Iterable[Row], value: str, *by: str) -> tuple[tuple[str, tuple[Point, ...]], ...]:
    """The rows of a dot plot by what names them, with a point a model and scenario."""
    return tuple(
        (", ".join(names), tuple(Point(label=_cell(row), x=row[value], y=0.0) for row in mine))
        for names, mine in alike(rows, *by).items()
    )


def _cell(row: Row) -> str:
    return f"{row['model']}, {row['scenario']}" if "scenario" in row else str(row["model"])


def cold_start(subject: Subject) -> Section:
    """Warmup calls against measured ones, as ratios and in milliseconds, with the worst events."""
    cells = subject.ordered(warmup.WARMUP_EFFECT.name)
    if not cells:
        starts = subject.rows(warmup.COLD_STARTS.name)
        return section(
            "Cold start", subject.table(warmup.COLD_STARTS) if starts else subject.why_not(warmup.WARMUP_EFFECT)
        )
    plot = DotPlot(
        name="warmup",
        alt="Ratio of warmup to measured latency of every cell, a row for each backend and phase",
        axis=Axis(title="warmup latency / measured latency", log=True),
        reference=1.0,
        rows=_dots(cells, "warmup_to_measured_ratio", "law", "phase"),
    )
    # A ratio hides how little a fast model loses, and a mean hides all single events: so the worst in milliseconds.
    added = sorted(cells, key=lambda row: -float(row["warmup_minus_measured_ms"]))
    slower = alike((row for row in added if row["warmup_minus_measured_ms"] > 0), "mode")
    most = [row for mode in PHASE_WORDS for row in slower.get((mode,), [])[:_WORST]]
    worst = f"The worst events in milliseconds, the {_WORST} of each phase that add most."
    loads = subject.ordered(served.WARMUP_BREAKDOWN.name)
    return section(
        "Cold start",
        "First calls as their user waits for them, load included, against warm calls of their cell: of a process, of a "
        "model since its load, and of a cell. One that takes 2 times as long or more and adds at least "
        f"{subject.analysis.options.cold_start_slo_ms:g} ms is unsafe, and one unsafe call makes the cold start a "
        "regime of its own.",
        subject.table(warmup.COLD_STARTS),
        "TR121's rule beside it: a warmup's latency, its load left out, over the median of the measured calls of its "
        "cell; unsafe where both p95 over cells reach these bounds. Warmups are kept as data and left out of every "
        "law.",
        subject.table(warmup.WARMUP_EFFECT_SUMMARY),
        Figure(plot=plot, caption="Every cell's warmup against its measured calls; 1 (dotted) is no cold start."),
        subject.table(warmup.WARMUP_EFFECT, most, caption=worst),
        "On a server a cold first token waits for loading too, which depends on whether the model was still resident: "
        "a setting, not a property of the model."
        if loads
        else None,
        display(served.WARMUP_BREAKDOWN, loads) if loads else None,
    )


def early_stops(subject: Subject) -> Section | None:
    """Models that stopped before the budget; ``None`` where the engines never stop early (TR121 4.1.1)."""
    rows = subject.ordered(served.EARLY_STOP_SUMMARY.name)
    if not rows:
        return None
    by_scenario = []
    for (law, scenario), mine in alike(rows, "law", "scenario").items():
        calls = sum(row["n"] for row in mine)
        early = sum(row["n"] * (row["early_stop_rate"] or 0) for row in mine)
        about = {"law": law, "scenario": scenario, "models": len(mine)}
        by_scenario.append(about | {"calls": calls, "rate": early / calls})
    return section(
        "Early stops",
        "Where a model stopped early, its decode is scaled to the tokens asked for, at the pace that was seen: "
        "otherwise a model that says less would look faster. The laws without those calls stand below: where they "
        "agree with the laws above, the scaling made no exponent.",
        display(_STOPS_BY_SCENARIO, by_scenario),
        display(served.EARLY_STOP_SUMMARY, [row | {SUSPECT: ""} for row in rows]),
        subject.table(scaling.LENGTH_LIMITED),
    )
