"""Latencies of production: a law put into a log comes out, cold apart from warm, and agreement goes by a rule."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_time_law import times

from phaselaw.traffic.log import opened
from phaselaw.traffic.source import Reading
from phaselaw.traffic.timings import ReferenceTimes, timings

N = 4000
Values = dict[str, Any]


def requests(slower: float = 1.0, scatter: float = 0.05, **given: Any) -> Values:
    """A log that obeys the law of `test_phase_split.times`, its times multiplied."""
    generator = np.random.default_rng(0)
    prompt, output = generator.integers(10, 1000, N), generator.integers(2, 200, N)
    law = times()
    noise = slower * np.exp(generator.normal(0, scatter, (2, N)))
    ttft = law["prefill"].ms(1.0, prompt.astype(float)) / 1000 * noise[0]
    step = law["kv_decode"].ms(1.0, prompt + (output - 1) / 2) / 1000 * noise[1]
    values = {
        "timestamp": 1.7e9 + np.arange(N), "prompt_tokens": prompt, "output_tokens": output, "ttft_s": ttft,
        "e2e_s": ttft + step * (output - 1),
    }  # fmt: skip
    return values | given


def document(values: Values, reference: ReferenceTimes | None = None) -> Any:
    rows = zip(*(np.broadcast_to(column, N).tolist() for column in values.values()), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_text("\n".join([",".join(values), *(",".join(map(str, row)) for row in rows)]))
        with opened([path], Reading()) as log:
            return timings(log, reference)


def against(values: Values, factor: np.ndarray | None = None) -> Any:
    return document(values, ReferenceTimes(name="m on b", times=times(), prefill_factor=factor, decode_factor=factor))


def counted(timed: Any) -> dict[str, int]:
    """Requests by how they started."""
    found = dict.fromkeys((row["start"] for row in timed["buckets"]), 0)
    for row in timed["buckets"]:
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
    found = against(requests(prompt_tokens=9999))["against"]
    assert found["outside_the_measured_range"] == found["times_compared"] == 2 * N
    assert found["ttft"]["verdict"] == "not measured"


def test_prompt_tokens_that_a_cache_held_are_not_held_against_the_prefill() -> None:
    values, law = requests(scatter=0.0), times()
    cached = values["prompt_tokens"] // 2
    ttft = law["prefill"].ms(1.0, (values["prompt_tokens"] - cached).astype(float)) / 1000
    e2e = values["e2e_s"] - values["ttft_s"] + ttft
    found = against(values | {"ttft_s": ttft, "e2e_s": e2e, "cached_tokens": cached})["against"]
    assert [found[phase]["ratio"] for phase in ("ttft", "decode_step")] == pytest.approx([1, 1])


def test_buckets_hold_each_request_once_and_decode_is_apart_from_the_first_token() -> None:
    found = against(requests())
    assert sum(row["requests"] for row in found["buckets"]) == N
    assert {row["start"] for row in found["buckets"]} == {"not known"}
    assert {row["prompt_tokens"] for row in found["buckets"]} == {"0 to 127", "128 to 511", "512 to 2047"}
    for row in found["buckets"]:
        assert 1 / row["decode_tokens_per_s_p50"] == pytest.approx(0.0078, rel=0.3)
        assert row["ttft_s_p50"] < row["ttft_s_p95"] <= row["ttft_s_p99"]


def test_cold_starts_are_told_apart_as_the_log_has_them_and_not_held_against_the_law() -> None:
    called = np.where(np.arange(N) < 400, "cold", "warm")
    found = against(requests(cold_start=called))
    assert counted(found) == {"cold": 400, "warm": N - 400}
    assert found["against"]["times_compared"] == 2 * (N - 400)


def test_young_and_idle_workers_are_cold() -> None:
    age = np.where(np.arange(N) < 100, 5.0, 5000.0)
    idle = np.where(np.arange(N) >= N - 50, 900.0, 1.0)
    found = against(requests(worker_age_s=age, idle_s=idle))
    assert counted(found)["cold"] == 150


def test_the_time_since_a_workers_last_request_is_found_from_its_rows() -> None:
    sent = 1.7e9 + np.arange(N) + np.where(np.arange(N) >= N // 2, 1000.0, 0.0)
    names = np.array([f"w{at % 4}" for at in range(N)])
    found = against(requests(timestamp=sent, worker=names))
    assert counted(found) == {"not known": 4, "cold": 4, "warm": N - 8}


def test_a_log_without_times_says_nothing_of_latency() -> None:
    values = requests()
    assert document({name: values[name] for name in ("timestamp", "prompt_tokens", "output_tokens")}) is None


def test_quantiles_lie_between_the_nearest_values_in_proportion() -> None:
    e2e = np.random.default_rng(1).permutation(N) + 1.0
    [row] = document(requests(prompt_tokens=100, output_tokens=1, ttft_s="", e2e_s=e2e))["buckets"]
    found = [row[f"e2e_s_{name}"] for name in ("p50", "p95", "p99")]
    assert found == pytest.approx(np.quantile(e2e, [0.5, 0.95, 0.99]))
    assert row["ttft_s_p50"] is None and row["decode_tokens_per_s_p50"] is None
