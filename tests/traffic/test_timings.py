"""Latencies of production: a law put into a log comes out, cold apart from warm, and agreement goes by a rule."""

import math

import numpy as np
import pytest
from step_time_law import times

from phaselaw.traffic.log import Requests
from phaselaw.traffic.timings import ReferenceTimes, Timings

N = 4000


def requests(slower: float = 1.0, scatter: float = 0.05, **given: object) -> Requests:
    """A log that obeys the law of `test_phase_split.times`, its times multiplied."""
    generator = np.random.default_rng(0)
    prompt, output = generator.integers(10, 1000, N).astype(float), generator.integers(2, 200, N).astype(float)
    law = times()
    assert law.prefill is not None and law.decode is not None
    noise = slower * np.exp(generator.normal(0, scatter, (2, N)))
    ttft = law.prefill.ms(1.0, prompt) / 1000 * noise[0]
    step = law.decode.ms(1.0, prompt + (output - 1) / 2) / 1000 * noise[1]
    none = np.full(N, math.nan)
    values = {
        "sent_at": 1.7e9 + np.arange(N), "prompt_tokens": prompt, "output_tokens": output, "ttft_s": ttft,
        "e2e_s": ttft + step * (output - 1), "batch_size": none, "worker_age_s": none, "idle_s": none, "cold": none,
        "worker": None,
    }  # fmt: skip
    return Requests(**(values | given))


def taken(values: object, part: np.ndarray) -> object:
    """Some rows of one column."""
    return values[part] if isinstance(values, np.ndarray) else values and tuple(values[at] for at in part)


def against(chunk: Requests, factor: np.ndarray | None = None) -> dict:
    reference = ReferenceTimes(name="m on b", times=times(), prefill_factor=factor, decode_factor=factor)
    timings = Timings(reference)
    for part in np.array_split(np.arange(N), 7):
        timings.add(Requests(**{name: taken(getattr(chunk, name), part) for name in Requests.__dataclass_fields__}))
    document = timings.document()
    assert document is not None
    return document


def counted(document: dict) -> dict[str, int]:
    """Requests by how they started."""
    found = dict.fromkeys((row["start"] for row in document["buckets"]), 0)
    for row in document["buckets"]:
        found[row["start"]] += row["requests"]
    return found


@pytest.mark.parametrize(
    ("slower", "verdict"),
    [(1.0, "agrees"), (1.5, "disagrees: production is slower"), (0.6, "disagrees: production is faster")],
)
def test_a_log_that_obeys_the_law_agrees_and_one_that_does_not_disagrees(slower: float, verdict: str) -> None:
    found = against(requests(slower))["against"]
    for phase in ("ttft", "decode_step"):
        assert found[phase]["verdict"] == verdict
        assert found[phase]["ratio_low"] <= slower <= found[phase]["ratio_high"]
        assert found[phase]["ratio"] == pytest.approx(slower, rel=0.01)


def test_a_law_that_is_not_sure_itself_cant_be_disagreed_with() -> None:
    unsure = np.concatenate([[1.0], np.exp(np.linspace(-0.8, 0.8, 201))])
    assert against(requests(1.5), unsure)["against"]["ttft"]["verdict"].startswith("can't be told")


def test_only_what_was_measured_is_compared() -> None:
    found = against(requests(prompt_tokens=np.full(N, 9999.0)))["against"]
    assert found["outside_the_measured_range"] == found["times_compared"] == 2 * N
    assert found["ttft"]["verdict"] == "not measured"


def test_buckets_hold_each_request_once_and_decode_is_apart_from_the_first_token() -> None:
    document = against(requests())
    assert sum(row["requests"] for row in document["buckets"]) == N
    assert {row["start"] for row in document["buckets"]} == {"not known"}
    assert {row["prompt_tokens"] for row in document["buckets"]} == {"0 to 127", "128 to 511", "512 to 2047"}
    for row in document["buckets"]:
        assert 1 / row["decode_tokens_per_s_p50"] == pytest.approx(0.0078, rel=0.3)
        assert row["ttft_s_p50"] < row["ttft_s_p95"] <= row["ttft_s_p99"]


def test_cold_starts_are_told_apart_as_the_log_has_them_and_not_held_against_the_law() -> None:
    called = np.where(np.arange(N) < 400, 1.0, 0.0)
    document = against(requests(cold=called))
    counted = {
        start: sum(row["requests"] for row in document["buckets"] if row["start"] == start)
        for start in ("cold", "warm")
    }
    assert counted == {"cold": 400, "warm": N - 400}
    assert document["against"]["times_compared"] == 2 * (N - 400)


def test_young_and_idle_workers_are_cold() -> None:
    age = np.where(np.arange(N) < 100, 5.0, 5000.0)
    idle = np.where(np.arange(N) >= N - 50, 900.0, 1.0)
    document = against(requests(worker_age_s=age, idle_s=idle))
    assert counted(document)["cold"] == 150


def test_the_time_since_a_workers_last_request_is_found_from_its_rows() -> None:
    sent = 1.7e9 + np.arange(N) + np.where(np.arange(N) >= N // 2, 1000.0, 0.0)
    names = tuple(f"w{at % 4}" for at in range(N))
    document = against(requests(sent_at=sent, worker=names))
    assert counted(document) == {"not known": 4, "cold": 4, "warm": N - 8}


def test_a_log_without_times_says_nothing_of_latency() -> None:
    timings = Timings()
    timings.add(requests(ttft_s=np.full(N, math.nan), e2e_s=np.full(N, math.nan)))
    assert timings.document() is None
