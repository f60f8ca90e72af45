"""Checks of what disturbed calls: other work on the machine, other clients of the server, loads in warm calls."""

import numpy as np
import polars as pl

from phaselaw.laws.checks.frame import CELL, GROUP_OF_MODEL, Evidence, Finding, Findings, check
from phaselaw.laws.disturbed import BUSY, SHARED, disturbed_calls, without_disturbed
from phaselaw.laws.warmup import always_cold
from phaselaw.tables import grouped, like

LEAST_LOAD_MS, LEAST_OF_TTFT = 10.0, 0.05
"""A load in warm calls that is more than both is found."""
_FIGURES = "the figures without these calls stand in figures_without_disturbed"


@check(
    BUSY,
    unit="backends",
    false_alarm_rate=0.03,
    rests_on="on a machine that does little else; work that leaves processors idle is not found",
    not_checked="no call says what else the machine did: that is known on Linux, of processes that can be told apart",
    next_step="stop what else runs and measure again (phaselaw run --wait-quiet 5min waits for its end)",
)
def busy_machine(evidence: Evidence) -> Findings:
    """Calls that shared their cores with other processes, or with a virtual machine's host."""
    known = evidence.measured.filter(pl.col("other_cpus").is_not_null())
    found = disturbed_calls(evidence.measured).filter(pl.col("check") == BUSY)
    for key, calls in grouped(found, ["backend", "batch_size"]):
        mine = like(known, key, key)
        n = mine.select("run", "call_idx").n_unique()
        beside = mine.join(calls, on=["run", "call_idx"], how="semi")
        taken = beside.select(pl.sum_horizontal("other_cpus", "steal_cpus").median()).item()
        yield Finding(
            key,
            calls.height / n,
            f"{calls.height} of {n} calls shared their cores: other work took {taken:.1f} processors while hardly any "
            f"was idle{_slower(mine, calls)}; {_FIGURES}",
        )
    yield known.select("backend", "batch_size").n_unique()


@check(
    SHARED,
    unit="cells of served engines",
    rests_on="a server that stalls of itself looks alike",
    not_checked="no call has a time to its first token",
    other_reading="the server itself stalls now and then",
    next_step="keep other clients off the server while it is measured",
)
def shared_server(evidence: Evidence) -> Findings:
    """Calls that waited for another client's request, or ran beside it, at several times of the run."""
    known = evidence.measured.filter((pl.col("mode") == "e2e_kv") & pl.col("ttft_ms").is_not_null())
    found = disturbed_calls(evidence.measured).filter(pl.col("check") == SHARED)
    for key, calls in grouped(found, CELL):
        mine = like(known, key, key)
        slow = mine.join(calls, on=["run", "call_idx"], how="semi")
        quick = mine.join(calls, on=["run", "call_idx"], how="anti")
        first, other = (float(np.median(rows["ttft_ms"].to_numpy())) for rows in (slow, quick))
        yield Finding(
            key,
            calls.height / mine.height,
            f"{calls.height} of {mine.height} calls waited or ran slowly, at several times of the run: first token "
            f"after {first:.0f} ms, in the others {other:.0f} ms{_slower(mine, calls)}; {_FIGURES}",
        )
    yield known.select(CELL).n_unique()


@check(
    "load in measured calls",
    unit="models of servers that tell their load",
    rests_on="it is what the server says",
    not_checked="no server tells how long it loads, or the study is of cold starts (cold: true)",
    modes=(),
    next_step="read request_ms, which holds it; keep the model loaded (keep_alive), or give cold: true where "
    "cold starts are meant",
)
def measured_loads(evidence: Evidence) -> Findings:
    """Warm calls that load, each time: their users wait for it, and no phase holds it."""
    load = pl.col("ollama_load_ms")
    calls = evidence.measured.filter(pl.col("mode") == "prefill", load.is_not_null())
    calls = calls.filter(~pl.col("backend").is_in(always_cold(evidence.run)))
    first = pl.coalesce("ttft_ms", load + pl.col("latency_ms"))
    models = calls.group_by(GROUP_OF_MODEL, maintain_order=True).agg(load=load.median(), first=first.median())
    long = pl.col("load") > pl.max_horizontal(LEAST_LOAD_MS, LEAST_OF_TTFT * pl.col("first"))
    for row in models.filter(long).to_dicts():
        said = f"warm calls spend {row['load']:.0f} ms loading, of {row['first']:.0f} ms to the first token"
        yield Finding(row, row["load"], said)
    yield models.height


def _slower(rows: pl.DataFrame, calls: pl.DataFrame) -> str:
    """What the disturbed calls do to the cells' medians, in words."""
    figures = without_disturbed(rows, calls).filter(pl.col("mode") == "e2e_kv")
    ratio = figures["slower_by"].drop_nulls()
    if ratio.is_empty():
        return "; no cell has another call"
    times = float(np.median(ratio.to_numpy()))
    of = f"{len(ratio)} of {figures.height} cell{'s' * (figures.height > 1)}"
    return f"; with them medians are {times:.2f} x those without ({of})"
