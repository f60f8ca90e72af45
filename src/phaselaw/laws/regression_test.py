"""Runs against runs: what became slower from side A to side B by more than runs of one side differ (``compare``).

The run is the unit, or the replicate where each side is one run of several: calls inside one scatter far less than
runs do, and all that is measured in a run moves together. So two questions are asked of log latency. *Did everything
become slower?* The middle of the models' shifts from A to B, against how far runs of one side lie apart. *Did a
model become slower than the others of its runs?* Its shift less the median of the others', which a shift of the run
leaves alone, against how far models move alone between runs of one side. With one or two models there are no others:
their own shift is asked for, the run's in its error.

End to end is asked first (`END_TO_END` of what may go wrong), phases after; Holm's correction is over all questions of
either. Single cells are not asked for themselves: they say where a finding lies.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from phaselaw import tables as col
from phaselaw.laws.regression import Floats, sum_of_variances, t_half_width
from phaselaw.laws.structure import p_value
from phaselaw.laws.summary import Unit, by_cell_and_unit, floats, median_variance, usable
from phaselaw.records import PHASES, Run
from phaselaw.tables import BUDGET, Table

CELL = ["backend", "batch_size", BUDGET, "mode", "model", "scenario"]
"""What one ratio is about."""

MIN_RUNS, MOST_RUNS = 2, 1000
"""Runs a side below which nothing says how far runs of the same thing differ; and the most that are ever asked for."""
END_TO_END = 0.8
"""The share of what may go wrong that end to end has; phases have the rest."""
UNLIKE, WILD = 0.7, 0.999
"""Quantiles of a variance among others like it: beyond the first a model has its own, beyond the second the others'
mean is without it."""

SLOWER, FASTER, NEITHER, NOT_JUDGED = "slower", "faster", "not shown", "not judged"
REGRESSED, NOT_REGRESSED, CANT_TELL = "regressed", "not regressed", "can't be told"
"""Outcomes: something is slower by more than the threshold; nothing end to end can be; neither."""

Basis = Literal["between runs", "between replicates, back to back", "calls within runs"]
BETWEEN_RUNS: Basis = "between runs"
BETWEEN_REPLICATES: Basis = "between replicates, back to back"
WITHIN_RUNS: Basis = "calls within runs"
"""What the intervals of a comparison hold."""

_FIGURES = (
    *col.plain("n_runs_a n_runs_b", pl.Int64),
    col.derived("ratio", "B / A", col.fixed),
    *col.interval("ratio_low", "ratio_high", "interval"),
    *col.plain("degrees p_slower p_faster"),
    col.derived("p_slower_holm", "p (Holm)", p_value),
    *col.plain("p_faster_holm"),
    col.Col(key="verdict", title="verdict", type=pl.String, show=lambda it: it.upper() if it == SLOWER else it),
    col.measured("latency_a_ms", "A ms"),
    col.measured("latency_b_ms", "B ms"),
)
_NEEDED = col.counted("runs_needed", "runs needed", provenance="derived")
_ASKED = (col.counted("n_cells", "cells"), *_FIGURES, _NEEDED, col.flag("unclear"))
WHOLE = Table(
    caption="Everything: the middle of the models' ratios, of the cells that every run has.",
    columns=(col.LAW, col.PHASE, *_ASKED),
)
MODELS = Table(
    caption="Each model beside the others of its runs: its ratio over the median of theirs.",
    columns=(col.LAW, col.PHASE, col.MODEL, *_ASKED, col.flag("relative")),
)
_SIZES = col.plain(f"batch_size {BUDGET}", pl.Int64)
EACH_CELL = Table(
    caption="Each cell, by phase.",
    columns=(col.LAW, *_SIZES, col.PHASE, col.MODEL, col.words("scenario", "scenario"), *_FIGURES),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionTest:
    """Ratios B / A of latency, each with its interval, and what of it is significant."""

    whole: pl.DataFrame
    """A row a backend and phase: the middle of its models' ratios."""
    models: pl.DataFrame
    """A row a model, backend and phase: its ratio over the median of the others' where ``relative``, else its own."""
    cells: pl.DataFrame
    """A row a cell and phase that both sides have, by `CELL`."""
    only_in_a: pl.DataFrame
    only_in_b: pl.DataFrame
    """Cells that one side lacks: `CELL` without the phase."""
    threshold: float
    level: float
    basis: Basis
    """`WITHIN_RUNS` where a side has one run of one replicate and nothing can be judged."""

    @property
    def judged(self) -> bool:
        """Whether significance could be judged: two or more runs a side, and a cell that every run has."""
        return self.basis != WITHIN_RUNS and self.n_not_judged < self.cells.height

    @property
    def n_not_judged(self) -> int:
        """Ratios of cells without a judgement: those that some run lacks, or all of them."""
        return int((self.cells["verdict"] == NOT_JUDGED).sum())

    @property
    def n_slower(self) -> int:
        """Significant regressions: of backends, of models, and of the cells in which they lie."""
        return sum(int((table["verdict"] == SLOWER).sum()) for table in (self.whole, self.models, self.cells))

    @property
    def _told_by(self) -> pl.DataFrame:
        """What is asked end to end, or, where that was not measured, all that is asked."""
        asked = pl.concat([table.select("mode", "unclear", "runs_needed") for table in (self.whole, self.models)])
        first = asked.filter(pl.col("mode") == "e2e_kv")
        return first if first.height else asked

    @property
    def outcome(self) -> str:
        """`REGRESSED`; `NOT_REGRESSED` where no ratio can exceed the threshold; else `CANT_TELL`."""
        if self.n_slower:
            return REGRESSED
        return NOT_REGRESSED if self.judged and not self._told_by["unclear"].any() else CANT_TELL

    @property
    def runs_needed(self) -> int | None:
        """Runs a side that would tell; ``None`` where it is told, or no number up to `MOST_RUNS` would."""
        if self.outcome != CANT_TELL:
            return None
        needed = self._told_by.filter("unclear")["runs_needed"].to_list() if self.judged else [MIN_RUNS]
        return None if None in needed else max(needed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioTest:
    """Log ratios B / A with standard errors and degrees of freedom: arrays of shape (cells,), or (1,) of the whole."""

    log_ratio: Floats
    se: Floats
    degrees: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Both ends of the ratio's t interval, not corrected for many comparisons; NaN without degrees of freedom."""
        half = t_half_width(self.se, self.degrees, level)
        return np.exp(self.log_ratio - half), np.exp(self.log_ratio + half)

    def p_slower(self, threshold: float, *, sign: int = 1) -> Floats:
        """One-sided p of a ratio that is no larger than ``1 + threshold``; with ``sign=-1`` of its inverse."""
        off = sign * self.log_ratio - np.log1p(threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.se > 0, off / self.se, np.where(off > 0, np.inf, -np.inf))
        return np.asarray(special.stdtr(np.where(self.degrees > 0, self.degrees, np.nan), -t))


_Question = tuple[pl.DataFrame, RatioTest, list[Floats]]
"""Rows of what is asked (``model``, empty of everything; ``n_cells``, ``relative``), their test, both sides' logs."""


def regression_test(a: Run, b: Run, *, threshold: float = 0.05, level: float = 0.95) -> RegressionTest:
    """Compare two sides, each one or more runs pooled (`phaselaw.rundir.read.load_all`).

    With two or more runs a side, or replicates where each side is one run, a ratio is *slower* where it exceeds
    ``1 + threshold``, *faster* where it is below ``1 / (1 + threshold)``, at Holm's corrected level.
    """
    # What tells how far the same thing differs, and the column of it: runs, else replicates of one run a side.
    runs, replicates = ([run.rows[name].n_unique() for run in (a, b)] for name in ("run", "replicate"))
    unit: Unit = "run"
    basis: Basis = BETWEEN_RUNS if min(runs) >= MIN_RUNS else WITHIN_RUNS
    if max(runs) == 1 and min(replicates) >= MIN_RUNS:
        basis, unit = BETWEEN_REPLICATES, "replicate"
    units = [run.rows[unit].unique().sort() for run in (a, b)]
    sides = [by_cell_and_unit(usable(run.rows), unit) for run in (a, b)]
    phase = pl.col("mode").replace_strict(PHASES, list(range(len(PHASES))), default=len(PHASES))
    names = sides[0].select(CELL).unique().join(sides[1].select(CELL), on=CELL, how="semi", nulls_equal=True)
    names = names.sort("backend", "batch_size", BUDGET, phase, "model", "scenario")
    settings: dict[str, Any] = {"threshold": threshold, "level": level, "judged": basis != WITHIN_RUNS}
    asked, cells = [], []
    numbered = names.with_row_index("place").sort("backend", phase, maintain_order=True)
    for part in numbered.partition_by("backend", "mode", maintain_order=True):
        one, other = (_in_units(part, medians, of_side) for medians, of_side in zip(sides, units, strict=True))
        tests = _by_calls(one, other) if basis == WITHIN_RUNS else _between_units(one[0], other[0], part["model"])
        cells.append(part.with_columns(_figures(tests[0], [one[0], other[0]], **settings)))
        for rows, test, logs in tests[1]:
            about = rows.join(part.head(1).select("backend", "mode"), how="cross")
            asked.append(about.with_columns(_figures(test, logs, **settings)))
    told = _judged(pl.concat(asked), level) if asked else MODELS.frame()
    whole, models = told.filter(pl.col("model").is_null()), told.filter(pl.col("model").is_not_null())
    missing = [name for name in CELL if name != "mode"]
    lacking = [
        these.select(missing)
        .unique(maintain_order=True)
        .join(others, on=missing, how="anti", nulls_equal=True, maintain_order="left")
        for these, others in (sides, sides[::-1])
    ]
    found = _where_found(pl.concat(cells).sort("place"), whole, models, threshold) if cells else ()
    return RegressionTest(
        whole=WHOLE.frame(whole),
        models=MODELS.frame(models),
        cells=EACH_CELL.frame(found),
        only_in_a=lacking[0],
        only_in_b=lacking[1],
        threshold=threshold,
        level=level,
        basis=basis,
    )


def _in_units(names: pl.DataFrame, medians: pl.DataFrame, units: pl.Series) -> Floats:
    """One side's cells in each of its runs, or replicates, (3, units, cells), NaN where one lacks a cell.

    The log of the median latency, its variance from the scatter of its calls, and that one's degrees of freedom.
    """
    found = names.with_row_index("at").join(medians, on=CELL, nulls_equal=True).with_columns(pl.col("n") - 1)
    matrices = np.full((3, len(units), names.height), np.nan)
    where = units.search_sorted(found[units.name]).to_numpy(), found["at"].to_numpy()
    logs, variances = np.log(floats(found, "latency_median_ms")), floats(found, "latency_log_variance")
    matrices[:, *where] = logs, variances, floats(found, "n")
    return matrices


def _mean(logs: Floats) -> Floats:
    """Mean over the runs that have a cell."""
    return np.asarray(np.nansum(logs, axis=0) / np.isfinite(logs).sum(axis=0))


def _everything(n_cells: int) -> pl.DataFrame:
    return pl.DataFrame({"model": pl.Series([None], dtype=pl.String), "n_cells": [n_cells], "relative": [False]})


def _by_calls(a: Floats, b: Floats) -> tuple[RatioTest, list[_Question]]:
    """The ratio of each cell and of all that are in every run, by the scatter of calls; `_in_units` makes the sides."""
    log_ratio, full = _mean(b[0]) - _mean(a[0]), np.isfinite(np.concatenate([a[0], b[0]])).all(axis=0)
    # What each run's cell adds to the variance of the ratio; 0 where absent.
    found = [np.where(np.isfinite(logs), own / np.isfinite(logs).sum(axis=0) ** 2, 0.0) for logs, own, _ in (a, b)]
    parts, degrees = np.concatenate(found), np.concatenate([a[2], b[2]])
    each = ratios_by_calls(log_ratio, parts, degrees)
    if not full.any():
        return each, []
    # The mean over cells is one ratio whose parts are those of all of its cells.
    all_parts = parts[:, full].reshape(-1, 1) / full.sum() ** 2
    whole = ratios_by_calls(log_ratio[full].mean(keepdims=True), all_parts, degrees[:, full].reshape(-1, 1))
    means = [side[0][:, full].mean(axis=1, keepdims=True) for side in (a, b)]
    return each, [(_everything(int(full.sum())), whole, means)]


def _between_units(a: Floats, b: Floats, names: pl.Series) -> tuple[RatioTest, list[_Question]]:
    """The ratio of each cell, of everything and of each model; ``a`` and ``b`` are log latencies (units, cells)."""
    full, cells = np.isfinite(np.concatenate([a, b])).all(axis=0), len(names)
    each = RatioTest(log_ratio=_mean(b) - _mean(a), se=np.full(cells, np.nan), degrees=np.zeros(cells))
    if not full.any():
        return each, []
    models, one, other = names.to_numpy()[full], a[:, full], b[:, full]
    known = ratios_of_cells(one, other, models)
    each.se[full], each.degrees[full] = known.se, known.degrees
    told, counts = np.unique(models, return_counts=True)
    of_models = [np.stack([side[:, models == model].mean(axis=1) for model in told], axis=1) for side in (one, other)]
    shifts = [shift[:, None] for shift in shift_of_runs(*of_models)]
    alone = ratios_of_models(of_models[0], of_models[1], _within_models(one, other, models))
    rows = pl.DataFrame({"model": told.tolist(), "n_cells": counts, "relative": [len(told) > 2] * len(told)})
    means = [side.mean(axis=1, keepdims=True) for side in (one, other)]
    whole = ratios_of_cells(shifts[0], shifts[1], np.zeros(1))
    return each, [(_everything(len(models)), whole, means), (rows, alone, of_models)]


def shift_of_runs(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """What each run of ``a`` and ``b`` (runs, models) does to all models alike: their median, of two the mean."""
    both = np.concatenate([a, b])
    middle: Floats = np.median(both - both.mean(axis=0), axis=1)
    return middle[: len(a)], middle[len(a) :]


def _within_models(a: Floats, b: Floats, models: NDArray[Any]) -> Floats:
    """By model: the variance between runs of the mean of its cells, as their scatter about it gives it; NaN of one."""
    residual = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)])
    found = []
    for model in np.unique(models):
        own = residual[:, models == model]
        cells = own.shape[1]
        rest = ((own - own.mean(axis=1, keepdims=True)) ** 2).sum()
        found.append(rest / ((len(residual) - 2) * (cells - 1) * cells) if cells > 1 else np.nan)
    return np.array(found)


