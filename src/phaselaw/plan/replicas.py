"""What plans are made of: one kind of replica, a model on a backend, with its measured rate and its hourly price.

A replica is one copy of an engine with its accelerators; the output calls it a worker.
"""

import dataclasses
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, product
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from scipy import special

from phaselaw.engines.permits import host_of, is_here
from phaselaw.laws.analysis import Analysis
from phaselaw.laws.concurrency import users_on_all
from phaselaw.laws.physical_limit import Shape, shapes
from phaselaw.laws.rates import N_DRAWS, NOT_MEASURED, Draws, draw, evenly, same_draws
from phaselaw.laws.regression import Floats
from phaselaw.laws.summary import REQUESTS, as_requests, usable
from phaselaw.machine.identity import gpus_of
from phaselaw.plan.capacity import HOURS_PER_MONTH, SECONDS_PER_MONTH, UNKNOWN, Headroom, exact, whole_workers
from phaselaw.plan.prices import is_named
from phaselaw.records import Run
from phaselaw.tables import BUDGET, SUSPECT, Row, alike, grouped

RateStatus = Literal["measured", "derived", "given", "interpolated", "extrapolated", "not_possible"]
"""From the surest to the least sure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a figure stands on, and why."""

    status: RateStatus = "measured"
    why: str | None = None


class Length(NamedTuple):
    """Requests of one length that a rate was measured on."""

    prompt: float
    output: float
    relative: float = 1.0
    """Tokens/s of these requests alone, over the rate of all lengths together."""


CPU = "a CPU"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What one replica ran on."""

    accelerators: tuple[str, ...] = ()
    """Names of its GPUs, or `CPU`; none where it is not known."""
    memory_bytes: float | None = None
    """Of all its GPUs, or of the host for a CPU; ``None`` where it is not known."""

    def used(self, asked: str, count: int) -> bool:
        """Whether so many of an accelerator are what it ran on; yes where it is not known what that is."""
        alike = any(is_named(asked, name) or ("cpu" in asked.lower() and name == CPU) for name in self.accelerators)
        return not self.accelerators or (alike and count <= len(self.accelerators))


NO_HEADROOM, UNKNOWN_MACHINE, MEASURED = Headroom(), Machine(), Coverage()
TOO_SLOW = Coverage(status="not_possible", why="one client alone waited longer than the limits")
ALONE = 1, exact(1.0), MEASURED
NOT_TRIED = 0, exact(1.0), Coverage(status="not_possible", why="how long clients wait was not measured (concurrency)")
Price = float | Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replica:
    """One model on one backend at one batch size and number of output tokens; a quantity is a value and its draws."""

    backend: str
    model: str
    batch_size: int = 1
    clients: int = 1
    """Requests that were sent at once for its rate: the number at which the run measured the highest one, of those that
    kept the limits on waiting where there are such; 0 where none did."""
    gen_tokens: int | None = None
    """Output tokens of the measurement that the rate is from."""
    tokens_per_s: Floats
    """Measured: end-to-end tokens (prompt and generated) a second."""
    usd_per_hour: float
    """Assumed: what an hour of it costs."""
    lengths: tuple[Length, ...] = ()
    """The requests that the rate was measured on; none where the run does not say."""
    load: Coverage = MEASURED
    """What the rate stands on for the load that is planned."""
    request: Coverage = MEASURED
    """The same for the price of one of its requests."""
    params_millions: float | None = None
    e2e_s: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    """Measured: seconds of one call of the run's own workload."""
    prefill_factor: Floats = dataclasses.field(default_factory=lambda: exact(1.0))
    """Draws of the prefill time over its value: how far off the step-time model's prefill may be."""
    decode_factor: Floats = dataclasses.field(default_factory=lambda: exact(1.0))
    """The same of the decode time."""
    wait_s: float = 0.0
    """Measured: seconds of a request before its prefill, such as a server's load in warm calls (TTFT less prefill)."""
    by_request: bool = False
    """Whether its rate is of requests as their users wait: N tokens are N - 1 decode steps, since the prefill gives the
    first; else of TR121's ``e2e_kv``, N steps."""
    interval_basis: str = NOT_MEASURED
    """Which intervals there are: of one more run, or of this run only; or why there are none."""
    incomplete: bool = False
    """Whether it lacks a scenario that other models have, so that its rate is not one of the same calls."""
    suspect: str = ""
    """Checks that speak against its rates (`phaselaw.laws.checks`); empty: none."""
    suspect_prefill: str = ""
    """The same of its prefill times."""
    by_clients: tuple[Row, ...] = ()
    """Measured: what each number of clients got on each prompt, where they were swept (``concurrency_throughput``)."""
    machine: Machine = UNKNOWN_MACHINE
    """What it was measured on."""
    shape: Shape | None = None
    """The model's, by which its memory is predicted; ``None`` where it is not known."""
    context_tokens: int | None = None
    """Tokens that the model can attend to; ``None`` where the run does not say."""
    scale_out_s: float | None = None
    """Measured: seconds of its load and its first call; ``None`` where no load was."""
    success_rate: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    """Assumed: the share of requests that pass the user's acceptance."""

    @property
    def usd_per_1m(self) -> Floats:
        """Dollars for a million tokens under time-priced compute."""
        price: Floats = 1e6 / self.tokens_per_s / 3600.0 * self.usd_per_hour
        return price

    def usd_per_request(self, tokens: float) -> Floats:
        """Dollars for a request of so many tokens, each at the same price."""
        return self.usd_per_1m * tokens / 1e6

    def fleet(self, tokens_per_month: float | Floats, headroom: Headroom = NO_HEADROOM) -> dict[str, Floats]:
        """What a volume needs of this kind and costs: for the time that is used, and for whole replicas."""
        workers: Floats = tokens_per_month / SECONDS_PER_MONTH / self.tokens_per_s
        whole = whole_workers(workers, headroom)
        dollars = whole * HOURS_PER_MONTH * self.usd_per_hour
        return {
            "usd_per_1m_whole": dollars / np.maximum(tokens_per_month, 1e-9) * 1e6,
            "workers": workers,
            "whole_workers": whole,
            "usd_per_1m": self.usd_per_1m,
            "usd_per_month": workers * HOURS_PER_MONTH * self.usd_per_hour,
            "usd_per_month_whole": dollars,
        }


