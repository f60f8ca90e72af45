"""Reading request logs of any size: CSV or JSON lines, plain or gzipped, a chunk at a time.

A row that can't be read is counted and its line kept for the report, not fatal. Lines are those of the file.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime as dt
import gzip
import io
import json
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import numpy as np

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.laws.regression import Floats
from phaselaw.traffic import columns as names
from phaselaw.traffic.columns import Columns, recognise

CHUNK = 50_000
"""Rows read at once."""
LONGEST_CELL = 2**24
"""Characters of a cell: a log may carry whole prompts, but an open quote must not take the whole file for one."""
SHOWN_FAULTS = 5
MOST_TOKENS = 2**22
"""Tokens of a request that are believed: no model takes more."""

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NUMBERS = {
    names.PROMPT: "prompt_tokens",
    names.OUTPUT: "output_tokens",
    names.TTFT: "ttft_s",
    names.E2E: "e2e_s",
    names.BATCH: "batch_size",
    names.AGE: "worker_age_s",
    names.IDLE: "idle_s",
}
"""Meanings that are numbers, and their names in `Requests`."""
_TIMES = (names.TIMESTAMP, names.FIRST_TOKEN_AT, names.ENDED_AT)
_COLD_WORDS = {"cold", "true", "yes", "1", "1.0", "loading"}
_WARM_WORDS = {"warm", "true", "yes", "1", "1.0", "loaded", "hot"}
_ABSENT = {"", "none", "null", "nan"}


@dataclasses.dataclass
class Faults:
    """Rows that could not be read."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)
    """``line 17: why``, of the first few."""

    def add(self, line: int, why: str) -> None:
        """Count one row."""
        self.count += 1
        if len(self.first) < SHOWN_FAULTS:
            self.first.append(f"line {line}: {why}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Requests:
    """A chunk of requests, one value each; NaN where the log lacks it."""

    sent_at: Floats
    """Seconds since 1970, or since whatever the log counts from."""
    prompt_tokens: Floats
    output_tokens: Floats
    ttft_s: Floats
    e2e_s: Floats
    batch_size: Floats
    worker_age_s: Floats
    idle_s: Floats
    cold: Floats
    """1 where the log calls it a cold start, 0 where a warm one."""
    worker: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a log is read; every choice that was not made is found out."""

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Column names by meaning (`phaselaw.traffic.columns`)."""
    timestamp_unit: str | None = None
    """Of timestamps that are numbers: ``s``, ``ms``, ``us`` or ``ns``."""
    duration_unit: str = "s"
    """Of durations whose column does not name it."""
    model: str | None = None
    """Only this model's rows."""


class Log:
    """A request log that is open for reading; ``faults`` and ``timestamps`` are known once it was read."""

    def __init__(self, path: Path, reading: Reading, progress: Callable[[int], None] | None = None) -> None:
        self._path, self._reading, self._progress = path, reading, progress
        self.faults = Faults()
        self.columns: Columns | None = None
        self.timestamps = ""
        """How timestamps were understood, in words."""
        self._unit: float | None = None if reading.timestamp_unit is None else UNITS[reading.timestamp_unit]

    def __iter__(self) -> Iterator[Requests]:
        """The requests in the file's order, in chunks.

        Raises `AnalysisError` where the file can't be read, and `UsageError` where its columns are not known.
        """
        self.faults = Faults()
        try:
            with self._path.open("rb") as raw, _text(raw) as text:
                for lines, records in self._chunks(text):
                    if self._progress is not None:
                        self._progress(raw.tell())
                    if lines:
                        yield self._requests(lines, records)
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise AnalysisError(f"{self._path}: can't be read: {reason}") from None

    def _chunks(self, text: TextIO) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
        """Line numbers and, by meaning, the raw values of some rows."""
        first = _first_line(text)
        source = chain([first] if first else [], text)
        if first.lstrip().startswith("{"):
            yield from self._json_chunks(source)
        elif first.lstrip().startswith("["):
            raise AnalysisError(f"{self._path}: one JSON array: give JSON lines, one request a line")
        else:
            yield from self._csv_chunks(source, first)

    def _known(self, fields: Sequence[str]) -> Columns:
        if self.columns is None:
            asked = self._reading.columns
            self.columns = recognise(fields, asked, duration_unit=self._reading.duration_unit)
            if self._reading.model is not None and names.MODEL not in self.columns.names:
                raise UsageError("--model: the log has no column that names the model")
        return self.columns

    def _csv_chunks(self, source: Iterator[str], first: str) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
        delimiter = max(",;\t", key=first.count)
        csv.field_size_limit(LONGEST_CELL)
        reader = csv.reader(source, delimiter=delimiter, skipinitialspace=True)
        fields = [name.strip() for name in next(reader, [])]
        columns = self._known(fields).names
        at = {meaning: fields.index(name) for meaning, name in columns.items()}
        width = max(at.values()) + 1
        while True:
            before = reader.line_num
            rows = list(islice(reader, CHUNK))
            if not rows:
                return
            lines = _lines(rows, before, reader.line_num)
            if min(map(len, rows)) < width:
                for line, row in zip(lines, rows, strict=True):
                    if row and len(row) < width:
                        self.faults.add(line, f"{len(row)} columns, {width} expected")
                lines = [line for line, row in zip(lines, rows, strict=True) if len(row) >= width]
                rows = [row for row in rows if len(row) >= width]
            yield lines, {meaning: list(map(itemgetter(index), rows)) for meaning, index in at.items()}

    def _json_chunks(self, source: Iterator[str]) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
        numbered = enumerate(source, start=1)
        while block := list(islice(numbered, CHUNK)):
            lines, records = [], []
            for line, text in block:
                if not text.strip():
                    continue
                with contextlib.suppress(ValueError):
                    if isinstance(record := json.loads(text), dict):
                        lines.append(line)
                        records.append(record)
                        continue
                self.faults.add(line, "no JSON object")
            if records:
                columns = self._known([name for record in records[:100] for name in _paths(record)]).names
                paths = {meaning: name.split(".") for meaning, name in columns.items()}
                yield lines, {meaning: [_at(r, path) for r in records] for meaning, path in paths.items()}

    def _requests(self, lines: list[int], values: dict[str, list[Any]]) -> Requests:
        """Values as numbers; rows that have none where one is needed are faults and left out."""
        assert self.columns is not None
        n = len(lines)
        absent = np.full(n, math.nan)
        got = {meaning: _numbers(values[meaning]) if meaning in values else absent for meaning in _NUMBERS}
        for meaning, seconds in self.columns.seconds.items():
            got[meaning] = got[meaning] * seconds
        times = {meaning: self._moments(values[meaning]) if meaning in values else absent for meaning in _TIMES}
        for meaning, end in ((names.TTFT, names.FIRST_TOKEN_AT), (names.E2E, names.ENDED_AT)):
            between = times[end] - times[names.TIMESTAMP]
            got[meaning] = np.where(np.isfinite(got[meaning]), got[meaning], between)
        good = self._good(lines, values, got, times[names.TIMESTAMP])
        workers = values.get(names.WORKER)
        return Requests(
            **{field: got[meaning][good] for meaning, field in _NUMBERS.items()},
            sent_at=times[names.TIMESTAMP][good],
            cold=_coldness(values, n)[good],
            worker=None if workers is None else tuple(str(workers[index]) for index in np.flatnonzero(good)),
        )

    def _good(self, lines: list[int], values: dict[str, list[Any]], got: dict[str, Floats], sent_at: Floats) -> Any:
        """Which rows are valid: a time, and token counts that are counts where the log has such columns."""
        faults = {names.TIMESTAMP: ~np.isfinite(sent_at)}
        for meaning in (names.PROMPT, names.OUTPUT):
            if meaning in values:
                counts = got[meaning]
                with np.errstate(invalid="ignore"):
                    faults[meaning] = ~((counts >= 0) & (counts <= MOST_TOKENS))
        bad = np.logical_or.reduce(list(faults.values()))
        assert self.columns is not None
        for index in np.flatnonzero(bad):
            meaning = next(name for name, mask in faults.items() if mask[index])
            found = str(values[meaning][index])[:60]
            self.faults.add(lines[index], f"{self.columns.names[meaning]} is {found!r}")
        wanted = self._reading.model
        return ~bad if wanted is None else ~bad & [str(name) == wanted for name in values[names.MODEL]]

    def _moments(self, values: list[Any]) -> Floats:
        """Timestamps in seconds; NaN where one can't be read."""
        numbers = _numbers(values)
        known = numbers[np.isfinite(numbers)]
        if len(known) >= max(1, len(values) // 2):
            if self._unit is None:
                self._unit, self.timestamps = self._guessed(float(np.median(np.abs(known))))
            return numbers * self._unit
        self.timestamps = self.timestamps or "dates (UTC where they name no zone)"
        return _dates([str(value).strip() for value in values])

    def _guessed(self, size: float) -> tuple[float, str]:
        """Seconds in the unit of timestamps of this size, and what they are in words."""
        for least, unit in ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s")):
            if size >= least:
                return UNITS[unit], f"{unit} since 1970, by their size"
        if self.columns is not None and self.columns.relative_ms:
            return UNITS["ms"], "ms from the log's start, as Mooncake's traces count them"
        return UNITS["s"], "s from the log's start (taken for that: say --timestamp-unit where it is another)"


def _text(raw: BinaryIO) -> TextIO:
    """The file's text, unpacked where it is gzipped."""
    head = raw.read(2)
    raw.seek(0)
    unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if head == b"\x1f\x8b" else raw
    return io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="", errors="replace")


def _first_line(text: TextIO) -> str:
    """The first line that is not empty."""
    while line := text.readline(LONGEST_CELL):
        if line.strip():
            return line
    return ""


def _lines(rows: list[list[str]], before: int, last: int) -> list[int]:
    """The line that each row ends on: one a row, but for texts that hold line ends."""
    if last - before == len(rows):
        return list(range(before + 1, last + 1))
    lines, line = [], before
    for row in rows:
        line += 1 + sum(cell.count("\n") for cell in row)
        lines.append(line)
    return lines


def _paths(record: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of a record's fields."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _at(record: Any, path: list[str]) -> Any:
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _numbers(values: Sequence[Any]) -> Floats:
    """Values as floats; NaN where one is none."""
    try:
        return np.array(values, dtype=float)
    except (TypeError, ValueError):
        return np.array([_number(value) for value in values])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _dates(texts: list[str]) -> Floats:
    """ISO dates as seconds since 1970; NaN where one is none. A chunk of one form is read at once."""
    zone = _ZONE.search(texts[0]) if texts else None
    end = zone[0] if zone else ""
    alike = len(texts[0]) >= 10 and all(text.endswith(end) for text in texts) if texts else False
    try:
        if not alike:
            raise ValueError("of several forms: read one by one")
        offset = -_date(f"1970-01-01T00:00{end.upper()}")
        with warnings.catch_warnings():
            # A zone in between would be a warning.
            warnings.simplefilter("error")
            moments = np.array([text[: len(text) - len(end)] for text in texts], dtype="datetime64[ns]")
    except (ValueError, UserWarning, DeprecationWarning):
        return np.array([_date(text) for text in texts])
    found: Floats = np.where(np.isnat(moments), math.nan, moments.astype(np.int64) / 1e9 - offset)
    return found


_ZONE = re.compile(r"(?<=[\d:.]{3})(?:[+-]\d{2}:?\d{2}|[Zz])$")


def _date(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text.replace("/", "-").replace(" UTC", "Z"))
    except ValueError:
        return math.nan
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()


def _coldness(values: Mapping[str, list[Any]], n: int) -> Floats:
    """1 for a cold start, 0 for a warm one, NaN where the log lacks it."""
    for meaning, words, yes in ((names.COLD, _COLD_WORDS, 1.0), (names.WARM, _WARM_WORDS, 0.0)):
        if meaning in values:
            texts = (str(value).strip().lower() for value in values[meaning])
            return np.array([math.nan if text in _ABSENT else yes if text in words else 1 - yes for text in texts])
    return np.full(n, math.nan)
