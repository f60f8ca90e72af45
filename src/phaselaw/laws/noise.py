"""The noise of every figure: calls lie in rounds of a run, or in runs of a pool, and models are the cells (method 3).

`Replicates` are a law's log latencies and log rates, one row a cell and replicate: the (replicate x cell) matrix, built
once. Replicates are the runs where several are pooled, else the rounds of a run. Slopes, ratios and rates are linear in
these logs, so each has its noise from the scatter of its own value over replicates.

A law's points scatter about it by what models are and by their share of the noise, so least squares over models knows
both. What it can't know is noise that tilts all points of one replicate at once: a slope that is another one in each
run. That is estimated from the slopes of replicates fitted alone. Written for the points y of models i in replicates
u, ``y = a + b x + model_i + level_u + tilt_u x + rest_iu``, with R replicates and S the sum of squares of x, the
variance of the pooled slope is ::

    var(model) / S + var(tilt) / R + var(rest) / (R S)  =  scatter + between - shared

where *scatter* is the squared standard error of least squares on the pooled points, *between* the variance of the
replicates' slopes over R, and *shared* what the rest alone gives, which both of them hold: a crossed design's
components (Searle, Casella and McCulloch, Variance Components, 1992, 4.7).

Both variances are estimated, from ``m = models - 2`` and ``u = R - 1`` degrees of freedom: the problem of Behrens and
Fisher, for which no exact interval is known. Satterthwaite's degrees of freedom fail where u is small, and adding the
half widths of both in quadrature (Banerjee, Sankhya A 23, 1961) is too wide. So quadrature is tempered by the share
that the replicates have of the variance, ``w = beyond / (scatter + beyond)``::

    half width^2  =  t(m)^2 scatter (1 - w)^(4 / m u)  +  t(u)^2 beyond w^(4 / m + 0.6 / u^2)

which is the t interval of either where it is alone, and adds the variances where m and u are large. ``beyond`` is
``between - shared``, or 0. The exponents are ours: with them coverage stays nearest to the level over numbers of models
and replicates, and shares of noise (`benchmarks/coverage.py`). Few replicates can't be helped wholly: where the noise
between them is nearly all there is, the interval is short in the one case of ten in which they agree by luck.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phaselaw.laws.regression import Floats, log_interval, t_half_width
from phaselaw.laws.series import Series, floats
from phaselaw.laws.summary import GROUP, INCOMPLETE, MODEL, by_cell_and_unit, median_variance, unit_of, variance_for_t
from phaselaw.tables import BUDGET, Table, plain, words

Kind = Literal["runs", "replicates", "rounds"]
"""Runs that were pooled, replicates of one run (fresh processes, back to back), or rounds of one replicate."""

ALL = "__all__"
"""The ``scenario`` of a law on the geometric means over scenarios."""
KEYS = [*GROUP, "scenario", "aggregation"]
"""What tells one law from another."""

CELLS = "repetitions within cells, within this run only"
NOT_MEASURED = "not measured"
BASIS: dict[Kind, str] = {
    "runs": "runs, the noise between them included",
    "replicates": "replicates, back to back",
    "rounds": "rounds, within this run only",
}
"""What an interval over replicates holds, in words."""

_MODEL_KEYS = [*GROUP, *MODEL]
_CELL = [*_MODEL_KEYS, "scenario"]
_FEWEST: dict[Kind, int] = {"runs": 2, "replicates": 2, "rounds": 3}
"""Replicates that an interval takes notice of: two rounds would make every interval of a run with two repetitions
wide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replicates:
    """Each cell in each replicate: the runs of a pool, else the replicates of one run, else its rounds."""

    kind: Kind
    n: int
    logs: pl.DataFrame
    """A row a cell (`GROUP`, `MODEL`, ``scenario``) and ``replicate``: the natural logs of ``latency`` (ms) and of
    ``rate`` (tokens/s; null where unknown), and ``n_scenarios`` of the model in all replicates."""

    @functools.cached_property
    def points(self) -> pl.DataFrame:
        """The ``log`` latency of each law's models in each replicate, by `KEYS`, `MODEL` and ``replicate``.

        A model's mean over scenarios stands only for the replicates in which all its scenarios were measured.
        """
        means = self.logs.group_by([*_MODEL_KEYS, "replicate"], maintain_order=True)
        of_all = means.agg(pl.col("n_scenarios").first(), log=pl.col("latency").mean(), n=pl.len())
        whole = of_all.filter(pl.col("n") == pl.col("n_scenarios"))
        return _points(whole, self.logs.with_columns(log="latency"), ["replicate", "log"])

    def of(self, models: pl.DataFrame) -> Replicates:
        """The replicates of these models alone."""
        kept = self.logs.join(models.select(_MODEL_KEYS).unique(), on=_MODEL_KEYS, how="semi", nulls_equal=True)
        return Replicates(kind=self.kind, n=self.n, logs=kept)

    def by_model(self) -> pl.DataFrame:
        """The points of the laws over all scenarios: `GROUP`, `MODEL`, ``replicate``, ``log``."""
        return self.points.filter(pl.col("scenario") == ALL)

    def relative(self, of: Literal["latency", "rate"]) -> pl.DataFrame:
        """Each model's ``log`` in each replicate relative to the mean of its cells, by `GROUP`, `MODEL`.

        Relative to the cell's mean, so that a call that failed does not shift its replicate.
        """
        log = pl.col(of)
        return (
            self.logs.filter(log.is_not_null())
            .select(*_MODEL_KEYS, "replicate", (log - log.mean().over(_CELL)).alias("log"))
            .group_by([*_MODEL_KEYS, "replicate"], maintain_order=True)
            .agg(pl.col("log").mean())
        )