def stated(name: str, tokens_per_s: float, usd_per_hour: float, *, backend: str = "stated", **more: Any) -> Replica:
    """A replica whose rate is given as a number, so that its noise is not known."""
    rate = same_draws(tokens_per_s, np.full(N_DRAWS, math.nan))
    given = Coverage(status="given", why="a rate that was given, not measured")
    about: dict[str, Any] = {"backend": backend, "load": given, "request": given}
    return Replica(model=name, tokens_per_s=rate, usd_per_hour=usd_per_hour, **about | more)


def price(replica: Replica) -> float:
    """The dollars for a million tokens by which replicas are ordered."""
    return float(replica.usd_per_1m[0])


MOST_PAIRED = 60
"""More replicas than this are not paired each with each, which would take minutes."""


def pairs(replicas: Sequence[Replica]) -> Iterator[tuple[Replica, Replica]]:
    """Every two replicas of one batch size and output length, the cheaper first; from the cheapest pair up.

    Of more than `MOST_PAIRED` only the cheapest of each backend and kind with every other one of it.
    """
    ordered = sorted(replicas, key=price)
    cheapest: dict[tuple[Any, ...], Replica] = {}
    for each in ordered:
        cheapest.setdefault((each.backend, each.batch_size, each.gen_tokens), each)
    for small, big in combinations(ordered, 2) if len(ordered) <= MOST_PAIRED else product(cheapest.values(), ordered):
        of_a_kind = (small.batch_size, small.gen_tokens) == (big.batch_size, big.gen_tokens)
        if small is not big and of_a_kind and (len(ordered) <= MOST_PAIRED or small.backend == big.backend):
            yield small, big


