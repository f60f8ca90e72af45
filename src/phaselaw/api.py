"""phaselaw's use cases on runs that were measured, as functions: what the commands call, and what Python code may.

``phaselaw.load(RUN)`` is `load`. What it gives holds data frames (polars; ``.to_pandas()`` works where pandas and
pyarrow are installed); `fit`, `predict`, `compare` and `plan` take it and give typed results. docs/phaselaw.ipynb shows
them. Errors are `phaselaw.errors.PhaselawError`, each message one line.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.errors import AnalysisError, UsageError, writing
from phaselaw.files import folder_in, write_csv, write_whole
from phaselaw.laws import analysis as analyses
from phaselaw.laws import prediction
from phaselaw.laws.analysis import Analysis, Options
from phaselaw.laws.law_differences import law_differences
from phaselaw.laws.prediction import NewModel, Predictions
from phaselaw.laws.regression_test import RegressionTest, regression_test
from phaselaw.laws.step_time import step_times
from phaselaw.laws.summary import REQUESTS
from phaselaw.laws.sweeps import as_tr121
from phaselaw.plan import DEFAULT_TOKENS_PER_MONTH, TR121_USD_PER_HOUR, positive
from phaselaw.plan.capacity import Estimate, Headroom, estimate
from phaselaw.plan.economics import Question, answer, assumptions
from phaselaw.plan.formulas import planner
from phaselaw.plan.replicas import Replica, replicas_of
from phaselaw.plan.tables import TABLES
from phaselaw.records import Run
from phaselaw.report.build import build
from phaselaw.report.document import Document
from phaselaw.report.economics import Plan
from phaselaw.report.markdown import PLOTS, to_markdown
from phaselaw.report.plots import draw
from phaselaw.report.subject import Companion, Subject
from phaselaw.rundir import read as runs
from phaselaw.rundir.conditions import differences, host_of, other_latencies, prompt_differences
from phaselaw.tables import MOST_ROWS
from phaselaw.traffic import timings

__all__ = ["Headroom", "Law", "Loaded", "Need", "compare", "fit", "load", "plan", "predict"]

PLAN_VERSION = 2
"""Version of the JSON document of a plan."""

_ELSEWHERE = "; choose another --out"

Tell = Callable[[str], None]
"""Takes a line that a person must know."""


# --- runs that were measured: laws, predictions, comparisons, plans -------------------------------------------------


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
        return analyses.analyze(self.run, self.options)

    @property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """Every table of ``phaselaw analyze`` by name."""
        return self.analysis.tables

    @property
    def name(self) -> str:
        """What the run is called in a report: its study's name and its folder's."""
        name, folder = str(self.run.manifest.get("run_name") or ""), self.run.path.resolve().name
        return name if name in {folder, ""} and name else f"{name} ({folder})" if name else folder

    @property
    def home(self) -> Path:
        """The folder that its tables and report belong in."""
        return self.run.path if self.run.path.is_dir() else self.run.path.parent

    def save_tables(self, folder: Path | None = None) -> Path:
        """Write every table as a CSV (``None``: into ``RUN/analysis``); returns the folder, or raises `RunError`."""
        return save_tables(self.analysis.as_written(), *((folder,) if folder else (self.home, "analysis")))


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
    *paths: Path | str,
    level: float = 0.95,
    models_table: Path | str | None = None,
    allow_different: bool = False,
    options: Options | None = None,
) -> Loaded:
    """Read a run directory, ours or TR121's, a ``metrics.csv``, or a sweep: a folder of runs ``gen_8``, ``gen_32``...

    Several runs of one study on one host are pooled.

    ``level`` is that of every interval. ``models_table`` is a CSV with the architecture of models whose config is
    absent. ``options`` has all choices of an analysis, these two among them. Raises `AnalysisError` for what can't be
    read, or be pooled unless ``allow_different``.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level:g}: give a share between 0 and 1")
    table = None if models_table is None else Path(models_table)
    run = runs.load_all(paths, allow_different=allow_different)
    return Loaded(run=run, options=options or Options(level=level, models_table=table))


def save_tables(tables: Mapping[str, pl.DataFrame], root: Path, *below: str) -> Path:
    """Write tables as CSVs into a folder, or one below it, which is made; returns it, or raises `RunError`."""
    with writing(root, _ELSEWHERE):
        folder = folder_in(root, *below)
        for name, table in tables.items():
            write_csv(folder / f"{name}.csv", table.columns, table.iter_rows(named=True))
    return folder


