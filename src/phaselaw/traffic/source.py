"""One file of a request log as statements for DuckDB: its format, its fields, its numbers and dates, each row's fate.

A text is taken line by line and split in place, so that a broken line (an open quote, half a record) never touches
another. What a statement holds of a log are positions, quoted names of Parquet columns, and parameters.
"""

import csv
import dataclasses
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from phaselaw.errors import UsageError
from phaselaw.traffic import columns as of
from phaselaw.traffic.columns import recognise

MOST_TOKENS = 2**22
"""Tokens of a request that are believed: no model takes more."""
CENTURY = (946_684_800, 4_102_444_800)
"""Dates that are believed, in seconds since 1970: of this century."""
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

FATES = ("served", "status_not_known", "failed", "cancelled", "zero_tokens", "cache_hits", "other_models")
"""What became of a row that could be read; the first two are requests to plan with."""
SERVED, UNKNOWN, FAILED, CANCELLED, ZERO, HIT, OTHER = range(len(FATES))
BROKEN = 10
"""Fates from here on are rows that can't be read: broken as a whole, or by a value of these meanings."""
BY_VALUE = dict(enumerate((of.TIMESTAMP, of.PROMPT, of.OUTPUT, of.CACHED), start=BROKEN + 1))

_SAMPLE = 1000
_LINES = (
    "SELECT line, row_number() OVER () + {skip} AS number FROM read_csv($path, columns={{'line': 'VARCHAR'}}, "
    "auto_detect=false, header=false, delim='{mark}', quote='', escape='', strict_mode=false, "
    "max_line_size=16777216, buffer_size=33554432, compression='{packed}', skip={skip}, store_rejects=true)"
)
_MARKS = "\x01\x02\x03\x04\x05\x06\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x1c\x1d\x1e"
"""DuckDB needs a mark between columns, though a line is one column: four of these by chance, which no log has."""
_COLD = {of.COLD: "^(cold|true|yes|1|1.0|loading)$", of.WARM: "^(false|no|0|0.0|cold)$"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a log is read; every choice that was not made is found out."""

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Column names by meaning (`phaselaw.traffic.columns`)."""
    timestamp_unit: str | None = None
    """Of timestamps that are numbers: ``s``, ``ms``, ``us`` or ``ns``."""
    timestamp_format: str | None = None
    """``day-first``, ``month-first``, or a pattern such as ``%d.%m.%Y %H:%M:%S``."""
    duration_unit: str | None = None
    """Of durations whose column does not name it."""
    model: str | None = None
    """Only this model's rows."""
    part: tuple[float, float] | None = None
    """Only the requests between so many hours after the first."""
    allow_dropped: bool = False


class Source:
    """One file: which of its columns mean what, and the statements that read it.

    ``ask`` gives the rows of a statement, ``types`` the names and types of its columns. Raises `UsageError` where the
    file's columns are not known or its times can't be told.
    """

    def __init__(self, path: Path, reading: Reading, ask: Callable[..., Any], types: Callable[..., Any]) -> None:
        self._reading, self._all_ask, self._types = reading, ask, types
        self._values: dict[str, Any] = {"path": str(path), "model": reading.model}
        with path.open("rb") as raw:
            head = raw.read(4)
        self._packed = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}.get(head[:2], "none")
        self._lines = partial(_LINES.format, packed=self._packed, mark="".join(random.SystemRandom().sample(_MARKS, 4)))
        self._native: dict[str, tuple[str, str]] = {}
        """Of Parquet: the expression of each field, and whether it is a ``number``, a ``time`` or ``text``."""
        self._broken, self._why = "f IS NULL", "'no JSON object'"
        self._samples: dict[str, str] = {}
        """A text of each field of JSON records."""
        self._pointers: dict[str, str] = {}
        fields = self._parquet() if head == b"PAR1" else self._text(path)
        self.columns = recognise(fields, reading.columns)
        self._names = self.columns.names
        if reading.model is not None and of.MODEL not in self._names:
            raise UsageError("--model: the log has no column that names the model")
        wanted = [*self._names.values(), *(field for _, field in self.columns.endings)]
        self._values["paths"] = [self._pointers.get(field) for field in wanted]
        self._index = {field: at for at, field in enumerate(wanted if self._samples else fields, start=1)}
        self.unit, self.timestamps, self.relative, self.doubt = 1.0, "", False, ""
        self._window = "true"
        asked, known = reading.timestamp_format, of.SHAPES["formats"]
        self._values["formats"] = list(known["dates"]) if asked is None else [asked]
        if asked in ("day-first", "month-first"):
            self._values["formats"] = [known[asked].format(mark, each) for mark in "/.-" for each in known["clocks"]]
        self._look()

    # --- formats: a statement ``self._table`` with ``number`` and the fields, as the list ``f`` or as columns

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        return list(self._all_ask(statement, {name: self._values[name] for name in re.findall(r"\$(\w+)", statement)}))

    def _parquet(self) -> list[str]:
        self._table = "SELECT *, file_row_number + 1 AS number FROM read_parquet($path, file_row_number=true)"
        columns = self._types("SELECT * FROM read_parquet($path)", {"path": self._values["path"]})
        self._native = dict(leaf for name, kind in columns for leaf in _leaves(name, _quoted(name), kind))
        self._broken = "false"
        return list(self._native)

    def _text(self, path: Path) -> list[str]:
        lines = self._ask(f"{self._lines(skip=0)} LIMIT {_SAMPLE}")
        self.rejected()
        texts = [(number, line) for line, number in lines if line and line.strip()]
        if not texts:
            raise UsageError("the log is empty")
        first = texts[0][1].lstrip("\ufeff").strip()
        if re.match(of.SHAPES["formats"]["text_log"], first):
            rather = "log the usage that the engine answers with, as JSON lines with its time, or give the engine's"
            rather += " metrics page (phaselaw traffic URL/metrics)"
            raise UsageError(f"a text log without token counts ({first[:40]!r}): {rather}")
        if first[0] in "{[":
            return self._json(path, [text for _, text in texts])
        cut = max(",;\t|", key=first.count)
        csv.field_size_limit(max(csv.field_size_limit(), len(first) + 1))  # of the process: never lower
        fields = [name.strip() for name in next(csv.reader([first], delimiter=cut, skipinitialspace=True))]
        cell, end = f'( *"(?:[^"]|"")*" *| *[^{cut}" ][^{cut}]*| *)', f"[{cut}]"
        self._table = (
            f"SELECT number, CASE WHEN contains(line, '\"') THEN CASE WHEN regexp_full_match('{cut}' || line, "
            f"'(?:{end}{cell})+') THEN list_transform(regexp_extract_all('{cut}' || line, '{end}{cell}', 1), "
            f"lambda x: trim(x, ' \"')) END ELSE string_split(line, '{cut}') END AS f "
            f"FROM ({self._lines(skip=texts[0][0])}) WHERE trim(line) <> ''"
        )
        self._broken = f"f IS NULL OR len(f) <> {len(fields)}"
        self._why = (
            f"CASE WHEN len(f) > {len(fields)} THEN len(f) || ' columns, more than {len(fields)}' WHEN f IS NOT NULL "
            f"THEN len(f) || ' columns, {len(fields)} expected' ELSE 'an open quote, or a cell of many lines' END"
        )
        return fields

    def _json(self, file: Path, texts: Sequence[str]) -> list[str]:
        records = [record for record in map(_record, texts) if record is not None]
        if len(texts) > 1 and len(records) * 2 >= len(texts):
            lines = f"({self._lines(skip=0)}) WHERE trim(line) <> ''"
            rows = f"SELECT number, TRY_CAST(line AS JSON) AS j FROM {lines}"
        else:
            self._documents(file, "array" if texts[0].lstrip("\ufeff ").startswith("[") else "unstructured")
            found = (_record(text) for (text,) in self._ask(f"SELECT j::VARCHAR FROM docs LIMIT {_SAMPLE}"))
            records = [record for record in found if record is not None]
            rows = "SELECT row_number() OVER () AS number, j FROM docs"
        object_of = "CASE WHEN json_type(j) = 'OBJECT' THEN json_extract_string(j, $paths) END"
        self._table = f"SELECT number, {object_of} AS f FROM ({rows})"
        # Fields that only later records have, such as an error's, are found too.
        objects = f"({rows}) WHERE json_type(j) = 'OBJECT'"
        [(structure,)] = self._ask(f"SELECT json_group_structure(j)::VARCHAR FROM {objects}")
        for record in (*records, _record(structure or "") or {}):
            for path, value in _paths(record):
                name = ".".join(path)
                pointer = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
                self._pointers.setdefault(name, pointer)
                self._samples[name] = self._samples.get(name) or ("" if value is None else str(value))
        if not self._samples:
            raise UsageError("no JSON object with fields is in the log")
        return list(self._samples)

    def _documents(self, path: Path, form: str) -> None:
        """The table ``docs`` of records that do not stand one a line: an array, pretty JSON, objects in one object."""
        largest = min(2**30, max(2**24, path.stat().st_size * (1 if self._packed == "none" else 40)))
        how = f"format='{form}', maximum_object_size={largest}, compression='{self._packed}'"
        self._ask(f"CREATE OR REPLACE TABLE docs AS SELECT json AS j FROM read_json_objects($path, {how})")
        while self._ask("SELECT count(*) FROM docs") == [(1,)]:
            parts = self._ask("SELECT e.key, e.type FROM docs, json_each(docs.j) e")
            inner = next((name for name in of.SHAPES["formats"]["wrappers"].split() if (name, "ARRAY") in parts), None)
            if inner is not None:
                each = f"unnest(from_json(json_extract(j, '/{inner}'), '[\"JSON\"]')) AS j FROM docs"
            elif len(parts) > 1 and {kind for _, kind in parts} == {"OBJECT"}:
                each = "e.value AS j FROM docs, json_each(docs.j) e"
            else:
                return
            self._ask(f"CREATE OR REPLACE TABLE docs AS SELECT {each}")
        nested = "json_type(j, '/results') = 'ARRAY'"
        if self._ask(f"SELECT count(*) > 0 AND count(*) = count_if({nested}) FROM docs") == [(True,)]:
            none = '{"num_model_requests": 0, "input_tokens": 0, "output_tokens": 0}'
            each = (
                f"CASE WHEN json_array_length(j, '/results') = 0 THEN ['{none}'::JSON] ELSE "
                "from_json(json_extract(j, '/results'), '[\"JSON\"]') END"
            )
            merged = "json_merge_patch(j, r, '{\"results\": null}') AS j"
            self._ask(f"CREATE OR REPLACE TABLE docs AS SELECT {merged} FROM (SELECT j, unnest({each}) AS r FROM docs)")

    def rejected(self) -> list[int]:
        """The lines that DuckDB could not take as text in the last reading, which it then forgets."""
        if not self._all_ask("SELECT table_name FROM duckdb_tables() WHERE table_name = 'reject_errors'"):
            return []
        lines = [int(line) for (line,) in self._all_ask("SELECT DISTINCT line FROM reject_errors ORDER BY line")]
        self._all_ask("DROP TABLE reject_errors; DROP TABLE reject_scans")
        return lines

    # --- values: expressions of one field

    def _said(self, field: str) -> str:
        return f"CAST({self._native[field][0]} AS VARCHAR)" if self._native else f"f[{self._index[field]}]"

    def _number(self, field: str) -> str:
        if self._native and self._native[field][1] == "number":
            return f"CAST({self._native[field][0]} AS DOUBLE)"
        x = self._said(field)
        if self._comma:
            return f"TRY_CAST(replace(replace({x}, '.', ''), ',', '.') AS DOUBLE)"
        grouped = "'\\s*-?\\d{1,3}([,\\x{a0}\\x{202f} ''’]\\d{3})+(\\.\\d*)?\\s*'"
        plain = f"regexp_replace({x}, '[,\\x{{a0}}\\x{{202f}} ''’]', '', 'g')"
        parted = f"CASE WHEN regexp_full_match({x}, {grouped}) THEN TRY_CAST({plain} AS DOUBLE) END"
        return f"coalesce(TRY_CAST({x} AS DOUBLE), {parted})"

    def _moment(self, meaning: str) -> str:
        """A time: seconds since 1970 of a date, or the number as it stands, which ``unit`` makes seconds."""
        field = self._names[meaning]
        if self._native and self._native[field][1] == "time":
            return f"epoch_us({self._native[field][0]}) / 1e6"
        if not self._dated[meaning]:
            return self._number(field)
        x = self._said(field)
        if meaning == of.TIMESTAMP and of.CLOCK in self._names:
            clock = self._said(self._names[of.CLOCK])
            x = f"CASE WHEN regexp_matches({clock}, '^\\s*\\d+:') THEN {x} || ' ' || {clock} ELSE {clock} END"
        if self._reading.timestamp_format is not None:
            return f"epoch_us(try_strptime(replace({x}, ', ', ' '), $formats)) / 1e6"
        iso = f"TRY_CAST(regexp_replace(replace({x}, ',', '.'), ' +([+-]\\d\\d:?\\d\\d)$', '\\1') AS TIMESTAMPTZ)"
        seconds = f"epoch_us(coalesce(TRY_CAST({x} AS TIMESTAMPTZ), {iso}, try_strptime({x}, $formats))) / 1e6"
        return f"CASE WHEN {seconds} BETWEEN {CENTURY[0]} AND {CENTURY[1]} THEN {seconds} END"

    def _look(self) -> None:
        """How numbers and times are written, by the first rows."""
        names = self._names
        times = [meaning for meaning in (of.TIMESTAMP, of.FIRST_AT, of.ENDED_AT) if meaning in names]
        counts = [meaning for meaning in (of.PROMPT, of.OUTPUT, *of.DURATIONS) if meaning in names]
        looked_at = (*times, *counts)
        said = ", ".join(self._said(names[meaning]) for meaning in looked_at)
        rows = self._ask(f"SELECT {said} FROM ({self._table}) LIMIT {_SAMPLE}")
        self.rejected()
        texts = {meaning: [str(row[at]).strip() for row in rows if row[at]] for at, meaning in enumerate(looked_at)}
        everything = [text for column in texts.values() for text in column]
        grouped, lengths = re.compile(r"[1-9]\d{0,2}(,\d{3})+"), texts[of.PROMPT] + texts[of.OUTPUT]
        # A comma is a decimal point where it can't part thousands; a point parts them where tokens would be fractions.
        self._comma = any(re.fullmatch(r"-?\d+,\d+", text) and not grouped.fullmatch(text) for text in everything)
        self._comma |= any(re.fullmatch(r"\d{1,3}(\.\d{3})+", text) and text[-4:] != ".000" for text in lengths)
        numbers = {meaning: [_float(text) for text in texts[meaning]] for meaning in times}
        self._dated = {meaning: found.count(None) * 2 > len(found) for meaning, found in numbers.items()}
        moments = [text for text in texts[of.TIMESTAMP] if re.match(r"\d{1,2}[/.-]\d{1,2}[/.-]\d", text)]
        if self._reading.timestamp_format is None and len(moments) * 2 > len(texts[of.TIMESTAMP]):
            ways = "two ways: say --timestamp-format day-first, month-first or a pattern such as %d.%m.%y"
            raise UsageError(f"{names[of.TIMESTAMP]}: {moments[0]!r} may be read in {ways}")
        if self._native:
            self._dated |= {meaning: True for meaning in times if self._native[names[meaning]][1] == "time"}
        stamps = [number for number in numbers[of.TIMESTAMP] if number is not None and abs(number) < 1e30]
        self._ascends = len(set(stamps)) < 20 or np.corrcoef(stamps, np.arange(len(stamps)))[0, 1] > 0.5

    def _tokens(self, meaning: str) -> str:
        """A count of tokens; ``NULL`` where the text is none that is believed."""
        x = self._number(self._names[meaning])
        most, kind = (2**60, "BIGINT") if of.BUCKET in self._names else (MOST_TOKENS, "INTEGER")
        return f"CASE WHEN {x} >= 0 AND {x} <= {most} AND {x} = floor({x}) THEN CAST({x} AS {kind}) END"

    # --- statements

    def _values_of_a_row(self) -> dict[str, str]:
        """The expression of every value that is kept of a row, by its name in the table."""
        names = self._names
        found = {"stamp": self._moment(of.TIMESTAMP)}
        found |= {"prompt": self._tokens(of.PROMPT), "output": self._tokens(of.OUTPUT)}
        for meaning in (of.CACHED, of.WRITTEN):
            found |= {meaning: f"coalesce({self._tokens(meaning)}, 0)"} if meaning in names else {}
        for meaning in (of.FIRST_AT, of.ENDED_AT):
            found |= {meaning: self._moment(meaning)} if meaning in names else {}
        for meaning in (*of.DURATIONS, of.BATCH, of.BUCKET):
            found |= {meaning: self._number(names[meaning])} if meaning in names else {}
        found |= {of.WORKER: self._said(names[of.WORKER])} if of.WORKER in names else {}
        for meaning, words in _COLD.items():
            if meaning in names:
                said = f"lower(trim({self._said(names[meaning])}))"
                known = f"{said} NOT IN ('', 'none', 'null', 'nan')"
                found["called_cold"] = f"CASE WHEN {known} THEN {said} ~ '{words}' END"
        return found

    def _judged(self, chosen: str, also: str = "") -> str:
        """Each row's fate beside what is ``chosen`` of its values and of what the inner statement gives ``also``."""
        names, values = self._names, self._values_of_a_row()
        ended = [_ending(words, f"lower(trim({self._said(field)}))") for words, field in self.columns.endings]
        values["ended"] = f"greatest({', '.join(ended)})" if ended else "NULL::INTEGER"
        values["other"] = "false"
        if self._reading.model is not None:
            values["other"] = f"{self._said(names[of.MODEL])} IS DISTINCT FROM $model"
        too_many = "cached > prompt" if of.CACHED in names and not self.columns.cached_apart else "false"
        nothing = "false" if of.BUCKET in names else "prompt = 0 OR output = 0"
        inner = ", ".join(f"{expression} AS {name}" for name, expression in values.items())
        return (
            f"SELECT CASE WHEN broken THEN {BROKEN} WHEN other THEN {OTHER} WHEN ended > {UNKNOWN} THEN ended "
            f"WHEN stamp IS NULL OR NOT isfinite(stamp) OR NOT ({self._window}) THEN {BROKEN + 1} "
            f"WHEN prompt IS NULL THEN {BROKEN + 2} WHEN output IS NULL THEN {BROKEN + 3} WHEN {too_many} "
            f"THEN {BROKEN + 4} WHEN {nothing} THEN {ZERO} ELSE coalesce(ended, {SERVED}) END::UTINYINT AS fate, "
            f"{chosen} FROM (SELECT number, {self._broken} AS broken, {inner}{also} FROM ({self._table}))"
        )

    def load(self, table: str) -> Counter[str]:
        """Make the table of the file's rows; returns how many there are of each fate."""
        kept = list(self._values_of_a_row())
        self._ask(f"CREATE TABLE {table} AS {self._judged(', '.join(kept))}")
        rejected = len(self.rejected())
        self._tell_time(table)
        rows: Counter[str] = Counter(not_read=rejected)
        for fate, n in self._ask(f"SELECT fate, count(*) FROM {table} GROUP BY fate"):
            rows[FATES[fate] if fate < BROKEN else "not_read"] += n
        return rows

    def _tell_time(self, table: str) -> None:
        """Find the unit of timestamps that are numbers, and leave out those that lie in another century."""
        if self._dated[of.TIMESTAMP]:
            self.timestamps = "dates (UTC where they name no zone)"
            return
        since = {unit: f"stamp BETWEEN {CENTURY[0] / size!r} AND {CENTURY[1] / size!r}" for unit, size in UNITS.items()}
        counts = ", ".join(f"count_if({window})" for window in since.values())
        counts = f"count(stamp), count_if(stamp <> floor(stamp)), {counts}"
        [(total, fractions, *found)] = self._ask(f"SELECT {counts} FROM {table} WHERE fate < {OTHER}")
        by_unit = dict(zip(UNITS, (n or 0 for n in found), strict=True))
        if not total:
            return
        named = self.columns.seconds.get(of.TIMESTAMP)
        asked = self._reading.timestamp_unit or next((unit for unit, size in UNITS.items() if size == named), None)
        unit = asked or max(by_unit, key=lambda name: by_unit[name])
        if by_unit[unit] * 2 > total:
            self.unit, self.timestamps = UNITS[unit], f"{unit} since 1970, {self._because('by their size')}"
            self._window = since[unit]
            self._ask(f"UPDATE {table} SET fate = {BROKEN + 1} WHERE fate <= {UNKNOWN} AND NOT ({self._window})")
            return
        self.relative = True
        self.unit, self.timestamps = self._from_the_start(asked, bool(fractions))

    def _because(self, otherwise: str) -> str:
        by_name = of.TIMESTAMP in self.columns.seconds and self._reading.timestamp_unit is None
        return "by their name" if by_name else "as asked" if self._reading.timestamp_unit else otherwise

    def _from_the_start(self, asked: str | None, fractions: bool) -> tuple[float, str]:
        """Seconds in a unit of times that count from the log's start, and how that is known."""
        field, shape = self._names[of.TIMESTAMP], self.columns.shape
        if asked is None and of.TIMESTAMP not in self._reading.columns and not self._ascends:
            raise UsageError(f"{field}: small numbers that do not ascend, no times of requests: name those with "
                "--timestamp-column, or say their unit with --timestamp-unit")  # fmt: skip
        if asked is not None:
            return UNITS[asked], f"{asked} from the log's start, {self._because('as asked')}"
        if unit := shape.get("relative"):
            unit = unit if unit != "fractions" else "s" if fractions else "ms"
            return UNITS[unit], f"{unit} from the log's start, as {shape['name']} logs count them"
        if not fractions:
            units = "say --timestamp-unit s, ms, us or ns"
            raise UsageError(f"{field}: small whole numbers whose unit is not known: {units}")
        self.doubt = f"{field}: taken for seconds from the log's start: say --timestamp-unit where it is another unit"
        return 1.0, "s from the log's start, since they have fractions"

    def view(self, table: str) -> str:
        """The statement of the file's requests to plan with, times in seconds."""
        kept, u = set(self._values_of_a_row()), repr(self.unit)

        def time(meaning: str) -> str:
            own = 1.0 if self._dated.get(meaning) else self.columns.seconds.get(meaning, self.unit)
            return f"{meaning} * {own!r}" if meaning in kept else "NULL::DOUBLE"

        def long(meaning: str) -> str:
            return f"{meaning} * {self.seconds(meaning) or 1.0!r}" if meaning in kept else "NULL::DOUBLE"

        e2e = f"coalesce({long(of.E2E)}, {time(of.ENDED_AT)} - stamp * {u})"
        sent = f"stamp * {u} - coalesce({e2e}, 0)" if self.columns.at_end else f"stamp * {u}"
        first = f"coalesce({long(of.TTFT)}, {time(of.FIRST_AT)} - ({sent}))"
        rest = {of.CACHED: "INTEGER", of.BATCH: "DOUBLE", of.WORKER: "VARCHAR", "called_cold": "BOOLEAN"}
        rest |= {of.BUCKET: "DOUBLE"}
        others = ", ".join(name if name in kept else f"NULL::{kind} AS {name}" for name, kind in rest.items())
        written = of.WRITTEN if of.WRITTEN in self._names else "0"
        whole = f"prompt + cached + {written}" if self.columns.cached_apart else "prompt"
        return (
            "SELECT *, CASE WHEN first > 0 AND (output <= 1 OR coalesce(first < e2e, true)) THEN first END AS ttft "
            f"FROM (SELECT {sent} AS sent, ({whole})::BIGINT AS prompt, output::BIGINT AS output, "
            f"{e2e} AS e2e, {first} AS first, {long(of.AGE)} AS worker_age, "
            f"{long(of.IDLE)} AS idle, {time(of.ENDED_AT)} AS until, {others} FROM {table} WHERE fate <= {UNKNOWN})"
        )

    def seconds(self, meaning: str) -> float | None:
        """Seconds in one unit of a duration: by its name or shape, by the unit beside it, or by the option."""
        beside = self._samples.get(self._names[meaning].removesuffix("value") + "unit", "")
        named = self.columns.seconds.get(meaning) or of.UNITS.get(beside.lower())
        return named or UNITS.get(self._reading.duration_unit or "")

    def explained(self) -> tuple[list[str], list[str]]:
        """The first rows that can't be read, with lines and reasons; and what several have in common."""
        said = {fate: self._names[meaning] for fate, meaning in BY_VALUE.items() if meaning in self._names}
        also = "".join(f", {self._said(field)} AS said{fate}" for fate, field in said.items())
        chosen = ", ".join(["number", "why", *(f"said{fate}" for fate in said)])
        judged = self._judged(chosen, f", {self._why} AS why{also}")
        cases = " ".join(f"WHEN {fate} THEN said{fate}" for fate in said)
        faults = f"SELECT number, fate, CASE fate WHEN {BROKEN} THEN why {cases} END AS x FROM ({judged})"
        self._ask(f"CREATE OR REPLACE TABLE faults AS {faults} WHERE fate >= {BROKEN}")
        lost, first = self.rejected(), []
        for number, fate, text in self._ask("SELECT number, fate, x[:60] FROM faults ORDER BY number LIMIT 5"):
            line = number
            for other in lost:
                line += other <= line
            first.append((line, f"{said[fate]} is {text or ''!r}" if fate in said else text))
        first += [(line, "not UTF-8 text, or longer than 16 MiB") for line in lost[:5]]
        alike = self._ask(
            f"SELECT min(x[:60]), count(*) FROM faults WHERE x ~ '.*[0-9].*' AND (fate > {BROKEN} OR x LIKE '%more%') "
            f"GROUP BY fate, CASE WHEN fate > {BROKEN} THEN regexp_replace(x, '[0-9]+', '9', 'g') ELSE x END "
            "HAVING count(*) >= 3 ORDER BY 2 DESC"
        )
        return [f"line {line}: {why}" for line, why in sorted(first)[:5]], [f"{n:,} like {x!r}" for x, n in alike]


