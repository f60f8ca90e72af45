"""What a person gives to a plan: kinds of request, success rates, hourly rates, volumes; TR121's are the defaults."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import special

from phaselaw.errors import UsageError
from phaselaw.files import amount, plain_text
from phaselaw.laws.rates import evenly, same_draws
from phaselaw.laws.regression import Floats
from phaselaw.records import LARGEST, Mix

TR121_MIXES = (
    Mix(name="chat_default", prompt_tokens=256, output_tokens=128),
    Mix(name="agent_tool_step", prompt_tokens=512, output_tokens=32),
    Mix(name="codegen_medium", prompt_tokens=512, output_tokens=1024),
    Mix(name="long_context_summary", prompt_tokens=2048, output_tokens=256),
)
"""TR121's four kinds of request (8.3.3)."""
TR121_TIERS = {"on-demand": 1.006, "spot": 0.302, "reserved 1 y": 0.704, "reserved 3 y": 0.503}
"""Dollars an hour: TR121 8.5, and the one-year reservation of its predecessor TR119."""
TR121_VOLUMES = (1e8, 1e9, 1e10)
"""Tokens a month (TR121 8.5)."""


CURRENCIES = {"USD": "$", "EUR": "€", "GBP": "£", "INR": "₹"}
CURRENCIES |= {code: f"{code} " for code in ("JPY", "CNY", "CHF", "SEK")}
"""What amounts of money may be in, each with the mark that stands before an amount."""


def currency_in(text: str) -> str | None:
    """The currency that a text names, by code or mark; ``None`` where it names none."""
    return next((code for code, mark in CURRENCIES.items() if code in text.upper() or mark in text.upper()), None)


def money(text: str) -> tuple[float, str | None]:
    """An amount with its currency where it has one: ``1.006``, ``$1,024``, ``0.9 EUR``; NaN where it can't be read."""
    code, bare = currency_in(text), text.upper()
    for mark in (code, CURRENCIES[code]) if code else ():
        bare = bare.replace(mark, "")
    return amount(bare), code


def read_prices(text: str, option: str, give: str) -> Iterator[tuple[str, float, str | None]]:
    """Names, empty where there is none, hourly prices and their currency: ``spot=0.302,1.006``; raises `UsageError`."""
    for part in [text] if money(text)[0] >= 0 else text.split(","):
        name, _, value = part.rpartition("=")
        usd, currency = money(value)
        if not 0 < usd < LARGEST:
            raise UsageError(f"{option} {part!r}: give {give}")
        yield name.strip(), usd, currency


RATES = "NAME=USD, such as spot=0.302"


def read_tiers(text: str) -> dict[str, float]:
    """The hourly rates of ``--rates``; one without a name goes by its price. Raises `UsageError`."""
    named = [(name or f"{usd:g}", usd) for name, usd, _ in read_prices(text, "--rates", RATES)]
    if len(found := dict(named)) < len(named):
        raise UsageError(f"--rates {text!r}: one is there twice; give {RATES}")
    return found


def read_volumes(text: str) -> tuple[float, ...]:
    """Monthly token volumes as typed: ``100M,1e9``; raises `UsageError`."""
    found = tuple(map(amount, [text] if amount(text) >= 0 else text.split(",")))
    if not all(0 < volume < LARGEST for volume in found):
        raise UsageError(f"--volumes {text!r}: give tokens a month, such as 100M,1e9, each below 1e18")
    return found


def read_mixes(path: Path) -> tuple[Mix, ...]:
    """Kinds of request from a CSV: ``name, prompt_tokens, output_tokens`` and, where wanted, ``share``.

    Raises `UsageError` naming file, line and column.
    """
    found: dict[str, Mix] = {}
    lengths = ("prompt_tokens", "output_tokens")
    for where, row in read_table(path, ("name", *lengths)):
        given = (*lengths, "share") if row.get("share") else lengths
        numbers = {column: _number(row, column, where) for column in given}
        mix = Mix(name=row["name"], **numbers)
        if mix.tokens <= 0 or mix.share <= 0:
            raise UsageError(f"{where}: a kind of request has tokens, and a share above 0")
        if mix.name in found:
            raise UsageError(f"{path}: two kinds of request have one name")
        found[mix.name] = mix
    if not found:
        raise UsageError(f"{path}: no kinds of request in it")
    return tuple(found.values())


def read_success_rates(path: Path, known: set[str]) -> dict[str, Floats]:
    """Success rates by model from a CSV: ``model, success_rate`` and, where counted, ``n`` (requests tried).

    With ``n`` the draws are Jeffreys' for a share, Beta(s + 1/2, n - s + 1/2). Raises `UsageError` naming file, line
    and column, also for a model that is not among the ``known``.
    """
    rates: dict[str, Floats] = {}
    for at, (where, row) in enumerate(read_table(path, ("model", "success_rate"))):
        model, rate = row["model"], _number(row, "success_rate", where)
        if rate > 1:
            raise UsageError(f"{where}: success_rate {rate:g}: give a share from 0 to 1")
        if model not in known:
            raise UsageError(f"{where}: model {model!r} is not in this run; it has: {', '.join(sorted(known))}")
        if model in rates:
            raise UsageError(f"{where}: model {model!r} is there twice")
        rates[model] = np.array([rate])
        if row.get("n"):
            n = _number(row, "n", where)
            rates[model] = same_draws(rate, special.betaincinv(rate * n + 0.5, (1 - rate) * n + 0.5, evenly(at)))
    return rates


def read_table(path: Path, required: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Rows of a small CSV, each with its place (``FILE:LINE``), names of columns in lower case; raises `UsageError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = []
            for row in reader:
                many = max((str(cell).strip().count("\n") for cell in row.values()), default=0)
                if many:
                    raise UsageError(f"{path}:{reader.line_num - many}: an open quote, or a cell of many lines")
                cells = {key: plain_text((cell or "").strip()) for key, cell in row.items() if key}
                rows.append((f"{path}:{reader.line_num}", cells))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "no CSV in UTF-8"
        raise UsageError(f"{path}: can't be read ({reason})") from None
    if missing := [name for name in required if name not in names]:
        raise UsageError(f"{path}:1: column(s) missing: {', '.join(missing)}; it needs {', '.join(required)}")
    return rows


def _number(row: dict[str, str], column: str, where: str) -> float:
    """A cell that must be a number of at least 0, below 1e18; raises `UsageError`."""
    value = amount(row[column])
    if not 0 <= value < LARGEST:
        raise UsageError(f"{where}: {column} {row[column]!r} is no number of 0 or more")
    return value
