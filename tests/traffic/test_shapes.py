"""Logs of the shapes that people have: four requests in seven seconds come out of each, whatever its words and marks.

Each row of the table is a text (a line a request, names in braces), how it is read, and what comes out besides. The
values are made up; the names are those of the tools.
"""

import datetime as dt
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phaselaw.errors import UsageError
from phaselaw.traffic.profile import traffic_profile
from phaselaw.traffic.source import Reading

AFTER = (0.0, 1.0, 3.0, 7.0)
START = 1_715_508_000  # 2024-05-12 10:00:00 UTC


def values() -> Iterator[dict[str, Any]]:
    """The four requests, in every way that a shape may write them; each takes 2 s, its first token 0.25 s."""
    for at, (after, prompt, output) in enumerate(zip(AFTER, (100, 200, 300, 1400), (10, 20, 30, 40), strict=True)):
        now = dt.datetime.fromtimestamp(START + after, tz=dt.UTC)
        end, first = now + dt.timedelta(seconds=2), now + dt.timedelta(seconds=0.25)
        yield {
            "n": at, "p": prompt, "o": output, "after": after, "after_ms": int(after * 1000), "s": START + after,
            "ms": int((START + after) * 1000), "us": int((START + after) * 1e6), "ns": int(START + after) * 10**9,
            "end_s": START + after + 2, "first_s": START + after + 0.25, "end_ns": int(START + after + 2) * 10**9,
            "iso": now.isoformat().replace("+00:00", "Z"), "end": end.isoformat(), "first": first.isoformat(),
            "day": now.strftime("%Y-%m-%d"), "clock": now.strftime("%H:%M:%S"), "now": now, "uncached": prompt - 50,
            "half": prompt // 2, "p_comma": f"{prompt:,}", "p_point": f"{prompt:,}".replace(",", "."),
            "after_comma": str(after + 0.5).replace(".", ","),
        }  # fmt: skip


def csv(head: str, row: str) -> str:
    return "\n".join([head, *(row.format(**each) for each in values())]) + "\n"


def lines(row: str) -> str:
    """JSON lines: ``<`` and ``>`` stand for braces."""
    return "".join(row.format(**each).replace("<", "{").replace(">", "}") + "\n" for each in values())


def records(row: str) -> list[Any]:
    return [json.loads(line) for line in lines(row).splitlines()]


OPENAI = (
    '<"created_at": {s}, "id": "r{n}", "status": "completed", "usage": <"input_tokens": {p}, "output_tokens": {o}>>'
)
LITELLM = (
    '<"request_id": "r{n}", "startTime": "{iso}", "endTime": "{end}", "completionStartTime": "%s", '
    '"prompt_tokens": {p}, "completion_tokens": {o}, "status": "success", "cache_hit": "False">'
)
AIPERF = (
    '<"metadata": <"request_start_ns": {ns}, "request_end_ns": {end_ns}, "was_cancelled": false>, "metrics": '
    '<"input_sequence_length": <"value": {p}, "unit": "tokens">, "output_sequence_length": <"value": {o}, "unit": '
    '"tokens">, "time_to_first_token": <"value": 250.0, "unit": "ms">>, "error": null>'
)
PLAIN = '<"timestamp": {s}, "prompt_tokens": {p}, "output_tokens": {o}>'
MORE = '{"timestamp": %d, "prompt_tokens": 9, "output_tokens": %d, "status": "%s"}\n'

