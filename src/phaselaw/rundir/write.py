"""A run directory while it is written: its journal, which is its lock, and the files that derive from that."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, Self

from phaselaw import __version__
from phaselaw.errors import RunError, redacted_words, writing
from phaselaw.files import folder_in, read_plain, write_json, write_whole
from phaselaw.machine import identity as telemetry
from phaselaw.records import Abandoned, Call, Event
from phaselaw.rundir.derive import HOST, HOSTS, MANIFEST, derived, kept_study
from phaselaw.rundir.journal import JOURNAL, JOURNAL_VERSION, JournalWriter, line_of, read_journal, scan_journal, summed
from phaselaw.study.model import Study


class RunDirectory:
    """A run directory that this process writes, and no other can: a context manager that holds its journal's lock."""

    def __init__(self, path: Path, study: Study | None, writer: JournalWriter) -> None:
        """Go on with the journal that ``writer`` has locked, under its own study for ``None``."""
        self.path, self._writer = path, writer
        self._journal = read_journal(path / JOURNAL)
        self.study = study or kept_study(path, self._journal)
        self._calls = {call.call_id: call for call in self._journal.calls}
        self._to_retry: set[str] = set()
        self.next_call_idx = self._journal.next_call_idx
        self.process_idx = self._journal.next_process_idx
        self.hosts = {each["process_idx"]: each["host"] for each in self._journal.processes}
        """What each process measured on, by its number."""
        self.finished = False
        """Whether everything was measured before this process came: it then has nothing to do."""
        writer.begin(self._journal.whole_bytes)

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        study: Study,
        argv: Sequence[str],
        host: Mapping[str, Any],
        skipped: Sequence[str] = (),
        asked: Mapping[str, Any] | None = None,
    ) -> Self:
        """A fresh run directory (``runs/NAME/TIME`` for ``None``).

        ``asked`` is what stands in the manifest of where the study came from. Raises `RunError` where the folder holds
        a journal already, another process writes it, or it can't be written.
        """
        with writing(path or Path("runs")):
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", study.run_name).strip(".-") or "run"
            path = path or _new_folder(Path("runs") / name)
            path.mkdir(parents=True, exist_ok=True)
        header = {
            "journal_version": JOURNAL_VERSION,
            "run_id": path.resolve().name,
            **_asked_for(study, argv),
            "asked": dict(asked or {}),
            "git_commit": telemetry.git_commit(),
            "skipped": list(skipped),
            "created_at_unix": time.time(),
        }
        with writing(path), _opened(path, header=line_of("header", header)) as writer:
            of_folder = os.open(path, os.O_RDONLY)
            try:
                os.fsync(of_folder)  # so that the new file's name is durable too
            finally:
                os.close(of_folder)
            directory = cls(path, study, writer)
            directory._begin_process(host, argv, [])
            return directory

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        study: Study | None,
        argv: Sequence[str],
        host: Mapping[str, Any],
        allow_changed: bool = False,
        retry_failed: bool = False,
    ) -> Self:
        """The directory of a run to go on with, under its own study for ``study=None``; a complete one is `finished`.

        Raises `RunError` where there is no run, another process writes it, or the study or the host is not the one the
        run began with; ``allow_changed`` permits that, and the manifest then records both. With ``retry_failed`` calls
        that failed are made again.
        """
        if not (path / JOURNAL).is_file():
            raise RunError(f"{path} holds no run to resume (no {JOURNAL}); start one: phaselaw run --out {path}")
        with writing(path), _opened(path) as writer:
            directory = cls(path, study, writer)
            journal, kept = directory._journal, kept_study(path, directory._journal)
            before = [each["host"] for each in journal.processes if each["host"].get("name") == host.get("name")]
            changes = telemetry.host_differences(before[-1], host) if before else []
            if journal.processes and not before:
                changes = ["one run has --ray, the other has not"]
            if study is not None and study.sha256 != kept.sha256:
                changes.insert(0, f"study: {kept.sha256[:12]} became {study.sha256[:12]}")
            if changes and not allow_changed:
                otherwise = f"{path} was begun otherwise ({'; '.join(changes)})"
                raise RunError(f"{otherwise}; --allow-changed goes on and records both")
            if retry_failed:
                directory._to_retry = {call.call_id for call in directory.calls if call.status != "ok"}
            complete = journal.end is not None and journal.end["status"] == "complete"
            directory.finished = complete and not changes and not directory._to_retry
            if not directory.finished:
                directory._begin_process(host, argv, changes)
            return directory

    @property
    def calls(self) -> list[Call]:
        """The calls that are kept, in the order they were made."""
        return list(self._calls.values())

    @property
    def done(self) -> frozenset[str]:
        """Ids of the calls that are kept, failed ones among them unless they are to be made again."""
        return frozenset(self._calls.keys() - self._to_retry)

    def begin_next_process(self, host: Mapping[str, Any] | None = None) -> int:
        """Begin the part of a further process, which measures the next replicate, on another host where one is named.

        Returns its number; raises `RunError`.
        """
        self.process_idx += 1
        with writing(self.path):
            self._begin_process(self._host if host is None else host, self._argv, [])
        return self.process_idx

    def append(self, event: Event) -> None:
        """Keep one event: when this returns, it is on the disk. Raises `RunError` where it can't be written."""
        with writing(self.path):
            self._writer.append(event)
            self.next_call_idx += isinstance(event, Call)
        if isinstance(event, Call):
            self._calls.pop(event.call_id, None)
            self._calls[event.call_id] = event
            self._to_retry.discard(event.call_id)
        elif isinstance(event, Abandoned):
            self._calls = {key: call for key, call in self._calls.items() if call.process_idx not in event.processes}

    def finish(self, status: Literal["complete", "interrupted"]) -> None:
        """End this process's part: write the journal's end event and every derived file; raises `RunError`."""
        end = {"status": status, "process_idx": self.process_idx, "at_unix": time.time()}
        with writing(self.path):
            self._writer.write("end", end)
        write_derived(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and not self.finished:
                # What ended the run is told, not that a full disk then refuses its tables too.
                with suppress(RunError):
                    self.finish("interrupted")
        finally:
            self._writer.close()

    def _begin_process(self, host: Mapping[str, Any], argv: Sequence[str], changes: Sequence[str]) -> None:
        self._host, self._argv, self.hosts[self.process_idx] = host, argv, dict(host)
        event = {"process_idx": self.process_idx, "host": dict(host), **_asked_for(self.study, argv)}
        event |= {"changes": list(changes), "started_at_unix": time.time()}
        self._writer.write("process", event)
        write_derived(self.path, with_tables=False)


def _asked_for(study: Study, argv: Sequence[str]) -> dict[str, Any]:
    """What a process is to do, and what does it."""
    of_study = {"study": study.resolved(), "study_sha256": study.sha256}
    return {"argv": redacted_words(argv), **of_study, "phaselaw_version": __version__}


def write_derived(path: Path, *, with_tables: bool = True) -> None:
    """Write what derives from a run's journal, each file whole, the manifest last; raises `RunError`."""
    found = derived(path, read_journal(path / JOURNAL), with_tables=with_tables)
    with writing(path):
        for name, table in found.tables.items():
            write_whole(path / name, table)
        for name, host in found.hosts.items() if len(found.hosts) > 1 else ():
            write_json(folder_in(path, HOSTS, name) / HOST, host)
        write_json(path / MANIFEST, found.manifest)


def salvage(path: Path) -> int:
    """Keep all sound lines of a run's journal and derive its files anew; returns how many lines were lost.

    The journal as it was stays beside it. The run is then unfinished: a resume makes the calls that were lost again.
    Raises `RunError` where no line tells of the study.
    """
    with writing(path), _opened(path):
        journal, raw = scan_journal(path / JOURNAL), read_plain(path / JOURNAL)
        damaged = [each.line for each in journal.damage]
        if damaged:
            kept = [line_of("header", journal.header | {"journal_version": JOURNAL_VERSION})]
            for number, line in enumerate(raw[: journal.whole_bytes].split(b"\n")[1:-1], start=2):
                if number not in damaged and not line.startswith(b'{"event":"end"'):
                    kept.append(summed(line))
            kept.append(line_of("salvaged", {"lines": damaged, "at_unix": time.time()}))
            write_whole(path / f"{JOURNAL}.damaged", raw)
            write_whole(path / JOURNAL, b"".join(kept))
        write_derived(path)
    return len(damaged)


@contextmanager
def _opened(path: Path, header: bytes | None = None) -> Iterator[JournalWriter]:
    """The locked journal of a run directory, held on, unless the block fails; a new one for a ``header``."""
    writer = JournalWriter(path / JOURNAL, header)
    try:
        yield writer
    except BaseException:
        writer.close()
        raise


def _new_folder(parent: Path) -> Path:
    """A new folder named for this second; two runs that start in one second get one each."""
    parent.mkdir(parents=True, exist_ok=True)
    first = f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
    for name in chain((first,), (f"{first}_{number}" for number in count(2))):
        with suppress(FileExistsError):
            (parent / name).mkdir()
            break
    return parent / name
