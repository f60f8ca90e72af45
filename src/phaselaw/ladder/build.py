"""Build the ladder, keep it in the user's cache folder, and find the files behind a model's name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock

from phaselaw.errors import NotReadyError, UsageError
from phaselaw.ladder.files import RECORD, checksum, faults, model_files, shipped_checksums, write_record
from phaselaw.ladder.spec import LADDER, PREFIX, LadderModel, ladder_model

Progress = Callable[[str, int, int], None]
"""Called with the model's name, the bytes written so far and the bytes that it will have."""

CACHE_VARIABLE = "PHASELAW_CACHE"


def cache_directory() -> Path:
    """Where built models are kept: ``ladder`` in ``$PHASELAW_CACHE``, or else in the user's cache folder."""
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("phaselaw", appauthor=False)
    return Path(root).expanduser() / "ladder"


def chosen(names: Sequence[str] | None) -> tuple[LadderModel, ...]:
    """The ladder's models of these names (all for ``None``); raises `UsageError` for a name that it lacks."""
    if names is None:
        return LADDER
    models = []
    for name in names:
        model = ladder_model(name)
        if model is None:
            known = ", ".join(each.name for each in LADDER)
            raise UsageError(f"the ladder has no model {name!r}; it has: {known}")
        models.append(model)
    return tuple(dict.fromkeys(models))


def build(names: Sequence[str] | None = None, out: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """Build models (all for ``None``) below ``out`` (the cache for ``None``) and return their directories.

    A model that is there already is read through and kept when whole, built anew when damaged. Each appears
    complete or not at all, also with several processes at it. Raises `UsageError` for an unknown name, and
    `NotReadyError` where the place can't be written, holds something else under that name, or a file comes
    out otherwise than shipped.
    """
    root = cache_directory() if out is None else out
    return [_build_one(model, root, progress) for model in chosen(names)]


def resolve(name: str) -> Path | str:
    """What to load for a model's name, building a ladder model that isn't built.

    ``models/NAME`` is the ladder's; another existing directory is itself; anything else is left as it is, a
    name in the local cache of hub models.
    """
    model = ladder_model(name)
    if model is not None and (name.startswith(PREFIX) or not Path(name).is_dir()):
        directory = cache_directory() / model.name
        if faults(model, directory, every_byte=False):
            build([name])
        return directory
    return Path(name) if Path(name).is_dir() else name


def _build_one(model: LadderModel, root: Path, progress: Progress | None) -> Path:
    target, partial, replaced = (root / name for name in (model.name, f".{model.name}.new", f".{model.name}.old"))
    with _reporting_os_errors(model, root), _exclusive(model, root):
        if not faults(model, target, every_byte=True):
            return target
        if target.exists() and not (target / RECORD).is_file():
            raise NotReadyError(
                f"{target} holds something that phaselaw did not build; move it away or choose another --out"
            )
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that died
        shutil.rmtree(replaced, ignore_errors=True)
        try:
            _write(model, partial, progress)
            if target.exists():
                target.rename(replaced)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
    return target


@contextmanager
def _exclusive(model: LadderModel, root: Path) -> Iterator[None]:
    """One process at a time builds a model in a place; the lock dies with its process."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{model.name}.lock"):
        yield


@contextmanager
def _reporting_os_errors(model: LadderModel, root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReadyError(f"can't build {model.name} in {root}: {error.strerror or error}") from error


def _write(model: LadderModel, directory: Path, progress: Progress | None) -> None:
    """Write a model's files, compare each with the shipped table, and put the record beside them."""
    expected = shipped_checksums()[model.name]
    total, done = sum(entry.bytes for entry in expected.values()), 0
    directory.mkdir()
    for name, chunks in model_files(model).items():
        with (directory / name).open("wb") as file:

            def keep(chunk: bytes, write: Callable[[bytes], int] = file.write) -> None:
                nonlocal done
                write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(model.name, done, total)

            if checksum(chunks, keep) != expected[name]:
                raise NotReadyError(f"{model.name}/{name} came out otherwise than shipped; please report your platform")
    write_record(model, directory)
