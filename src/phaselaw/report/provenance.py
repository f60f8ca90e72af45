"""Where the numbers are from: the definitions, the machine, the models, the workload and what was accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from phaselaw.report.document import Block, Bullets, Paragraph, Section, Table
from phaselaw.report.subject import Subject
from phaselaw.tables import BACKEND, MODEL, Row, assumed, count, counted, measured, words


def method(subject: Subject) -> Section:
    """The definitions, in short."""
    del subject
    items = (
        "prefill: one forward pass over the prompt. decode: single-token steps on the KV cache, exactly as many as "
        "asked for. end to end: the sum of the two, of the same call.",
        "A cell is one backend, model, scenario, batch size and decode budget; its latency is the median of its "
        "measured calls. A model's latency is the geometric mean of its cells' over scenarios.",
        "Parameters are measured, never taken from a label. A rate counts the tokens of its phase.",
        "Each number says where it is from: measured (by a clock, or counted), derived (arithmetic on measured), "
        "extrapolated (outside the data) or assumed (an input). Figures in sentences are derived unless they say else.",
    )
    return Section(title="Method in short", blocks=(Bullets(items),))


def environment(subject: Subject) -> Section:
    """The host, the engines with their settings, the order of the calls, the models."""
    manifest = subject.manifest
    if not manifest:
        return Section(title="Environment", blocks=(Paragraph("Not recorded: these rows came without a manifest."),))
    facts = tuple({"what": what, "value": value} for what, value in _facts(subject, manifest))
    columns = (words("what", "what"), words("value", "value"))
    table = Table(caption="Machine, software and order.", columns=columns, rows=facts)
    models = _models(subject)
    return Section(title="Environment", blocks=(table, *((models,) if models.rows else ())))


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
        settings = ", ".join(f"{key} {_plain(value)}" for key, value in engine.get("settings", {}).items())
        yield f"engine {engine['name']}", f"{engine['kind']} {engine.get('version') or ''}: {settings}"
    yield "order of the calls", f"{subject.run.order}; seed {manifest.get('seed')}"
    calls = _several(manifest.get("repetitions"), "repetition"), _several(manifest.get("warmup_repetitions"), "warmup")
    yield "calls a cell", f"{', '.join(calls)}; {manifest.get('gen_tokens')} tokens asked for"
    for what in manifest.get("skipped") or []:
        yield "skipped, since this machine lacked it", _plain(what)


def _several(number: Any, of: str) -> str:
    return f"{number} {of}" + ("" if number == 1 else "s")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 99_999 else str(value)


def _models(subject: Subject) -> Table:
    """What each model is, as it was resolved when the run began."""
    known = subject.run.models
    names = [name for name in ("family", "quantization_level", "device", "dtype") if name in known.columns]
    order = [name for name in ("kind", "params_millions_measured", "model", "device") if name in known.columns]
    rows = tuple(known.unique().sort(order).iter_rows(named=True)) if "model" in known.columns else ()
    return Table(
        caption="Models, as resolved when the run began.",
        columns=(
            MODEL,
            words("kind", "engine"),
            measured("params_millions_measured", "params (M)"),
            assumed("params_millions_config", "as labelled (M)"),
            *(words(name, name.replace("_level", "")) for name in names if any(row[name] for row in rows)),
        ),
        rows=rows,
    )


def workload(subject: Subject) -> Section:
    """Prompt tokens by backend and scenario (TR121 3.5.1)."""
    raw = pl.col("prompt_tokens_raw")
    prompts = (
        subject.run.rows.filter((pl.col("mode") == "prefill") & ~pl.col("is_warmup") & (pl.col("status") == "ok"))
        .group_by("backend", "scenario", maintain_order=True)
        .agg(raw.median().alias("median"), raw.min().alias("least"), raw.max().alias("most"))
        .sort("backend", "median", "scenario")
    )
    counts = (counted(name, name) for name in ("median", "least", "most"))
    table = Table(
        caption="Prompt tokens of a call, by backend and scenario. They differ inside a scenario where tokenizers do.",
        columns=(BACKEND, words("scenario", "scenario"), *counts),
        rows=tuple(prompts.iter_rows(named=True)),
    )
    return Section(title="Workload", blocks=(table,))


def acceptance(subject: Subject) -> Section:
    """What of the rows was accepted: per backend and status, against what was expected (TR121 3.1, 3.7)."""
    rows, manifest = subject.run.rows, subject.manifest
    ok = pl.col("status") == "ok"
    accepted = rows.group_by("backend", maintain_order=True).agg(
        rows=pl.len(), ok=ok.sum(), failed=(~ok).sum(), warmup=pl.col("is_warmup").sum()
    )
    table = Table(
        caption="Rows (one a phase and call). Warmup rows are left out of laws; failed ones of all but this table.",
        columns=(BACKEND, *(counted(name, name) for name in ("rows", "ok", "failed", "warmup"))),
        rows=tuple(accepted.sort("backend").iter_rows(named=True)),
    )
    failures = Table(
        caption="Why rows failed, the most frequent first.",
        columns=(BACKEND, words("status", "status"), counted("rows", "rows"), words("error", "error")),
        rows=_failures(rows),
    )
    facts = []
    expected = manifest.get("rows_expected", manifest.get("records_expected"))
    if expected is not None:
        facts.append(f"{count(expected)} rows were expected, {count(rows.height)} are there.")
    if manifest.get("config_sha256"):
        facts.append(f"SHA-256 of the study: {manifest['config_sha256']}.")
    facts += list(subject.run.notes)
    blocks: list[Block] = [table, *([failures] if failures.rows else []), *([Bullets(tuple(facts))] if facts else [])]
    return Section(title="Acceptance", blocks=tuple(blocks))


def _failures(rows: pl.DataFrame) -> tuple[Row, ...]:
    keys = [name for name in ("backend", "status", "error") if name in rows.columns]
    failed = rows.filter(pl.col("status") != "ok").group_by(keys, maintain_order=True).agg(rows=pl.len())
    return tuple(failed.sort("rows", descending=True).head(12).iter_rows(named=True))
