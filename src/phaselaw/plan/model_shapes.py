"""The shape of a model from what is on the disk: a ladder model's name, a model folder, a GGUF file, a run.

Only heads of files are read, never weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phaselaw.engines.gguf_header import read_header, read_tensors
from phaselaw.engines.llamacpp import model_info
from phaselaw.errors import AnalysisError, UsageError
from phaselaw.ladder.spec import ladder_model
from phaselaw.laws.architecture import CONFIG_NAMES
from phaselaw.machine.footprint import VALUE_BYTES, Architecture
from phaselaw.rundir import read as runs

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
          "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
"""Bytes a number, by safetensors' names."""


def shapes_of(source: str, *, dtype: str | None) -> dict[str, Architecture]:
    """The models of a source by name, with weights in ``dtype``, or as they are stored for ``None``.

    Raises `UsageError` where the source is none, and `AnalysisError` where its shape can't be told.
    """
    ladder, path = ladder_model(source), Path(source)
    if ladder is not None:
        facts = dataclasses.asdict(ladder)
        lookup = ladder.n_positions * ladder.n_embd
        stored = {source: facts | {"params_millions_measured": ladder.params / 1e6, "weights_bytes": 4 * ladder.params,
                                   "lookup_params": lookup, "lookup_bytes": 4 * lookup}}  # fmt: skip
    elif path.suffix == ".gguf" and path.is_file():
        stored = {path.name: _of_gguf(path)}
    elif (path / "config.json").is_file():
        stored = {path.name: _of_folder(path)}
    elif (path / "metrics.csv").is_file():
        stored = {f"{row['model']} ({row.get('backend')})": row for row in runs.load(path).models.iter_rows(named=True)}
    else:
        raise UsageError(f"{source}: give a ladder model's name, a model folder, a GGUF file or a run directory")
    found = {name: model for name, facts in stored.items() if (model := Architecture.of(facts)) is not None}
    if not found:
        raise AnalysisError(f"{source}: its shape can't be told (layers, width, heads, or a mixture of experts)")
    return {name: model if dtype is None else _in(model, dtype) for name, model in found.items()}


def _in(model: Architecture, dtype: str) -> Architecture:
    """The model with its weights in another number format."""
    each = VALUE_BYTES[dtype]
    return dataclasses.replace(model, weights_bytes=model.params * each, lookup_bytes=model.lookup_params * each)


def _of_gguf(path: Path) -> dict[str, Any]:
    header, tables = read_header(path), read_tensors(path)
    numbers, size = (sum(each[at] for each in tables.values()) for at in (0, 1))
    family = header.get("general.architecture")
    vocabulary = tables.get("token_embd.weight", (0, 0))[0] // max(1, int(header.get(f"{family}.embedding_length", 1)))
    meta = {"n_params": numbers, "size": size, "n_vocab": vocabulary}
    return dataclasses.asdict(model_info(meta, {}, header, tables))


def _of_folder(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = [each for path in sorted(folder.glob("*.safetensors")) for each in _tensors(path).items()]
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{folder}: its config or weights can't be read: {error}") from None
    config = config.get("text_config", config)
    facts = {
        key: next((config[name] for name in names if config.get(name)), None) for key, names in CONFIG_NAMES.items()
    }
    sizes = [(name, math.prod(each["shape"]), _BYTES[each["dtype"]]) for name, each in tensors]
    # Weights that are tied are stored once, under either name.
    has_head = any(name.endswith("lm_head.weight") for name, _, _ in sizes)
    looked_up = ("wpe.weight", "embed_positions.weight", *(("wte.weight", "embed_tokens.weight") if has_head else ()))
    tables = [(numbers, numbers * each) for name, numbers, each in sizes if name.endswith(looked_up)]
    return facts | {
        "params_millions_measured": sum(numbers for _, numbers, _ in sizes) / 1e6,
        "weights_bytes": sum(numbers * each for _, numbers, each in sizes),
        "lookup_params": sum(numbers for numbers, _ in tables),
        "lookup_bytes": sum(size for _, size in tables),
    }


def _tensors(path: Path) -> Mapping[str, Any]:
    """The head of a safetensors file: each tensor's type and shape (its format: 8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} is no safetensors file")
        head: dict[str, Any] = json.loads(file.read(length))
    head.pop("__metadata__", None)
    return head
