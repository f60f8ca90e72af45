"""Calls, rounds and replicates that something else disturbed, and figures without them.

A call *shared its cores* where other processes, or the host of a virtual machine, took a tenth or more of the
processors' time and hardly any was idle. A call *shared its server* where it waited, or ran slowly by both clocks, and
so did others of its cell at other times: one slow stretch is drift. A round, or replicate, is *off as a whole* where
every cell is slower, or faster, in it than in the others.
"""

import math

import numpy as np
import polars as pl

from phaselaw.laws.noise import points_of
from phaselaw.laws.options import Options
from phaselaw.laws.scaling import scaling_fits
from phaselaw.laws.summary import CELL, CELLS, GROUP, GROUP_COLUMNS, ORDER, as_requests, by_cell, by_model
from phaselaw.machine.neighbours import BUSY_SHARE
from phaselaw.tables import BUDGET, Table, counted, derived, digits, factor, grouped, measured, plain, words

BUSY, SHARED = "busy machine", "shared server"

STRETCH_MS = 300.0
"""Calls are judged in stretches of so long: the kernel counts CPU time in hundredths of a second."""
LEAST_CALLS, LEAST_SHARE = 2, 0.1
"""Fewer disturbed calls, or a smaller share of all, are left alone: medians stand them."""
ELSEWHERE = 3.0
"""A server whose own process takes so many times less than others, call for call, has its work done elsewhere."""
LEAST_WAIT_MS, SLOWER = 100.0, 1.4
"""A wait that can be another client's, and how much slower a step beside its request is."""

WITHOUT_DISTURBED = Table(
    name="figures_without_disturbed",
    holds="latency of the cells that have disturbed calls, with and without these",
    why_empty="no call was found disturbed",
    columns=(
        *GROUP_COLUMNS[:3],
        words("check", "check"),
        words("model", "model"),
        words("scenario", "scenario"),
        GROUP_COLUMNS[3],
        counted("n", "calls"),
        counted("n_disturbed", "disturbed"),
        measured("latency_median_ms", "median (ms)"),
        measured("latency_without_ms", "without them (ms)"),
        derived("slower_by", "ratio", factor),
        *plain("model_kind", pl.String),
        *plain("params_millions_effective"),
        counted(BUDGET),
    ),
    order=("check", *ORDER, "params_millions_effective", "model", "scenario"),
)

_CALL = ["run", "call_idx"]
_OF_BACKEND = ["backend", "batch_size"]

FAR, USUAL, SCALES = 1.25, 0.05, 5.0
"""A round is off by this factor or more, and by so many robust standard deviations of rounds, taken as 5 % or more."""
LEAST_ROUNDS = 3
"""Rounds, or replicates, below which none can be held against the others."""
EXPONENT, RATE = "exponent", "tokens/s"

_ROUND = ["backend", "batch_size", "run", "replicate", "rep"]
_UNITS = (("replicate", ["replicate"]), ("round", ["replicate", "rep"]))
WITHOUT_OFF_ROUNDS = Table(
    name="laws_without_off_rounds",
    holds="exponents, rates and prices with and without the rounds or replicates that are off as a whole",
    why_empty="no round or replicate is off as a whole",
    columns=(
        *GROUP_COLUMNS,
        words("model", "model"),
        words("figure", "figure"),
        derived("value", "value", digits),
        derived("without", "without them", digits),
        derived("price_factor", "price without them", factor),
        counted(BUDGET),
    ),
    order=(*ORDER, "figure", "model"),
)


