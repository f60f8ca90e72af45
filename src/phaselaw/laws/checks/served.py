"""Checks of servers: answers from a prompt cache, how a server counts its decode, prompts that it cut (method 3)."""

from __future__ import annotations

from typing import Any

import polars as pl

from phaselaw.laws.checks.findings import (
    DECODE,
    GROUP_OF_MODEL,
    PREFILL,
    SERVED,
    Checked,
    Evidence,
    Finding,
    Where,
    text,
)
from phaselaw.laws.summary import BUDGET

ONE_STEP = 1.3
"""A prefill of at most so many decode steps costs about one."""
TELLING_STEPS = 2.0
"""A repeated prefill that costs so many decode steps was computed: that model answers no prompt from a cache."""
SLOW_FIRST = 1.25
"""A first call that took so many times the repeated ones' median, and more than each of them, cost clearly more."""
ALPHA = 0.05
CHARS_PER_TOKEN = 12.0
"""More characters than this to each further token are no text that was read to its end: texts have 3 to 6."""
LEAST_OF_ASKED = {True: 0.5, False: 1.0}
"""The share of a synthetic prompt's tokens below which it was cut; on servers, which know only text, it is a target."""

CACHE, CONVENTION, CUT = "prompt cache", "count convention", "prompt cut"


def prompt_cache(evidence: Evidence) -> Checked:
    """Calls answered from a prompt cache: *found* by the engine, or *suspected* on rows that we did not measure."""
    prefills = evidence.run.rows.filter((pl.col("mode") == "prefill") & pl.col("backend_kind").is_in(SERVED))
    known = prefills.filter(pl.col("cache_check").is_not_null())
    findings = [_found(row) for row in _cells(known.filter(pl.col("cache_check") == "found")).iter_rows(named=True)]
    unknown = [] if evidence.ours else _suspected(evidence)
    n = prefills.select("backend", "batch_size", BUDGET, "model", "scenario").n_unique()
    return Checked(
        check=CACHE,
        unit="cells of served engines",
        n_checked=n,
        findings=(*findings, *unknown),
        rests_on="a suspicion is not bounded, and names its other reading",
        not_checked=None if n else "no served engine",
    )


