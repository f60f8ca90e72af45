"""The text of a study as plain data: YAML read under bounds, with the line of each key, and what ``--set`` puts in.

The file is text from outside, so it is bounded before it is understood: its size, its nesting, the number of its values
(an alias counts as often as it is used), no tags, no merge keys, no key twice.
"""

import math
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from phaselaw.errors import StudyError, UsageError

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
        above = (path[:end] for end in range(len(path), -1, -1))
        known = next((each for each in above if each in self.settings or each in self.lines), ())
        setting = self.settings.get(known)
        where = f"{self.source}: {setting}" if setting else self.place(self.lines.get(known, 1))
        return StudyError(f"{where}: {key_text(path)}: {what}" if path else f"{where}: {what}")

    def forget(self, path: KeyPath) -> None:
        """Forget the lines of a key path and of what is below it."""
        self.lines = {known: line for known, line in self.lines.items() if known[: len(path)] != path}

    def replaced(self, path: KeyPath, setting: str) -> None:
        """Note that the value of a key path is not the file's but a setting's."""
        self.forget(path)
        self.settings[path] = setting


def key_text(path: KeyPath) -> str:
    """A key path as a person writes it: ``backends[0].device``; a key that can't be printed is shown as a literal."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path).removeprefix(".")


def printable(word: str) -> str:
    """A key or a file's name as it is, or as a literal where it could not stand in one line of a terminal."""
    return word if word.isprintable() and 0 < len(word) <= 200 else display(word)


def display(value: Any) -> str:
    """A value as it stands in an error: a literal, cut where it is long."""
    return _cut(repr(value), 60)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def read_text(path: Path) -> str:
    """The text of a file that may be anything; raises `StudyError` where it is no text or too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a plain file"
            raise StudyError(f"{path}: {what}; give a study file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StudyError(f"{path}: can't be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        size = max(status.st_size, len(raw)) / 1e6
        raise StudyError(f"{path}: {size:.1f} MB is too large for a study (at most {MAX_BYTES / 1e6:.0f} MB)")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}:{line}: not a text file in UTF-8; give a YAML study") from None


def parse(text: str, document: Document) -> Any:
    """Plain data (dict, list, str, int, float, bool, None) of a YAML text, its lines noted in ``document``."""
    # %TAG before the parser sees it: it compares each with all before it, which takes 20 s for a file of 1 MB.
    for pattern, what in (
        (_NOT_TEXT, "the character U+{:04X} is not text; give a YAML study in UTF-8"),
        (_TAG_DIRECTIVE, "the directive %TAG is not allowed in a study; remove it"),
    ):
        if odd := pattern.search(text):
            place = document.place(text.count("\n", 0, odd.start()) + 1)
            raise StudyError(f"{place}: {what.format(ord(odd[0][0]))}")
    try:
        _refuse_unsafe_events(text, document)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = document.place(mark.line + 1 if mark is not None else 1)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be understood"
        visible = "".join(letter if letter.isprintable() else " " for letter in problem)
        raise StudyError(f"{place}: not valid YAML: {_cut(visible, 160)}") from None
    return None if node is None else _plain(node, (), document)


def _refuse_unsafe_events(text: str, document: Document) -> None:
    """Bound what the parser would build, before it does: composing recurses, and deep nesting would end the process."""
    depth = documents = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        tag = getattr(event, "tag", None)
        for wrong, what in (
            (documents > 1, "a second YAML document; a study is one"),
            (depth > MAX_DEPTH, f"nested deeper than {MAX_DEPTH} levels; a study is flat"),
            (values > MAX_VALUES, f"more than {MAX_VALUES} values; a study is smaller"),
            (tag not in (None, "!"), f"the tag {display(tag)} is not allowed in a study; remove it"),
        ):
            if wrong:
                raise StudyError(f"{document.place(event.start_mark.line + 1 if event.start_mark else 1)}: {what}")


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
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        what = None
        if not isinstance(key_node, yaml.ScalarNode):
            what = "a key must be a plain word"
        elif key_node.tag == "tag:yaml.org,2002:merge":
            what = "merge keys (<<) are not supported; write the keys out"
        elif key in first:
            what = f"{key_text((*path, key))}: given twice (first in line {first[key]}); keep one"
        if what is not None:
            raise StudyError(f"{document.place(line)}: {what}")
        first[key] = document.lines[(*path, key)] = line
        yield key, _plain(value_node, (*path, key), document)


def _scalar(node: yaml.ScalarNode, path: KeyPath, document: Document) -> Any:
    """A scalar as YAML 1.2 and editors read it, where PyYAML's 1.1 differs: 1e3 is a number, 1:30 is not."""
    if node.tag not in _SCALARS:
        raise document.fault(path, f"a value of type {display(node.tag.rpartition(':')[2])} is not allowed")
    text: str = node.value
    is_number = node.tag.endswith((":int", ":float"))
    if node.tag.endswith(":timestamp") or (is_number and ":" in text):
        return text
    try:
        plain_exponent = node.tag.endswith(":str") and not node.style and _EXPONENT.fullmatch(text)
        value = float(text) if plain_exponent else yaml.SafeLoader("").construct_object(node)
    except (ValueError, yaml.YAMLError):
        raise document.fault(path, f"{display(text)} can't be read as a number") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise document.fault(path, f"{display(text)} is not a number that can be measured with")
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise document.fault(path, f"{display(text)} is too large a number")
    return value


