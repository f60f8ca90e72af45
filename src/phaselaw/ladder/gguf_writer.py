"""What stands in a GGUF file of a GPT-2: metadata, vocabulary, tensors. The same source gives the same bytes.

``f32`` keeps every bit. ``f16``, ``q8_0`` and ``q4_0`` are applied to every weight matrix, the embedding (which is
the output projection too) included; vectors and position embeddings stay in float32. llama.cpp's own quantiser keeps
the output projection finer in its q4_0 files: ours are what it calls *pure*.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from phaselaw.errors import NotReadyError
from phaselaw.ladder.gpt2_folder import Array, Gpt2Folder

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

Weights = Literal["f32", "f16", "q8_0", "q4_0"]
"""How the weight matrices are kept."""

BLOCK = 32
"""Values that q8_0 and q4_0 quantise together; a row must be a whole number of them."""

_FILE_TYPES: dict[Weights, str] = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}

_TENSORS = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
"""GPT-2's names and GGUF's."""


def write_gguf(folder: Gpt2Folder, path: Path, *, name: str, weights: Weights) -> None:
    """Write a GPT-2 as a GGUF file. Raises `NotReadyError` for tensors that a GPT-2 doesn't have."""
    import gguf

    stored = {
        each: _kind(each, folder.shape(each), weights)
        for each in folder.tensor_names
        if not (each == "lm_head.weight" and folder.config.get("tie_word_embeddings", True))
    }
    writer = gguf.GGUFWriter(path, "gpt2")
    try:
        _add_metadata(writer, folder, name=name, weights=weights)
        _add_vocabulary(writer, folder)
        for each, kind in stored.items():
            shape = _oriented_shape(each, folder.shape(each))
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            size = math.prod(shape) // block * block_bytes
            writer.add_tensor_info(_gguf_name(each, folder.path), shape, np.dtype("f4"), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for each, kind in stored.items():
            writer.write_tensor_data(gguf.quants.quantize(_oriented(each, folder.tensor(each)), kind))
    finally:
        writer.close()


def _add_metadata(writer: GGUFWriter, folder: Gpt2Folder, *, name: str, weights: Weights) -> None:
    import gguf

    writer.add_name(name)
    writer.add_context_length(folder.number("n_positions"))
    writer.add_embedding_length(folder.number("n_embd"))
    writer.add_feed_forward_length(folder.inner_width)
    writer.add_block_count(folder.number("n_layer"))
    writer.add_head_count(folder.number("n_head"))
    writer.add_layer_norm_eps(float(folder.config.get("layer_norm_epsilon", 1e-5)))
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[weights]])
    if weights in ("q8_0", "q4_0"):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: GGUFWriter, folder: Gpt2Folder) -> None:
    import gguf

    vocabulary = folder.vocabulary()
    types = [gguf.TokenType.NORMAL] * len(vocabulary.tokens)
    for index in vocabulary.padding:
        types[index] = gguf.TokenType.UNUSED
    for index, special in vocabulary.added.items():
        types[index] = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(folder.number("bos_token_id"))
    writer.add_eos_token_id(folder.number("eos_token_id"))
    writer.add_add_bos_token(False)


def _gguf_name(name: str, folder: Path) -> str:
    """``h.3.attn.c_attn.weight`` is ``blk.3.attn_qkv.weight``."""
    stem, _, kind = name.rpartition(".")
    block, parts = "", stem.split(".")
    if parts[0] == "h" and len(parts) > 2:
        block, stem = f"blk.{parts[1]}.", ".".join(parts[2:])
    if stem not in _TENSORS:
        raise NotReadyError(f"{folder}: a GPT-2 has no tensor {name!r}")
    return f"{block}{_TENSORS[stem]}.{kind}"


def _kind(name: str, shape: tuple[int, ...], weights: Weights) -> GGMLQuantizationType:
    import gguf

    keeps_float = len(shape) < 2 or name == "wpe.weight"
    return gguf.GGMLQuantizationType["F32" if keeps_float else weights.upper()]


def _is_transposed(name: str) -> bool:
    """GPT-2 keeps the matrices of its blocks as (in, out); GGUF wants (out, in)."""
    return name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))


def _oriented_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if _is_transposed(name) else shape


def _oriented(name: str, tensor: Array) -> Array:
    return np.ascontiguousarray(tensor.T if _is_transposed(name) else tensor)
