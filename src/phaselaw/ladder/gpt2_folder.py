"""A GPT-2 in a folder as transformers keeps it: config, byte-level BPE tokenizer and weights, read without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from phaselaw.errors import NotReadyError

Array = npt.NDArray[Any]

GELU_TANH = ("gelu_new", "gelu_pytorch_tanh")
"""The activations that llama.cpp's GPT-2 has: GELU by its tanh formula."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A byte-level BPE tokenizer: entries by id, merges in order."""

    tokens: list[str]
    merges: list[str]
    """Each merge as its two parts with a blank between them."""
    added: Mapping[int, bool]
    """Ids of entries beside the merges, and whether each is special (a control token, not text)."""
    padding: tuple[int, ...]
    """Ids up to the model's vocabulary that the tokenizer doesn't use."""


class Gpt2Folder:
    """A model's folder. Raises `NotReadyError`, naming the file, for what isn't a GPT-2 that llama.cpp can run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = _json(path / "config.json")
        if self.config.get("model_type") != "gpt2":
            raise NotReadyError(f"{path}/config.json: model_type is {self.config.get('model_type')!r}, not 'gpt2'")
        if self.config.get("activation_function", "gelu_new") not in GELU_TANH:
            raise NotReadyError(f"{path}/config.json: llama.cpp's GPT-2 has no {self.config['activation_function']!r}")
        self._tensors = _tensors(path)

    def number(self, name: str) -> int:
        """A whole number of the config."""
        try:
            return int(self.config[name])
        except (KeyError, TypeError, ValueError):
            raise NotReadyError(f"{self.path}/config.json: {name} is missing or is no number") from None

    @property
    def inner_width(self) -> int:
        """Width of the feed-forward layer."""
        return int(self.config.get("n_inner") or 4 * self.number("n_embd"))

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """What is stored, by names without ``transformer.``; attention masks left out."""
        return tuple(name for name in self._tensors if not name.endswith((".attn.bias", ".attn.masked_bias")))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        return self._tensors[name].shape

    def tensor(self, name: str) -> Array:
        """A stored tensor in float32, in the file's layout."""
        return self._tensors[name].read()

    def vocabulary(self) -> Vocabulary:
        """The tokenizer of ``tokenizer.json``."""
        file = self.path / "tokenizer.json"
        document = _json(file)
        model = document.get("model", {})
        if model.get("type") != "BPE" or not _byte_level(document.get("pre_tokenizer")):
            raise NotReadyError(f"{file}: not a byte-level BPE tokenizer, the only kind that can be exported")
        added = {entry["id"]: bool(entry["special"]) for entry in document.get("added_tokens", [])}
        by_id = {index: token for token, index in model["vocab"].items()}
        by_id |= {entry["id"]: entry["content"] for entry in document.get("added_tokens", [])}
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        ids = range(self.number("vocab_size"))
        return Vocabulary(
            tokens=[by_id.get(index, f"[PAD{index}]") for index in ids],
            merges=merges,
            added=added,
            padding=tuple(index for index in ids if index not in by_id),
        )


def _byte_level(pre_tokenizer: Any) -> bool:
    return isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "ByteLevel"


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotReadyError(f"{path}: {error.strerror}; a model's folder needs this file") from None
    except ValueError as error:
        raise NotReadyError(f"{path}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise NotReadyError(f"{path}: not a JSON object")
    return document


class Stored(NamedTuple):
    """A tensor of a safetensors file, read when it is asked for."""

    file: Path
    reader: Any
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> Array:
        """Its values in float32."""
        if self.dtype != "BF16":
            values: Array = self.reader.get_tensor(self.name)
            return values.astype("<f4", copy=False)
        # numpy has no bfloat16, which is the upper half of a float32.
        raw = dict(_deserialized(self.file))[self.name]["data"]
        return (np.frombuffer(raw, dtype="<u2").astype("<u4") << 16).view("<f4").reshape(self.shape)


@cache
def _deserialized(file: Path) -> Any:
    import safetensors

    deserialize: Any = safetensors.deserialize
    return deserialize(file.read_bytes())


def _tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of numbers of a folder's safetensors files by its name without ``transformer.``."""
    import safetensors

    found: dict[str, Stored] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            reader: Any = safetensors.safe_open(file, framework="numpy")
        except safetensors.SafetensorError as error:
            raise NotReadyError(f"{file}: not a sound safetensors file ({error})") from None
        for name in reader.keys():  # noqa: SIM118
            part = reader.get_slice(name)
            if part.get_dtype() in ("F32", "F16", "BF16"):  # masks are stored as booleans or bytes
                stored = Stored(file, reader, name, part.get_dtype(), tuple(part.get_shape()))
                found[name.removeprefix("transformer.")] = stored
    if not found:
        raise NotReadyError(f"{folder}: no weights as safetensors; put them there")
    return found
