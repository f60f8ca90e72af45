"""``--set key=value``: single values of the command line, put into a study's data before it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phaselaw.errors import UsageError
from phaselaw.study.text import MAX_DEPTH, Document, KeyPath, key_text, parse, printable, shown


def apply_settings(settings: Sequence[str], data: dict[str, Any], document: Document) -> None:
    """Put each ``key=value`` into the data, in order; the value is YAML.

    A key is a path with dots; an item of a list goes by its name or its index: ``backends.hf_cpu_fp32.threads``.
    Errors name the key and never the value, which could be a secret.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set {shown(key)}: give it as key=value, such as gen_tokens=8")
        _put(key, text, data, document)
    axes = data.get("axes")
    if ("gen_tokens",) in document.settings and isinstance(axes, dict) and axes.get("gen_tokens") is not None:
        raise UsageError(
            "--set gen_tokens: no effect, since this study has axes.gen_tokens; give --set axes.gen_tokens=[8]"
        )


def _put(key: str, text: str, data: dict[str, Any], document: Document) -> None:
    where = f"--set {printable(key)}"
    value = parse(text, Document(where, has_lines=False))
    path = ("axes", "gen_tokens") if key == "gen_tokens_list" else _find(key, data, where)
    if len(path) > MAX_DEPTH:
        raise UsageError(f"{where}: a key of {len(path)} parts; a study is flat")
    target: Any = data
    for depth, part in enumerate(path[:-1], start=1):
        # A key that is absent or empty becomes a mapping: axes and options may be left out of the file.
        if isinstance(target, dict) and target.get(part) is None:
            target[part] = {}
            document.replaced(path[:depth], where)
        target = target[part]
        if not isinstance(target, dict | list):
            raise UsageError(f"{where}: {key_text(path[:depth])} is a single value and holds no keys")
    target[path[-1]] = value
    document.replaced(path, where)


def _find(key: str, data: Any, where: str) -> KeyPath:
    path: KeyPath = ()
    here, rest = data, key
    while rest:
        if isinstance(here, list):
            name, index = _item(here, rest, where)
            path, here, rest = (*path, index), here[index], rest[len(name) + 1 :]
        else:
            part, _, rest = rest.partition(".")
            path, here = (*path, part), here.get(part) if isinstance(here, dict) else None
    return path


def _item(items: list[Any], rest: str, where: str) -> tuple[str, int]:
    """The item of a list that the rest of a key begins with: the word it goes by, and its index."""
    names = [str(item["name"]) for item in items if isinstance(item, dict) and "name" in item]
    # A name may hold dots (qwen2.5:7b), so the longest name that fits is taken.
    fitting = [name for name in names if rest == name or rest.startswith(f"{name}.")]
    if fitting:
        name = max(fitting, key=len)
        found = [at for at, item in enumerate(items) if isinstance(item, dict) and str(item.get("name")) == name]
        if len(found) > 1:
            raise UsageError(f"{where}: several items are named {shown(name)}; give the index, from 0")
        return name, found[0]
    word = rest.partition(".")[0]
    if word.isascii() and word.isdigit() and len(word) < 6 and int(word) < len(items):
        return word, int(word)
    known = ", ".join(names) or f"an index below {len(items)}"
    raise UsageError(f"{where}: {shown(rest)} names none of: {known if len(known) <= 300 else known[:297] + '...'}")
