"""The first screen: the answer, how far to trust it, four figures, and pictures of latency, price and what breaks."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import polars as pl

from phaselaw.laws import decisions
from phaselaw.laws.rates import another_run
from phaselaw.laws.scaling import SCALING_FITS
from phaselaw.laws.summary import REQUESTS
from phaselaw.laws.verdicts import SUPPORTED, TREND, WEAK, word
from phaselaw.laws.warmup import LOADED, always_cold
from phaselaw.machine.identity import gpus_of
from phaselaw.report import economics, few_models, scaling, sweeps, validity
from phaselaw.report.document import Axis, Block, DotPlot, Front, Headline, Point, at_even_steps, display, dots
from phaselaw.report.few_models import ends, short_name, within
from phaselaw.report.outline import WORDING
from phaselaw.report.subject import Subject
from phaselaw.rundir.read import SIMULATED
from phaselaw.tables import MISSING, SUSPECT, Row, alike, bracket, digits, unit_price, words

_VERDICT = words("verdict", "verdict", of_row=lambda row: word(row["verdict"]))
"""On a terminal: without what it rests on."""
_LAW = dataclasses.replace(
    SCALING_FITS, columns=(*SCALING_FITS.columns, _VERDICT), shows="backend mode slope slope_t_ci_low r2 verdict"
)
two_digits = partial(digits, significant=2)
"""A factor that is not known better."""
_MOST_LOST = 0.05
"""Of measured calls, the share that may fail before figures can be those of quick calls alone."""
_MOST = 3
"""Backends that are told by name."""
_MOST_MODELS = 7
"""Models of the picture of prices; of more, those at even steps of size."""


def question(subject: Subject) -> str:
    """What the report answers."""
    names = list(dict.fromkeys(short_name(row["model"]) for row in few_models.rows(subject)))
    if names:
        return f"How fast {'is' if len(names) == 1 else 'are'} {' and '.join(names)}, and at what price?"
    return "As the model grows, what breaks first: latency, the cold start, or the budget?"


def front(subject: Subject) -> Front:
    """What one sees before scrolling."""
    rows = sorted(subject.rows("what_breaks_first"), key=lambda row: _doubt(subject, row))
    figures, pictures = few_models.figures(subject), few_models.pictures(subject)
    if not figures and rows:
        first, *others = ((row["law"], _figures(subject, row)) for row in rows[:_MOST])
        figures = tuple(
            dataclasses.replace(figure, beside=tuple(f"{law}: {those[at].value}" for law, those in others))
            for at, figure in enumerate(first[1])
        )
        laws = [law for law in subject.laws() if law["law"] == rows[0]["law"]]
        latency = scaling.by_phase(subject, rows[0]["law"], laws) if laws else None
        pictures = (latency, _prices(subject, rows[0]), _breaks(rows[0]))
    return Front(
        answer=answer(subject),
        notices=notices(subject),
        trust=validity.trust(subject),
        figures=figures,
        pictures=tuple(picture for picture in pictures if picture is not None),
        facts=facts(subject),
        load=" ".join(economics.own_load(subject.plan)),
    )


def _doubt(subject: Subject, row: Row) -> tuple[int, int]:
    """How much speaks against showing a backend's law first; of those alike, the one of most models."""
    law = _law(subject, row)
    unsupported = word(str(law.get("verdict"))) not in {SUPPORTED, TREND}
    return 2 * unsupported + bool(law.get(SUSPECT)), -row["n_models"]


def _law(subject: Subject, row: Row) -> Row:
    return next(iter(subject.rows("scaling_fits", scenario="__all__", mode="e2e_kv", law=row["law"])), {})


def notices(subject: Subject) -> tuple[str, ...]:
    """What must be known before any figure."""
    simulated = (f"{SIMULATED}.",) if "simulated" in subject.run.rows["backend_kind"] else ()
    calls = subject.run.rows.filter((pl.col("mode") == "e2e_kv") & ~pl.col("is_warmup"))
    failed = calls.filter((pl.col("status") == "error") & pl.col("gen_tokens_raw").is_null()).height
    lost = (
        f"{failed} of {calls.height} measured calls failed: figures are of the others, which may be the quicker ones."
    )
    many = (lost,) if failed > _MOST_LOST * calls.height else ()
    return (*(f"UNFINISHED: {line}." for line in subject.run.unfinished), *many, *simulated)


def answer(subject: Subject) -> str:
    """The answer in a plain sentence, and the regime."""
    rows = subject.rows("what_breaks_first")
    told = _of_cold_starts(subject) or " ".join(few_models.answers(subject))
    if told:
        return told
    if not rows:
        unsized = subject.run.rows.filter((pl.col("status") == "ok") & pl.col("params_millions_effective").is_null())
        unknown = joined(unsized["model"].unique(maintain_order=True).to_list())
        why = f"nothing says the parameters of {unknown}; give the study's params_millions for each"
        return f"No law could be fitted: {why if unknown else 'no model has a usable end-to-end latency'}."
    sentences = []
    for (first, then), alike_rows in alike(rows, "first", "then").items():
        names = [row["law"] for row in alike_rows]
        where = "" if len(names) == len(rows) else f"on {joined(names)} "
        sentences.append(
            where + WORDING["breaks"][first] + WORDING["then"].get(then, "") + _clause(subject, alike_rows)
        )
    sentence = "; ".join(sentences)
    return f"{sentence[:1].upper()}{sentence[1:]}. {regime(subject)}".strip()


