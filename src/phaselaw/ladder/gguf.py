"""GPT-2 models as GGUF files, which llama.cpp and Ollama load: the same weights on several engines.

A model is read from its folder as transformers keeps it: config, byte-level BPE tokenizer, weights as safetensors. The
same source gives the same bytes. ``f32`` keeps every bit. ``f16``, ``q8_0`` and ``q4_0`` are applied to every weight
matrix, the embedding (which is the output projection too) included; vectors and position embeddings stay in float32.
llama.cpp's own quantiser keeps the output projection finer in its q4_0 files: ours are what it calls *pure*.
"""

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from phaselaw.errors import MissingExtraError, NotReadyError, UsageError, reading, within
from phaselaw.files import cache_folder, json_object, replacing, sha256_of, write_json, write_whole
from phaselaw.ladder.build import WEIGHTS as WEIGHTS_FILE
from phaselaw.ladder.build import chosen, one_process_at_a_time, resolve, shipped_checksums
from phaselaw.ladder.spec import LadderModel, ladder_model
from phaselaw.ladder.weights import tensors_in

if TYPE_CHECKING:
    import numpy.typing as npt

Weights = Literal["f32", "f16", "q8_0", "q4_0"]
"""How the weight matrices are kept."""

_LARGEST = 10**7
"""No width, vocabulary or count of a GPT-2 comes near it."""
BLOCK = 32
"""Values that q8_0 and q4_0 quantise together; a row must be a whole number of them."""

_TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
"""GPT-2 keeps the matrices of its blocks as (in, out); GGUF wants (out, in)."""
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Number formats of safetensors, and numpy's, which has no bfloat16."""
QUANTISED = ("q8_0", "q4_0")
FORMATS: tuple[Weights, ...] = get_args(Weights)
LONGEST_EXPORT_S = 1800.0
EXPORTER = 2
"""Raised when what is written changes: older files of the cache are then written anew."""

GELU_TANH = ("gelu_new", "gelu_pytorch_tanh")
"""The activations that llama.cpp's GPT-2 has: GELU by its tanh formula."""


class Gpt2Folder:
    """A model's folder. Raises `NotReadyError`, naming the file, for what isn't a GPT-2 that llama.cpp can run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = json_object(path / "config.json", NotReadyError)
        if self.config.get("model_type") != "gpt2":
            raise NotReadyError(f"{path}/config.json: model_type is {self.config.get('model_type')!r}, not 'gpt2'")
        if self.config.get("activation_function", "gelu_new") not in GELU_TANH:
            raise NotReadyError(f"{path}/config.json: llama.cpp's GPT-2 has no {self.config['activation_function']!r}")
        self.tensors = _tensors(path)

    def number(self, name: str) -> int:
        value = self.config.get(name)
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise NotReadyError(f"{self.path}/config.json: {name} is missing, or no number that a GPT-2 has")
        return value

    @property
    def inner_width(self) -> int:
        return self.number("n_inner") if self.config.get("n_inner") else 4 * self.number("n_embd")


def _tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """Every tensor of numbers of a folder's safetensors files by its name without ``transformer.``."""
    found = {
        name.removeprefix("transformer."): tensor
        for name, tensor in tensors_in(folder).items()
        if tensor["dtype"] in _STORED  # masks are stored as booleans or bytes
    }
    if not found:
        raise NotReadyError(f"{folder}: no weights as safetensors; put them there")
    return found


def values_of(tensor: Mapping[str, Any]) -> "npt.NDArray[Any]":
    """A stored tensor in float32, in the file's layout."""
    import numpy as np

    begin = tensor["data"] + tensor["data_offsets"][0]
    stored = np.memmap(tensor["file"], _STORED[tensor["dtype"]], "r", begin, tuple(tensor["shape"]))
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        return (stored.astype("<u4") << 16).view("<f4")
    return stored.astype("<f4", copy=False)


