"""Cold start: how much slower first calls are than warm ones, as their user waits for them (TR121 section 7).

A first call is *process-cold* (the first that a process made on a backend), else *model-cold* (the first since its
model was loaded, or one that loads it), else *shape-cold* (the first of its cell). The kinds are judged apart, each by
its worst event and the number of unsafe ones, since how many warm cells stand beside says nothing of what a first user
waits for. The load counts: the first token of a first request comes after load and prefill. TR121's own rule, p95 over
the cells' warmups with the load left out, stands beside (``warmup_effect_summary``).
"""

from collections.abc import Collection

import polars as pl

from phaselaw.laws.summary import CELL, GROUP, GROUP_COLUMNS, MODEL, ORDER
from phaselaw.records import Run
from phaselaw.tables import BUDGET, LAW, PHASE, Row, Table, counted, derived, digits, flag, measured, plain, words

UNSAFE_RATIO = 2.0
"""A first call is unsafe where it takes so many times a warm one and adds the SLO; TR121's rule has p95 of both."""
PROCESS, SHAPE, LOADED = "process-cold", "shape-cold", "model-cold"

_WHY_EMPTY = "no cell has both warmup and measured calls"
WARMUP_EFFECT = Table(
    name="warmup_effect",
    holds="warmup against measured, every cell and phase",
    why_empty=_WHY_EMPTY,
    columns=(
        LAW,
        words("model", "model"),
        words("scenario", "scenario"),
        PHASE,
        counted("warmup_n"),
        measured("warmup_median_ms", "first call (ms)"),
        counted("measured_n"),
        measured("measured_median_ms", "measured (ms)"),
        derived("warmup_to_measured_ratio", "ratio"),
        derived("warmup_minus_measured_ms", "added (ms)"),
        words("backend_kind"),
        counted("batch_size"),
        words("model_kind"),
        *plain("params_millions_effective"),
        counted(BUDGET),
    ),
    order=("backend", "mode", "scenario", "model", "backend_kind", "batch_size", *MODEL[1:], BUDGET),
    shows="mode backend model scenario warmup_median_ms measured_median_ms warmup_minus_measured_ms "
    "warmup_to_measured_ratio",
)
WARMUP_EFFECT_SUMMARY = Table(
    name="warmup_effect_summary",
    holds="the same over cells, with the worst event",
    caption="Warmup / measured, over cells.",
    why_empty=_WHY_EMPTY,
    columns=(
        *GROUP_COLUMNS,
        counted("n_cells", "cells"),
        derived("ratio_median", "median ratio"),
        derived("ratio_p95", "p95"),
        derived("ratio_max", "worst"),
        derived("added_ms_median"),
        derived("added_ms_p95", "p95 added (ms)"),
        derived("added_ms_max", "most added (ms)"),
        *plain("worst_model worst_scenario", pl.String),
        *plain("worst_warmup_ms worst_measured_ms"),
        flag("cold_start"),
        counted(BUDGET),
    ),
    order=ORDER,
)
COLD_STARTS = Table(
    name="cold_starts",
    holds="first calls against warm ones, load included: the worst by how cold they are, and how many are unsafe",
    why_empty="no first call with warm calls of its cell beside it, or with a load of its own",
    columns=(
        *GROUP_COLUMNS,
        words("coldness", "first call"),
        counted("n_calls", "calls"),
        counted("n_unsafe", "unsafe", provenance="derived"),
        derived("ratio_max", "largest ratio"),
        derived("added_ms_max", "most added (ms)"),
        measured("worst_load_ms", "of which loading"),
        *plain("worst_first_ms worst_warm_ms first_median_ms load_median_ms ratio_median"),
        words("worst_model", "adds most: model"),
        words("worst_scenario", "its scenario"),
        words("smallest_model"),
        *plain("smallest_params_millions"),
        counted(BUDGET),
    ),
    order=(*ORDER, "coldness"),
)


