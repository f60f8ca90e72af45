"""A run in, every table out: what ``phaselaw analyze`` writes into ``analysis/``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from phaselaw.files import write_csv
from phaselaw.laws import structure, summary
from phaselaw.laws.architecture import architectures, weight_bytes, with_given_sizes
from phaselaw.laws.checks.checks import check, marked, validity_checks, validity_findings
from phaselaw.laws.checks.findings import Checked, Evidence
from phaselaw.laws.claims import claims
from phaselaw.laws.concurrency import concurrency_fits, concurrency_throughput
from phaselaw.laws.cross_engine import engine_laws, engine_ratios
from phaselaw.laws.cuda_events import cuda_event_gap_summary
from phaselaw.laws.families import scaling_fits_by_family
from phaselaw.laws.first_to_break import what_breaks_first
from phaselaw.laws.intervals import throughput_intervals
from phaselaw.laws.memory_peak import WHY_EMPTY as NO_PEAKS
from phaselaw.laws.memory_peak import memory_peaks
from phaselaw.laws.options import Options
from phaselaw.laws.overhead import overhead_compute_fits
from phaselaw.laws.physical_limit import NO_CELLS, NO_LIMITS, limits_in, physical_limit
from phaselaw.laws.points import ALL, Units, by_model_and_run, points_of, units_of
from phaselaw.laws.regimes import regimes
from phaselaw.laws.scaling import scaling_fits
from phaselaw.laws.served import (
    BASIS,
    STEP_TRUE,
    TR121,
    by_basis,
    decode_linearity,
    decode_projection_error,
    early_stop_summary,
    length_limited,
    prompt_cache_checks,
    served_rows,
    server_clock,
    warmup_breakdown,
)
from phaselaw.laws.summary import BUDGET
from phaselaw.laws.sweeps import TR121_TABLES, sweep_tables
from phaselaw.laws.validation import prediction_coverage, prediction_validation
from phaselaw.laws.warmup import warmup_effect, warmup_effect_summary
from phaselaw.records import Run

__all__ = ["Analysis", "Options", "analyze", "write"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """The tables of a run by name (method 3), and for each that is empty the reason why."""

    tables: dict[str, pl.DataFrame]
    notes: dict[str, str]
    options: Options


def analyze(run: Run, options: Options | None = None) -> Analysis:
    """Every table of a run. A table that can't be computed is empty, and ``notes`` says why."""
    options = options or Options()
    run = with_given_sizes(run, options.models_table)
    tables, units = _summaries(run, options)
    tables |= _served(run, options)
    tables |= {
        "warmup_effect": warmup_effect(summary.usable(run.rows, include_warmup=True)),
        "cuda_event_gap_summary": cuda_event_gap_summary(summary.usable(run.rows, include_warmup=True)),
    }
    one_client = summary.usable(run.rows, include_warmup=options.include_warmup)
    tables["engine_ratios"] = engine_ratios(one_client, run, level=options.level)
    tables["engine_laws"] = engine_laws(tables["engine_ratios"], level=options.level)
    tables["memory_peaks"] = memory_peaks(run, run.rows.filter(pl.col("status") == "ok"))
    tables["physical_limit"] = physical_limit(run, tables["summary_by_model_backend_mode"])
    ok = run.rows.filter(pl.col("status") == "ok")
    tables["concurrency_throughput"] = concurrency_throughput(ok, level=options.level)
    tables["concurrency_fits"] = concurrency_fits(tables["concurrency_throughput"])
    tables |= _regimes(tables, options)
    tables |= sweep_tables(tables, _measured(run, options), level=options.level)
    tables["prediction_validation"] = prediction_validation(tables, level=options.level)
    tables["prediction_coverage"] = prediction_coverage(tables["prediction_validation"], level=options.level)
    tables["what_breaks_first"] = what_breaks_first(tables, cold_start_ms=options.cold_start_slo_ms)
    tables["claims"] = claims(tables, options, units)
    tables = _checked(run, tables)
    notes = {name: _WHY_EMPTY.get(name, "no usable rows") for name, table in tables.items() if table.is_empty()}
    if "physical_limit" in notes:
        notes["physical_limit"] = NO_LIMITS if limits_in(run.manifest) is None else NO_CELLS
    if run.rows[BUDGET].n_unique() <= 1:
        tables = {name: _without_budget(name, table) for name, table in tables.items()}
    return Analysis(tables=tables, notes=notes, options=options)


