"""Checks of servers: answers from a prompt cache, how a server counts its decode, prompts that it cut (method 3)."""

from __future__ import annotations

from typing import Any

import polars as pl

from phaselaw.laws.summary import BUDGET
from phaselaw.laws.validity.findings import (
    DECODE,
    GROUP_OF_MODEL,
    IN_PROCESS,
    PREFILL,
    Checked,
    Evidence,
    Finding,
    Where,
)

ONE_STEP = 1.3
"""A prefill of at most so many decode steps costs about one."""
SLOW_FIRST = 1.25
"""A first call that took so many times the repeated ones' median cost clearly more."""
ALPHA = 0.05
LONGER = 1.5
"""A prompt with so many times the characters of another can't have as few tokens."""

CACHE, CONVENTION, CUT = "prompt cache", "count convention", "prompt cut"


def prompt_cache(evidence: Evidence) -> Checked:
    """Calls answered from a prompt cache: *found* by the engine, or *suspected* on rows that we did not measure."""
    prefills = evidence.run.rows.filter((pl.col("mode") == "prefill") & ~pl.col("backend_kind").is_in(IN_PROCESS))
    known = prefills.filter(pl.col("cache_check").is_not_null())
    findings = [_found(row) for row in _cells(known.filter(pl.col("cache_check") == "found")).iter_rows(named=True)]
    unknown = [] if evidence.ours else _suspected(evidence)
    n = prefills.select("backend", "batch_size", BUDGET, "model", "scenario").n_unique()
    return Checked(
        check=CACHE,
        unit="cells of served engines",
        n_checked=n,
        findings=(*findings, *unknown),
        false_alarms="found: none known, the engine told; suspected: not bounded, another reading is named",
        not_checked=None if n else "no served engine",
    )