def ratios_of_models(a: Floats, b: Floats, within: Floats) -> RatioTest:
    """Each model's log latency in ``a`` and ``b`` (runs, models) against the others' of its runs.

    Its ratio less the median of the others' ratios. The variance of what runs do to one model alone is that of all
    models together, wild ones aside, so that an outlier among them takes no power from the rest; or, where it is
    larger, the model's own, so that an outlier of its own passes for no regression; or what its cells tell, where they
    scatter unlike the others'. Of one or two models the ratio is their own, what runs do to all in its variance.
    """
    degrees, n = len(a) + len(b) - 2, a.shape[1]
    residual, each = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)]), 1 / len(a) + 1 / len(b)
    ratio = b.mean(axis=0) - a.mean(axis=0)
    if n < 3:
        own = (residual**2).sum(axis=0) / degrees
        return RatioTest(
            log_ratio=ratio, se=np.sqrt(np.maximum(own, own.mean()) * each), degrees=np.full(n, degrees * 1.0)
        )
    middle = np.median(residual, axis=1, keepdims=True)
    middle = np.concatenate([part - part.mean() for part in (middle[: len(a)], middle[len(a) :])])
    own = ((residual - middle) ** 2).sum(axis=0) / degrees * n / (n - 1)
    pooled, counted = _pooled(own, degrees)
    known = np.isfinite(within)
    if known.sum() > 2:
        usual = _pooled(within[known], 2 * degrees)[0]
        cells = within / usual if usual > 0 else np.full(n, np.nan)
        unlike = cells > special.chdtri(2 * degrees, 1 - UNLIKE) / (2 * degrees)
        own = np.maximum(own, np.where(unlike, cells * pooled, 0.0))
    others = np.array([np.median(np.delete(ratio, at)) for at in range(n)])
    variance = np.maximum(own, pooled) + median_variance(n - 1) * pooled
    return RatioTest(
        log_ratio=ratio - others, se=np.sqrt(variance * each), degrees=np.full(n, degrees * max(counted - 1.0, 1.0))
    )