def save_sweep(loaded: Loaded, folder: Path | None = None) -> tuple[str, ...]:
    """Of a sweep, beside its tables: TR121's three at its root, and each run's own in its folder; returns those."""
    root = folder or loaded.home
    save_tables(as_tr121(loaded.tables), root)
    for part in loaded.analysis.parts:
        save_tables(analyses.analysed(part).as_written(), root, part.run.path.name, "analysis")
    return tuple(part.path.name for part in loaded.run.parts)


def fit(loaded: Loaded) -> list[Law]:
    """The scaling law in parameters of each backend, batch size, budget and phase."""
    renamed = {"exponent": "slope", "low": "slope_t_ci_low", "high": "slope_t_ci_high"}
    several = loaded.rows["gen_tokens_target"].n_unique() > 1

    def law(row: Mapping[str, Any]) -> dict[str, Any]:
        found = {field.name: row.get(renamed.get(field.name, field.name)) for field in dataclasses.fields(Law)}
        budget = row["gen_tokens_target"] if several else None
        return found | {"gen_tokens_target": budget, "suspect": row.get("suspect") or None}

    rows = loaded.tables["scaling_fits"].iter_rows(named=True)
    return [Law(**law(row)) for row in rows if row["scenario"] == "__all__"]


def predict(
    loaded: Loaded,
    *,
    params: float,
    layers: float | None = None,
    width: float | None = None,
    extrapolate: bool = False,
    tables: Mapping[str, pl.DataFrame] | None = None,
) -> Predictions:
    """The latency of a model of ``params`` parameters (a count, such as 3e9), as ``phaselaw predict`` makes it.

    Outside the measured range a backend is in ``refused`` with the reason, unless ``extrapolate``. ``tables`` are a
    part of the run's, for some backends alone.
    """
    for name, value in (("params", params), ("layers", layers), ("width", width)):
        if value is not None:
            positive(name, value)
    model = NewModel(params_millions=params / 1e6, n_layer=layers, n_embd=width)
    return prediction.predict(tables or loaded.tables, model, level=loaded.options.level, extrapolate=extrapolate)


def compare(a: Loaded, b: Loaded, *, threshold: float = 0.05, allow_different: bool = False) -> RegressionTest:
    """The latency of the runs ``b`` over that of the runs ``a``, as ``phaselaw compare`` judges it.

    Raises `AnalysisError` where study or host differ, unless ``allow_different``.
    """
    compare_notes(a, b, allow_different=allow_different)
    unlike = pl.col("backend").is_in(list(other_latencies(a.run, b.run))) & (pl.col("mode") != "prefill")
    alike = [dataclasses.replace(side.run, rows=side.run.rows.filter(~unlike)) for side in (a, b)]
    return regression_test(*alike, threshold=threshold, level=a.options.level)


def compare_notes(a: Loaded, b: Loaded, *, allow_different: bool) -> list[str]:
    """What a reader must know of two sides; raises `AnalysisError` where study or host differ, unless allowed."""
    found = differences(a.run.manifest, b.run.manifest)
    if not (a.run.manifest and b.run.manifest):
        found += prompt_differences(a.run, b.run)
    if found and not allow_different:
        raise AnalysisError(f"A and B differ in {'; '.join(found)}; --allow-different compares them all the same")
    unknown = [
        f"{source.path}: its host is unknown; that it is the same machine is taken on trust"
        for source in (*a.run.sources, *b.run.sources)
        if not host_of(source.manifest)
    ]
    of_b = {source.path.resolve() for source in b.run.sources}
    twice = (source.path for source in a.run.sources if source.path.resolve() in of_b)
    both = [f"{path} stands on both sides: what differs between them looks smaller than it is" for path in twice]
    unlike = other_latencies(a.run, b.run).values()
    return [*both, *a.run.notes, *b.run.notes, *unknown, *unlike, *(f"A and B differ in {line}" for line in found)]


def plan(
    loaded: Loaded,
    *,
    tokens_per_month: float = DEFAULT_TOKENS_PER_MONTH,
    usd_per_hour: float = TR121_USD_PER_HOUR,
    headroom: Headroom | None = None,
    between_runs: float | None = None,
) -> list[Need]:
    """Workers and dollars for a monthly volume of tokens, on each model and backend that was measured.

    ``headroom`` is what whole workers keep free; ``None`` is nothing. ``between_runs`` is an assumed standard deviation
    between runs (0.2: 20 %), in place of what was measured.
    """
    volume, price = positive("tokens_per_month", tokens_per_month), positive("usd_per_hour", usd_per_hour)

    needs = []
    for replica in replicas_of(loaded.run, loaded.analysis, price, between_runs=between_runs):
        fleet = {"tokens_per_s": replica.tokens_per_s, **replica.fleet(volume, headroom or Headroom())}
        about: dict[str, Any] = {field.name: getattr(replica, field.name, None) for field in dataclasses.fields(Need)}
        needs.append(Need(**about | {name: estimate(found) for name, found in fleet.items() if name in about}))
    return needs


