"""GPT-2 models as GGUF files, which llama.cpp and Ollama load: the same weights on several engines.

What stands in a file is `phaselaw.ladder.gguf_writer`; here is which files there are, and that each is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from phaselaw.errors import MissingExtraError, NotReadyError, UsageError
from phaselaw.files import cache_folder, write_json, write_whole
from phaselaw.ladder.build import WEIGHTS as WEIGHTS_FILE
from phaselaw.ladder.build import chosen, one_process_at_a_time, resolve, sha256_of, shipped_checksums
from phaselaw.ladder.gguf_writer import BLOCK, Weights, write_gguf
from phaselaw.ladder.gpt2_folder import Gpt2Folder
from phaselaw.ladder.spec import LADDER, LadderModel, ladder_model

FORMATS: tuple[Weights, ...] = get_args(Weights)
EXPORTER = 1
"""Raised when what is written changes: older files of the cache are then written anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A GGUF file and the Modelfile beside it."""

    name: str
    weights: Weights
    path: Path
    modelfile: Path


def gguf_directory() -> Path:
    """Where exported files are kept: ``gguf`` beside the ladder's own folder in the cache."""
    return cache_folder() / "gguf"


def refusal(name: str, weights: Weights, *widths: int) -> str | None:
    """Why a model whose matrices have rows of these widths can't be quantised so; ``None`` where it can."""
    uneven = [width for width in widths if width % BLOCK]
    if weights not in ("q8_0", "q4_0") or not uneven:
        return None
    return f"{name} can't be {weights}: its width {uneven[0]} is not a multiple of {BLOCK}; use f32 or f16"


def ladder_refusal(model: LadderModel, weights: Weights) -> str | None:
    """Why a model of the ladder can't be quantised so; ``None`` where it can."""
    return refusal(model.name, weights, model.n_embd, model.inner_width)


def exportable(names: Sequence[str] | None, formats: Sequence[Weights]) -> tuple[list[tuple[str, Weights]], list[str]]:
    """What to export, and why the rest of the ladder isn't. A model that is named and can't be is a `UsageError`.

    A name is the ladder's, or a folder's that holds a GPT-2.
    """
    folders = [name for name in names or () if ladder_model(name) is None and Path(name).is_dir()]
    models = chosen(None if names is None else [name for name in names if name not in folders])
    wanted: list[tuple[str, Weights]] = [(name, each) for name in folders for each in formats]
    refused = []
    for model in models:
        for each in formats:
            why = ladder_refusal(model, each)
            if why is None:
                wanted.append((model.name, each))
            elif names is not None:
                raise UsageError(why)
            else:
                refused.append(why)
    return wanted, refused


def is_exported(model: LadderModel, weights: Weights) -> bool:
    """Whether the cache has a ladder model's GGUF file."""
    return _recorded(_place(model.name, weights, gguf_directory()), every_byte=False) == _source_of(model)


def gguf_file(name: str, weights: Weights) -> Path:
    """The GGUF file of a ladder model in the cache, exported now if it isn't there. Raises `NotReadyError`."""
    model = ladder_model(name)
    if model is None:
        raise NotReadyError(f"the ladder has no {name!r}; it has: {', '.join(each.name for each in LADDER)}")
    if is_exported(model, weights):
        return _place(model.name, weights, gguf_directory()).path
    return export(model.name, weights).path


def export(name: str, weights: Weights, out: Path | None = None, note: Callable[[str], None] | None = None) -> Exported:
    """Write a model as GGUF below ``out`` (the cache for ``None``), with a Modelfile for ``ollama create``.

    A file that is there already is read through and kept when whole. ``note`` gets a line when one is written.
    Raises `NotReadyError` where the folder holds no GPT-2 or the place can't be written, `UsageError` for a width
    that can't be quantised, `MissingExtraError` without the package ``gguf``.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("llamacpp", "exporting GGUF files")
    model = ladder_model(name)
    source = resolve(name if model is None else f"models/{model.name}")
    stem = Path(source).resolve().name if model is None else model.name
    exported = _place(stem, weights, gguf_directory() if out is None else out)
    folder = Gpt2Folder(Path(source))
    why = refusal(stem, weights, folder.number("n_embd"), folder.inner_width)
    if why is not None:
        raise UsageError(why)
    identity = _source_of(model) if model is not None else _hash_of_weights(folder.path)
    try:
        with one_process_at_a_time(exported.path):
            if _recorded(exported, every_byte=True) != identity:
                if note is not None:
                    note(f"writing {exported.path}")
                _write(folder, exported, identity)
    except OSError as error:
        raise NotReadyError(f"can't write {exported.path}: {error.strerror or error}") from error
    return exported


def _place(stem: str, weights: Weights, out: Path) -> Exported:
    named = f"{stem}-{weights}"
    return Exported(name=stem, weights=weights, path=out / f"{named}.gguf", modelfile=out / f"{named}.Modelfile")


def _source_of(model: LadderModel) -> str:
    return shipped_checksums()[model.name][WEIGHTS_FILE].sha256


def _hash_of_weights(folder: Path) -> str:
    """One hash over a folder's weights, file after file."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _recorded(exported: Exported, *, every_byte: bool) -> str | None:
    """What the weights of a file were made from, by SHA-256; ``None`` where it is absent, damaged or outdated."""
    try:
        record = json.loads(exported.path.with_suffix(".json").read_text(encoding="utf-8"))
        whole = (
            record["exporter"] == EXPORTER
            and exported.modelfile.is_file()
            and exported.path.stat().st_size == record["bytes"]
            and (not every_byte or sha256_of(exported.path) == record["sha256"])
        )
        return str(record["source_sha256"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Gpt2Folder, exported: Exported, identity: str) -> None:
    partial = exported.path.with_name(f".{exported.path.name}.partial")
    try:
        write_gguf(folder, partial, name=exported.name, weights=exported.weights)
        record = {
            "exporter": EXPORTER,
            "source_sha256": identity,
            "bytes": partial.stat().st_size,
            "sha256": sha256_of(partial),
        }
        write_whole(exported.modelfile, modelfile(exported, folder.number("n_positions")))
        partial.replace(exported.path)
        write_json(exported.path.with_suffix(".json"), record)
    finally:
        partial.unlink(missing_ok=True)


def modelfile(exported: Exported, n_positions: int) -> str:
    """What ``ollama create`` reads: the file, a bare template, and the context the model has."""
    return (
        f"# ollama create models/{exported.name}:{exported.weights} -f {exported.modelfile.name}\n"
        f"FROM ./{exported.path.name}\n"
        'TEMPLATE "{{ .Prompt }}"\n'
        f"PARAMETER num_ctx {n_positions}\n"
    )
