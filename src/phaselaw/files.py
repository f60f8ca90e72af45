"""The one place that writes files: whole or absent, through no link; and CSV cells that a spreadsheet can't run."""

import csv
import fcntl
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
import psutil

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula, or for a blank before one."""


CACHE_VARIABLE = "PHASELAW_CACHE"


def cache_folder() -> Path:
    """Where what was built or measured once is kept: ``$PHASELAW_CACHE``, or else the user's cache folder."""
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("phaselaw", appauthor=False)
    return Path(root).expanduser()


def folder_in(root: Path, *names: str) -> Path:
    """A folder below ``root``, made where it is not there; OSError where a link stands in its place.

    So nothing that is written into a run directory leaves it, whoever the directory is from.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        root = root / name
        root.mkdir(exist_ok=True)
        if root.is_symlink():
            raise OSError(f"{name} is a link, which could lead out of the run; remove it")
    return root


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A fresh empty file beside ``path``, to be filled; at the end it takes that place, synced: a reader sees the old
    or the new, never a part.

    Its name can't be foreseen and it is created exclusively, which follows no link and opens nothing that is there.
    What a process that is gone left of an earlier try is taken away.
    """
    for left in path.parent.iterdir():
        name, _, process = left.name.removesuffix(".partial").rpartition(".")[0].rpartition(".")
        runs = process.isdigit() and int(process) < 2**31 and psutil.pid_exists(int(process))
        if left.suffix == ".partial" and name == f".{path.name}" and not runs:
            left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.partial")
    partial.open("xb").close()
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file by `replacing` the one that is there; what is no folder's file but a pipe or a link goes too."""
    with replacing(path) as partial:
        partial.write_bytes(raw_text(data) if isinstance(data, str) else data)


def raw_text(text: str) -> bytes:
    """A text as UTF-8; what a file name that is no UTF-8 brought along is escaped as JSON escapes it."""
    return text.encode(errors="backslashreplace")


def read_plain(path: Path) -> bytes:
    """The bytes of a plain file; OSError for anything else, so that no pipe is waited for."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a plain file")
        return file.read()


def json_object(path: Path, error: Callable[[str], Exception], what: str = "JSON object") -> dict[str, Any]:
    """The JSON object that a file holds; raises the ``error``, that it is no such ``what``, for anything else."""
    try:
        document = json.loads(read_plain(path).decode())
    except (OSError, ValueError, RecursionError) as fault:
        raise error(f"{path}: no {what}: it can't be read ({getattr(fault, 'strerror', None) or fault})") from None
    if not isinstance(document, dict):
        raise error(f"{path}: no {what}")
    return document


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(descriptor: int) -> bool:
    """Lock an open file for this process until the descriptor is closed or the process is gone; false where another
    holds it."""
    with suppress(BlockingIOError, PermissionError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document, whole; raises ValueError for NaN and infinities, which JSON has not."""
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV, whole; see `csv_text`."""
    write_whole(path, csv_text(columns, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV: ``None`` is an empty cell, floats keep full precision, texts are made `cell_text`."""
    text = io.StringIO(newline="")
    # The writer quotes only the line ends it writes itself: told \r\n it quotes both, and each row's own becomes \n.
    writer, ended = csv.writer(text, lineterminator="\r\n"), []
    for cells in (columns, *([cell_text(row[column]) for column in columns] for row in rows)):
        writer.writerow(cells)
        ended.append(text.getvalue().removesuffix("\r\n") + "\n")
        text.seek(0)
        text.truncate()
    return "".join(ended)


def cell_text(value: Any) -> Any:
    """A value as a CSV cell; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith((*FORMULA_STARTS, "'")) else value
    if isinstance(value, float):
        return "" if value != value else repr(value)
    return value


def plain_text(cell: str) -> str:
    """The text that `cell_text` made a cell of."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*FORMULA_STARTS, "'")) else cell


_TIMES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def amount(text: str) -> float:
    """A number as people write it: ``1e9``, ``20k``, ``1B``, ``1,000,000``, ``70%``; NaN where it is none."""
    text = text.strip().lower()
    if re.fullmatch(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?[^0-9,]*", text):  # else they group nothing
        text = text.replace(",", "")
    found = re.fullmatch(r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?) ?([kmbt%]?)", text)
    try:
        if found is None:
            return math.nan
        return float(found[1]) / 100 if found[2] == "%" else float(found[1]) * _TIMES[found[2]]
    except ValueError:
        return math.nan
