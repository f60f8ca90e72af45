"""The files of a run directory that derive from its journal: the tables and the manifest.

Each is written whole from the journal alone, so that they can be written again at any time and come out the same.
The formats stand in docs/run-directory.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phaselaw.errors import RunError
from phaselaw.files import write_csv, write_json
from phaselaw.records import PHASES, to_jsonable
from phaselaw.rundir.columns import COLUMNS, rows_of
from phaselaw.rundir.columns import SCHEMA_VERSION as METRICS_VERSION
from phaselaw.rundir.journal import JOURNAL, Journal, read_journal
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


def kept_study(path: Path, journal: Journal) -> Study:
    """The study that a run goes by: its last process's. Raises `RunError` where this version can't read it."""
    return _studies(path, journal)[-1]


def write_derived(path: Path) -> None:
    """Write every derived file of a run directory; raises `RunError` for its journal, OSError for the files."""
    journal = read_journal(path / JOURNAL)
    studies = _studies(path, journal)
    hf_loads = [row for row in _loads(journal) if row["kind"] == "hf"]
    write_csv(path / METRICS, COLUMNS, _rows(journal, studies))
    write_csv(path / MODELS, MODEL_COLUMNS, _model_rows(journal, studies))
    write_csv(path / HF_LOADS, LOAD_COLUMNS, hf_loads)
    write_json(path / MANIFEST, _manifest(journal, studies))


def write_manifest(path: Path) -> None:
    """Write the manifest alone; raises as `write_derived`."""
    journal = read_journal(path / JOURNAL)
    write_json(path / MANIFEST, _manifest(journal, _studies(path, journal)))


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


def _rows(journal: Journal, studies: list[Study]) -> list[dict[str, Any]]:
    measured = {(loaded.backend, loaded.model): loaded.info.params_millions_measured for loaded in journal.models}
    labels = _labels(studies)
    threads = {backend.name: getattr(backend, "threads", None) for study in studies for backend in study.backends}
    prompts = {scenario.name: scenario.prompt for study in studies for scenario in study.scenarios}
    rows: list[dict[str, Any]] = []
    for call in journal.calls:
        rows += rows_of(
            call,
            prompt=prompts.get(call.cell.scenario),
            params_millions_config=labels.get((call.cell.model, call.cell.backend_kind)),
            params_millions_measured=measured.get((call.cell.backend, call.cell.model)),
            threads=threads.get(call.cell.backend),
        )
    return rows


def _labels(studies: list[Study]) -> dict[tuple[str, str], float | None]:
    """The parameter counts that the studies state, by model name and kind."""
    return {(model.name, model.kind): model.params_millions for study in studies for model in study.models}


def _model_rows(journal: Journal, studies: list[Study]) -> list[dict[str, Any]]:
    labels = _labels(studies)
    identities: dict[tuple[str, str], str] = {
        (model.name, model.kind): model.identity for study in studies for model in study.models
    }
    rows = {}
    for loaded in journal.models:
        kind = loaded.engine.kind
        rows[loaded.backend, loaded.model] = dict.fromkeys(MODEL_COLUMNS) | {
            "model": loaded.model,
            "kind": kind,
            "backend": loaded.backend,
            "params_millions_config": labels.get((loaded.model, kind)),
            "identity": identities.get((loaded.model, kind)),
            **{name: value for name, value in to_jsonable(loaded.info).items() if name in MODEL_COLUMNS},
        }
    return list(rows.values())


def _loads(journal: Journal) -> list[dict[str, Any]]:
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


def _manifest(journal: Journal, studies: list[Study]) -> dict[str, Any]:
    header, study = journal.header, studies[-1]
    end = journal.end
    return {
        "schema_version": METRICS_VERSION,
        "phaselaw_version": (journal.processes or (header,))[-1].get("phaselaw_version"),
        "run_id": header["run_id"],
        "run_name": study.run_name,
        "status": "running" if end is None else end["status"],
        "argv": header["argv"],
        **header.get("asked", {}),
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
        "ended_at_unix": None if end is None else end["at_unix"],
        "host": journal.processes[-1]["host"] if journal.processes else None,
        "processes": list(journal.processes),
        "engines": list({loaded.backend: to_jsonable(loaded.engine) for loaded in journal.models}.values()),
        "measured_params": [
            {"backend": row["backend"], "model": row["model"], "params_millions": row["params_millions_measured"]}
            for row in _model_rows(journal, studies)
        ],
        "loads": _loads(journal),
        "skipped": header["skipped"],
        "rewarmed": len(journal.rewarmed),
        **_counts(journal, study),
    }


def _counts(journal: Journal, study: Study) -> dict[str, int]:
    expected_calls = study.calls_planned()
    failed = sum(call.status != "ok" for call in journal.calls)
    return {
        "calls_ok": len(journal.calls) - failed,
        "calls_failed": failed,
        "rows_expected": expected_calls * len(PHASES),
        "rows_present": len(journal.calls) * len(PHASES),
    }