def _cells(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by([*GROUP_OF_MODEL, "scenario"], maintain_order=True).agg(
        pl.len().alias("n"),
        (pl.col("status") == "ok").any().alias("used"),
        pl.col("prompt_tokens_raw").median().alias("tokens"),
    )


def _where(row: dict[str, Any]) -> Where:
    return Where(
        backend=row["backend"],
        batch_size=row["batch_size"],
        gen_tokens_target=row[BUDGET],
        model=row["model"],
        scenario=row.get("scenario"),
    )


def _of_used(row: dict[str, Any]) -> tuple[str, ...]:
    """The phases that stand on calls of a cell: none where they all are error rows."""
    return PREFILL if row["used"] else ()


def _found(row: dict[str, Any]) -> Finding:
    return Finding(
        check=CACHE,
        status="found",
        where=_where(row),
        modes=_of_used(row),
        value=float(row["n"]),
        evidence=f"{row['n']} calls were answered from the server's prompt cache"
        + ("" if row["used"] else "; they are error rows, and stand in no law"),
        next_step="nothing to do if enough calls are left; else run with another seed, so that prompts are new",
    )


def _suspected(evidence: Evidence) -> list[Finding]:
    """Cells whose repeated prefills cost about one step where the first call cost clearly more.

    Of models none of whose prompts shows, by what it costs when repeated, that it was computed.
    """
    findings = []
    for _, model in _prefills_in_steps(evidence).group_by(GROUP_OF_MODEL, maintain_order=True):
        if (model["repeated"] >= TELLING_STEPS).any():
            continue
        cached = model.filter(
            (pl.col("repeated") <= ONE_STEP)
            & (pl.col("first") >= SLOW_FIRST * pl.col("repeated"))
            & (pl.col("first") > pl.col("slowest"))
        ).unique([*GROUP_OF_MODEL, "scenario"], keep="first", maintain_order=True)
        if cached.height:
            tokens = cached["tokens"].drop_nulls().to_list()
            lengths = f"{min(tokens):g} to {max(tokens):g}" if tokens else "unknown"
            findings += [_suspicion(row, lengths, cached["tokens"].n_unique()) for row in cached.iter_rows(named=True)]
    return findings


def _prefills_in_steps(evidence: Evidence) -> pl.DataFrame:
    """Cells of served engines: their first call's prefill, and the repeated ones', in the cell's decode steps."""
    rows = evidence.ok.filter((pl.col("mode") == "prefill") & pl.col("backend_kind").is_in(SERVED))
    step = pl.coalesce("decode_step_ms", "kv_decode_ms_per_token", pl.col("kv_decode_ms") / pl.col("gen_tokens_raw"))
    cell = [*GROUP_OF_MODEL, "scenario", "run"]
    calls = rows.with_columns(step.alias("step")).sort("call_idx", maintain_order=True)
    repeated = ~pl.col("is_warmup") & (pl.int_range(pl.len()) > 0)
    typical = pl.col("step").filter(repeated).median()
    return (
        calls.group_by(cell, maintain_order=True)
        .agg(
            (pl.col("latency_ms").filter(repeated).median() / typical).alias("repeated"),
            (pl.col("latency_ms").filter(repeated).max() / typical).alias("slowest"),
            (pl.col("latency_ms").first() / typical).alias("first"),
            pl.col("prompt_tokens_raw").median().alias("tokens"),
        )
        .filter(pl.col("repeated").is_not_null())
    )


def _suspicion(row: dict[str, Any], lengths: str, n_lengths: int) -> Finding:
    prompt = "of one prompt" if row["tokens"] is None else f"of {row['tokens']:g} tokens"
    whatever = f"whatever the prompt's length ({lengths} tokens)" if n_lengths > 1 else "at the one length measured"
    return Finding(
        check=CACHE,
        status="suspected",
        where=_where(row),
        modes=PREFILL,
        value=row["repeated"],
        evidence=f"repeated prefills {prompt} took {row['repeated']:.2f} decode steps, {whatever}; "
        f"the first call took {row['first']:.1f}",
        other_reading="a short prefill is bound by reading the weights and costs about one step anyway, and first "
        "calls are slow for other reasons",
        next_step="measure again with prompts that the server has not seen (phaselaw's ollama engine sends new ones), "
        "one of them of 500 tokens or more; until then take this prefill law for that of one decode step",
    )


def count_convention(evidence: Evidence) -> Checked:
    """Servers whose decode time spans one step less than the tokens they count.

    In ``decode ms = a + b x count``, a is then about -b: Fieller's interval of a / b holds -1 where a + b is not told
    from 0, and leaves out 0 where a is, each at 95 %.
    """
    rows = evidence.linearity.filter(pl.col("a_p").is_not_null())
    odd = rows.filter((pl.col("a_ms") < 0) & (pl.col("a_p") < ALPHA) & (pl.col("a_plus_b_p") >= ALPHA))
    findings = [_one_step_less(row, ours=evidence.ours) for row in odd.iter_rows(named=True)]
    return Checked(
        check=CONVENTION,
        unit="models whose calls differ in tokens generated",
        n_checked=rows.height,
        findings=tuple(findings),
        false_alarm_rate=ALPHA / 2,
        rests_on="if the calls' noise is alike at every count",
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
    """Prompts that were cut: fewer tokens than were asked for, or longer texts with hardly more tokens than shorter."""
    rows = evidence.run.rows.filter(pl.col("mode") == "prefill")
    said = rows.with_columns(text(rows, "error").alias("error")).filter(pl.col("error").str.starts_with("prompt_cut"))
    findings = [_said_cut(row) for row in _cells(said).iter_rows(named=True)]
    prompts = (
        rows.filter((pl.col("status") == "ok") & (pl.col("prompt_tokens_raw") > 0))
        .with_columns(pl.col("prompt_chars").alias("chars"))
        .group_by([*GROUP_OF_MODEL, "scenario"], maintain_order=True)
        .agg(pl.col("chars").median(), pl.col("prompt_tokens_raw").median().alias("tokens"))
    )
    asked = asked_tokens(evidence.run.manifest or {})
    n = 0
    for _, model in prompts.group_by(GROUP_OF_MODEL, maintain_order=True):
        texts = model.filter(pl.col("chars") > 0).sort("chars")
        synthetic = [row for row in model.iter_rows(named=True) if row["scenario"] in asked]
        n += texts.height > 1 or bool(synthetic)
        findings += [
            _too_few(row, row["batch_size"] * asked[row["scenario"]])
            for row in synthetic
            if row["tokens"]
            < row["batch_size"] * asked[row["scenario"]] * LEAST_OF_ASKED[row["backend_kind"] in SERVED]
        ]
        if texts.height > 1:
            findings += _cut_texts(texts)
    return Checked(
        check=CUT,
        unit="models with prompts of several lengths, or of a known one",
        n_checked=n,
        findings=tuple(findings),
        rests_on="longer texts have more tokens",
        not_checked=None if n or findings else "no model with prompts of several lengths, or of a known one",
    )


def asked_tokens(manifest: dict[str, Any]) -> dict[str, int]:
    """The prompt tokens that a run's study asked of its synthetic scenarios, by the scenario's name."""
    study = manifest.get("study") or {}
    return {
        str(scenario.get("name")): int(scenario["prompt_tokens"])
        for scenario in study.get("scenarios") or []
        if isinstance(scenario, dict) and scenario.get("prompt_tokens")
    }


def _cut_texts(texts: pl.DataFrame) -> list[Finding]:
    """The longest text where a shorter one shows that it was not read to its end; ``texts`` ascend in characters."""
    longest = texts.row(-1, named=True)
    for shorter in texts.head(-1).iter_rows(named=True):
        more_chars, more_tokens = longest["chars"] - shorter["chars"], longest["tokens"] - shorter["tokens"]
        # One token of grace: a text that is a little longer may have as many.
        if more_chars > CHARS_PER_TOKEN * (max(more_tokens, 0.0) + 1):
            return [_cut_text(longest, shorter)]
    return []


def _said_cut(row: dict[str, Any]) -> Finding:
    return Finding(
        check=CUT,
        status="found",
        where=_where(row),
        modes=_of_used(row),
        value=float(row["n"]),
        evidence=f"{row['n']} calls evaluated fewer prompt tokens than were sent"
        + ("" if row["used"] else "; they are error rows, and stand in no law"),
        next_step="raise the context length (options: {num_ctx: ...}) or shorten the prompt",
    )


def _too_few(row: dict[str, Any], asked: int) -> Finding:
    return Finding(
        check=CUT,
        status="found",
        where=_where(row),
        modes=PREFILL,
        value=row["tokens"] / asked,
        evidence=f"{row['tokens']:g} prompt tokens were evaluated where {asked} were asked for",
        next_step="raise the server's context length or shorten the prompt; read this cell at the length it had",
    )


def _cut_text(longest: dict[str, Any], shorter: dict[str, Any]) -> Finding:
    same = longest["tokens"] <= shorter["tokens"]
    return Finding(
        check=CUT,
        status="found" if same else "suspected",
        where=_where(longest),
        modes=PREFILL,
        value=longest["tokens"],
        evidence=f"{longest['chars']:g} characters came out as {longest['tokens']:g} prompt tokens, and scenario "
        f"{shorter['scenario']!r} with {shorter['chars']:g} as {shorter['tokens']:g}",
        other_reading=None if same else "a text of blanks or repeats may have so few tokens",
        next_step="look up the server's context length; a prompt cut to it measures another prompt",
    )