def first_calls(ok_rows: pl.DataFrame, *, slo_ms: float, always_cold: Collection[str] = ()) -> pl.DataFrame:
    """Each first call: what its user waits (``first``), its ``load``, a ``warm`` call of its cell, its ``coldness``.

    ``ok_rows`` are the usable rows, warmups among them; each call to a backend in ``always_cold`` loads its model. A
    first call is held against the median of its cell's warm calls; where there is none, against its own time less its
    load. The worst come first: of the unsafe ones that which adds most.
    """
    cold, load, first, warm = (pl.col(name) for name in ("coldness", "load", "first", "warm"))
    firsts, rest = _first_calls(ok_rows, always_cold)
    cell = [*CELL, "run"]
    typical = rest.filter(~pl.col("is_warmup")).group_by(cell).agg(warm=first.median(), usual=load.median())
    # Whatever the order says: a call whose load is well above the warm calls' loaded its model.
    again = (load - pl.col("usual") >= max(slo_ms, 1.0)) & cold.ne_missing(PROCESS)
    calls = pl.concat([firsts, rest.filter(load >= slo_ms)]).join(typical, on=cell, how="left", nulls_equal=True)
    waits = pl.col("mode") != "kv_decode"
    return (
        calls.with_columns(pl.when(again).then(pl.lit(LOADED)).otherwise(cold).alias("coldness"))
        .filter(cold.is_not_null())
        .with_columns(warm.fill_null(pl.when((load > 0) & waits).then(first - load)), pl.when(waits).then(load))
        .filter(warm > 0)
        .with_columns(ratio=first / warm, added=first - warm)
        .with_columns(unsafe=(pl.col("ratio") >= UNSAFE_RATIO) & (pl.col("added") >= slo_ms))
        .sort("unsafe", "added", descending=True, maintain_order=True)
    )


def cold_starts(firsts: pl.DataFrame) -> pl.DataFrame:
    """``cold_starts`` of `first_calls`: per backend, phase and kind, the worst event and the number of unsafe ones.

    The largest ratio is of the unsafe events, where there are any, as the worst is; so is ``smallest_model``.
    """
    worst = {"added_ms_max": "added", "worst_load_ms": "load", "worst_first_ms": "first"}
    worst |= {"worst_warm_ms": "warm", "worst_model": "model", "worst_scenario": "scenario"}
    model, size = (pl.col(name).filter("unsafe") for name in ("model", "params_millions_effective"))
    return COLD_STARTS.frame(
        firsts.group_by([*GROUP, "coldness"], maintain_order=True).agg(
            n_calls=pl.len(),
            n_unsafe=pl.col("unsafe").sum(),
            smallest_model=model.sort_by(size, nulls_last=True).first(),
            smallest_params_millions=size.min(),
            first_median_ms=pl.col("first").median(),
            load_median_ms=pl.col("load").median(),
            ratio_median=pl.col("ratio").median(),
            ratio_max=pl.col("ratio").filter(pl.col("unsafe") == pl.col("unsafe").first()).max(),
            **{name: pl.col(source).first() for name, source in worst.items()},
        )
    )


def always_cold(run: Run) -> list[str]:
    """The backends whose study asks for a cold start in each call (``cold: true``)."""
    backends = (run.manifest.get("study") or {}).get("backends") or ()
    return [each["name"] for each in backends if each.get("cold")]


