"""llama-server's stream: the client's clock with text that is held back, and the cost of being a client."""

import json
from typing import Any

import pytest

from phaselaw.engines.http_client import Line
from phaselaw.engines.llamacpp import read_stream, server_timing
from phaselaw.engines.served import StreamedReply
from phaselaw.records import Served

STEP_MS, PROMPT_MS, COST_MS = 10.0, 40.0, 3.0


def stream(numbers: list[int], *, tokens: int, says_numbers: bool = True) -> StreamedReply:
    """A reply of so many tokens whose chunks came after the n-th token each, 10 ms a token, the first after 43 ms."""
    lines = []
    for number in numbers:
        said: dict[str, Any] = {"content": "x", "tokens": [number], "stop": False}
        at_ms = PROMPT_MS + COST_MS + (number - 1) * STEP_MS
        lines.append((at_ms, said | ({"tokens_predicted": number} if says_numbers else {})))
    timings = {"cache_n": 0, "prompt_n": 9, "prompt_ms": PROMPT_MS, "predicted_n": tokens,
               "predicted_ms": (tokens - 1) * STEP_MS}  # fmt: skip
    lines.append((lines[-1][0], {"content": "", "stop": True, "tokens_predicted": tokens, "timings": timings}))
    return read_stream([Line(int(ms * 1e6), b"data: " + json.dumps(said).encode()) for ms, said in lines], 0)


def served(reply: StreamedReply) -> Served:
    found = server_timing(reply, 9, 64).served
    assert found is not None
    return found


def test_where_each_chunk_is_a_token_both_clocks_tell_the_same_step() -> None:
    found = served(stream(list(range(1, 65)), tokens=64))
    assert found.decode_step_ms_client == pytest.approx(STEP_MS)
    assert found.decode_step_ms_server == pytest.approx(STEP_MS)


def test_where_text_is_held_back_the_clients_step_is_told_by_the_tokens_that_each_chunk_counts() -> None:
    found = served(stream([1, 2, 40, 41, 60], tokens=64))
    assert found.decode_step_ms_client == pytest.approx(STEP_MS)


def test_where_text_is_held_back_and_no_chunk_counts_the_clients_step_is_spread_over_the_tokens() -> None:
    found = served(stream([1, 2, 40, 41, 60], tokens=64, says_numbers=False))
    assert found.decode_step_ms_client == pytest.approx(STEP_MS * 59 / (64 * 4 / 5))
    assert found.decode_step_basis == "server"


def test_ttft_less_the_servers_prompt_time_is_the_cost_of_being_a_client() -> None:
    found = served(stream(list(range(1, 65)), tokens=64))
    assert found.ttft_ms - PROMPT_MS == pytest.approx(COST_MS)
    assert found.queue_ms == pytest.approx(COST_MS)