def _pooled(variances: Floats, degrees: int) -> tuple[float, int]:
    """The mean of variances of so many degrees of freedom, wild ones aside, and how many it is of."""
    typical = float(np.median(variances)) * degrees / special.chdtri(degrees, 0.5)
    kept = variances[variances <= typical * special.chdtri(degrees, 1 - WILD) / degrees]
    return float(kept.mean()), len(kept)


def ratios_of_cells(a: Floats, b: Floats, models: NDArray[Any]) -> RatioTest:
    """Each cell of ``a`` and ``b``, log latencies of shape (runs, cells), two runs or more a side.

    A cell's variance between runs is that of all cells of the backend and phase together, shift and noise, or where it
    is larger that of its model's cells, or its own: what jumps from run to run must not pass for a regression. Degrees
    of freedom are Satterthwaite's; since the cells of one of the ``models`` (cells,) may move together, the noise has
    those of models.
    """
    residual = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)])
    degrees, n = len(residual) - 2, residual.shape[1]
    total = float((residual**2).sum()) / (degrees * n)
    of_runs = float((residual.mean(axis=1) ** 2).sum()) / degrees
    noise, noise_degrees = total - of_runs, degrees * (len(np.unique(models)) - 1)
    freedom = float(degrees)
    if noise_degrees > 0 and total > 0:
        freedom = total**2 / (of_runs**2 / degrees + noise**2 / noise_degrees)
    own = (residual**2).sum(axis=0) / degrees
    of_model = np.array([own[models == model].mean() for model in models])
    return RatioTest(
        log_ratio=b.mean(axis=0) - a.mean(axis=0),
        se=np.sqrt(np.maximum(np.maximum(own, of_model), total) * (1 / len(a) + 1 / len(b))),
        degrees=np.full(n, freedom),
    )