def write_gguf(folder: Gpt2Folder, path: Path, *, name: str, weights: Weights) -> None:
    """Write a GPT-2 as a GGUF file. Raises `NotReadyError` for tensors that a GPT-2 doesn't have."""
    import gguf
    import numpy as np

    tied = ("lm_head.weight",) if folder.config.get("tie_word_embeddings", True) else ()
    masks = (".attn.bias", ".attn.masked_bias")
    stored = {each: tensor for each, tensor in folder.tensors.items() if not each.endswith(masks) and each not in tied}
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, min(folder.number("n_layer"), len(stored)))
    kinds, names = {}, {}
    for each, tensor in stored.items():
        prefix = "" if each.startswith("lm_head.") else "transformer."
        if (named := known.get_name(f"{prefix}{each}", (".weight", ".bias"))) is None:
            raise NotReadyError(f"{folder.path}: a GPT-2 has no tensor {each!r}")
        names[each], keeps_float = named, len(tensor["shape"]) < 2 or each == "wpe.weight"
        kinds[each] = gguf.GGMLQuantizationType["F32" if keeps_float else weights.upper()]
    writer = gguf.GGUFWriter(path, "gpt2")
    try:
        for fact, value in _metadata(folder, name=name, weights=weights).items():
            getattr(writer, f"add_{fact}")(value)
        for each, tensor in stored.items():
            shape = tensor["shape"][::-1] if each.endswith(_TRANSPOSED) else tensor["shape"]
            block, block_bytes = gguf.GGML_QUANT_SIZES[kinds[each]]
            size = math.prod(shape) // block * block_bytes
            writer.add_tensor_info(names[each], shape, np.dtype("f4"), size, raw_dtype=kinds[each])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for each, tensor in stored.items():
            values = values_of(tensor).T if each.endswith(_TRANSPOSED) else values_of(tensor)
            writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(values), kinds[each]))
    finally:
        writer.close()


def _metadata(folder: Gpt2Folder, *, name: str, weights: Weights) -> dict[str, Any]:
    """What the file says of the model and its tokenizer, by the names of the writer's methods, in order."""
    import gguf

    quantised = {"quantization_version": gguf.GGML_QUANT_VERSION} if weights in QUANTISED else {}
    return {
        "name": name,
        "context_length": folder.number("n_positions"),
        "embedding_length": folder.number("n_embd"),
        "feed_forward_length": folder.inner_width,
        "block_count": folder.number("n_layer"),
        "head_count": folder.number("n_head"),
        "layer_norm_eps": float(folder.config.get("layer_norm_epsilon", 1e-5)),
        "file_type": gguf.LlamaFileType["ALL_F32" if weights == "f32" else f"MOSTLY_{weights.upper()}"],
        **quantised,
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "gpt-2",
        **_vocabulary(folder),
        "bos_token_id": folder.number("bos_token_id"),
        "eos_token_id": folder.number("eos_token_id"),
        "add_bos_token": False,
    }


def _vocabulary(folder: Gpt2Folder) -> dict[str, Any]:
    """The byte-level BPE tokenizer of ``tokenizer.json``: entries by id with their types, and merges in order."""
    import gguf

    file = folder.path / "tokenizer.json"
    document = json_object(file, NotReadyError)
    model, splits, added = document.get("model", {}), document.get("pre_tokenizer"), document.get("added_tokens", [])
    if model.get("type") != "BPE" or not isinstance(splits, dict) or splits.get("type") != "ByteLevel":
        raise NotReadyError(f"{file}: not a byte-level BPE tokenizer, the only kind that can be exported")
    kinds = gguf.TokenType
    entries = {index: (token, kinds.NORMAL) for token, index in model["vocab"].items()}
    for entry in added:
        entries[entry["id"]] = entry["content"], kinds.CONTROL if entry["special"] else kinds.USER_DEFINED
    # Ids up to the model's vocabulary that the tokenizer doesn't use are padding.
    ids = range(folder.number("vocab_size"))
    tokens, types = zip(*(entries.get(index, (f"[PAD{index}]", kinds.UNUSED)) for index in ids), strict=True)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"token_list": list(tokens), "token_types": list(types), "token_merges": merges}


class Exported(NamedTuple):
    """A GGUF file and the Modelfile beside it."""

    name: str
    weights: Weights
    path: Path
    modelfile: Path


def refusal(name: str, weights: Weights, *widths: int) -> str | None:
    """Why a model whose matrices have rows of these widths can't be quantised so; ``None`` where it can."""
    uneven = next((width for width in widths if width % BLOCK), None)
    if weights not in QUANTISED or uneven is None:
        return None
    return f"{name} can't be {weights}: its width {uneven} is not a multiple of {BLOCK}; use f32 or f16"


