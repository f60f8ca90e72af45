"""What derives from a run's journal: its tables, and the manifest that holds their hashes. Writes nothing.

Derived from one journal at any time, they come out the same. The formats stand in docs/run-directory.md.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phaselaw.errors import RunError, reading
from phaselaw.files import csv_text, raw_text, read_plain
from phaselaw.records import COLD_AGAIN, PHASES, to_jsonable
from phaselaw.rundir.columns import COLUMNS, SCHEMA_VERSION, millions_in_name, rows_of, settled_calls
from phaselaw.rundir.journal import JOURNAL, Journal, scan_journal
from phaselaw.study.model import Study

MANIFEST, METRICS = "manifest.json", "metrics.csv"
HOSTS, HOST = "hosts", "host.json"
"""``hosts/NAME/host.json`` says what one of several hosts is; its folder stands for what it measured of the run."""
MODELS, HF_LOADS = "resolved_model_params.csv", "hf_load_ms.csv"

MODEL_COLUMNS = (
    "model", "kind", "params_millions_config", "params_millions_measured", "parameter_size_raw", "quantization_level",
    "family", "device", "dtype", "backend", "n_layer", "n_embd", "n_head", "n_inner", "vocab_size", "n_positions",
    "weights_bytes", "weights_sha256", "config_path", "identity", "n_kv_head", "head_dim", "n_experts",
    "lookup_params", "lookup_bytes", "n_experts_used", "expert_params", "expert_bytes", "params_millions_active",
    "kv_cache",
)  # fmt: skip
"""TR121's columns of ``resolved_model_params.csv`` first, ours after them."""

LOAD_COLUMNS = ("model", "device", "dtype", "hf_load_ms", "backend", "process_idx")

HASHES, SEAL = "sha256", "manifest_sha256"
"""Keys of a manifest: the hash of each table, and that of all else in the manifest."""


def kept_study(path: Path, journal: Journal) -> Study:
    """The study that a run goes by: its last process's. Raises `RunError` where this version can't read it."""
    return _studies(path, journal)[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derived:
    """What derives from a journal: the tables by file name, as they are written, the manifest, its hosts by name."""

    tables: dict[str, bytes]
    manifest: dict[str, Any]
    hosts: dict[str, dict[str, Any]]


def derived(path: Path, journal: Journal, *, with_tables: bool = True) -> Derived:
    """The files that derive from the journal of the run at ``path``; raises `RunError` for a study of another kind."""
    with reading(path, RunError):
        studies = _studies(path, journal)
        models, loads = _model_rows(journal, studies), _loads(journal)
        of_tables = (
            (METRICS, COLUMNS, _rows(journal, studies, models)),
            (MODELS, MODEL_COLUMNS, models),
            (HF_LOADS, LOAD_COLUMNS, [row for row in loads if row["kind"] == "hf"]),
        )
        tables = {name: raw_text(csv_text(columns, rows)) for name, columns, rows in of_tables if with_tables}
        manifest = _manifest(journal, studies, models, loads)
    hashes = {name: hashlib.sha256(table).hexdigest() for name, table in tables.items()}
    measured = {call.process_idx for call in journal.calls}
    named = (each["host"] for each in journal.processes if each["process_idx"] in measured and "name" in each["host"])
    hosts = {host["name"]: host for host in named}
    return Derived(tables=tables, manifest=sealed(manifest | {HASHES: hashes}), hosts=hosts)


def faults(path: Path) -> Iterator[str]:
    """What in a run directory is not as it was written, each with its place; raises `RunError` for what is no run."""
    journal = scan_journal(path / JOURNAL)
    yield from (f"{JOURNAL}{f':{each.line}' if each.line else ''}: {each.what}" for each in journal.damage)
    if journal.damage:
        return
    found = derived(path, journal)
    planned, end = kept_study(path, journal).calls_planned(), journal.end
    if end is not None and end["status"] == "complete" and len(journal.calls) < planned:
        yield f"{JOURNAL}: {len(journal.calls)} of {planned} calls, though it ends as complete"
    manifest: Any = None
    with suppress(OSError, ValueError, RecursionError):
        manifest = json.loads(read_plain(path / MANIFEST))
    if not isinstance(manifest, dict) or not is_sound(manifest):
        yield f"{MANIFEST}: not as it was written"
    elif manifest.get("status") != "running":
        kept = manifest.get(HASHES)
        for name, table in found.tables.items():
            there = (path / name).read_bytes() if (path / name).is_file() else b""
            as_written = isinstance(kept, dict) and kept.get(name) == hashlib.sha256(there).hexdigest()
            if as_written and there.partition(b"\n")[0] != table.partition(b"\n")[0]:
                continue  # by another version, whose tables have other columns
            pairs = enumerate(zip_longest(there.splitlines(), table.splitlines()), start=1)
            line = next((line for line, (one, two) in pairs if one != two), None)
            if line is not None:
                yield f"{name}: line {line} is not what the journal says"
            elif there != table:
                yield f"{name}: its line ends are not what was written"


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the hash of all else that stands in it."""
    content = {key: value for key, value in manifest.items() if key != SEAL}
    return content | {SEAL: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def is_sound(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was written; of version 1, which had no hash, nothing can be told."""
    if SEAL not in manifest:
        return manifest.get("schema_version") in (None, 1)
    return sealed(manifest) == manifest


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
    prompts = {scenario.name: scenario.text for study in studies for scenario in study.scenarios}
    hosts = {process["process_idx"]: process["host"] for process in journal.processes}
    abandoned = [(dataclasses.replace(call, error=why), "abandoned") for call, why in journal.abandoned]
    for call, status in (*((call, None) for call in settled_calls(journal.calls)), *abandoned):
        host = hosts.get(call.process_idx, {})
        of_study: dict[str, Any] = {
            "host": host.get("name"),
            "shared_machine": host.get("shared_machine"),
            "prompt": prompts.get(call.cell.scenario),
            "params_millions_config": labels.get((call.cell.model, call.cell.backend_kind)),
            "params_millions_measured": measured.get((call.cell.backend, call.cell.model)),
            "threads": threads.get(call.cell.backend),
        }
        try:
            rows = list(rows_of(call, **of_study))
        except (ArithmeticError, ValueError) as error:
            # Figures that no row can be made of must not keep the other rows from being read.
            failed = dataclasses.replace(call, timing=None, status="error", error=f"underivable: {error}")
            rows = list(rows_of(failed, **of_study))
        yield from rows if status is None else (row | {"status": status} for row in rows)


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
            "params_millions_active": loaded.info.params_millions_active or millions_in_name(loaded.model)[1],
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
    more = sum(COLD_AGAIN in call.call_id for call in journal.calls)
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
        "resumed_replicates": journal.resumed_replicates,
        "kept_servers": list(study.kept_servers()),
        "calls_ok": len(journal.calls) - failed,
        "calls_failed": failed,
        "calls_abandoned": len(journal.abandoned),
        "rows_expected": (study.calls_planned() + more) * len(PHASES),
        "rows_present": len(journal.calls) * len(PHASES),
    }
