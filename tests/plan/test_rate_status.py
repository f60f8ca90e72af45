"""Each price and count says what it stands on; none is told beyond a context, none unmarked outside the range."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_time_law import times

from phaselaw.laws.physical_limit import Shape
from phaselaw.laws.rates import same_draws
from phaselaw.machine.footprint import Architecture
from phaselaw.machine.model_config import Cached
from phaselaw.plan.coverage import of_kind, of_load
from phaselaw.plan.economics import Question, answer
from phaselaw.plan.replicas import Length, Machine, Replica, stated
from phaselaw.records import Mix

RATE = same_draws(100.0, np.linspace(90.0, 110.0, 8180))
PRICES = ("usd_per_1k_requests", "usd_per_request", "usd_per_month_whole", "whole_workers", "usd_per_1m_input")


def replica(*lengths: tuple[float, ...], context: int | None = None, model: str = "m") -> Replica:
    measured = tuple(Length(*each) for each in lengths)
    return Replica(
        backend="b", model=model, tokens_per_s=RATE, usd_per_hour=1.0, lengths=measured, context_tokens=context
    )


def status(asked: tuple[float, float], known: Replica) -> str:
    return of_kind(known, Mix(name="a", prompt_tokens=asked[0], output_tokens=asked[1])).status


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((300, 64), "measured"), ((309, 60), "measured"), ((500, 64), "interpolated"), ((300, 128), "extrapolated"),
        ((900, 64), "extrapolated"), ((1000, 64), "not_possible"),
    ],
)  # fmt: skip
def test_a_length_is_measured_near_a_measured_one_and_else_says_how_far(
    asked: tuple[float, float], expected: str
) -> None:
    assert status(asked, replica((309, 64), (768, 64), context=1024)) == expected


def test_a_length_whose_own_rate_is_another_is_not_called_measured_at_the_mean_rate() -> None:
    asked = Mix(name="a", prompt_tokens=128, output_tokens=128)
    assert of_kind(replica((128, 128, 1.09), (768, 128, 0.92)), asked).status == "measured"
    found = of_kind(replica((128, 128, 0.52), (768, 128, 1.92)), asked)
    assert found.status == "interpolated"
    assert str(found.why).startswith("at the mean rate of 128 to 768 in and 128 out; alone, such requests ran at 0.52")


def test_a_mixture_is_as_sure_as_its_least_sure_kind() -> None:
    near, far = (
        Mix(name="near", prompt_tokens=100, output_tokens=10),
        Mix(name="far", prompt_tokens=900, output_tokens=10),
    )
    found = of_load(replica((100, 10)), [dataclasses.replace(near, share=3), far])
    assert found.status == "extrapolated" and str(found.why).startswith("25.0% of requests, such as far: 900 in")


WIDE = Architecture(params=1e9, weights_bytes=4e9, n_layer=16, n_embd=2048, n_head=32, head_dim=64,
                    cache=(Cached(16, 4096),), n_inner=8192, vocab_size=1000)  # fmt: skip


@pytest.mark.parametrize(("gigabytes", "expected"), [(24, "measured"), (6, "not_possible"), (None, "measured")])
def test_what_the_memory_of_a_worker_cant_hold_is_not_possible(gigabytes: int | None, expected: str) -> None:
    shape = Shape(model=WIDE, kind="hf", device="cpu", dtype="fp32", kv_bytes=4.0, all_logits=False, settings={})
    has = Machine(memory_bytes=gigabytes and gigabytes * 1e9)
    known = dataclasses.replace(replica((9000, 100)), shape=shape, machine=has, batch_size=4)
    question = Question(requests_per_s=1.0, mixes=(Mix(name="a", prompt_tokens=9000, output_tokens=100),))
    [row] = answer(question, [known], {})["requests"]
    assert row["rate_status"] == expected
    if expected == "not_possible":
        assert row["usd_per_month_whole"] is None and row["whole_workers"] is None
        assert row["why"].startswith("4 at once of 9,100 tokens take ") and row["why"].endswith("has 6 GB of memory")


def test_a_load_in_tokens_is_of_the_runs_own_requests() -> None:
    [row] = answer(Question(), [replica((17, 64))], {})["rows"]
    assert (row["rate_status"], row["why"]) == ("measured", "requests of 17 in and 64 out")
    assert row["usd_per_month_low"] is not None


OTHER = (Mix(name="chat", prompt_tokens=256, output_tokens=128),)


@pytest.mark.parametrize("load", [{"kinds_given": True}, {"requests_per_s": 1.0}, {"mixes": OTHER}])
def test_a_load_of_kinds_that_were_given_is_of_these_whatever_they_are_called(load: dict[str, Any]) -> None:
    [row] = answer(Question(**load), [replica((17, 64))], {})["rows"]
    assert row["rate_status"] == "extrapolated"


def test_a_price_by_phases_keeps_what_it_stands_on() -> None:
    mix = Mix(name="a", prompt_tokens=100, output_tokens=20)
    question = Question(requests_per_s=1.0, mixes=(mix,), phase_split_rates=True)
    known = dataclasses.replace(replica((16, 8), (256, 8)), decode_factor=RATE / 100)
    [row] = answer(question, [known], {("b", "m"): times()})["rows"]
    assert row["rate_status"] == "interpolated" and row["usd_per_1m_low"] is not None


def test_a_rate_that_is_given_is_called_so() -> None:
    tables = answer(Question(), [stated("a", 10.0, 1.0), stated("b", 20.0, 1.0)], {})
    assert {row["rate_status"] for name in ("rows", "request_mixes", "tiering") for row in tables[name]} == {"given"}


tokens = st.integers(1, 3000)
kinds = st.lists(st.tuples(tokens, tokens, st.floats(0.1, 9)), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(kinds=kinds, measured=st.lists(st.tuples(tokens, tokens), min_size=1, max_size=3), context=tokens)
def test_no_price_is_told_beyond_a_context_and_none_unmarked_outside_the_range(
    kinds: list[tuple[int, int, float]], measured: list[tuple[int, int]], context: int
) -> None:
    mixes = tuple(Mix(name=str(at), prompt_tokens=p, output_tokens=g, share=s) for at, (p, g, s) in enumerate(kinds))
    known = [replica(*measured, context=context, model=model) for model in ("m", "n")]
    question = Question(requests_per_s=1.0, mixes=mixes, extrapolate=True)
    tables = answer(question, known, {("b", model): times() for model in ("m", "n")})
    longest = max(mix.tokens for mix in mixes)
    inside = all(_inside(mix, measured) for mix in mixes)
    for name, rows in tables.items():
        for row in rows:
            one: Any = row.get("prompt_tokens")
            length = longest if one is None else one + row["output_tokens"]
            priced = [key for key in PRICES if row.get(key) is not None]
            assert row["status"] == row["rate_status"]
            assert (row["rate_status"] == "not_possible") == (length > context)
            assert not (priced and length > context), (name, priced)
            if name in ("rows", "requests", "tiering") and not inside and priced:
                assert row["rate_status"] == "extrapolated" and row["why"]
                assert all(row[f"{key}_low"] is None for key in priced)


def _inside(mix: Mix, measured: list[tuple[int, int]]) -> bool:
    """Whether both lengths lie between the shortest and the longest that were measured, or a tenth beyond."""
    prompts, outputs = zip(*measured, strict=True)
    lengths = ((mix.prompt_tokens, prompts), (mix.output_tokens, outputs))
    return all(0.9 * min(known) <= asked <= 1.1 * max(known) for asked, known in lengths)