def _cells(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by([*GROUP_OF_MODEL, "scenario"], maintain_order=True).agg(
        pl.len().alias("n"), pl.col("prompt_tokens_raw").median().alias("tokens")
    )


def _where(row: dict[str, Any]) -> Where:
    return Where(
        backend=row["backend"],
        batch_size=row["batch_size"],
        gen_tokens_target=row[BUDGET],
        model=row["model"],
        scenario=row.get("scenario"),
    )


def _found(row: dict[str, Any]) -> Finding:
    return Finding(
        check=CACHE,
        status="found",
        where=_where(row),
        modes=PREFILL,
        value=float(row["n"]),
        evidence=f"{row['n']} calls were answered from the server's prompt cache; they are error rows",
        next_step="nothing to do if enough calls are left; else run with another seed, so that prompts are new",
    )


def _suspected(evidence: Evidence) -> list[Finding]:
    """Cells of models all of whose repeated prefills cost about one step, where the first call cost clearly more."""
    step = pl.coalesce("kv_decode_ms_per_token", pl.col("kv_decode_ms") / pl.col("gen_tokens_raw"), "decode_step_ms")
    per_token = (
        [] if "kv_decode_ms_per_token" in evidence.ok.columns else [pl.lit(None).alias("kv_decode_ms_per_token")]
    )
    warm = ~pl.col("is_warmup")
    calls = (
        evidence.ok.filter((pl.col("mode") == "prefill") & ~pl.col("backend_kind").is_in(IN_PROCESS))
        .with_columns(*per_token)
        .with_columns(step.alias("step"))
    )
    order = pl.col("call_idx") if "call_idx" in calls.columns else pl.int_range(pl.len())
    cells = (
        calls.sort(order)
        .group_by([*GROUP_OF_MODEL, "scenario"], maintain_order=True)
        .agg(
            (pl.col("latency_ms").filter(warm).median() / pl.col("step").filter(warm).median()).alias("repeated"),
            (pl.col("latency_ms").first() / pl.col("step").filter(warm).median()).alias("first"),
            pl.col("prompt_tokens_raw").median().alias("tokens"),
            warm.sum().alias("n_repeated"),
            pl.len().alias("n"),
        )
        .filter((pl.col("n_repeated") > 0) & (pl.col("n") > 1))
    )
    findings = []
    for _key, model in cells.group_by(GROUP_OF_MODEL, maintain_order=True):
        if not (model["repeated"] <= ONE_STEP).all():
            continue
        tokens = model["tokens"].to_numpy()
        lengths = f"{tokens.min():g} to {tokens.max():g}"
        slow = model.filter(pl.col("first") >= SLOW_FIRST * pl.col("repeated"))
        findings += [_suspicion(row, lengths, model["tokens"].n_unique()) for row in slow.iter_rows(named=True)]
    return findings


def _suspicion(row: dict[str, Any], lengths: str, n_lengths: int) -> Finding:
    whatever = f"whatever the prompt's length ({lengths} tokens)" if n_lengths > 1 else "at the one length measured"
    return Finding(
        check=CACHE,
        status="suspected",
        where=_where(row),
        modes=PREFILL,
        value=row["repeated"],
        evidence=f"repeated prefills of {row['tokens']:g} tokens took {row['repeated']:.2f} decode steps, {whatever}; "
        f"the first call took {row['first']:.1f}",
        other_reading="a short prefill is bound by reading the weights and costs about one step anyway, and first "
        "calls are slow for other reasons",
        next_step="measure again with prompts that the server has not seen (phaselaw's ollama engine sends new ones), "
        "one of them of 500 tokens or more; until then take this prefill law for that of one decode step",
    )


def count_convention(evidence: Evidence) -> Checked:
    """Servers whose decode time spans one step less than the tokens they count.

    In ``decode ms = a + b x count``, a is then about -b: Fieller's interval of a / b holds -1 where a + b is not told
    from 0, and leaves out 0 where a is (after Bonferroni over models).
    """
    rows = evidence.linearity.filter(pl.col("a_p").is_not_null())
    odd = rows.filter((pl.col("a_ms") < 0) & (pl.col("a_p") * rows.height < ALPHA) & (pl.col("a_plus_b_p") >= ALPHA))
    findings = [_one_step_less(row, ours=evidence.ours) for row in odd.iter_rows(named=True)]
    return Checked(
        check=CONVENTION,
        unit="models whose calls differ in tokens generated",
        n_checked=rows.height,
        findings=tuple(findings),
        false_alarms=f"at most {ALPHA / 2:.1%} a run",
        not_checked=None if rows.height else "no model whose calls differ in tokens generated",
    )


def _one_step_less(row: dict[str, Any], *, ours: bool) -> Finding:
    return Finding(
        check=CONVENTION,
        status="found",
        where=_where(row),
        # In runs of ours latencies are told by the steps that ran: nothing of theirs is off.
        modes=() if ours else DECODE,
        value=row["a_ms"] / row["b_ms_per_token"],
        evidence=f"decode ms = {row['a_ms']:.1f} + {row['b_ms_per_token']:.2f} x count over {row['n']} calls: the time "
        "spans one step less than the count, so time / count is low by about 1 / count "
        f"({1 / row['gen_tokens_raw_median']:.1%} at the median of {row['gen_tokens_raw_median']:g})",
        next_step="use time / (count - 1) (decode_step_ms_server), or the client's clock",
    )


def prompt_cut(evidence: Evidence) -> Checked:
    """Prompts that were cut: longer texts with no more tokens than shorter ones."""
    rows = evidence.run.rows.filter(pl.col("mode") == "prefill")
    if "prompt_chars" not in rows.columns:
        rows = rows.with_columns(pl.lit(None, dtype=pl.Float64).alias("prompt_chars"))
    cut = rows.filter(pl.col("error").str.starts_with("prompt_cut")) if "error" in rows.columns else rows.clear()
    findings = [_said_cut(row) for row in _cells(cut).iter_rows(named=True)]
    texts = (
        rows.filter((pl.col("status") == "ok") & (pl.col("prompt_chars").cast(pl.Float64, strict=False) > 0))
        .group_by([*GROUP_OF_MODEL, "scenario"], maintain_order=True)
        .agg(
            pl.col("prompt_chars").cast(pl.Float64, strict=False).median().alias("chars"),
            pl.col("prompt_tokens_raw").median().alias("tokens"),
        )
    )
    n = 0
    for _key, model in texts.filter(pl.col("tokens") > 0).group_by(GROUP_OF_MODEL, maintain_order=True):
        n += model.height > 1
        longest = model.sort("chars").row(-1, named=True)
        same = model.filter((pl.col("tokens") >= longest["tokens"]) & (pl.col("chars") * LONGER <= longest["chars"]))
        if same.height:
            findings.append(_one_count(longest, same))
    return Checked(
        check=CUT,
        unit="models with prompts of several lengths",
        n_checked=n,
        findings=tuple(findings),
        false_alarms="none known: a text half as long again has more tokens",
        not_checked=None if n or findings else "no model with text prompts of several lengths",
    )


def _said_cut(row: dict[str, Any]) -> Finding:
    return Finding(
        check=CUT,
        status="found",
        where=_where(row),
        modes=PREFILL,
        value=float(row["n"]),
        evidence=f"{row['n']} calls evaluated fewer prompt tokens than were sent; they are error rows",
        next_step="raise the context length (options: {num_ctx: ...}) or shorten the prompt",
    )


def _one_count(longest: dict[str, Any], same: pl.DataFrame) -> Finding:
    shorter = same.sort("chars").row(0, named=True)
    where = _where(longest)
    return Finding(
        check=CUT,
        status="found",
        where=where,
        modes=PREFILL,
        value=longest["tokens"],
        evidence=f"{longest['chars']:g} characters came out as {longest['tokens']:g} prompt tokens, and scenario "
        f"{shorter['scenario']!r} with {shorter['chars']:g} as {shorter['tokens']:g}",
        next_step="look up the server's context length; a prompt cut to it measures another prompt",
    )
