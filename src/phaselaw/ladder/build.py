"""Build the ladder, keep it in the user's cache folder, find the files behind a model's name, and check them.

What each file must be, its size and SHA-256, stands in the shipped table ``checksums.json``.
"""

import hashlib
import json
import lzma
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from phaselaw.errors import NotReadyError, UsageError, within
from phaselaw.files import cache_folder, lock, sha256_of
from phaselaw.ladder.spec import LADDER, PREFIX, LadderModel, ladder_model
from phaselaw.ladder.weights import STD, safetensors_chunks

Progress = Callable[[str, int, int], None]
"""Called with the model's name, the bytes written so far and the bytes that it will have."""

RECORD = "checksums.json"
"""Beside a built model: the part of the shipped table that it was checked against."""

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json.xz"
"""The shipped tokenizer of every model (benchmarks/ladder_tokenizer.py)."""
END_OF_TEXT = "<|endoftext|>"
_LOOK_AGAIN_S = 0.05
"""How often a process that waits for another one looks."""
LONGEST_WAIT_S = 1800.0


class Checksum(NamedTuple):
    """What one file must be."""

    bytes: int
    sha256: str


def cache_directory() -> Path:
    """Where built models are kept: ``ladder`` in the cache folder."""
    return cache_folder() / "ladder"


def chosen(names: Sequence[str] | None) -> tuple[LadderModel, ...]:
    """The ladder's models of these names (all for ``None``); raises `UsageError` for a name that it lacks."""
    found = {name: ladder_model(name) for name in names} if names is not None else {each.name: each for each in LADDER}
    for name, model in found.items():
        if model is None:
            raise UsageError(f"the ladder has no model {name!r}; it has: {', '.join(each.name for each in LADDER)}")
    return tuple(dict.fromkeys(filter(None, found.values())))


def build(names: Sequence[str] | None = None, out: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """Build models (all for ``None``) below ``out`` (the cache for ``None``) and return their directories.

    A model that is there already is read through and kept when whole, built anew when damaged. Each appears
    complete or not at all, also with several processes at it. Raises `UsageError` for an unknown name, and
    `NotReadyError` where the place can't be written, holds something else under that name, or a file comes
    out otherwise than shipped.
    """
    return [_build_one(model, out or cache_directory(), progress) for model in chosen(names)]


def resolve(name: str, *, every_byte: bool = False) -> Path | str:
    """What to load for a model's name, building a ladder model that isn't built, or with ``every_byte`` is damaged.

    ``models/NAME`` is the ladder's; another existing directory is itself; anything else is left as it is, a
    name in the local cache of hub models.
    """
    model = ladder_model(name)
    if model is not None and (name.startswith(PREFIX) or not Path(name).is_dir()):
        directory = cache_directory() / model.name
        if faults(model, directory, every_byte=every_byte):
            build([name])
        return directory
    return Path(name) if Path(name).is_dir() else name


def _build_one(model: LadderModel, root: Path, progress: Progress | None) -> Path:
    target, partial = root / model.name, root / f".{model.name}.new"
    try:
        with one_process_at_a_time(target):
            if not faults(model, target, every_byte=True):
                return target
            if target.exists() and not (target / RECORD).is_file():
                why = "holds something that phaselaw did not build; move it away or choose another --out"
                raise NotReadyError(f"{target} {why}")
            try:
                shutil.rmtree(partial, ignore_errors=True)  # of a process that died
                _write(model, partial, progress)
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise NotReadyError(f"can't build {model.name} in {root}: {error.strerror or error}") from error
    return target


@contextmanager
def one_process_at_a_time(path: Path) -> Iterator[None]:
    """One process at a time writes at a path, whose folder is made; the lock dies with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        with within(LONGEST_WAIT_S, f"{path}: another phaselaw is writing it"):
            while not lock(file.fileno()):
                time.sleep(_LOOK_AGAIN_S)
        yield


def _write(model: LadderModel, directory: Path, progress: Progress | None) -> None:
    """Write a model's files, compare each with the shipped table, and put the record beside them."""
    expected = shipped_checksums()[model.name]
    total, done = sum(entry.bytes for entry in expected.values()), 0
    directory.mkdir()
    for name, chunks in model_files(model).items():
        digest = hashlib.sha256()
        with (directory / name).open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                done += file.write(chunk)
                if progress is not None:
                    progress(model.name, done, total)
            written = Checksum(file.tell(), digest.hexdigest())
        if written != expected[name]:
            raise NotReadyError(f"{model.name}/{name} came out otherwise than shipped; please report your platform")
    (directory / RECORD).write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


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
    tokenizer_config = {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.n_positions,
        "tokenizer_class": "GPT2Tokenizer",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT),
    }
    return {
        "config.json": [_json(config)],
        "generation_config.json": [_json(ends)],
        "tokenizer_config.json": [_json(tokenizer_config)],
        "tokenizer.json": [lzma.decompress(_shipped(TOKENIZER))],
        WEIGHTS: safetensors_chunks(model),
    }


def _json(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


@cache
def shipped_checksums() -> dict[str, dict[str, Checksum]]:
    """The shipped table: model, file, checksum. A build that doesn't match it is refused."""
    return {model: _checksums(files) for model, files in json.loads(_shipped(RECORD)).items()}


def _checksums(files: Mapping[str, Sequence[Any]]) -> dict[str, Checksum]:
    return {name: Checksum._make(entry) for name, entry in files.items()}


def _shipped(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def faults(model: LadderModel, directory: Path, *, every_byte: bool) -> list[str]:
    """What is wrong with a built model, one line each; empty when it is whole.

    Without ``every_byte`` the model's record and the sizes of its files are compared with the shipped table,
    which takes no time; with it each file is read and hashed as well.
    """
    expected = shipped_checksums()[model.name]
    if not directory.is_dir():
        return ["not built"]
    try:
        recorded = _checksums(json.loads((directory / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        recorded = None
    if recorded != expected:
        return [f"{RECORD} is missing or is not this version's"]
    found = []
    for name, wanted in expected.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != wanted.bytes:
            found.append(f"{name} has {path.stat().st_size} bytes, not {wanted.bytes}")
        elif every_byte and sha256_of(path) != wanted.sha256:
            found.append(f"{name} is damaged: its SHA-256 is not the shipped one")
    return found
