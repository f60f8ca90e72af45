"""phaselaw in Python: read runs, and ask of them in plain functions what the commands print.

``phaselaw.load(RUN)`` is `load`. What it gives holds data frames (polars; ``.to_pandas()`` works where pandas and
pyarrow are installed); `fit`, `predict`, `compare` and `plan` take it and give typed results. docs/phaselaw.ipynb shows
them. Errors are `phaselaw.errors.PhaselawError`, each message one line.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.laws import comparison, prediction
from phaselaw.laws.analysis import Analysis, Options, analyze
from phaselaw.laws.comparison import Comparison
from phaselaw.laws.prediction import NewModel, Predictions
from phaselaw.plan import DEFAULT_TOKENS_PER_MONTH, TR121_USD_PER_HOUR
from phaselaw.plan.capacity import Headroom, capacity_row, positive
from phaselaw.plan.estimate import Estimate
from phaselaw.plan.workers import workers_of
from phaselaw.records import Run
from phaselaw.rundir import read as runs
from phaselaw.rundir.conditions import differences

__all__ = ["Headroom", "Law", "Loaded", "Need", "compare", "fit", "load", "plan", "predict"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """One run, or several of one study pooled, as read; its tables are computed when first asked for."""

    run: Run
    options: Options

    @property
    def rows(self) -> pl.DataFrame:
        """The raw rows, one a phase and call (docs/run-directory.md, metrics.csv)."""
        return self.run.rows

    @property
    def models(self) -> pl.DataFrame:
        """What was measured of each model; empty where the run does not say."""
        return self.run.models

    @functools.cached_property
    def analysis(self) -> Analysis:
        """The tables of ``phaselaw analyze``, and why those that are empty are."""
        return analyze(self.run, self.options)

    @property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """Every table of ``phaselaw analyze`` by name."""
        return self.analysis.tables


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """``latency ~ params^exponent`` of one backend and phase, over all scenarios (geometric mean)."""

    backend: str
    batch_size: int
    gen_tokens_target: int | None
    """The decode budget; ``None`` where the run has but one."""
    mode: str
    n_models: int
    exponent: float | None
    low: float | None
    """The t interval of the exponent over models, at the level of `load`; ``None`` where there is none."""
    high: float | None
    r2: float | None
    verdict: str
    suspect: str | None
    """The validity checks that spoke up on rows this law stands on."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What one model on one backend needs for a volume of tokens."""

    backend: str
    model: str
    batch_size: int
    gen_tokens: int | None
    """Decode budget of the measurement the rate is from."""
    tokens_per_s: Estimate
    """Measured: end-to-end tokens (prompt and generated) a second and worker."""
    workers: Estimate
    """Derived: workers busy all the time, a lower bound."""
    whole_workers: Estimate
    """Derived: whole workers, with the headroom that was asked for."""
    usd_per_1m: Estimate
    """Derived: dollars for a million tokens."""
    usd_per_month: Estimate
    """Derived: dollars a month for the time that is used."""
    interval_basis: str
    """What the intervals hold."""
    suspect: str
    """The validity checks that spoke up on rows behind it; empty: none."""


def load(
    *paths: Path | str, level: float = 0.95, models_table: Path | str | None = None, allow_different: bool = False
) -> Loaded:
    """Read a run directory, ours or TR121's, or a ``metrics.csv``; several runs of one study on one host are pooled.

    ``level`` is that of every interval. ``models_table`` is a CSV with the architecture of models whose config is
    absent. Raises `AnalysisError` for what can't be read, or be pooled unless ``allow_different``.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level:g}: give a share between 0 and 1")
    table = None if models_table is None else Path(models_table)
    run = runs.load_all(paths, allow_different=allow_different)
    return Loaded(run=run, options=Options(level=level, models_table=table))


def fit(loaded: Loaded) -> list[Law]:
    """The scaling law in parameters of each backend, batch size, budget and phase."""
    return [
        Law(
            backend=row["backend"],
            batch_size=row["batch_size"],
            gen_tokens_target=row.get("gen_tokens_target"),
            mode=row["mode"],
            n_models=row["n_models"],
            exponent=row["slope"],
            low=row["slope_t_ci_low"],
            high=row["slope_t_ci_high"],
            r2=row["r2"],
            verdict=row["verdict"],
            suspect=row.get("suspect") or None,
        )
        for row in loaded.tables["scaling_fits"].iter_rows(named=True)
        if row["scenario"] == "__all__"
    ]


def predict(
    loaded: Loaded, *, params: float, layers: float | None = None, width: float | None = None, extrapolate: bool = False
) -> Predictions:
    """The latency of a model of ``params`` parameters (a count, such as 3e9), as ``phaselaw predict`` makes it.

    Outside the measured range a backend is in ``refused`` with the reason, unless ``extrapolate``.
    """
    for name, value in (("params", params), ("layers", layers), ("width", width)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} {value:g}: give a positive number")
    model = NewModel(params_millions=params / 1e6, n_layer=layers, n_embd=width)
    return prediction.predict(loaded.tables, model, level=loaded.options.level, extrapolate=extrapolate)


def compare(a: Loaded, b: Loaded, *, threshold: float = 0.05, allow_different: bool = False) -> Comparison:
    """The latency of the runs ``b`` over that of the runs ``a``, as ``phaselaw compare`` judges it.

    Raises `AnalysisError` where study or host differ, unless ``allow_different``.
    """
    found = differences(a.run.manifest or {}, b.run.manifest or {})
    if found and not allow_different:
        raise AnalysisError(f"a and b differ in {'; '.join(found)}")
    return comparison.compare(a.run, b.run, threshold=threshold, level=a.options.level)


def plan(
    loaded: Loaded,
    *,
    tokens_per_month: float = DEFAULT_TOKENS_PER_MONTH,
    usd_per_hour: float = TR121_USD_PER_HOUR,
    headroom: Headroom | None = None,
) -> list[Need]:
    """Workers and dollars for a monthly volume of tokens, on each model and backend that was measured.

    ``headroom`` is what whole workers keep free; ``None`` is nothing.
    """
    volume, price = positive("tokens_per_month", tokens_per_month), positive("usd_per_hour", usd_per_hour)
    workers = workers_of(loaded.run, loaded.analysis, price)
    return [_need(capacity_row(worker, volume, headroom or Headroom())) for worker in workers]


def _need(row: Mapping[str, Any]) -> Need:
    """A row of the plan, each figure with its ends together."""

    def figure(name: str) -> Any:
        ends = f"{name}_low", f"{name}_high"
        return Estimate(value=row[name], low=row[ends[0]], high=row[ends[1]]) if ends[0] in row else row[name]

    return Need(**{field.name: figure(field.name) for field in dataclasses.fields(Need)})
