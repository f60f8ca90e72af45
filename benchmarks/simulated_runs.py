"""Runs of the simulated engine without a file between, clean and with a defect put in.

`simulated` measures a study through the whole path (schedule, simulated engine, rows). `as_served` turns its rows into
what TR121's runner writes of an Ollama server: it stands in for a server's rows, no server was called. Each of
`DEFECTS` puts one thing wrong into a clean run and leaves the rest as it is.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.engines import module_for
from phaselaw.ladder.spec import LADDER
from phaselaw.measure.calls import measure
from phaselaw.records import Call, Event, Run
from phaselaw.rundir.columns import rows_of
from phaselaw.rundir.read import normalised
from phaselaw.study.model import ModelEntry, Scenario, SimulatedBackend, Study

_HOST = {"gpus": [{"name": "one", "memory": "8192 MiB"}]}
TEXTS = {"micro": "Tell a short joke.", "short": "Summarise the plan. " * 4, "medium": "Explain every step. " * 12}


def ladder_study(settings: dict[str, Any], seed: int, *, models: int = 7, **study: Any) -> Study:
    """Models of the ladder's sizes on one simulated backend with these settings, prompts of text."""
    wanted: dict[str, Any] = {"gen_tokens": 32, "repetitions": 3, "warmup_repetitions": 1, "order": "rounds"} | study
    return Study(
        run_name="simulated",
        seed=seed,
        scenarios=tuple(Scenario(name=name, prompt=text) for name, text in TEXTS.items()),
        backends=(SimulatedBackend(name="sim", kind="simulated", **settings),),
        models=tuple(
            ModelEntry(name=model.name, kind="simulated", params_millions=model.params / 1e6, n_layer=model.n_layer)
            for model in LADDER[:models]
        ),
        **wanted,
    )


def simulated(study: Study) -> Run:
    """A study measured on the simulated engine, as it is read for analysis."""
    sizes = {model.name: model.params_millions for model in study.models}
    prompts = {scenario.name: scenario.prompt for scenario in study.scenarios}
    threads = {backend.name: getattr(backend, "threads", None) for backend in study.backends}
    rows = [
        row
        for event in _events(study)
        if isinstance(event, Call)
        for row in rows_of(
            event,
            prompt=prompts[event.cell.scenario],
            params_millions_config=None,
            params_millions_measured=sizes[event.cell.model],
            threads=threads[event.cell.backend],
        )
    ]
    models = [{"model": model.name, "kind": model.kind, "n_layer": model.n_layer} for model in study.models]
    return Run(
        path=Path("simulated"),
        rows=normalised(pl.DataFrame(rows, infer_schema_length=None), where="simulated"),
        models=pl.DataFrame(models),
        manifest={"order": study.order, "phaselaw_version": "simulated", "study": study.resolved()},
    )


def _events(study: Study) -> Iterator[Event]:
    """What happens, each replicate on engines of its own as if by a process of its own."""
    calls = study.calls_planned() // study.replicates
    for number in range(study.replicates):
        engines = {each.name: module_for(each.kind).create(each) for each in study.backends}
        yield from measure(study, engines=engines, replicate=number, process_idx=number, first_call_idx=number * calls)


def as_served(run: Run) -> Run:
    """The rows as an Ollama server's that were measured by another tool: no word of its prompt cache.

    The largest model's weights take 85 % of the GPU's memory, the others' less.
    """
    weights = [int(0.85 * 2**33 * (at + 1) / run.models.height) for at in range(run.models.height)]
    served = [pl.lit("ollama").alias(name) for name in ("backend_kind", "model_kind")]
    return dataclasses.replace(
        run,
        rows=run.rows.with_columns(*served, pl.col("done_reason").fill_null("length").alias("ollama_done_reason")),
        models=run.models.with_columns(pl.lit("ollama").alias("kind"), pl.Series("weights_bytes", weights)),
        manifest={"order": run.order, "host": _HOST},
    )


def slow_first_calls(run: Run, seed: int) -> Run:
    """Each cell's warmup prefills made slower, by 1.3 to 20 times: loading, clocks, caches of other kinds."""
    draw = random.Random(seed)
    cells = run.rows.select("model", "scenario").unique(maintain_order=True)
    slower = cells.with_columns(pl.Series("slower", [math.exp(draw.uniform(0.26, 3.0)) for _ in range(cells.height)]))
    joined = run.rows.join(slower, on=["model", "scenario"], how="left", maintain_order="left")
    added = pl.col("prefill_ms") * (pl.col("slower") - 1)
    touched = pl.col("is_warmup") & (pl.col("mode") != "kv_decode")
    rows = joined.with_columns(
        pl.when(touched).then(pl.col("latency_ms") + added).otherwise("latency_ms").alias("latency_ms"),
        pl.when(pl.col("is_warmup")).then(pl.col("prefill_ms") + added).otherwise("prefill_ms").alias("prefill_ms"),
    )
    return dataclasses.replace(run, rows=rows.drop("slower"))


def _with_latency(run: Run, factor: pl.Expr) -> Run:
    """Every time in the rows multiplied, and every rate divided."""
    times = ("latency_ms", "prefill_ms", "kv_decode_ms", "decode_step_ms", "kv_decode_ms_per_token",
             "kv_decode_ms_equiv", "request_ms")  # fmt: skip
    slower = [(pl.col(name) * factor).alias(name) for name in times if name in run.rows]
    slower += [(pl.col(name) / factor).alias(name) for name in ("tokens_per_s", "tokens_per_s_compute")]
    return dataclasses.replace(run, rows=run.rows.with_columns(slower))


