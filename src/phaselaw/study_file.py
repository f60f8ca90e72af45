"""Reading a study file: YAML in, a checked study out, and for each fault one line with file, line and key.

The file is text from outside, so it is bounded before it is understood: its size, its nesting, the number of its nodes
(an alias counts as often as it is used), no tags that name a Python type, no duplicate keys.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from phaselaw.errors import StudyError, UsageError
from phaselaw.tr121_names import BACKENDS, MODELS, SCENARIOS

MAX_BYTES = 1_000_000
MAX_DEPTH = 30
MAX_NODES = 50_000

KeyPath = tuple[str | int, ...]
StudyType = TypeVar("StudyType", bound=BaseModel)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}


class _Document:
    """Plain data of a file, and the line each key path stands on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.nodes = 0

    def fault(self, path: KeyPath, what: str) -> StudyError:
        """The error of a key path, at its line or else at that of the nearest key above it."""
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), 1)
        where = f"{self.source}:{line}"
        return StudyError(f"{where}: {key_text(path)}: {what}" if path else f"{where}: {what}")


def read(path: Path, study_type: type[StudyType], settings: Sequence[str] = ()) -> StudyType:
    """Read and check a study file; raises `StudyError` with one line that names file, line, key and what to do."""
    document = _Document(str(path))
    data = _parse(_text(path), document)
    for setting in settings:
        _apply(setting, data, document)
    _fill_in_names(data, document)
    try:
        study = study_type.model_validate(data)
    except ValidationError as error:
        raise _first_fault(error, data, document, study_type) from None
    _refuse_duplicates(data, document)
    _refuse_models_without_backend(data, document)
    return study


def key_text(path: KeyPath) -> str:
    """A key path as a person writes it: ``backends[0].device``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise StudyError(f"{path}: {size / 1e6:.0f} MB is too large for a study (at most {MAX_BYTES / 1e6:.0f} MB)")
        raw = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{path}: can't be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}:{line}: not a text file in UTF-8; give a YAML study") from None
    if "\0" in text:
        raise StudyError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: binary data; give a YAML study")
    return text


def _parse(text: str, document: _Document) -> dict[str, Any]:
    try:
        _refuse_unsafe_events(text, document)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be understood"
        raise StudyError(f"{document.source}:{line}: not valid YAML: {problem}") from None
    if node is None:
        raise StudyError(f"{document.source}:1: the file is empty; see: phaselaw study show gpt2-ladder-cpu")
    data = _plain(node, (), document)
    if not isinstance(data, dict):
        raise document.fault((), "a study is a mapping of keys such as run_name, scenarios, backends, models")
    return data


def _refuse_unsafe_events(text: str, document: _Document) -> None:
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise StudyError(f"{document.source}:{line}: a second YAML document; a study is one")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise StudyError(f"{document.source}:{line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise StudyError(f"{document.source}:{line}: the tag {tag!r} is not allowed in a study; remove it")


def _plain(node: yaml.Node, path: KeyPath, document: _Document) -> Any:
    document.nodes += 1
    document.lines.setdefault(path, node.start_mark.line + 1)
    if document.nodes > MAX_NODES or len(path) > MAX_DEPTH:
        raise document.fault(path[:1], f"more than {MAX_NODES} values once its aliases are expanded; write it out")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(node, path, document))
    return _scalar(node, path, document)


def _pairs(node: yaml.MappingNode, path: KeyPath, document: _Document) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise StudyError(f"{document.source}:{line}: a key must be a plain word")
        key = key_node.value
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise StudyError(f"{document.source}:{line}: merge keys (<<) are not supported; write the keys out")
        if key in seen:
            raise StudyError(
                f"{document.source}:{line}: {key_text((*path, key))}: given twice (first in line {seen[key]}); keep one"
            )
        seen[key] = line
        document.lines[(*path, key)] = line
        yield key, _plain(value_node, (*path, key), document)


def _scalar(node: yaml.Node, path: KeyPath, document: _Document) -> Any:
    if node.tag not in _SCALARS:
        raise document.fault(path, f"a value of type {node.tag.rpartition(':')[2]!r} is not allowed")
    if node.tag.endswith(":timestamp"):
        return node.value
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node)
    except (ValueError, yaml.YAMLError):
        raise document.fault(path, f"{node.value!r} can't be read as a value; put it in quotes") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise document.fault(path, f"{node.value} is not a number that can be measured with")
    return value


def _apply(setting: str, data: dict[str, Any], document: _Document) -> None:
    """Put one ``key=value`` of the command line into the data; list items go by their name or index."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {setting}: give it as key=value, such as gen_tokens=8")
    part_of_value = _Document(f"--set {key}")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        raise UsageError(f"--set {setting}: the value is not valid YAML") from None
    value = None if node is None else _plain(node, (), part_of_value)
    path = _find(key.strip(), data, setting)
    target: Any = data
    for part in path[:-1]:
        target = target[part] if isinstance(part, int) else target.setdefault(part, {})
    target[path[-1]] = value
    document.lines = {known: line for known, line in document.lines.items() if known[: len(path)] != path}


def _find(key: str, data: Any, setting: str) -> KeyPath:
    path: KeyPath = ()
    here, rest = data, key
    while rest:
        if isinstance(here, list):
            # A name may hold dots (qwen2.5:7b), so the longest name that fits is taken.
            names = {str(item.get("name") if isinstance(item, dict) else item): at for at, item in enumerate(here)}
            fitting = [name for name in names if rest == name or rest.startswith(f"{name}.")]
            if not fitting:
                raise UsageError(f"--set {setting}: {rest!r} names none of: {', '.join(names)}")
            name = max(fitting, key=len)
            path, here, rest = (*path, names[name]), here[names[name]], rest[len(name) + 1 :]
        else:
            part, _, rest = rest.partition(".")
            path, here = (*path, part), here.get(part) if isinstance(here, dict) else None
    return path