def replicas_of(
    run: Run,
    analysis: Analysis,
    usd_per_hour: Price,
    *,
    between_runs: float | None = None,
    most: int | None = None,
    slo_ms: tuple[float, float] | None = None,
) -> list[Replica]:
    """A replica for each end-to-end rate of a run, or of pooled runs, in the order of its tables.

    ``usd_per_hour`` is one price, or one for each backend. Raises KeyError for a backend without one. ``between_runs``
    is an assumed standard deviation between runs, in place of what was measured. Of more than ``most`` models only the
    fastest, and the smallest and the largest: each takes megabytes of draws. Where clients were swept, no more are sent
    at once than waited within ``slo_ms`` on every prompt.
    """
    rows, models = usable(as_requests(run.rows)), _fastest(analysis, most)
    drawn = draw(rows, in_rounds=run.order == "rounds", between_runs=between_runs, models=models)
    errors, contexts, lengths = _model_errors(analysis, models), _contexts(run.models), _lengths(rows)
    swept = analysis.tables["concurrency_throughput"]
    by_clients = alike(swept.iter_rows(named=True), "backend", "model", BUDGET)
    waits, loads, at_best = _waits(rows), _loads(run.rows), _at_best_clients(swept, by_clients, slo_ms)
    machines, sized = machines_of(run), shapes(run)
    of_models = analysis.tables["summary_by_model_backend_mode_agg"].iter_rows(named=True)
    marks = {(row["backend"], row["model"], int(row["batch_size"]), row[BUDGET], row["mode"]): row for row in of_models}
    found = []
    for key, end_to_end in drawn.items():
        backend, model, batch_size, gen_tokens, phase = key
        if phase != "e2e_kv" or not (mean := float(end_to_end.tokens_per_s[0])) > 0:
            continue
        clients, faster, stands_on = at_best.get((backend, model, gen_tokens), ALONE if slo_ms is None else NOT_TRIED)
        worker = Replica(
            backend=backend,
            model=model,
            batch_size=batch_size,
            clients=clients,
            load=stands_on,
            request=stands_on,
            gen_tokens=gen_tokens,
            tokens_per_s=end_to_end.tokens_per_s * faster,
            usd_per_hour=usd_per_hour[backend] if isinstance(usd_per_hour, Mapping) else usd_per_hour,
            e2e_s=end_to_end.latency_ms / 1000.0 * max(1, clients) / faster,
            scale_out_s=loads.get((backend, model)),
            wait_s=waits[key][0],
            by_request=waits[key][1],
            prefill_factor=_factor(drawn.get((*key[:4], "prefill")), errors.get((backend, model, "prefill"))),
            decode_factor=_factor(drawn.get((*key[:4], "kv_decode")), errors.get((backend, model, "kv_decode"))),
            interval_basis=end_to_end.basis,
            incomplete=bool(marks[key].get("incomplete")),
            suspect=marks[key][SUSPECT],
            suspect_prefill=marks.get((*key[:4], "prefill"), {SUSPECT: ""})[SUSPECT],
            by_clients=tuple(by_clients.get((backend, model, gen_tokens), ())),
            machine=machines[backend],
            shape=sized.get((backend, model)),
            context_tokens=contexts.get((backend, model), contexts.get((None, model))),
            lengths=tuple(each._replace(relative=each.relative / mean) for each in lengths.get(key[:4], ())),
            params_millions=marks[key].get("params_millions_effective"),
        )
        found.append(worker)
    return found


def _fastest(analysis: Analysis, most: int | None) -> set[str] | None:
    """Of more than ``most`` models those with the highest end-to-end rates, the smallest and the largest; else all."""
    rated = analysis.tables[REQUESTS.name].filter(pl.col("mode") == "e2e_kv").drop_nulls("tokens_per_s_geomean")
    named = rated.sort("tokens_per_s_geomean", descending=True)["model"].unique(maintain_order=True)
    ends = rated.drop_nulls("params_millions_effective").sort("params_millions_effective")["model"]
    return None if most is None or len(named) <= most else {*named[:most], *ends[:1], *ends[-1:]}


