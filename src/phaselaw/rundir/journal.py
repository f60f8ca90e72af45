"""The journal of a run, ``journal.jsonl``: one JSON line an event with its checksum, appended and fsynced.

A kill -9 loses at most the event in flight: it can cut the last line short, which reading leaves out and opening takes
away. The events stand in docs/run-directory.md.
"""

import dataclasses
import json
import os
import stat
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from phaselaw import records
from phaselaw.errors import RunError
from phaselaw.files import lock, read_plain
from phaselaw.records import Call, Event, from_jsonable, to_jsonable

JOURNAL = "journal.jsonl"
JOURNAL_VERSION = 2
"""What is written. Version 1, which has neither checksums nor replicates, is read as well."""

_RECORDS: dict[str, type[Any]] = {"model": records.ModelLoaded, "rewarmed": records.Rewarmed, "call": Call}
_RECORDS |= {"backend_ended": records.BackendEnded, "server_awaited": records.ServerAwaited}
_RECORDS |= {"abandoned": records.Abandoned}
_NAMES = {record: name for name, record in _RECORDS.items()}
_REQUIRED: dict[str, dict[str, Any]] = {
    "header": {"run_id": str, "argv": list, "study": dict, "study_sha256": str, "skipped": list}
    | {"created_at_unix": (int, float)},
    "process": {"host": dict, "study": dict, "study_sha256": str, "process_idx": int}
    | {"started_at_unix": (int, float)},
    "end": {"status": str, "process_idx": int, "at_unix": (int, float)},
    "salvaged": {"lines": list},
}
"""What each event that is no record holds at least, and its types."""

_CHECKSUM = b',"crc32":"'


class Damage(NamedTuple):
    """A line of a journal that can't be what was written: its number from 1 (0 for what is missing), and why."""

    line: int
    what: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Journal:
    """The events of a run, as read back."""

    header: dict[str, Any]
    processes: tuple[dict[str, Any], ...]
    models: tuple[records.ModelLoaded, ...]
    rewarmed: tuple[records.Rewarmed, ...]
    calls: tuple[Call, ...]
    """In the order they were made; of a call that failed and was made again, the last."""
    abandoned: tuple[tuple[Call, str], ...]
    """The calls that count in no figure, each with the reason: their host was lost."""
    ends: tuple[dict[str, Any], ...]
    whole_bytes: int
    """Length of the file up to the last whole line: what follows was cut by a crash."""
    damage: tuple[Damage, ...]
    has_checksums: bool

    @property
    def end(self) -> dict[str, Any] | None:
        """How the last process to begin ended; ``None`` where it runs still, or was killed."""
        last = self.next_process_idx - 1
        return next((end for end in reversed(self.ends) if end["process_idx"] == last), None)

    @property
    def next_process_idx(self) -> int:
        return 1 + max((process["process_idx"] for process in self.processes), default=-1)

    @property
    def next_call_idx(self) -> int:
        return 1 + max((call.call_idx for call in (*self.calls, *(call for call, _ in self.abandoned))), default=-1)

    @property
    def resumed_replicates(self) -> list[int]:
        """Replicates in which more than one process measured a model of a backend."""
        measured = {(call.replicate, call.cell.backend, call.cell.model, call.process_idx) for call in self.calls}
        parts = Counter(part[:3] for part in measured)
        return sorted({replicate for (replicate, *_), processes in parts.items() if processes > 1})


def read_journal(path: Path) -> Journal:
    """Read a journal; a last line that a crash cut is left out, any other damage is a `RunError` naming its line."""
    journal = scan_journal(path)
    for damage in journal.damage:
        what_to_do = f"restore the file, or keep all sound lines: phaselaw show --salvage {path.parent}"
        raise RunError(f"{path}:{damage.line}: {damage.what}; {what_to_do}")
    return journal


def scan_journal(path: Path) -> Journal:
    """Read what of a journal is sound, and say what is not; `RunError` where it can't be read, or is none."""
    try:
        raw = read_plain(path)
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror or error}") from None
    whole_bytes = raw.rfind(b"\n") + 1
    events: dict[str, list[Any]] = {name: [] for name in (*_REQUIRED, *_RECORDS)}
    calls: dict[str, Call] = {}
    abandoned: list[tuple[Call, str]] = []
    damage: list[Damage] = []
    made: set[int] = set()
    version = _version(raw[: raw.find(b"\n")], path)
    for number, line in enumerate(raw[:whole_bytes].split(b"\n")[:-1], start=1):
        try:
            name, event = _parsed(line, version)
            if (number == 1) != (name == "header"):
                raise ValueError("not a phaselaw journal (its first line alone is a header)")
            if name == "call":
                made.add(event.call_idx)
                before = calls.pop(event.call_id, None)
                if before is not None and (before.status == "ok" or event.call_idx <= before.call_idx):
                    calls[event.call_id] = before
                    raise ValueError(f"call {event.call_id} stands twice")
                calls[event.call_id] = event
            else:
                events.setdefault(name, []).append(event)
            if name == "abandoned":
                lost = [call for call in calls.values() if call.process_idx in event.processes]
                abandoned += [(calls.pop(call.call_id), event.why) for call in lost]
        except ValueError as error:
            damage.append(Damage(line=number, what=str(error)))
    if not events["header"]:
        if not events["process"]:
            why = damage[0].what if damage else "its first line alone is a header"
            raise RunError(f"{path}:1: not a phaselaw journal ({why})")
        events["header"] = [_header_of(events["process"][0], path)]
    if not damage and not events["salvaged"] and len(made) != (last := max(made, default=-1) + 1):
        missing = next(index for index in range(last) if index not in made)
        damage.append(Damage(line=0, what=f"call_idx {missing} is missing: a line was taken out"))
    gone = {process for event in events["abandoned"] for process in event.processes}
    return Journal(
        header=events["header"][0],
        processes=tuple(events["process"]),
        models=tuple(each for each in events["model"] if each.process_idx not in gone),
        rewarmed=tuple(each for each in events["rewarmed"] if each.process_idx not in gone),
        calls=tuple(calls.values()),
        abandoned=tuple(abandoned),
        ends=tuple(events["end"]),
        whole_bytes=whole_bytes,
        damage=tuple(damage),
        has_checksums=version > 1,
    )


