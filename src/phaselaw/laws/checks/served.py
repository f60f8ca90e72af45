"""Checks of servers: answers from a prompt cache, how a server counts its decode, prompts that it cut (method 3)."""

from collections.abc import Iterator

import polars as pl

from phaselaw.laws.checks.frame import (
    CELL,
    CONVENTION,
    DECODE,
    GROUP_OF_MODEL,
    PREFILL,
    SERVED,
    Evidence,
    Finding,
    Findings,
    check,
)
from phaselaw.records import PHASES
from phaselaw.tables import BUDGET, Row, grouped

ONE_STEP = 1.3
"""A prefill of at most so many decode steps costs about one."""
TELLING_STEPS = 2.0
"""A repeated prefill that costs so many decode steps was computed: that model answers no prompt from a cache."""
SLOW_FIRST = 1.25
"""A first call that took so many times the repeated ones' median, and more than each of them, cost clearly more."""
ALPHA = 0.05
CLIENT_BUSY = 0.5
"""Of one processor's time, which one process reads by: from here on what comes waits for what came before."""
CHARS_PER_TOKEN = 12.0
"""More characters than this to each further token are no text that was read to its end: texts have 3 to 6."""
LEAST_OF_ASKED = {True: 0.5, False: 1.0}
"""The share of a synthetic prompt's tokens below which it was cut; on servers, which know only text, it is a target."""


@check(
    "prompt cache",
    unit="cells of served engines",
    rests_on="a suspicion is not bounded, and names its other reading",
    not_checked="no served engine",
    modes=PREFILL,
)
def prompt_cache(evidence: Evidence) -> Findings:
    """Calls answered from a prompt cache: *found* by the engine, or *suspected* on rows that we did not measure."""
    prefills = evidence.run.rows.filter((pl.col("mode") == "prefill") & pl.col("backend_kind").is_in(SERVED))
    yield from _of_error_rows_too(
        prefills.filter(pl.col("cache_check") == "found"),
        "were answered from the server's prompt cache",
        "nothing to do if enough calls are left; else run with another seed, so that prompts are new",
    )
    if not evidence.ours:
        yield from _suspected(evidence)
    yield prefills.select(CELL).n_unique()


def _of_error_rows_too(rows: pl.DataFrame, what: str, next_step: str) -> Iterator[Finding]:
    """A finding for each cell of these rows; it touches no phase where all of them are error rows."""
    for cell, calls in grouped(rows, CELL):
        used = bool((calls["status"] == "ok").any())
        said = f"{calls.height} calls {what}" + ("" if used else "; they are error rows, and stand in no law")
        yield Finding(cell, float(calls.height), said, modes=PREFILL if used else (), next_step=next_step)


def _suspected(evidence: Evidence) -> Iterator[Finding]:
    """Cells whose repeated prefills cost about one step where the first call cost clearly more.

    Of models none of whose prompts shows, by what it costs when repeated, that it was computed.
    """
    rows = evidence.ok.filter((pl.col("mode") == "prefill") & pl.col("backend_kind").is_in(SERVED))
    step = pl.coalesce("decode_step_ms", "kv_decode_ms_per_token", pl.col("kv_decode_ms") / pl.col("gen_tokens_raw"))
    again = ~pl.col("is_warmup") & (pl.int_range(pl.len()) > 0)
    typical, latency = step.filter(again).median(), pl.col("latency_ms")
    cells = rows.sort("call_idx", maintain_order=True).group_by([*CELL, "run"], maintain_order=True)
    in_steps = cells.agg(
        repeated=latency.filter(again).median() / typical,
        slowest=latency.filter(again).max() / typical,
        first=latency.first() / typical,
        tokens=pl.col("prompt_tokens_raw").median(),
    )
    for _, model in grouped(in_steps.filter(pl.col("repeated").is_not_null()), GROUP_OF_MODEL):
        if (model["repeated"] >= TELLING_STEPS).any():
            continue
        first, repeated = pl.col("first"), pl.col("repeated")
        slow_first = (first >= SLOW_FIRST * repeated) & (first > pl.col("slowest"))
        cached = model.filter(slow_first & (repeated <= ONE_STEP)).unique(CELL, keep="first", maintain_order=True)
        tokens = cached["tokens"].drop_nulls().to_list()
        lengths = f"{min(tokens):g} to {max(tokens):g}" if tokens else "unknown"
        several = cached["tokens"].n_unique() > 1
        where = f"whatever the prompt's length ({lengths} tokens)" if several else "at the one length measured"
        for row in cached.iter_rows(named=True):
            prompt = "of one prompt" if row["tokens"] is None else f"of {row['tokens']:g} tokens"
            yield Finding(
                row,
                row["repeated"],
                f"repeated prefills {prompt} took {row['repeated']:.2f} decode steps, {where}; the first call took "
                f"{row['first']:.1f}",
                status="suspected",
                other_reading="a short prefill is bound by reading the weights and costs about one step anyway, and "
                "first calls are slow for other reasons",
                next_step="measure again with prompts that the server has not seen (phaselaw's ollama engine sends "
                "new ones), one of them of 500 tokens or more; until then take this prefill law for that of one decode "
                "step",
            )