def _factor(phase: Draws | None, error: Floats | None) -> Floats:
    """How far off a phase may be: draws over the value, and the step-time model's own error."""
    off = exact(1.0) if phase is None else phase.latency_ms / phase.latency_ms[0]
    return off if phase is None or error is None else off * error


def _waits(rows: pl.DataFrame) -> dict[tuple[Any, ...], tuple[float, bool]]:
    """By the keys of draws: seconds of a request before its prefill, and whether it is as its user waits for it."""
    requests = rows.filter(pl.col("mode") == "e2e_kv").group_by("backend", "model", "batch_size", BUDGET, "mode")
    by_request = pl.col("request_ms").is_not_null().any()
    waited = requests.agg((pl.col("ttft_ms") - pl.col("prefill_ms")).median(), by_request)
    return {tuple(key): (max(0.0, ms or 0.0) / 1e3, by) for *key, ms, by in waited.iter_rows()}


def machines_of(run: Run) -> dict[str, Machine]:
    """By backend, what its models ran on.

    In process that is the device that the table of models names (``cuda``: the first GPU), else the first GPU where
    calls have a peak of its memory. A local server is taken to use all GPUs of its host, or its CPU where it has none;
    of others nothing is known.
    """
    host, gpus = run.manifest.get("host") or {}, gpus_of(run.manifest)
    settings = {each.get("name"): each.get("settings") or {} for each in run.manifest.get("engines") or []}
    found = {}
    for backend, kind in run.rows.select("backend", "backend_kind").unique().iter_rows():
        at = host_of(settings.get(backend, {}).get("url") or "")
        here = kind in ("ollama", "llamacpp") and (not at or is_here(at))
        on_its_cpu = here and host.get("cpu_model") and not gpus
        device = _device(run, backend) if kind in ("hf", "simulated") else "cpu" if on_its_cpu else ""
        cpu = [(CPU, (host.get("memory_bytes") or 0.0) / 2**20)]
        number = int(device[5:]) if device[5:].isdecimal() else 0  # of a GPU: cuda:1
        one = gpus[number : number + 1] if device.startswith("cuda") else []
        on = cpu if device == "cpu" else gpus if here else one
        size = sum(mb or 0.0 for _, mb in on) * 2**20
        found[backend] = Machine(accelerators=tuple(name for name, _ in on), memory_bytes=size or None)
    return found


def _device(run: Run, backend: str) -> str:
    """The device of an engine in this process: as the models' table says, else by the peaks of a GPU's memory."""
    models, peaks = run.models, run.rows.filter(pl.col("gpu_peak_mb") > 0)["backend"].unique().to_list()
    if {"backend", "device"} <= set(models.columns):
        return next((str(each or "") for each in models.filter(pl.col("backend") == backend)["device"]), "")
    devices = set(models.filter(pl.col("kind") == "hf")["device"]) if {"kind", "device"} <= set(models.columns) else ()
    return "cuda" if backend in peaks else "cpu" if peaks or devices == {"cpu"} else ""


def _contexts(models: pl.DataFrame) -> dict[tuple[str | None, str], int]:
    """The tokens that a request of each backend's model may have, where the table of models says.

    A table without backends, or a row, is of all of them; of several rows the least counts.
    """
    if not {"model", "n_positions"} <= set(models.columns):
        return {}
    backend = pl.col("backend") if "backend" in models.columns else pl.lit(None, pl.String).alias("backend")
    tokens = pl.col("n_positions").cast(pl.Float64).cast(pl.Int64)
    least = models.select(backend, "model", tokens).drop_nulls("n_positions").group_by("backend", "model").min()
    return {(of, model): positions for of, model, positions in least.iter_rows()}


