"""One or two models, of which no law can be fitted: what each gets on each prompt, by name, and how they differ.

`rows` are what is said of them everywhere: on the terminal, by ``phaselaw quick``, in ``report.md`` and on the page.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from phaselaw import tables as col
from phaselaw.laws.concurrency import CONCURRENCY_THROUGHPUT, users_within
from phaselaw.laws.physical_limit import BANDWIDTH, COMPUTE, OVERHEAD, PHYSICAL_LIMIT
from phaselaw.laws.rates import NOT_MEASURED, another_run
from phaselaw.laws.requests import MODELS_BY_PROMPT, REQUESTS_BY_PROMPT
from phaselaw.report import performance, sweeps, validity
from phaselaw.report.document import Block, DotPlot, Headline, Plot, display, dots
from phaselaw.report.subject import Subject
from phaselaw.tables import LAW, MODEL, Row, Table, alike, bracket, digits, percent, unit_price

FEWEST_OF_A_LAW = 3
_WALLS = {BANDWIDTH: "memory bandwidth", COMPUTE: "arithmetic", OVERHEAD: "overhead"}
_OF = {column.key: column for column in REQUESTS_BY_PROMPT.columns}
_PROMPT = col.words(
    "scenario", "prompt (tokens)", of_row=lambda row: f"{row['scenario']} ({col.count(row['prompt_tokens'])})"
)
_ON = col.words("scenario", of_row=lambda row: f"on {_PROMPT.text(row)[:-1]} prompt tokens)")
_PRICE = col.figure("usd_per_1m", "$ per 1M generated", unit_price)
_WAITS = _PROMPT, _OF["tokens_per_s"], _OF["ttft_ms"], _OF["ttft_ms_p95"]
_WHOLE = _PROMPT, _OF["request_ms"], _OF["step_ms"], _OF["cold_ms"], _PRICE
_CLIENTS = {column.key: column for column in CONCURRENCY_THROUGHPUT.columns}
_BY_CLIENTS = "scenario concurrency output_tokens_per_s_median output_tokens_per_s_ci_low ttft_ms_median ttft_ms_p95"


def rows(subject: Subject) -> tuple[Row, ...]:
    """A row a model and prompt: its figures, dollars for a million generated tokens, and what it is ``bound_by``.

    None where the run has three models or more: these have laws.
    """
    found = subject.rows(REQUESTS_BY_PROMPT.name)
    if len({row["model"] for row in found}) >= FEWEST_OF_A_LAW:
        return ()
    for row in found:
        ends = {"": row["tokens_per_s"], "_low": row["tokens_per_s_high"], "_high": row["tokens_per_s_low"]}
        ends |= {"_within_low": row["tokens_per_s_within_high"], "_within_high": row["tokens_per_s_within_low"]}
        hour = _usd_per_hour(subject, row)
        row |= {f"usd_per_1m{end}": rate and hour and hour / 0.0036 / rate for end, rate in ends.items()}
        row |= _bound(subject, row)
        row["bound_by"] = _bound_words([row])
    return found


def _usd_per_hour(subject: Subject, row: Row) -> float:
    """What an hour of the row's backend costs; 0 where it is not planned with."""
    hours = {each["backend"]: float(each["usd_per_hour"]) for each in subject.plan.rows("rows")}
    return hours.get(row["backend"], float(subject.plan.document["assumptions"]["usd_per_hour"] or 0.0))


def _bound(subject: Subject, row: Row) -> Row:
    """The phase that takes most of a call, the limit that it meets, and the shares of both; ``None``: not known."""
    if not row["request_ms"] or not row["ttft_ms"]:
        return {"most_is": None, "wall": None}
    first = row["ttft_ms"] / row["request_ms"]
    mode, doing = ("prefill", "reading the prompt") if first > 0.5 else ("kv_decode", "generating")
    about = {name: row[name] for name in ("law", "model", "scenario")}
    limits = (each for each in subject.rows(PHYSICAL_LIMIT.name, mode=mode, **about) if each["wall"])
    shares = {_WALLS[each["wall"]]: max(each["bandwidth_share"], each["compute_share"]) for each in limits}
    wall, of_limit = next(iter(shares.items()), (None, 0.0))
    return {"most_is": doing, "most_share": max(first, 1 - first), "wall": wall, "wall_share": of_limit}


def _bound_words(rows: Sequence[Row]) -> str:
    """What rows that are bound alike are bound by, each share from the least to the most."""
    row = rows[0]
    if row["most_is"] is None:
        return "what is not known"
    shares = ([each[of] for each in rows] for of in ("most_share", "wall_share"))
    of_call, of_limit = (_least_to_most(of, partial(percent, places=0)) for of in shares)
    known = f"{row['wall']} ({of_limit} of the nearest limit)"
    wall = known if row["wall"] else "which limit of its machine that meets is not known"
    return f"{row['most_is']}, {of_call} of a call: {wall}"


