"""Which column of a request log means what: common names, and the names that a person gives.

Known are the logs of Azure's LLM traces, BurstGPT, Mooncake and LiteLLM, vLLM's and OpenAI's usage fields, and plain
words. Names are compared in lower case and without anything but letters and digits; a nested field is known by its path
(``usage.prompt_tokens``) or its last part.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from phaselaw.errors import UsageError

TIMESTAMP, PROMPT, OUTPUT = "timestamp", "prompt_tokens", "output_tokens"
TTFT, FIRST_TOKEN_AT, E2E, ENDED_AT = "ttft", "first_token_at", "e2e", "ended_at"
BATCH, WORKER, AGE, IDLE, COLD, WARM, MODEL = "batch_size", "worker", "worker_age", "idle", "cold", "warm", "model"

_WORDS = {
    TIMESTAMP: "timestamp time ts datetime arrivaltime arrivedat arrival arrivaltimestamp starttime startedat "
    "startedatunix requesttime requeststarttime requeststart requestedat createdat created sentat date",
    PROMPT: "contexttokens prompttokens inputtokens requesttokens usageprompttokens usageinputtokens inputlength "
    "inputlen promptlength promptlen numprompttokens nprompttokens numinputtokens inputsequencelength isl "
    "promptevalcount promptn",
    OUTPUT: "generatedtokens completiontokens outputtokens responsetokens usagecompletiontokens usageoutputtokens "
    "outputlength outputlen generationtokens numgenerationtokens numgeneratedtokens numcompletiontokens "
    "numoutputtokens ngeneratedtokens outputsequencelength osl evalcount predictedn",
    TTFT: "ttft timetofirsttoken firsttokenlatency firsttokentime",
    FIRST_TOKEN_AT: "completionstarttime firsttokenat firsttokentimestamp",
    E2E: "latency e2elatency e2e e2erequestlatency requestlatency totallatency duration requestduration totaltime "
    "responsetime elapsedtime elapsed",
    ENDED_AT: "endtime endedat completedat finishedat finishtime",
    BATCH: "batchsize batch numrunning runningrequests concurrency",
    WORKER: "worker workerid replica pod instance host hostname",
    AGE: "workerage workeruptime uptime",
    IDLE: "idle idletime sincelastrequest timesincelastrequest",
    COLD: "cold coldstart iscold loadstatus",
    WARM: "warm modelloaded modelwasloaded loaded",
    MODEL: "model modelname modelgroup",
}
KNOWN: Mapping[str, list[str]] = {meaning: names.split() for meaning, names in _WORDS.items()}
"""What each meaning is called, the likeliest first."""

_UNITS = (
    dict.fromkeys(("ms", "millis", "milliseconds"), 1e-3)
    | dict.fromkeys(("us", "microseconds"), 1e-6)
    | {"ns": 1e-9}
    | dict.fromkeys(("sec", "secs", "seconds", "s"), 1.0)
)
"""Endings of a duration's name, and seconds in one of its units."""

DURATIONS = (TTFT, E2E, AGE, IDLE)
RELATIVE_MS = frozenset({"inputlength", "outputlength"})
"""Mooncake's names: a log that has both counts its timestamps in ms from its start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The column of each meaning, and the seconds in one unit of each duration."""

    names: Mapping[str, str]
    seconds: Mapping[str, float]
    relative_ms: bool = False
    """Whether timestamps that are no dates are ms."""


def plain(name: str) -> str:
    """A name as it is compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def recognise(found: Iterable[str], asked: Mapping[str, str], *, duration_unit: str = "s") -> Columns:
    """The columns of a log whose fields are ``found``; ``asked`` names some by meaning, exactly.

    Raises `UsageError` where a name that was asked for is not there, or no timestamps are.
    """
    fields = list(dict.fromkeys(found))
    names: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for meaning in KNOWN:
        name = asked.get(meaning) or _known(meaning, fields)
        if name is None:
            continue
        if name not in fields:
            raise UsageError(f"no column {name!r} in the log; it has: {', '.join(fields)}")
        names[meaning] = name
        if meaning in DURATIONS:
            seconds[meaning] = _unit(meaning, name) or _UNITS[duration_unit]
    if TIMESTAMP not in names:
        raise UsageError(
            f"no column of timestamps is known among {', '.join(fields) or 'none'}: name it with --timestamp-column"
        )
    both = {plain(names.get(PROMPT, "")), plain(names.get(OUTPUT, ""))}
    return Columns(names=names, seconds=seconds, relative_ms=both == RELATIVE_MS)


def _known(meaning: str, fields: list[str]) -> str | None:
    """The likeliest field of a meaning: by its whole name first, then by its last part; times with their unit."""
    for of in (plain, lambda name: plain(name.rsplit(".", 1)[-1])):
        by_name: dict[str, str] = {}
        for field in fields:
            by_name.setdefault(of(field), field)
        for known in KNOWN[meaning]:
            for unit in ("", *_UNITS) if meaning in (*DURATIONS, TIMESTAMP) else ("",):
                if known + unit in by_name:
                    return by_name[known + unit]
    return None


def _unit(meaning: str, name: str) -> float | None:
    """Seconds in a unit that ends a duration's name; ``None`` where it ends in none."""
    by_name = {known + unit: seconds for known in KNOWN[meaning] for unit, seconds in _UNITS.items()}
    ending = re.search(r"[_. (]([a-z]+)\)?$", name.lower())
    return by_name.get(plain(name.rsplit(".", 1)[-1])) or (_UNITS.get(ending[1]) if ending else None)