def analyze_sweep(run: Run, parts: Mapping[int, Run], options: Options | None = None) -> Analysis:
    """The tables of a sweep alone (`phaselaw.laws.sweeps`), of joined runs that have their own tables beside.

    ``parts`` are the runs by budget: each is checked alone, since calls of several runs have no common order.
    """
    options = options or Options()
    tables, _ = _summaries(run, options)
    tables["warmup_effect"] = warmup_effect(summary.usable(run.rows, include_warmup=True))
    tables |= _regimes(tables, options)
    tables["physical_limit"] = physical_limit(run, tables["summary_by_model_backend_mode"])
    ok = run.rows.filter(pl.col("status") == "ok")
    tables["concurrency_throughput"] = concurrency_throughput(ok, level=options.level)
    found = sweep_tables(tables, _measured(run, options), level=options.level)
    found |= {name: tables[name] for name in TR121_TABLES if name in tables}
    outcomes = [outcome for budget, part in parts.items() for outcome in _outcomes_at(budget, part)]
    found = {name: marked(table, outcomes) for name, table in found.items()}
    notes = {name: _WHY_EMPTY[name] for name, table in found.items() if table.is_empty()}
    return Analysis(tables=found, notes=notes, options=options)


def _measured(run: Run, options: Options) -> pl.DataFrame:
    """Calls that are no warmups, unless those are asked for too, of any number of clients."""
    ok = pl.col("status") == "ok"
    return run.rows.filter(ok if options.include_warmup else ok & ~pl.col("is_warmup"))


def _regimes(tables: dict[str, pl.DataFrame], options: Options) -> dict[str, pl.DataFrame]:
    warmup = warmup_effect_summary(tables["warmup_effect"], slo_ms=options.cold_start_slo_ms)
    found = regimes(tables["scaling_fits"], tables["structure_predictors"], tables["overhead_compute_fits"], warmup)
    return {"warmup_effect_summary": warmup, "regimes": found}


def write(tables: Mapping[str, pl.DataFrame], directory: Path) -> None:
    """Write each table as ``NAME.csv``, whole or not at all; the directory must be there."""
    for name, table in tables.items():
        write_csv(directory / f"{name}.csv", table.columns, table.iter_rows(named=True))