def apply_settings(settings: Sequence[str], data: dict[str, Any], document: Document) -> None:
    """Put each ``key=value`` into the data, in order; the value is YAML.

    A key is a path with dots; an item of a list goes by its name or its index: ``backends.hf_cpu_fp32.threads``.
    Errors name the key and never the value, which could be a secret.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set {display(key)}: give it as key=value, such as gen_tokens=8")
        _put(key, text, data, document)
    axes = data.get("axes")
    if ("gen_tokens",) in document.settings and isinstance(axes, dict) and axes.get("gen_tokens") is not None:
        no_effect = "no effect, since this study has axes.gen_tokens; give --set axes.gen_tokens=[8]"
        raise UsageError(f"--set gen_tokens: {no_effect}")


def _put(key: str, text: str, data: dict[str, Any], document: Document) -> None:
    where = f"--set {printable(key)}"
    value = parse(text, Document(where, has_lines=False))
    path: KeyPath = ()
    here: Any = data
    rest = "axes.gen_tokens" if key == "gen_tokens_list" else key
    if (parts := rest.count(".") + 1) > MAX_DEPTH:
        raise UsageError(f"{where}: a key of {parts} parts; a study is flat")
    while rest:
        if type(here) not in (dict, list):
            raise UsageError(f"{where}: {key_text(path)} is a single value and holds no keys")
        part, rest = _item(here, rest, where) if isinstance(here, list) else rest.partition(".")[::2]
        path = (*path, part)
        if not rest:
            here[part] = value
            document.replaced(path, where)
        elif type(here) is dict and here.get(part) is None:
            # A key that is absent or empty becomes a mapping: axes and options may be left out of the file.
            here[part] = {}
            document.replaced(path, where)
        here = here[part]


def _item(items: list[Any], rest: str, where: str) -> tuple[int, str]:
    """The item of a list that a key begins with, by its index, and the rest of the key."""
    names = {at: str(item["name"]) for at, item in enumerate(items) if isinstance(item, dict) and "name" in item}
    # The longest that fits, since a name may hold dots (qwen2.5:7b); a model of the ladder goes by its short name too.
    words = {word for name in names.values() for word in (name, name.removeprefix("models/"))}
    fitting = [word for word in words if rest == word or rest.startswith(f"{word}.")]
    if fitting:
        word = max(fitting, key=len)
        found = [at for at, name in names.items() if name == word]
        found = found or [at for at, name in names.items() if name == f"models/{word}"]
        if len(found) > 1:
            raise UsageError(f"{where}: several items are named {display(word)}; give the index, from 0")
        return found[0], rest[len(word) + 1 :]
    word, _, rest_of_key = rest.partition(".")
    if word.isascii() and word.isdigit() and len(word) < 6 and int(word) < len(items):
        return int(word), rest_of_key
    known = ", ".join(names.values()) or f"an index below {len(items)}"
    raise UsageError(f"{where}: {display(rest)} names none of: {known if len(known) <= 300 else known[:297] + '...'}")
