"""Writing files that are whole or absent, and CSV cells that a spreadsheet can't run."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


CACHE_VARIABLE = "PHASELAW_CACHE"


def cache_folder() -> Path:
    """Where what was built or measured once is kept: ``$PHASELAW_CACHE``, or else the user's cache folder."""
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("phaselaw", appauthor=False)
    return Path(root).expanduser()


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file through a temporary one beside it and a rename: a reader sees the old or the new, never a part."""
    # A file name that is no UTF-8 reaches us as lone surrogates: escaped as JSON escapes them, they stay readable.
    raw = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document, whole; raises ValueError for NaN and infinities, which JSON has not."""
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV, whole: ``None`` is an empty cell, floats keep full precision, texts are made `cell_text`."""
    text = io.StringIO(newline="")
    # The writer quotes only the line ends it writes itself: told \r\n it quotes both, and each row's own becomes \n.
    writer, ended = csv.writer(text, lineterminator="\r\n"), []
    for cells in (columns, *([cell_text(row[column]) for column in columns] for row in rows)):
        writer.writerow(cells)
        ended.append(text.getvalue().removesuffix("\r\n") + "\n")
        text.seek(0)
        text.truncate()
    write_whole(path, "".join(ended))


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