def planned(question: Question, workers: Sequence[Replica], analysis: Analysis | None) -> Plan:
    """The plan as ``phaselaw plan --json`` prints it, every table and the assumptions, and what the page plans with.

    ``analysis`` is ``None`` for rates that were given, not measured.
    """
    tables = answer(question, workers, step_times(analysis.tables["step_time_model"]) if analysis else {})
    document = {"schema_version": PLAN_VERSION, "assumptions": assumptions(question, workers), **tables}
    return Plan(document, TABLES, functools.partial(planner, question, workers))


def reference_times(loaded: Loaded, *, backend: str | None, model: str | None, tell: Tell) -> timings.ReferenceTimes:
    """The measured step times that a request log is held against: those of one model on one backend.

    Raises `UsageError` where the run has several, or none, that fit the names.
    """
    times = step_times(loaded.tables["step_time_model"])
    fitting = [key for key in times if backend in (None, key[0]) and model in (None, key[1])]
    if len(fitting) != 1:
        known = ", ".join(f"{model} on {backend}" for backend, model in times) or "no model"
        which = "say which with --against-model and --against-backend"
        raise UsageError(f"--against {loaded.run.path}: {which}; it has step times of: {known}")
    [(backend, model)] = fitting
    replicas = {(each.backend, each.model): each for each in replicas_of(loaded.run, loaded.analysis, 1.0)}
    replica = replicas.get((backend, model))
    if replica and replica.suspect_prefill:
        tell(f"prefill times of {model} in {loaded.run.path} are doubted: {replica.suspect_prefill}")
    factors = {name: getattr(replica, name, None) for name in ("prefill_factor", "decode_factor")}
    return timings.ReferenceTimes(name=f"{model} on {backend}", times=times[backend, model], **factors)


# --- reports ---------------------------------------------------------------------------------------------------------


def report(
    loaded: Loaded,
    *,
    out: Path | None = None,
    beside: Sequence[Loaded] = (),
    plan: Plan | None = None,
    slo_ms: tuple[float, float] | None = None,
) -> tuple[Document, Path]:
    """Write ``report.md``, its plots and ``report.html`` into ``out`` (``None``: the run itself); returns where.

    The laws of the runs ``beside`` it are compared with its own. It is priced by the ``plan``; ``None`` is that of a
    first load, all of it assumed. With ``slo_ms``, what users wait at most for the first token and for the next, the
    document's summary is a run of one or two models in five lines. Raises `RunError` where it can't be written.
    """
    from phaselaw.report.page import to_html  # its templates are slow to load, and only for this

    subject = _subject(loaded, beside, plan)
    document = build(subject, slo_ms)
    folder = out or loaded.home
    with writing(folder, _ELSEWHERE):
        analysis = folder_in(folder, PLOTS.parts[0])
        plots = folder_in(folder, *PLOTS.parts)
        for plot in document.plots():
            write_whole(plots / f"{plot.name}.svg", draw(plot))
        if beside:
            compared = subject.analysis.tables["laws_side_by_side"]
            write_csv(analysis / "laws_side_by_side.csv", compared.columns, compared.iter_rows(named=True))
        write_whole(folder / "report.md", to_markdown(document))
        write_whole(folder / "report.html", to_html(document))
    return document, folder


def _subject(loaded: Loaded, beside: Sequence[Loaded], plan: Plan | None) -> Subject:
    """The run with what a load would need: that of the ``plan``, else a first one at the defaults."""
    analysis = loaded.analysis
    if plan is None:
        plan = planned(Question(), replicas_of(loaded.run, analysis, TR121_USD_PER_HOUR, most=MOST_ROWS), analysis)
    models = {row["model"] for row in plan.rows("rows")}
    if (named := analysis.tables[REQUESTS.name]["model"].n_unique()) > len(models) >= MOST_ROWS:
        some = f"The {MOST_ROWS} fastest of {named:,} models, the smallest and the largest: phaselaw plan has all."
        plan.document["assumptions"]["models"] = some
    if beside:
        each = [(one.name, one.tables) for one in (loaded, *beside)]
        compared = law_differences(each, analysis.options.level)
        analysis = dataclasses.replace(analysis, tables=analysis.tables | {"laws_side_by_side": compared})
    others = tuple(Companion(name=one.name, run=one.run, analysis=one.analysis) for one in beside)
    return Subject(name=loaded.name, run=loaded.run, analysis=analysis, plan=plan, beside=others)