def _clause(subject: Subject, rows: Sequence[Row]) -> str:
    """How latency grows by the laws of these backends, where they have any."""
    laws = [law for row in rows if word((law := _law(subject, row)).get("verdict") or "") in {SUPPORTED, TREND, WEAK}]
    factors = sorted(10 ** law["slope"] for law in laws if abs(law["slope"]) < 99)
    if not factors:
        return ""
    ends = " to ".join(dict.fromkeys(map(two_digits, (factors[0], factors[-1]))))
    return f" (a model 10 times as big takes {ends} times as long)"


def regime(subject: Subject) -> str:
    """What governs latency, by backend where they differ; the cold start is the answer's."""
    rows = [row for row in subject.ordered(decisions.REGIMES.name) if row["regime"] != decisions.COLD_START]
    laws = alike(rows, "regime")
    where = {name: f" on {joined(row['law'] for row in mine)}" * (len(laws) > 1) for (name,), mine in laws.items()}
    told = "; ".join(WORDING["regimes"][name] + on for name, on in where.items())
    return f"Regime: {told}." if told else ""


def _of_cold_starts(subject: Subject) -> str:
    """What first requests wait for where a study asks for nothing but cold starts (``cold: true``)."""
    backends = always_cold(subject.run)
    return " ".join(
        f"{row['law']}, a study of cold starts: the first token of a request comes after "
        f"{digits(row['first_median_ms'])} ms (median), {digits(row['ratio_median'])} x a warm one's, "
        f"{digits(row['load_median_ms'])} ms of it loading: {row['n_unsafe']} of {row['n_calls']} are unsafe."
        for row in subject.rows("cold_starts", mode="prefill", coldness=LOADED)
        if row["backend"] in backends
    )


def summary(subject: Subject) -> tuple[Block, ...]:
    """What a terminal shows: the answer, the laws or the figures of one or two models, trust, and the price."""
    blocks: Sequence[Block] = few_models.summary(subject)
    if not blocks:
        laws, price = display(_LAW, subject.laws()), economics.price_range(subject.plan)
        bases = [str(row["interval_basis"]) for row in subject.plan.rows("rows") if row["tokens_per_s_low"] is None]
        unknown = f" {another_run(bases)}." if bases else ""
        blocks = (answer(subject), *islice(sweeps.lead(subject), 2), laws, price + unknown)
    return (*notices(subject), *blocks, *economics.own_load(subject.plan), f"Trust: {validity.trust(subject)}.")


def joined(names: Iterable[str], most: int = _MOST) -> str:
    """Names in a sentence, the first few of many."""
    known = list(names)
    if len(known) > most:
        return f"{', '.join(known[: most - 1])} and {len(known) - most + 1} more"
    return " and ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


def _ends(subject: Subject, row: Row) -> list[Row]:
    """A backend's smallest and largest model, each with ``step_ms``, ``rate`` and its interval."""
    found = []
    for model in (row["smallest_model"], row["largest_model"]):
        about = {"law": row["law"], "model": model, "mode": "kv_decode"}
        for decode in subject.rows(REQUESTS.name, **about):
            rate = decode["tokens_per_s_geomean"]
            known: Row = next(iter(subject.rows("throughput_intervals", **about)), {})
            if rate:
                found.append(known | {"model": model, "rate": rate, "step_ms": 1000 * row["batch_size"] / rate})
    return found


def _figures(subject: Subject, row: Row) -> tuple[Headline, ...]:
    """A backend's four figures: a decode step, a cold start, the price, growth with size."""
    ends, prices, law = _ends(subject, row), _priced(subject, row), _law(subject, row)
    names = " – ".join(short_name(each["model"]) for each in ends)
    steps = " – ".join(digits(each["step_ms"]) for each in ends)
    rates = " – ".join(f"{digits(each['rate'])} {within(each, 'tokens_per_s')}".strip() for each in ends)
    added, cold = "no unsafe call", "no first call was much slower"
    if not subject.rows("cold_starts", law=row["law"]):
        added, cold = MISSING, "no first call was measured beside warm ones"
    if row["cold_added_ms_max"]:
        added = f"+{digits(row['cold_added_ms_max'])} ms"
    if row["cold_ratio_max"]:
        unsafe = f"{row['cold_n_unsafe']} of {row['cold_n_calls']} unsafe"
        cold = f"up to {digits(row['cold_ratio_max'])} x a warm call; {unsafe}"
    dollars = " – ".join(f"${unit_price(price['usd_per_1m'])}" for price in (*prices[:1], *prices[1:][-1:])) or MISSING
    dearest = within(prices[-1], "usd_per_1m", unit_price) if prices else ""
    dearest = f"largest: {dearest}" if dearest and len(prices) > 1 else dearest
    hourly = f"at ${prices[0]['usd_per_hour']:g} an hour (assumed)" if prices else "no end-to-end rate"
    hourly = ", ".join([hourly, *sorted({price["rate_status"] for price in prices} - {"measured", "derived"})])
    growth, low, high = (
        None if slope is None else 10 ** min(slope, 99.0)
        for slope in map(law.get, ("slope", "slope_t_ci_low", "slope_t_ci_high"))
    )
    grown = MISSING if growth is None else f"{two_digits(growth)} x as long"
    shown = (
        (f"ms a token, {names}", f"{steps} ms", f"{rates} tokens/s") if ends else ("ms a token", MISSING, "no rate"),
        ("a cold start adds, at worst", added, cold),
        ("1M tokens, smallest – largest model", dollars, "; ".join(filter(None, (dearest, hourly)))),
        ("a model 10 times as big takes", grown, f"{bracket(low, high, two_digits)} {law.get('verdict', '')}"),
    )
    return tuple(Headline(title=title, value=value, interval=interval) for title, value, interval in shown)


