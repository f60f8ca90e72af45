"""Writes the tables of the docs that follow from declarations in the source.

``python docs/generate.py`` rewrites each part between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in docs/*.md;
``--check`` writes nothing and exits 1 where one is not as its declaration. `GENERATED` holds the parts by name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from phaselaw.rundir.columns import MEASURED

DOCS = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def measured_columns() -> str:
    """The columns of ``metrics.csv``; neighbours that say the same are one row."""
    rows = []
    for doc, alike in groupby(MEASURED, key=lambda column: column.doc):
        rows.append((", ".join(f"`{column.name}`" for column in alike), doc))
    return table(("column", "meaning"), rows)


GENERATED: dict[str, Callable[[], str]] = {"columns of metrics.csv": measured_columns}
"""Each generated part of the docs: its name in the marker, and the function that gives its Markdown."""


def generated(text: str) -> str:
    """A page with its generated parts made anew; KeyError for a part that nothing makes."""
    return _PART.sub(lambda part: f"{part[1]}{GENERATED[part[2]]()}{part[3]}", text)


def main() -> int:
    stale = {path: new for path in DOCS.glob("*.md") if (new := generated(text := path.read_text())) != text}
    for path, new in stale.items():
        sys.stdout.write(f"{path.name}\n")
        if "--check" not in sys.argv:
            path.write_text(new)
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
