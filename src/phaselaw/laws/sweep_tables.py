"""Every table of a sweep (method 4), from a run's summaries and its measured calls."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from phaselaw.laws.checks.checks import SUSPECT
from phaselaw.laws.points import points_of
from phaselaw.laws.step_time import step_time_points
from phaselaw.laws.step_time_fit import step_time_model
from phaselaw.laws.summary import BUDGET
from phaselaw.laws.sweep_axes import ALL, prompt_lengths
from phaselaw.laws.sweep_changes import sweep_changes
from phaselaw.laws.sweep_curves import sweep_curves
from phaselaw.laws.sweep_exponents import exponent_by_axis, exponent_stability
from phaselaw.laws.sweep_relations import decode_by_batch, decode_by_context, prefill_by_length

TR121_TABLES = ("decode_sweep_summary", "decode_fraction_by_model", "decode_fraction_summary")
"""The tables that TR121 has at the root of its decode sweep."""

_FRACTIONS = [
    "backend", "backend_kind", "batch_size", "model", "model_kind", "kv_decode_latency_ms", "e2e_kv_latency_ms", BUDGET,
    "decode_fraction",
]  # fmt: skip
_FRACTION_SUMMARY = [
    "backend", "backend_kind", BUDGET, "n_models", "decode_fraction_median", "decode_fraction_p25",
    "decode_fraction_p75",
]  # fmt: skip

_FITS = [
    "backend", "backend_kind", "batch_size", "mode", "scenario", "aggregation", "n_models", "ok", "log10_intercept",
    "slope", "r2", "spearman_rho_loglog", "spearman_p_loglog", "theilsen_slope", "theilsen_log10_intercept",
    "theilsen_slope_ci_low", "theilsen_slope_ci_high", "slope_ci_low", "slope_ci_high", "log10_intercept_ci_low",
    "log10_intercept_ci_high", "boot_n_used", "boot_n_requested", BUDGET,
]  # fmt: skip
"""TR121's columns of ``decode_sweep_summary``."""


def sweep_tables(
    tables: Mapping[str, pl.DataFrame], measured: pl.DataFrame, *, level: float
) -> dict[str, pl.DataFrame]:
    """The tables by name.

    ``tables`` are the run's summaries, laws and regimes; ``measured`` its calls that are no warmups, of any number of
    clients.
    """
    cells, per_model = tables["summary_by_model_backend_mode"], tables["summary_by_model_backend_mode_agg"]
    lengths = prompt_lengths(measured)
    points = step_time_points(measured)
    found = {
        "decode_sweep_summary": decode_sweep_summary(tables["scaling_fits"]),
        "exponent_by_axis": exponent_by_axis(tables["scaling_fits"], lengths),
        "exponent_stability": exponent_stability(points_of(cells, per_model), lengths, level=level),
        "sweep_curves": sweep_curves(cells, per_model, lengths, level=level),
        "decode_by_batch": decode_by_batch(points, level=level),
        "decode_by_context": decode_by_context(points, level=level),
        "prefill_by_length": prefill_by_length(points, level=level),
        "step_time_model": step_time_model(points),
    }
    return found | {"sweep_changes": sweep_changes({**tables, **found}, lengths, level=level)}


def as_tr121(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """TR121's three tables as they stand at the root of its sweep: of the fractions, its columns and no other.

    Where batch sizes differ, their column follows, and where rows are suspect, their marks.
    """
    shares, summary = tables["decode_fraction_by_model"], tables["decode_fraction_summary"]
    batches = ["batch_size"] if summary["batch_size"].n_unique() > 1 else []
    return {
        "decode_sweep_summary": tables["decode_sweep_summary"],
        "decode_fraction_by_model": shares.select([*_FRACTIONS, *_marks(shares)]),
        "decode_fraction_summary": summary.select([*_FRACTION_SUMMARY, *batches, *_marks(summary)]),
    }


def _marks(table: pl.DataFrame) -> list[str]:
    """The column of the validity checks' marks, where any row has one."""
    return [SUSPECT] if SUSPECT in table.columns and (table[SUSPECT] != "").any() else []


def decode_sweep_summary(fits: pl.DataFrame) -> pl.DataFrame:
    """The laws on all prompts at each decode budget, TR121's columns first; empty where there is but one budget."""
    of_all = fits.filter(pl.col("scenario") == ALL)
    if of_all[BUDGET].n_unique() < 2:
        of_all = of_all.clear()
    return of_all.select([*_FITS, *(name for name in of_all.columns if name not in _FITS)])
