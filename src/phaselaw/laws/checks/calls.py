"""Checks of calls: drift, throttling, other work and other clients, loads, repetitions, comparable cells (method 3)."""

import functools
import math
from collections.abc import Sequence
from itertools import count, pairwise, product
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from phaselaw.laws import summary
from phaselaw.laws.checks.frame import CELL, GROUP_OF_MODEL, PREFILL, Evidence, Finding, Findings, check
from phaselaw.laws.disturbed import BUSY, LEAST_ROUNDS, SHARED, USUAL, off_rounds, without_disturbed
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import GROUP, median_variance, stated
from phaselaw.laws.warmup import always_cold
from phaselaw.machine.identity import host_differences
from phaselaw.records import ALL, PHASES
from phaselaw.servers.streams import HEAD_TOKENS
from phaselaw.tables import BUDGET, Row, grouped, like

FALSE_ALARMS = 0.01
ALPHA = FALSE_ALARMS / 2
"""The tests assume normal noise; the other half of the stated rate allows for noise that is not."""
LEAST = 0.05
"""A drift or a slowdown of less than this from first to last call is not reported."""
HUBER, STEPS = 2.0, 12
"""Robust standard deviations to which a call's residual is bound, and how often the fit is made anew."""
WANTED = 0.10
"""A median should be known to this, half the width of its 95 % interval."""
SPREAD_ALPHA = 0.05
LEAST_LOAD_MS, LEAST_OF_TTFT = 10.0, 0.05
"""A load in warm calls that is more than both is found."""
_FIGURES = "the figures without these calls stand in figures_without_disturbed"
ROUNDED = 0.05
"""Figures that differ by more contradict each other; of times in whole milliseconds, by one of these more."""
_PART = [*CELL, "run", "replicate"]
"""A cell as one process measured it."""
INDEPENDENT = "if calls scatter independently of each other: noise that is autocorrelated is found more often"


@check(
    "drift",
    unit="backends",
    false_alarm_rate=FALSE_ALARMS,
    rests_on=INDEPENDENT,
    not_checked="too few cells or rounds to tell a drift from their own levels",
    next_step="look for heat, a busy neighbour or a growing process; measure again on a quiet machine",
)
def drift(evidence: Evidence) -> Findings:
    """Latency that grows or falls with the order of the calls, beyond cells and rounds.

    Where calls ran in rounds: each call's log latency on its place, with a level of its own for each cell and each
    round, so that what a round does to all cells is no drift. Where a cell's calls ran back to back: each cell's log
    median on its place, with a level for each model and each scenario. A t test of the slope.
    """
    for key, rows in grouped(_end_to_end(evidence), ["backend", "batch_size", "run"]):
        if not back_to_back(rows):
            slope, p = _trend(rows.filter(pl.col("rep").is_not_null()), CELL, ["replicate", "rep"])
        else:
            cells = rows.group_by(CELL, maintain_order=True).agg(pl.col("place").mean(), pl.col("latency_ms").median())
            slope, p = _trend(cells, ["model"], ["scenario", BUDGET])
        yield int(math.isfinite(p))
        change = math.expm1(slope)
        if p < ALPHA and abs(change) >= LEAST:
            said = f"end-to-end latency changed by {change:+.0%} from the first call to the last (p {p:.2g})"
            yield Finding(key, change, said)


@check(
    "off as a whole",
    unit="backends in rounds, or replicates",
    false_alarm_rate=FALSE_ALARMS,
    rests_on=f"if rounds, and replicates, of one thing differ by {USUAL:.0%} (standard deviation) or less",
    not_checked="no three rounds or replicates",
    next_step="look what else the machine did then; measure again, or read the figures without",
)
def off_as_a_whole(evidence: Evidence) -> Findings:
    """Rounds, or replicates, in which the median cell is far slower, or faster, than in the others."""
    calls, in_rounds = evidence.measured, evidence.run.order == "rounds"
    for key, rounds in grouped(off_rounds(calls, in_rounds=in_rounds), ["backend", "batch_size", "run", "unit"]):
        column = "replicate" if key["unit"] == "replicate" else "rep"
        named = ", ".join(f"{value:g}" for value in rounds[column].unique().sort())
        factors = rounds["factor"].to_numpy()
        times = " to ".join(dict.fromkeys(f"{factor:.2f}" for factor in (factors.min(), factors.max())))
        yield Finding(
            key,
            float(factors[np.abs(np.log(factors)).argmax()]),
            f"{key['unit']} {named} took {times} times as long as the others, at the median cell; laws and prices "
            "without stand in laws_without_off_rounds",
        )
    unit = pl.struct("replicate", "rep") if in_rounds else pl.col("replicate")
    units = calls.group_by("backend", "batch_size", "run").agg(unit.n_unique().alias("n"))
    yield units.filter(pl.col("n") >= LEAST_ROUNDS).height