LOGS: dict[str, tuple[str | bytes, dict[str, Any], dict[str, Any]]] = {
    "Azure": (csv("TIMESTAMP,ContextTokens,GeneratedTokens", "{day} {clock}.0000000,{p},{o}"), {}, {}),
    "BurstGPT": (
        csv("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", "{after:.0f},GPT-4,{p},{o},9,API")
        + "7,GPT-4,55,0,55,API log\n", {}, {"apart": {"zero_tokens": 1}},
    ),
    "BurstGPT replay": (
        lines('<"in_len": {p}, "out_len": 900, "out_len_expected": {o}, "first_chunk_time": 0.25, '
              '"total_chunk_time": 2, "record_time": {after}>'), {}, {"ttft": 0.25},
    ),
    "Mooncake": (lines('<"timestamp": {after_ms}, "input_length": {p}, "output_length": {o}, "hash_ids": []>'), {}, {}),
    "Mooncake in seconds": (
        lines('<"timestamp": {after}5, "input_length": {p}, "output_length": {o}, "hash_ids": [1]>'), {}, {},
    ),
    "Mooncake since 1970": (lines('<"timestamp": "{ns}", "input_length": {p}, "output_length": {o}>'), {}, {}),
    "Vidur": (csv("arrived_at,num_prefill_tokens,num_decode_tokens", "{after},{p},{o}"), {}, {}),
    "input_toks": (lines('<"arrival_time_ns": {after}e9, "input_toks": {p}, "output_toks": {o}>'), {}, {}),
    "LiteLLM": (lines(LITELLM % "{first}"), {}, {"ttft": 0.25}),
    "LiteLLM, not streamed": (lines(LITELLM % "{end}"), {}, {"ttft": None, "e2e": 2.0}),
    "Langfuse": (
        lines('<"id": "o{n}", "startTime": "{iso}", "completionStartTime": "{first}", "endTime": "{end}", "level": '
              '"DEFAULT", "usage": <"input": {p}, "output": {o}, "unit": "TOKENS">>'), {}, {"ttft": 0.25},
    ),
    "Helicone": (
        lines('<"request_created_at": "{iso}", "response_created_at": "{end}", "delay_ms": 2000, '
              '"time_to_first_token": '
              '250, "prompt_tokens": {p}, "completion_tokens": {o}, "response_status": 200>'), {}, {"ttft": 0.25},
    ),
    "Bedrock": (
        lines('<"timestamp": "{iso}", "input": <"inputTokenCount": {uncached}, "cacheReadInputTokenCount": '
              '50>, "output": <"outputTokenCount": {o}>>'), {}, {"cached": 200 / 2000},
    ),
    "OpenAI responses": (lines(OPENAI), {}, {}),
    "OpenAI chat, cached": (
        lines('<"created": {s}, "usage": <"prompt_tokens": {p}, "completion_tokens": {o}, "prompt_tokens_details": '
              '<"cached_tokens": {half}>>>'), {}, {"cached": 0.5},
    ),
    "Anthropic": (
        lines('<"created_at": "{iso}", "usage": <"input_tokens": {half}, "cache_creation_input_tokens": 0, '
              '"cache_read_input_tokens": {half}, "output_tokens": {o}>>'), {}, {"cached": 0.5},
    ),
    "OpenTelemetry": (
        lines('<"startTimeUnixNano": "{ns}", "endTimeUnixNano": "{end_ns}", "attributes": <'
              '"gen_ai.usage.input_tokens": {p}, "gen_ai.usage.output_tokens": {o}, '
              '"gen_ai.usage.cache_read.input_tokens": {half}>>'),
        {}, {"cached": 0.5, "e2e": 2.0},
    ),
    "AIPerf": (
        lines(AIPERF) + lines(AIPERF.replace("false", "true")).splitlines()[0], {},
        {"ttft": 0.25, "apart": {"cancelled": 1}},
    ),
    "inference-perf": (
        json.dumps(records('<"start_time": {after}, "end_time": 99.0, "info": <"input_tokens": {p}, '
                           '"output_tokens": {o}, "output_token_times": [{after}, 9.5]>, "error": null>')), {}, {},
    ),
    "nginx JSON": (
        lines('<"msec": "{end_s}", "request_time": "2.000", "status": "200", "prompt_tokens": "{p}", '
              '"completion_tokens": "{o}">'), {}, {"e2e": 2.0},
    ),
    "nginx JSON, its dates": (
        lines('<"time_local": "{now:%d/%b/%Y:%H:%M:%S} +0000", "request_time": 0.5, "input_tokens": {p}, '
              '"output_tokens": {o}>'), {}, {"e2e": 0.5},
    ),
    "a JSON array": (json.dumps(records(PLAIN)), {}, {}),
    "pretty JSON": ("\n".join(json.dumps(record, indent=2) for record in records(PLAIN)), {}, {}),
    "an object of objects": (json.dumps({f"r{n}": each for n, each in enumerate(records(PLAIN))}, indent=1), {}, {}),
    "a wrapped array": (json.dumps({"object": "list", "data": records(OPENAI)}), {}, {}),
    "gzip": (gzip.compress(lines(PLAIN).encode()), {}, {}),
    "a mark at the start": ("\ufeff" + csv("timestamp,input_tokens,output_tokens", "{iso},{p},{o}"), {}, {}),
    "UTF-16": (csv("timestamp;input_tokens;output_tokens", "{iso};{p};{o}").encode("utf-16"), {}, {}),
    "UTF-16 JSON": (lines(PLAIN).encode("utf-16"), {}, {}),
    "semicolons and decimal commas": (
        csv("time;input_tokens;output_tokens;latency_s", "{after_comma};{p};{o};2,0"), {}, {"e2e": 2.0},
    ),
    "bars": (csv("ts | input_len | output_len", "{s} | {p} | {o}"), {}, {}),
    "tabs and CR LF": (csv("ts\tisl\tosl", "{ms}\t{p}\t{o}").replace("\n", "\r\n"), {}, {}),
    "thousands in quotes": (csv("timestamp,prompt_tokens,completion_tokens", '{us},"{p_comma}",{o}'), {}, {}),
    "thousands by points": (csv("timestamp;prompt_tokens;completion_tokens", "{iso};{p_point};{o}"), {}, {}),
    "day first": (
        csv("created,prompt_tokens,completion_tokens", '"{now:%d/%m/%Y}, {clock}",{p},{o}'),
        {"timestamp_format": "day-first"}, {},
    ),
    "US dates": (
        csv("created,prompt_tokens,completion_tokens", "{now:%m/%d/%Y %I:%M:%S %p},{p},{o}"),
        {"timestamp_format": "month-first"}, {},
    ),
    "a pattern of one's own": (
        csv("created,prompt_tokens,completion_tokens", "{now:%y%m%d-%H%M%S},{p},{o}"),
        {"timestamp_format": "%y%m%d-%H%M%S"}, {},
    ),
    "date and time apart": (csv("date,time,prompt_tokens,completion_tokens", "{day},{clock},{p},{o}"), {}, {}),
    "Python's logging": (
        csv("asctime;tokens_in;tokens_out", "{day} {clock},000;{p};{o}"), {"columns": {"timestamp": "asctime"}}, {},
    ),
    "milliseconds by name": (csv("arrival_ms,prompt_len,output_len", "{after_ms},{p},{o}"), {}, {}),
    "a unit that is asked for": (csv("t,prompt_len,output_len", "{after_ms},{p},{o}"), {"timestamp_unit": "ms"}, {}),
    "statuses": (
        "".join(line.replace("}", ', "status": "ok"}') + "\n" for line in lines(PLAIN).splitlines())
        + "".join(MORE % (START + 50, 9, status) for status in ("failed", "499", "HTTP error", "aborted")), {},
        {"apart": {"failed": 2, "cancelled": 2}},
    ),
    "another model's": (
        csv("timestamp,model,prompt_tokens,output_tokens", "{s},m,{p},{o}") + f"{START + 50},other,1,1\n",
        {"model": "m"}, {"apart": {"other_models": 1}},
    ),
}  # fmt: skip


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def made(content: str | bytes, **reading: Any) -> dict[str, Any]:
        path = tmp_path / "log"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return traffic_profile([path], Reading(**reading))

    return made