def disturbed_calls(rows: pl.DataFrame) -> pl.DataFrame:
    """The disturbed ones among usable measured rows: ``run``, ``call_idx``, their cell, and which ``check`` says so."""
    told = pl.col("other_cpus").is_not_null() | pl.col("ttft_ms").is_not_null()
    calls = rows.filter(pl.col("mode") == "e2e_kv", pl.col("call_idx").is_not_null(), told).sort(_CALL)
    cpus, ms = pl.sum_horizontal("own_cpus", "other_cpus", "idle_cpus", "steal_cpus"), pl.col("latency_ms")
    elsewhere = (pl.col("other_cpus") / pl.col("own_cpus")).quantile(0.25).over("backend") > ELSEWHERE
    behind = pl.col("backend_kind").is_in(["ollama", "openai"]) & elsewhere.fill_null(False)
    calls = calls.with_columns(
        other_cpus=pl.when(~behind).then(pl.col("other_cpus")),
        cpus=cpus,
        stretch=(ms.cum_sum().over("run") / STRETCH_MS).floor(),
    )

    def share(name: str) -> pl.Expr:
        return (pl.col(name) * ms).sum().over("run", "stretch") / (pl.col("cpus") * ms).sum().over("run", "stretch")

    taken = share("other_cpus") + share("steal_cpus")
    full = (share("idle_cpus") <= BUSY_SHARE) | (share("steal_cpus") >= BUSY_SHARE)
    shared_cores = pl.col("other_cpus").is_not_null() & (taken >= BUSY_SHARE) & full
    calls = calls.with_columns(busy=shared_cores.fill_null(False))
    calls = calls.with_columns(busy=pl.col("busy") & _enough("busy", _OF_BACKEND))
    calls = _shared_server(calls)
    check = pl.when("busy").then(pl.lit(BUSY)).when("shared").then(pl.lit(SHARED))
    return calls.select(*_CALL, *CELL, check=check).filter(pl.col("check").is_not_null())


def _enough(flag: str, of: list[str]) -> pl.Expr:
    n = pl.col(flag).sum().over(of)
    return (n >= LEAST_CALLS) & (n >= LEAST_SHARE * pl.len().over(of))


def _shared_server(calls: pl.DataFrame) -> pl.DataFrame:
    """The calls with the flag ``shared``; slow ones beside more work of other processes become ``busy`` instead."""
    cell = [*CELL, "run"]
    ttft, client, server = (pl.col(name) for name in ("ttft_ms", "decode_step_ms_client", "decode_step_ms_server"))
    waited = ttft - pl.col("ollama_load_ms").fill_null(0.0)
    late = waited - waited.quantile(0.25).over(cell) >= pl.max_horizontal(LEAST_WAIT_MS, ttft.median().over(cell) / 2)
    steps = client.drop_nulls().sort()
    gap = steps.filter(steps >= SLOWER * steps.shift(1)).first().over(cell)
    calls = calls.with_columns(late=late.fill_null(False), slow=(client >= gap).fill_null(False))
    by_both = server.filter("slow").min().over(cell) >= SLOWER * server.filter(~pl.col("slow")).max().over(cell)
    calls = calls.with_columns(shared=(pl.col("late") | (pl.col("slow") & by_both.fill_null(False))) & ~pl.col("busy"))
    # One number a stretch of calls that are alike in this, over all cells of the backend.
    calls = calls.with_columns(stretch=pl.col("shared").rle_id().over("run", "backend"))
    stretches = pl.col("stretch").filter("shared").n_unique().over(cell)
    calls = calls.with_columns(shared=pl.col("shared") & _enough("shared", cell) & (stretches >= LEAST_CALLS))
    other = pl.col("other_cpus")
    more = other.filter("shared").median().over(cell) - other.filter(~pl.col("shared")).median().over(cell)
    beside = pl.col("shared") & (more >= BUSY_SHARE * pl.col("cpus")).fill_null(False)
    return calls.with_columns(busy=pl.col("busy") | beside, shared=pl.col("shared") & ~beside)


