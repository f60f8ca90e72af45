"""What was measured: each model's latency and rates, cold starts, early stops (TR121 3.5, 4, 7)."""

from collections.abc import Iterable, Iterator

from phaselaw import tables as col
from phaselaw.laws import scaling, served, summary, warmup
from phaselaw.laws.checks.frame import suspicions
from phaselaw.report.document import Block, DotPlot, display, dots
from phaselaw.report.subject import PHASE_WORDS, Subject
from phaselaw.tables import LAW, MODEL, SUSPECT, Row, Table, alike

_BY_MODEL = Table(
    caption="Medians over repetitions, geometric means over scenarios.",
    columns=(
        *(LAW, MODEL, col.measured("params", "params (M)"), col.measured("prefill_ms", "prefill (ms)")),
        *(col.derived("prefill_rate", "prefill tok/s"), col.measured("kv_decode_ms", "decode (ms)")),
        *(col.derived("kv_decode_rate", "decode tok/s"), col.derived("step_ms", "ms a token")),
        col.measured("e2e_kv_ms", "end to end (ms)"),
        col.figure("tokens_per_s", "end to end tok/s", provenance="measured"),
    ),
)
_COUNTS = (col.counted("models", "models"), col.counted("calls", "calls"))
STOPS_BY_SCENARIO = Table(
    caption="Early stops by scenario, over models.",
    columns=(LAW, col.words("scenario", "scenario"), *_COUNTS, col.derived("rate", "stopped early", col.percent)),
)
_WORST = 5


def by_model(subject: Subject) -> Iterator[Block]:
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
    yield display(_BY_MODEL, tuple(merged.values()))


def first_calls(subject: Subject) -> Iterator[Block]:
    """The worst warmup calls, in milliseconds."""
    # A ratio hides how little a fast model loses, and a mean hides all single events.
    added = sorted(subject.ordered(warmup.WARMUP_EFFECT.name), key=lambda row: -float(row["warmup_minus_measured_ms"]))
    slower = alike((row for row in added if row["warmup_minus_measured_ms"] > 0), "mode")
    most = [row for mode in PHASE_WORDS for row in slower.get((mode,), [])[:_WORST]]
    worst = f"The worst events in milliseconds, the {_WORST} of each phase that add most."
    yield subject.table(warmup.WARMUP_EFFECT, most, caption=worst)


def waits(subject: Subject) -> DotPlot | None:
    """What a first token waits for, by how cold its call is: the worst and the median first call, and a warm one."""
    rows = subject.rows(warmup.COLD_STARTS.name, mode="prefill") or subject.rows(warmup.COLD_STARTS.name)
    known = {"worst_first_ms": "worst first call", "first_median_ms": "median first call", "worst_warm_ms": "warm call"}
    points = [row | {"call": label, "ms": row[key]} for row in rows for key, label in known.items()]
    return dots("first-calls", points)


def stops_by_scenario(rows: Iterable[Row]) -> list[Row]:
    """How many calls of each scenario stopped early, over models, from rows of ``ollama_early_stop_summary``."""
    found = []
    for mine in alike(rows, "law", "scenario").values():
        calls = sum(row["n"] for row in mine)
        early = sum(row["n"] * (row["early_stop_rate"] or 0) for row in mine)
        found.append(mine[0] | {"models": len(mine), "calls": calls, "rate": early / calls, SUSPECT: ""})
    return found


def early_stops(subject: Subject) -> Iterator[Block]:
    """Models that stopped before the budget; nothing where the engines never stop early (TR121 4.1.1)."""
    rows = subject.ordered(served.EARLY_STOP_SUMMARY.name)
    if not rows:
        return
    yield display(STOPS_BY_SCENARIO, stops_by_scenario(rows))
    yield display(served.EARLY_STOP_SUMMARY, [row | {SUSPECT: ""} for row in rows])
    yield subject.table(scaling.LENGTH_LIMITED)
