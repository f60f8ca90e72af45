"""The latency of a model that was not measured, with a prediction interval (method 3, *Prediction*).

A prediction is made inside the range that the measured models span and, on request, outside of it, labelled. Every law
that the stated properties allow is shown; the one used is the one with the least error in predicting a measured model
from the others. How good predictions are is seen by leaving out each measured model in turn.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import special

from phaselaw import tables as col
from phaselaw.laws.noise import Kind, Noise, log_matrices, noise_of, scatter_of
from phaselaw.laws.rates import BASIS, too_few
from phaselaw.laws.regression import Floats, Plane, exponential, fit_plane, left_out, sum_of_variances, t_half_width
from phaselaw.laws.structure import BOTH, COLUMNS, DEPTH, MEAN, PARAMS, WIDTH, logs_of
from phaselaw.laws.summary import GROUP, GROUP_COLUMNS, MODEL, REQUESTS, by_size
from phaselaw.laws.verdicts import MIN_MODELS
from phaselaw.records import ALL, PHASES
from phaselaw.tables import BUDGET, SUSPECT, Row, Table, grouped, like

LAWS = (PARAMS, DEPTH, WIDTH, BOTH)
"""The laws that predict, in the order in which they win ties."""

PROPERTIES = {"params_millions_effective": "M parameters", "n_layer": "layers", "n_embd": "width"}
"""A model's properties by column, each as it reads behind its value."""

ROUNDING = 0.005
"""A range is shown in three digits, so a value that is off by no more than their rounding lies in it."""

CHOSEN = "chosen"
"""The law that `predict` would use: chosen anew from the others alone for each model that is left out."""
_FEW = "no law over four models, so that three are left to predict one from"


PREDICTION_VALIDATION = Table(
    name="prediction_validation",
    holds="each model predicted from the others (of more than 100, 100 over the range of sizes)",
    why_empty=_FEW,
    columns=(
        *(*GROUP_COLUMNS, col.words("predictor"), col.words("predictor_used", "by"), col.words("model", "left out")),
        *(col.measured("params_millions_effective", "M params"), col.counted("n_others")),
        col.measured("latency_measured_ms", "measured ms"),
        col.derived("latency_predicted_ms", "predicted ms"),
        *col.interval("latency_predicted_ms_low", "latency_predicted_ms_high", "interval", col.digits),
        col.derived("error", "error", lambda error: col.MISSING if error is None else f"{round(100 * error) + 0:+} %"),
        col.Col(key="inside", title="measured lies", type=pl.Boolean, show=lambda held: ("OUTSIDE", "inside")[held]),
        col.Col(key="extrapolated", type=pl.Boolean, show=lambda beyond: "extrapolated" if beyond else ""),
        col.counted(BUDGET),
    ),
    shows="backend mode model latency_predicted_ms latency_measured_ms error inside extrapolated "
    "latency_predicted_ms_low predictor_used params_millions_effective",
)
PREDICTION_COVERAGE = Table(
    name="prediction_coverage",
    holds="how many prediction intervals held the measured latency",
    why_empty=_FEW,
    columns=(
        *(*GROUP_COLUMNS, col.words("predictor", "by"), col.counted("n_models", "models"), col.counted("n_inside")),
        col.derived("coverage", "intervals that held", col.percent),
        *col.interval("coverage_low", "coverage_high", "its interval", col.percent),
        col.assumed("asked", "asked", col.percent),
        col.derived("typical_factor", "typical error", col.factor),
        col.derived("mean_factor", "predicting the mean", col.factor),
        col.derived("interval_factor", "interval reaches", col.factor),
        col.counted("n_interpolated"),
        col.Col(
            key="n_inside_interpolated",
            title="inside the others' range",
            type=pl.Int64,
            provenance="derived",
            of_row=lambda row: f"{row['n_inside_interpolated']} of {row['n_interpolated']}",
        ),
        col.counted(BUDGET),
    ),
    shows="backend mode predictor n_models coverage coverage_low asked n_inside_interpolated typical_factor "
    "mean_factor interval_factor",
)


