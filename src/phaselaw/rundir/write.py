"""A run directory while it is written: its lock, its journal, and the tables and the manifest that derive from that.

Each derived file is written whole from the journal alone: written again at any time, it comes out the same. The formats
stand in docs/run-directory.md.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import ValidationError

from phaselaw import __version__
from phaselaw.errors import RunError
from phaselaw.files import write_csv, write_json, write_whole
from phaselaw.machine import identity as telemetry
from phaselaw.records import PHASES, Call, Event, to_jsonable
from phaselaw.rundir.columns import COLUMNS, SCHEMA_VERSION, rows_of
from phaselaw.rundir.journal import JOURNAL, JOURNAL_VERSION, Journal, JournalWriter, read_journal, redacted_words
from phaselaw.study.model import Study

MANIFEST, METRICS = "manifest.json", "metrics.csv"
MODELS, HF_LOADS = "resolved_model_params.csv", "hf_load_ms.csv"

MODEL_COLUMNS = (
    "model", "kind", "params_millions_config", "params_millions_measured", "parameter_size_raw", "quantization_level",
    "family", "device", "dtype", "backend", "n_layer", "n_embd", "n_head", "n_inner", "vocab_size", "n_positions",
    "weights_bytes", "weights_sha256", "config_path", "identity", "n_kv_head", "head_dim", "n_experts",
    "lookup_params", "lookup_bytes",
)  # fmt: skip
"""TR121's columns of ``resolved_model_params.csv`` first, ours after them."""

LOAD_COLUMNS = ("model", "device", "dtype", "hf_load_ms", "backend", "process_idx")


