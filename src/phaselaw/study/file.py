"""Reading a study: YAML in, a checked study out, and for each fault one line with file, line and key."""

import copy
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from phaselaw.errors import StudyError, near
from phaselaw.study.model import SCHEMA_VERSION, AnyBackend, Axes, ModelEntry, Scenario, ServedBackend, Study
from phaselaw.study.text import Document, KeyPath, apply_settings, display, parse, printable, read_text

MAX_CALLS = 1_000_000
"""Calls of one study; more is a slip (at a tenth of a second each, more than a day)."""

LADDER = "models/"
"""How the models of the ladder are named; a study may leave it out where nothing else can be meant."""

_TR121 = yaml.safe_load(resources.files("phaselaw.study").joinpath("tr121_names.yaml").read_text())
BARE_NAMES: dict[str, dict[str, dict[str, Any]]] = {
    key: {name: {"name": name, **settings} for name, settings in entries.items()} for key, entries in _TR121.items()
}
"""What TR121's scaling study means by an entry that is only a name."""

_USER_IN_URL = re.compile(r"://[^/?#\s]*@")


def load_study(
    name_or_path: str,
    *,
    settings: Sequence[str] = (),
    backends: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    scenarios: Sequence[str] | None = None,
) -> Study:
    """Read a study file or a shipped study, with ``key=value`` settings put in and allow-lists applied.

    Its backends are as its axes ask. Raises `StudyError`: file, line, key, what is wrong and what to do.
    """
    path = study_path(name_or_path)
    lists = {"backends": backends, "models": models, "scenarios": scenarios}
    return put_to_axes(_selected(_read(path, settings), str(path), lists), str(path))


