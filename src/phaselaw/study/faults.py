"""What is wrong with a study, in words: the first of pydantic's errors as one line with file, line and key."""

import difflib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from phaselaw.errors import StudyError
from phaselaw.study.model import Study
from phaselaw.study.text import Document, KeyPath, display

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_too_short": "at least one character",
    "string_too_long": "at most {max_length} characters",
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping of keys"),
}
"""What should stand there, by pydantic's type of error."""

_MESSAGES = {
    "missing": "missing; add it",
    "union_tag_not_found": "kind is missing; say which engine, such as kind: hf",
    "too_short": "is empty; give at least one",
    "too_long": "has too many items; at most {max_length}",
}


def first_fault(error: ValidationError, data: dict[str, Any], document: Document) -> StudyError:
    """The fault that stands first in the file, and how many more there are."""
    found: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors():
        found.setdefault(_path_of(details, data), []).append(details)
    # A list whose items are all wrong is also called too short: the items' own faults say more.
    above = {path[:end] for path in found for end in range(len(path))}
    deepest = [path for path in found if path not in above]
    path = min(deepest, key=lambda each: document.lines.get(each, 10**9))
    more = f" (and {len(deepest) - 1} more)" if len(deepest) > 1 else ""
    return document.fault(path, _in_words(found[path], path, data) + more)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that begins with a blank, or nothing where no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6) if len(word) <= 200 else []
    return f" (did you mean {close[0]!r}?)" if close else ""


def _path_of(details: ErrorDetails, data: Any) -> KeyPath:
    """Pydantic's location without the words that name a union's branch."""
    path: KeyPath = ()
    here = data
    for part in details["loc"]:
        with suppress(KeyError, IndexError, TypeError):
            here, path = here[part], (*path, part)
    return (*path, details["loc"][-1]) if details["type"] == "missing" else path


def _in_words(found: list[ErrorDetails], path: KeyPath, data: dict[str, Any]) -> str:
    details = found[0]
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    if kind in _MESSAGES:
        return _MESSAGES[kind].format(**context)
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(path[-1]), _keys_beside(path, data))}; remove or correct it"
    if kind == "union_tag_invalid":
        return f"kind {display(context.get('tag'))} is unknown; one of {context.get('expected_tags')}"
    if kind == "value_error":
        return details["msg"].removeprefix("Value error, ")
    wanted = " or ".join(dict.fromkeys(_wanted(each) for each in found))
    unquoted = len(found) == 1 and kind == "string_type" and isinstance(given, bool | int | float)
    return f"should be {wanted}, not {display(given)}{'; put it in quotes' if unquoted else ''}"


def _wanted(details: ErrorDetails) -> str:
    if details["type"] in _WANTED:
        return _WANTED[details["type"]].format(**details.get("ctx", {}))
    return details["msg"].removeprefix("Input should ").removeprefix("be ")


def _keys_beside(path: KeyPath, data: dict[str, Any]) -> list[str]:
    """The keys that may stand where an unknown one does, from the schema's definitions."""
    schema = Study.model_json_schema()
    if len(path) == 1:
        return list(schema["properties"])
    title = {"scenarios": "Scenario", "models": "ModelEntry", "axes": "Axes"}.get(str(path[0]))
    if path[0] == "backends":
        entry = data["backends"][path[1]]
        for definition in schema["$defs"].values():
            if definition.get("properties", {}).get("kind", {}).get("const") == entry.get("kind"):
                return list(definition["properties"])
    return list(schema["$defs"][title]["properties"]) if title else []