def _least_to_most(values: Iterable[float | None], text: Callable[[float], str] = digits) -> str:
    known = sorted(value for value in values if value is not None)
    least, most = map(text, (known[0], known[-1])) if known else (col.MISSING,) * 2
    return most if least == most else f"{least.removesuffix(' %')} to {most}"


def answers(subject: Subject) -> list[str]:
    """The answer: a sentence a model, over its prompts from the least to the most; none with more models."""
    sentences = []
    for (law, model), mine in alike(rows(subject), "law", "model").items():
        figures = ("tokens_per_s", "ttft_ms", "ttft_ms_p95")
        rate, first, p95 = (_least_to_most([row[key] for row in mine]) for key in figures)
        on = f"on {len(mine)} prompts"
        if len(mine) == 1:
            on, rate = _ON.text(mine[0]), _OF["tokens_per_s"].text(mine[0])
        price = f"${_least_to_most([row['usd_per_1m'] for row in mine], unit_price)} per 1M generated tokens"
        sentences.append(
            f"{model} on {law} generates {on} {rate} tokens/s, the first after {first} ms (p95 {p95}), at {price}."
        )
    return sentences


def bound(subject: Subject) -> Iterator[str]:
    """What most of a call is bound by, in a sentence for the models that are bound alike."""
    for mine in alike(rows(subject), "most_is", "wall").values():
        models = dict.fromkeys(short_name(row["model"]) for row in mine)
        yield f"Bound by {_bound_words(mine)} ({', '.join(models)})."


def figures(subject: Subject) -> tuple[Headline, ...]:
    """The figures of the first screen: of the first model and prompt, the others beside; none with more models."""
    found = rows(subject)
    if not found:
        return ()
    first, headlines = found[0], []
    rate = f"{digits(first['tokens_per_s'])} tokens/s {within(first, 'tokens_per_s')} over the whole call"
    dollars = f"at ${_usd_per_hour(subject, first):g} an hour (assumed), one request at a time"
    for key, title, shown, text, more in (
        ("ttft_ms", f"first token, {first['scenario']}", "{} ms", digits, ""),
        ("step_ms", "a token after it", "{} ms", digits, rate),
        ("cold_ms", "first token when cold", "{} ms", digits, first["coldness"] or ""),
        ("usd_per_1m", "1M generated tokens", "${}", unit_price, dollars),
    ):
        value, *others = (
            f"{short_name(row['model'])}, {row['scenario']}: " * (row is not first)
            + ("not measured" if row[key] is None else shown.format(text(row[key])))
            for row in found[:4]
            if row is first or row[key] is not None
        )
        interval = "; ".join(filter(None, (within(first, key, text), more)))
        headlines.append(Headline(title=title, value=value, interval=interval, beside=tuple(others)))
    return tuple(headlines)


def pictures(subject: Subject) -> tuple[Plot | None, ...]:
    """Waits and prices by model and prompt; throughput by clients where they were swept, else the first calls."""
    priced = [row | ends(row, "usd_per_1m") for row in _named(subject)]
    at = [{"on": row["law"], "price": f"${_usd_per_hour(subject, row):g}"} for row in priced[:1]]
    prices = dots("price-by-model", priced, of="generated tokens", **at[0]) if priced else None
    return waits(subject), prices, next(iter(sweeps.clients(subject)), None) or performance.waits(subject)


def _named(subject: Subject) -> list[Row]:
    return [row | {"named": f"{short_name(row['model'])}, {_PROMPT.text(row)}"} for row in rows(subject)]


def waits(subject: Subject) -> DotPlot | None:
    """What a user waits for by model and prompt: the first token, each after it, the whole."""
    kinds = {"ttft_ms": "first token", "step_ms": "a token after it", "request_ms": "whole call"}
    points = [
        row | {"wait": wait, "ms": row[key]} | ends(row, key) for row in _named(subject) for key, wait in kinds.items()
    ]
    return dots("waits", points)


def ends(row: Row, key: str) -> Row:
    """The interval of a figure: of one more run where that was measured, else of this run alone."""
    more = row.get(f"{key}_low") is not None
    return {end: row.get(f"{key}_{end}" if more else f"{key}_within_{end}") for end in ("low", "high")} | {"more": more}


def within(row: Row, key: str, text: Callable[[Any], str] = digits) -> str:
    """The interval of a figure in words; nothing where there is none."""
    known = ends(row, key)
    told = bracket(known["low"], known["high"], text)
    return "" if told == col.MISSING else told + ("" if known["more"] else " (this run)")