MOST_LEFT_OUT = 100
"""Models of a backend and phase that are predicted from the others, each by fits of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NewModel:
    """A model that was not measured, as far as it is known."""

    params_millions: float
    n_layer: float | None = None
    n_embd: float | None = None

    def properties(self) -> dict[str, float]:
        """What is known of it, by the columns of `PROPERTIES`."""
        known = {"params_millions_effective": self.params_millions, "n_layer": self.n_layer, "n_embd": self.n_embd}
        return {name: value for name, value in known.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One backend and phase by one law: the latency of one call of the run's own workload, and its rate."""

    backend: str
    backend_kind: str
    batch_size: int
    gen_tokens_target: int | None
    """The decode budget; ``None`` where the run has but one."""
    mode: str
    predictor: str
    """The law: what it is predicted from, of `LAWS`."""
    used: bool
    """Whether this law has the least leave-one-out error of those that apply."""
    n_models: int
    latency_ms: float
    latency_ms_low: float
    """In one more run where several were measured, else in this run."""
    latency_ms_high: float
    latency_ms_mean_low: float | None = None
    """In the long-run mean of runs; ``None`` from one run."""
    latency_ms_mean_high: float | None = None
    tokens: float | None
    """Tokens a call in this phase, as in `Workload`."""
    tokens_per_s: float | None
    tokens_per_s_low: float | None
    tokens_per_s_high: float | None
    tokens_per_s_mean_low: float | None = None
    tokens_per_s_mean_high: float | None = None
    level: float
    """Of the intervals, which are of a new model: the scatter of models about the law, and the law's uncertainty."""
    interval_holds: str
    """What the intervals are of, one more run or this run only, and which noise they hold."""
    typical_factor: float | None
    """What a measured model is off by when predicted from the others: 1.1 is about 10 %."""
    mean_factor: float | None
    """The same for predicting the others' geometric mean, whatever the model."""
    provenance: Literal["derived", "extrapolated"]
    outside: str | None
    """How the model lies outside of the measured range; ``None`` where it does not."""
    suspect: str | None
    """The validity checks that spoke up on rows this law stands on."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A backend, at one batch size and budget, for which no prediction is made, and why."""

    backend: str
    batch_size: int
    gen_tokens_target: int | None
    reason: str
    outside: bool
    """Whether it is for lying outside of the measured range, so that an extrapolation could be asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What the latencies and rates of a backend are of: its calls, as measured."""

    backend: str
    batch_size: int
    gen_tokens_target: int | None
    scenarios: tuple[str, ...]
    tokens: dict[str, float]
    """Tokens a call by phase (the prompt's, the generated ones, both), all sequences of its batch: geometric mean over
    scenarios of the median over models; a phase whose tokens were not counted is absent."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Everything that a run's analysis predicts of a model that was not measured."""

    model: NewModel
    rows: tuple[Prediction, ...]
    refused: tuple[Refusal, ...]
    workloads: tuple[Workload, ...]

    @property
    def several_batches(self) -> bool:
        """Whether the run has calls of more than one batch size."""
        return len({each.batch_size for each in self.workloads}) > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LawFit:
    """A law of log latency in the logs of a model's properties, fitted to the models whose properties are known."""

    law: str
    plane: Plane
    models: pl.DataFrame
    """The models it is fitted to."""

    def latency_ms(
        self, properties: Mapping[str, Any], level: float, *, chosen_of: int = 1, runs: Floats | None = None
    ) -> dict[str, float]:
        """The latency of a new model with these properties, and its prediction intervals, in ms, as in `Prediction`.

        ``chosen_of`` is the number of laws that this one was chosen from, by the data, for its small error: the choice
        costs a degree of freedom, as another coefficient would, but never the last. ``runs`` are the log latencies of
        its `models` in each run, (runs, models), for the noise between runs. NaN where two runs of few models can't
        tell of another.
        """
        at = np.log(np.array([properties[name] for name in COLUMNS[self.law]], dtype=float))
        charged = 1.0 if chosen_of > 1 and self.plane.degrees > 1 else 0.0
        se, degrees = self.plane.new_point_error(at, charged=charged)
        noise = noise_of(np.append(1.0, at), logs_of(self.models, COLUMNS[self.law]), runs, kind="runs")
        value, parts = self.plane.at(at), [tuple(map(float, noise.variance(se, degrees)))]
        found, half = {"latency_ms": exponential(value)}, _half_width(parts, level)
        if runs is None:
            return found | _ends("latency_ms", value, half)
        one_run = scatter_of((runs - runs.mean(axis=0)).T)
        # A part that is known better adds degrees of freedom as well: they must not make the whole narrower.
        more = np.maximum(half, _half_width([*parts, (one_run.variance[0], one_run.degrees[0])], level))
        return found | _ends("latency_ms", value, float(more)) | _ends("latency_ms_mean", value, half)


def _half_width(parts: Sequence[tuple[float, ...]], level: float) -> float:
    """Half the width of an interval whose variance is the sum of these, each with its degrees of freedom."""
    variance, degrees = sum_of_variances(*np.array(parts).T)
    return float(t_half_width(np.sqrt(variance), degrees, level))