def _end_to_end(evidence: Evidence) -> pl.DataFrame:
    """Measured end-to-end rows in the order they ran, with their ``place`` among all calls of their run."""
    needed = (*_PART, "rep", "status", "latency_ms", "concurrency", "is_warmup", "call_idx", "started_at_unix")
    rows = evidence.run.rows.lazy().filter((pl.col("mode") == "e2e_kv") & ~pl.col("is_warmup"))
    calls = rows.select(needed).collect()
    order = "call_idx" if calls["call_idx"].null_count() == 0 else "started_at_unix"
    if calls[order].null_count():
        return evidence.measured.clear().with_columns(pl.lit(0.0).alias("place"))
    place = pl.col(order).rank("dense").over("run").cast(pl.Float64)
    return summary.usable(calls.with_columns(place=place)).sort("place")


def back_to_back(rows: pl.DataFrame) -> bool:
    """Whether the calls of a cell ran one after the other, as their places tell, whatever a manifest says.

    Replicates of one repetition are rounds.
    """
    place = pl.col("place")
    several = rows.group_by(_PART).agg(span=(place.max() - place.min() + 1) / pl.len(), n=pl.len())
    typical = several.filter(pl.col("n") > 1)["span"].median()
    return rows["replicate"].n_unique() < 2 if typical is None else cast(float, typical) <= 1.5


def _trend(rows: pl.DataFrame, *columns: Sequence[str]) -> tuple[float, float]:
    """Change of log latency over the whole span of ``place``, and its p; NaN where untestable.

    Each group of rows that are alike in some columns gets a level of its own, which is taken out first. Residuals are
    bound to `HUBER` robust standard deviations, so that single wild calls hide no drift (Huber, Robust Statistics,
    1981, 7.8: pseudo-values, and the standard error by them over the share that is not bound).
    """
    place, latency = rows["place"].to_numpy(), rows["latency_ms"].log().to_numpy()
    first = rows.with_row_index("at").select(pl.col("at").first().over(names).alias(str(names)) for names in columns)
    levels = [np.unique(each.to_numpy(), return_inverse=True)[1] for each in first]
    n = len(latency)
    degrees = n - 1 - sum(int(codes.max(initial=-1)) for codes in levels) - 1
    span = float(np.ptp(place)) if n else 0.0
    if degrees < 3 or span <= 0:
        return math.nan, math.nan
    x = _without_levels(place / span, levels)
    sxx = float(x @ x)
    if sxx < 1e-9 * n:
        return math.nan, math.nan
    pulled, residual, slope, inside = latency, np.zeros(n), 0.0, 1.0
    for _ in range(STEPS):
        left = _without_levels(pulled, levels)
        slope = float(x @ left) / sxx
        fitted = pulled - left + slope * x
        residual = latency - fitted
        bound = HUBER * 1.4826 * float(np.median(np.abs(residual))) * math.sqrt(n / degrees)
        kept = np.clip(residual, -bound, bound)
        inside = float((np.abs(residual) <= bound).mean())
        pulled = fitted + kept
    se = math.sqrt(float(kept @ kept) / degrees / sxx) / inside if inside > 0 else 0.0
    return slope, float(2 * special.stdtr(degrees, -abs(slope) / se)) if se > 0 else float(slope == 0)