def _fill_in_names(data: dict[str, Any], document: _Document) -> None:
    """Bare names become TR121's entries, and its ``gen_tokens_list`` our axis."""
    for key, known in (("scenarios", SCENARIOS), ("backends", BACKENDS), ("models", MODELS)):
        entries: list[Any] = data[key] if isinstance(data.get(key), list) else []
        for index, entry in enumerate(entries):
            if isinstance(entry, str):
                entries[index] = dict(_named(entry, known, (key, index), document))
    if "gen_tokens_list" in data:
        axes = data.setdefault("axes", {})
        if isinstance(axes, dict):
            if "gen_tokens" in axes:
                raise document.fault(("gen_tokens_list",), "given beside axes.gen_tokens; keep one of them")
            axes["gen_tokens"] = data.pop("gen_tokens_list")
            for path, line in list(document.lines.items()):
                if path[:1] == ("gen_tokens_list",):
                    document.lines["axes", "gen_tokens", *path[1:]] = line


def _named(name: str, known: Mapping[str, Mapping[str, Any]], path: KeyPath, document: _Document) -> Mapping[str, Any]:
    if name not in known:
        hint = _did_you_mean(name, known)
        raise document.fault(path, f"no known entry {name!r}{hint}; give it as a mapping with name: and its settings")
    return known[name]


def _did_you_mean(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _first_fault(
    error: ValidationError, data: dict[str, Any], document: _Document, study_type: type[BaseModel]
) -> StudyError:
    found = [(_path_of(details["loc"], data), details) for details in error.errors()]
    # A list whose items are all wrong is also called too short: the items' own faults say more.
    deepest = [
        one
        for one in found
        if not any(len(other) > len(one[0]) and other[: len(one[0])] == one[0] for other, _ in found)
    ]
    path, details = min(deepest, key=lambda item: document.lines.get(item[0], 10**9))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return document.fault(path, _in_words(details, path, data, study_type) + more)


def _path_of(loc: tuple[str | int, ...], data: Any) -> KeyPath:
    """Pydantic's location without the words that name a union's branch."""
    path: KeyPath = ()
    here = data
    for at, part in enumerate(loc):
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here, path = here[part], (*path, part)
        elif at == len(loc) - 1 and isinstance(here, dict):
            path = (*path, part)
    return path


def _in_words(details: ErrorDetails, path: KeyPath, data: dict[str, Any], study_type: type[BaseModel]) -> str:
    kind, given = details["type"], _shown(details["input"])
    if kind == "extra_forbidden":
        return f"unknown key{_did_you_mean(str(path[-1]), _keys_beside(path, data, study_type))}; remove or correct it"
    if kind == "missing":
        return "missing; add it"
    if kind == "union_tag_not_found":
        return "kind is missing; say which engine, such as kind: hf"
    if kind == "union_tag_invalid":
        context = details.get("ctx", {})
        return f"kind {context.get('tag')!r} is unknown; one of {context.get('expected_tags')}"
    if kind == "value_error":
        return details["msg"].removeprefix("Value error, ")
    message = details["msg"].removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}, not {given}"


def _keys_beside(path: KeyPath, data: dict[str, Any], study_type: type[BaseModel]) -> list[str]:
    """The keys that may stand where an unknown one does, from the schema's definitions."""
    schema = study_type.model_json_schema()
    if len(path) == 1:
        return list(schema["properties"])
    title = {"scenarios": "Scenario", "models": "ModelEntry", "axes": "Axes"}.get(str(path[0]))
    if path[0] == "backends":
        entry = data["backends"][path[1]]
        for definition in schema["$defs"].values():
            if definition.get("properties", {}).get("kind", {}).get("const") == entry.get("kind"):
                return list(definition["properties"])
    return list(schema["$defs"][title]["properties"]) if title else []


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_duplicates(data: dict[str, Any], document: _Document) -> None:
    for key, identity in (("scenarios", ("name",)), ("backends", ("name",)), ("models", ("name", "kind"))):
        first: dict[tuple[Any, ...], int] = {}
        for index, entry in enumerate(data[key]):
            who = tuple(entry[part] for part in identity)
            if who in first:
                line = document.lines.get((key, first[who]), 1)
                raise document.fault((key, index), f"{entry['name']!r} is there twice (first in line {line}); keep one")
            first[who] = index
    for index, budget in enumerate(budgets := data.get("axes", {}).get("gen_tokens") or []):
        if budget in budgets[:index]:
            raise document.fault(("axes", "gen_tokens", index), f"{budget} is there twice; keep one")


def _refuse_models_without_backend(data: dict[str, Any], document: _Document) -> None:
    kinds = {backend["kind"]: backend["name"] for backend in data["backends"]}
    names = {backend["name"]: backend["kind"] for backend in data["backends"]}
    for index, model in enumerate(data["models"]):
        if model["kind"] not in kinds:
            raise document.fault(
                ("models", index), f"{model['name']!r} is of kind {model['kind']!r} but no backend is; add one"
            )
        for name in model.get("backends") or []:
            if names.get(name) != model["kind"]:
                raise document.fault(("models", index, "backends"), f"no backend {name!r} of kind {model['kind']!r}")