def ratios_by_calls(log_ratio: Floats, parts: Floats, degrees: Floats) -> RatioTest:
    """Ratios with the scatter of calls alone, which says nothing of another run: (k,), from ``parts`` (m, k).

    Each part is a variance that adds to a ratio's, with its degrees of freedom (m, k); Welch's are the ratio's. A part
    of 0 says nothing; a ratio with an unknown part (NaN) has no interval.
    """
    variance, freedom = sum_of_variances(parts, degrees)
    return RatioTest(log_ratio=log_ratio, se=np.sqrt(variance), degrees=freedom)


def holm(p: Floats) -> Floats:
    """Holm's adjusted p values, NaN left out (Holm 1979): each times the number still standing, never falling."""
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    raised = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted


def _figures(test: RatioTest, logs: list[Floats], *, threshold: float, level: float, judged: bool) -> list[pl.Series]:
    """The figures of each ratio; latencies are geometric means over runs (and, of a whole, over its cells)."""
    low, high = test.interval(level)
    figures = {"ratio": np.exp(test.log_ratio), "ratio_low": low, "ratio_high": high, "degrees": test.degrees}
    for name, side in zip("ab", logs, strict=True):
        figures |= {f"n_runs_{name}": np.isfinite(side).sum(axis=0), f"latency_{name}_ms": np.exp(_mean(side))}
    for name, sign in (("p_slower", 1), ("p_faster", -1)):
        figures[name] = test.p_slower(threshold, sign=sign) if judged else np.full(len(low), np.nan)
    numbers = len(logs[0]), len(logs[1])
    needed = [_runs_needed(*each, numbers, threshold, level) for each in zip(test.se, test.degrees, strict=True)]
    # One-sided: whether the ratio may exceed the threshold for all that is known.
    unclear = test.log_ratio + t_half_width(test.se, test.degrees, 2 * level - 1) > np.log1p(threshold)
    return [
        *(pl.Series(name, values) for name, values in figures.items()),
        pl.Series("unclear", unclear),
        pl.Series("runs_needed", [n if far else None for n, far in zip(needed, unclear, strict=True)], dtype=pl.Int64),
    ]