def _without_levels(values: Floats, levels: Sequence[NDArray[np.int64]]) -> Floats:
    """The values minus the mean of each level, one grouping after the other until nothing changes."""
    left: Floats = values - values.mean()
    for _ in range(200):
        before = left
        for codes in levels:
            left = left - (np.bincount(codes, left) / np.maximum(np.bincount(codes), 1))[codes]
        if np.abs(left - before).max() <= 1e-9 * max(1.0, float(np.abs(values).max())):
            break
    return left


@check(
    "throttling",
    unit="backends",
    false_alarm_rate=FALSE_ALARMS,
    rests_on=INDEPENDENT,
    not_checked="no five cells with three calls or more, back to back (in rounds a slowdown is drift)",
    next_step="watch the clock rate and temperature; measure in rounds (order: rounds), with pauses",
)
def throttling(evidence: Evidence) -> Findings:
    """Calls that slow down inside their cell, over all cells of a backend whose calls ran back to back."""
    at, log = pl.int_range(pl.len()).cast(pl.Float64), pl.col("latency_ms").log()
    # Of log latency, from a cell's first call to its last along its regression line.
    rise = (at - at.mean()).dot(log) / (at - at.mean()).dot(at) * (pl.len() - 1)
    for key, rows in grouped(_end_to_end(evidence), ["backend", "batch_size"]):
        cells = rows.group_by(_PART, maintain_order=True).agg(n=pl.len(), rise=rise)
        rises = cells.filter(pl.col("n") >= 3)["rise"].to_numpy()
        if len(rises) < 5 or not back_to_back(rows):
            continue
        yield 1
        mean, se = float(rises.mean()), float(rises.std(ddof=1)) / math.sqrt(len(rises))
        p = float(special.stdtr(len(rises) - 1, -mean / se)) if se > 0 else float(mean <= 0)
        growth = math.expm1(mean)
        if p < ALPHA and growth >= LEAST:
            over = f"over {len(rises)} cells (p {p:.2g})"
            yield Finding(key, growth, f"calls grow {growth:.0%} slower from a cell's first to its last, {over}")


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
    found = evidence.disturbed.filter(pl.col("check") == BUSY)
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
    found = evidence.disturbed.filter(pl.col("check") == SHARED)
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


_HEAD = "the server puts a long text of its own before a prompt"
_CONTRADICT = {
    "sum": "prefill and kv_decode together take {:.3g} times what e2e_kv, their sum, does",
    "request": "the first token and the further steps take {:.3g} times request_ms, their sum",
    "raw": "latency_ms of prefills is {:.3g} times their prefill_ms",
    "rate": "tokens_total over latency_ms is {:.3g} times tokens_per_s",
    "text": "prompts have {:.3g} times the tokens that their text and a template can have",
}


@check(
    "contradictory rows",
    unit="models",
    rests_on=f"figures that differ by {ROUNDED:.0%} or less, or by one of whole milliseconds, are taken as rounded",
    not_checked="no measured calls",
    next_step="look up what the file's columns hold and in which units: laws and prices go by different ones",
)
def contradictory(evidence: Evidence) -> Findings:
    """Figures that contradict those they are defined by (method 2), and prompts of more tokens than their text has."""
    ms, mode, most = pl.col("latency_ms"), pl.col("mode"), 4 * pl.col("prompt_chars") + HEAD_TOKENS  # four bytes each
    prefill, decode, e2e = (ms.filter(mode == each) for each in PHASES)
    whole = (prefill.len() == e2e.len()) & (decode.len() == e2e.len()) & (e2e.len() > 0)
    ttft, request = (pl.col(name).filter(mode == "e2e_kv") for name in ("ttft_ms", "request_ms"))
    first = pl.when(ttft.null_count() == 0).then(ttft.sum()).otherwise(prefill.sum())
    after_first = 1 - pl.col("first_event_tokens").fill_null(1.0) / pl.col(BUDGET)
    steps = (ms * after_first).filter(mode == "kv_decode").sum()
    rate = 1e3 * pl.col("tokens_total") / pl.col("tokens_per_s") / ms
    cells = evidence.measured.group_by(CELL, maintain_order=True).agg(
        sum=pl.when(whole).then((prefill.sum() + decode.sum()) / e2e.sum()),
        request=pl.when(whole & (request.null_count() == 0)).then((first + steps) / request.sum()),
        raw=(ms / pl.col("prefill_ms")).filter(mode == "prefill").median(),
        rate=rate.filter((rate - 1).abs() > ROUNDED).median(),
        text=(pl.col("prompt_tokens_raw") / most / pl.col("batch_size")).clip(1.0).max(),
        allowed=ROUNDED + pl.when((ms == ms.round()).all()).then(1 / ms.min()).otherwise(0.0),  # of whole milliseconds
    )
    for (key, mine), (name, says) in product(grouped(cells, GROUP_OF_MODEL), _CONTRADICT.items()):
        off = mine[name].filter(mine[name].is_finite() & ((mine[name] - 1).abs() > mine["allowed"]))
        if len(off):
            found = Finding(key, off[0], f"{says.format(off[0])}, in {len(off)} of {mine.height} cells")
            yield found if name != "text" else found.declared(modes=PREFILL, status="suspected", other_reading=_HEAD)
    yield cells.select(GROUP_OF_MODEL).n_unique()


