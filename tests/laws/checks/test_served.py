"""Checks of servers on rows made by hand: where a suspicion ends, and what is no cut prompt."""

import pytest
from rows import call, outcome, run_of

CACHE, CONVENTION, CUT = "prompt cache", "count convention", "prompt cut"


def prefills(first: float, repeated: float, **changes) -> list[dict]:
    """A cell's first call and three repeated ones, their prefills in ms; a decode step takes 10."""
    ms = [first, *[repeated] * 3]
    return [row for at, prefill in enumerate(ms) for row in call(at, prefill_ms=prefill, is_warmup=at == 0, **changes)]


@pytest.mark.parametrize(
    ("first", "repeated", "suspected"),
    [(30.0, 12.0, True), (30.0, 13.0, True), (30.0, 14.0, False), (14.0, 12.0, False), (12.0, 12.0, False)],
)
def test_a_cache_is_suspected_up_to_1_3_steps_where_the_first_call_took_clearly_more(
    first, repeated, suspected
) -> None:
    findings = outcome(run_of(prefills(first, repeated)), CACHE).findings
    assert bool(findings) == suspected
    assert {each.modes for each in findings} <= {("prefill", "e2e_kv")}


def test_one_call_among_the_repeated_that_was_as_slow_as_the_first_ends_the_suspicion() -> None:
    rows = prefills(30.0, 12.0) + call(4, prefill_ms=35.0)
    assert outcome(run_of(rows), CACHE).findings == ()


def test_a_long_prompt_whose_repeated_prefill_costs_many_steps_shows_that_prompts_are_computed() -> None:
    rows = prefills(30.0, 12.0) + prefills(90.0, 80.0, scenario="long", prompt_tokens_raw=500)
    assert outcome(run_of(rows), CACHE).findings == ()


def test_a_cell_of_1_4_steps_is_not_suspected_and_clears_no_other() -> None:
    rows = prefills(30.0, 12.0) + prefills(30.0, 14.0, scenario="other")
    [found] = outcome(run_of(rows), CACHE).findings
    assert found.where["scenario"] == "s"


def test_without_warmups_the_first_measured_call_is_the_first() -> None:
    rows = [row | {"is_warmup": False} for row in prefills(30.0, 12.0)]
    [found] = outcome(run_of(rows), CACHE).findings
    assert found.value == pytest.approx(1.2)


@pytest.mark.parametrize("kind", ["hf", "simulated"])
def test_a_cache_is_never_suspected_in_process(kind: str) -> None:
    found = outcome(run_of(prefills(30.0, 12.0, backend_kind=kind)), CACHE)
    assert (found.findings, found.n_checked, found.not_checked) == ((), 0, "no served engine")


def test_what_the_engine_found_itself_is_found_and_its_error_rows_are_counted() -> None:
    hit = [row | {"cache_check": "found", "status": "error"} for row in call(0)]
    rows = hit + [row | {"cache_check": "fresh"} for row in call(1)]
    [found] = outcome(run_of(rows, manifest={"phaselaw_version": "1"}), CACHE).findings
    assert (found.status, found.value, found.modes) == ("found", 1.0, ())


def test_hits_that_stand_in_laws_all_the_same_mark_them() -> None:
    rows = [row | {"cache_check": "found"} for row in call(0)]
    [found] = outcome(run_of(rows, manifest={"phaselaw_version": "1"}), CACHE).findings
    assert found.modes == ("prefill", "e2e_kv")


def decodes(steps_less: int, counts=range(20, 65, 4)) -> list[dict]:
    wobble = [0.02, -0.03, 0.01, 0.0, -0.01, 0.02, -0.02, 0.03, 0.0, -0.02, 0.01, -0.01]
    return [
        row
        for at, (count, off) in enumerate(zip(counts, wobble, strict=True))
        for row in call(at, gen_tokens_raw=count, kv_decode_ms=10.0 * (count - steps_less) + off, done_reason="length")
    ]


@pytest.mark.parametrize(("steps_less", "found"), [(0, False), (1, True), (2, False)])
def test_the_convention_is_found_where_the_time_spans_one_step_less(steps_less: int, found: bool) -> None:
    findings = outcome(run_of(decodes(steps_less)), CONVENTION).findings
    assert bool(findings) == found
    assert {each.modes for each in findings} <= {("kv_decode", "e2e_kv")}


def test_in_runs_of_ours_the_convention_touches_no_latency() -> None:
    [found] = outcome(run_of(decodes(1), manifest={"phaselaw_version": "1"}), CONVENTION).findings
    assert found.modes == ()


def texts(*lengths: tuple[int, int]) -> list[dict]:
    return [
        row
        for at, (chars, tokens) in enumerate(lengths)
        for row in call(at, scenario=f"s{at}", prompt_chars=chars, prompt_tokens_raw=tokens)
    ]


@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        ([(40, 10), (400, 100), (4000, 1000)], None),
        ([(2, 1), (5, 1)], None),
        ([(100, 60), (120, 60)], "found"),
        ([(8000, 2048), (16000, 2048)], "found"),
        ([(4000, 1000), (90000, 2048)], "suspected"),
        ([(4000, 1000)], None),
    ],
)
def test_a_text_that_was_not_read_to_its_end_shows_beside_a_shorter_one(lengths, status: str | None) -> None:
    assert [each.status for each in outcome(run_of(texts(*lengths)), CUT).findings] == ([status] if status else [])


@pytest.mark.parametrize(
    ("kind", "tokens", "cut"), [("hf", 512, False), ("hf", 511, True), ("ollama", 400, False), ("ollama", 200, True)]
)
def test_fewer_tokens_than_asked_for_are_a_cut_and_on_a_server_a_target(kind: str, tokens: int, cut: bool) -> None:
    rows = call(0, backend_kind=kind, prompt_tokens_raw=tokens, prompt_chars=None, prompt=None)
    study = {"scenarios": [{"name": "s", "prompt": None, "prompt_tokens": 512}]}
    assert bool(outcome(run_of(rows, manifest={"study": study}), CUT).findings) == cut


def test_what_the_engine_said_was_cut_is_found() -> None:
    rows = [row | {"status": "error", "error": "prompt_cut: 10 of 20 tokens"} for row in call(0)] + call(1)
    [found] = outcome(run_of(rows), CUT).findings
    assert "1 calls" in found.evidence
    assert found.modes == ()


def test_a_claim_that_a_later_version_named_is_passed_over() -> None:
    rows = [row | {"events": 8, "false_claims": "colour, bursts", "first_event_tokens": 4} for row in call(0)]
    [found] = outcome(run_of(rows), "server claim").findings
    assert "came in bursts" in found.evidence


def test_a_client_that_was_busy_reading_half_of_the_time_is_a_caution_for_so_many_clients() -> None:
    rows = [
        row
        for clients, cpus in ((1, 0.9), (64, 0.2), (256, 0.6))
        for at in range(3)
        for row in call(at, concurrency=clients, client_cpus=cpus, is_warmup=False)
    ]
    found = outcome(run_of(rows), "client at its limit")
    assert [each.status for each in found.findings] == ["caution"] and found.n_checked == 2
    assert found.findings[0].evidence.startswith("256 clients kept phaselaw itself busy 60% of the time")