def _first_calls(rows: pl.DataFrame, always_cold: Collection[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """First calls with their ``coldness``, and all others; of each its ``load`` and ``first``, what its user waits for.

    That is the first token with the load before it in prefill, the whole answer end to end. The load of an Ollama call
    lies within its TTFT; other engines load before their first call, and a simulated one loads nothing. How cold a call
    is stands in the rows, or else is told by the run's order: a warmup that is the first of its kind.
    """
    loads = ~pl.col("backend_kind").is_in(["openai", "simulated"])
    at_start = pl.when(loads).then(pl.coalesce("hf_load_ms", "load_ms"))
    load, mode = pl.coalesce("ollama_load_ms", at_start), pl.col("mode")
    by_client = pl.when(mode == "prefill").then(pl.col("ttft_ms")).when(mode == "e2e_kv").then(pl.col("request_ms"))
    within = (mode == "kv_decode") | ((pl.col("backend_kind") == "ollama") & pl.col("ttft_ms").is_not_null())
    before = pl.when(within).then(0.0).otherwise(load.fill_null(0.0))
    order = next((name for name in ("call_idx", "started_at_unix") if rows[name].null_count() == 0), None)
    since_model, since_shape = pl.col("calls_since_model_load"), pl.col("calls_since_shape_first_seen")
    told = rows["calls_since_shape_first_seen"].null_count() == 0
    always = pl.col("backend").is_in(list(always_cold))
    candidate = (always | (since_model == 0) | (since_shape == 0)) if told else always | pl.col("is_warmup")
    rows = rows.select(
        *(*CELL, "run", "process_idx", "is_warmup", "calls_since_model_load", "calls_since_shape_first_seen"),
        candidate=candidate,
        place=pl.int_range(pl.len()).over("mode") if order is None else pl.col(order),
        coldness=pl.lit(None, dtype=pl.String),
        load=load,
        first=pl.coalesce(by_client, "latency_ms") + before,
    )

    def is_first(*names: str) -> pl.Expr:
        return pl.col("place") == pl.col("place").min().over("run", "process_idx", "backend", *names)

    rows = rows.with_columns(of_process=is_first())
    of_model = since_model == 0 if told else is_first("model")
    of_shape = since_shape == 0 if told else is_first("model", "batch_size", BUDGET, "scenario")
    kinds = pl.when(pl.col("of_process") & of_model).then(pl.lit(PROCESS)).when(of_model | always).then(pl.lit(LOADED))
    firsts = rows.filter("candidate").with_columns(kinds.when(of_shape).then(pl.lit(SHAPE)).alias("coldness"))
    return firsts, rows.filter(~pl.col("candidate"))


def warmup_effect(ok_rows: pl.DataFrame) -> pl.DataFrame:
    """Per cell and phase: warmup median / measured median, and the difference in ms.

    ``ok_rows`` are the rows whose status is ``ok``, warmups among them. Cells without a warmup or without a measured
    call are left out.
    """
    latency = pl.col("latency_ms")
    cold, warm = latency.filter(pl.col("is_warmup")), latency.filter(~pl.col("is_warmup"))
    cold_ms, warm_ms = pl.col("warmup_median_ms"), pl.col("measured_median_ms")
    return WARMUP_EFFECT.frame(
        ok_rows.group_by(WARMUP_EFFECT.order, maintain_order=True)
        .agg(
            warmup_n=cold.len(), warmup_median_ms=cold.median(), measured_n=warm.len(), measured_median_ms=warm.median()
        )
        .filter((pl.col("warmup_n") > 0) & (pl.col("measured_n") > 0))
        .with_columns(warmup_to_measured_ratio=cold_ms / warm_ms, warmup_minus_measured_ms=cold_ms - warm_ms)
    )


def event_words(row: Row) -> str:
    """The worst event of a row of `COLD_STARTS`, and how many there are, in words."""
    load = row["worst_load_ms"]
    loading = f", {digits(load)} ms of it loading" if load and row["mode"] != "kv_decode" else ""
    first, warm = row["worst_first_ms"], row["worst_warm_ms"]
    return (
        f"{row['coldness']}: {digits(first / warm)} x a warm call ({row['worst_model']}, {row['worst_scenario']}: "
        f"{digits(first)} ms for {digits(warm)} ms{loading}); {row['n_unsafe']} of {row['n_calls']} unsafe"
    )


def warmup_effect_summary(effect: pl.DataFrame, *, slo_ms: float) -> pl.DataFrame:
    """Per backend and phase, over cells: median, p95 and max of the ratio and of the added ms, and the worst event.

    ``cold_start`` is TR121's verdict, by p95: whether it reaches `UNSAFE_RATIO` and ``slo_ms``.
    """
    figures = {"ratio": pl.col("warmup_to_measured_ratio"), "added_ms": pl.col("warmup_minus_measured_ms")}
    worst = pl.col("warmup_to_measured_ratio").arg_max()
    unsafe = (pl.col("ratio_p95") >= UNSAFE_RATIO) & (pl.col("added_ms_p95") >= slo_ms)
    return WARMUP_EFFECT_SUMMARY.frame(
        effect.group_by(GROUP, maintain_order=True)
        .agg(
            pl.len().alias("n_cells"),
            *(each.median().alias(f"{name}_median") for name, each in figures.items()),
            *(each.quantile(0.95, "linear").alias(f"{name}_p95") for name, each in figures.items()),
            *(each.max().alias(f"{name}_max") for name, each in figures.items()),
            pl.col("model", "scenario").get(worst).name.prefix("worst_"),
            worst_warmup_ms=pl.col("warmup_median_ms").get(worst),
            worst_measured_ms=pl.col("measured_median_ms").get(worst),
        )
        .with_columns(cold_start=unsafe)
    )