def _ends(name: str, log: float, half: float) -> dict[str, float]:
    return {f"{name}_low": exponential(log - half), f"{name}_high": exponential(log + half)}


def predict(
    tables: Mapping[str, pl.DataFrame], model: NewModel, *, level: float = 0.95, extrapolate: bool = False
) -> Predictions:
    """What a run's analysis (its ``tables``) predicts of ``model``, per backend, batch size, budget and phase.

    Where the model lies outside the measured range, nothing but the reason is returned, unless ``extrapolate``.
    """
    rows: list[Prediction] = []
    refused: dict[Refusal, None] = {}
    cells = tables["summary_by_model_backend_mode"]
    several = cells[BUDGET].n_unique() > 1
    workloads = workloads_of(cells if several else cells.with_columns(pl.lit(None, dtype=pl.Int64).alias(BUDGET)))
    tokens = {(each.backend, each.batch_size, each.gen_tokens_target): each.tokens for each in workloads}
    laws = tables["scaling_fits"].filter(pl.col("scenario") == ALL)
    logs = pl.col("latency_geomean_ms").log().alias("log")
    runs = tables["summary_by_model_and_run"].with_columns(logs, pl.col("run").alias("replicate"))
    told = "; ".join(tables["throughput_intervals"]["interval_basis"].unique())
    several_of: tuple[Kind, ...] = ("hosts", "replicates")
    kind: Kind = next((each for each in several_of if BASIS[each] in told or f" {each} of fewer" in told), "runs")
    for key, points in groups(tables):
        suspect = next((law.get(SUSPECT) for law in like(laws, key, GROUP).to_dicts()), None) or None
        key = key if several else key | {BUDGET: None}
        where = {name: key[name] for name in ("backend", "batch_size", BUDGET)}
        outside = outside_range(points, model.properties())
        if outside and not extrapolate:
            refused[Refusal(**where, reason=outside, outside=True)] = None
            continue
        found = list(_by_each_law(points, model.properties(), level, runs, kind))
        if not found:
            measured = f"{points.height} model{'s' * (points.height > 1)} measured"
            few = f"{measured}: a prediction interval takes {MIN_MODELS} of different sizes"
            refused[Refusal(**where, reason=few, outside=False)] = None
        provenance = "extrapolated" if outside else "derived"
        shared = key | {"level": level, "outside": outside, "provenance": provenance, "suspect": suspect}
        counted = tokens.get(tuple(where.values()), {}).get(key["mode"])
        rows += [Prediction(**shared, **row, **_rate(row, counted)) for row in found]
    return Predictions(model=model, rows=tuple(rows), refused=tuple(refused), workloads=tuple(workloads))


def groups(tables: Mapping[str, pl.DataFrame]) -> list[tuple[Row, pl.DataFrame]]:
    """Each backend, batch size, budget and phase with its models: parameters, layers, width (empty where unknown) and
    ``latency``, ascending in parameters; the phases in their order."""
    per_model = tables[REQUESTS.name]
    structure = tables["hf_model_architecture"].select(*MODEL, "n_layer", "n_embd")
    joined = per_model.join(structure, on=MODEL, how="left", nulls_equal=True)

    def place(group: tuple[Row, pl.DataFrame]) -> tuple[Any, ...]:
        key, _ = group
        return key["backend"], key["batch_size"], key[BUDGET] or 0, (*PHASES, key["mode"]).index(key["mode"])

    return sorted(grouped(by_size(joined.with_columns(latency="latency_geomean_ms"), GROUP), GROUP), key=place)


def fit(points: pl.DataFrame, law: str) -> LawFit | None:
    """A law fitted to the models whose properties are known; ``None`` where they leave no scatter to judge it by."""
    known = _known(points, [law])
    plane = _plane(known, law) if known.height else None
    return LawFit(law=law, plane=plane, models=known) if plane and plane.determined and plane.degrees > 0 else None


def fitted_laws(
    points: pl.DataFrame, properties: Mapping[str, Any]
) -> tuple[dict[str, LawFit], dict[str, float], str | None]:
    """The laws that can be fitted to these models and need no other property than these; and which is the best.

    Between the two: what a model is off by when predicted from the others, by each law and by `MEAN`, a factor of 1 or
    more. All on the same models, those that every law applies to; a law that leaves nothing to judge it by is absent.
    The best law is the one of least error, ``None`` where none could be fitted.
    """
    laws = (law for law in LAWS if all(properties.get(name) for name in COLUMNS[law]))
    fits = {law: fitted for law in laws if (fitted := fit(points, law)) is not None}
    known = _known(points, list(fits))
    errors = {law: left_out(_plane(known, law)).root_mean_square for law in (MEAN, *fits) if known.height}
    factors = {law: exponential(error) for law, error in errors.items() if math.isfinite(error)}
    return fits, factors, min(fits, key=lambda law: factors.get(law, math.inf), default=None)