def point_variance(n: int, kind: Kind) -> float:
    """Variance of a point made of ``n`` replicates of variance 1: a mean over runs, or a median of rounds."""
    return variance_for_t(n) if kind == "rounds" else 1.0 / n


def replicates_of(rows: pl.DataFrame, *, in_rounds: bool) -> Replicates | None:
    """The units of usable rows where a law is over several, else the rounds where calls were made ``in_rounds``.

    ``None`` where nothing tells calls apart that did not share their noise.
    """
    unit, replicate, figures = unit_of(rows), pl.col("rep"), ("latency_ms", "tokens_per_s")
    kind: Kind = "rounds"
    if unit.n > 1:
        rows, kind = by_cell_and_unit(rows, unit.column), "runs" if unit.column == "run" else "replicates"
        replicate, figures = pl.col(unit.column).cast(pl.String), ("latency_median_ms", "tokens_per_s_median")
    elif not in_rounds:
        return None
    elif rows["run"].n_unique() > 1:
        replicate = pl.format("{} {}", "run", "rep")
    latency, rate = (pl.when(pl.col(name) > 0).then(pl.col(name).log()).mean() for name in figures)
    logs = (
        rows.group_by([*_CELL, replicate.alias("replicate")], maintain_order=True)
        .agg(latency=latency, rate=rate)
        .with_columns(n_scenarios=pl.col("scenario").n_unique().over(_MODEL_KEYS))
        .filter(pl.col("replicate").is_not_null())
    )
    n = unit.n if unit.n > 1 else logs["replicate"].n_unique()
    return Replicates(kind=kind, n=n, logs=logs)


def points_of(cells: pl.DataFrame, per_model: pl.DataFrame) -> pl.DataFrame:
    """What scaling laws are fitted to: each model's median latency per scenario, and its mean over scenarios."""
    of_all = per_model.with_columns(latency="latency_geomean_ms")
    of_scenario = cells.with_columns(latency="latency_median_ms", incomplete=pl.lit(None, dtype=pl.String))
    return _points(of_all, of_scenario, ["latency", "latency_log_variance", "incomplete"])


