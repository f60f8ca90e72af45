"""One or two models, of which no law can be fitted: what each gets on each prompt, by name, and how they differ.

`rows` are what is said of them everywhere: on the terminal, by ``phaselaw quick``, in ``report.md`` and on the page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from phaselaw import tables as col
from phaselaw.laws.concurrency import CONCURRENCY_THROUGHPUT
from phaselaw.laws.physical_limit import BANDWIDTH, COMPUTE, OVERHEAD, PHYSICAL_LIMIT
from phaselaw.laws.rates import NOT_MEASURED
from phaselaw.laws.requests import MODELS_BY_PROMPT, REQUESTS_BY_PROMPT
from phaselaw.report import document, served
from phaselaw.report.document import Block, Section, display, section
from phaselaw.report.subject import Subject
from phaselaw.tables import LAW, MODEL, Row, Table, alike, digits, percent, two_places

FEWEST_OF_A_LAW = 3
_WALLS = {BANDWIDTH: "memory bandwidth", COMPUTE: "arithmetic", OVERHEAD: "overhead"}
_OF = {column.key: column for column in REQUESTS_BY_PROMPT.columns}
_PROMPT = col.words(
    "scenario", "prompt (tokens)", of_row=lambda row: f"{row['scenario']} ({col.count(row['prompt_tokens'])})"
)
_PRICE = col.figure("usd_per_1m", "$ per 1M generated", two_places)
_WAITS = _PROMPT, _OF["tokens_per_s"], _OF["ttft_ms"], _OF["ttft_ms_p95"]
_WHOLE = _PROMPT, _OF["request_ms"], _OF["step_ms"], _OF["cold_ms"], _PRICE
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
        row |= {f"usd_per_1m{end}": rate and _usd_per_hour(subject) / 0.0036 / rate for end, rate in ends.items()}
        row["bound_by"] = _bound_by(subject, row)
    return found


def _usd_per_hour(subject: Subject) -> float:
    return float(subject.plan.document["assumptions"]["usd_per_hour"])


def _bound_by(subject: Subject, row: Row) -> str:
    """The phase that takes most of a call, and the limit of the machine that it meets."""
    if not row["request_ms"] or not row["ttft_ms"]:
        return "what is not known"
    first = row["ttft_ms"] / row["request_ms"]
    mode, doing = ("prefill", "reading the prompt") if first > 0.5 else ("kv_decode", "generating")
    about = {name: row[name] for name in ("law", "model", "scenario")}
    limits = [each for each in subject.rows(PHYSICAL_LIMIT.name, mode=mode, **about) if each["wall"]]
    wall = "which limit of its machine that meets is not known"
    for limit in limits[:1]:
        share = percent(max(limit["bandwidth_share"], limit["compute_share"]), 0)
        wall = f"{_WALLS[limit['wall']]} ({share} of the nearest limit)"
    return f"{doing}, {percent(max(first, 1 - first), 0)} of a call: {wall}"


def lead(subject: Subject) -> list[str]:
    """The answer: a sentence a model, how the two compare, and what to add for laws; none with more models."""
    sentences = []
    for (law, model), mine in alike(rows(subject), "law", "model").items():
        said = (
            f"on {_PROMPT.text(row)} {_OF['tokens_per_s'].text(row)} tokens/s, the first after {digits(row['ttft_ms'])}"
            f" ms (p95 {digits(row['ttft_ms_p95'])}), at ${two_places(row['usd_per_1m'])} a million"
            for row in mine
        )
        sentences.append(f"{model} on {law} generates {'; '.join(said)}.")
    return [*sentences, *_closing(subject)] if sentences else []


def _closing(subject: Subject) -> Iterator[str]:
    """What the rows are bound by, how two models compare, what brackets and prices mean, what to add for laws."""
    found = rows(subject)
    for (bound,), mine in alike(found, "bound_by").items():
        yield f"Bound by {bound} ({', '.join(dict.fromkeys(row['model'] for row in mine))})."
    for (model, other), mine in alike(
        subject.ordered(MODELS_BY_PROMPT.name, mode="e2e_kv"), "model", "other_model"
    ).items():
        yield f"Whole calls of {model} against {other}: {'; '.join(map(_compared, mine))}."
    basis = str(found[0]["interval_basis"] or NOT_MEASURED)
    yield f"In brackets, {subject.analysis.options.level:.0%}: {basis}."
    yield f"Dollars: at ${_usd_per_hour(subject):g} an hour (assumed), one request at a time."
    lacking = FEWEST_OF_A_LAW - len({row["model"] for row in found})
    yield f"Laws in parameters need three models: add {lacking} more to the study."


def _compared(row: Row) -> str:
    """On one prompt, which is faster and whether that is real."""
    slower, ratio = row["ratio"] >= 1, row["ratio"]
    ends = sorted(end if slower else 1 / end for end in (row["ratio_low"], row["ratio_high"]) if end)
    times = f"{digits(ratio if slower else 1 / ratio)} x {'slower' if slower else 'faster'}"
    return f"{row['scenario']} {times} {[*map(digits, ends)]}, {row['verdict']}".replace("'", "").replace("[]", "")


def by_prompt(subject: Subject) -> Section | None:
    """A row a model and prompt; the two models against each other; clients; ``None`` with more models."""
    table = Table(
        caption="A row a model and prompt, one request at a time. tokens/s counts generated tokens over the whole "
        "call, from the send to the last token. TTFT is the wait for the first token; when cold, the slowest after a "
        "start or a load, the load included.",
        columns=(LAW, MODEL, *_WAITS, *_WHOLE[1:], col.words("bound_by", "bound by")),
    )
    others = (subject.table(MODELS_BY_PROMPT), _by_clients(subject, "backend model "))
    filled = (each for each in others if each.rows)
    found = rows(subject)
    return section("Each model and prompt", display(table, found), *filled) if found else None


def _by_clients(subject: Subject, who: str = "") -> document.Table:
    clients = subject.rows(CONCURRENCY_THROUGHPUT.name)
    return display(dataclasses.replace(CONCURRENCY_THROUGHPUT, shows=who + _BY_CLIENTS), clients)


def summary(subject: Subject) -> Sequence[Block]:
    """The same for a terminal, in narrow tables; empty with more models."""
    found, clients = rows(subject), subject.rows(CONCURRENCY_THROUGHPUT.name)
    if not found:
        return ()
    who = [column for column in (MODEL, LAW) if len({column.text(row) for row in found}) > 1]
    # One step's interval is that of the whole, nearly: where two models stand beside each other it takes too much room.
    step = dataclasses.replace(_OF["step_ms"], of_row=None, high="")
    whole = [step if column is _OF["step_ms"] and who else column for column in _WHOLE]
    tables = [display(Table(columns=(*who, *columns)), found) for columns in (_WAITS, whole)]
    named = () if who else (f"{found[0]['model']} on {found[0]['law']}:",)
    by_clients = [_by_clients(subject, "model " if who else "")] if clients else []
    return (*named, *tables, *by_clients, *served.at_once(clients), *_closing(subject))
