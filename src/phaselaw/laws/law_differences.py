"""How far apart exponents are: of two phases or backends (method 3), and of several runs (TR121 4.1.2, 4.4).

TR121 is one report over five runs: other decode budgets, batch sizes and models. Laws of runs are paired by backend and
phase; what else differs between the two is named beside their difference.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from phaselaw import tables as col
from phaselaw.laws.noise import SLOPE, Noise, Replicates, log_matrices, noise_of
from phaselaw.laws.regression import fit_line, sum_of_variances, t_half_width
from phaselaw.laws.scaling import HC2
from phaselaw.laws.summary import GROUP, MODEL_KEYS, by_size, floats
from phaselaw.laws.verdicts import MIN_MODELS
from phaselaw.records import ALL
from phaselaw.tables import BUDGET, MISSING, Row, Table, like

_SAME = ["model", "params_millions_effective"]
"""What makes a model of one law the same as one of another's."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlopeDifference:
    """The difference of two slopes with its interval; NaN where it is unknown."""

    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n_models: int = 0

    @property
    def distinct(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_slope_difference(
    first: pl.DataFrame, second: pl.DataFrame, level: float, *, replicates: Replicates | None = None
) -> SlopeDifference:
    """Slope of ``first`` minus slope of ``second`` over the models that both have.

    Both are `phaselaw.laws.summary.by_model` rows of one group. It is the slope of log(first / second) on log
    parameters: what a model, or a replicate, does to both alike cancels. The interval is a law's default one, with the
    noise between the ``replicates`` that the rows are from.
    """
    latency = pl.col("latency_geomean_ms")
    both = first.join(second.select(*_SAME, other=latency), on=_SAME)
    models = by_size(both.with_columns(latency=latency / pl.col("other")), GROUP)
    n = models.height
    if n < MIN_MODELS or models["params_millions_effective"].n_unique() < 2:
        return SlopeDifference(n_models=n)
    x, noise = np.log10(floats(models, "params_millions_effective")), Noise()
    line = fit_line(x, np.log10(floats(models, "latency")))
    if replicates is not None:
        one, other = (
            replicates.by_model().join(rows.select(MODEL_KEYS).unique(), on=MODEL_KEYS, how="semi", nulls_equal=True)
            for rows in (first, second)
        )
        ratios = one.join(other.select(*_SAME, "replicate", other="log"), on=[*_SAME, "replicate"])
        logs = log_matrices(ratios.with_columns(pl.col("log") - pl.col("other")), GROUP)(models)
        noise = noise_of(SLOPE, np.log(10) * x[:, None], logs, kind=replicates.kind)
    slope, half = line.slope, float(noise.half_width(line.slope_se, n - 2, level))
    return SlopeDifference(difference=slope, low=slope - half, high=slope + half, n_models=n)


def unpaired_slope_difference(one: Mapping[str, Any], other: Mapping[str, Any], level: float) -> SlopeDifference:
    """First minus second of two laws over different models, rows of ``scaling_fits``, each with its own interval."""
    laws = []
    for law in (one, other):
        by_hc2 = law.get("slope_interval_by") == HC2
        degrees = float(law["slope_hc2_degrees"] if by_hc2 else law["n_models"] - 2)
        if law["slope_t_ci_low"] is None or degrees <= 0:
            return SlopeDifference()
        half = (law["slope_t_ci_high"] - law["slope_t_ci_low"]) / 2
        laws.append((half / float(special.stdtrit(degrees, 0.5 + level / 2)), degrees))
    (a, a_degrees), (b, b_degrees) = laws
    variance, freedom = sum_of_variances(np.square([a, b]), np.array([a_degrees, b_degrees]))
    difference, half = one["slope"] - other["slope"], float(t_half_width(np.sqrt(variance), freedom, level))
    n = one["n_models"] + other["n_models"]
    return SlopeDifference(difference=difference, low=difference - half, high=difference + half, n_models=n)


PAIRED, INDEPENDENT, NONE = "paired over models", "independent laws (Welch)", "no interval"

_BATCH = re.compile(r"_bs\d+$")
"""How TR121 tells batch sizes apart in the names of its backends."""


def _difference_text(row: Row) -> str:
    if row["difference"] is None:
        return MISSING
    ends = col.bracket(row["difference_low"], row["difference_high"])
    return f"{row['difference']:+.3f}" + ("" if ends == MISSING else f" {ends}")


def _how(row: Row) -> str:
    return "; ".join(part for part in (row["difference_basis"], row["differs_in"]) if part) or MISSING


LAWS_SIDE_BY_SIDE = Table(
    name="laws_side_by_side",
    holds="laws over all scenarios of several runs, and their differences",
    columns=(
        col.words("run", "run"),
        col.LAW,
        *col.plain(f"batch_size {BUDGET}", pl.Int64),
        col.PHASE,
        col.counted("n_models", "models"),
        col.derived("slope", "exponent", col.fixed),
        *col.interval("slope_t_ci_low", "slope_t_ci_high", "interval"),
        col.derived("r2", "R2", col.fixed),
        col.words("verdict", "verdict"),
        *col.plain(f"{col.SUSPECT} against", pl.String),
        col.Col(key="difference", title="difference", provenance="derived", of_row=_difference_text),
        *col.plain("difference_low difference_high"),
        col.words("difference_basis"),
        col.Col(key="differs_in", title="how", type=pl.String, of_row=_how),
    ),
    shows="mode run backend n_models slope slope_t_ci_low r2 verdict difference differs_in",
)

Tables = Mapping[str, pl.DataFrame]


def law_differences(runs: Sequence[tuple[str, Tables]], level: float) -> pl.DataFrame:
    """The table ``laws_side_by_side``: every run's laws over all scenarios, each with its difference from the first's.

    ``runs`` are (name, an analysis' tables). A difference is this law's slope minus that of the first run's law of the
    same backend and phase (of several, the one most alike in batch size and budget). Its interval: where both are over
    the same models, of the slope of log(this / first) on log parameters, since what a model does to both alike cancels;
    else of two independent slopes.
    """
    (first, first_tables), *others = runs
    rows = [law | {"run": first} for law in _laws(first_tables)]
    for name, tables in others:
        for law in _laws(tables):
            difference = _difference(law, tables, first_tables, level)
            rows.append(law | {"run": name} | (difference and {"against": first} | difference))
    return LAWS_SIDE_BY_SIDE.frame(rows)


def _laws(tables: Tables) -> list[Row]:
    return tables["scaling_fits"].filter(pl.col("scenario") == ALL).to_dicts()


def stem(backend: str) -> str:
    """A backend's name without the batch size that TR121 ends it with."""
    return _BATCH.sub("", backend)


def _difference(law: Row, tables: Tables, first: Tables, level: float) -> Row:
    same = [one for one in _laws(first) if (stem(one["backend"]), one["mode"]) == (stem(law["backend"]), law["mode"])]
    alike = ("backend", "batch_size", BUDGET)
    reference = max(same, key=lambda one: sum(one[key] == law[key] for key in alike), default=None)
    if reference is None or law["slope"] is None or reference["slope"] is None:
        return {}
    mine, theirs = _models(tables, law), _models(first, reference)
    shared = mine.join(theirs, on=_SAME).height
    facts = [
        {"batch": one["batch_size"], "tokens": one[BUDGET], "scenarios": ", ".join(cells["scenario"].unique().sort())}
        for of_run, one in ((tables, law), (first, reference))
        for cells in [like(of_run["summary_by_model_backend_mode"], one, ["backend"])]
    ]
    pairs = [(word, own, facts[1][word]) for word, own in facts[0].items()]
    differs = [
        f"{word} {own} against {other}" for word, own, other in pairs if own != other and None not in (own, other)
    ]
    if shared == mine.height == theirs.height:
        basis, found = PAIRED, paired_slope_difference(mine, theirs, level)
    else:
        basis, found = INDEPENDENT, unpaired_slope_difference(law, reference, level)
        differs.append(f"models: {shared} shared, {mine.height} against {theirs.height}")
    return {
        "difference": law["slope"] - reference["slope"],
        "difference_low": found.low,
        "difference_high": found.high,
        "difference_basis": NONE if math.isnan(found.low) else basis,
        "differs_in": "; ".join(differs),
    }


def _models(tables: Tables, law: Row) -> pl.DataFrame:
    mine = like(tables["summary_by_model_backend_mode_agg"], law, ("backend", "batch_size", BUDGET, "mode"))
    return mine.filter(pl.col("params_millions_effective") > 0, pl.col("latency_geomean_ms") > 0)