def _loads(rows: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Seconds from a load's beginning to the end of the first call after it, by backend and model: medians."""
    # Ollama tells of a load in warm calls too, of moments, and loads within the call.
    cold = (pl.col("load_ms") > 0) & (pl.col("calls_since_model_load").fill_null(0) == 0)
    loaded = rows.filter((pl.col("mode") == "e2e_kv") & cold & pl.col("latency_ms").is_finite())
    within = (pl.col("backend_kind") == "ollama") & pl.col("request_ms").is_not_null()
    took = pl.coalesce("request_ms", "latency_ms") + pl.when(within).then(0.0).otherwise(pl.col("load_ms"))
    took_s = loaded.group_by("backend", "model").agg(took.median() / 1e3)
    return {(backend, model): seconds for backend, model, seconds in took_s.iter_rows()}


Swept = tuple[str, str, int | None]
"""Backend, model and output tokens of clients that were swept."""


def _at_best_clients(
    throughput: pl.DataFrame, cells: Mapping[Swept, Sequence[Row]], slo_ms: tuple[float, float] | None
) -> dict[Swept, tuple[int, Floats, Coverage]]:
    """The number of clients at which all scenarios together were fastest, how much faster than with one; whether so.

    Draws: of the scatter between groups of calls, the largest of a scenario; NaN where there was but one group. Where
    none waits within ``slo_ms`` on every prompt, the number is 0, and the rate is that of one.
    """
    at_most = {} if slo_ms is None else {key: users_on_all(rows, slo_ms) for key, rows in cells.items()}
    rate, low, high = (pl.col(f"output_tokens_per_s_{of}") for of in ("median", "ci_low", "ci_high"))
    sound = throughput.filter(pl.col("n_groups_with_failures") == 0).group_by("backend", "model", BUDGET, "concurrency")
    tried = sound.agg(pl.len().alias("n"), (1 / rate).sum().alias("s"), ((high / low).log().max() / 3.92).alias("sd"))
    found = {}
    for about, group in grouped(tried.sort("s"), ("backend", "model", BUDGET)):
        whole = group.filter(pl.col("n") == pl.col("n").max())
        for (alone,) in whole.filter(pl.col("concurrency") == 1).select("s").iter_rows():
            key = about["backend"], about["model"], about[BUDGET]
            within = whole.filter(pl.col("concurrency") <= at_most.get(key, math.inf))
            best = next(within.iter_rows(named=True), {"concurrency": 0, "s": alone, "sd": 0.0})
            clients, gain = best["concurrency"], alone / best["s"]
            sd = 0.0 if clients == 1 else math.nan if best["sd"] is None else best["sd"]
            draws = same_draws(gain, gain * np.exp(sd * special.ndtri(evenly(clients))))
            found[key] = clients, draws, MEASURED if clients else TOO_SLOW
    return found


def _lengths(rows: pl.DataFrame) -> dict[tuple[Any, ...], tuple[Length, ...]]:
    """The requests by backend, model, batch size and output length: tokens of one sequence, and the tokens/s."""
    prompt = pl.coalesce(pl.col("seq_len"), pl.col("prompt_tokens_raw") / pl.col("batch_size")).alias("prompt")
    output = pl.coalesce(pl.col(BUDGET), pl.col("gen_tokens_raw") / pl.col("batch_size")).alias("output")
    names = ("backend", "model", "batch_size", BUDGET)
    calls = (
        rows.filter(pl.col("mode") == "e2e_kv").group_by(*names, prompt, output).agg(pl.col("tokens_per_s").median())
    )
    lengths = calls.drop_nulls(["prompt", "output", "tokens_per_s"]).sort("prompt", "output").iter_rows(named=True)
    groups, figures = alike(lengths, *names).items(), itemgetter("prompt", "output", "tokens_per_s")
    return {key: tuple(Length(*map(float, figures(row))) for row in group) for key, group in groups}


def _model_errors(analysis: Analysis, models: Collection[str] | None) -> dict[tuple[str, str, str], Floats]:
    """By backend, model (of these) and phase: 1, then draws of the step-time model's relative error.

    Its size is the error on left-out points, else that of the residuals.
    """
    errors = {}
    for row in analysis.tables["step_time_model"].iter_rows(named=True):
        key = (row["backend"], row["model"], row["mode"])
        sd = row["residual_rms"] if row["left_out_rms"] is None else row["left_out_rms"]
        if sd is not None and (models is None or row["model"] in models):
            errors[key] = same_draws(1.0, np.exp(sd * special.ndtri(evenly(zlib.crc32(repr(key).encode())))))
    return errors