def _runs_needed(se: float, degrees: float, runs: tuple[int, int], threshold: float, level: float) -> int | None:
    """Runs a side with which a ratio of 1 would be told from one beyond the threshold; ``None`` beyond `MOST_RUNS`."""
    if not (degrees > 0 and threshold > 0 and math.isfinite(degrees)):
        return None
    n = np.arange(MIN_RUNS, MOST_RUNS + 1)
    freedom = degrees / max(sum(runs) - 2, 1) * (2 * n - 2)
    widths = special.stdtrit(freedom, level) * se * np.sqrt(2 / n / (1 / runs[0] + 1 / runs[1]))
    enough = n[(widths <= math.log1p(threshold)) & (n > max(runs))]
    return int(enough[0]) if len(enough) else None


def _judged(asked: pl.DataFrame, level: float) -> pl.DataFrame:
    """What is asked, with Holm's adjusted p values over all of it, and a verdict by them.

    End to end has its share of what may go wrong, phases the rest; either has all of it where it is alone.
    """
    first = (asked["mode"] == "e2e_kv").to_numpy()
    share = END_TO_END if first.any() and not first.all() else 1.0
    adjusted = {}
    for name in ("p_slower", "p_faster"):
        p = floats(asked, name)
        adjusted[name] = np.full(len(p), np.nan)
        for mine, part in ((first, share), (~first, 1 - share if share < 1 else 1.0)):
            adjusted[name][mine] = np.minimum(holm(p[mine]) / part, 1.0)
    cases = [~np.isfinite(adjusted["p_slower"]), *(values <= 1 - level for values in adjusted.values())]
    verdicts = np.select(cases, [NOT_JUDGED, SLOWER, FASTER], NEITHER)
    told = asked.with_columns(**{f"{name}_holm": values for name, values in adjusted.items()})
    return _finite(told.with_columns(verdict=pl.Series(verdicts.tolist())))


