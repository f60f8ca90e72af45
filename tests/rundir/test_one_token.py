"""A request of one token: the whole is its TTFT, and there is no decode to fail."""

from typing import Any

import pytest
from odd_servers import FIRST_MS, PROMPT_TOKENS, events, generate

from phaselaw.commands.console import describe_call
from phaselaw.engines.served import timing_of
from phaselaw.records import Call, Cell
from phaselaw.rundir.columns import rows_of, settled_calls
from phaselaw.servers.caches import Verdict

CELL = Cell(backend="srv", backend_kind="ollama", model="m", scenario="s", batch_size=1, gen_tokens=1)


def call_of(**claims: Any) -> Call:
    """A call of one token, with an Ollama's load of 1 ms."""
    reply = generate(events(tokens=1), eval_count=1, **claims)
    seen: dict[str, Any] = {"load_ms": reply.served.load_ms, "model_was_loaded": True}
    timing = timing_of(reply, PROMPT_TOKENS, 1, Verdict("fresh", ""), server_times="prefill", **seen)
    return Call(
        call_id="c", call_idx=0, cell=CELL, task_idx=0, is_warmup=False, warmup_idx=None, rep=0, status="ok",
        error=None, started_at_unix=0.0, process_idx=0, calls_since_process_start=0, calls_since_model_load=0,
        calls_since_shape_first_seen=0, load_ms=None, timing=timing,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "prefill_ms", "basis"),
    [
        ({}, FIRST_MS - 2, "server"),
        ({"prompt_eval": 0.0, "eval": 0.0}, FIRST_MS - 1, "ttft"),  # v0.13.5's own engine gives no time for one token
    ],
)
def test_the_whole_is_the_ttft_and_decode_is_not_applicable(claims, prefill_ms: float, basis: str) -> None:
    [call] = settled_calls([call_of(**claims)])
    known: dict[str, Any] = {"prompt": "x", "params_millions_config": None, "params_millions_measured": 10.0}
    prefill, decode, whole = rows_of(call, **known)
    assert (prefill["status"], prefill["latency_ms"], prefill["prefill_basis"]) == ("ok", prefill_ms, basis)
    assert (whole["status"], whole["latency_ms"], whole["request_ms"]) == ("ok", FIRST_MS, FIRST_MS)
    assert (decode["status"], decode["error"], decode["latency_ms"]) == ("not_applicable", None, None)
    assert describe_call(call) == f"srv m s (round 0): {FIRST_MS:.1f} ms"
