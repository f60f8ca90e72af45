"""The noise of every figure: calls lie in rounds of a run, or in runs of a pool, and models are the cells (method 3).

`Replicates` are a law's log latencies and log rates, one row a cell and unit: the (unit x cell) matrix, built once. A
unit is a run where several are pooled, else a replicate of one run, else a round, or a repetition. Slopes, ratios and
rates are linear in these logs, so each has its noise from the scatter of its own value over units.

**A rate** of model i in unit u is ``mean_i + shared_u + own_iu``: what slows a unit slows all its models, and each on
its own. `scatter_of` estimates the total variance ``var(shared) + var(own)`` from all models of a backend, pooled::

    variance = (S + O) / (m (R - 1))        degrees = (S + O)^2 / (S^2 / (R - 1) + O^2 / ((m - 1) (R - 1)))

with m models, R units, S the sum of squares of the units' means (times m) and O that of the rest: the mean squares of a
crossed design (Searle, Casella and McCulloch, Variance Components, 1992, 4.7) and the degrees of freedom of their sum
(Satterthwaite, Biometrics Bulletin 2, 1946). Of R units the *long-run mean* has ``variance / R``, and *one more run*
differs from their mean by ``variance (1 + 1 / R)``.

**A law's points** scatter about it by what models are and by their share of the noise, so least squares over models
knows both. What it can't know is noise that tilts all points of one unit at once: a slope that is another one in each
run. That is estimated from the slopes of units fitted alone. Written for the points y of models i in units u,
``y = a + b x + model_i + level_u + tilt_u x + rest_iu``, with R units and X the sum of squares of x, the variance of
the pooled slope is ::

    var(model) / X + var(tilt) / R + var(rest) / (R X)  =  scatter + between - shared

where *scatter* is the squared standard error of least squares on the pooled points, *between* the variance of the
units' slopes over R, and *shared* what the rest alone gives, which both of them hold. The interval is Student's t with
Satterthwaite's degrees of freedom of these three mean squares; it is never narrower than that of the scatter alone.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, special

from phaselaw.laws.regression import Floats, t_half_width
from phaselaw.laws.summary import CELL, GROUP, MODEL, MODEL_KEYS, by_cell_and_unit, median_variance, unit_of
from phaselaw.records import ALL
from phaselaw.tables import BUDGET, Table, grouped, plain, words

Kind = Literal["hosts", "runs", "replicates", "rounds", "repetitions"]
"""Hosts of a run, or runs, that were pooled; replicates of one run (fresh processes, back to back); rounds of one
replicate, or its repetitions where calls were not made in rounds."""

KEYS = [*GROUP, "scenario", "aggregation"]
"""What tells one law from another."""

BETWEEN_RUNS: tuple[Kind, ...] = ("hosts", "runs", "replicates")
"""Units that tell what another run may give; the others know this run only."""


_FEWEST: dict[Kind, int] = {"hosts": 2, "runs": 2, "replicates": 2, "rounds": 3, "repetitions": 3}
"""Replicates that an interval takes notice of: two rounds would make every interval of a run with two repetitions
wide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replicates:
    """Each cell in each unit: the runs of a pool, else the replicates of one run, else its rounds or repetitions."""

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
        means = self.logs.group_by([*MODEL_KEYS, "replicate"], maintain_order=True)
        of_all = means.agg(pl.col("n_scenarios").first(), log=pl.col("latency").mean(), n=pl.len())
        whole = of_all.filter(pl.col("n") == pl.col("n_scenarios"))
        return _points(whole, self.logs.with_columns(log="latency"), ["replicate", "log"])

    def by_model(self) -> pl.DataFrame:
        """The points of the laws over all scenarios: `GROUP`, `MODEL`, ``replicate``, ``log``."""
        return self.points.filter(pl.col("scenario") == ALL)

    @property
    def between_runs(self) -> bool:
        """Whether the units are runs, of a pool or one after the other."""
        return self.kind in BETWEEN_RUNS

    @property
    def for_laws(self) -> Self | None:
        """What a law takes notice of; ``None`` for repetitions, which can't see what befell all of a cell."""
        return None if self.kind == "repetitions" else self

    def centred(self, logs: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """Rows with each ``log`` less its centre over units, by ``names``; those without one are left out.

        That is the mean over runs, the median over rounds, as the point that it is the noise of.
        """
        log = pl.col("log")
        centre = log.mean() if self.between_runs else log.median()
        return logs.filter(log.is_not_null()).with_columns(log - centre.over(names))

    def scatter(self, of: Literal["latency", "rate"]) -> pl.DataFrame:
        """How far each model's log latency, or rate, scatters over units, by `GROUP` and `MODEL` (`scatter_by`).

        In each unit it stands relative to its cells' centres, so that a call that failed does not shift its unit.
        """
        cells = self.centred(self.logs.with_columns(log=of), CELL)
        models = cells.group_by([*MODEL_KEYS, "replicate"], maintain_order=True)
        return scatter_by(models.agg(pl.col("log").mean()), GROUP, MODEL, self.kind)


def point_variance(n: int | NDArray[np.int64], kind: Kind) -> Floats:
    """Variance of a point made of ``n`` units of variance 1: a mean over runs, or a median of rounds."""
    return 1.0 / np.asarray(n) if kind in BETWEEN_RUNS else median_variance(n)


def units_of(rows: pl.DataFrame, *, in_rounds: bool) -> Replicates:
    """The outermost units of usable rows: runs, else replicates, else rounds where calls were made ``in_rounds``."""
    (unit, n), replicate, figures = unit_of(rows), pl.col("rep"), ("latency_ms", "tokens_per_s")
    kind: Kind = "rounds" if in_rounds else "repetitions"
    if n > 1:
        kind = "replicates" if unit == "replicate" else "hosts" if rows["host"].n_unique() == n else "runs"
        rows = by_cell_and_unit(rows, unit)
        replicate, figures = pl.col(unit).cast(pl.String), ("latency_median_ms", "tokens_per_s_median")
    elif rows["run"].n_unique() > 1:
        replicate = pl.format("{} {}", "run", "rep")
    latency, rate = (pl.when(pl.col(name) > 0).then(pl.col(name).log()) for name in figures)
    cells = rows.select(CELL).unique(maintain_order=True).with_row_index("at")
    cells = cells.with_columns(n_scenarios=pl.col("scenario").n_unique().over(MODEL_KEYS))
    # By a cell's number, since a million groups by nine names take three times the memory.
    each = rows.select(*CELL, replicate=replicate, latency=latency, rate=rate)
    each = each.join(cells, on=CELL, nulls_equal=True, maintain_order="left").drop(CELL).drop_nulls("replicate")
    means = each.group_by("at", "replicate", maintain_order=True).agg(pl.col("latency", "rate").mean())
    logs = means.join(cells, on="at", maintain_order="left").drop("at")
    return Replicates(kind=kind, n=n if n > 1 else logs["replicate"].n_unique(), logs=logs)


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


def log_matrices(logs: pl.DataFrame | None, keys: Sequence[str]) -> Callable[[pl.DataFrame], Floats | None]:
    """From rows such as `points`, if any: of the models of one law, alike in ``keys``, their ``log`` by replicate.

    That is a matrix (replicates, models) in the order of the models, of the replicates that hold all of them.
    """
    of_laws = {} if logs is None else logs.partition_by(keys, as_dict=True)

    def matrix(models: pl.DataFrame) -> Floats | None:
        mine = of_laws.get(models.select(keys).row(0)) if models.height else None
        if mine is None:
            return None
        found = models.lazy().select(MODEL).with_row_index("at").join(mine.lazy(), on=MODEL, nulls_equal=True)
        found = found.sort("replicate", "at").filter(pl.len().over("replicate") == models.height)
        return found.collect()["log"].to_numpy().reshape(-1, models.height)

    return matrix


class Noise(NamedTuple):
    """What replicates say of the noise of an estimate, a slope's or another's; NaN below two."""

    kind: Kind = "runs"
    n: int = 0
    """Replicates that hold all of the law's models; 0 for one alone."""
    between: float = math.nan
    """Variance of the pooled estimate from that of the replicates' estimates."""
    shared: float = math.nan
    """What of ``between`` the scatter of the points holds already."""

    @property
    def holds(self) -> str:
        """In words, what noise the estimate's interval holds."""
        counted = f", calls and {self.n} {self.kind}" if self.n >= _FEWEST[self.kind] else " and calls"
        return f"models{counted}"

    def half_width(self, se: Floats | float, degrees: float, level: float) -> Floats:
        """Half the width of an estimate's interval; ``se`` and ``degrees`` are of least squares over models."""
        variance, free = self.variance(se, degrees)
        return t_half_width(np.sqrt(variance), free, level)

    def variance(self, se: Floats | float, degrees: float) -> tuple[Floats, Floats]:
        """The variance of an estimate with the noise between units in it, and its degrees of freedom.

        ``se`` and ``degrees`` are of least squares over models. The noise of too few units is taken for none.
        """
        scatter, of_units = np.square(se), max(self.n - 1.0, 1.0)
        if not degrees > 0:
            return np.full_like(scatter, np.nan), np.zeros_like(scatter)
        between = np.nan_to_num(self.between) if self.n >= _FEWEST[self.kind] else 0.0
        shared = np.nan_to_num(self.shared)
        variance = np.maximum(scatter + between - shared, scatter)
        squares = scatter**2 / degrees + between**2 / of_units + shared**2 / (of_units * degrees)
        free = np.divide(variance**2, squares, out=np.full_like(squares, degrees), where=squares > 0)
        return variance, np.where(between > shared, np.minimum(free, degrees + of_units), degrees)


SLOPE = np.array([0.0, 1.0])
"""What the coefficients of a line are multiplied with to be its slope."""


def noise_of(at: Floats, columns: Floats, logs: Floats | None, *, kind: Kind) -> Noise:
    """The noise between replicates of one estimate of one law: ``at`` (k + 1,) times the law's coefficients.

    The law is a plane in ``columns`` (models, k) with a constant before them, fitted to each row of ``logs``
    (replicates, models) alone; two models have a slope, one has none.
    """
    if logs is None or len(logs) < 2 or len(columns) < 2:
        return Noise(kind=kind)
    n, models = logs.shape
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
    return Noise(kind=kind, n=n, between=float(between * factor), shared=float(shared * factor))


class Scatter(NamedTuple):
    """How far one unit's value of each model scatters, arrays of shape (..., models)."""

    variance: Floats
    """What all models of a unit share and each model's own part together."""
    degrees: Floats
    """Degrees of freedom of that variance; NaN where two units of too few models can't tell it."""
    shared: Floats
    """The shared part alone."""


FEWEST_MODELS = 5
"""Models without which two units tell no variance: with so few a quarter of the intervals would be absurdly wide."""


def scatter_of(off: Floats, *, about_medians: bool = False) -> Scatter:
    """The scatter of ``off`` (..., models, units): logs less each model's centre over units, NaN where not measured.

    One variance for all models of a backend, as the file's head says. ``about_medians``: the centres are medians, of
    rounds or repetitions, and each model's variance is its own moderated by the others'.
    """
    n = np.isfinite(off).sum(axis=-1)
    known = np.isfinite(off) & (n > 1)[..., None]
    off, each = np.where(known, off, 0.0), np.maximum(n - 1.0, 0.0)
    of_unit = known.sum(axis=-2)
    means = off.sum(axis=-2) / np.maximum(of_unit, 1)
    units = np.maximum((of_unit > 0).sum(axis=-1) - 1.0, 0.0)
    rest = each.sum(axis=-1) - units
    shared = (of_unit * means**2).sum(axis=-1)
    own = np.maximum((off**2).sum(axis=(-2, -1)) - shared, 0.0)
    total, terms = shared + own, each
    if about_medians:  # what the squares of n normal values about their median sum to, on average
        terms = np.maximum(n - 2 + n * median_variance(n), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = total / terms.sum(axis=-1)
        squares = shared**2 / units + np.where(rest > 0, own**2 / rest, 0.0)
        degrees = np.where(squares > 0, total**2 / squares, units)
        of_shared = shared / units - np.where(rest > 0, own / rest, 0.0)
        of_shared = np.clip(of_shared / of_unit.mean(axis=-1), 0.0, variance)
    enough = (units > 1) | (known.any(axis=-1).sum(axis=-1) >= FEWEST_MODELS)
    degrees = np.where(enough, degrees, np.nan)[..., None] * np.ones(n.shape)
    found = Scatter(variance[..., None] * np.ones(n.shape), degrees, of_shared[..., None] * np.ones(n.shape))
    return _moderated(found, (off**2).sum(axis=-1) / np.maximum(terms, 1e-9), each) if about_medians else found


def _moderated(pooled: Scatter, own: Floats, degrees: Floats) -> Scatter:
    """Each model's own variance drawn to that of all, by how far the models' variances differ beyond chance.

    The moderated variance of Smyth (Statistical Applications in Genetics and Molecular Biology 3, 2004, article 3):
    variances are scaled inverse chi-squares about one, whose constants are fitted to their logs. Its degrees of freedom
    are at most those of the pooled variance.
    """
    known = degrees > 0
    if own.ndim > 1 or known.sum() < 3 or not (own[known] > 0).any():
        return pooled
    half = degrees[known] / 2
    # A variance of 0 is rounding: its log says nothing.
    logs = np.log(np.maximum(own[known], 1e-5 * np.median(own[known][own[known] > 0])))
    logs = logs - special.digamma(half) + np.log(half)
    beyond = float(logs.var(ddof=1) - special.polygamma(1, half).mean())
    if beyond <= 0:
        return pooled
    # Where the trigamma function is so large; it is less than 1/x + 1/x^2, and more than 1/x.
    prior = 2 * optimize.brentq(lambda x: special.polygamma(1, x) - beyond, 1 / beyond, 1 / beyond + 1, xtol=1e-15)
    centre = math.exp(logs.mean() + special.digamma(prior / 2) - math.log(prior / 2))
    variance = (prior * centre + degrees * own) / (prior + degrees)
    return Scatter(variance, np.minimum(prior + degrees, pooled.degrees), np.minimum(pooled.shared, variance))


def scatter_by(logs: pl.DataFrame, group: Sequence[str], each: Sequence[str], kind: Kind) -> pl.DataFrame:
    """`scatter_of` each ``group``: by ``group`` and ``each`` the units ``n``, ``variance``, ``degrees`` and ``shared``.

    ``logs`` has a ``log`` less its centre for each of them and ``replicate``. Null where it can't be told.
    """
    names = [*group, *each]
    kinds = {name: logs.schema[name] for name in names} | {"n": pl.Int64()}
    found = [pl.DataFrame(schema=kinds | dict.fromkeys(Scatter._fields, pl.Float64()))]
    logs = logs.filter(pl.col("log").is_not_null())
    numbered = logs.select(names).unique().sort(names).with_row_index("at")
    logs = logs.join(numbered, on=names, nulls_equal=True)
    for _, mine in grouped(numbered, group):
        first, last = mine["at"][0], mine["at"][-1]
        rows = logs.filter(pl.col("at").is_between(first, last)).select("at", "log", pl.col("replicate").rank("dense"))
        off = np.full((mine.height, rows["replicate"].n_unique()), np.nan)
        off[rows["at"].to_numpy() - first, rows["replicate"].to_numpy() - 1] = rows["log"].to_numpy()
        scatter = scatter_of(off, about_medians=kind not in BETWEEN_RUNS)
        figures = {name: pl.Series(values) for name, values in scatter._asdict().items()}
        found.append(mine.select(names).with_columns(pl.Series("n", np.isfinite(off).sum(axis=1)), **figures))
    return pl.concat(found).with_columns(pl.col(pl.Float64).fill_nan(None))


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
