"""The ladder as GGUF files, which llama.cpp and Ollama load: the same weights on several engines.

The same model gives the same bytes. ``f32`` keeps every bit. ``f16``, ``q8_0`` and ``q4_0`` are applied to every weight
matrix, the embedding (which is the output projection too) included; vectors and position embeddings stay in float32.
llama.cpp's own quantiser keeps the output projection finer in its q4_0 files: ours are what it calls *pure*.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from phaselaw.errors import MissingExtraError, NotReadyError, UsageError, within
from phaselaw.files import cache_folder, replacing, sha256_of, write_json, write_whole
from phaselaw.ladder.build import END_OF_TEXT, NORM_EPSILON, chosen, one_process_at_a_time, shipped_checksums, tokenizer
from phaselaw.ladder.build import WEIGHTS as WEIGHTS_FILE
from phaselaw.ladder.spec import LadderModel
from phaselaw.ladder.weights import POSITIONS, tensor_of, tensor_shapes

Weights = Literal["f32", "f16", "q8_0", "q4_0"]
"""How the weight matrices are kept."""

BLOCK = 32
"""Values that q8_0 and q4_0 quantise together; a row must be a whole number of them."""

_TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
"""GPT-2 keeps the matrices of its blocks as (in, out); GGUF wants (out, in)."""
QUANTISED = ("q8_0", "q4_0")
FORMATS: tuple[Weights, ...] = get_args(Weights)
LONGEST_EXPORT_S = 1800.0
EXPORTER = 2
"""Raised when what is written changes: older files of the cache are then written anew."""


class Exported(NamedTuple):
    name: str
    weights: Weights
    path: Path
    modelfile: Path


def refusal(model: LadderModel, weights: Weights) -> str | None:
    """Why a model can't be quantised so; ``None`` where it can."""
    uneven = next((width for width in (model.n_embd, model.inner_width) if width % BLOCK), None)
    if weights not in QUANTISED or uneven is None:
        return None
    return f"{model.name} can't be {weights}: its width {uneven} is not a multiple of {BLOCK}; use f32 or f16"


def exportable(names: Sequence[str] | None, formats: Sequence[Weights]) -> tuple[list[tuple[str, Weights]], list[str]]:
    """What to export, and why the rest of the ladder isn't. A model that is named and can't be is a `UsageError`."""
    wanted: list[tuple[str, Weights]] = []
    refused = []
    for model in chosen(names):
        for each in formats:
            why = refusal(model, each)
            if why is None:
                wanted.append((model.name, each))
            elif names is not None:
                raise UsageError(why)
            else:
                refused.append(why)
    return wanted, refused


def is_exported(model: LadderModel, weights: Weights) -> bool:
    return _is_whole(model, _place(model, weights, None), every_byte=False)


def export(
    name: str,
    weights: Weights,
    out: Path | None = None,
    *,
    note: Callable[[str], None] = lambda _: None,
    every_byte: bool = True,
) -> Exported:
    """Write a model of the ladder as GGUF below ``out`` (the cache for ``None``), with a Modelfile beside it.

    A file that is there already is kept when whole, as far as is looked: through ``every_byte``, or at its size.
    ``note`` gets a line when one is written. Raises `NotReadyError` where the place can't be written, `UsageError` for
    a width that can't be quantised, `MissingExtraError` without the package ``gguf``.
    """
    [model] = chosen([name])
    if (why := refusal(model, weights)) is not None:
        raise UsageError(why)
    exported = _place(model, weights, out)
    if not every_byte and _is_whole(model, exported, every_byte=False):
        return exported
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("llamacpp", "exporting GGUF files")
    try:
        with within(LONGEST_EXPORT_S, f"exporting {model.name}"), one_process_at_a_time(exported.path):
            if not _is_whole(model, exported, every_byte=True):
                note(f"writing {exported.path}")
                _write(model, exported)
    except OSError as error:
        raise NotReadyError(f"can't write {exported.path}: {error.strerror or error}") from error
    return exported


