"""A run in, every table out: what ``phaselaw analyze`` writes into ``analysis/``.

`TABLES` lists each table's declaration with the function that computes it from a `Context`. A new table is two places:
its file (the `Table` and its function), and its line here.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import polars as pl

from phaselaw.laws import (
    concurrency,
    decisions,
    disturbed,
    engine_ratios,
    law_differences,
    noise,
    overhead,
    physical_limit,
    prediction,
    rates,
    requests,
    scaling,
    served,
    step_time,
    structure,
    summary,
    sweep_relations,
    sweeps,
    warmup,
)
from phaselaw.laws.checks import CHECKS, frame
from phaselaw.laws.checks.frame import CheckResult, Evidence
from phaselaw.laws.options import Options
from phaselaw.records import Run
from phaselaw.tables import BUDGET, Table

__all__ = ["Analysis", "Options", "analyze"]


class Context(dict[Any, pl.DataFrame]):
    """What the tables of a run are computed from: its rows, the options, and each other (``context[TABLE]``).

    A table, by its declaration or its name, is computed when first asked for, and kept.
    """

    def __init__(self, run: Run, options: Options) -> None:
        super().__init__()
        self.run = structure.with_given_sizes(run, options.models_table)
        self.options = options
        self.level = options.level
        self.in_rounds = self.run.order == "rounds"
        self.slo_ms = options.cold_start_slo_ms

    def __missing__(self, table: Table | str) -> pl.DataFrame:
        if isinstance(table, Table):
            return self[table.name]
        return self.setdefault(table, _BY_NAME[table](self))

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The rows that laws are fitted to: of calls that were alone, without warmups unless these are asked for."""
        return summary.usable(self.run.rows, include_warmup=self.options.include_warmup)

    @cached_property
    def with_warmups(self) -> pl.DataFrame:
        """The same rows and the warmups."""
        return summary.usable(self.run.rows, include_warmup=True)

    @property
    def alone(self) -> pl.DataFrame:
        """The same rows without warmups, whatever is asked for."""
        return self.with_warmups.filter(~pl.col("is_warmup"))

    @cached_property
    def ok(self) -> pl.DataFrame:
        """The rows of every call that succeeded, of any number of clients, warmups among them."""
        return self.run.rows.filter(pl.col("status") == "ok")

    @cached_property
    def measured(self) -> pl.DataFrame:
        """`ok` without warmups, unless these are asked for."""
        return self.ok if self.options.include_warmup else self.ok.filter(~pl.col("is_warmup"))

    @cached_property
    def served(self) -> pl.DataFrame:
        """The rows of engines that say why generation ended, warmups among them."""
        return served.served_rows(self.with_warmups)

    @property
    def cells(self) -> pl.DataFrame:
        return self[summary.CELLS]

    @property
    def per_model(self) -> pl.DataFrame:
        return self[summary.PER_MODEL]

    @cached_property
    def requests(self) -> Self:
        """The same run end to end as its users wait; of a run that isn't ours it is the same."""
        if self.run.rows["request_ms"].null_count() == self.run.rows.height:
            return self
        return type(self)(dataclasses.replace(self.run, rows=summary.as_requests(self.run.rows)), self.options)

    @cached_property
    def points(self) -> pl.DataFrame:
        """What scaling laws are fitted to."""
        return noise.points_of(self.cells, self.per_model)

    @cached_property
    def units(self) -> noise.Replicates:
        """The runs, replicates, rounds or repetitions over which figures scatter."""
        return noise.units_of(self.rows, in_rounds=self.in_rounds)

    @property
    def replicates(self) -> noise.Replicates | None:
        """Those of them that laws take notice of."""
        return self.units.for_laws

    @cached_property
    def structured(self) -> pl.DataFrame:
        """The models' latencies with their structure beside them."""
        return structure.structured(self.per_model, self[structure.MODEL_ARCHITECTURE], structure.sizes(self.run))

    @cached_property
    def first_calls(self) -> pl.DataFrame:
        """First calls with how cold they were."""
        return warmup.first_calls(self.with_warmups, slo_ms=self.slo_ms, always_cold=warmup.always_cold(self.run))

    @cached_property
    def prompt_lengths(self) -> pl.DataFrame:
        """The prompt's tokens of each backend and scenario."""
        return sweeps.prompt_lengths(self.measured, self.run.manifest.get("study") or {})

    @cached_property
    def step_points(self) -> pl.DataFrame:
        """Times of prefills and decode steps by batch and length."""
        return step_time.step_time_points(self.measured)

    @cached_property
    def parts(self) -> tuple["Context", ...]:
        """Of a sweep, each of its runs."""
        return tuple(Context(part, self.options) for part in self.run.parts)

    @cached_property
    def evidence(self) -> Evidence:
        """What the validity checks look at."""
        ok, per_model, linearity = self.with_warmups, self.per_model, self[served.DECODE_LINEARITY]
        return Evidence(run=self.run, ok=ok, measured=self.alone, per_model=per_model, linearity=linearity)

    @cached_property
    def outcomes(self) -> list[CheckResult]:
        """What every validity check says of the run; of a sweep, of each of its runs: their calls have no one order."""
        if self.parts:
            budgets, each = [part.run.rows[BUDGET][0] for part in self.parts], (part.outcomes for part in self.parts)
            return [
                CheckResult.of_sweep(dict(zip(budgets, results, strict=True))) for results in zip(*each, strict=True)
            ]
        return [check(self.evidence) for check in CHECKS]


