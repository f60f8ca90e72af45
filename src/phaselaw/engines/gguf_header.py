"""What a GGUF file says of itself: the metadata at its head, read without the weights or any library.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from phaselaw.errors import EngineError

Scalar = int | float | bool | str
Table = tuple[int, int]
"""A tensor's numbers, and the bytes that they take in the file."""

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_ENTRIES = 1 << 24
"""More entries, or bytes of a text, than any model has: the file is damaged."""


ARCHITECTURE = {
    "n_layer": "block_count",
    "n_embd": "embedding_length",
    "n_head": "attention.head_count",
    "n_inner": "feed_forward_length",
    "n_positions": "context_length",
}
"""Fields of `ModelInfo`, and the keys after the architecture's name that state them."""


def architecture(metadata: Mapping[str, Any], **more: str) -> dict[str, Any]:
    """The counts that metadata in GGUF's names states of a model: `ARCHITECTURE` and ``more`` of its kind."""
    family, keys = metadata.get("general.architecture"), ARCHITECTURE | more
    stated = {field: metadata.get(f"{family}.{key}") for field, key in keys.items()}
    return {field: value for field, value in stated.items() if isinstance(value, int) and not isinstance(value, bool)}


def read_header(path: Path) -> tuple[Mapping[str, Scalar], Mapping[str, Table]]:
    """Every scalar of a file's metadata by its key, arrays left out, and the size of each tensor by its name.

    Raises `EngineError` for what is no GGUF.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise EngineError(f"{path}: not a GGUF file", kind="load")
            version, tensors, entries = _number(file, "I"), _number(file, "Q"), _number(file, "Q")
            if version not in (2, 3):
                raise EngineError(f"{path}: GGUF version {version}; versions 2 and 3 can be read", kind="load")
            metadata = {_text(file): _value(file, _number(file, "I")) for _ in range(_bounded(entries))}
            found = {key: value for key, value in metadata.items() if value is not None}
            return found, _tables(file, _bounded(tensors), int(found.get("general.alignment", 32)))
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}", kind="load") from error
    except (struct.error, ValueError) as error:
        raise EngineError(f"{path}: its GGUF header is damaged", kind="load") from error


def _tables(file: BinaryIO, count: int, alignment: int) -> dict[str, Table]:
    """The tensors that the head lists; each reaches to the next one's offset, the last one to the end of the file."""
    listed = []
    for _ in range(count):
        name = _text(file)
        numbers = math.prod(_number(file, "Q") for _ in range(_number(file, "I")))
        _number(file, "I")  # its type, which is not needed
        listed.append((_number(file, "Q"), name, numbers))
    data = -(-file.tell() // alignment) * alignment
    listed.sort()
    ends = [offset for offset, _, _ in listed[1:]] + [file.seek(0, 2) - data]
    return {name: (numbers, end - offset) for (offset, name, numbers), end in zip(listed, ends, strict=True)}


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]


def _bounded(count: int) -> int:
    if count > _MAX_ENTRIES:
        raise ValueError(count)
    return count


def _text(file: BinaryIO) -> str:
    return file.read(_bounded(_number(file, "Q"))).decode()


def _value(file: BinaryIO, kind: int) -> Scalar | None:
    """A value; ``None`` for an array, which is passed over."""
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        if kind not in _FORMATS:
            raise ValueError(kind)
        number: Scalar = _number(file, _FORMATS[kind])
        return number
    element, count = _number(file, "I"), _bounded(_number(file, "Q"))
    if element in _FORMATS:
        file.seek(count * struct.calcsize(_FORMATS[element]), 1)
    else:
        for _ in range(count):
            if element == _STRING:
                file.seek(_bounded(_number(file, "Q")), 1)
            else:
                _value(file, element)
    return None