@check(
    CONVENTION,
    unit="models whose calls differ in tokens generated",
    false_alarm_rate=ALPHA / 2,
    rests_on="if the noise is alike at every count and, below 5 scenarios, these differ in their counts alone",
    not_checked="no model whose calls differ in tokens generated",
    next_step="use time / (count - 1) (decode_step_ms_server), or the client's clock",
)
def count_convention(evidence: Evidence) -> Findings:
    """Servers whose decode time spans one step less than the tokens they count.

    In ``decode ms = a + b x count``, a is then about -b: Fieller's interval of a / b includes -1 where a + b is not
    significantly different from 0, and excludes 0 where a is, each at 95 %.
    """
    rows = evidence.linearity.filter(pl.col("a_p").is_not_null())
    odd = rows.filter((pl.col("a_ms") < 0) & (pl.col("a_p") < ALPHA) & (pl.col("a_plus_b_p") >= ALPHA))
    for row in odd.iter_rows(named=True):
        yield Finding(
            row,
            row["a_ms"] / row["b_ms_per_token"],
            f"decode ms = {row['a_ms']:.1f} + {row['b_ms_per_token']:.2f} x count over {row['n']} calls: the "
            "time spans one step less than the count, so time / count is low by about 1 / count "
            f"({1 / row['gen_tokens_raw_median']:.1%} at the median of {row['gen_tokens_raw_median']:g})",
            # In our own runs latencies are computed from the steps that ran, so they are right.
            modes=() if evidence.ours else DECODE,
        )
    yield rows.height


_CLAIMS = {
    "prefill": (
        "prefill_ms_server",
        "prefill_seen",
        "its prefill took {:,.3g} ms by the server, {:,.3g} by the client",
    ),
    "decode": ("decode_step_ms_server", "decode_step_ms_client", "its steps take {:,.3g} ms, {:,.3g} by the client"),
    "count": ("gen_tokens_counted", "events", "the server counts {:,.4g} tokens where {:,.4g} events came"),
    "prompt": (
        "prompt_tokens_claimed",
        "prompt_tokens_raw",
        "no text of {1:,.0f} words has the {0:,.0f} tokens claimed",
    ),
    "bursts": ("events", "first_event_tokens", "its {:,.4g} events came in bursts, {:,.3g} tokens in the first"),
    "not streamed": ("events", "ttft_ms", "the reply ({:,.4g} events) came at once, after {:,.4g} ms"),
    "said twice": ("events", "ttft_ms", "hidden text came once more as shown, beside {:,.4g} events"),
}
"""Claims of a server: the columns of its figure and of what the client saw, and what is said of the two."""
_NEXT_STEPS = {
    "bursts": "steps are told by bursts, a first token can't be: go round the proxy, or turn its buffering off",
    "not streamed": "no step can be told: go round what gathers the reply, or have the server stream",
    "count": "events, or all that were asked for, are taken for tokens; look whose usage the server reports",
    "prompt": "words are taken for tokens; look whose usage the server reports",
    "said twice": "the repeated text is left out; nothing to do",
}


