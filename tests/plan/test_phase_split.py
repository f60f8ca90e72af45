"""The phase-split price: its parts sum to the worker's time, whatever the mixture, and it says where it ends."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_time_law import PREFILL_MS, STEP_MS, times

from phaselaw.laws.rates import same_draws
from phaselaw.plan.phase_split import at_mixture, split, token_prices
from phaselaw.plan.replicas import Replica
from phaselaw.records import Mix

REPLICA = Replica(
    backend="b", model="m", batch_size=1, gen_tokens=8, tokens_per_s=np.array([100.0]), usd_per_hour=1.5,
    context_tokens=4096,
)  # fmt: skip


def seconds_step_by_step(mix: Mix, batch: int, *, steps: int | None = None) -> float:
    """Worker seconds of a request, a token at a time, from the coefficients alone."""
    constant, per_token, per_pair = PREFILL_MS
    ms = constant + sum(per_token + per_pair * mix.prompt_tokens for _ in range(batch * int(mix.prompt_tokens)))
    fixed, per_sequence, per_context = STEP_MS
    context = mix.prompt_tokens
    for _ in range(int(mix.output_tokens) if steps is None else steps):
        ms += fixed + batch * (per_sequence + per_context * context)
        context += 1
    return ms / 1000 / batch


kinds = st.builds(
    lambda p, g, share: (p, g, share), st.integers(1, 2000), st.integers(0, 1500), st.floats(0.01, 100)
)  # fmt: skip


@settings(max_examples=50)
@given(mixture=st.lists(kinds, min_size=1, max_size=6), batch=st.integers(1, 8), usd=st.floats(0.01, 50))
def test_input_and_output_at_their_prices_are_the_workers_time_at_its_rate(
    mixture: list[tuple[int, int, float]], batch: int, usd: float
) -> None:
    mixes = [Mix(name=str(at), prompt_tokens=p, output_tokens=g, share=s) for at, (p, g, s) in enumerate(mixture)]
    prices = token_prices(
        mixes, [split(dataclasses.replace(REPLICA, batch_size=batch), times(), mix) for mix in mixes], usd
    )
    assert prices.status == "derived"
    inputs = sum(mix.share * mix.prompt_tokens for mix in mixes)
    outputs = sum(mix.share * mix.output_tokens for mix in mixes)
    told = prices.usd_per_1m_input[0] * inputs / 1e6
    if outputs:
        told += prices.usd_per_1m_output[0] * outputs / 1e6
    spent = sum(mix.share * seconds_step_by_step(mix, batch) for mix in mixes) * usd / 3600
    assert told == pytest.approx(spent, rel=1e-9)


@settings(max_examples=50)
@given(kind=kinds, batch=st.integers(1, 8))
def test_the_mixture_rate_serves_as_many_requests_as_the_seconds_allow(
    kind: tuple[int, int, float], batch: int
) -> None:
    mix = Mix(name="a", prompt_tokens=kind[0], output_tokens=kind[1])
    prices = token_prices(
        [mix], [split(dataclasses.replace(REPLICA, batch_size=batch), times(), mix)], REPLICA.usd_per_hour
    )
    rated = at_mixture(REPLICA, prices, mix.tokens)
    assert rated.tokens_per_s[0] / mix.tokens == pytest.approx(1 / seconds_step_by_step(mix, batch))


@pytest.mark.parametrize(("tokens", "steps"), [(8, 7), (1, 0), (0, 0)])
def test_of_a_request_as_its_user_waits_the_prefill_gives_the_first_token(tokens: int, steps: int) -> None:
    mix = Mix(name="a", prompt_tokens=16, output_tokens=tokens)
    found = split(dataclasses.replace(REPLICA, by_request=True), times(), mix)
    assert (found.prefill_s + found.decode_s)[0] == pytest.approx(seconds_step_by_step(mix, 1, steps=steps))


def test_outside_the_measured_range_nothing_is_told_unless_it_is_asked_for_and_then_labelled() -> None:
    far = Mix(name="far", prompt_tokens=300, output_tokens=10)
    found = split(REPLICA, times(tokens=(10, 200)), far)
    assert found.status == "not_possible" and np.isnan(found.prefill_s)
    assert found.why is not None and "prefill measured 10 to 200" in found.why
    asked = split(REPLICA, times(tokens=(10, 200)), far, extrapolate=True)
    assert asked.status == "extrapolated" and np.isfinite(asked.prefill_s) and asked.why == found.why


def test_a_decode_that_runs_out_of_the_measured_range_is_outside() -> None:
    long = Mix(name="long", prompt_tokens=100, output_tokens=122)
    assert split(REPLICA, times(tokens=(10, 200)), long).status == "not_possible"
    assert split(REPLICA, times(tokens=(10, 202)), long).status == "derived"


def test_a_request_longer_than_the_models_context_is_outside() -> None:
    replica = dataclasses.replace(REPLICA, context_tokens=100)
    found = split(replica, times(), Mix(name="a", prompt_tokens=90, output_tokens=11))
    assert found.status == "not_possible" and found.why == "101 tokens, the model's context is 100"


@pytest.mark.parametrize("extrapolate", [False, True])
def test_doubted_prefill_times_are_never_priced(extrapolate: bool) -> None:
    replica = dataclasses.replace(REPLICA, suspect_prefill="prompt cache suspected")
    found = split(replica, times(), Mix(name="a", prompt_tokens=9, output_tokens=9), extrapolate=extrapolate)
    assert found.status == "not_possible" and "prompt cache suspected" in str(found.why)


def test_a_run_without_a_step_time_model_says_so() -> None:
    found = split(REPLICA, {}, Mix(name="a", prompt_tokens=9, output_tokens=9), extrapolate=True)
    assert found.status == "not_possible" and "step-time model" in str(found.why)


def test_one_kind_that_is_not_measured_leaves_the_mixture_without_a_price() -> None:
    mixes = [
        Mix(name="in", prompt_tokens=20, output_tokens=5, share=3),
        Mix(name="out", prompt_tokens=999, output_tokens=5),
    ]
    prices = token_prices(mixes, [split(REPLICA, times(tokens=(10, 200)), mix) for mix in mixes], 1.0)
    assert prices.status == "not_possible" and np.isnan(prices.usd_per_1m_input)
    assert prices.why is not None and prices.why.startswith("25.0% of requests, such as out")


def test_noise_of_both_phases_reaches_the_price() -> None:
    noise = same_draws(1.0, np.linspace(0.9, 1.1, 201))
    replica = dataclasses.replace(REPLICA, prefill_factor=noise, decode_factor=noise)
    found = split(replica, times(), Mix(name="a", prompt_tokens=50, output_tokens=50))
    assert np.ptp(found.prefill_s) / found.prefill_s[0] == pytest.approx(0.2)
    assert np.ptp(found.decode_s) / found.decode_s[0] == pytest.approx(0.2)


def test_a_length_within_a_tenth_of_a_measured_one_is_measured() -> None:
    assert split(REPLICA, times(tokens=(309, 409)), Mix(name="a", prompt_tokens=300, output_tokens=100)).why is None
    assert split(REPLICA, times(tokens=(340, 440)), Mix(name="a", prompt_tokens=300, output_tokens=100)).why is not None


def test_extrapolation_ends_at_the_models_context() -> None:
    replica = dataclasses.replace(REPLICA, context_tokens=100)
    found = split(replica, times(), Mix(name="a", prompt_tokens=90, output_tokens=11), extrapolate=True)
    assert found.status == "not_possible" and np.isnan(found.prefill_s)