TABLES: tuple[tuple[Table, Callable[[Context], pl.DataFrame]], ...] = (
    (summary.CELLS, lambda of: summary.by_cell(of.rows)),
    (summary.PER_MODEL, lambda of: summary.by_model(of.cells)),
    (summary.REQUESTS, lambda of: of.requests.per_model),
    (noise.SUMMARY_BY_MODEL_AND_RUN, lambda of: noise.by_model_and_run(of.replicates)),
    (scaling.SCALING_FITS, lambda of: scaling.scaling_fits(of.points, of.replicates, of.options)),
    (scaling.SCALING_FITS_BY_FAMILY, lambda of: scaling.by_family(of.points, of.run, of.options, of.replicates)),
    (structure.MODEL_ARCHITECTURE, lambda of: structure.architectures(of.run, of.options.models_table)),
    (structure.ARCHITECTURE_CORRELATIONS, lambda of: structure.architecture_correlations(of.structured)),
    (structure.MULTIVARIATE_FITS, lambda of: structure.multivariate_fits(of.structured, of.replicates, of.options)),
    (structure.STRUCTURE_PREDICTORS, lambda of: structure.structure_predictors(of.structured)),
    (overhead.OVERHEAD_COMPUTE_FITS, lambda of: overhead.overhead_compute_fits(of.per_model, of.level)),
    (
        rates.THROUGHPUT_INTERVALS,
        lambda of: rates.throughput_intervals(of.requests.units, of.requests.per_model, of.level),
    ),
    (summary.DECODE_FRACTION_BY_MODEL, lambda of: summary.decode_fractions(of.per_model)),
    (summary.DECODE_FRACTION_SUMMARY, lambda of: summary.decode_fraction_summary(of[summary.DECODE_FRACTION_BY_MODEL])),
    (served.WARMUP_BREAKDOWN, lambda of: served.warmup_breakdown(of.served)),
    (served.EARLY_STOP_SUMMARY, lambda of: served.early_stop_summary(of.served)),
    (served.DECODE_LINEARITY, lambda of: served.decode_linearity(of.served)),
    (served.DECODE_PROJECTION_ERROR, lambda of: served.decode_projection_error(of.served, of[served.DECODE_LINEARITY])),
    (served.SERVER_CLOCK, lambda of: served.server_clock(of.served)),
    (served.PROMPT_CACHE_CHECKS, lambda of: served.prompt_cache_checks(of.run.rows)),
    (scaling.SCALING_FITS_BY_BASIS, lambda of: scaling.by_basis(of.rows, of.run, of.options)),
    (scaling.LENGTH_LIMITED, lambda of: scaling.length_limited(of.rows, of.run, of.options)),
    (scaling.LENGTH_LIMITED_CALLS, lambda of: scaling.length_limited(of.rows, of.run, of.options, whole_calls=True)),
    (warmup.WARMUP_EFFECT, lambda of: warmup.warmup_effect(of.with_warmups)),
    (summary.CUDA_EVENT_GAP_SUMMARY, lambda of: summary.cuda_event_gap_summary(of.with_warmups)),
    (engine_ratios.ENGINE_RATIOS, lambda of: engine_ratios.engine_ratios(of.cells, of.replicates, of.run, of.level)),
    (engine_ratios.ENGINE_LAWS, lambda of: engine_ratios.engine_laws(of[engine_ratios.ENGINE_RATIOS], of.level)),
    (physical_limit.MEMORY_PEAKS, lambda of: physical_limit.memory_peaks(of.run, of.ok)),
    (physical_limit.MEMORY_LAWS, lambda of: physical_limit.memory_laws(of[physical_limit.MEMORY_PEAKS], of.level)),
    (physical_limit.PHYSICAL_LIMIT, lambda of: physical_limit.physical_limit(of.run, of.cells)),
    (concurrency.CONCURRENCY_THROUGHPUT, lambda of: concurrency.concurrency_throughput(of.run.rows, of.level)),
    (concurrency.CONCURRENCY_FITS, lambda of: concurrency.concurrency_fits(of[concurrency.CONCURRENCY_THROUGHPUT])),
    (warmup.WARMUP_EFFECT_SUMMARY, lambda of: warmup.warmup_effect_summary(of[warmup.WARMUP_EFFECT], slo_ms=of.slo_ms)),
    (warmup.COLD_STARTS, lambda of: warmup.cold_starts(of.first_calls)),
    (
        requests.REQUESTS_BY_PROMPT,
        lambda of: requests.requests_by_prompt(of.alone, of.first_calls, in_rounds=of.in_rounds, level=of.level),
    ),
    (requests.MODELS_BY_PROMPT, lambda of: requests.models_by_prompt(of.alone, in_rounds=of.in_rounds, level=of.level)),
    (decisions.REGIMES, decisions.regimes),
    (sweeps.DECODE_SWEEP_SUMMARY, lambda of: sweeps.decode_sweep_summary(of[scaling.SCALING_FITS])),
    (sweeps.EXPONENT_BY_AXIS, lambda of: sweeps.exponent_by_axis(of[scaling.SCALING_FITS], of.prompt_lengths)),
    (sweeps.EXPONENT_STABILITY, lambda of: sweeps.exponent_stability(of.points, of.prompt_lengths, of.level)),
    (sweeps.SWEEP_CURVES, lambda of: sweeps.sweep_curves(of.cells, of.per_model, of.prompt_lengths, of.level)),
    (sweep_relations.DECODE_BY_BATCH, lambda of: sweep_relations.decode_by_batch(of.step_points, of.level)),
    (sweep_relations.DECODE_BY_CONTEXT, lambda of: sweep_relations.decode_by_context(of.step_points, of.level)),
    (sweep_relations.PREFILL_BY_LENGTH, lambda of: sweep_relations.prefill_by_length(of.step_points, of.level)),
    (step_time.STEP_TIME_MODEL, lambda of: step_time.step_time_model(of.step_points)),
    (sweeps.SWEEP_CHANGES, lambda of: sweeps.sweep_changes(of, of.prompt_lengths, of.level)),
    (prediction.PREDICTION_VALIDATION, lambda of: prediction.prediction_validation(of, of.level)),
    (
        prediction.PREDICTION_COVERAGE,
        lambda of: prediction.prediction_coverage(of[prediction.PREDICTION_VALIDATION], of.level),
    ),
    (decisions.WHAT_BREAKS_FIRST, decisions.what_breaks_first),
    (decisions.CLAIMS, lambda of: decisions.claims(of, of.options, of.replicates)),
    (
        disturbed.WITHOUT_OFF_ROUNDS,
        lambda of: disturbed.without_off_rounds(of.alone, of.options, in_rounds=of.in_rounds),
    ),
    (disturbed.WITHOUT_DISTURBED, lambda of: disturbed.without_disturbed(of.alone, of.evidence.disturbed)),
    (frame.VALIDITY_CHECKS, lambda of: frame.validity_checks(of.outcomes)),
    (frame.VALIDITY_FINDINGS, lambda of: frame.validity_findings(of.outcomes)),
)
"""Every table of a run with the function that computes it, in the order in which they are told."""