def _ending(words: Mapping[str, Any], x: str) -> str:
    """The fate that a text says, as its number; ``NULL`` where it says nothing bad."""
    cases = [f"WHEN {x} IS NULL THEN NULL"]
    for fate in words:
        if fate in FATES:
            then = "NULL" if fate == "served" else FATES.index(fate)
            cases.append(f"WHEN regexp_matches({x}, '{words[fate]}') THEN {then}")
    return f"CASE {' '.join(cases)} ELSE {UNKNOWN if words.get('strict') else 'NULL'} END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _leaves(name: str, expression: str, kind: Any) -> Iterator[tuple[str, tuple[str, str]]]:
    """The fields of a Parquet column by their dotted names, those of structures too."""
    if kind.id == "struct":
        for inner, of_inner in kind.children:
            yield from _leaves(f"{name}.{inner}", f"{expression}.{_quoted(inner)}", of_inner)
    elif kind.id.startswith("timestamp") or kind.id == "date":
        zoned = "tz" in kind.id or "time zone" in kind.id
        yield name, (expression if zoned else f"CAST({expression} AS TIMESTAMP)", "time")
    else:
        numeric = kind.id in ("float", "double", "decimal") or kind.id.endswith(("int", "integer"))
        yield name, (expression, "number" if numeric else "text")


def _record(text: str) -> dict[str, Any] | None:
    """A JSON object; ``None`` for anything else."""
    try:
        found = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _paths(record: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys to each value of a record, and the value; of a list the first."""
    for key, value in record.items():
        path = (*above, key)
        if isinstance(value, list) and value and isinstance(value[0], int | float | str):
            yield (*path, "0"), value[0]
        elif isinstance(value, dict) and value:
            yield from _paths(value, path)
        else:
            yield path, value


def _float(text: str) -> float | None:
    """The number that a text is in some way of writing it; ``None`` where it is none."""
    for written in (text, text.replace(",", ""), text.replace(".", "").replace(",", ".")):
        try:
            return float(written)
        except ValueError:
            continue
    return None
