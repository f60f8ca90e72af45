"""The text of a study file as plain data: YAML read under bounds, with the line that each key stands on.

The file is text from outside, so it is bounded before it is understood: its size, its nesting, the number of its values
(an alias counts as often as it is used), no tags, no merge keys, no key twice.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from phaselaw.errors import StudyError

MAX_BYTES = 1_000_000
MAX_DEPTH = 30
MAX_VALUES = 50_000
MAX_INTEGER = 2**64

KeyPath = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_TAG_DIRECTIVE = re.compile(r"^%TAG\b", re.MULTILINE)
_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")


class Document:
    """Where the values of a study are from: the line of each key path, or the ``--set`` that put it there."""

    def __init__(self, source: str, *, has_lines: bool = True) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.settings: dict[KeyPath, str] = {}
        self.values = 0
        self._has_lines = has_lines

    def place(self, line: int) -> str:
        """A line of this source as a person finds it: ``study.yaml:7``."""
        return f"{self.source}:{line}" if self._has_lines else self.source

    def fault(self, path: KeyPath, what: str) -> StudyError:
        """The error of a key path, at its line or else at that of the nearest key above it."""
        where = next((found for end in range(len(path), -1, -1) if (found := self._origin(path[:end]))), self.place(1))
        return StudyError(f"{where}: {key_text(path)}: {what}" if path else f"{where}: {what}")

    def replaced(self, path: KeyPath, setting: str) -> None:
        """Note that the value of a key path is not the file's but a setting's."""
        self.lines = {known: line for known, line in self.lines.items() if known[: len(path)] != path}
        self.settings[path] = setting

    def _origin(self, path: KeyPath) -> str | None:
        if path in self.settings:
            return f"{self.source}: {self.settings[path]}"
        return self.place(self.lines[path]) if path in self.lines else None


def key_text(path: KeyPath) -> str:
    """A key path as a person writes it: ``backends[0].device``; a key that can't be printed is shown as a literal."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = printable(part)
            text += f".{word}" if text else word
    return text


def printable(word: str) -> str:
    """A key or a file's name as it is, or as a literal where it could not stand in one line of a terminal."""
    return word if word.isprintable() and 0 < len(word) <= 200 else shown(word)


def shown(value: Any) -> str:
    """A value as it stands in an error: a literal, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(path: Path) -> str:
    """The text of a file that may be anything; raises `StudyError` where it is no text or too large."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise StudyError(f"{path}: a folder; give a study file")
        if not stat.S_ISREG(status.st_mode):
            raise StudyError(f"{path}: not a plain file; give a study file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StudyError(f"{path}: can't be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        size = max(status.st_size, len(raw)) / 1e6
        raise StudyError(f"{path}: {size:.1f} MB is too large for a study (at most {MAX_BYTES / 1e6:.0f} MB)")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}:{line}: not a text file in UTF-8; give a YAML study") from None
    return text


def parse(text: str, document: Document) -> Any:
    """Plain data (dict, list, str, int, float, bool, None) of a YAML text, its lines noted in ``document``."""
    odd = _NOT_TEXT.search(text)
    if odd is not None:
        place = document.place(text.count("\n", 0, odd.start()) + 1)
        raise StudyError(f"{place}: the character U+{ord(odd[0]):04X} is not text; give a YAML study in UTF-8")
    directive = _TAG_DIRECTIVE.search(text)
    if directive is not None:
        # Before the parser sees them: it compares each with all before it, which takes 20 s for a file of 1 MB.
        place = document.place(text.count("\n", 0, directive.start()) + 1)
        raise StudyError(f"{place}: the directive %TAG is not allowed in a study; remove it")
    try:
        _refuse_unsafe_events(text, document)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be understood"
        raise StudyError(f"{document.place(line)}: not valid YAML: {_cut(problem)}") from None
    return None if node is None else _plain(node, (), document)


def _cut(problem: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in problem)
    return printable if len(printable) <= 160 else printable[:157] + "..."


def _refuse_unsafe_events(text: str, document: Document) -> None:
    """Bound what the parser would build, before it does: composing recurses, and deep nesting would end the process."""
    depth = documents = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        place = document.place(1 if event.start_mark is None else event.start_mark.line + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise StudyError(f"{place}: a second YAML document; a study is one")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise StudyError(f"{place}: nested deeper than {MAX_DEPTH} levels; a study is flat")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        values += isinstance(event, yaml.NodeEvent)
        if values > MAX_VALUES:
            raise StudyError(f"{place}: more than {MAX_VALUES} values; a study is smaller")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise StudyError(f"{place}: the tag {shown(tag)} is not allowed in a study; remove it")


def _plain(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    document.values += 1
    document.lines.setdefault(path, node.start_mark.line + 1)
    if len(path) > MAX_DEPTH:
        raise document.fault(path[:1], f"nested deeper than {MAX_DEPTH} levels once its aliases are expanded")
    if document.values > MAX_VALUES:
        raise document.fault(path[:1], f"more than {MAX_VALUES} values once its aliases are expanded; write it out")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(node, path, document))
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, path, document)


def _pairs(node: yaml.MappingNode, path: KeyPath, document: Document) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise StudyError(f"{document.place(line)}: a key must be a plain word")
        key = key_node.value
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise StudyError(f"{document.place(line)}: merge keys (<<) are not supported; write the keys out")
        if key in seen:
            where = f"{document.place(line)}: {key_text((*path, key))}"
            raise StudyError(f"{where}: given twice (first in line {seen[key]}); keep one")
        seen[key] = line
        document.lines[(*path, key)] = line
        yield key, _plain(value_node, (*path, key), document)


def _scalar(node: yaml.ScalarNode, path: KeyPath, document: Document) -> Any:
    """A scalar as YAML 1.2 and editors read it, where PyYAML's 1.1 differs: 1e3 is a number, 1:30 is not."""
    if node.tag not in _SCALARS:
        raise document.fault(path, f"a value of type {shown(node.tag.rpartition(':')[2])} is not allowed")
    text: str = node.value
    is_number = node.tag.endswith((":int", ":float"))
    if node.tag.endswith(":timestamp") or (is_number and ":" in text):
        return text
    try:
        plain_exponent = node.tag.endswith(":str") and not node.style and _EXPONENT.fullmatch(text)
        value = float(text) if plain_exponent else yaml.SafeLoader("").construct_object(node)
    except (ValueError, yaml.YAMLError):
        raise document.fault(path, f"{shown(text)} can't be read as a number") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise document.fault(path, f"{shown(text)} is not a number that can be measured with")
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise document.fault(path, f"{shown(text)} is too large a number")
    return value
