"""The ladder's weights: seeded noise, bit for bit the same on any machine, as safetensors: written, and heads read.

numpy promises that a bit generator's raw stream never changes, but not what its distributions make of it. So
raw integers are mapped by hand: 24 random bits become an odd integer between -2^24 and 2^24, which float32
holds exactly, and one float32 multiplication scales it. The result is uniform with mean 0 and the standard
deviation that GPT-2 initialises its weights with; what is timed depends on shapes, not on the values, of which some are
set so that greedy decoding runs through all its tokens on every engine (`UNSPEAKABLE`).
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselaw.ladder.spec import LadderModel

if TYPE_CHECKING:
    import numpy.typing as npt

STD = 0.02
"""Standard deviation of GPT-2's initial weights; over sqrt(2 layers) for projections to the residual."""

UNSPEAKABLE = ((94, 187), (222, 255), (11038, 11997), (12190, 12190), (50256, 50256))
"""Tokens, first and last of each range, that are no valid UTF-8 alone, and end-of-text: greedy decoding avoids them.

Their embeddings are zero, so that they are never the likeliest. With that and the last layer norm at -1, by which a
token is the least likely to follow itself, a reply never ends inside a character or repeats one piece: Ollama ends a
reply that does, without its last line. Shapes, and so times, stay.
"""
_EMBEDDING, _LAST_NORM = "transformer.wte.weight", "transformer.ln_f.weight"

_CHUNK = 1 << 20

Shape = tuple[int, ...]


def tensor_shapes(model: LadderModel) -> dict[str, Shape]:
    """Name and shape of every stored tensor, as ``GPT2LMHeadModel`` names them, less the tied ``lm_head``."""
    width, inner = model.n_embd, model.inner_width
    shapes: dict[str, Shape] = {
        _EMBEDDING: (model.vocab_size, width),
        "transformer.wpe.weight": (model.n_positions, width),
    }
    for layer in range(model.n_layer):
        block = f"transformer.h.{layer}"
        for name, shape in {
            "ln_1": (width,),
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "ln_2": (width,),
            "mlp.c_fc": (width, inner),
            "mlp.c_proj": (inner, width),
        }.items():
            shapes[f"{block}.{name}.weight"] = shape
            shapes[f"{block}.{name}.bias"] = shape[-1:]
    shapes[_LAST_NORM] = shapes["transformer.ln_f.bias"] = (width,)
    return shapes


def seeded_integers(seed: str, count: int) -> "npt.NDArray[Any]":
    """The first ``count`` raw 64-bit integers of the stream that a text names (Philox, keyed by SHA-256)."""
    import numpy as np  # not at the top: what only reads heads starts sooner

    key = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "little")
    return np.random.Philox(key=key).random_raw(count)


def safetensors_chunks(model: LadderModel) -> Iterator[bytes]:
    """The model's ``model.safetensors``, in pieces: header length, header, then the tensors in float32."""
    shapes = tensor_shapes(model)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data must start at a multiple of eight
    yield len(text).to_bytes(8, "little") + text
    for name, shape in shapes.items():
        yield from _tensor_chunks(model, name, math.prod(shape))


def _tensor_chunks(model: LadderModel, name: str, count: int) -> Iterator[bytes]:
    import numpy as np

    if name.endswith(".bias") or ".ln_" in name:
        # Layer norms start as the identity, the last one as its negative.
        value = 0.0 if name.endswith(".bias") else -1.0 if name == _LAST_NORM else 1.0
        yield np.full(count, value, dtype="<f4").tobytes()
        return
    std = STD / math.sqrt(2 * model.n_layer) if name.endswith("c_proj.weight") else STD
    scale = np.float32(std * math.sqrt(3) / 2**24)  # a uniform on [-a, a] has the standard deviation a / sqrt(3)
    key = f"phaselaw ladder 1: {model.name} {name}"
    raw = seeded_integers(key, (count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    for start in range(0, count, _CHUNK):
        odd = (raw[start : start + _CHUNK] >> 8).astype(np.int32) * 2 + (1 - (1 << 24))
        numbers = odd.astype(np.float32) * scale
        for first, last in UNSPEAKABLE if name == _EMBEDDING else ():
            numbers[max(0, first * model.n_embd - start) : max(0, (last + 1) * model.n_embd - start)] = 0.0
        yield numbers.astype("<f4", copy=False).tobytes()


def tensors_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Type and shape of each tensor of a folder's safetensors files, by their heads; raises `OSError`, `ValueError`.

    The format: 8 bytes of length, then JSON, from whose end, ``data``, the offsets into the ``file`` count.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError(f"{path} is no safetensors file")
            head = json.loads(file.read(length))
        head.pop("__metadata__", None)
        found |= {name: {**each, "file": path, "data": 8 + length} for name, each in head.items()}
    return found
