"""Writes the tables of the docs that follow from declarations in the source.

``python docs/generate.py`` rewrites each part between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in docs/*.md;
``--check`` writes nothing and exits 1 where one is not as its declaration. `GENERATED` holds the parts by name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from phaselaw.laws.analysis import DECLARED
from phaselaw.rundir.columns import MEASURED
from phaselaw.study.file import study_schema
from phaselaw.study.model import DEVICE_PATTERN, NAME_PATTERN, URL_PATTERN, NamedBackend, ServedBackend

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


_OF_SERVERS = ServedBackend.model_fields.keys() - NamedBackend.model_fields.keys()
_TEXTS = {NAME_PATTERN: "name", DEVICE_PATTERN: "device", URL_PATTERN: "address"}
_PARTS = {
    "a study": None, "a scenario": "Scenario", "a model": "ModelEntry", "axes": "Axes", "hf": "HfBackend",
    "simulated": "SimulatedBackend", "ollama": "OllamaBackend", "llamacpp": "LlamacppBackend",
    "openai": "OpenaiBackend",
}  # fmt: skip
"""The parts of a study, by the name of their table, and their definition in the schema."""


def study_keys(part: str | None) -> str:
    """The keys of one part of a study: type, default and meaning."""
    schema = study_schema()
    schema = schema if part is None else schema["$defs"][part]
    required = {*schema.get("required", ()), *schema.get("anyOf", [{}])[0].get("required", ())}
    rows = []
    # What all servers share comes last.
    for key, said in sorted(
        schema["properties"].items(),
        key=lambda item: "idle_timeout_s" in schema["properties"] and item[0] in _OF_SERVERS,
    ):
        if key != "gen_tokens_list":
            default = "required" if key in required else _default(key, said)
            rows.append((f"`{key}`", _type(key, said), default, said.get("description", "")))
    return table(("key", "type", "default", "meaning"), rows)


def _default(key: str, said: dict[str, Any]) -> str:
    if key == "run_name":
        return "the file's name"
    if said.get("default") is None and "anyOf" in said:
        return "none"
    return f"`{yaml.safe_dump(said.get('default', {}), default_flow_style=True).removesuffix('...' + chr(10)).strip()}`"


def _type(key: str, said: dict[str, Any]) -> str:
    """The type of a value in words."""
    low, high = said.get("minimum"), said.get("maximum")
    match said:
        case {"anyOf": kinds}:
            return " or ".join(_type(key, kind) for kind in kinds if kind.get("type") != "null")
        case {"const": value}:
            return f"`{value}`"
        case {"enum": [*values, last]}:
            return f"{', '.join(f'`{value}`' for value in values)} or `{last}`"
        case {"type": "array", "items": items}:
            one = _type(key, items)
            return "list" if "type" not in items else f"list of {one}s" if one.isalpha() else "list of whole numbers"
        case {"type": "string"}:
            return _TEXTS.get(said.get("pattern", ""), "text")
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "integer"}:
            most = "2^63 - 1" if high is None else f"{high:,}"
            return "whole number" if low is None else "count" if (low, high) == (1, 1_000_000) else f"{low} to {most}"
        case {"type": "number"} if key.endswith("_ms"):
            return "milliseconds"
        case {"type": "number"} if key.endswith("_s"):
            return "seconds"
        case {"type": "number"}:
            return "number above 0" if low is None else f"{low:g} to {high:g}"
    return "mapping"


def analysis_tables() -> str:
    """Every table of an analysis: what it holds, and its columns in order, with their headings in a report."""
    rows = []
    for name, declared in DECLARED.items():
        columns = [(column.key, column.doc or column.title) for column in declared.columns]
        listed = ", ".join(f"`{key}`" + (f" ({said})" if said and said != key else "") for key, said in columns)
        rows.append((f"`{name}`", declared.holds, listed))
    return table(("table", "what it holds", "columns"), rows)


GENERATED: dict[str, Callable[[], str]] = {
    "tables of an analysis": analysis_tables,
    "columns of metrics.csv": measured_columns,
    **{f"keys of {name}": partial(study_keys, part) for name, part in _PARTS.items()},
}
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