def outside_range(points: pl.DataFrame, properties: Mapping[str, float]) -> str | None:
    """How a model with these properties lies outside of what was measured; ``None`` where it does not.

    Each stated property has the range of the models for which it is known. Parameters and layers together must also lie
    no further from the measured pairs than the furthest of these: leverage, which finds a combination that each range
    alone would let pass (Montgomery, Peck and Vining, 3.8, hidden extrapolation).
    """
    reasons = []
    for name, value in properties.items():
        known = points[name].filter(points[name] > 0).to_numpy()
        if len(known) and not known.min() * (1 - ROUNDING) <= value <= known.max() * (1 + ROUNDING):
            low, high = _digits(float(known.min())), _digits(float(known.max()))
            reasons.append(f"{_digits(value)} {PROPERTIES[name]} (measured: {low} to {high})")
    fitted = None if reasons or "n_layer" not in properties else fit(points, BOTH)
    if fitted is not None:
        at = np.log([properties[name] for name in COLUMNS[BOTH]])
        furthest = fitted.plane.leverages().max()
        if fitted.plane.leverage(at) > furthest * (1 + ROUNDING):
            reasons.append(
                f"{_digits(properties['params_millions_effective'])} M parameters in {properties['n_layer']:g} layers "
                "(a pair further from the measured ones than any of these is)"
            )
    return "; ".join(reasons) or None


def _digits(value: float) -> str:
    """A number in three digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _by_each_law(
    points: pl.DataFrame, properties: Mapping[str, float], level: float, runs: pl.DataFrame, kind: Kind
) -> Iterator[dict[str, Any]]:
    """Each law's prediction; ``runs`` are the models' latencies in each run of a ``kind``, empty where there is one."""
    fits, factors, used = fitted_laws(points, properties)
    for law, fitted in fits.items():
        logs = log_matrices(runs, GROUP)(fitted.models)
        logs = None if logs is None or len(logs) < 2 else logs  # of whole runs
        found = fitted.latency_ms(properties, level, chosen_of=len(fits) if law == used else 1, runs=logs)
        yield {
            "predictor": law,
            "used": law == used,
            "n_models": fitted.models.height,
            "interval_holds": "this run only: models and calls"
            if logs is None
            else too_few(len(logs), kind)
            if math.isnan(found["latency_ms_low"])
            else f"{BASIS[kind]}: {Noise(kind, len(logs)).holds}",
            **found,
            "typical_factor": factors.get(law),
            "mean_factor": factors.get(MEAN),
        }


def _rate(row: Mapping[str, Any], tokens: float | None) -> dict[str, Any]:
    """Tokens a second of a call that takes so long; the interval's ends change places."""
    ends = {"": "", "_low": "_high", "_high": "_low", "_mean_low": "_mean_high", "_mean_high": "_mean_low"}
    ms = {f"tokens_per_s{name}": row.get(f"latency_ms{end}") for name, end in ends.items()}
    rates = {
        name: None if not tokens or each is None else math.inf if each <= 0 else 1000 * tokens / each
        for name, each in ms.items()
    }
    return rates | {"tokens": tokens}


def workloads_of(cells: pl.DataFrame) -> list[Workload]:
    """The calls that each backend, batch size and budget was measured with, from the summary of cells."""
    counted = pl.col("tokens_total_median")
    found = []
    for about, group in grouped(cells, ["backend", "batch_size", BUDGET]):
        of_scenarios = group.filter(counted > 0).group_by("mode", "scenario", maintain_order=True)
        logs = of_scenarios.agg(counted.median().log()).group_by("mode", maintain_order=True)
        scenarios = tuple(group["scenario"].unique(maintain_order=True))
        found.append(Workload(**about, scenarios=scenarios, tokens=dict(logs.agg(counted.mean().exp()).iter_rows())))
    return found


def _known(points: pl.DataFrame, laws: Sequence[str]) -> pl.DataFrame:
    """The models for which every property of these laws is known."""
    names = dict.fromkeys(name for law in laws for name in COLUMNS[law])
    lacking = any(not (points[name] > 0).all(ignore_nulls=False) for name in names)
    return points.filter(*(pl.col(name) > 0 for name in names)) if lacking else points