def shipped_studies() -> dict[str, Path]:
    """The studies that ship with the package, by name."""
    folder = Path(str(resources.files("phaselaw").joinpath("studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def study_path(name_or_path: str) -> Path:
    """The file of a shipped study or of a path; raises `StudyError` where there is none."""
    shipped = shipped_studies()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    try:
        if not name_or_path:
            raise FileNotFoundError  # Path("") is the current folder, which nobody asked for.
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hint = did_you_mean(name_or_path, shipped) or "; these ship: phaselaw study list"
        raise StudyError(f"{printable(name_or_path)}: no such study file, nor a shipped study{hint}") from None
    except OSError as error:
        raise StudyError(f"{printable(name_or_path)}: can't be read: {error.strerror}") from None
    return path


def _read(path: Path, settings: Sequence[str]) -> Study:
    document = Document(str(path))
    data = parse(read_text(path), document)
    if data is None:
        raise document.fault((), "the file is empty; see: phaselaw study show gpt2-ladder-cpu")
    if not isinstance(data, dict):
        raise document.fault((), "a study is a mapping of keys such as run_name, scenarios, backends, models")
    # Before the settings, which go to entries by name; and after, since a setting may be a name too.
    _resolve(data, document)
    apply_settings(settings, data, document)
    _resolve(data, document)
    _fill_in_prompts(data, document)
    data.setdefault("run_name", path.stem)
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        raise first_fault(error, data, document) from None
    study = _with_full_names(study)
    faults = (_batches_of_texts_for_a_server, _models_without_backend, _too_many_calls)
    for at, what in (*_duplicates(study, document), *chain.from_iterable(find(study) for find in faults)):
        raise document.fault(at, what)
    return study


def _resolve(data: dict[str, Any], document: Document) -> None:
    """Bare names become TR121's entries, and its ``gen_tokens_list`` our axis; a secret goes no further than here."""
    for path, text in _texts(data, ()):
        if _USER_IN_URL.search(text):
            what = "holds a user name or password, which would be kept with the run; leave it out here and give the "
            what += "server's address in the engine's environment variable, such as OLLAMA_HOST"
            raise document.fault(path, what)
    for key, known in BARE_NAMES.items():
        entries: list[Any] = data[key] if isinstance(data.get(key), list) else []
        for index, entry in enumerate(entries):
            if isinstance(entry, str):
                name = _full_name(entry) if key == "models" else entry
                if name not in known:
                    hint = f"{did_you_mean(name, known)}; give it as a mapping with name: and its settings"
                    raise document.fault((key, index), f"no known entry {display(name)}{hint}")
                entries[index] = copy.deepcopy(known[name])
    axes = data.setdefault("axes", {}) if "gen_tokens_list" in data else None
    if isinstance(axes, dict):
        if "gen_tokens" in axes:
            raise document.fault(("gen_tokens_list",), "given beside axes.gen_tokens; keep one of them")
        axes["gen_tokens"] = data.pop("gen_tokens_list")
        for path, line in list(document.lines.items()):
            if path[0:1] == ("gen_tokens_list",):
                document.lines["axes", "gen_tokens", *path[1:]] = line


def _full_name(name: str) -> str:
    """``models/gpt2-25m`` for ``gpt2-25m``, unless a file or folder here has that name."""
    full = f"{LADDER}{name}"
    return full if full in BARE_NAMES["models"] and not Path(name).exists() else name


def _with_full_names(study: Study) -> Study:
    """The study with the full names of ladder models, where an engine would take nothing else by the short one.

    A server that runs already has names of its own.
    """
    kinds = {"hf", "llamacpp"} - {backend.kind for backend in study.backends if getattr(backend, "url", None)}
    names = {model.name for model in study.models}

    def named(model: ModelEntry) -> ModelEntry:
        name = _full_name(model.name) if model.kind in kinds else model.name
        same_as = model.same_as and (model.same_as if model.same_as in names else _full_name(model.same_as))
        return model.model_copy(update={"name": name, "same_as": same_as})

    return study.model_copy(update={"models": tuple(map(named, study.models))})


def _fill_in_prompts(data: dict[str, Any], document: Document) -> None:
    """The scenarios of a sweep over prompt lengths, in place of any others: ``prompt_64`` for 64 tokens."""
    axes = data.get("axes")
    values = axes.get("prompt_tokens") if isinstance(axes, dict) else None
    if isinstance(values, list) and values and all(type(value) is int for value in values):
        data["scenarios"] = [{"name": f"prompt_{value}", "prompt_tokens": value} for value in dict.fromkeys(values)]
        document.forget(("scenarios",))


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
            if not (key in ("prompt", "prompts") and path[:1] == ("scenarios",)):
                yield from _texts(item, (*path, key))


Fault = tuple[KeyPath, str]


def _duplicates(study: Study, document: Document) -> Iterator[Fault]:
    for key in ("scenarios", "backends", "models"):
        first: dict[tuple[str, str], int] = {}
        for index, entry in enumerate(getattr(study, key)):
            at = first.setdefault((entry.name, entry.kind if isinstance(entry, ModelEntry) else ""), index)
            if at != index:
                line = document.lines.get((key, at), 1)
                yield (key, index), f"{display(entry.name)} is there twice (first in line {line}); keep one"
    for axis, values in study.axes:
        for index, value in enumerate(values or ()):
            if value in values[:index]:
                yield ("axes", axis, index), f"{value} is there twice; keep one"


def _models_without_backend(study: Study) -> Iterator[Fault]:
    for index, model in enumerate(study.models):
        of_kind = [backend.name for backend in study.backends if backend.kind == model.kind]
        if not of_kind:
            yield ("models", index), f"{display(model.name)} is of kind {model.kind!r} but no backend is; add one"
        for name in model.backends or ():
            if name not in of_kind:
                what = f"no backend {display(name)} of kind {model.kind!r}{did_you_mean(name, of_kind)}"
                yield ("models", index, "backends"), what


def _batches_of_texts_for_a_server(study: Study) -> Iterator[Fault]:
    served = [backend.name for backend in study.backends if isinstance(backend, ServedBackend)]
    for index, scenario in enumerate(study.scenarios):
        if served and scenario.prompts is not None:
            what = f"backend {served[0]} is a server, which batches by itself; give one prompt"
            yield ("scenarios", index, "prompts"), what


def _too_many_calls(study: Study) -> Iterator[Fault]:
    """Counted without listing the cells, of which a short file could ask for more than fit in memory."""
    backends = Counter(backend.kind for backend in study.backends)
    pairs = sum(len(model.backends or ()) or backends[model.kind] for model in study.models)
    values = [len(values or (0,)) for axis, values in study.axes if axis != "prompt_tokens"]
    cells = pairs * len(study.scenarios) * math.prod(values)
    calls_of_a_client = study.replicates * (study.warmup_repetitions + study.repetitions)
    calls = cells * max(study.axes.concurrency or (1,)) * calls_of_a_client
    if calls > MAX_CALLS:
        many = f"{calls:,} calls in {cells:,} cell{'s' * (cells != 1)}"
        yield ("repetitions",), f"{many}; a study has at most {MAX_CALLS:,}"


def _selected(study: Study, source: str, lists: dict[str, Sequence[str] | None]) -> Study:
    """The part of a study that the allow-lists name; raises `StudyError` for a name it lacks or an empty rest.

    Models left without a backend, and backends left without a model, go too: they would only be loaded or checked.
    """
    if all(names is None for names in lists.values()):
        return study
    kept = {key: _chosen(getattr(study, key), names, f"{source}: {key}") for key, names in lists.items()}
    kept["models"] = tuple(model for model in kept["models"] if any(map(model.runs_on, kept["backends"])))
    kept["backends"] = tuple(backend for backend in kept["backends"] if any(m.runs_on(backend) for m in kept["models"]))
    if not kept["models"]:
        raise StudyError(f"{source}: nothing is left to measure: no chosen model runs on a chosen backend")
    return study.model_copy(update=kept)


def _chosen(entries: tuple[Any, ...], names: Sequence[str] | None, where: str) -> tuple[Any, ...]:
    if names is None:
        return entries
    known = dict.fromkeys(entry.name for entry in entries)
    if not names:
        raise StudyError(f"{where}: the list of names is empty; it has: {', '.join(known)}")
    wanted = full_names(names, known)
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has: {', '.join(known)}"
            raise StudyError(f"{where}: no {display(name)} in this study{hint}")
    return tuple(entry for entry in entries if entry.name in wanted)


def full_names(names: Sequence[str], known: Collection[str]) -> list[str]:
    """The names that an allow-list means: a ladder model may be given by its short name."""
    return [name if name in known or LADDER + name not in known else LADDER + name for name in names]


def put_to_axes(study: Study, source: str) -> Study:
    """The study with a backend for each number of threads, and the served backends with the axis's clients.

    The other axes need no backends of their own: ``gen_tokens`` and ``batch_size`` are of a cell, ``prompt_tokens``
    makes scenarios. A study that a run kept stays. Raises `StudyError` where an axis can't be swept on a backend.
    """
    threads = study.axes.threads or ()
    asked = [(each.name, getattr(each, "threads", None)) for each in study.backends]
    if all(n in threads and name.endswith(_at("", n)) for name, n in asked):
        threads = ()
    for fault in _axes_that_cannot_be_swept(study, threads):
        raise StudyError(f"{source}: {fault}")
    backends, models = [], list(study.models)
    for each in study.backends:
        if study.axes.concurrency and isinstance(each, ServedBackend):
            each = each.model_copy(update={"concurrency": study.axes.concurrency})
        at = [each.model_copy(update={"name": _at(each.name, n), "threads": n}) for n in threads]
        backends += at or [each]
    for place, model in enumerate(models) if threads else ():
        if model.backends:
            at_each = tuple(_at(name, n) for name in model.backends for n in threads)
            models[place] = model.model_copy(update={"backends": at_each})
    return study.model_copy(update={"backends": tuple(backends), "models": tuple(models)})


def _at(backend: str, threads: int | None) -> str:
    """The name of a backend at one value of a ``threads`` axis."""
    return f"{backend}_threads{threads}"


def _axes_that_cannot_be_swept(study: Study, threads: Sequence[int]) -> Iterator[str]:
    served = [backend.name for backend in study.backends if isinstance(backend, ServedBackend)]
    if study.axes.batch_size is not None and served:
        rather = "sweep its concurrency, or leave it out with --backends"
        yield f"axes.batch_size: backend {served[0]} is a server, which batches by itself; {rather}"
    if study.axes.concurrency is not None and not served:
        yield "axes.concurrency: no backend is a server; sweep batch_size, or add a backend of kind llamacpp"
    for backend in study.backends if threads else ():
        if "threads" not in type(backend).model_fields or getattr(backend, "url", None) is not None:
            who = f"backend {backend.name}"
            yield f"axes.threads: the threads of {who} are not ours to set; leave it out with --backends"
    names = {backend.name for backend in study.backends}
    for taken in sorted(names & {_at(each, n) for each in names for n in threads}):
        yield f"axes.threads: it makes a backend {taken}, and there is one; rename that"


def study_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors: the types' own, with bare names and ``gen_tokens_list``."""
    schema = Study.model_json_schema()
    properties = dict(schema["properties"])
    definitions = dict(schema["$defs"])
    kinds = {"prompt": "string", "prompt_tokens": "integer"}
    one_prompt = [{"required": [key], "properties": {key: {"type": kind}}} for key, kind in kinds.items()]
    definitions["Scenario"] = {**definitions["Scenario"], "oneOf": one_prompt}
    for key, known in BARE_NAMES.items():
        entry = properties[key]["items"]
        short = [name.removeprefix(LADDER) for name in known if name.startswith(LADDER)]
        by_name = {"enum": sorted([*known, *short]), "description": "A name of TR121's scaling study."}
        properties[key] = {**properties[key], "items": {"anyOf": [entry, by_name]}}
    described = {"uniqueItems": True, "description": "TR121's name for axes.gen_tokens; give one of the two."}
    properties["gen_tokens_list"] = definitions["Axes"]["properties"]["gen_tokens"]["anyOf"][0] | described
    with_budgets = {"type": "object", "required": ["gen_tokens"]}
    both_names_of_the_axis = {"required": ["gen_tokens_list", "axes"], "properties": {"axes": with_budgets}}
    with_prompts = {"required": ["prompt_tokens"], "properties": {"prompt_tokens": {"type": "array"}}}
    swept_prompts = {"required": ["axes"], "properties": {"axes": with_prompts}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:phaselaw:study:{SCHEMA_VERSION}",
        "x-version": SCHEMA_VERSION,
        **schema,
        "title": "phaselaw study",
        "properties": properties,
        "$defs": definitions,
        "not": both_names_of_the_axis,
        "required": [key for key in schema["required"] if key not in ("run_name", "scenarios")],
        "anyOf": [{"required": ["scenarios"]}, swept_prompts],
    }


# --- what is wrong with a study, in words ---

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
    close = near(word, known)
    return f" (did you mean {close!r}?)" if close else ""


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
    """The keys that may stand where an unknown one does."""
    here: Any = Study
    if len(path) > 1:
        kinds = {get_args(each.model_fields["kind"].annotation)[0]: each for each in get_args(AnyBackend)}
        backend = kinds.get(data["backends"][path[1]].get("kind")) if path[0] == "backends" else None
        here = {"scenarios": Scenario, "models": ModelEntry, "axes": Axes, "backends": backend}.get(str(path[0]))
    return list(here.model_fields) if here else []
