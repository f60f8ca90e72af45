"""A run directory while it is written: the journal, and the files that derive from it.

``journal.jsonl`` is the source: one JSON line an event, appended and fsynced, so that a kill -9 loses at most the call
in flight. ``manifest.json``, ``metrics.csv``, ``resolved_model_params.csv`` and ``hf_load_ms.csv`` are derived from it
and written whole. The formats stand in docs/run-directory.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from phaselaw import __version__, telemetry
from phaselaw.errors import RunError
from phaselaw.files import write_csv, write_json, write_whole
from phaselaw.metrics import COLUMNS, rows_of
from phaselaw.metrics import SCHEMA_VERSION as METRICS_VERSION
from phaselaw.records import PHASES, Call, ModelLoaded, Rewarmed, from_jsonable, to_jsonable
from phaselaw.study import Study

JOURNAL, MANIFEST, METRICS = "journal.jsonl", "manifest.json", "metrics.csv"
MODELS, HF_LOADS = "resolved_model_params.csv", "hf_load_ms.csv"
JOURNAL_VERSION = 1

Status = Literal["running", "complete", "interrupted"]

MODEL_COLUMNS = (
    "model", "kind", "params_millions_config", "params_millions_measured", "parameter_size_raw", "quantization_level",
    "family", "device", "dtype", "backend", "n_layer", "n_embd", "n_head", "n_inner", "vocab_size", "n_positions",
    "weights_bytes", "weights_sha256", "config_path",
)  # fmt: skip
"""TR121's columns of ``resolved_model_params.csv`` first, ours after them."""

_EVENTS: dict[type[Any], str] = {ModelLoaded: "model", Rewarmed: "rewarmed", Call: "call"}
_SECRET = re.compile(r"(?i)((?:api[_-]?key|token|secret|passw(?:or)?d|authorization)[^=\s]*[=:])\s*\S+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Journal:
    """The events of a run, as read back."""

    header: dict[str, Any]
    processes: tuple[dict[str, Any], ...]
    models: tuple[ModelLoaded, ...]
    rewarmed: tuple[Rewarmed, ...]
    calls: tuple[Call, ...]
    ends: tuple[dict[str, Any], ...]
    whole_bytes: int
    """Length of the file up to the last whole line: what follows was cut by a crash."""


def read_journal(path: Path) -> Journal:
    """Read a journal; a last line that a crash cut is left out, any other damage is a `RunError` naming its line."""
    raw = path.read_bytes()
    whole_bytes = raw.rfind(b"\n") + 1
    events: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("header", "process", "model", "rewarmed", "call", "end")
    }
    for number, line in enumerate(raw[:whole_bytes].splitlines(), start=1):
        try:
            event = json.loads(line)
            events.setdefault(event.pop("event"), []).append(event)
        except (ValueError, KeyError, AttributeError):
            raise RunError(f"{path}:{number}: damaged line; restore the file or measure again") from None
    if not events["header"]:
        raise RunError(f"{path}:1: not a phaselaw journal (no header)")
    version = events["header"][0].get("journal_version")
    if version != JOURNAL_VERSION:
        raise RunError(f"{path}:1: journal version {version}; this phaselaw reads version {JOURNAL_VERSION}")
    calls = tuple(from_jsonable(Call, event) for event in events["call"])
    seen: set[str] = set()
    for call in calls:
        if call.call_id in seen:
            raise RunError(f"{path}: call {call.call_id} stands twice; restore the file or measure again")
        seen.add(call.call_id)
    return Journal(
        header=events["header"][0],
        processes=tuple(events["process"]),
        models=tuple(from_jsonable(ModelLoaded, event) for event in events["model"]),
        rewarmed=tuple(from_jsonable(Rewarmed, event) for event in events["rewarmed"]),
        calls=calls,
        ends=tuple(events["end"]),
        whole_bytes=whole_bytes,
    )


def redacted(text: str) -> str:
    """A command-line word with what looks like a secret's value taken out."""
    return re.sub(r"(://)[^/@\s]+@", r"\1***@", _SECRET.sub(r"\1***", text))