def _slower(rows: pl.DataFrame, calls: pl.DataFrame) -> str:
    """What the disturbed calls do to the cells' medians, in words."""
    figures = without_disturbed(rows, calls).filter(pl.col("mode") == "e2e_kv")
    ratio = figures["slower_by"].drop_nulls()
    if ratio.is_empty():
        return "; no cell has another call"
    times = float(np.median(ratio.to_numpy()))
    of = f"{len(ratio)} of {figures.height} cell{'s' * (figures.height > 1)}"
    return f"; with them medians are {times:.2f} x those without ({of})"


@check(
    "too few repetitions",
    unit="phases of backends",
    false_alarm_rate=SPREAD_ALPHA,
    rests_on=INDEPENDENT,
    not_checked="no measured calls",
    status="caution",
)
def repetitions(evidence: Evidence) -> Findings:
    """Cells, or all cells of a backend and phase, with too few calls for how much these scatter.

    Reported where even the low end of the scatter's interval (Bonferroni over the phase and its cells) leaves the
    median's half-width above `WANTED`, and where there is one call a cell, so that the spread is unknown. Scatter is
    robust, since single wild calls leave medians alone: a cell's median absolute deviation, and over a phase the
    median of its cells', which is worth about half as many degrees of freedom as their variances have.
    """
    log = pl.col("latency_ms").log()
    cells = evidence.measured.group_by([*CELL, "mode"], maintain_order=True).agg(
        n=pl.len(), deviation=(log - log.median()).abs().median()
    )
    # Whether the machine had more to do than it has processors.
    cpus = pl.sum_horizontal("own_cpus", "other_cpus", "idle_cpus", "steal_cpus").median()
    known = evidence.measured.filter(pl.col("own_cpus").is_not_null())
    average, processors = known.select(pl.col("load_average").median(), cpus).row(0)
    busy = average is not None and average > processors
    load = f"; the machine's load was {average:.1f} on {processors:.0f} processors" if busy else ""
    for key, group in grouped(cells, [name for name in GROUP if name != "backend_kind"]):
        yield 1
        several = group.filter(pl.col("n") > 1)
        if several.is_empty():
            more, said = "give the study 3 repetitions or more", "one call a cell: its spread is unknown"
            yield Finding(key, 1.0, said, modes=(key["mode"],), next_step=more)
            continue
        calls = several["n"].to_numpy()
        medians = {n: float(np.median(_deviations(n))) for n in np.unique(calls).tolist()}
        usual = np.array([medians[n] for n in calls.tolist()])
        typical = float(np.median(several["deviation"].to_numpy() / usual)) ** 2
        worth = max((calls - 1).sum() / 2, 1.0)
        low = typical * worth / float(special.chdtri(worth, SPREAD_ALPHA / 2))
        if known_to(low, int(calls.min())) > WANTED:
            yield _scattered(key | {"n": int(calls.min()), "variance": typical}, load)
            continue
        alpha = SPREAD_ALPHA / 2 / several.height
        rare = {n: float(np.quantile(_deviations(n), 1 - alpha)) for n in np.unique(calls).tolist()}
        for row in several.iter_rows(named=True):
            if known_to((row["deviation"] / rare[row["n"]]) ** 2, row["n"]) > WANTED:
                typical_sd = row["deviation"] / medians[row["n"]]
                yield _scattered(row | {"variance": typical_sd**2}, load)