@pytest.mark.parametrize(("content", "reading", "told"), LOGS.values(), ids=LOGS)
def test_four_requests_in_seven_seconds(profile: Any, content: Any, reading: Any, told: dict[str, Any]) -> None:
    found = profile(content, **reading)
    assert found["requests"] == 4 and found["rows"]["apart"] == told.get("apart", {})
    assert found["requests_per_s"] == pytest.approx(4 / 7, rel=1e-6)
    assert (found["prompt_tokens"]["mean"], found["output_tokens"]["mean"]) == (500, 25)
    assert found["cached_prompt_share"] == told.get("cached")
    if "ttft" in told or "e2e" in told:
        for bucket in found["timings"]["buckets"]:
            assert bucket["ttft_s_p50"] == pytest.approx(told.get("ttft"), abs=1e-5)
            assert bucket["e2e_s_p50"] == pytest.approx(told.get("e2e", 2.0), abs=1e-5)


USAGE = {"object": "page", "data": [
    {"object": "bucket", "start_time": START + 3600 * hour, "end_time": START + 3600 * (hour + 1), "results": [
        {"input_tokens": 5000, "output_tokens": 1000, "input_cached_tokens": 2500, "num_model_requests": 10},
        {"input_tokens": 1000, "output_tokens": 2000, "input_cached_tokens": 500, "num_model_requests": 20 * hour},
    ] if hour < 2 else []}
    for hour in range(4)
]}  # fmt: skip


