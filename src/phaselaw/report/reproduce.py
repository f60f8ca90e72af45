"""The limits of the report, the commands that reproduce it, and the files that belong to it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from phaselaw import __version__
from phaselaw.laws.analysis import DECLARED
from phaselaw.report.document import Bullets, Code, Section, Table
from phaselaw.report.subject import Subject
from phaselaw.tables import Row, count, counted, words

_FILES = {
    "metrics.csv": "raw rows, one a phase and call",
    "manifest.json": "environment, resolved study, seed, hashes",
    "journal.jsonl": "every call as it was made",
    "resolved_model_params.csv": "parameters measured of each model",
    "hf_load_ms.csv": "load times",
}


def limits(subject: Subject) -> Section:
    """What limits every number in the report."""
    items = [
        "Each call ran alone: no queue, no other user, no concurrency.",
        "The laws describe these models on this host and runtime; another runtime is another law.",
        "Only time was measured: nothing here says how good an answer is.",
    ]
    models = [str(name) for name in subject.run.rows["model"].unique().to_list()]
    if any(name.startswith("models/") for name in models):
        items.append(
            "The ladder's models have random weights and differ in depth and width as well as in size: right for "
            "timing, and not a family that was scaled up evenly."
        )
    if len(subject.run.rows["backend_kind"].unique()) > 1:
        items.append("Backends of different kinds ran different models: compare their regimes, not their seconds.")
    if subject.rows("ollama_early_stop_summary"):
        items.append("Decodes that stopped early are reported as if they had run to the budget: a modelling choice.")
    if subject.run.order == "cells":
        items.append("A cell's calls ran back to back, so drift of the machine looks like a difference between cells.")
    if len(subject.run.sources) < 2:
        items.append("One run: how much another run would differ was not measured.")
    return Section(title="Limits", blocks=(Bullets(tuple(items)),))


def reproduce(subject: Subject) -> Section:
    """The commands that made this, with the versions and commits that they were made at."""
    manifest = subject.manifest
    paths = [source.path.as_posix() for source in subject.run.sources] or [subject.run.path.as_posix()]
    commands = []
    argv = [str(part) for part in manifest.get("argv") or []]
    if argv:
        ours = Path(argv[0]).name in {"phaselaw", "__main__.py"}
        script = ["python", argv[0]] if argv[0].endswith(".py") else [argv[0]]
        commands.append(shlex.join([*(["phaselaw"] if ours else script), *argv[1:]]))
    commands += [f"phaselaw {verb} {shlex.join(paths)}" for verb in ("analyze", "report")]
    if subject.beside:
        commands[-1] += f" --with {shlex.join(other.run.path.as_posix() for other in subject.beside)}"
    facts = [f"phaselaw {__version__} wrote this report."]
    if manifest.get("phaselaw_version"):
        facts.append(f"phaselaw {manifest['phaselaw_version']} measured it.")
    commit = manifest.get("git_commit") or manifest.get("git_head")
    if commit:
        facts.append(f"Commit of the working directory it was measured in: {commit}.")
    options = subject.analysis.options
    facts.append(f"Bootstrap: {count(options.draws)} draws, seed {options.seed}; intervals at {options.level:.0%}.")
    return Section(title="How to reproduce", blocks=(Code("\n".join(commands)), Bullets(tuple(facts))))


def index(subject: Subject) -> Section:
    """Every file that the report draws on or comes with: what it contains, and for raw data its size and hash."""
    file, holds = words("file", "file"), words("holds", "holds")
    raw = Table(
        caption="What was measured.",
        columns=(file, holds, counted("bytes", "bytes"), words("sha256", "SHA-256")),
        rows=tuple(_raw(subject)),
    )
    notes = subject.analysis.notes
    tables = tuple(
        {
            "file": f"analysis/{name}.csv",
            "holds": DECLARED[name].holds,
            "rows": found.height,
            "note": notes.get(name, ""),
        }
        for name, found in subject.analysis.tables.items()
    )
    analysed = Table(
        caption="What was worked out. Plots are in analysis/plots, the report also as report.md.",
        columns=(file, holds, counted("rows", "rows", provenance="derived"), words("note", "why empty")),
        rows=tables,
    )
    return Section(title="Files", blocks=(raw, analysed) if raw.rows else (analysed,))


def _raw(subject: Subject) -> Iterator[Row]:
    for source in subject.run.sources:
        folder = source.path if source.path.is_dir() else source.path.parent
        names = _FILES if source.path.is_dir() else {source.path.name: _FILES["metrics.csv"]}
        for name, holds in names.items():
            path = folder / name
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                shown = name if len(subject.run.sources) == 1 else f"{source.run_id}/{name}"
                yield {"file": shown, "holds": holds, "bytes": path.stat().st_size, "sha256": digest}
