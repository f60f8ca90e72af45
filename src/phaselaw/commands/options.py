"""Options that several commands share, how their values are read, and how an answer is printed."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from phaselaw.engines import permits
from phaselaw.errors import UsageError

RUNS = "a run directory or a metrics.csv; several of one study on one host are pooled"


def print_json(document: Any, indent: int | None = None) -> None:
    """One JSON document on stdout; raises ValueError for NaN and infinities, which JSON has not."""
    print(json.dumps(document, allow_nan=False, indent=indent))


def answer(as_json: bool, document: Any, lines: Iterable[str], indent: int | None = None) -> None:
    """What a command found, on stdout: one JSON document, or lines to read."""
    if as_json:
        print_json(document, indent)
    else:
        for line in lines:
            print(line)


def option(parser: argparse._ActionsContainer, name: str, metavar: str | None, help_text: str, **how: Any) -> None:
    """Add an option, or an argument, that takes a value."""
    parser.add_argument(name, metavar=metavar, help=help_text, **how)


def switch(parser: argparse._ActionsContainer, name: str, help_text: str) -> None:
    """Add an option that is on where it is given."""
    parser.add_argument(name, action="store_true", help=help_text)


def add_runs(parser: argparse._ActionsContainer, help_text: str = RUNS) -> None:
    """One run or several."""
    option(parser, "run_paths", "RUN", help_text, type=a_path, nargs="+")


def add_json(parser: argparse._ActionsContainer, help_text: str = "print one JSON document, full precision") -> None:
    """``--json``."""
    switch(parser, "--json", help_text)


def add_level(parser: argparse._ActionsContainer, of: str = "the intervals") -> None:
    """``--level``."""
    share = number("--level", "a share between 0 and 1", lambda value: 0 < value < 1)
    option(parser, "--level", "P", f"level of {of} (default: 0.95)", type=share, default=0.95)


def add_cold_start_slo(parser: argparse._ActionsContainer) -> None:
    """``--cold-start-slo``."""
    ms = number("--cold-start-slo", "milliseconds, 0 or more", lambda value: 0 <= value < math.inf)
    option(parser, "--cold-start-slo", "MS", "what a first call may add (default: 100 ms)", type=ms, default=100.0)


def add_models_table(parser: argparse._ActionsContainer) -> None:
    """``--models-table``."""
    option(parser, "--models-table", "CSV", "architecture of models whose config is absent", type=a_path)


def add_allow_different(
    parser: argparse._ActionsContainer, help_text: str = "pool runs although their study or host differs, with a note"
) -> None:
    """``--allow-different``."""
    switch(parser, "--allow-different", help_text)


def add_permits(parser: argparse._ActionsContainer) -> None:
    """``--allow-key`` and ``--allow-programs``: what a study, which is code, may do beyond what it surely may."""
    what = "send the key that the study names to this host; asked for where that is not sure to be meant"
    option(parser, "--allow-key", "HOST", what, action="append", default=[])
    switch(parser, "--allow-programs", "let the study start servers outside of PATH, such as ./llama-server")


def take_permits(args: argparse.Namespace) -> None:
    """Allow what the command line does."""
    settings = getattr(args, "settings", [])
    permits.allow(key_hosts=args.allow_key, settings=settings, programs=args.allow_programs)


def number(option: str, give: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """What reads a number; raises `UsageError`, saying what to ``give``, where it is not accepted."""

    def read(text: str) -> float:
        value = amount(text)
        if not accepts(value):
            raise UsageError(f"{option} {text}: give {give}")
        return value

    return read


_TIMES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def amount(text: str) -> float:
    """A number as people write it: ``1e9``, ``20k``, ``1B``, ``1,000,000``, ``70%``; NaN where it is none."""
    found = re.fullmatch(r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?) ?([kmbt%]?)", _without_commas(text).lower())
    try:
        if found is None:
            return math.nan
        return float(found[1]) / 100 if found[2] == "%" else float(found[1]) * _TIMES[found[2]]
    except ValueError:
        return math.nan


def _without_commas(text: str) -> str:
    """``1,000,000`` as ``1000000``; commas that group nothing stay, and make it no number."""
    grouped = re.fullmatch(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?[^0-9,]*", text.strip())
    return text.strip().replace(",", "") if grouped else text.strip()


def share(option: str) -> Callable[[str], float]:
    """What reads a share: ``0.7`` or ``70%``."""
    return number(option, "a share, such as 0.7 or 70%", lambda value: not math.isnan(value))


def positive_number(option: str) -> Callable[[str], float]:
    """What reads an option that is a number above 0."""
    return number(option, "a positive number", lambda value: 0 < value < math.inf)


def duration(option: str) -> Callable[[str], float]:
    """What reads a time such as ``90s``, ``5min`` or ``1h`` as seconds; raises `UsageError`."""

    def read(text: str) -> float:
        found = re.fullmatch(r"([0-9]{1,6}) ?(ms|s|min|h)?", text.strip())
        if found is None:
            raise UsageError(f"{option} {text}: give a time, as in 500ms, 90s, 5min or 1h")
        return int(found[1]) * {"ms": 1e-3, "s": 1.0, None: 1.0, "min": 60.0, "h": 3600.0}[found[2]]

    return read


def a_path(text: str) -> Path:
    """The value of an option that is a path."""
    if not text:  # Path("") is the current folder, which nobody asked for
        raise UsageError("a path is empty (''); give the name of a file or folder, or . for this folder")
    return Path(text)


def positive(text: str) -> int:
    """The value of an option that counts things: 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give a number from 1 on")
    return value


def names(text: str) -> tuple[str, ...]:
    """``A,B`` as its parts."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def chosen(option: str, wanted: tuple[str, ...] | None, known: list[str]) -> list[str]:
    """The names that were asked for, all that are ``known`` for ``None``; raises `UsageError` for one that is not.

    A model of the ladder goes by its short name too.
    """
    full = {name.removeprefix("models/"): name for name in known} | {name: name for name in known}
    for name in wanted or ():
        if name not in full:
            raise UsageError(f"{option} {name}: not in this run; it has: {', '.join(known)}")
    return known if wanted is None else [full[name] for name in wanted]
