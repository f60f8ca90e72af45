"""Where the numbers are from: machine, models, workload, what was accepted, limits, commands, files."""

import itertools
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from phaselaw import __version__
from phaselaw.files import sha256_of
from phaselaw.laws.analysis import DECLARED
from phaselaw.report.document import Block, Code, Table
from phaselaw.report.outline import WORDING
from phaselaw.report.subject import Subject
from phaselaw.rundir.read import runs_of
from phaselaw.tables import BACKEND, BUDGET, MODEL, Col, Row, assumed, count, counted, in_full, measured, texts, words

_FEW_MODELS = 10


def environment(subject: Subject) -> Iterator[Block | None]:
    """The host, the engines with their settings, the order of the calls, the models."""
    if not subject.run.manifest:
        yield "Not recorded: these rows came without a manifest."
        return
    facts = tuple({"what": what, "value": value} for what, value in _facts(subject, subject.run.manifest))
    yield Table(caption="Machine, software and order.", columns=texts(what="what", value="value"), rows=facts)
    yield _models(subject.run.models)


def _facts(subject: Subject, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    host: Mapping[str, Any] = manifest.get("host") or manifest.get("platform") or {}
    for key, value in host.items():
        if key != "limits" and value not in (None, [], {}, ""):
            yield key.replace("_", " "), _plain(value)
    gpu = manifest.get("nvml") or {}
    if gpu.get("name"):
        yield "GPU", f"{gpu['name']}, {count(gpu.get('memory_total_mb'))} MB"
    if manifest.get("torch"):
        yield "libraries", _plain(manifest["torch"])
    for engine in manifest.get("engines") or []:
        settings = _plain(engine.get("settings", {}))
        if told := WORDING["prefill_logits"].get(engine.get("settings", {}).get("prefill_logits")):
            yield f"prefill of {engine['name']}", told
        yield f"engine {engine['name']}", f"{engine['kind']} {engine.get('version') or ''}: {settings}"
    yield "order of the calls", f"{subject.run.order}; seed {manifest.get('seed')}"
    numbers = {of: manifest.get(f"{key}repetitions") for of, key in (("repetition", ""), ("warmup", "warmup_"))}
    calls = ", ".join(f"{number} {of}" + ("" if number == 1 else "s") for of, number in numbers.items())
    budgets = subject.run.rows[BUDGET].drop_nulls().unique().sort().to_list()
    yield "calls a cell", f"{calls}; {_plain(budgets)} tokens asked for"
    for what in manifest.get("skipped") or []:
        yield "skipped, since this machine lacked it", _plain(what)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and value > 9_999 else str(value)


def _models(known: pl.DataFrame) -> Table | None:
    """What each model is, as it was resolved when the run began; ``None`` where that is not known."""
    if "model" not in known.columns or known.is_empty():
        return None
    order = [name for name in ("kind", "params_millions_measured", "model", "device") if name in known.columns]
    rows = tuple(known.unique().sort(order).iter_rows(named=True))
    properties = ("family", "quantization_level", "device", "dtype")
    return Table(
        caption="Models, as resolved when the run began.",
        columns=(
            MODEL,
            words("kind", "engine"),
            measured("params_millions_measured", "params (M)"),
            assumed("params_millions_config", "as labelled (M)"),
            *(words(name, name.replace("_level", "")) for name in properties if any(row.get(name) for row in rows)),
        ),
        rows=rows,
    )


def workload(subject: Subject) -> Iterator[Table]:
    """Prompt tokens by backend and scenario (TR121 3.5.1)."""
    yield Table(
        caption="Prompt tokens of a call, by backend and scenario. They differ inside a scenario where tokenizers do.",
        columns=(BACKEND, words("scenario", "scenario"), *_counts("median", "least", "most")),
        rows=prompts(subject),
    )


def prompts(subject: Subject) -> tuple[Row, ...]:
    """Prompt tokens by backend and scenario."""
    raw = pl.col("prompt_tokens_raw")
    prompts = (
        subject.run.rows.filter((pl.col("mode") == "prefill") & ~pl.col("is_warmup") & (pl.col("status") == "ok"))
        .group_by("backend", "scenario", maintain_order=True)
        .agg(median=raw.median(), least=raw.min(), most=raw.max())
        .sort("backend", "median", "scenario")
    )
    return tuple(prompts.iter_rows(named=True))


def acceptance(subject: Subject) -> Iterator[Block | None]:
    """What of the rows was accepted: per backend and status, against what was expected (TR121 3.1, 3.7)."""
    rows, manifest = subject.run.rows, subject.run.manifest
    ok = pl.col("status") == "ok"
    by_backend = rows.group_by("backend", maintain_order=True)
    accepted = by_backend.agg(rows=pl.len(), ok=ok.sum(), failed=(~ok).sum(), warmup=pl.col("is_warmup").sum())
    table = Table(
        caption="Rows (one a phase and call). Warmup rows are left out of laws; failed ones of all but this table.",
        columns=(BACKEND, *_counts("rows", "ok", "failed", "warmup")),
        rows=tuple(accepted.sort("backend").iter_rows(named=True)),
    )
    keys = [name for name in ("backend", "status", "error") if name in rows.columns]
    failed = rows.filter(~ok).group_by(keys, maintain_order=True).agg(rows=pl.len()).sort("rows", descending=True)
    failures = Table(
        caption="Why rows failed, the most frequent first.",
        columns=(BACKEND, words("status", "status"), *_counts("rows"), words("error", "error")),
        rows=tuple(failed.head(12).iter_rows(named=True)),
    )
    expected, digest = manifest.get("rows_expected", manifest.get("records_expected")), manifest.get("config_sha256")
    facts = [
        *([f"{count(expected)} rows were expected, {count(rows.height)} are there."] if expected is not None else []),
        *([f"SHA-256 of the study: {digest}."] if digest else []),
        *subject.run.notes,
    ]
    yield table
    yield failures if failures.rows else None
    yield tuple(facts) or None


def _counts(*names: str) -> tuple[Col, ...]:
    return tuple(counted(name, name) for name in names)


def limits(subject: Subject) -> Iterator[Block]:
    """What limits every number in the report."""
    run, rows = subject.run, subject.run.rows
    applies = {
        "alone": "concurrency" not in rows.columns or rows["concurrency"].max() in (None, 1),
        "models": rows["model"].n_unique() < _FEW_MODELS,
        "ladder": rows["model"].cast(pl.String).str.starts_with("models/").any(),
        "kinds": rows["backend_kind"].n_unique() > 1 and not subject.rows("engine_ratios"),
        "early stops": any(row["early_stop_rate"] for row in subject.rows("ollama_early_stop_summary")),
        "order": run.order == "cells",
        "runs": len(run.sources) < 2 and rows["replicate"].n_unique() < 2,
        "day": len(run.sources) < 2 and rows["replicate"].n_unique() > 1,
    }
    yield tuple(sentence for name, sentence in WORDING["not_told"].items() if applies.get(name, True))


def reproduce(subject: Subject) -> Iterator[Block]:
    """The commands that made this, with the versions and commits that they were made at."""
    manifest, options = subject.run.manifest, subject.analysis.options
    paths = [source.path.as_posix() for source in subject.run.sources] or [subject.run.path.as_posix()]
    commands = [f"phaselaw {verb} {shlex.join(paths)}" for verb in ("analyze", "report")]
    if subject.beside:
        commands[-1] += f" --with {shlex.join(other.run.path.as_posix() for other in subject.beside)}"
    argv = [str(part) for part in manifest.get("argv") or []]
    if argv:
        ours = Path(argv[0]).name in {"phaselaw", "__main__.py"}
        script = ["python", argv[0]] if argv[0].endswith(".py") else [argv[0]]
        commands.insert(0, shlex.join([*(["phaselaw"] if ours else script), *argv[1:]]))
    version, commit = manifest.get("phaselaw_version"), manifest.get("git_commit") or manifest.get("git_head")
    facts = [
        f"phaselaw {__version__} wrote this report.",
        *([f"phaselaw {version} measured it."] if version else []),
        *([f"Commit of the working directory it was measured in: {commit}."] if commit else []),
        f"Bootstrap: {count(options.draws)} draws, seed {options.seed}; intervals at {in_full(options.level)}.",
    ]
    yield Code("\n".join(commands))
    yield tuple(facts)


def index(subject: Subject) -> Iterator[Table | None]:
    """Every file that the report draws on or comes with: what it contains, and for raw data its size and hash."""
    file, notes = texts(file="file", holds="holds"), subject.analysis.notes
    columns = (*file, counted("bytes", "bytes"), words("sha256", "SHA-256"))
    raw = Table(caption="What was measured.", columns=columns, rows=tuple(_raw(subject)))
    analysed = Table(
        caption="What was worked out. Plots are in analysis/plots, the report also as report.md.",
        columns=(*file, counted("rows", "rows", provenance="derived"), words("note", "why empty")),
        rows=tuple(
            {"file": f"analysis/{name}.csv", "holds": DECLARED[name].holds, "rows": found.height}
            | {"note": notes.get(name, "")}
            for name, found in subject.analysis.tables.items()
        ),
    )
    yield raw if raw.rows else None
    yield analysed


def _raw(subject: Subject) -> Iterator[Row]:
    for source in subject.run.sources:
        folder = source.path if source.path.is_dir() else source.path.parent
        names = WORDING["files"] if source.path.is_dir() else {source.path.name: WORDING["files"]["metrics.csv"]}
        parts = [f"{budget.name}/" for budget in runs_of(folder).values()]
        for (name, holds), part in itertools.product(names.items(), parts or [""]):
            path = folder / part / name
            if path.is_file():
                shown = "" if len(subject.run.sources) == 1 else f"{source.run_id}/"
                about = {"file": f"{shown}{part}{name}", "holds": holds}
                yield about | {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
