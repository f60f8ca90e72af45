"""Options that several commands share, how their values are read, and how an answer is printed."""

import argparse
import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from phaselaw.engines import permits
from phaselaw.errors import UsageError, meant
from phaselaw.files import amount
from phaselaw.records import LARGEST

_BARE = r"[-+0-9.,]+(?:e[-+]?[0-9]+)?"
"""The form of a number without a magnitude, since ``m`` behind a time would be taken for minutes."""
RUNS = "a run directory, a folder of runs gen_N, or a metrics.csv; several of one study on one host are pooled"


def print_json(document: Any, indent: int | None = None) -> None:
    """One JSON document on stdout; raises ValueError for NaN and infinities, which JSON has not."""
    print(json.dumps(document, allow_nan=False, indent=indent))


def answer(as_json: bool, document: Any, lines: Iterable[str], indent: int | None = None) -> None:
    """What a command found, on stdout: one JSON document, or lines to read."""
    if as_json:
        print_json(document, indent)
    else:
        print_lines(lines)


def print_lines(lines: Iterable[str]) -> None:
    """Lines on stdout; on a terminal what is too long for one goes on below the text beside its label."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else LARGEST
    for line in "\n".join(lines).split("\n"):
        indent, label = re.findall(r"( *)(.{0,30}?\S {2,}(?=\S))?", line)[0]
        below = " " * len(indent + (label or "  "))
        print(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=below))


Parser = argparse._ActionsContainer
Reader = Callable[[str, str], Any]
"""Reads a value of an option; its first argument is the option's name, for the `UsageError` it raises."""


def option(parser: Parser, name: str, metavar: str | None, text: str, read: Reader | None = None, **how: Any) -> None:
    """Add an option, or an argument, that takes a value."""
    how |= {"type": partial(read, name)} if read else {}
    parser.add_argument(name, metavar=metavar, help=text, **how)


def add_count(parser: Parser, name: str, help_text: str, *, least: int = 1, **how: Any) -> None:
    """Add an option that counts things: ``8``, ``20k``."""
    whole = number(f"a whole number, {least} or more", lambda value: least <= value < LARGEST and value.is_integer())
    option(parser, name, how.pop("metavar", "N"), help_text, lambda *given: int(whole(*given)), **how)


def switch(parser: Parser, name: str, help_text: str) -> None:
    """Add an option that is on where it is given."""
    parser.add_argument(name, action="store_true", help=help_text)


def add_runs(parser: Parser) -> None:
    option(parser, "run_paths", "RUN", RUNS, type=a_path, nargs="+")


def add_json(parser: Parser, help_text: str = "print one JSON document, full precision") -> None:
    switch(parser, "--json", help_text)


def add_level(parser: Parser, of: str = "the intervals") -> None:
    between = number("a share between 0 and 1", lambda value: 1e-10 <= value <= 1 - 1e-10)
    option(parser, "--level", "P", f"level of {of} (default: 0.95)", between, default=0.95)


def add_cold_start_slo(parser: Parser) -> None:
    ms = number("milliseconds, 0 or more", lambda value: 0 <= value < LARGEST, form=_BARE)
    option(parser, "--cold-start-slo", "MS", "what a first call may add (default: 100 ms)", ms, default=100.0)


def add_models_table(parser: Parser) -> None:
    option(parser, "--models-table", "CSV", "architecture of models whose config is absent", type=a_path)


def add_allow_different(
    parser: Parser, help_text: str = "pool runs although their study or host differs, with a note"
) -> None:
    switch(parser, "--allow-different", help_text)


def add_permits(parser: Parser) -> None:
    """``--allow-key`` and ``--allow-programs``: what a study, which is code, may do beyond what it surely may."""
    what = "send the key that the study names to this host; asked for where that is not sure to be meant"
    option(parser, "--allow-key", "HOST", what, action="append", default=[])
    switch(parser, "--allow-programs", "let the study start servers outside of PATH, such as ./llama-server")


def take_permits(args: argparse.Namespace) -> None:
    permits.allow(key_hosts=args.allow_key, settings=getattr(args, "settings", []), programs=args.allow_programs)


def number(give: str, accepts: Callable[[float], bool], form: str = ".*") -> Reader:
    """What reads a number; raises `UsageError`, saying what to ``give``, where it is not accepted."""

    def read(option: str, text: str) -> float:
        value = amount(text) if re.fullmatch(form, text) else math.nan
        if not accepts(value):
            raise UsageError(f"{option} {text}: give {give}")
        return value

    return read


share = number("a share, such as 0.7 or 70%", lambda value: 0 <= value <= 1)


def duration(option: str, text: str) -> float:
    """A time such as ``90s``, ``5min`` or ``1h`` as seconds; raises `UsageError`."""
    found = re.fullmatch(rf"({_BARE}) ?(ms|s|min|h|)", text.strip())
    value = amount(found[1]) if found else math.nan
    if found is None or not 0 <= value < 1e6:
        raise UsageError(f"{option} {text}: give a time, as in 500ms, 90s, 5min (not 5m) or 1h")
    return value * {"ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}[found[2]]


def size(text: str) -> float:
    """``16GB`` (1e9) or ``16GiB`` (2^30) in bytes; a bare number is refused, since 16 of what is not said."""
    found = re.fullmatch(r"(.*?[\d.])\s*(?:B|([KMGT])(I?)B?)", text.strip().upper())
    value = amount(found[1]) if found else math.nan
    if text.strip() == "0":
        return 0.0
    if found is None or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 16GB or 16GiB")
    power = "KMGT".index(found[2]) + 1 if found[2] else 0
    return value * (1024.0 if found[3] else 1000.0) ** power


def a_path(text: str) -> Path:
    if not text:  # Path("") is the current folder, which nobody asked for
        raise UsageError("a path is empty (''); give the name of a file or folder, or . for this folder")
    return Path(text)


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
            raise UsageError(f"{option} {name}: not in this run; it has: {', '.join(known)}{meant(name, list(full))}")
    return known if wanted is None else [full[name] for name in wanted]