def _plane(points: pl.DataFrame, law: str) -> Plane:
    """A law's plane in the logs of its columns through these models' log latencies."""
    return fit_plane(logs_of(points, COLUMNS.get(law, ())), logs_of(points, ["latency"])[:, 0])


def prediction_validation(tables: Mapping[str, pl.DataFrame], level: float) -> pl.DataFrame:
    """The table ``prediction_validation``: each model predicted from the others, by each law and by the `CHOSEN` one.

    ``error`` is predicted / measured - 1; ``inside`` says whether the measured latency lies in the interval;
    ``extrapolated`` that the model lies outside of the range of the others, as the smallest and the largest do. Of
    more than `MOST_LEFT_OUT` models so many are predicted, evenly from the smallest to the largest. The intervals are
    without the noise between runs: what a run does to all models is in the model left out as well.
    """
    return PREDICTION_VALIDATION.frame(key | row for key, points in groups(tables) for row in _left_out(points, level))


def _left_out(points: pl.DataFrame, level: float) -> Iterator[Row]:
    tried = np.unique(np.linspace(0, points.height - 1, min(points.height, MOST_LEFT_OUT)).round().astype(int))
    for at in tried.tolist():
        model = points.row(at, named=True)
        others = points.filter(np.arange(points.height) != at)
        properties = {name: model[name] for name in PROPERTIES if (model[name] or 0) > 0}
        fits, _, chosen = fitted_laws(others, properties)
        if chosen is None:
            continue
        latency = float(model["latency"])
        extrapolated = outside_range(others, properties) is not None
        shared = model | {"latency_measured_ms": latency, "extrapolated": extrapolated}
        for law in (CHOSEN, *(law for law in LAWS if law in fits)):
            used = fits[chosen if law == CHOSEN else law]
            told = used.latency_ms(properties, level, chosen_of=len(fits) if law == CHOSEN else 1)
            by_law = {"predictor": law, "predictor_used": used.law, "n_others": used.models.height}
            by_law |= {name.replace("latency_ms", "latency_predicted_ms"): value for name, value in told.items()}
            inside = told["latency_ms_low"] <= latency <= told["latency_ms_high"]
            yield shared | by_law | {"error": told["latency_ms"] / latency - 1, "inside": inside}
        mean = exponential(float(np.log(others["latency"].to_numpy()).mean()))
        by_mean = {"predictor": MEAN, "predictor_used": MEAN, "n_others": others.height}
        yield shared | by_mean | {"latency_predicted_ms": mean, "error": mean / latency - 1}


def prediction_coverage(validation: pl.DataFrame, level: float) -> pl.DataFrame:
    """The table ``prediction_coverage``: of how many left-out models the interval held the latency, by law.

    ``coverage_low`` and ``coverage_high`` are Clopper and Pearson's interval at the same level, as if the models were
    independent trials. ``typical_factor`` is what a prediction is off by, ``mean_factor`` the same for the others'
    geometric mean, ``interval_factor`` the median reach of an interval to either side, all factors. Last come the
    models inside the range of the others, as ``phaselaw predict`` asks for, and how many of their intervals held.
    """
    predicted, inside, between = pl.col("latency_predicted_ms"), pl.col("inside"), ~pl.col("extrapolated")
    off = (predicted / pl.col("latency_measured_ms")).log()
    typical, by_mean = (off * off).mean().sqrt().exp(), pl.col("predictor") == MEAN
    means = validation.filter(by_mean).group_by(GROUP).agg(mean_factor=typical)
    laws = validation.filter(~by_mean).group_by([*GROUP, "predictor"], maintain_order=True)
    found = laws.agg(
        n_models=pl.len(),
        n_inside=inside.sum(),
        coverage=inside.mean(),
        asked=pl.lit(level),
        typical_factor=typical,
        interval_factor=(pl.col("latency_predicted_ms_high") / predicted).median(),
        n_interpolated=between.sum(),
        n_inside_interpolated=(between & inside).sum(),
    )
    held, n, tail = *(found[name].to_numpy().astype(float) for name in ("n_inside", "n_models")), 0.5 - level / 2
    low, high = special.betaincinv(held, n - held + 1, tail), special.betaincinv(held + 1, n - held, 1 - tail)
    found = found.with_columns(coverage_low=np.where(held > 0, low, 0.0), coverage_high=np.where(held < n, high, 1.0))
    return PREDICTION_COVERAGE.frame(found.join(means, on=GROUP, how="left", nulls_equal=True, maintain_order="left"))
