"""Where the numbers are from: the machine, the settings, the workload, what was accepted, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import polars as pl

from phaselaw import __version__
from phaselaw.report.columns import count, number, word
from phaselaw.report.document import Block, Bullets, Code, Paragraph, Section, Table
from phaselaw.report.subject import Subject


def environment(subject: Subject) -> Section:
    """The host, the engines with their settings, the order of the calls."""
    manifest = subject.manifest
    if not manifest:
        return Section(title="Environment", blocks=(Paragraph("Not recorded: these rows came without a manifest."),))
    host: Mapping[str, Any] = manifest.get("host") or manifest.get("platform") or {}
    facts = [
        f"{key.replace('_', ' ')}: {_plain(value)}"
        for key, value in host.items()
        if key != "limits" and value not in (None, [], "")
    ]
    for engine in manifest.get("engines") or []:
        settings = ", ".join(f"{key} {_plain(value)}" for key, value in engine.get("settings", {}).items())
        facts.append(f"engine {engine['kind']} {engine.get('version') or ''} ({engine['name']}): {settings}")
    facts.append(
        f"order of the calls: {subject.run.order}; seed {manifest.get('seed')}; {manifest.get('repetitions')} "
        f"repetitions and {manifest.get('warmup_repetitions')} warmups a cell; "
        f"{manifest.get('gen_tokens')} tokens a call"
    )
    facts += [f"skipped, since this machine lacked it: {what}" for what in manifest.get("skipped") or []]
    return Section(title="Environment", blocks=(Bullets(tuple(facts)),))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 99_999 else str(value)


def workload(subject: Subject) -> Section:
    """Prompt tokens by backend and scenario, and what of the rows was accepted."""
    rows = subject.run.rows
    prompts = (
        rows.filter((pl.col("mode") == "prefill") & ~pl.col("is_warmup") & (pl.col("status") == "ok"))
        .group_by("backend", "scenario", maintain_order=True)
        .agg(
            pl.col("prompt_tokens_raw").median().alias("median"),
            pl.col("prompt_tokens_raw").min().alias("min"),
            pl.col("prompt_tokens_raw").max().alias("max"),
        )
        .sort("backend", "median", "scenario")
    )
    accepted = (
        rows.group_by("backend", maintain_order=True)
        .agg(
            pl.len().alias("rows"),
            (pl.col("status") == "ok").sum().alias("ok"),
            (pl.col("status") != "ok").sum().alias("failed"),
            pl.col("is_warmup").sum().alias("warmup"),
        )
        .sort("backend")
    )
    manifest = subject.manifest
    expected = manifest.get("rows_expected", manifest.get("records_expected"))
    sha = manifest.get("config_sha256")
    blocks: list[Block] = [
        Table(
            caption="Prompt tokens of a call, by backend and scenario.",
            columns=(
                word("backend", "backend"),
                word("scenario", "scenario"),
                number("median", "median", "measured", count),
                number("least", "min", "measured", count),
                number("most", "max", "measured", count),
            ),
            rows=tuple(prompts.iter_rows(named=True)),
        ),
        Table(
            caption="Rows (one a phase and call). Warmup rows are left out of laws; failed ones of all but this.",
            columns=(
                word("backend", "backend"),
                number("rows", "rows", "measured", count),
                number("ok", "ok", "measured", count),
                number("failed", "failed", "measured", count),
                number("warmup", "warmup", "measured", count),
            ),
            rows=tuple(accepted.iter_rows(named=True)),
        ),
    ]
    if expected is not None:
        blocks.append(Paragraph(f"{count(expected)} rows were expected, {count(rows.height)} are there."))
    if sha:
        blocks.append(Paragraph(f"SHA-256 of the study: {sha}."))
    return Section(title="Workload and acceptance", blocks=tuple(blocks))


def method(subject: Subject) -> Section:
    """The definitions, in short."""
    del subject
    items = (
        "prefill: one forward pass over the prompt. decode: single-token steps on the KV cache, exactly as many as "
        "asked for. end to end: the sum of the two, of the same call.",
        "Parameters are measured, never taken from a label. A rate counts the tokens of its phase.",
        "Each number says where it is from: measured (by a clock, or counted), derived (arithmetic on measured), "
        "extrapolated (outside the data) or assumed (an input).",
    )
    return Section(title="Method in short", blocks=(Bullets(items),))


def limits(subject: Subject) -> Section:
    """What stands against every number in the report."""
    items = ["Each call ran alone: no queue, no other user, no concurrency.",
             "The laws describe these models on this host and runtime; another runtime is another law."]  # fmt: skip
    models = [str(name) for name in subject.run.rows["model"].unique().to_list()]
    if any(name.startswith("models/") for name in models):
        items.append(
            "The ladder's models have random weights and differ in depth and width as well as in size: right for "
            "timing, and not a family that was scaled up evenly."
        )
    if subject.run.order == "cells":
        items.append("A cell's calls ran back to back, so drift of the machine looks like a difference between cells.")
    items.append("One run: how much another run would differ was not measured.")
    return Section(title="Limits", blocks=(Bullets(tuple(items)),))


def reproduce(subject: Subject) -> Section:
    """The commands that made this, and an index of what lies beside it."""
    manifest = subject.manifest
    where = subject.run.path.as_posix()
    commands = []
    argv = manifest.get("argv")
    if argv:
        commands.append(shlex.join(["phaselaw" if "phaselaw" in str(argv[0]) else str(argv[0]), *map(str, argv[1:])]))
    commands += [f"phaselaw analyze {shlex.quote(where)}", f"phaselaw report {shlex.quote(where)}"]
    facts = [f"phaselaw {__version__} wrote this report."]
    if manifest.get("phaselaw_version"):
        facts.append(f"phaselaw {manifest['phaselaw_version']} measured it.")
    commit = manifest.get("git_commit") or manifest.get("git_head")
    if commit:
        facts.append(f"Commit of the working directory it was measured in: {commit}.")
    tables = [
        {"file": f"analysis/{name}.csv", "rows": table.height, "note": subject.analysis.notes.get(name, "")}
        for name, table in subject.analysis.tables.items()
    ]
    blocks = (
        Code("\n".join(commands)),
        Bullets(tuple(facts)),
        Table(
            caption="Every table of the analysis.",
            columns=(word("file", "file"), number("rows", "rows", "measured", count), word("why empty", "note")),
            rows=tuple(tables),
        ),
    )
    return Section(title="How to reproduce", blocks=blocks)