def _points(of_all: pl.DataFrame, of_scenario: pl.DataFrame, figures: list[str]) -> pl.DataFrame:
    """The ``figures`` of each model over all scenarios, then of each scenario, by `KEYS` and `MODEL`."""
    of_all = of_all.with_columns(scenario=pl.lit(ALL), aggregation=pl.lit("geomean_across_scenarios"))
    of_scenario = of_scenario.with_columns(aggregation=pl.lit("scenario"))
    return pl.concat(each.select(*KEYS, *MODEL, *figures) for each in (of_all, of_scenario))


def log_matrices(logs: pl.DataFrame, series: Series) -> list[Floats]:
    """The ``log`` of each law's models, (replicates, models) in the order of ``series``, from rows such as `points`.

    Only of replicates that hold all of the law's models. ``logs`` has the series' keys, `MODEL`, ``replicate``.
    """
    on = [*series.keys.columns, *MODEL]
    law = np.repeat(np.arange(len(series.lengths)), series.lengths)
    models = series.points.select(on).with_columns(pl.Series("law", law), pl.Series("n", series.lengths[law]))
    found = models.with_row_index("at").join(logs, on=on, nulls_equal=True).sort("law", "replicate", "at")
    found = found.filter(pl.len().over("law", "replicate") == pl.col("n"))
    ends = np.searchsorted(found["law"].to_numpy(), np.arange(1, len(series.lengths)))
    values = np.split(found["log"].to_numpy(), ends) if len(series.lengths) else []
    return [each.reshape(-1, n) for each, n in zip(values, series.lengths, strict=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """What replicates say of the noise of estimates, a slope's or another's, one value a law; NaN below two."""

    kind: Kind = "runs"
    n: NDArray[np.int64]
    """Replicates that hold all of the law's models; 0 for one alone."""
    between: Floats
    """Variance of the pooled estimate from that of the replicates' estimates."""
    shared: Floats
    """What of ``between`` the scatter of the points holds already."""

    @classmethod
    def none(cls, laws: int = 1) -> Noise:
        """The noise of laws without replicates."""
        unknown = np.full(laws, np.nan)
        return cls(n=np.zeros(laws, dtype=np.int64), between=unknown, shared=unknown)

    def of(self, laws: NDArray[np.int64]) -> Noise:
        """That of some of the laws."""
        return Noise(kind=self.kind, n=self.n[laws], between=self.between[laws], shared=self.shared[laws])

    def holds(self) -> list[str]:
        """In words, what noise the interval of each law holds."""
        return [interval_holds(int(n), self.kind) for n in self.n]

    def half_width(self, se: Floats, degrees: float, level: float) -> Floats:
        """Half the width of each estimate's interval; ``se`` and ``degrees`` are of least squares over models.

        The noise of too few replicates is taken for none.
        """
        if degrees <= 0:
            return np.full_like(se, np.nan)
        scatter, of_replicates = se**2, np.maximum(self.n - 1.0, 1.0)
        noticed = np.where(self.n >= _FEWEST[self.kind], self.between, np.nan)
        beyond = np.nan_to_num(np.maximum(noticed - np.nan_to_num(self.shared), 0.0))
        both = scatter + beyond
        share = np.divide(beyond, both, out=np.zeros_like(both), where=both > 0)
        one = np.ones_like(both)
        of_models = t_half_width(one, degrees, level) ** 2 * scatter * (1 - share) ** (4 / (degrees * of_replicates))
        exponent = 4 / degrees + 0.6 / of_replicates**2
        half: Floats = np.sqrt(of_models + t_half_width(one, of_replicates, level) ** 2 * beyond * share**exponent)
        return half


def interval_holds(n: int, kind: Kind) -> str:
    """In words, what noise an interval holds of which ``n`` replicates hold all models."""
    return f"models, calls and {n} {kind}" if n >= _FEWEST[kind] else "models and calls"


def noise_of(at: Floats, columns: Floats, logs: Floats, *, kind: Kind) -> Noise:
    """The noise between replicates of one estimate of one law: ``at`` (k + 1,) times the law's coefficients.

    The law is a plane in ``columns`` (models, k) with a constant before them, fitted to each row of ``logs``
    (replicates, models) alone.
    """
    n, models = logs.shape
    if n < 2:
        return dataclasses.replace(Noise.none(), kind=kind)
    design = np.column_stack([np.ones(models), columns])
    weights = np.linalg.pinv(design)
    off = logs - logs.mean(axis=0)
    coefficients = off @ weights.T
    rest = off - coefficients @ design.T
    factor = point_variance(n, kind)
    # Of residuals about the law's means, whose coefficients' mean is 0.
    between = ((coefficients @ at) ** 2).sum() / (n - 1)
    degrees = (n - 1) * (models - design.shape[1])
    shared = (rest**2).sum() / degrees * ((at @ weights) ** 2).sum() if degrees > 0 else np.nan
    return Noise(kind=kind, n=np.array([n]), between=np.array([between * factor]), shared=np.array([shared * factor]))


def slope_noise(series: Series, logs: pl.DataFrame, kind: Kind) -> Noise:
    """The noise between replicates of the slope of each law of ``series``; ``logs`` as in `log_matrices`."""
    x, at, parts = np.log(series.values("params_millions_effective")), np.array([0.0, 1.0]), [Noise.none(0)]
    for each, start, n in zip(log_matrices(logs, series), series.starts, series.lengths, strict=True):
        # Two models have a slope; one has none.
        parts.append(noise_of(at, x[start : start + n, None], each if n > 1 else each[:0], kind=kind))
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("n", "between", "shared")}
    return Noise(kind=kind, **joined)


def call_noise_of_slope(x: Floats, log_variance: Floats) -> Floats:
    """Standard error that the points' own variances (of natural logs) give a slope; NaN where one is unknown."""
    dx = x - x.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = dx / (dx * dx).sum(axis=1, keepdims=True) / math.log(10)
        se: Floats = np.sqrt((weights * weights * log_variance).sum(axis=1))
    return se


def spread(logs: pl.DataFrame, keys: Sequence[str], variance: Callable[[int], float]) -> pl.DataFrame:
    """By ``keys``: the standard error ``log_se`` of a point from its ``log`` in each replicate, with their number.

    ``variance`` is that of a point made of so many replicates, each of variance 1.
    """
    log, n = pl.col("log"), pl.col("n")
    found = logs.group_by(keys, maintain_order=True).agg(log.std(), n=log.len().cast(pl.Int64))
    factors = {size: variance(size) ** 0.5 for size in found["n"].unique()}
    log_se = log * n.replace_strict(factors, return_dtype=pl.Float64)
    return found.select(*keys, "n", log_se=log_se, degrees=(n - 1).cast(pl.Float64))


def spread_within_cells(cells: pl.DataFrame) -> pl.DataFrame:
    """Per model and phase: the standard error of the log rate from the calls' scatter within cells.

    Degrees of freedom midway between Satterthwaite's, too few for variances from so few calls, and Welch's correction
    of them (Biometrika 34, 1947), too many where cells scatter differently; at least the fewest of a cell and at most
    those of all.
    """
    factors = {n: variance_for_t(n) / median_variance(n) for n in cells["n"].unique()}
    n = pl.col("n")
    variance = pl.col("tokens_per_s_log_variance") * n.replace_strict(factors, return_dtype=pl.Float64)
    known = variance.null_count() == 0
    satterthwaite = variance.sum() ** 2 / (variance**2 / (n - 1)).sum()
    welch = variance.sum() ** 2 / (variance**2 / (n + 1)).sum() - 2
    degrees = (satterthwaite + pl.max_horizontal(welch, (n - 1).min())) / 2
    return cells.group_by(_MODEL_KEYS, maintain_order=True).agg(
        n.min(),
        log_se=pl.when(known).then(variance.sum().sqrt() / pl.len()),
        degrees=pl.when(known).then(pl.min_horizontal(degrees, (n - 1).sum())),
    )


def with_ends(table: pl.DataFrame, value: str, level: float) -> pl.DataFrame:
    """The table with ``VALUE_low`` and ``VALUE_high``: a t interval of the log by its ``log_se`` and ``degrees``."""
    low, high = log_interval(floats(table, value), floats(table, "log_se"), floats(table, "degrees"), level)
    ends = pl.Series(f"{value}_low", low), pl.Series(f"{value}_high", high)
    return table.with_columns(each.fill_nan(None) for each in ends)


THROUGHPUT_INTERVALS = Table(
    name="throughput_intervals",
    holds="tokens/s with intervals, what prices stand on",
    columns=(
        *plain("backend backend_kind model model_kind", pl.String),
        *plain("params_millions_effective"),
        *plain("batch_size", pl.Int64),
        words("mode"),
        *plain("tokens_per_s tokens_per_s_low tokens_per_s_high"),
        words("interval_basis"),
        *plain(f"n_rounds n_runs {BUDGET}", pl.Int64),
        INCOMPLETE,
        *plain("n_replicates", pl.Int64),
    ),
)


def throughput_intervals(
    replicates: Replicates | None, cells: pl.DataFrame, per_model: pl.DataFrame, *, level: float
) -> pl.DataFrame:
    """Tokens/s of each model and phase (TR121's geometric mean over scenarios) with a t interval on its log.

    From the scatter over replicates where there are any, since the calls of one share its noise; else from that of
    repetitions within a cell. ``interval_basis`` says which, or that a single one left nothing to measure; ``n_rounds``
    (or repetitions), ``n_replicates`` and ``n_runs`` how many there are.
    """
    basis, found = CELLS, spread_within_cells(cells)
    if replicates is not None:
        basis = BASIS[replicates.kind]
        variance = functools.partial(point_variance, kind=replicates.kind)
        found = spread(replicates.relative("rate"), _MODEL_KEYS, variance)
    table = per_model.join(found, on=_MODEL_KEYS, how="left", nulls_equal=True, maintain_order="left")
    table = with_ends(table.rename({"tokens_per_s_geomean": "tokens_per_s"}), "tokens_per_s", level)
    known, n = pl.when(pl.col("tokens_per_s_low").is_not_null()), pl.col("n").fill_null(0)
    counted = {BASIS["runs"]: "n_runs", BASIS["replicates"]: "n_replicates"}.get(basis, "n_rounds")
    counts = {"n_runs": pl.lit(1), counted: n}
    basis_of_each = known.then(pl.lit(basis)).otherwise(pl.lit(NOT_MEASURED))
    return THROUGHPUT_INTERVALS.frame(table.with_columns(interval_basis=basis_of_each, **counts))


SUMMARY_BY_MODEL_AND_RUN = Table(
    name="summary_by_model_and_run",
    holds="each model's latency in each run of a pool, else in each replicate of the run",
    why_empty="one run of one replicate (run --replicates 3 measures several); runs of one study can be pooled "
    "(phaselaw analyze RUN RUN --out DIR)",
    columns=(
        *plain("backend backend_kind", pl.String),
        *plain(f"batch_size {BUDGET}", pl.Int64),
        *plain("mode model model_kind", pl.String),
        *plain("params_millions_effective"),
        words("run"),
        *plain("latency_geomean_ms"),
    ),
    order=("backend", "batch_size", BUDGET, "mode", "params_millions_effective", "model", "run"),
)


def by_model_and_run(replicates: Replicates | None) -> pl.DataFrame:
    """The table ``summary_by_model_and_run``: each model's aggregate in each run of a pool, else in each replicate."""
    if replicates is None or replicates.kind == "rounds":
        return SUMMARY_BY_MODEL_AND_RUN.frame()
    latency = pl.col("log").exp().alias("latency_geomean_ms")
    return SUMMARY_BY_MODEL_AND_RUN.frame(replicates.by_model().with_columns(latency, run="replicate"))