def _place(model: LadderModel, weights: Weights, out: Path | None) -> Exported:
    """Where a model's files belong: below ``out``, or ``gguf`` beside the ladder's own folder in the cache."""
    path = (out or cache_folder() / "gguf") / f"{model.name}-{weights}"
    return Exported(model.name, weights, Path(f"{path}.gguf"), Path(f"{path}.Modelfile"))


def _source_of(model: LadderModel) -> dict[str, Any]:
    """What a file is made from, and by which exporter: outdated where its record says otherwise."""
    return {"exporter": EXPORTER, "source_sha256": shipped_checksums()[model.name][WEIGHTS_FILE].sha256}


def _is_whole(model: LadderModel, exported: Exported, *, every_byte: bool) -> bool:
    """Whether a file is there, neither outdated nor, as far as is looked, damaged."""
    try:
        record = json.loads(exported.path.with_suffix(".json").read_text(encoding="utf-8"))
        return bool(
            record == record | _source_of(model)
            and exported.modelfile.is_file()
            and exported.path.stat().st_size == record["bytes"]
            and (not every_byte or sha256_of(exported.path) == record["sha256"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(model: LadderModel, exported: Exported) -> None:
    # What ``ollama create`` reads: the file, a bare template, and the context the model has.
    modelfile = f"""\
# ollama create models/{exported.name}:{exported.weights} -f {exported.modelfile.name}
FROM ./{exported.path.name}
TEMPLATE "{{{{ .Prompt }}}}"
PARAMETER num_ctx {model.n_positions}
"""
    with replacing(exported.path) as partial:
        _write_gguf(model, partial, exported.weights)
        record = _source_of(model) | {"bytes": partial.stat().st_size, "sha256": sha256_of(partial)}
        write_whole(exported.modelfile, modelfile)
    write_json(exported.path.with_suffix(".json"), record)


def _write_gguf(model: LadderModel, path: Path, weights: Weights) -> None:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, model.n_layer)
    writer = gguf.GGUFWriter(path, "gpt2")
    try:
        for fact, value in _metadata(model, weights).items():
            getattr(writer, f"add_{fact}")(value)
        for name, shape in tensor_shapes(model).items():
            kind = gguf.GGMLQuantizationType["F32" if len(shape) < 2 or name == POSITIONS else weights.upper()]
            values = tensor_of(model, name)
            values = np.ascontiguousarray(values.T) if name.endswith(_TRANSPOSED) else values
            quantised = gguf.quants.quantize(values, kind)
            of, _, part = name.rpartition(".")
            writer.add_tensor(f"{names[of]}.{part}", quantised, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _metadata(model: LadderModel, weights: Weights) -> dict[str, Any]:
    """What the file says of the model and its tokenizer, by the names of the writer's methods, in order."""
    import gguf

    quantised = {"quantization_version": gguf.GGML_QUANT_VERSION} if weights in QUANTISED else {}
    bpe, end_of_text = json.loads(tokenizer())["model"], model.vocab_size - 1
    ids: dict[str, int] = bpe["vocab"] | {END_OF_TEXT: end_of_text}
    return {
        "name": model.name,
        "context_length": model.n_positions,
        "embedding_length": model.n_embd,
        "feed_forward_length": model.inner_width,
        "block_count": model.n_layer,
        "head_count": model.n_head,
        "layer_norm_eps": NORM_EPSILON,
        "file_type": gguf.LlamaFileType["ALL_F32" if weights == "f32" else f"MOSTLY_{weights.upper()}"],
        **quantised,
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "gpt-2",
        "token_list": sorted(ids, key=ids.__getitem__),
        "token_types": [gguf.TokenType.NORMAL] * end_of_text + [gguf.TokenType.CONTROL],
        "token_merges": bpe["merges"],
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "add_bos_token": False,
    }
