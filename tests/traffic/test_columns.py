"""Columns of request logs are known by common names, or by the names that a person gives."""

import pytest

from phaselaw.errors import UsageError
from phaselaw.traffic.columns import recognise


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (["TIMESTAMP", "ContextTokens", "GeneratedTokens"], ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]),
        (["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"],
         ["Timestamp", "Request tokens", "Response tokens"]),
        (["timestamp", "input_length", "output_length", "hash_ids"], ["timestamp", "input_length", "output_length"]),
        (["request_id", "startTime", "endTime", "completionStartTime", "prompt_tokens", "completion_tokens", "model"],
         ["startTime", "prompt_tokens", "completion_tokens"]),
        (["id", "created", "usage.prompt_tokens", "usage.completion_tokens", "usage.total_tokens"],
         ["created", "usage.prompt_tokens", "usage.completion_tokens"]),
        (["arrival_time", "num_prompt_tokens", "num_generation_tokens"],
         ["arrival_time", "num_prompt_tokens", "num_generation_tokens"]),
        (["ts", "body.meta.prompt_tokens", "body.meta.output_tokens"],
         ["ts", "body.meta.prompt_tokens", "body.meta.output_tokens"]),
        (["metadata.timestamp_ns", "input_tokens", "output_tokens"],
         ["metadata.timestamp_ns", "input_tokens", "output_tokens"]),
    ],
    ids=["azure", "burstgpt", "mooncake", "litellm", "openai", "vllm", "nested", "a unit in the name"],
)  # fmt: skip
def test_common_names_are_known(fields: list[str], found: list[str]) -> None:
    names = recognise(fields, {}).names
    assert [names["timestamp"], names["prompt_tokens"], names["output_tokens"]] == found


def test_a_name_that_is_given_goes_before_a_known_one() -> None:
    names = recognise(["timestamp", "when", "prompt_tokens"], {"timestamp": "when"}).names
    assert names["timestamp"] == "when" and names["prompt_tokens"] == "prompt_tokens"


@pytest.mark.parametrize(
    ("name", "seconds"), [("ttft", 1e-3), ("ttft_ms", 1e-3), ("ttft_s", 1.0), ("time_to_first_token_us", 1e-6)]
)
def test_a_durations_unit_is_the_ending_of_its_name_or_the_one_given(name: str, seconds: float) -> None:
    columns = recognise(["timestamp", name], {}, duration_unit="ms")
    assert columns.names["ttft"] == name and columns.seconds["ttft"] == seconds


def test_what_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(UsageError, match="no column 'when' in the log; it has: a, b"):
        recognise(["a", "b"], {"timestamp": "when"})
    with pytest.raises(UsageError, match="--timestamp-column"):
        recognise(["a", "b"], {})


def test_mooncakes_timestamps_are_milliseconds() -> None:
    assert recognise(["timestamp", "input_length", "output_length"], {}).relative_ms
    assert not recognise(["timestamp", "prompt_tokens", "output_tokens"], {}).relative_ms
