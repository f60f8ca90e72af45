"""Reading a study file: YAML in, a checked study out, and for each fault one line with file, line and key."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from phaselaw.study.faults import did_you_mean, first_fault
from phaselaw.study.settings import apply_settings
from phaselaw.study.text import Document, KeyPath, parse, read_text, shown
from phaselaw.study.tr121_names import BACKENDS, MODELS, SCENARIOS

MAX_CALLS = 1_000_000
"""Calls of one study; more is a slip (at a tenth of a second each, more than a day)."""

StudyType = TypeVar("StudyType", bound=BaseModel)

_USER_IN_URL = re.compile(r"://[^/?#\s]*@")


def read(path: Path, study_type: type[StudyType], settings: Sequence[str] = ()) -> StudyType:
    """Read and check a study file; raises `StudyError` with one line that names file, line, key and what to do."""
    document = Document(str(path))
    data = _mapping(parse(read_text(path), document), document)
    _fill_in_names(data, document)
    apply_settings(settings, data, document)
    _fill_in_names(data, document)
    _fill_in_prompts(data, document)
    try:
        study = study_type.model_validate(data)
    except ValidationError as error:
        raise first_fault(error, data, document, study_type) from None
    _refuse_duplicates(data, document)
    _refuse_models_without_backend(data, document)
    _refuse_too_many_calls(study.model_dump(), document)
    return study


def _mapping(data: Any, document: Document) -> dict[str, Any]:
    if data is None:
        raise document.fault((), "the file is empty; see: phaselaw study show gpt2-ladder-cpu")
    if not isinstance(data, dict):
        raise document.fault((), "a study is a mapping of keys such as run_name, scenarios, backends, models")
    return data


def _fill_in_names(data: dict[str, Any], document: Document) -> None:
    """Bare names become TR121's entries, and its ``gen_tokens_list`` our axis; a secret goes no further than here."""
    for path, text in _texts(data, ()):
        if _USER_IN_URL.search(text):
            raise document.fault(
                path,
                "holds a user name or password, which would be kept with the run; leave it out here and give the "
                "server's address in the engine's environment variable, such as OLLAMA_HOST",
            )
    for key, known in (("scenarios", SCENARIOS), ("backends", BACKENDS), ("models", MODELS)):
        entries: list[Any] = data[key] if isinstance(data.get(key), list) else []
        for index, entry in enumerate(entries):
            if isinstance(entry, str):
                entries[index] = copy.deepcopy(_named(entry, known, (key, index), document))
    if "gen_tokens_list" in data:
        _move_to_axes(data, document)


def _fill_in_prompts(data: dict[str, Any], document: Document) -> None:
    """The scenarios of a sweep over prompt lengths, in place of any others: ``prompt_64`` for 64 tokens."""
    axes = data.get("axes")
    values = axes.get("prompt_tokens") if isinstance(axes, dict) else None
    if isinstance(values, list) and values and all(type(value) is int for value in values):
        prompts = [{"name": f"prompt_{value}", "prompt_tokens": value} for value in dict.fromkeys(values)]
        data["scenarios"] = prompts
        document.lines = {path: line for path, line in document.lines.items() if path[:1] != ("scenarios",)}


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text of the data with its key path, keys included; prompts left out, which may hold what they like."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            if not (key == "prompt" and path[:1] == ("scenarios",)):
                yield from _texts(item, (*path, key))


def _named(name: str, known: Mapping[str, dict[str, Any]], path: KeyPath, document: Document) -> dict[str, Any]:
    if name not in known:
        hint = did_you_mean(name, known)
        raise document.fault(
            path, f"no known entry {shown(name)}{hint}; give it as a mapping with name: and its settings"
        )
    return known[name]


def _move_to_axes(data: dict[str, Any], document: Document) -> None:
    """TR121's key for a sweep over decode budgets, as ours."""
    axes = data.setdefault("axes", {})
    if not isinstance(axes, dict):
        return
    if "gen_tokens" in axes:
        raise document.fault(("gen_tokens_list",), "given beside axes.gen_tokens; keep one of them")
    axes["gen_tokens"] = data.pop("gen_tokens_list")
    for path, line in list(document.lines.items()):
        if path[:1] == ("gen_tokens_list",):
            document.lines["axes", "gen_tokens", *path[1:]] = line


def _refuse_duplicates(data: dict[str, Any], document: Document) -> None:
    for key, identity in (("scenarios", ("name",)), ("backends", ("name",)), ("models", ("name", "kind"))):
        first: dict[tuple[Any, ...], int] = {}
        for index, entry in enumerate(data[key]):
            who = tuple(entry[part] for part in identity)
            if who in first:
                line = document.lines.get((key, first[who]), 1)
                what = f"{shown(entry['name'])} is there twice (first in line {line}); keep one"
                raise document.fault((key, index), what)
            first[who] = index
    for axis, values in (data.get("axes") or {}).items():
        for index, value in enumerate(values or ()):
            if value in values[:index]:
                raise document.fault(("axes", axis, index), f"{value} is there twice; keep one")


def _refuse_models_without_backend(data: dict[str, Any], document: Document) -> None:
    kind_of = {backend["name"]: backend["kind"] for backend in data["backends"]}
    kinds = set(kind_of.values())
    for index, model in enumerate(data["models"]):
        who, kind = shown(model["name"]), model["kind"]
        if kind not in kinds:
            raise document.fault(("models", index), f"{who} is of kind {kind!r} but no backend is; add one")
        for name in model.get("backends") or []:
            if kind_of.get(name) != kind:
                of_kind = [backend for backend, its_kind in kind_of.items() if its_kind == kind]
                what = f"no backend {shown(name)} of kind {kind!r}{did_you_mean(name, of_kind)}"
                raise document.fault(("models", index, "backends"), what)


def _refuse_too_many_calls(study: dict[str, Any], document: Document) -> None:
    """Counted without listing the cells, of which a short file could ask for more than fit in memory."""
    backends = Counter(backend["kind"] for backend in study["backends"])
    pairs = sum(len(model["backends"] or ()) or backends[model["kind"]] for model in study["models"])
    values = {axis: len(values or (0,)) for axis, values in study["axes"].items() if axis != "prompt_tokens"}
    cells = pairs * len(study["scenarios"]) * math.prod(values.values())
    calls = cells * max(study["axes"]["concurrency"] or (1,)) * (study["warmup_repetitions"] + study["repetitions"])
    if calls > MAX_CALLS:
        what = f"{calls:,} calls in {cells:,} cells; a study has at most {MAX_CALLS:,}"
        raise document.fault(("repetitions",), what)
