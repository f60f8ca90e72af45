"""Which column of a request log means what: by the names in ``shapes.toml``, or by those that a person gives.

Names are compared in lower case and without anything but letters and digits; a nested or dotted field is known by its
path or any end of it (``usage.prompt_tokens``, ``gen_ai.usage.input_tokens``). A unit may end a time's name.
"""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from phaselaw.errors import UsageError

TIMESTAMP, PROMPT, OUTPUT, CACHED, WRITTEN = "timestamp", "prompt_tokens", "output_tokens", "cached", "cache_written"
TTFT, FIRST_AT, E2E, ENDED_AT, CLOCK = "ttft", "first_at", "e2e", "ended_at", "clock"
BATCH, WORKER, AGE, IDLE, COLD, WARM, MODEL = "batch_size", "worker", "worker_age", "idle", "cold", "warm", "model"
BUCKET = "requests"
DURATIONS = (TTFT, E2E, AGE, IDLE)
TIMED = (TIMESTAMP, FIRST_AT, ENDED_AT, *DURATIONS)

SHAPES: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("shapes.toml").read_text(encoding="utf-8"))
KNOWN: Mapping[str, list[str]] = {meaning: names.split() for meaning, names in SHAPES["names"].items()}
UNITS: Mapping[str, float] = SHAPES["units"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The field of each meaning, and what is known of its unit."""

    names: Mapping[str, str]
    seconds: Mapping[str, float]
    """Seconds in one unit of the times whose name or shape says it."""
    shape: Mapping[str, Any]
    """What ``shapes.toml`` says of a known log; empty of another."""
    endings: tuple[tuple[Mapping[str, Any], str], ...]
    """Each field that says how a request ended, with the words that say so."""
    cached_apart: bool
    """Whether the prompt's count leaves out what the cache gave."""
    at_end: bool
    """Whether the timestamp is when a request ended."""


def plain(name: str) -> str:
    """A name as it is compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def recognise(found: Iterable[str], asked: Mapping[str, str]) -> Columns:
    """The columns of a log whose fields are ``found``; ``asked`` names some by meaning, exactly.

    Raises `UsageError` where a name that was asked for is not there, is there twice, or no times or lengths are found.
    """
    fields = list(found)
    if twice := sorted({field for field in fields if field and fields.count(field) > 1}):
        raise UsageError(f"two columns are called {twice[0]!r}: give each its own name")
    ends: dict[str, list[tuple[int, str]]] = {}
    for field in fields:
        parts = [part for part in field.split(".") if part != "value"][-20:]
        for at in range(len(parts)):
            ends.setdefault(plain("".join(parts[at:])), []).append((at, field))
    for refused in SHAPES["refused"]:
        if set(refused["fields"].split()) <= set(ends):
            raise UsageError(refused["why"])
    names: dict[str, str] = {}
    for meaning, name in asked.items():
        if name not in fields:
            raise UsageError(f"no column {name!r} in the log; it has: {', '.join(map(_inert, fields))}")
        names[meaning] = name
    for meaning in KNOWN:
        if meaning not in names and meaning != CLOCK:
            known = _known(meaning, ends, {*names.values()})
            names |= {} if known is None else {meaning: known}
    at_end = TIMESTAMP not in names and ENDED_AT in names
    if at_end:
        names[TIMESTAMP] = names.pop(ENDED_AT)
    if plain(names.get(TIMESTAMP, "")) in ("date", "day", "time") and TIMESTAMP not in asked and "date" in ends:
        names[TIMESTAMP] = ends["date"][0][1]
        clock = _known(CLOCK, ends, {names[TIMESTAMP]})
        names |= {} if clock is None else {CLOCK: clock}
    for meaning, what in ((TIMESTAMP, "timestamps"), (PROMPT, "lengths of prompts"), (OUTPUT, "lengths of answers")):
        if meaning not in names:
            raise UsageError(_missing(meaning, what, fields))
    shape: Mapping[str, Any] = next(
        (shape for shape in SHAPES["shape"] if set(shape["fields"].split()) <= set(ends)), {}
    )
    units = {meaning: _unit(meaning, names[meaning]) for meaning in TIMED if meaning in names}
    seconds = {meaning: unit for meaning, unit in units.items() if unit is not None}
    last = {meaning: plain(name.rsplit(".", 1)[-1]) for meaning, name in names.items()}
    apart, without = (SHAPES["prompt"][key].split() for key in ("cached_apart", "without_cached"))
    return Columns(
        names=names,
        seconds=shape.get("durations", {}) | seconds,
        shape=shape,
        endings=tuple(
            (ending, field)
            for ending in SHAPES["ending"]
            for name in ending["names"].split()
            for _, field in ends.get(name, [])
        ),
        cached_apart=last.get(CACHED) in apart and last[PROMPT] in without,
        at_end=at_end,
    )


def _known(meaning: str, ends: Mapping[str, list[tuple[int, str]]], used: set[str]) -> str | None:
    """The likeliest field of a meaning: by its whole name first, then by the end of its path."""
    units = ("", *UNITS) if meaning in TIMED else ("",)
    for whole in (True, False):
        for known in KNOWN[meaning]:
            for unit in units:
                hits = [hit for hit in ends.get(known + unit, []) if hit[1] not in used and (not whole or hit[0] == 0)]
                nearest = [field for depth, field in hits if depth == min(hits)[0]]
                if len(nearest) > 1 and meaning in (TIMESTAMP, PROMPT, OUTPUT):
                    option = f"--{meaning.replace('_', '-')}-column"
                    raise UsageError(f"{' and '.join(nearest)}: both may be the {meaning}: say which with {option}")
                if nearest:
                    return nearest[0]
    return None


def _unit(meaning: str, name: str) -> float | None:
    """Seconds in a unit that ends a time's name; ``None`` where it ends in none."""
    last = name.removesuffix(".value").rsplit(".", 1)[-1]
    for unit in sorted(UNITS, key=len, reverse=True) if plain(last) not in KNOWN[meaning] else ():
        if plain(last).endswith(unit) and plain(last)[: -len(unit)] in KNOWN[meaning]:
            return UNITS[unit]
    ending = re.search(r"[_. (]([a-z]+)\)?$", last.lower()) or re.search(r"[a-z](Ms|Us|Ns|Nano|Nanos|Millis)$", last)
    return UNITS.get(ending[1].lower()) if ending else None


def _inert(name: str) -> str:
    """A name as a terminal may show it, or its beginning."""
    return name[:80] if name[:80].isprintable() else repr(name[:80])


def _missing(meaning: str, what: str, fields: list[str]) -> str:
    """That a meaning was not found, the columns that there are, and those whose names come nearest."""
    near = {
        field: max(SequenceMatcher(None, plain(field[-80:].rsplit(".", 1)[-1]), n).ratio() for n in KNOWN[meaning])
        for field in fields[:400]
    }
    guesses = [field for field in sorted(near, key=lambda field: -near[field])[:3] if near[field] >= 0.6]
    nearest = f"; nearest: {', '.join(map(_inert, guesses))}" if guesses else ""
    columns = ", ".join(map(_inert, fields[:40])) + (f" and {len(fields) - 40} more" if len(fields) > 40 else "")
    option = f"--{meaning.replace('_', '-')}-column"
    return f"no {what} are known among the columns {columns or '(none)'}{nearest}: name them with {option}"