class RunDirectory:
    """A run directory that this process writes, and no other can: a context manager that holds its lock."""

    def __init__(self, path: Path, study: Study, lock: FileLock) -> None:
        self.path, self.study = path, study
        self._lock = lock
        self._journal = read_journal(path / JOURNAL)
        self.calls: list[Call] = list(self._journal.calls)
        self._models = list(self._journal.models)
        self._rewarmed = len(self._journal.rewarmed)
        self.process_idx = len(self._journal.processes)
        self._file = (path / JOURNAL).open("r+b")
        self._file.truncate(self._journal.whole_bytes)
        self._file.seek(0, os.SEEK_END)

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        study: Study,
        argv: Sequence[str],
        host: Mapping[str, Any],
        skipped: Sequence[str] = (),
    ) -> RunDirectory:
        """A fresh run directory (``runs/NAME/TIME`` for ``None``).

        Raises `RunError` where the folder holds a journal already, another process writes it, or it can't be written.
        """
        path = path or Path("runs") / _folder_name(study.run_name) / f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _locked(path)
            if (path / JOURNAL).exists():
                lock.release()
                raise RunError(f"{path} holds a run already; go on with it: --resume {path}, or choose another --out")
            header = {
                "event": "header",
                "journal_version": JOURNAL_VERSION,
                "phaselaw_version": __version__,
                "argv": [redacted(word) for word in argv],
                "study": study.resolved(),
                "study_sha256": study.sha256,
                "git_commit": telemetry.git_commit(),
                "skipped": list(skipped),
                "created_at_unix": time.time(),
            }
            # Renamed into place, so that a journal always has its header.
            write_whole(path / JOURNAL, json.dumps(header, allow_nan=False) + "\n")
            _fsync_folder(path)
        except OSError as error:
            raise RunError(f"{path} can't be written: {error.strerror or error}") from None
        directory = cls(path, study, lock)
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
        """The directory of a run to go on with, under its own study for ``study=None``.

        Raises `RunError` where there is no run, another process writes it, or the study or the host is not the one the
        run began with; ``allow_changed`` permits that, and the manifest then records both.
        """
        if not (path / JOURNAL).is_file():
            raise RunError(f"{path} holds no run to resume (no {JOURNAL}); start one: phaselaw run --out {path}")
        try:
            lock = _locked(path)
        except OSError as error:
            raise RunError(f"{path} can't be written: {error.strerror or error}") from None
        try:
            journal = read_journal(path / JOURNAL)
            last = journal.processes[-1] if journal.processes else journal.header | {"host": host}
            kept = Study.model_validate(last.get("study") or journal.header["study"])
            changes = telemetry.host_differences(last["host"], host)
            if study is not None and study.sha256 != kept.sha256:
                changes.insert(0, f"study: {kept.sha256[:12]} became {study.sha256[:12]}")
            if changes and not allow_changed:
                raise RunError(
                    f"{path} was begun otherwise ({'; '.join(changes)}); --allow-changed goes on and records both"
                )
            directory = cls(path, study or kept, lock)
        except BaseException:
            lock.release()
            raise
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

    def append(self, event: ModelLoaded | Rewarmed | Call) -> None:
        """Keep one event: when this returns, it is on the disk."""
        self._write(_EVENTS[type(event)], to_jsonable(event))
        if isinstance(event, Call):
            self.calls.append(event)
        elif isinstance(event, ModelLoaded):
            self._models.append(event)
        else:
            self._rewarmed += 1

    def finish(self, status: Status) -> None:
        """End this process's part: write the journal's end event and every derived file."""
        self._write("end", {"status": status, "process_idx": self.process_idx, "at_unix": time.time()})
        self.write_tables(status)

    def write_tables(self, status: Status) -> None:
        """Write the files that derive from the journal, each whole."""
        write_csv(self.path / METRICS, COLUMNS, self._rows())
        write_csv(self.path / MODELS, MODEL_COLUMNS, self._model_rows())
        loads = [row for row in self._load_rows() if self.study_kind(row["backend"]) == "hf"]
        write_csv(self.path / HF_LOADS, ("model", "device", "dtype", "hf_load_ms", "backend", "process_idx"), loads)
        write_json(self.path / MANIFEST, self._manifest(status))

    def study_kind(self, backend: str) -> str:
        """The kind of a backend of this run."""
        return self.study.backend(backend).kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self.finish("interrupted")
        finally:
            self._file.close()
            self._lock.release()

    def _begin_process(self, host: Mapping[str, Any], argv: Sequence[str], changes: Sequence[str]) -> None:
        event = {
            "process_idx": self.process_idx,
            "host": dict(host),
            "argv": [redacted(word) for word in argv],
            "study": self.study.resolved(),
            "study_sha256": self.study.sha256,
            "phaselaw_version": __version__,
            "changes": list(changes),
            "started_at_unix": time.time(),
        }
        self._write("process", event)
        self._processes = [*self._journal.processes, event]
        write_json(self.path / MANIFEST, self._manifest("running"))

    def _write(self, event: str, content: Mapping[str, Any]) -> None:
        line = json.dumps({"event": event, **content}, separators=(",", ":"), allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _rows(self) -> list[dict[str, Any]]:
        measured = {(loaded.backend, loaded.model): loaded.info.params_millions_measured for loaded in self._models}
        labels = self._labels()
        prompts = {scenario.name: scenario.prompt for scenario in self.study.scenarios}
        rows: list[dict[str, Any]] = []
        for call in self.calls:
            rows += rows_of(
                call,
                prompt=prompts.get(call.cell.scenario),
                params_millions_config=labels.get((call.cell.model, call.cell.backend_kind)),
                params_millions_measured=measured.get((call.cell.backend, call.cell.model)),
            )
        return rows

    def _labels(self) -> dict[tuple[str, str], float | None]:
        """The parameter counts that the study states, by model name and kind."""
        return {(model.name, model.kind): model.params_millions for model in self.study.models}

    def _model_rows(self) -> list[dict[str, Any]]:
        labels = self._labels()
        rows = {}
        for loaded in self._models:
            kind = loaded.engine.kind
            rows[loaded.backend, loaded.model] = dict.fromkeys(MODEL_COLUMNS) | {
                "model": loaded.model,
                "kind": kind,
                "backend": loaded.backend,
                "params_millions_config": labels.get((loaded.model, kind)),
                **{name: value for name, value in to_jsonable(loaded.info).items() if name in MODEL_COLUMNS},
            }
        return list(rows.values())

    def _load_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "model": loaded.model,
                "device": loaded.info.device,
                "dtype": loaded.info.dtype,
                "hf_load_ms": loaded.load_ms,
                "backend": loaded.backend,
                "process_idx": loaded.process_idx,
            }
            for loaded in self._models
        ]

    def _manifest(self, status: Status) -> dict[str, Any]:
        header, study = self._journal.header, self.study
        expected_calls = study.calls_planned()
        failed = sum(call.status != "ok" for call in self.calls)
        return {
            "schema_version": METRICS_VERSION,
            "phaselaw_version": __version__,
            "run_id": self.path.resolve().name,
            "run_name": study.run_name,
            "status": status,
            "argv": header["argv"],
            "study": study.resolved(),
            "study_sha256": study.sha256,
            "config_sha256": study.sha256,
            "models": [model.name for model in study.models],
            "backends": [backend.name for backend in study.backends],
            "scenarios": [scenario.name for scenario in study.scenarios],
            "seed": study.seed,
            "order": study.order,
            "gen_tokens": study.gen_tokens,
            "repetitions": study.repetitions,
            "warmup_repetitions": study.warmup_repetitions,
            "task_count": len(study.cells()),
            "git_commit": header["git_commit"],
            "started_at_unix": header["created_at_unix"],
            "ended_at_unix": None if status == "running" else time.time(),
            "host": self._processes[-1]["host"],
            "processes": self._processes,
            "engines": list({loaded.backend: to_jsonable(loaded.engine) for loaded in self._models}.values()),
            "measured_params": [
                {"backend": row["backend"], "model": row["model"], "params_millions": row["params_millions_measured"]}
                for row in self._model_rows()
            ],
            "loads": self._load_rows(),
            "skipped": header["skipped"],
            "rewarmed": self._rewarmed,
            "calls_ok": len(self.calls) - failed,
            "calls_failed": failed,
            "rows_expected": expected_calls * len(PHASES),
            "rows_present": len(self.calls) * len(PHASES),
        }


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{path} is being written by another phaselaw; wait for it, or choose another --out") from None
    return lock


def _fsync_folder(path: Path) -> None:
    """Make a new file's name durable too, where folders can be synced."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _folder_name(run_name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_name).strip(".-") or "run"
