"""The journal of a run, ``journal.jsonl``: one JSON line an event, appended and fsynced.

A kill -9 loses at most the event in flight: it can cut the last line short, which reading leaves out and opening takes
away. The events stand in docs/run-directory.md. `redacted` takes secrets out of what is kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from phaselaw.errors import RunError
from phaselaw.records import Call, Event, ModelLoaded, Rewarmed, from_jsonable, to_jsonable

JOURNAL = "journal.jsonl"
JOURNAL_VERSION = 2
"""What is written. Version 1, which has no replicates, is read as well."""

_RECORDS: dict[str, type[Any]] = {"model": ModelLoaded, "rewarmed": Rewarmed, "call": Call}
_NAMES = {record: name for name, record in _RECORDS.items()}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "header": ("run_id", "argv", "study", "study_sha256", "git_commit", "skipped", "created_at_unix"),
    "process": ("host", "study", "study_sha256", "started_at_unix"),
    "end": ("status", "process_idx", "at_unix"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Journal:
    """The events of a run, as read back."""

    header: dict[str, Any]
    processes: tuple[dict[str, Any], ...]
    models: tuple[ModelLoaded, ...]
    rewarmed: tuple[Rewarmed, ...]
    calls: tuple[Call, ...]
    ends: tuple[dict[str, Any], ...]
    whole_bytes: int
    """Length of the file up to the last whole line: what follows was cut by a crash."""

    @property
    def end(self) -> dict[str, Any] | None:
        """How the last process to begin ended; ``None`` where it runs still, or was killed."""
        last = len(self.processes) - 1
        return next((end for end in reversed(self.ends) if end["process_idx"] == last), None)


def read_journal(path: Path) -> Journal:
    """Read a journal; a last line that a crash cut is left out, any other damage is a `RunError` naming its line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror or error}") from None
    whole_bytes = raw.rfind(b"\n") + 1
    events: dict[str, list[Any]] = {name: [] for name in (*_REQUIRED, *_RECORDS)}
    calls_seen: set[str] = set()
    for number, line in enumerate(raw[:whole_bytes].split(b"\n")[:-1], start=1):
        name, event = _parsed(line, f"{path}:{number}")
        if (number == 1) != (name == "header"):
            raise RunError(f"{path}:{number}: not a phaselaw journal (its first line alone is a header)")
        if name == "call":
            if event.call_id in calls_seen:
                raise RunError(f"{path}:{number}: call {event.call_id} stands twice; {_WHAT_TO_DO}")
            calls_seen.add(event.call_id)
        events.setdefault(name, []).append(event)
    if not events["header"]:
        raise RunError(f"{path}:1: not a phaselaw journal (no header)")
    return Journal(
        header=events["header"][0],
        processes=tuple(events["process"]),
        models=tuple(events["model"]),
        rewarmed=tuple(events["rewarmed"]),
        calls=tuple(events["call"]),
        ends=tuple(events["end"]),
        whole_bytes=whole_bytes,
    )


_WHAT_TO_DO = "restore the file or measure again"


def _parsed(line: bytes, where: str) -> tuple[str, Any]:
    """One line's event: its name, and its record or content. An event of a later version is kept as it is."""
    try:
        event = json.loads(line)
        name = event.pop("event")
        if name == "header" and (version := event.get("journal_version")) not in range(1, JOURNAL_VERSION + 1):
            raise RunError(f"{where}: journal version {version!r}; this phaselaw reads 1 to {JOURNAL_VERSION}")
        if name in _RECORDS:
            return name, from_jsonable(_RECORDS[name], event)
        if any(key not in event for key in _REQUIRED.get(name, ())):
            raise KeyError(name)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise RunError(f"{where}: damaged line; {_WHAT_TO_DO}") from None
    return name, event


class JournalWriter:
    """A journal that is appended to. What was cut by a crash is taken away when it is opened."""

    def __init__(self, path: Path, whole_bytes: int) -> None:
        """Open a journal of so many whole bytes; raises OSError."""
        # Unbuffered, so that a line which could not be written stays in no buffer, to come out later.
        self._file = path.open("r+b", buffering=0)
        self._end = whole_bytes
        self._take_away_the_rest()

    def append(self, event: Event) -> None:
        """Keep a record: when this returns, it is on the disk. Raises OSError, and then nothing of it is kept."""
        self.write(_NAMES[type(event)], to_jsonable(event))

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep an event that is no record; as `append`."""
        line = json.dumps({"event": name, **content}, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except BaseException:
            # A full disk, or a second Ctrl-C: half a line here would be damage once another follows it.
            with suppress(OSError):
                self._take_away_the_rest()
            raise
        self._end += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take_away_the_rest(self) -> None:
        self._file.truncate(self._end)
        self._file.seek(self._end)


HIDDEN = "***"

SHORTEST_SECRET = 8
"""Values of the environment that are shorter stand in too many words to be taken out."""

_NAME = r"(?:api[_-]?key|access[_-]?key|token|secret|passw(?:or)?d|authorization|credentials?)"
_NAMED_VALUE = re.compile(rf"(?i)({_NAME}(?![a-z])[^=:\s]*\s*[=:]\s*(?:(?:bearer|basic)\s+)?)[^\s,;]+")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_URL_USER = re.compile(r"(://)[^/@\s]+@")
_OPTION = re.compile(rf"(?i)^--?(?:[a-z0-9]+[_-])*{_NAME}$")
_VARIABLE = re.compile(r"(?i)(?:key|token|secret|passw|credential)")


def redacted(text: str) -> str:
    """A text without what looks like a secret's value, and without the values of variables named like secrets."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _VARIABLE.search(name):
            text = text.replace(value, HIDDEN)
    for pattern in (_NAMED_VALUE, _BEARER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _URL_USER.sub(rf"\1{HIDDEN}@", text)


def redacted_words(words: Sequence[str]) -> list[str]:
    """A command line without its secrets: those within a word, and the word after an option that names one."""
    before = ("", *words)
    return [
        HIDDEN if _OPTION.match(previous) else redacted(word) for previous, word in zip(before, words, strict=False)
    ]