@check(
    "server claim",
    unit="cells of served engines",
    rests_on="none in the clean runs of benchmarks/server_claims.py",
    not_checked="no served engine whose text a client of ours saw come",
    modes=(),
    next_step="the client's figure serves; look up what the server's spans",
)
def server_claim(evidence: Evidence) -> Findings:
    """Claims of a server that most calls of a cell contradict by the client's clock; there the client's figure serves.

    A finding marks no row: the figures that stand in one are the client's, and where it has none it is an error row.
    """
    rows = evidence.run.rows.filter((pl.col("mode") == "kv_decode") & (pl.col("events") > 0))
    load_ms = pl.col("load_ms").fill_null(0.0)
    seen_ms = pl.col("ttft_ms") - pl.when(load_ms < pl.col("ttft_ms")).then(load_ms).otherwise(0.0)
    found = rows.filter(pl.col("false_claims").is_not_null()).with_columns(prefill_seen=seen_ms)
    for cell, calls in grouped(found, [*CELL, "concurrency"]):
        named = str(calls["false_claims"][0]).split(", ")  # those of a cell stand in each of its rows
        for claim in (claim for claim in named if claim in _CLAIMS):
            *columns, says = _CLAIMS[claim]
            claimed, seen = calls.select(pl.col(columns).median()).row(0)
            ratio = claimed / seen if claimed is not None and seen else None
            said = f"{says.format(claimed, seen)}, at the median of {calls.height} calls"
            yield Finding(cell, ratio, said, next_step=_NEXT_STEPS.get(claim, ""))
    yield rows.select(CELL).n_unique()


@check(
    "tokens estimated",
    unit="cells of served engines",
    rests_on="it is what the engine says",
    not_checked="no served engine whose text a client of ours saw come",
    modes=PREFILL,
    next_step="have the server report its usage; until then read times, not rates and prices a token",
)
def tokens_estimated(evidence: Evidence) -> Findings:
    """Cells whose tokens the server does not count: a prompt's words stand for them, else events or the budget."""
    rows = evidence.run.rows.lazy().filter((pl.col("mode") == "kv_decode") & (pl.col("events") > 0))
    uncounted = pl.col("gen_tokens_counted").is_null() | pl.col("false_claims").cast(pl.String).str.contains("count")
    medians = rows.group_by(CELL, maintain_order=True).agg(
        pl.col("events", "gen_tokens_raw", "prompt_tokens_raw").median(),
        unsure=(uncounted.fill_null(False) & (pl.col("events") < pl.col(BUDGET) - 1)).mean(),
        words=(pl.col("tokens_basis") == "estimated").mean(),
    )
    cells = medians.collect()
    for row in cells.filter((pl.col("unsure") > 0.5) | (pl.col("words") > 0.5)).iter_rows(named=True):
        said = f"its {row['prompt_tokens_raw']:g} prompt tokens are the words sent"
        if unsure := row["unsure"] > 0.5:
            why = "the length asked for, as it says" if row["gen_tokens_raw"] > row["events"] else "one an event"
            said = f"{row['events']:g} events are taken for {row['gen_tokens_raw']:g} tokens, {why}"
        yield Finding(row, row["events"] / row["gen_tokens_raw"], said, modes=PHASES if unsure else PREFILL)
    yield cells.height


@check(
    "clients in step",
    unit="backends with several clients",
    rests_on="nothing is inferred",
    not_checked="no backend with several clients",
    status="caution",
    next_step="read throughput and TTFT as those of such waves; take a fleet's from a plan with real traffic",
)
def clients_in_step(evidence: Evidence) -> Findings:
    """Clients that start together and get answers of one length: they stay in step, as users' requests never do."""
    together = evidence.run.rows.filter(pl.col("concurrency") > 1, pl.col("mode") == "kv_decode", ~pl.col("is_warmup"))
    backends = together.group_by("backend", maintain_order=True).agg(lengths=pl.col("gen_tokens_raw").n_unique())
    for row in backends.filter(pl.col("lengths") == 1).iter_rows(named=True):
        yield Finding(
            row,
            None,
            "clients start together and every answer has the same length, so that all prompts are read at once and all "
            "answers end at once",
        )
    yield backends.height


