"""Traffic, work and memory of a transformer: closed forms, counted by hand, and how they grow."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.machine.footprint import Architecture, decode_step, memory, prefill
from phaselaw.machine.model_config import Cached

GPT2 = Architecture(
    params=124_439_808, weights_bytes=4 * 124_439_808, n_layer=12, n_embd=768, n_head=12, head_dim=64,
    cache=(Cached(12, 2 * 768),),
    n_inner=3072, vocab_size=50257, n_positions=1024, lookup_params=1024 * 768, lookup_bytes=4 * 1024 * 768,
)  # fmt: skip
"""GPT-2 small in fp32, its output tied to its token embedding."""

shapes = st.builds(
    lambda layers, heads, groups, dim, inner, vocab: Architecture(
        params=layers * (4 * (heads * dim) ** 2 + 2 * heads * dim * inner) + vocab * heads * dim,
        weights_bytes=2 * (layers * (4 * (heads * dim) ** 2 + 2 * heads * dim * inner) + vocab * heads * dim),
        n_layer=layers, n_embd=heads * dim, n_head=heads, head_dim=dim,
        cache=(Cached(layers, 2 * max(1, heads // groups) * dim),),
        n_inner=inner, vocab_size=vocab,
    ),
    st.integers(1, 80), st.integers(1, 64), st.integers(1, 8), st.integers(1, 128), st.integers(1, 20_000),
    st.integers(10, 200_000),
)  # fmt: skip


def test_a_token_caches_a_key_and_a_value_a_layer() -> None:
    assert GPT2.cache_bytes(1, 4) == 2 * 12 * 768 * 4


def test_fewer_kv_heads_cache_less_in_proportion() -> None:
    facts = {"params_millions_measured": 5.0, "weights_bytes": 2e7, "n_layer": 12, "n_embd": 768, "n_head": 12,
             "vocab_size": 50257}  # fmt: skip
    full, grouped = Architecture.of(facts), Architecture.of(facts | {"n_kv_head": 3})
    assert full and grouped
    assert grouped.cache_bytes(7, 2) == full.cache_bytes(7, 2) / 4


def test_a_decode_step_reads_all_weights_but_the_positions_and_each_cached_token() -> None:
    step = decode_step(GPT2, batch=1, context=100, kv_bytes=4)
    assert step.bytes == 4 * (124_439_808 - 1024 * 768) + 101 * 73_728


def test_a_decode_step_is_two_operations_a_parameter_and_four_a_cached_token_and_width() -> None:
    step = decode_step(GPT2, batch=1, context=100, kv_bytes=4)
    assert step.flops == 2 * (124_439_808 - 1024 * 768) + 4 * 12 * 768 * 100


def test_an_untied_embedding_is_looked_up_and_its_output_projection_read() -> None:
    embedding = 50257 * 768
    untied = dataclasses.replace(
        GPT2, params=GPT2.params + embedding, weights_bytes=GPT2.weights_bytes + 4 * embedding,
        lookup_params=GPT2.lookup_params + embedding, lookup_bytes=GPT2.lookup_bytes + 4 * embedding,
    )  # fmt: skip
    for model in (GPT2, untied):
        assert decode_step(model, batch=1, context=1, kv_bytes=4) == decode_step(GPT2, batch=1, context=1, kv_bytes=4)


def test_a_prefill_of_one_token_computes_what_a_decode_step_of_one_token_does() -> None:
    assert prefill(GPT2, batch=3, prompt=1, kv_bytes=4).flops == decode_step(GPT2, batch=3, context=1, kv_bytes=4).flops


@given(shapes, st.integers(1, 64), st.integers(1, 4096))
def test_a_batch_shares_the_weights_and_nothing_else(model: Architecture, batch: int, context: int) -> None:
    one, many = (decode_step(model, batch=each, context=context, kv_bytes=2) for each in (1, batch))
    assert many.flops == pytest.approx(batch * one.flops)
    cache = one.bytes - model.weights_bytes
    assert many.bytes == pytest.approx(model.weights_bytes + batch * cache)


@given(shapes, st.integers(1, 512))
def test_a_prefill_does_the_work_of_its_tokens_one_by_one_less_the_logits_that_no_one_asks_for(
    model: Architecture, prompt: int
) -> None:
    steps = sum(decode_step(model, batch=1, context=at, kv_bytes=2).flops for at in range(1, prompt + 1))
    whole = prefill(model, batch=1, prompt=prompt, kv_bytes=2).flops
    assert whole == pytest.approx(steps - 2 * model.head_params * (prompt - 1), rel=1e-9)


def test_the_shape_is_read_from_a_models_facts_with_what_is_absent_filled_in() -> None:
    facts = {"params_millions_measured": 5.0, "weights_bytes": 20_000_000, "n_layer": 12, "n_embd": 80, "n_head": 2,
             "vocab_size": 50257, "n_inner": None, "n_positions": 1024.0}  # fmt: skip
    model = Architecture.of(facts)
    assert model is not None
    assert (model.cache, model.head_dim, model.n_inner, model.lookup_params) == ((Cached(12, 160),), 40, 320, 0)


@pytest.mark.parametrize("absent", ["params_millions_measured", "weights_bytes", "n_layer", "n_head", "vocab_size"])
def test_without_the_shape_there_is_no_footprint(absent: str) -> None:
    facts = {"params_millions_measured": 5.0, "weights_bytes": 2e7, "n_layer": 12, "n_embd": 80, "n_head": 2,
             "vocab_size": 50257}  # fmt: skip
    assert Architecture.of(facts) is not None
    assert Architecture.of(facts | {absent: None}) is None


MIXTURE = dataclasses.replace(GPT2, n_experts=8, n_experts_used=2, expert_params=80e6, expert_bytes=320e6)


def test_of_a_mixture_a_token_needs_the_experts_that_it_is_sent_to() -> None:
    assert MIXTURE.active_params == GPT2.params - 60e6
    assert MIXTURE.read_bytes() == GPT2.read_bytes() - 240e6
    assert MIXTURE.not_known is None


def test_a_batch_reads_more_experts_and_a_long_prompt_all() -> None:
    assert MIXTURE.read_bytes(2) == pytest.approx(GPT2.read_bytes() - 320e6 * (3 / 4) ** 2)
    assert MIXTURE.read_bytes(500) == pytest.approx(GPT2.read_bytes())


def test_of_a_mixture_whose_experts_are_not_sized_it_is_not_known_what_a_token_reads() -> None:
    assert "mixture of experts" in str(dataclasses.replace(MIXTURE, expert_params=0).not_known)


def test_a_window_bounds_what_is_cached_and_what_is_attended_to() -> None:
    slid = dataclasses.replace(GPT2, cache=(Cached(10, 1536, 16), Cached(2, 1536)))
    assert slid.cache_bytes(100, 4) == 4 * 1536 * (10 * 16 + 2 * 100)
    flops = decode_step(slid, batch=1, context=100, kv_bytes=4).flops
    assert flops == 2 * (124_439_808 - 1024 * 768) + 4 * 768 * (10 * 16 + 2 * 100)


def test_a_state_is_of_one_size_whatever_the_tokens_and_wide_where_it_is_kept_so() -> None:
    states = dataclasses.replace(GPT2, cache=(Cached(3, 100, 0), Cached(3, 50, 0, True)))
    assert states.cache_bytes(1, 2) == states.cache_bytes(1000, 2) == 3 * 100 * 2 + 3 * 50 * 4


def test_a_cache_that_is_not_known_is_never_guessed() -> None:
    unknown = dataclasses.replace(GPT2, cache="its layers are odd")
    assert "its layers are odd" in str(unknown.not_known)
    with pytest.raises(ValueError, match="its layers are odd"):
        memory(unknown, batch=1, context=1, prompt=1, value_bytes=2, kv_bytes=2)


def test_logits_of_all_positions_take_the_work_and_the_memory_of_each() -> None:
    last, whole = (prefill(GPT2, batch=1, prompt=10, kv_bytes=4, all_logits=each).flops for each in (False, True))
    assert whole - last == 9 * 2 * 50257 * 768
    sizes = {"batch": 2, "context": 10, "prompt": 10, "value_bytes": 4, "kv_bytes": 4}
    last, whole = (memory(GPT2, **sizes, all_logits=each).activations for each in (False, True))
    assert whole - last == 2 * 9 * 50257 * 4


def test_memory_is_weights_cache_and_the_widest_moment_of_the_prefill() -> None:
    held = memory(GPT2, batch=2, context=128, prompt=100, value_bytes=4, kv_bytes=4)
    assert held.weights == GPT2.weights_bytes
    assert held.kv_cache == 2 * 128 * 73_728
    assert held.activations == 2 * 100 * 4 * (2 * 768 + 4 * 3072) + 2 * 50257 * 4
    assert held.total == held.weights + held.kv_cache + held.activations


@given(shapes, st.integers(1, 64), st.integers(1, 4096))
def test_memory_grows_with_batch_and_context(model: Architecture, batch: int, context: int) -> None:
    def total(batch: int, context: int) -> float:
        return memory(model, batch=batch, context=context, prompt=context, value_bytes=2, kv_bytes=2).total

    assert total(batch, context) < total(batch + 1, context)
    assert total(batch, context) < total(batch, context + 1)