def _finite(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.when(pl.selectors.float().is_finite()).then(pl.selectors.float()))


def _where_found(cells: pl.DataFrame, whole: pl.DataFrame, models: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """The cells with the verdict of their model, else of everything, where they lie beyond the threshold themselves.

    A model's is told beside the others: there its cells' ratios are over everything's.
    """
    keys, moved = ["backend", "mode"], pl.col("of_model").is_in([SLOWER, FASTER])
    of_all = whole.select(*keys, of_all="verdict", ratio_of_all="ratio")
    of_model = models.select(*keys, "model", "relative", of_model="verdict")
    beside = cells.join(of_all, on=keys, how="left", maintain_order="left")
    beside = beside.join(of_model, on=[*keys, "model"], how="left", maintain_order="left")
    found = pl.when(moved).then("of_model").otherwise("of_all")
    ratio = pl.col("ratio") / pl.when(moved & pl.col("relative")).then("ratio_of_all").otherwise(1.0)
    beyond = ((found == SLOWER) & (ratio > 1 + threshold)) | ((found == FASTER) & (ratio < 1 / (1 + threshold)))
    judged = pl.when(~pl.col("p_slower").is_finite()).then(pl.lit(NOT_JUDGED)).when(beyond).then(found)
    return _finite(beside.with_columns(verdict=judged.otherwise(pl.lit(NEITHER))))