@check(
    "client at its limit",
    unit="numbers of clients",
    rests_on="nothing is inferred",
    not_checked="no backend with several clients, or the system does not tell",
    status="caution",
    next_step="take the figures of fewer clients, or measure from a machine with faster processors",
)
def client_at_its_limit(evidence: Evidence) -> Findings:
    """Clients whose one process was busy reading much of the time: it stamps late what came."""
    together = evidence.run.rows.filter(pl.col("concurrency") > 1, pl.col("mode") == "kv_decode", ~pl.col("is_warmup"))
    cells = together.drop_nulls("client_cpus").group_by("backend", "concurrency", maintain_order=True)
    busy = cells.agg(pl.col("client_cpus").median())
    for row in busy.filter(pl.col("client_cpus") >= CLIENT_BUSY).iter_rows(named=True):
        said = f"{row['concurrency']:.0f} clients kept phaselaw itself busy {row['client_cpus']:.0%} of the time"
        yield Finding(row, row["client_cpus"], f"{said}: that may be their limit, in place of the server's")
    yield busy.height


@check(
    "prompt cut",
    unit="models with prompts of several lengths, or of a known one",
    rests_on="longer texts have more tokens",
    not_checked="no model with prompts of several lengths, or of a known one",
    modes=PREFILL,
)
def prompt_cut(evidence: Evidence) -> Findings:
    """Prompts that were cut: fewer tokens than were asked for, or longer texts with hardly more tokens than shorter."""
    rows = evidence.run.rows.filter(pl.col("mode") == "prefill")
    tokens, chars = pl.col("prompt_tokens_raw"), pl.col("prompt_chars")
    yield from _of_error_rows_too(
        rows.filter(pl.col("error").cast(pl.String).str.starts_with("prompt_cut")),
        "evaluated fewer prompt tokens than were sent",
        "raise the context length (options: {num_ctx: ...}) or shorten the prompt",
    )
    scenarios = (evidence.run.manifest.get("study") or {}).get("scenarios") or []
    asked = {each["name"]: each["prompt_tokens"] for each in scenarios if each.get("prompt_tokens")}
    tells = (chars > 0) | pl.col("scenario").is_in([*asked])
    used = rows.filter((pl.col("status") == "ok") & (tokens > 0) & tells).group_by(CELL, maintain_order=True)
    for _, model in grouped(used.agg(chars=chars.median(), tokens=tokens.median()), GROUP_OF_MODEL):
        texts = model.filter(pl.col("chars") > 0).sort("chars").rows(named=True)
        synthetic = [row for row in model.iter_rows(named=True) if row["scenario"] in asked]
        yield int(len(texts) > 1 or bool(synthetic))
        for row in synthetic:
            wanted = row["batch_size"] * asked[row["scenario"]]
            if row["tokens"] < wanted * LEAST_OF_ASKED[row["backend_kind"] in SERVED]:
                yield Finding(
                    row,
                    row["tokens"] / wanted,
                    f"{row['tokens']:g} prompt tokens were evaluated where {wanted} were asked for",
                    next_step="raise the server's context length or shorten the prompt; read this cell at the length "
                    "it had",
                )
        yield from _cut_text(texts)


def _cut_text(texts: list[Row]) -> Iterator[Finding]:
    """The longest text where a shorter one shows that it was not read to its end; ``texts`` ascend in characters."""
    for shorter, longest in ((text, texts[-1]) for text in texts[:-1]):
        more_chars, more_tokens = longest["chars"] - shorter["chars"], longest["tokens"] - shorter["tokens"]
        # One token of grace: a text that is a little longer may have as many.
        if more_chars > CHARS_PER_TOKEN * (max(more_tokens, 0.0) + 1):
            yield Finding(
                longest,
                longest["tokens"],
                f"{longest['chars']:g} characters came out as {longest['tokens']:g} prompt tokens, and "
                f"scenario {shorter['scenario']!r} with {shorter['chars']:g} as {shorter['tokens']:g}",
                status="suspected" if more_tokens > 0 else "found",
                other_reading="a text of blanks or repeats may have so few tokens" if more_tokens > 0 else None,
                next_step="look up the server's context length; a prompt cut to it measures another prompt",
            )
            return