def _version(header: bytes, path: Path) -> int:
    """A journal's version by its first line: 1 only where that has no checksum and says so."""
    stated = JOURNAL_VERSION
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        stated = json.loads(header)["journal_version"]
    if stated not in (1, JOURNAL_VERSION):
        raise RunError(f"{path}:1: journal version {stated!r}; this phaselaw reads versions 1 and {JOURNAL_VERSION}")
    return JOURNAL_VERSION if _CHECKSUM in header else stated


def _header_of(process: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What stands for a header that is damaged: the first process was asked for the same."""
    of_run: dict[str, Any] = {"run_id": path.parent.resolve().name, "git_commit": None, "skipped": [], "argv": []}
    return {**of_run, **process, "created_at_unix": process["started_at_unix"]}


def _parsed(line: bytes, version: int) -> tuple[str, Any]:
    """One line's event: its name, and its record or content; ValueError for a line that is not what was written.

    An event of a later version is kept as it is. A call whose figures can't be figures, which only a faulty writer can
    have kept, becomes a failed one.
    """
    body, marker, rest = line.rpartition(_CHECKSUM)
    if marker and rest != b'%08x"}' % zlib.crc32(body + b"}"):
        raise ValueError("damaged line: it is not what its checksum was made of")
    if not marker and version > 1:
        raise ValueError("damaged line: it has no checksum")
    try:
        event = json.loads(line, parse_constant=_no_number)
        name = event.pop("event")
        event.pop("crc32", None)
        if name in _RECORDS:
            try:
                return name, from_jsonable(_RECORDS[name], event)
            except ValueError as error:
                lost = {"timing": None, "status": "error", "error": f"unreadable: {error}"}
                return name, from_jsonable(_RECORDS[name], event | lost)
        if any(not isinstance(event.get(key), of) for key, of in _REQUIRED.get(name, {}).items()):
            raise KeyError(name)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ValueError("damaged line") from None
    return name, event


def _no_number(text: str) -> float:
    raise ValueError(text)


def line_of(name: str, content: Mapping[str, Any]) -> bytes:
    """An event as a line of the journal; ValueError for what JSON has not."""
    body = json.dumps({"event": name, **content}, separators=(",", ":"), allow_nan=False).encode()
    return body[:-1] + _CHECKSUM + b'%08x"}\n' % zlib.crc32(body)


def summed(line: bytes) -> bytes:
    """A sound line, as one that has a checksum."""
    event = json.loads(line)
    return line + b"\n" if _CHECKSUM in line else line_of(event.pop("event"), event)


class JournalWriter:
    """A journal that is appended to by this process alone: its own file is what is locked."""

    def __init__(self, path: Path, header: bytes | None = None) -> None:
        """Open and lock a journal, a new one for a ``header``.

        Raises OSError, and `RunError` where another process writes it, or a new one is there already.
        """
        self._path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        flags |= 0 if header is None else os.O_CREAT
        # Unbuffered, so that a line which could not be written stays in no buffer, to come out later.
        self._file = open(path, "r+b", buffering=0, opener=lambda name, _: os.open(name, flags, 0o666))  # noqa: SIM115
        try:
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                raise OSError(f"{path.name} is not a plain file")
            if not lock(self._file.fileno()):
                choose = "wait for it, or choose another --out"
                raise RunError(f"{path.parent} is being written by another phaselaw; {choose}")
            if header is not None:
                self._begin_with(header)
        except BaseException:
            self._file.close()
            raise
        self._end = 0

    def _begin_with(self, header: bytes) -> None:
        if b"\n" in self._file.read(1 << 22):
            go_on = f"go on with it: --resume {self._path.parent}, or choose another --out"
            raise RunError(f"{self._path.parent} holds a run already; {go_on}")
        self._file.truncate(0)  # of a process that was killed before it had kept anything
        self._file.write(header)
        os.fsync(self._file.fileno())

    def begin(self, whole_bytes: int) -> None:
        """Take away what was cut by a crash: what follows so many whole bytes."""
        self._end = whole_bytes
        self._file.truncate(whole_bytes)

    def append(self, event: Event) -> None:
        """Keep a record: when this returns, it is on the disk. Raises OSError, and then nothing of it is kept."""
        self.write(_NAMES[type(event)], to_jsonable(event))

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep an event that is no record; as `append`. `RunError` where the file is no longer the run's."""
        line = line_of(name, content)
        if not self._is_there():
            raise RunError(f"{self._path} was removed or replaced while it was measured: nothing more can be kept")
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except BaseException:
            # A full disk, or a second Ctrl-C: half a line here would be damage once another follows it.
            with suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(line)

    def close(self) -> None:
        """Close the file, which lets go of its lock."""
        self._file.close()

    def _is_there(self) -> bool:
        with suppress(OSError):
            ours, there = os.fstat(self._file.fileno()), self._path.lstat()
            return (ours.st_dev, ours.st_ino, ours.st_size) == (there.st_dev, there.st_ino, self._end)
        return False


def is_being_written(path: Path) -> bool:
    """Whether a process has a journal open to write it."""
    try:
        with suppress(OSError):
            JournalWriter(path).close()
    except RunError:
        return True
    return False