@pytest.mark.parametrize("form", ["json", "csv"])
def test_buckets_of_usage_are_not_requests(profile: Any, form: str) -> None:
    rows = [
        f"{bucket['start_time']},{bucket['end_time']},{each['num_model_requests']},{each['input_tokens']},"
        f"{each['output_tokens']},{each['input_cached_tokens']}"
        for bucket in USAGE["data"]
        for each in bucket["results"] or [dict.fromkeys(USAGE["data"][0]["results"][0], 0)]
    ]
    head = "start_time,end_time,num_model_requests,input_tokens,output_tokens,input_cached_tokens"
    found = profile(json.dumps(USAGE) if form == "json" else "\n".join([head, *rows]))
    assert found["requests"] == 40 and found["requests_per_s"] == pytest.approx(40 / 14_400)
    assert found["prompt_tokens"] == {"mean": 12_000 / 40} and found["output_tokens"] == {"mean": 150}
    assert found["cached_prompt_share"] == 0.5 and found["gap_cv"] is None
    assert [row["requests"] for row in found["by_hour_of_day"]] == [10, 30, 0, 0]
    assert found["doubts"] == ["its peak is that of a whole 60 min: a minute of it may be busier (--burst of a plan)"]


@pytest.mark.parametrize(("days", "by_day"), [(1, 7), (7, None)])
def test_what_is_counted_by_longer_times_is_not_put_into_the_hour_or_the_day_they_begin_in(
    profile: Any, days: int, by_day: int | None
) -> None:
    begins = [START + 86_400 * days * at for at in range(14)]
    rows = "".join(f"{at},{at + 86_400 * days},{100 * n},{900 * n},{90 * n}\n" for n, at in enumerate(begins, start=1))
    found = profile(f"start_time,end_time,num_model_requests,input_tokens,output_tokens\n{rows}")
    assert found["by_hour_of_day"] is None
    assert (found["by_day_of_week"] and len(found["by_day_of_week"])) == by_day
    assert found["peak_minute"]["over_mean"] == pytest.approx(14 / 7.5)
    assert found["peak_minute"]["lasts_s"] == 86_400 * days


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[GIN] 2024/05/12 - 10:00:00 | 200 | 1.2s | 127.0.0.1 | POST "/api/chat"\n', "a text log without token"),
        ('1.2.3.4 - - [12/May/2024:10:00:00 +0000] "POST /v1 HTTP/1.1" 200 12\n', "a text log without token counts"),
        (csv("timestamp,prompt_tokens,output_tokens", "{after:.0f},{p},{o}"), "whole numbers whose unit is not known"),
        (csv("when,prompt_tokens,output_tokens", "{iso},{p},{o}"), "no timestamps .* --timestamp-column"),
        (csv("timestamp,promt_tokens,output_tokens", "{iso},{p},{o}"), "no lengths of prompts .*nearest: promt_tokens"),
        (csv("timestamp,prompt_tokens", "{iso},{p}"), "no lengths of answers"),
        (lines('<"a": <"timestamp": {s}>, "b": <"timestamp": {s}>, "isl": {p}, "osl": {o}>'), "both may be"),
        (csv("timestamp,isl,osl,isl", "{s},{p},{o},1"), "two columns are called 'isl'"),
        ("time,isl,osl\n" + "".join(f"0.{at * 37 % 101}3,1,1\n" for at in range(99)), "do not ascend"),
        (csv("timestamp;isl;osl", "12.05.2024 {clock};{p};{o}"), "may be read in two ways: say --timestamp-format"),
        (lines('<"starting_at": "{iso}", "ending_at": "{end}", "uncached_input_tokens": {p}, "output_tokens": {o}>'),
         "does not count requests"),
        ("timestamp,\x1b[31m,osl\n", r"columns timestamp, '\\x1b\[31m', osl"),
        ("", "empty"),
        ("[]", "no JSON object"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_has_no_tokens_is_refused_with_what_to_do(profile: Any, content: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        profile(content)