def without_disturbed(rows: pl.DataFrame, disturbed: pl.DataFrame) -> pl.DataFrame:
    """``figures_without_disturbed``: of each cell and phase with disturbed calls, the median with and without these.

    End to end it is of what a request's user waits for, where the run has that: another client's request delays it.
    """
    if disturbed.is_empty():
        return WITHOUT_DISTURBED.frame()
    latency, quiet = pl.col("latency_ms"), pl.col("check").is_null()
    marked = as_requests(rows).join(disturbed.select(*_CALL, "check"), on=_CALL, how="left")
    found = marked.group_by(CELL, maintain_order=True).agg(
        pl.col("check").drop_nulls().mode().sort().first(),
        n=pl.len(),
        n_disturbed=(~quiet).sum(),
        latency_median_ms=latency.median(),
        latency_without_ms=latency.filter(quiet).median(),
    )
    ratio = pl.col("latency_median_ms") / pl.col("latency_without_ms")
    return WITHOUT_DISTURBED.frame(found.filter(pl.col("n_disturbed") > 0).with_columns(slower_by=ratio))


def off_rounds(rows: pl.DataFrame, *, in_rounds: bool) -> pl.DataFrame:
    """The rounds among usable measured rows that are off as a whole: `_ROUND`, ``unit`` and the ``factor`` it is off.

    A unit's level is the median over cells of its calls relative to their cell's median over units. Replicates are
    judged first; rounds, where calls were made ``in_rounds``, if none of these is off.
    """
    found = []
    calls = rows.filter(pl.col("mode") == "e2e_kv", pl.col("rep").is_not_null())
    for _, mine in grouped(calls, ["backend", "batch_size", "run"]):
        for unit, keys in _UNITS[: 1 + in_rounds]:
            factors = _off(mine, keys)
            if not factors.is_empty():
                rounds = mine.select(_ROUND).unique(maintain_order=True)
                found.append(rounds.join(factors, on=keys, nulls_equal=True).with_columns(unit=pl.lit(unit)))
                break
    schema = {name: rows.schema[name] for name in _ROUND} | {"factor": pl.Float64, "unit": pl.String}
    return pl.concat(found) if found else pl.DataFrame(schema=schema)


def _off(calls: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    cell = [*GROUP, "model", "scenario"]
    log = pl.col("latency_ms").log()
    units = calls.group_by([*keys, *cell]).agg(log=log.median())
    levels = (
        units.with_columns(pl.col("log") - pl.col("log").median().over(cell)).group_by(keys).agg(pl.col("log").median())
    )
    if levels.height < LEAST_ROUNDS:
        return levels.clear().select(*keys, factor="log")
    off = levels["log"].to_numpy() - np.median(levels["log"].to_numpy())
    scale = max(1.4826 * float(np.median(np.abs(off))), USUAL)
    far = np.abs(off) >= max(math.log(FAR), SCALES * scale)
    return levels.select(keys).with_columns(factor=np.exp(off)).filter(pl.Series(far)).sort(keys)


def without_off_rounds(rows: pl.DataFrame, options: Options, *, in_rounds: bool) -> pl.DataFrame:
    """``laws_without_off_rounds``: each law's exponent, each model's end-to-end rate, and the price that follows."""
    off = off_rounds(rows, in_rounds=in_rounds)
    if off.is_empty():
        return WITHOUT_OFF_ROUNDS.frame()
    touched = rows.join(off, on=["backend", "batch_size"], how="semi")
    both = [_figures(each, options) for each in (touched, touched.join(off, on=_ROUND, how="anti", nulls_equal=True))]
    on = [*GROUP, "model", "figure"]
    found = both[0].join(both[1].rename({"value": "without"}), on=on, how="left", nulls_equal=True)
    price = pl.when(pl.col("figure") == RATE).then(pl.col("value") / pl.col("without"))
    return WITHOUT_OFF_ROUNDS.frame(found.with_columns(price_factor=price))


def _figures(rows: pl.DataFrame, options: Options) -> pl.DataFrame:
    per_model = by_model(by_cell(rows))
    laws = scaling_fits(points_of(CELLS.frame(), per_model), None, options)
    laws = laws.with_columns(model=pl.lit(None, pl.String), figure=pl.lit(EXPONENT), value="slope")
    rates = per_model.filter(pl.col("mode") == "e2e_kv")
    rates = rates.with_columns(figure=pl.lit(RATE), value="tokens_per_s_geomean")
    return pl.concat(each.select(*GROUP, "model", "figure", "value") for each in (laws, rates))
