"""The files of a ladder model, and the table of what each must be: size and SHA-256 (``checksums.json``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from phaselaw.ladder.spec import LadderModel
from phaselaw.ladder.tokenizer import END_OF_TEXT, tokenizer_json
from phaselaw.ladder.weights import STD, safetensors_chunks

RECORD = "checksums.json"
"""Beside a built model: the part of the shipped table that it was checked against."""

WEIGHTS = "model.safetensors"


class Checksum(NamedTuple):
    """What one file must be."""

    bytes: int
    sha256: str


def model_files(model: LadderModel) -> dict[str, Iterable[bytes]]:
    """Every file of a model by name, each as pieces to write one after another."""
    end_of_text = model.vocab_size - 1
    ends = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "initializer_range": STD,
        "layer_norm_epsilon": 1e-05,
        "dtype": "float32",
        "n_ctx": model.n_positions,  # llama.cpp's converter asks for it
        "n_embd": model.n_embd,
        "n_head": model.n_head,
        "n_inner": model.n_inner,
        "n_layer": model.n_layer,
        "n_positions": model.n_positions,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": model.vocab_size,
        **ends,
    }
    tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    tokenizer_config = {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.n_positions,
        "tokenizer_class": "GPT2Tokenizer",
        **tokens,
    }
    return {
        "config.json": [_json(config)],
        "generation_config.json": [_json(ends)],
        "tokenizer_config.json": [_json(tokenizer_config)],
        "tokenizer.json": [tokenizer_json()],
        WEIGHTS: safetensors_chunks(model),
    }


def _json(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


@cache
def shipped_checksums() -> dict[str, dict[str, Checksum]]:
    """The shipped table: model, file, checksum. A build that doesn't match it is refused."""
    table = json.loads(resources.files("phaselaw.ladder").joinpath(RECORD).read_text(encoding="utf-8"))
    return {model: {name: Checksum(*entry) for name, entry in files.items()} for model, files in table.items()}


def checksum(chunks: Iterable[bytes], seen: Callable[[bytes], object] | None = None) -> Checksum:
    """Size and SHA-256 of pieces, each of which is handed to ``seen`` on the way (to write it, say)."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if seen is not None:
            seen(chunk)
    return Checksum(size, digest.hexdigest())


def faults(model: LadderModel, directory: Path, *, every_byte: bool) -> list[str]:
    """What is wrong with a built model, one line each; empty when it is whole.

    Without ``every_byte`` the model's record and the sizes of its files are compared with the shipped table,
    which takes no time; with it each file is read and hashed as well.
    """
    expected = shipped_checksums()[model.name]
    if not directory.is_dir():
        return ["not built"]
    if _record_of(directory) != expected:
        return [f"{RECORD} is missing or is not this version's"]
    found = []
    for name, wanted in expected.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != wanted.bytes:
            found.append(f"{name} has {path.stat().st_size} bytes, not {wanted.bytes}")
        elif every_byte and _sha256_of(path) != wanted.sha256:
            found.append(f"{name} is damaged: its SHA-256 is not the shipped one")
    return found


def write_record(model: LadderModel, directory: Path) -> None:
    """Put the model's part of the shipped table beside its files, which they were checked against."""
    (directory / RECORD).write_text(json.dumps(shipped_checksums()[model.name], indent=1) + "\n", encoding="utf-8")


def _record_of(directory: Path) -> dict[str, Checksum] | None:
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        return {name: Checksum(*entry) for name, entry in record.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
