"""What the display says of calls; the drawing is rich's."""

import dataclasses
import io

import pytest
from rich.console import Console

from phaselaw.commands.console import RunProgress, describe_call
from phaselaw.records import Call, Cell, PlannedCall, Timing


def planned(model: str, scenario: str, rep: int) -> PlannedCall:
    cell = Cell(backend="b", backend_kind="simulated", model=model, scenario=scenario, batch_size=1, gen_tokens=8)
    return PlannedCall(
        call_id=f"{model}-{scenario}-{rep}", cell=cell, task_idx=0, is_warmup=False, warmup_idx=None, rep=rep
    )


def call_of(plan: PlannedCall, *, error: str | None = None) -> Call:
    timing = Timing(prefill_ms=2.0, kv_decode_ms=16.0, prompt_tokens=1, prompt_tokens_total=1, gen_tokens_raw=8)
    return Call(
        call_id=plan.call_id,
        call_idx=0,
        cell=plan.cell,
        task_idx=0,
        is_warmup=False,
        warmup_idx=None,
        rep=plan.rep,
        status="ok" if error is None else "error",
        error=error,
        started_at_unix=0.0,
        process_idx=0,
        calls_since_process_start=0,
        calls_since_model_load=0,
        calls_since_shape_first_seen=0,
        load_ms=None,
        timing=timing if error is None else None,
    )


def test_off_a_terminal_the_last_call_is_a_plain_line_without_escape_codes() -> None:
    out = io.StringIO()
    schedule = [planned("m", "[bold]s", 0), planned("m", "[bold]s", 1)]
    with RunProgress(schedule, already_done=3, console=Console(file=out, width=400)) as progress:
        progress.show(call_of(schedule[0]))
        progress.show(call_of(schedule[1], error="it broke"))
    assert "5/5 calls" in out.getvalue()
    assert "1 failed" in out.getvalue()
    assert "it broke" in out.getvalue()
    assert "[bold]s" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_of_a_call_that_stopped_early_the_step_is_told_and_not_what_nobody_waited_for() -> None:
    call = call_of(planned("m", "s", 0))
    assert "decode 16.0 ms (2.00 ms a step)" in describe_call(call)
    early = dataclasses.replace(call.timing, gen_tokens_raw=2, kv_decode_ms=4.0, done_reason="stop")
    told = describe_call(dataclasses.replace(call, timing=early))
    assert "prefill 2.0 ms, 2.00 ms a step (2 of 8 tokens)" in told and "decode" not in told


def test_the_calls_left_are_expected_to_take_what_those_before_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 30.0))
    monkeypatch.setattr("phaselaw.commands.console.time.monotonic", lambda: next(clock))
    out, schedule = io.StringIO(), [planned("m", "s", rep) for rep in range(4)]
    with RunProgress(schedule, already_done=7, console=Console(file=out, width=400)) as progress:
        progress.show(call_of(schedule[0]))
    assert "8/11 calls, about 90 s left" in out.getvalue()


def test_before_the_first_call_nothing_is_said_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 30.0))
    monkeypatch.setattr("phaselaw.commands.console.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    with RunProgress([planned("m", "s", 0)], already_done=0, console=Console(file=out, width=400)) as progress:
        progress._note("loaded m")
    assert out.getvalue() == "0/1 calls; loaded m\n"