class RunDirectory:
    """A run directory that this process writes, and no other can: a context manager that holds its lock."""

    def __init__(self, path: Path, study: Study, lock: FileLock, journal: Journal) -> None:
        self.path, self.study = path, study
        self._lock = lock
        self.calls: list[Call] = list(journal.calls)
        self.process_idx = len(journal.processes)
        self.finished = False
        """Whether everything was measured before this process came: it then has nothing to do."""
        self._writer = JournalWriter(path / JOURNAL, journal.whole_bytes)

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        study: Study,
        argv: Sequence[str],
        host: Mapping[str, Any],
        skipped: Sequence[str] = (),
        asked: Mapping[str, Any] | None = None,
    ) -> RunDirectory:
        """A fresh run directory (``runs/NAME/TIME`` for ``None``).

        ``asked`` is what stands in the manifest of where the study came from. Raises `RunError` where the folder holds
        a journal already, another process writes it, or it can't be written.
        """
        with _faults_in_words(path or Path("runs")):
            path = path or _new_folder(
                Path("runs") / (re.sub(r"[^A-Za-z0-9._-]+", "-", study.run_name).strip(".-") or "run")
            )
            path.mkdir(parents=True, exist_ok=True)
        with _locked(path) as lock:
            if (path / JOURNAL).exists():
                raise RunError(f"{path} holds a run already; go on with it: --resume {path}, or choose another --out")
            header = {
                "event": "header",
                "journal_version": JOURNAL_VERSION,
                "run_id": path.resolve().name,
                **_asked_for(study, argv),
                "asked": dict(asked or {}),
                "git_commit": telemetry.git_commit(),
                "skipped": list(skipped),
                "created_at_unix": time.time(),
            }
            # Renamed into place, so that a journal always has its header.
            write_whole(path / JOURNAL, json.dumps(header, allow_nan=False) + "\n")
            _fsync_folder(path)
            directory = cls(path, study, lock, read_journal(path / JOURNAL))
            directory._begin_process(host, argv, [])
            return directory

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        study: Study | None,
        argv: Sequence[str],
        host: Mapping[str, Any],
        allow_changed: bool = False,
    ) -> RunDirectory:
        """The directory of a run to go on with, under its own study for ``study=None``; a complete one is `finished`.

        Raises `RunError` where there is no run, another process writes it, or the study or the host is not the one the
        run began with; ``allow_changed`` permits that, and the manifest then records both.
        """
        if not (path / JOURNAL).is_file():
            raise RunError(f"{path} holds no run to resume (no {JOURNAL}); start one: phaselaw run --out {path}")
        with _locked(path) as lock:
            journal = read_journal(path / JOURNAL)
            kept = kept_study(path, journal)
            changes = telemetry.host_differences(journal.processes[-1]["host"], host) if journal.processes else []
            if study is not None and study.sha256 != kept.sha256:
                changes.insert(0, f"study: {kept.sha256[:12]} became {study.sha256[:12]}")
            if changes and not allow_changed:
                raise RunError(
                    f"{path} was begun otherwise ({'; '.join(changes)}); --allow-changed goes on and records both"
                )
            directory = cls(path, study or kept, lock, journal)
            directory.finished = not changes and journal.end is not None and journal.end["status"] == "complete"
            if not directory.finished:
                directory._begin_process(host, argv, changes)
            return directory

    @property
    def done(self) -> frozenset[str]:
        """Ids of the calls that are kept, failed ones among them."""
        return frozenset(call.call_id for call in self.calls)

    @property
    def next_call_idx(self) -> int:
        """The execution index of the next call."""
        return len(self.calls)

    def append(self, event: Event) -> None:
        """Keep one event: when this returns, it is on the disk. Raises `RunError` where it can't be written."""
        with _faults_in_words(self.path):
            self._writer.append(event)
        if isinstance(event, Call):
            self.calls.append(event)

    def finish(self, status: Literal["complete", "interrupted"]) -> None:
        """End this process's part: write the journal's end event and every derived file; raises `RunError`."""
        end = {"status": status, "process_idx": self.process_idx, "at_unix": time.time()}
        with _faults_in_words(self.path):
            self._writer.write("end", end)
        self.write_derived()

    def write_derived(self) -> None:
        """Write the files that derive from the journal, each whole; raises `RunError`."""
        with _faults_in_words(self.path):
            _write_derived(self.path, tables=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not self.finished:
                # What ended the run is told, not that a full disk then refuses its tables too.
                with suppress(RunError):
                    self.finish("interrupted")
        finally:
            self._writer.close()
            self._lock.release()

    def _begin_process(self, host: Mapping[str, Any], argv: Sequence[str], changes: Sequence[str]) -> None:
        event = {
            "process_idx": self.process_idx,
            "host": dict(host),
            **_asked_for(self.study, argv),
            "changes": list(changes),
            "started_at_unix": time.time(),
        }
        self._writer.write("process", event)
        _write_derived(self.path, tables=False)


def _asked_for(study: Study, argv: Sequence[str]) -> dict[str, Any]:
    """What a process is to do, and what does it."""
    return {
        "argv": redacted_words(argv),
        "study": study.resolved(),
        "study_sha256": study.sha256,
        "phaselaw_version": __version__,
    }


@contextmanager
def _locked(path: Path) -> Iterator[FileLock]:
    """The lock of a run directory, held on, unless the block fails."""
    lock = FileLock(path / ".lock")
    with _faults_in_words(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{path} is being written by another phaselaw; wait for it, or choose another --out"
            ) from None
        try:
            yield lock
        except BaseException:
            lock.release()
            raise


@contextmanager
def _faults_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror or error}") from None


def _new_folder(parent: Path) -> Path:
    """A new folder named for this second; two runs that start in one second get one each."""
    parent.mkdir(parents=True, exist_ok=True)
    path = first = parent / f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
    number = 1
    while True:
        with suppress(FileExistsError):
            path.mkdir()
            return path
        number += 1
        path = first.with_name(f"{first.name}_{number}")


def _fsync_folder(path: Path) -> None:
    """Make a new file's name durable too, where folders can be synced."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def kept_study(path: Path, journal: Journal) -> Study:
    """The study that a run goes by: its last process's. Raises `RunError` where this version can't read it."""
    return _studies(path, journal)[-1]


def _write_derived(path: Path, *, tables: bool) -> None:
    """Write the manifest from the journal, and the tables too; raises `RunError` for the journal, else OSError."""
    journal = read_journal(path / JOURNAL)
    studies = _studies(path, journal)
    models, loads = _model_rows(journal, studies), _loads(journal)
    if tables:
        write_csv(path / METRICS, COLUMNS, _rows(journal, studies, models))
        write_csv(path / MODELS, MODEL_COLUMNS, models)
        write_csv(path / HF_LOADS, LOAD_COLUMNS, [row for row in loads if row["kind"] == "hf"])
    write_json(path / MANIFEST, _manifest(journal, studies, models, loads))


def _studies(path: Path, journal: Journal) -> list[Study]:
    """The studies of a run's processes, the one in force last; without a process, the one it was created with."""
    by_sha: dict[str, Any] = {}
    for event in journal.processes or (journal.header,):
        by_sha.pop(event["study_sha256"], None)
        by_sha[event["study_sha256"]] = event["study"]
    try:
        return [Study.model_validate(study) for study in by_sha.values()]
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise RunError(f"{path}: its study is none this phaselaw can read ({key}: {fault['msg']})") from None


