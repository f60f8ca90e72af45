"""Request logs of any size and of many shapes, put by DuckDB into one table that statements ask.

Every row of a log ends in one of `FATES` or is counted as not read; a log of which too many were not read is refused.
A path is never a pattern, no text of the log or of a person stands in a statement, and nothing but the log is opened.
"""

import codecs
import contextlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from phaselaw.errors import AnalysisError, MissingExtraError, UsageError
from phaselaw.traffic.source import Reading, Source

MEMORY = "256MB"
"""What DuckDB may hold before it spills to a temporary folder."""
DROPPED = 0.01
"""Share of rows that may be unreadable before the log is refused."""


class Log:
    """A request log as the view ``requests``: sent (s), prompt, output, ttft, e2e and more, ``NULL`` where unknown."""

    def __init__(self, paths: Sequence[str | Path], reading: Reading, folder: Path) -> None:
        self._folder, self._db = folder, _connected(folder, paths)
        self.path = ", ".join(map(str, paths))
        if len({os.path.realpath(path) for path in paths}) < len(paths):
            raise UsageError(f"{self.path}: the same log is given twice")
        names = [self._copied(path, f"log{at}") for at, path in enumerate(paths)]
        self.sources = [Source(name, reading, self.ask, self._types) for name in names]
        self.columns = self.sources[0].columns
        self.rows: Counter[str] = Counter()
        """Rows by `FATES`; ``not_read`` are those that could not be read."""
        for at, source in enumerate(self.sources):
            self.rows += source.load(f"rows{at}")
        self.timestamps = "; ".join(dict.fromkeys(source.timestamps for source in self.sources))
        if len(paths) > 1 and any(source.relative for source in self.sources):
            raise UsageError("logs that count time from their own start can't be put together: give one")
        self.faults: list[str] = []
        """``line 17: timestamp is 'x'``, of the first few."""
        self.doubts = [*self._dropped(reading, paths), *(source.doubt for source in self.sources if source.doubt)]
        views = " UNION ALL BY NAME ".join(source.view(f"rows{at}") for at, source in enumerate(self.sources))
        self.ask(f"CREATE VIEW everything AS {views}")
        where = "true"
        if reading.part is not None:
            [(first,)] = self.ask("SELECT min(sent) FROM everything")
            begin, end = ((first or 0.0) + 3600.0 * hours for hours in reading.part)
            where = f"sent >= {begin!r} AND sent < '{end!r}'::DOUBLE"
        self.ask(f"CREATE VIEW requests AS SELECT * FROM everything WHERE {where}")

    def ask(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """The rows of one statement. Raises `AnalysisError` where DuckDB can't do it."""
        return list(self.result(statement, values).fetchall())

    def result(self, statement: str, values: Any = None) -> Any:
        """One statement's result, to be fetched in parts."""
        import duckdb

        try:
            return self._db.execute(statement, values)
        except (duckdb.Error, UnicodeDecodeError) as error:
            reason = str(error).strip().split("\n")[0].replace(str(self._folder), "...")
            raise AnalysisError(f"{self.path}: can't be read: {reason}") from None

    def close(self) -> None:
        self._db.close()

    def _types(self, statement: str, values: Any) -> list[tuple[str, Any]]:
        return [(column[0], column[1]) for column in self.result(f"{statement} LIMIT 0", values).description]

    def _copied(self, path: str | Path, name: str) -> Path:
        """A name of the log that is no pattern, in a folder of our own; standard input and UTF-16 are copied."""
        ours = self._folder / name
        try:
            if str(path) == "-" or (Path(path).exists() and not Path(path).is_file()):
                with ours.open("wb") as copy, sys.stdin.buffer if str(path) == "-" else Path(path).open("rb") as given:
                    shutil.copyfileobj(given, copy)
            else:
                ours.symlink_to(Path(path).absolute())
            with ours.open("rb") as raw:
                wide = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
                if not _is_whole(raw):
                    raise OSError("the zstd data ends before its end")
            if wide:
                narrow = self._folder / f"{name}.utf8"
                with (
                    ours.open(encoding="utf-16", newline="") as text,
                    narrow.open("w", encoding="utf-8", newline="") as copied,
                ):
                    shutil.copyfileobj(text, copied)
                return narrow
        except (OSError, UnicodeError) as error:
            raise AnalysisError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
        return ours

    def _dropped(self, reading: Reading, paths: Sequence[str | Path]) -> list[str]:
        """The doubt of rows that can't be read. Raises `AnalysisError` for too many, or some with a pattern."""
        dropped, total = self.rows["not_read"], sum(self.rows.values())
        if not dropped:
            return []
        patterns = []
        for path, source in zip(paths, self.sources, strict=True):
            found, alike = source.explained()
            self.faults += [f"{path}, {line}" if len(paths) > 1 else line for line in found]
            patterns += alike
        self.faults = self.faults[:5]
        share = f"{dropped / total:.2g} of all" if dropped < total / 1e4 else f"{dropped / total:.2%}"
        told = f"{dropped:,} of {total:,} rows ({share}) can't be read, such as {'; '.join(self.faults[:2])}"
        if not reading.allow_dropped and (dropped > DROPPED * total or patterns):
            pattern = f"; they have a pattern: {patterns[0]}" if patterns else ""
            raise AnalysisError(f"{self.path}: {told}{pattern}: mend them, or leave them out with --allow-dropped")
        return [f"{told}; they are left out of every figure"]


@contextlib.contextmanager
def opened(paths: Sequence[str | Path], reading: Reading) -> Iterator[Log]:
    """The log of some files, ``-`` for standard input; its temporary folder goes with it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="phaselaw-"))
        yield stack.enter_context(contextlib.closing(Log(paths, reading, Path(folder))))


def _is_whole(raw: BinaryIO) -> bool:
    """Whether the last frame of zstd data has its end, of which DuckDB says nothing; true of anything else."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    while (mark := raw.read(4)) == b"\x28\xb5\x2f\xfd":
        described = (raw.read(1) or b"\0")[0]
        single, dictionary, content = described >> 5 & 1, (0, 1, 2, 4)[described & 3], (0, 2, 4, 8)[described >> 6]
        raw.seek((1 - single) + dictionary + (content or single), os.SEEK_CUR)
        block = 0
        while not block & 1:
            if len(head := raw.read(3)) < 3:
                return False
            block = int.from_bytes(head, "little")
            raw.seek(1 if block >> 1 & 3 == 1 else block >> 3, os.SEEK_CUR)
        raw.seek(described & 4, os.SEEK_CUR)
    return raw.tell() <= size and (mark == b"" or size < 4 or raw.tell() == 4)


def _connected(folder: Path, paths: Sequence[str | Path]) -> Any:
    """A database that reaches nothing but a folder of its own and the log."""
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError("traffic", "reading a request log") from None
    off = ("autoinstall_known_extensions", "autoload_known_extensions", "allow_community_extensions")
    threads = min(4, os.cpu_count() or 1)
    db = duckdb.connect(
        str(folder / "log.duckdb"), config={**dict.fromkeys(off, False), "memory_limit": MEMORY, "threads": threads}
    )
    db.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    db.execute("SET temp_directory = ?", [str(folder / "spilled")])
    db.execute("SET allowed_directories = ?", [[str(folder)]])
    db.execute("SET allowed_paths = ?", [[os.path.realpath(path) for path in paths]])
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
    return db