@functools.cache
def _deviations(n: int) -> Floats:
    """Median absolute deviations of ``n`` normal values of variance 1, drawn; of more than 30 as of 30."""
    values = np.random.default_rng(n).normal(0, 1, (20_000, min(n, 30)))
    return np.asarray(np.median(np.abs(values - np.median(values, axis=1, keepdims=True)), axis=1))


def known_to(variance: float, n: int) -> float:
    """Half the width of a 95 % interval of the median of ``n`` calls, as a share; ``variance`` is of log latency."""
    return math.expm1(1.96 * math.sqrt(variance * median_variance(n)))


def _scattered(row: Row, load: str) -> Finding:
    variance, n = row["variance"], row["n"]
    spread = math.expm1(math.sqrt(variance))
    needed = next(calls for calls in count(1) if known_to(variance, calls) <= WANTED or calls == 10_000)
    known = f"the median of {n} is known to {known_to(variance, n):.0%}{load}"
    said = f"calls scatter by {spread:.0%} (standard deviation); {known}"
    next_step = f"about {needed} repetitions would make that {WANTED:.0%}, or a quieter machine"
    return Finding(row, spread, said, modes=(row["mode"],), next_step=next_step)


@check(
    "cells not comparable",
    unit="models",
    rests_on="it is what the manifest and the rows say",
    not_checked="no measured calls",
)
def comparable(evidence: Evidence) -> Findings:
    """Models that lack scenarios, and cells of one model that differ in its size or weights, prompt, host or study."""
    lacking = evidence.per_model.filter(pl.col("incomplete").is_not_null())
    for row, phases in grouped(lacking, [*GROUP_OF_MODEL, "incomplete"]):  # it failed on one, or it was never asked
        failed = like(evidence.run.rows, row, ("backend", "model")).filter(pl.col("status") != "ok")
        said = f"; {failed.height} of its rows failed" if failed.height else ""
        yield Finding(
            row | {"scenario": ALL},
            None,
            f"it {row['incomplete']}, which others have{said}: its figures over all scenarios are by its own "
            "and by what the others take for the rest",
            modes=tuple(phases["mode"]),
            next_step="measure what it lacks, or compare single scenarios only (scaling_fits has a law of each)",
        )
    per_model = evidence.per_model
    for row, group in grouped(per_model, ["backend", "batch_size", "model"]):
        sizes = group["params_millions_effective"].drop_nulls().unique().sort()
        if len(sizes) > 1:
            differs = f"one name, {len(sizes)} sizes: {', '.join(f'{size:g} M' for size in sizes)}"
            yield Finding(row, None, differs, next_step="give each model a name of its own")
    settings = ("device", "dtype", "quantization_level", "weights_sha256")
    models = stated(evidence.run.models, ["backend", "model", *settings])
    models = models.join(per_model, on=["backend", "model"], how="semi", maintain_order="left")
    for (row, group), name in product(grouped(models, ["backend", "model"]), settings):
        values = [value[:16] for value in group[name].drop_nulls().unique().sort()]
        if len(values) > 1:
            differs = f"one name, several settings ({name}): {', '.join(values)}"
            yield Finding(row, None, differs, next_step="measure each setting as a backend of its own")
    # What changed between the processes of a resumed run.
    changes: list[str] = []
    for before, after in pairwise(evidence.run.manifest.get("processes") or []):
        changes += host_differences(before.get("host") or {}, after.get("host") or {})
        changes += ["the study"] if before.get("study_sha256") != after.get("study_sha256") else []
    next_step = "measure it again in one go, or compare only cells of one process (column process_idx)"
    for changed, backend in product(dict.fromkeys(changes), per_model["backend"].unique(maintain_order=True)):
        said = f"the run was resumed after a change: {changed}"
        yield Finding({"backend": backend}, None, said, next_step=next_step)
    yield per_model.select("backend", "batch_size", "model").n_unique()