Rows = list[dict[str, Any]]


def _rows(journal: Journal, studies: list[Study], models: Rows) -> Iterator[dict[str, Any]]:
    measured = {(row["backend"], row["model"]): row["params_millions_measured"] for row in models}
    labels = {(model.name, str(model.kind)): model.params_millions for study in studies for model in study.models}
    threads = {backend.name: getattr(backend, "threads", None) for study in studies for backend in study.backends}
    prompts = {scenario.name: scenario.prompt for study in studies for scenario in study.scenarios}
    for call in journal.calls:
        yield from rows_of(
            call,
            prompt=prompts.get(call.cell.scenario),
            params_millions_config=labels.get((call.cell.model, call.cell.backend_kind)),
            params_millions_measured=measured.get((call.cell.backend, call.cell.model)),
            threads=threads.get(call.cell.backend),
        )


def _model_rows(journal: Journal, studies: list[Study]) -> Rows:
    entries = {(model.name, str(model.kind)): model for study in studies for model in study.models}
    rows = {}
    for loaded in journal.models:
        entry = entries.get((loaded.model, loaded.engine.kind))
        rows[loaded.backend, loaded.model] = dict.fromkeys(MODEL_COLUMNS) | {
            "model": loaded.model,
            "kind": loaded.engine.kind,
            "backend": loaded.backend,
            "params_millions_config": entry and entry.params_millions,
            "identity": entry and entry.identity,
            **{name: value for name, value in to_jsonable(loaded.info).items() if name in MODEL_COLUMNS},
        }
    return list(rows.values())


def _loads(journal: Journal) -> Rows:
    return [
        {
            "model": loaded.model,
            "kind": loaded.engine.kind,
            "device": loaded.info.device,
            "dtype": loaded.info.dtype,
            "hf_load_ms": loaded.load_ms,
            "backend": loaded.backend,
            "process_idx": loaded.process_idx,
        }
        for loaded in journal.models
    ]


def _manifest(journal: Journal, studies: list[Study], models: Rows, loads: Rows) -> dict[str, Any]:
    header, study, end = journal.header, studies[-1], journal.end
    failed = sum(call.status != "ok" for call in journal.calls)
    return {
        "schema_version": SCHEMA_VERSION,
        "phaselaw_version": (journal.processes or (header,))[-1].get("phaselaw_version"),
        "run_id": header["run_id"],
        "run_name": study.run_name,
        "status": "running" if end is None else end["status"],
        "argv": header["argv"],
        **header.get("asked", {}),
        "study": study.resolved(),
        "study_sha256": study.sha256,
        "config_sha256": study.sha256,
        **{key: [each.name for each in getattr(study, key)] for key in ("models", "backends", "scenarios")},
        **study.model_dump(include={"seed", "order", "gen_tokens", "replicates", "repetitions", "warmup_repetitions"}),
        "task_count": len(study.cells()),
        "git_commit": header["git_commit"],
        "started_at_unix": header["created_at_unix"],
        "ended_at_unix": None if end is None else end["at_unix"],
        "host": journal.processes[-1]["host"] if journal.processes else None,
        "processes": list(journal.processes),
        "engines": list({loaded.backend: to_jsonable(loaded.engine) for loaded in journal.models}.values()),
        "measured_params": [
            {"backend": row["backend"], "model": row["model"], "params_millions": row["params_millions_measured"]}
            for row in models
        ],
        "loads": loads,
        "skipped": header["skipped"],
        "rewarmed": len(journal.rewarmed),
        "calls_ok": len(journal.calls) - failed,
        "calls_failed": failed,
        "rows_expected": study.calls_planned() * len(PHASES),
        "rows_present": len(journal.calls) * len(PHASES),
    }
