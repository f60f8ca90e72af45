"""Requests: what they are made of, and what a thousand of them cost when every token costs the same (TR121 8.3.2-3)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from phaselaw.errors import UsageError
from phaselaw.files import plain_text
from phaselaw.laws.regression import Floats
from phaselaw.plan.capacity import SECONDS_PER_MONTH
from phaselaw.records import Mix

TR121_MIXES = (
    Mix(name="chat_default", prompt_tokens=256, output_tokens=128),
    Mix(name="agent_tool_step", prompt_tokens=512, output_tokens=32),
    Mix(name="codegen_medium", prompt_tokens=512, output_tokens=1024),
    Mix(name="long_context_summary", prompt_tokens=2048, output_tokens=256),
)
"""TR121's four (8.3.3)."""


def mean_tokens(mixes: Sequence[Mix]) -> float:
    """Tokens of the average request of a mixture."""
    return sum(mix.share * mix.tokens for mix in mixes) / sum(mix.share for mix in mixes)


def usd_per_thousand_requests(usd_per_1m: Floats, tokens_per_request: float) -> Floats:
    """``$/1M x tokens / 1000``: TR121's token-linear price, a prompt token at the price of a generated one."""
    return usd_per_1m * tokens_per_request / 1000.0


def requests_per_s(tokens_per_s: Floats, tokens_per_request: float) -> Floats:
    """Requests a second that a worker serves, token-linear."""
    return tokens_per_s / tokens_per_request


def tokens_per_month(requests_per_s: float, tokens_per_request: float) -> float:
    """Tokens a month of a request rate."""
    return requests_per_s * SECONDS_PER_MONTH * tokens_per_request


def read_mixes(path: Path) -> tuple[Mix, ...]:
    """Kinds of request from a CSV: ``name, prompt_tokens, output_tokens`` and, where wanted, ``share``.

    Raises `UsageError` naming file, line and column.
    """
    found = []
    for line, row in read_table(path, ("name", "prompt_tokens", "output_tokens")):
        where = f"{path}:{line}"
        mix = Mix(
            name=row["name"],
            prompt_tokens=number(row, "prompt_tokens", where),
            output_tokens=number(row, "output_tokens", where),
            share=number(row, "share", where) if row.get("share") else 1.0,
        )
        if mix.tokens <= 0 or mix.share <= 0:
            raise UsageError(f"{where}: a kind of request has tokens, and a share above 0")
        found.append(mix)
    if not found:
        raise UsageError(f"{path}: no kinds of request in it")
    if len({mix.name for mix in found}) < len(found):
        raise UsageError(f"{path}: two kinds of request have one name")
    return tuple(found)


def read_table(path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a small CSV with their line numbers, names of columns in lower case; raises `UsageError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = [
                (reader.line_num, {key: plain_text((value or "").strip()) for key, value in row.items() if key})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "no CSV in UTF-8"
        raise UsageError(f"{path}: can't be read ({reason})") from None
    missing = [name for name in required if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"{path}:1: column(s) missing: {', '.join(missing)}; it needs {', '.join(required)}")
    return rows


def number(row: dict[str, str], column: str, where: str) -> float:
    """A cell that must be a finite number of at least 0; raises `UsageError`."""
    try:
        value = float(row[column])
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{where}: {column} {row[column]!r} is no number of 0 or more")
    return value