_BY_NAME = {table.name: compute for table, compute in TABLES}

DECLARED = {table.name: table for table in (*(table for table, _ in TABLES), law_differences.LAWS_SIDE_BY_SIDE)}
"""Every table's declaration by name, the one of several runs side by side among them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """The tables of a run by name (method 3), and for each that is empty the reason why."""

    tables: dict[str, pl.DataFrame]
    notes: dict[str, str]
    options: Options
    one_budget: bool = False
    """Whether every call had the same decode budget: then a CSV leaves its column out, but where TR121 has it."""
    parts: tuple[Context, ...] = ()
    """Of a sweep, its runs, with what was computed of each."""

    def as_written(self) -> dict[str, pl.DataFrame]:
        """The tables as their CSVs have them."""
        return {
            name: table.drop(BUDGET, strict=False) if self.one_budget and not DECLARED[name].keeps_budget else table
            for name, table in self.tables.items()
        }


def analyze(run: Run, options: Options | None = None) -> Analysis:
    """Every table of a run, what stands on suspect rows marked; of one that is empty ``notes`` says why."""
    return analysed(Context(run, options or Options()))


def analysed(context: Context) -> Analysis:
    """The same of a context, which keeps what was computed."""
    outcomes = context.outcomes
    found = {
        table.name: context[table.name] if table is frame.VALIDITY_FINDINGS else frame.marked(context[table], outcomes)
        for table, _ in TABLES
    }
    notes = {table.name: table.why_empty for table, _ in TABLES if found[table.name].is_empty()}
    one_budget = context.run.rows[BUDGET].n_unique() <= 1
    return Analysis(tables=found, notes=notes, options=context.options, one_budget=one_budget, parts=context.parts)