def _priced(subject: Subject, row: Row) -> list[Row]:
    """The prices of a backend's models, the smallest model first."""
    rows = [
        price
        for price in subject.plan.rows("rows")
        if price["backend"] == row["backend"] and price["batch_size"] == row["batch_size"] and price["usd_per_1m"]
    ]
    return sorted(rows, key=lambda price: price["params_millions"] or 0.0)


def _prices(subject: Subject, main: Row) -> DotPlot | None:
    """Dollars per 1M tokens by model, each with its interval."""
    rows = _priced(subject, main)
    if not rows:
        return None
    named = []
    for row in at_even_steps(rows, _MOST_MODELS):
        price = f"${unit_price(row['usd_per_1m'])} {within(row, 'usd_per_1m', unit_price)}{economics.mark(row)}"
        named.append(row | ends(row, "usd_per_1m") | {"named": f"{short_name(row['model'])}  {price}"})
    return dots("price-by-model", named, of="tokens", on=main["law"], price=f"${rows[0]['usd_per_hour']:g}")


def _breaks(main: Row) -> DotPlot:
    """Latency, cold start and budget as three bars: how many times as much, the first to break marked."""
    cold = main["cold_ratio_max"]
    bars = {
        decisions.LATENCY: (main["latency_factor"], "latency: {} x, smallest to largest model"),
        decisions.COLD_START: (cold or 1.0, "cold start: {} x a warm call" if cold else "cold start: no unsafe call"),
        decisions.PRICE: (main["price_factor"], "budget: a token costs {} x, smallest to largest"),
    }
    rows = []
    for name, (factor, told) in bars.items():
        first = main["first"] == name or (main["first"] == decisions.ALIKE and name != decisions.COLD_START)
        ends = {"low": main["law_factor_low"], "high": main["law_factor_high"]} if name == decisions.LATENCY else {}
        point = [Point(label=name, x=factor, y=0.0, **ends)] if factor else []
        rows.append((("▶ first: " if first else "") + told.format(digits(factor)), tuple(point)))
    return DotPlot(
        name="what-breaks-first",
        caption="How many times as much: the largest model over the smallest, a cold call over a warm one",
        axis=Axis(title="times as much", log=True),
        reference=1.0,
        rows=tuple(rows),
        title=f"What breaks first on {main['law']}",
        bars=True,
    )


def facts(subject: Subject) -> tuple[tuple[str, str], ...]:
    """Machine, date, engine, models and runs, as far as the run knows them."""
    manifest, rows = subject.run.manifest, subject.run.rows
    host: Mapping[str, Any] = manifest.get("host") or manifest.get("platform") or {}
    gpus = [name for name, _ in gpus_of(manifest) if name]
    cores = f", {host['cores_physical']} cores" if host.get("cores_physical") else ""
    machine = ", ".join(filter(None, (f"{host.get('cpu_model') or host.get('processor') or ''}{cores}", *gpus)))
    began: Any = manifest.get("started_at_unix")
    if began is None and "started_at_unix" in rows.columns:
        began = rows["started_at_unix"].min()
    day = "not recorded"
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # none, or no time of this world
        day = datetime.datetime.fromtimestamp(began, datetime.UTC).date().isoformat()
    engines = {f"{each['kind']} {each.get('version') or ''}".strip(): None for each in manifest.get("engines") or []}
    models = rows["model"].unique(maintain_order=True).to_list()
    units = rows["replicate"].n_unique() if "replicate" in rows.columns else 1
    runs = max(1, len(subject.run.sources))
    return (
        ("machine", machine or "not recorded"),
        ("date", day),
        ("engine", joined(engines or rows["backend"].unique(maintain_order=True).to_list())),
        ("models", f"{len(models)}: {joined(map(short_name, models))}"),
        ("runs", f"{runs}" + (f", with {units} replicates" if units > 1 else "")),
    )