def exportable(names: Sequence[str] | None, formats: Sequence[Weights]) -> tuple[list[tuple[str, Weights]], list[str]]:
    """What to export, and why the rest of the ladder isn't. A model that is named and can't be is a `UsageError`.

    A name is the ladder's, or a folder's that holds a GPT-2.
    """
    folders = [name for name in names or () if ladder_model(name) is None and Path(name).is_dir()]
    wanted: list[tuple[str, Weights]] = [(name, each) for name in folders for each in formats]
    refused = []
    for model in chosen(None if names is None else [name for name in names if name not in folders]):
        for each in formats:
            why = refusal(model.name, each, model.n_embd, model.inner_width)
            if why is None:
                wanted.append((model.name, each))
            elif names is not None:
                raise UsageError(why)
            else:
                refused.append(why)
    return wanted, refused


def is_exported(model: LadderModel, weights: Weights) -> bool:
    """Whether the cache has a ladder model's GGUF file."""
    return _is_whole(_place(model.name, weights, None), _source_of(model), every_byte=False)


def export(
    name: str,
    weights: Weights,
    out: Path | None = None,
    *,
    note: Callable[[str], None] = lambda _: None,
    every_byte: bool = True,
) -> Exported:
    """Write a model as GGUF below ``out`` (the cache for ``None``), with a Modelfile for ``ollama create``.

    A file that is there already is kept when whole; without ``every_byte``, a ladder model's when its size is right.
    ``note`` gets a line when one is written. Raises `NotReadyError` where the folder holds no GPT-2 or the place can't
    be written, `UsageError` for a width that can't be quantised, `MissingExtraError` without the package ``gguf``.
    """
    model = ladder_model(name)
    stem = Path(name).resolve().name if model is None else model.name
    exported = _place(stem, weights, out)
    if model is not None and not every_byte and _is_whole(exported, _source_of(model), every_byte=False):
        return exported
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("llamacpp", "exporting GGUF files")
    source = resolve(name if model is None else f"models/{model.name}")
    try:
        with within(LONGEST_EXPORT_S, f"exporting {source}"), reading(source, NotReadyError):
            folder = Gpt2Folder(Path(source))
            why = refusal(exported.name, weights, folder.number("n_embd"), folder.inner_width)
            if why is not None:
                raise UsageError(why)
            made_from = _source_of(model) if model is not None else _hash_of_weights(folder.path)
            if model is None and out is None:  # another folder, or a ladder model, may have the same name
                exported = _place(stem, weights, cache_folder() / "gguf" / made_from[:16])
            with one_process_at_a_time(exported.path):
                if not _is_whole(exported, made_from, every_byte=True):
                    note(f"writing {exported.path}")
                    _write(folder, exported, made_from)
    except OSError as error:
        raise NotReadyError(f"can't write {exported.path}: {error.strerror or error}") from error
    return exported


def _place(stem: str, weights: Weights, out: Path | None) -> Exported:
    """Where a model's files belong: below ``out``, or ``gguf`` beside the ladder's own folder in the cache."""
    path = (out or cache_folder() / "gguf") / f"{stem}-{weights}"
    return Exported(stem, weights, Path(f"{path}.gguf"), Path(f"{path}.Modelfile"))


def _source_of(model: LadderModel) -> str:
    return shipped_checksums()[model.name][WEIGHTS_FILE].sha256


def _hash_of_weights(folder: Path) -> str:
    """One hash over a folder's weights, file after file."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _is_whole(exported: Exported, made_from: str, *, every_byte: bool) -> bool:
    """Whether a file made from these weights is there, neither outdated nor, as far as is looked, damaged."""
    try:
        record = json.loads(exported.path.with_suffix(".json").read_text(encoding="utf-8"))
        return bool(
            (record["exporter"], record["source_sha256"]) == (EXPORTER, made_from)
            and exported.modelfile.is_file()
            and exported.path.stat().st_size == record["bytes"]
            and (not every_byte or sha256_of(exported.path) == record["sha256"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(folder: Gpt2Folder, exported: Exported, made_from: str) -> None:
    # What ``ollama create`` reads: the file, a bare template, and the context the model has.
    modelfile = f"""\
# ollama create models/{exported.name}:{exported.weights} -f {exported.modelfile.name}
FROM ./{exported.path.name}
TEMPLATE "{{{{ .Prompt }}}}"
PARAMETER num_ctx {folder.number("n_positions")}
"""
    record = {"exporter": EXPORTER, "source_sha256": made_from}
    with replacing(exported.path) as partial:
        write_gguf(folder, partial, name=exported.name, weights=exported.weights)
        record |= {"bytes": partial.stat().st_size, "sha256": sha256_of(partial)}
        write_whole(exported.modelfile, modelfile)
    write_json(exported.path.with_suffix(".json"), record)
