"""What a GGUF file says of itself: the metadata at its head, read without the weights or any library.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

import math
import mmap
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from phaselaw.errors import EngineError, reading
from phaselaw.machine.model_config import NOT_KNOWN, facts_of

Scalar = int | float | bool | str | list[int]
Table = tuple[int, int]
"""A tensor's numbers, and the bytes that they take in the file."""

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_WHOLE, _LONG = (4, 5, 7), 1 << 10
"""Types whose arrays are of interest (a number a layer), and the length from which they are none of layers."""
_MAX_ENTRIES = 1 << 24
"""More entries, or bytes of a text, than any model has: the file is damaged."""
_MAX_DIMENSIONS = 8


CONFIG = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "v_head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}
"""Keys of GGUF's metadata, after the architecture's name, and what configs call the same."""


def architecture(metadata: Mapping[str, Any], tables: Mapping[str, Table] | None = None) -> dict[str, Any]:
    """What metadata in GGUF's names states of a model, as fields of `ModelInfo`; absent what it doesn't state.

    Experts are counted where the tensors are known, else by their shape: three matrices each.
    """
    family = metadata.get("general.architecture")
    stated = {key.removeprefix(f"{family}."): value for key, value in metadata.items() if key.startswith(f"{family}.")}
    stated = {key: value for key, value in stated.items() if isinstance(value, int | list)}
    sliding = stated.get("attention.sliding_window_pattern")
    if isinstance(sliding, list):
        stated["layer_types"] = ["sliding_attention" if each else "full_attention" for each in sliding]
    config = {CONFIG.get(key, key.replace(".", "_")): value for key, value in stated.items()}
    found = facts_of(config | {"model_type": family})
    if found["n_experts"] and tables:
        experts = [size for name, size in tables.items() if "_exps." in name]
        found["expert_params"], found["expert_bytes"] = (sum(each[at] for each in experts) for at in (0, 1))
    elif found["n_experts"]:
        inner = stated.get("expert_feed_forward_length") or stated.get("feed_forward_length")
        layers = (found["n_layer"] or 0) - stated.get("leading_dense_block_count", 0)
        if isinstance(inner, int) and found["n_embd"]:
            found["expert_params"] = layers * found["n_experts"] * 3 * found["n_embd"] * inner
    if hidden := [key for key, value in metadata.items() if key.startswith(f"{family}.") and value is None]:
        found["kv_cache"] = f"{NOT_KNOWN}it is not said what its layers have of {', '.join(hidden)}"
    return {field: value for field, value in found.items() if value is not None}


def read_header(path: Path) -> tuple[Mapping[str, Scalar], Mapping[str, Table]]:
    """A file's metadata by its key, without texts and numbers in long lists, and each tensor's size by its name.

    Raises `EngineError` for what is no GGUF.
    """
    damaged = partial(EngineError, kind="load")
    try:
        with path.open("rb") as whole, reading(f"{path}: its GGUF header", damaged, struct.error):
            if whole.read(4) != b"GGUF":
                raise EngineError(f"{path}: not a GGUF file", kind="load")
            # Mapped, since a vocabulary is many small reads, and a load is timed with them.
            file = mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_READ)
            file.seek(4)
            version, tensors, entries = _number(file, "I"), _number(file, "Q"), _number(file, "Q")
            if version not in (2, 3):
                raise EngineError(f"{path}: GGUF version {version}; versions 2 and 3 can be read", kind="load")
            metadata = {_text(file): _value(file, _number(file, "I")) for _ in range(_bounded(entries))}
            found = {key: value for key, value in metadata.items() if value is not None}
            alignment = found.get("general.alignment", 32)
            if type(alignment) is not int or not 0 < alignment < _MAX_ENTRIES:
                raise ValueError(f"an alignment of {alignment}")
            return found, _tables(file, _bounded(tensors), alignment)
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}", kind="load") from error


def _tables(file: mmap.mmap, count: int, alignment: int) -> dict[str, Table]:
    """The tensors that the head lists; each reaches to the next one's offset, the last one to the end of the file."""
    listed = []
    for _ in range(count):
        name = _text(file)
        dimensions = _number(file, "I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        numbers = math.prod(_number(file, "Q") for _ in range(dimensions))
        _number(file, "I")  # its type, which is not needed
        listed.append((_number(file, "Q"), name, numbers))
    data = -(-file.tell() // alignment) * alignment
    listed.sort()
    ends = [offset for offset, _, _ in listed[1:]] + [len(file) - data]
    return {name: (numbers, end - offset) for (offset, name, numbers), end in zip(listed, ends, strict=True)}


def _number(file: mmap.mmap, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]


def _bounded(count: int) -> int:
    if count > _MAX_ENTRIES:
        raise ValueError(count)
    return count


def _text(file: mmap.mmap) -> str:
    return file.read(_bounded(_number(file, "Q"))).decode()


def _value(file: mmap.mmap, kind: int) -> Scalar | None:
    """A value; ``None`` for an array that is no short one of whole numbers: it is passed over."""
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        if kind not in _FORMATS:
            raise ValueError(kind)
        number: Scalar = _number(file, _FORMATS[kind])
        return number
    element, count = _number(file, "I"), _bounded(_number(file, "Q"))
    if element in _WHOLE and count <= _LONG:
        return [int(_number(file, _FORMATS[element])) for _ in range(count)]
    if element in _FORMATS:
        file.seek(count * struct.calcsize(_FORMATS[element]), 1)
    elif element == _STRING:
        at, length = file.tell(), struct.Struct("<Q")
        for _ in range(count):
            at += length.size + length.unpack_from(file, at)[0]
        file.seek(at)
    else:
        for _ in range(count):
            _value(file, element)
    return None
