"""A server's claims against the client's clock: each kind of odd server comes out right, or as an error row."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from odd_servers import (
    FIRST_MS,
    PROMPT_TOKENS,
    STEP_MS,
    TOKENS,
    alike,
    by_client,
    by_ollama,
    chat,
    chat_of,
    cut,
    due,
    events,
    generate,
)
from rows import outcome

import server_claims
from phaselaw.engines import ollama
from phaselaw.engines.http_client import Line
from phaselaw.errors import EngineError
from phaselaw.records import Run, Timing
from phaselaw.servers.streams import settled

CLAIM = "server claim"
ONE_BY_ONE = events()


def in_bursts(of: int) -> list[tuple[float, str]]:
    """One event a token, let go when so many have gathered."""
    return [
        (due(min(at - at % of + of, TOKENS) - 1) + 0.01 * (at % of), text) for at, (_, text) in enumerate(ONE_BY_ONE)
    ]


def counted_by_event(*, a_time: int) -> Any:
    """Several tokens an event but the first, each event with the usage so far."""
    said = []
    for at_ms, text in events(a_time=a_time, first=1):
        so_far = {"completion_tokens": round((at_ms - FIRST_MS) / STEP_MS) + 1, "total_tokens": 60}
        said.append((at_ms, {"choices": [{"delta": {"content": text}}], "usage": so_far}))
    return chat_of(said)


def said_twice(*, at_the_end: bool) -> Any:
    """Reasoning, then the same text once more as content: at one instant, or at the pace of tokens."""
    said = [(at_ms, {"choices": [{"delta": {"reasoning": text}}]}) for at_ms, text in ONE_BY_ONE]
    late = [(due(TOKENS + at), text) for at, (_, text) in enumerate(ONE_BY_ONE)]
    again = [(due(TOKENS), "".join(text for _, text in ONE_BY_ONE).lstrip())] if at_the_end else late
    return chat_of(said + [(at_ms, {"choices": [{"delta": {"content": text}}]}) for at_ms, text in again])


def figures(run: Run, mode: str) -> list[float]:
    rows = run.rows.filter((pl.col("mode") == mode) & (pl.col("status") == "ok"))
    return rows["latency_ms" if mode == "prefill" else "decode_step_ms"].to_list()


def found(run: Run) -> list[str]:
    """The claims that the check finds false."""
    said = run.rows["false_claims"].drop_nulls().unique().to_list()
    findings = outcome(run, CLAIM).findings
    assert len(findings) == sum(len(each.split(", ")) for each in said)
    assert {each.status for each in findings} <= {"found"}
    return sorted(each for names in said for each in names.split(", "))


RIGHT: dict[str, tuple[Callable[[], Timing], float, list[str]]] = {
    # the server, the prefill that is right, what is found
    "one token an event": (lambda: by_client(chat(ONE_BY_ONE)), FIRST_MS, []),
    "no usage": (lambda: by_client(chat(ONE_BY_ONE, usage=None)), FIRST_MS, []),
    "three tokens an event": (lambda: by_client(chat(events(a_time=3, tokens=39), usage=39)), due(2), []),
    "five tokens an event, the first alone, counted": (lambda: by_client(counted_by_event(a_time=5)), FIRST_MS, []),
    "a count above the budget": (lambda: by_client(chat(ONE_BY_ONE, usage=71)), FIRST_MS, ["count"]),
    "a count of another's": (lambda: by_client(chat(ONE_BY_ONE, usage=9)), FIRST_MS, ["count"]),
    "no usage, four tokens an event": (lambda: by_client(chat(events(a_time=4), usage=None)), due(3), []),
    "a count above the budget, four an event": (lambda: by_client(chat(events(a_time=4), usage=71)), due(3), ["count"]),
    "a prompt of more tokens than bytes": (
        lambda: by_client(dataclasses.replace(chat(ONE_BY_ONE), prompt_tokens=12_000)),
        FIRST_MS,
        ["prompt"],
    ),
    "rates of nothing": (
        lambda: by_client(chat(ONE_BY_ONE, timings={"predicted_n": TOKENS, "predicted_per_second": 40_000.0})),
        FIRST_MS,
        ["decode"],
    ),
    "a decode in no time": (
        lambda: by_client(chat(ONE_BY_ONE, timings={"predicted_n": TOKENS, "predicted_ms": 0.02, "prompt_ms": 45.0})),
        FIRST_MS,
        ["decode"],
    ),
    "said twice at the end": (lambda: by_client(said_twice(at_the_end=True)), FIRST_MS, ["said twice"]),
    "said twice at its pace": (lambda: by_client(said_twice(at_the_end=False)), FIRST_MS, ["said twice"]),
    "honest": (lambda: by_ollama(generate(ONE_BY_ONE)), FIRST_MS - 2, []),
    "a load in each call": (lambda: by_ollama(generate(ONE_BY_ONE, load_ms=170.0)), FIRST_MS - 2, []),
    "one step and 3 % left out of the decode": (
        lambda: by_ollama(generate(ONE_BY_ONE, eval=0.97 * (TOKENS - 2) * STEP_MS)),
        FIRST_MS - 2,
        [],
    ),
    "the last batch only": (lambda: by_ollama(generate(ONE_BY_ONE, prompt_eval=2.0)), FIRST_MS - 1, ["prefill"]),
    "half of the prefill": (lambda: by_ollama(generate(ONE_BY_ONE, prompt_eval=15.0)), FIRST_MS - 1, ["prefill"]),
    "the decode in the prefill": (
        lambda: by_ollama(generate(ONE_BY_ONE, prompt_eval=300.0)),
        FIRST_MS - 1,
        ["prefill"],
    ),
    "microseconds for nanoseconds": (
        lambda: by_ollama(generate(ONE_BY_ONE, prompt_eval=0.045, eval=0.25, load=0.001)),
        FIRST_MS - 0.001,
        ["decode", "prefill"],
    ),
    "the decode twice": (lambda: by_ollama(generate(ONE_BY_ONE, eval=2 * TOKENS * STEP_MS)), FIRST_MS - 2, ["decode"]),
}


@pytest.mark.parametrize(("make", "prefill_ms", "claims"), RIGHT.values(), ids=RIGHT.keys())
def test_the_step_and_the_prefill_are_right_and_what_is_false_is_found(
    make: Callable[[], Timing], prefill_ms: float, claims: list[str]
) -> None:
    run = alike(lambda _: make())
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 5, rel=0.01)
    assert figures(run, "prefill") == pytest.approx([prefill_ms] * 5, rel=0.01)
    assert found(run) == claims


@pytest.mark.parametrize(
    ("asked", "said", "modes"),
    [
        ({}, "", None),
        ({"usage": None}, "its 30 prompt tokens are the words sent", "prefill,e2e_kv"),
        ({"a_time": 4}, "", None),
        (
            {"a_time": 4, "usage": None},
            "10 events are taken for 40 tokens, the length asked",
            "prefill,kv_decode,e2e_kv",
        ),
        (
            {"a_time": 4, "usage": None, "finish": "stop"},
            "10 events are taken for 10 tokens",
            "prefill,kv_decode,e2e_kv",
        ),
        ({"a_time": 4, "usage": 71}, "10 events are taken for 40 tokens, the length asked", "prefill,kv_decode,e2e_kv"),
    ],
)
def test_what_no_count_serves_for_is_marked_as_estimated(asked: dict[str, Any], said: str, modes: str | None) -> None:
    texts = events(a_time=asked.get("a_time", 1))
    how = {name: value for name, value in asked.items() if name != "a_time"}
    told = outcome(alike(lambda _: by_client(chat(texts, **how))), "tokens estimated")
    assert (told.n_checked, [",".join(each.modes) for each in told.findings]) == (1, [modes] if modes else [])
    assert all(each.evidence.startswith(said) for each in told.findings)


def test_a_prompts_words_serve_where_its_text_cant_have_the_tokens_claimed() -> None:
    run = alike(lambda _: by_client(dataclasses.replace(chat(ONE_BY_ONE), prompt_tokens=12_000)))
    row = run.rows.row(0, named=True)
    assert (row["prompt_tokens_raw"], row["tokens_total"], row["prompt_tokens_claimed"]) == (30, 30, 12_000)
    assert [each.modes for each in outcome(run, "tokens estimated").findings] == [("prefill", "e2e_kv")]
    honest = by_client(dataclasses.replace(chat(ONE_BY_ONE), prompt_tokens=150))  # a template that the server adds
    assert (honest.prompt_tokens, honest.served and honest.served.prompt_tokens_claimed) == (150, None)


def test_both_figures_are_kept_where_the_clients_serves() -> None:
    run = alike(lambda _: by_ollama(generate(ONE_BY_ONE, prompt_eval=2.0, eval=1.0)))
    row = run.rows.row(0, named=True)
    assert (row["prefill_ms_server"], row["prefill_ms"]) == (2.0, pytest.approx(FIRST_MS - 1))
    assert (row["decode_step_ms_server"], row["decode_step_ms_client"]) == (1 / 39, pytest.approx(STEP_MS))
    assert row["kv_decode_ms"] == pytest.approx(39 * STEP_MS)


def test_ttft_is_marked_as_of_the_tokens_of_its_event() -> None:
    rows = alike(lambda _: by_client(chat(events(a_time=3, tokens=39), usage=39))).rows
    assert rows["first_event_tokens"].unique().to_list() == pytest.approx([3.0])


@pytest.mark.parametrize("of", [2, 8, 25])
def test_a_proxy_that_lets_many_events_go_at_once_gives_the_step_by_bursts_and_no_first_token(of: int) -> None:
    run = alike(lambda _: by_client(chat(in_bursts(of))))
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 5, rel=0.01)
    assert figures(run, "prefill") == [] and found(run) == ["bursts"]
    assert run.rows["decode_step_basis"].unique().to_list() == ["bursts"]


def test_a_server_that_makes_several_tokens_at_once_holds_none_back() -> None:
    drafted = [(due(-(-at // 4) * 4) + 0.05 * ((at - 1) % 4), text) for at, (_, text) in enumerate(ONE_BY_ONE)]
    run = alike(lambda _: by_client(chat(drafted)))
    assert figures(run, "prefill") == pytest.approx([FIRST_MS] * 5, rel=0.01) and found(run) == []
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS * 40 / 39] * 5, rel=0.01)


def test_behind_such_a_proxy_a_servers_own_prefill_stands() -> None:
    run = alike(lambda _: by_ollama(generate(in_bursts(8))))
    assert figures(run, "prefill") == [FIRST_MS - 2] * 5
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 5, rel=0.01)


@pytest.mark.parametrize("apart_ms", [0.0, 0.04])
@pytest.mark.parametrize("usage", [TOKENS, 71, None])
def test_a_reply_that_came_at_once_was_not_streamed_and_has_no_step(apart_ms: float, usage: int | None) -> None:
    texts = [(due(TOKENS) + apart_ms * at, text) for at, (_, text) in enumerate(ONE_BY_ONE)]
    run = alike(lambda _: by_client(chat(texts, usage=usage)))
    assert "not streamed" in found(run)
    assert set(run.rows["status"]) == {"error"}
    assert set(run.rows["error"].str.split(":").list.first()) == {"not_streamed"}


def test_a_call_that_came_at_once_among_others_that_did_not_has_no_step() -> None:
    at_once = [(due(TOKENS) + 0.02 * at, text) for at, (_, text) in enumerate(ONE_BY_ONE)]
    run = alike(lambda at: by_client(chat(at_once if at == 3 else ONE_BY_ONE)))
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 4) and found(run) == []
    assert figures(run, "prefill") == [FIRST_MS] * 4


def test_one_event_with_a_count_above_the_budget_is_an_error_row() -> None:
    run = alike(lambda _: by_client(chat([(due(TOKENS), "all of it")], usage=71)))
    assert set(run.rows["status"]) == {"error"}
    assert found(run) == ["count", "not streamed"]


@pytest.mark.parametrize("waits", [lambda at: at % 3 == 0, lambda at: at % 3 != 0])
def test_what_calls_wait_is_a_wait_and_no_false_claim_be_it_most_of_them(waits: Callable[[int], bool]) -> None:
    run = alike(lambda at: by_ollama(generate(ONE_BY_ONE, wait_ms=700.0 if waits(at) else 0.0)))
    assert figures(run, "prefill") == [FIRST_MS - 2] * 5
    assert found(run) == []
    assert run.rows["queue_ms"].max() > 690


def test_with_several_clients_a_wait_for_one_another_is_no_false_claim() -> None:
    timings = [by_ollama(generate(ONE_BY_ONE, wait_ms=300.0 * (at % 4))) for at in range(8)]
    assert found(server_claims.run_of(timings, kind="ollama", budget=TOKENS, concurrency=4)) == []


def test_a_client_that_is_woken_late_now_and_then_sees_no_bursts() -> None:
    def late(_: int) -> Timing:
        texts = [
            (due(number + 3) if number in range(12, 15) else due(number), text)
            for number, (_, text) in enumerate(ONE_BY_ONE)
        ]
        return by_client(chat(texts))

    assert found(alike(late)) == []


def test_a_fast_model_whose_events_are_read_together_has_no_bursts() -> None:
    texts = [(3.0 + 0.2 * (at - at % 8), text) for at, (_, text) in enumerate(ONE_BY_ONE)]
    assert found(alike(lambda _: by_client(chat(texts)))) == []


def test_settled_twice_is_settled_once() -> None:
    timings = [by_ollama(generate(in_bursts(4), prompt_eval=1.0)) for _ in range(3)]
    once = settled(timings, TOKENS, lone=True)
    assert settled(once, TOKENS, lone=True) == once


def test_clients_in_step_at_one_length_are_a_caution_that_marks_nothing() -> None:
    def together(*lengths: int) -> Run:
        calls = [by_client(chat(events(tokens=tokens), usage=tokens, finish="stop")) for tokens in lengths]
        return server_claims.run_of(calls, kind="openai", budget=TOKENS, concurrency=2)

    [finding] = outcome(together(TOKENS, TOKENS), "clients in step").findings
    assert finding.status == "caution"
    assert outcome(together(12, 20, 30, TOKENS), "clients in step").findings == ()


GUARDED = [*ONE_BY_ONE[:6], *((due(6 + at), " again") for at in range(31))]
"""Six words, then one for ever, until Ollama ends the reply."""


@pytest.mark.parametrize("on_v1", [False, True])
def test_a_reply_that_the_server_cut_is_an_early_stop_with_its_step_and_first_token(on_v1: bool) -> None:
    make = by_client if on_v1 else by_ollama
    whole = chat(ONE_BY_ONE) if on_v1 else generate(ONE_BY_ONE, load_ms=90.0)
    run = alike(lambda at: make(whole if at % 2 else cut(GUARDED, on_v1=on_v1, load_ms=90.0)), calls=6)
    assert set(run.rows["status"]) == {"ok"}
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 6, rel=0.01)
    assert figures(run, "prefill") == pytest.approx([FIRST_MS - (0 if on_v1 else 1)] * 6, abs=1.1)
    cuts = run.rows.filter(pl.col("done_reason") == "repetition_guard")
    assert (cuts.height, cuts["gen_tokens_raw"].unique().to_list()) == (9, [37])
    assert run.rows["prompt_tokens_raw"].unique().to_list() == [PROMPT_TOKENS]
    assert set(cuts["prefill_basis"]) == {"ttft"} and found(run) == []


def test_a_cut_reply_whose_load_nobody_knows_has_no_prefill_and_a_step_all_the_same() -> None:
    run = alike(lambda _: by_ollama(cut(ONE_BY_ONE[:20])))
    assert figures(run, "prefill") == [] and len(figures(run, "kv_decode")) == 5
    assert {error.split(":")[0] for error in run.rows["error"].drop_nulls()} == {"no_prefill_time"}


def test_tokens_that_do_not_show_leave_one_basis_to_a_cell() -> None:
    def held_back(of: int) -> list[tuple[float, str]]:
        return [each for at, each in enumerate(ONE_BY_ONE) if at % of != 1]

    short_ms = 0.97 * (TOKENS - 1) * STEP_MS
    run = alike(lambda at: by_ollama(generate(held_back(3) if at % 2 else ONE_BY_ONE, eval=short_ms)))
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 5, rel=0.02)
    assert run.rows["decode_step_basis"].unique().to_list() == ["client_usage"] and found(run) == []


def cached(run: Run) -> list[str]:
    return run.rows.filter(pl.col("mode") == "prefill")["cache_check"].to_list()


def prefilled(ms: float, probe: tuple[float, float, float]) -> Timing:
    """A call whose prompt took so long, by both clocks."""
    return by_ollama(
        generate([(at_ms - FIRST_MS + ms, text) for at_ms, text in ONE_BY_ONE], prompt_eval=ms), probe=probe
    )


def test_a_probe_that_other_work_slowed_makes_no_good_call_a_cached_one() -> None:
    run = alike(lambda _: prefilled(47.0, (900.0, 940.0, 5.0)))
    assert cached(run) == ["fresh"] * 5 and figures(run, "prefill") == [47.0] * 5


def test_a_call_as_quick_as_the_repeated_prompt_is_found_among_its_like() -> None:
    run = alike(lambda at: prefilled(5.5 if at == 3 else 47.0, (40.0, 900.0, 5.0)))
    assert cached(run) == ["fresh"] * 3 + ["found", "fresh"] and len(figures(run, "prefill")) == 4


def test_a_quick_call_nearer_to_the_fresh_ones_is_fresh() -> None:
    run = alike(lambda at: prefilled(20.0 if at == 3 else 47.0, (40.0, 900.0, 5.0)))
    assert cached(run) == ["fresh"] * 5


def test_a_server_whose_repeated_prompt_is_computed_has_no_cache_to_answer_from() -> None:
    run = alike(lambda at: prefilled(15.0 if at == 3 else 47.0, (40.0, 900.0, 880.0)))
    assert cached(run) == ["fresh"] * 5


def test_hits_beside_a_probe_that_was_disturbed_are_undecidable_and_count() -> None:
    run = alike(lambda at: prefilled(200.0 if at == 3 else 1000.0, (40.0, 60.0, 190.0)))
    assert cached(run)[3] == "undecidable" and len(figures(run, "prefill")) == 5


def test_honest_servers_make_no_false_claims() -> None:
    assert [seed for seed in range(40) if server_claims.found(server_claims.clean(seed))] == []


def thought(*, shown: bool) -> Any:
    """Half of the tokens are reasoning, which comes in events of its own or not at all."""
    half = TOKENS // 2
    texts = [(at, {"reasoning": text} if no < half else {"content": text}) for no, (at, text) in enumerate(ONE_BY_ONE)]
    usage = {"completion_tokens": TOKENS, "completion_tokens_details": {"reasoning_tokens": half}}
    said = [(at_ms, {"choices": [{"delta": delta}]}) for at_ms, delta in (texts if shown else texts[half:])]
    return chat_of([*said, (due(TOKENS - 1), {"choices": [], "usage": usage | {"total_tokens": 70}})], usage=None)


def worded(**of: int) -> list[tuple[float, str]]:
    """Events of tokens of one length."""
    return [(at_ms, " word" * text.count("w")) for at_ms, text in events(**of)]


FIRST_EVENTS: dict[str, tuple[Callable[[], Any], float]] = {
    "three an event, but the first alone": (lambda: chat(worded(a_time=3, first=1)), 1),
    "thirteen an event, but the first alone": (lambda: chat(worded(a_time=13, first=1)), 1),
    "four an event": (lambda: chat(worded(a_time=4)), 4),
    "all reasoning in the first event, then one by one": (lambda: chat(worded(first=20)), 20),
    "reasoning that does not show": (lambda: thought(shown=False), 21),
    "reasoning that shows": (lambda: thought(shown=True), 1),
}


@pytest.mark.parametrize(("make", "tokens"), FIRST_EVENTS.values(), ids=FIRST_EVENTS.keys())
def test_the_tokens_of_a_first_event_are_told_by_its_text_and_are_no_steps_after_it(
    make: Callable[[], Any], tokens: float
) -> None:
    run = alike(lambda _: by_client(make()))
    rows = run.rows.filter(pl.col("mode") == "e2e_kv")
    assert rows["first_event_tokens"].to_list() == pytest.approx([tokens] * 5)
    assert figures(run, "kv_decode") == pytest.approx([STEP_MS] * 5)
    assert rows["request_ms"].to_list() == pytest.approx([due(TOKENS - 1)] * 5)
    late = tokens > 10
    assert len(figures(run, "prefill")) == (0 if late else 5)
    assert rows["latency_ms"].to_list() == pytest.approx([due(TOKENS + (0 if late else tokens - 1))] * 5)
    assert found(run) == [] and outcome(run, "contradictory rows").findings == ()


def test_a_reply_of_several_tokens_and_no_text_has_no_first_one() -> None:
    for counted in (TOKENS, 1):
        lines = [Line(10**8, json.dumps({"done": True, "eval_count": counted, "prompt_eval_duration": 10**7}).encode())]
        reply = ollama.read_stream(lines, 0)
        if counted == 1:
            assert by_ollama(reply).prefill_ms == 10.0
        else:
            with pytest.raises(EngineError, match="no token came"):
                by_ollama(reply)