def prompt_cache(run: Run) -> Run:
    """Fresh prefills that cost 0.2 steps a token, and repeated ones that cost a step, whatever the prompt."""
    computed = pl.col("prompt_tokens_raw") * 0.2 * pl.col("kv_decode_ms") / pl.col("gen_tokens_raw")
    prefill = pl.col("prefill_ms") + pl.when(pl.col("is_warmup")).then(computed).otherwise(0.0)
    rows = run.rows.with_columns(
        pl.when(pl.col("mode") == "prefill").then(prefill).otherwise("latency_ms").alias("latency_ms"),
        prefill.alias("prefill_ms"),
    )
    return dataclasses.replace(run, rows=rows)


def count_convention(run: Run) -> Run:
    """A server whose decode time spans one step less than the tokens that it counts."""
    shorter = (pl.col("gen_tokens_raw") - 1) / pl.col("gen_tokens_raw")
    return dataclasses.replace(run, rows=run.rows.with_columns(pl.col("kv_decode_ms") * shorter))


def prompt_cut(run: Run, context: float = 24.0) -> Run:
    """A server that cuts prompts to its context without a word."""
    return dataclasses.replace(
        run,
        rows=run.rows.with_columns(pl.min_horizontal("prompt_tokens_raw", pl.lit(context)).alias("prompt_tokens_raw")),
    )


def wrong_label(run: Run) -> Run:
    """A study that says 124 M of the smallest model (TR121's early run)."""
    label = pl.when(pl.col("model") == LADDER[0].name).then(124.0).otherwise("params_millions_measured")
    return dataclasses.replace(run, rows=run.rows.with_columns(label.alias("params_millions_config")))


def drift(run: Run, grown: float = 0.3) -> Run:
    """A machine that gets slower from the first call to the last."""
    return _with_latency(run, 1 + grown * pl.col("call_idx") / pl.col("call_idx").max())


def throttling(run: Run, grown: float = 0.1) -> Run:
    """Calls that get slower with each one back to back in their cell."""
    return _with_latency(run, (1 + grown) ** pl.col("rep").fill_null(0.0))


def far_off(run: Run, slower: float = 2.5) -> Run:
    """The largest model slower than its size says: part of it lies in another memory."""
    largest = pl.col("params_millions_effective") == pl.col("params_millions_effective").max()
    return _with_latency(run, pl.when(largest).then(slower).otherwise(1.0))


def few_repetitions(run: Run, seed: int = 1) -> Run:
    """Calls that scatter by 30 %, the repetitions as few as before."""
    draw = random.Random(seed)
    calls = run.rows.select("call_idx").unique(maintain_order=True)
    noise = calls.with_columns(pl.Series("noise", [math.exp(draw.gauss(0, 0.3)) for _ in range(calls.height)]))
    joined = run.rows.join(noise, on="call_idx", how="left", maintain_order="left")
    noisy = _with_latency(dataclasses.replace(run, rows=joined), pl.col("noise"))
    return dataclasses.replace(noisy, rows=noisy.rows.drop("noise"))


def mixed_settings(run: Run) -> Run:
    """A run that went on after its study, and the machine under it, had changed."""
    processes = [
        {"study_sha256": sha, "host": {"os": "Linux 6", "cpu_model": cpu}}
        for sha, cpu in (("0" * 64, "one"), ("1" * 64, "other"))
    ]
    return dataclasses.replace(run, manifest={**run.manifest, "processes": processes})


def mixed_families(run: Run) -> Run:
    """Models of two families under one law."""
    families = ["one" if index % 2 else "other" for index in range(run.models.height)]
    return dataclasses.replace(run, models=run.models.with_columns(pl.Series("family", families)))


def spill(run: Run) -> Run:
    """A largest model whose weights exceed the GPU's memory."""
    weights = [2**30] * (run.models.height - 1) + [9 * 2**30]
    return dataclasses.replace(
        run,
        models=run.models.with_columns(pl.Series("weights_bytes", weights)),
        manifest={**run.manifest, "host": _HOST},
    )


def in_seconds(run: Run) -> Run:
    """Latencies that stand in seconds, where all else stands in milliseconds."""
    return dataclasses.replace(run, rows=run.rows.with_columns(pl.col("latency_ms") / 1000))


def slow_rounds(run: Run, slower: float = 3.0) -> Run:
    """A first round in which everything takes longer."""
    return _with_latency(run, pl.when(pl.col("rep") == 0).then(slower).otherwise(1.0))


DEFECTS: dict[str, Callable[[Run], Run]] = {
    "prompt cache": prompt_cache,
    "count convention": count_convention,
    "prompt cut": prompt_cut,
    "far off the law": far_off,
    "spill": spill,
    "label contradicts measurement": wrong_label,
    "heterogeneous law": mixed_families,
    "contradictory rows": in_seconds,
    "drift": drift,
    "off as a whole": slow_rounds,
    "throttling": throttling,
    "too few repetitions": few_repetitions,
    "cells not comparable": mixed_settings,
}
"""Each check, and what puts before it what it looks for."""