def short_name(model: str) -> str:
    """A model's name without the folders before it."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def _closing(subject: Subject) -> Iterator[str]:
    """What the rows are bound by, how two models compare, what brackets and prices mean, what to add for laws."""
    found = rows(subject)
    yield from bound(subject)
    for (model, other), mine in alike(
        subject.ordered(MODELS_BY_PROMPT.name, mode="e2e_kv"), "model", "other_model"
    ).items():
        yield f"Whole calls of {model} against {other}: {'; '.join(map(_compared, mine))}."
    yield f"{_brackets(subject, found)}."
    yield f"Dollars: at ${_usd_per_hour(subject, found[0]):g} an hour (assumed), one request at a time."
    lacking = FEWEST_OF_A_LAW - len({row["model"] for row in found})
    yield f"Laws in parameters need three models: add {lacking} more to the study."


def _brackets(subject: Subject, found: Sequence[Row]) -> str:
    """What stands in brackets, or why nothing does."""
    basis = str(found[0]["interval_basis"] or NOT_MEASURED)
    if basis.startswith(NOT_MEASURED):
        return another_run([basis])
    return f"In brackets, {col.in_full(subject.analysis.options.level)}: {basis}"


def _compared(row: Row) -> str:
    """On one prompt, which is faster and whether that is real."""
    slower = row["ratio"] >= 1
    ratio, *ends = (end if slower else 1 / end for end in (row["ratio"], row["ratio_low"], row["ratio_high"]) if end)
    interval = f" {bracket(min(ends), max(ends), digits)}" if len(ends) == 2 else ""
    return f"{row['scenario']} {digits(ratio)} x {'slower' if slower else 'faster'}{interval}, {row['verdict']}"


def by_prompt(subject: Subject) -> Iterator[Block]:
    """A row a model and prompt; nothing with more models."""
    table = Table(
        columns=(LAW, MODEL, *_WAITS, *_WHOLE[1:], col.words("bound_by", "bound by")), caption="What each gets."
    )
    yield from [display(table, found)] if (found := rows(subject)) else []


def summary(subject: Subject) -> Sequence[Block]:
    """The same for a terminal, in narrow tables; empty with more models."""
    found, clients = rows(subject), subject.ordered(CONCURRENCY_THROUGHPUT.name)
    if not found:
        return ()
    who = [column for column in (MODEL, LAW) if len({column.text(row) for row in found}) > 1]
    # One step's interval is that of the whole, nearly: where two models stand beside each other it takes too much room.
    step = dataclasses.replace(_OF["step_ms"], of_row=None, high="")
    whole = [step if column is _OF["step_ms"] and who else column for column in _WHOLE]
    tables = [display(Table(columns=(*who, *columns)), found) for columns in (_WAITS, whole)]
    named = () if who else (f"{found[0]['model']} on {found[0]['law']}:",)
    if clients:
        shows, numbers = ("model " if who else "") + _BY_CLIENTS, [row["concurrency"] for row in clients]
        table = dataclasses.replace(CONCURRENCY_THROUGHPUT, shows=shows, caption="The fewest and the most clients.")
        ends = (min(numbers), max(numbers))
        tables.append(display(table, [row for row in clients if row["concurrency"] in ends]))
    return (*named, *tables, *sweeps.at_once(subject), *_closing(subject))


def in_short(subject: Subject, slo_ms: tuple[float, float]) -> list[str]:
    """First token, tokens/s, users served within ``slo_ms`` (first token, each further one), limit and trust."""
    found, clients = rows(subject), subject.rows(CONCURRENCY_THROUGHPUT.name)
    if not found:
        return ["no call can be used; why: phaselaw show RUN"]
    said: dict[str, list[str]] = {"first token": [], "tokens/s": [], "users": []}
    for row in found:
        on = _ON.text(row)
        mine = [each for each in clients if (each["model"], each["scenario"]) == (row["model"], row["scenario"])]
        together = (
            f", {' '.join(_CLIENTS[f'output_tokens_per_s_{key}'].text(each) for key in ('median', 'ci_low'))} by "
            f"{each['concurrency']} together"
            for each in [each for each in mine if each["output_tokens_per_s_median"] and each["concurrency"] > 1][-1:]
        )
        said["first token"].append(f"{_OF['ttft_ms'].text(row)} ms {on}")
        said["tokens/s"].append(f"{_OF['tokens_per_s'].text(row)} alone{''.join(together)} {on}")
        most, beyond = users_within(mine, slo_ms)
        users = f"{most['concurrency']}{'' if beyond else ' or more'}" if most else "none" if beyond else "not measured"
        said["users"].append(f"{users} {on}")
    if found[0]["cold_ms"]:
        said["first token"].append(f"when cold {digits(found[0]['cold_ms'])} ms")
    waits = f"p95 within {slo_ms[0]:g} ms to the first token and {slo_ms[1]:g} ms for each other one"
    said["users"].append(f"{waits}, and no call failed")
    said["limited by"] = [*map(_bound_words, alike(found, "most_is", "wall").values()), *sweeps.at_once(subject)]
    said["trust"] = [f"{validity.trust(subject)}. {_brackets(subject, found)}"]
    return [f"{name:<13}{'; '.join(parts)}" for name, parts in said.items()]