def _checked(run: Run, tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The tables with what stands on suspect rows marked, and the checks that say so."""
    outcomes = _outcomes(run, tables)
    tables = {name: marked(table, outcomes) for name, table in tables.items()}
    return tables | {"validity_checks": validity_checks(outcomes), "validity_findings": validity_findings(outcomes)}


def _outcomes(run: Run, tables: Mapping[str, pl.DataFrame]) -> list[Checked]:
    """What every validity check says of a run."""
    ok = summary.usable(run.rows, include_warmup=True)
    evidence = Evidence(
        run=run,
        ok=ok,
        measured=ok.filter(~pl.col("is_warmup")),
        per_model=tables["summary_by_model_backend_mode_agg"],
        linearity=tables["ollama_decode_linearity"],
    )
    return check(evidence)


def _outcomes_at(budget: int, run: Run) -> list[Checked]:
    """What the checks say of one run of a sweep, each finding told to be of its budget."""
    per_model = summary.by_model(summary.by_cell(summary.usable(run.rows)))
    linearity = decode_linearity(served_rows(summary.usable(run.rows, include_warmup=True)))
    tables = {"summary_by_model_backend_mode_agg": per_model, "ollama_decode_linearity": linearity}
    return [outcome.at_budget(budget) for outcome in _outcomes(run, tables)]


def _summaries(run: Run, options: Options) -> tuple[dict[str, pl.DataFrame], Units | None]:
    """The tables of calls that were alone, and the units that their laws' noise is estimated from."""
    rows = summary.usable(run.rows, include_warmup=options.include_warmup)
    in_rounds = run.order == "rounds"
    cells = summary.by_cell(rows)
    per_model = summary.by_model(cells)
    units = units_of(rows, per_model, run)
    architecture = architectures(run, options.models_table)
    series = structure.structured(per_model, architecture, weight_bytes(run))
    fractions = summary.decode_fractions(per_model)
    tables = {
        "summary_by_model_backend_mode": cells,
        "summary_by_model_backend_mode_agg": per_model,
        "summary_by_model_and_run": by_model_and_run(units, per_model),
        "scaling_fits": scaling_fits(points_of(cells, per_model), units, options),
        "scaling_fits_by_family": scaling_fits_by_family(cells, per_model, run, options, units=units),
        "hf_model_architecture": structure.model_table(architecture),
        "hf_architecture_correlations": structure.architecture_correlations(series),
        "hf_multivariate_fits": structure.multivariate_fits(series, units, options),
        "structure_predictors": structure.structure_predictors(series),
        "overhead_compute_fits": overhead_compute_fits(per_model, level=options.level),
        "throughput_intervals": throughput_intervals(rows, cells, per_model, in_rounds=in_rounds, level=options.level),
        "decode_fraction_by_model": fractions,
        "decode_fraction_summary": summary.decode_fraction_summary(fractions),
    }
    return tables, units


def _served(run: Run, options: Options) -> dict[str, pl.DataFrame]:
    served = served_rows(summary.usable(run.rows, include_warmup=True))
    measured = served if options.include_warmup else served.filter(~pl.col("is_warmup"))
    linearity = decode_linearity(served)
    return {
        "ollama_warmup_breakdown": warmup_breakdown(served),
        "ollama_early_stop_summary": early_stop_summary(served),
        "ollama_decode_linearity": linearity,
        "ollama_decode_projection_error": decode_projection_error(served, linearity),
        "server_clock": server_clock(served),
        "prompt_cache_checks": prompt_cache_checks(run.rows),
        "scaling_fits_by_basis": _by_basis(measured, run, options),
        "scaling_fits_length_limited": _limited(measured, run, options, whole_calls=False),
        "scaling_fits_length_limited_calls": _limited(measured, run, options, whole_calls=True),
    }


def _limited(served: pl.DataFrame, run: Run, options: Options, *, whole_calls: bool) -> pl.DataFrame:
    """The laws on the aggregate, without what calls that stopped early left (method 3)."""
    fits = _aggregate_laws(length_limited(served, whole_calls=whole_calls), run, options, resample_by_name=True)
    name = "length_limited_calls" if whole_calls else "length_limited_decode_only"
    at = fits.columns.index("aggregation") + 1
    return fits.insert_column(at, pl.Series("filter", [name] * fits.height, dtype=pl.String))


def _aggregate_laws(rows: pl.DataFrame, run: Run, options: Options, *, resample_by_name: bool = False) -> pl.DataFrame:
    """``scaling_fits`` of these rows on the geometric means over scenarios."""
    cells = summary.by_cell(rows)
    per_model = summary.by_model(cells)
    points = points_of(cells, per_model).filter(pl.col("scenario") == ALL)
    return scaling_fits(points, units_of(rows, per_model, run), options, resample_by_name=resample_by_name)


def _by_basis(served: pl.DataFrame, run: Run, options: Options) -> pl.DataFrame:
    """The laws on the aggregate of served engines, by the steps that ran and by TR121's projection (method 3)."""
    rows = by_basis(served)
    fits = []
    for basis in (STEP_TRUE, TR121):
        of_basis = rows.filter(pl.col(BASIS) == basis)
        fits.append(_aggregate_laws(of_basis, run, options).with_columns(pl.lit(basis).alias(BASIS)))
    return pl.concat(fits).sort(["backend", "batch_size", BUDGET, "mode", BASIS])


_KEEP_BUDGET: frozenset[str] = frozenset(
    {
        "decode_fraction_by_model",
        "decode_fraction_summary",
        "decode_sweep_summary",
        "exponent_by_axis",
        "exponent_stability",
        "sweep_curves",
        "concurrency_throughput",
        "concurrency_fits",
        "ollama_early_stop_summary",
        "ollama_decode_linearity",
        "ollama_decode_projection_error",
    }
)
"""Tables in which TR121 itself has the decode budget."""


def _without_budget(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """A table without the column of the decode budget, which says nothing where a run has but one."""
    return table if name in _KEEP_BUDGET or BUDGET not in table.columns else table.drop(BUDGET)


_NO_LAYERS = "no models whose layers are known (config, resolved_model_params.csv, ladder or --models-table)"
_NO_REASONS = "no rows say why a generation ended (done_reason): nothing here may stop early"
_NO_AXIS = "nothing was swept: one value of every axis (phaselaw sweep)"
_WHY_EMPTY: dict[str, str] = {
    "summary_by_model_and_run": "one run: several of one study are pooled (phaselaw analyze RUN RUN --out DIR)",
    "memory_peaks": NO_PEAKS,
    "decode_sweep_summary": "one decode budget (phaselaw sweep --axis gen_tokens=8,32,64,128)",
    "exponent_by_axis": _NO_AXIS,
    "exponent_stability": _NO_AXIS,
    "sweep_curves": _NO_AXIS,
    "sweep_changes": _NO_AXIS,
    "decode_by_batch": "fewer than three batch sizes at one length (phaselaw sweep --axis batch_size=1,2,4,8)",
    "decode_by_context": "fewer than three context lengths at one batch size",
    "prefill_by_length": "fewer than four prompt lengths at one batch size (phaselaw sweep --axis prompt_tokens=...)",
    "step_time_model": "no measured prefills or decodes whose prompt tokens are known",
    "hf_model_architecture": _NO_LAYERS,
    "hf_architecture_correlations": _NO_LAYERS + ", three or more",
    "hf_multivariate_fits": _NO_LAYERS + ", three or more that differ in depth and size",
    "warmup_effect": "no cell has both warmup and measured calls",
    "warmup_effect_summary": "no cell has both warmup and measured calls",
    "cuda_event_gap_summary": "no CUDA event times",
    "decode_fraction_by_model": "no model has both kv_decode and e2e_kv rows",
    "decode_fraction_summary": "no model has both kv_decode and e2e_kv rows",
    "ollama_warmup_breakdown": "no prefill rows with a server's load time, warmup and measured",
    "ollama_early_stop_summary": _NO_REASONS,
    "ollama_decode_linearity": "no model whose calls differ in tokens generated",
    "ollama_decode_projection_error": "no model whose calls differ in tokens generated",
    "scaling_fits_length_limited": _NO_REASONS,
    "scaling_fits_length_limited_calls": _NO_REASONS,
    "scaling_fits_by_family": "no backend with several families, one of them of three models or more",
    "regimes": "no e2e_kv rows to fit",
    "what_breaks_first": "no e2e_kv rows with a parameter count",
    "prediction_validation": "no law over four models, so that three are left to predict one from",
    "prediction_coverage": "no law over four models, so that three are left to predict one from",
    "validity_findings": "no check spoke up",
    "concurrency_throughput": "no served backend was called by different numbers of clients",
    "concurrency_fits": "no served backend was called by different numbers of clients",
    "engine_ratios": "no model was measured on two backends",
    "engine_laws": "no model was measured on two backends",
    "server_clock": "no calls with both a server's decode time and a client's token arrivals",
    "prompt_cache_checks": "no calls of an engine that may answer from a prompt cache",
    "scaling_fits_by_basis": "no served calls with both a decode step and TR121's projection",
}
