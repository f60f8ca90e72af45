"""The served engines against a real llama.cpp server with a real small model: real durations, a real prompt cache."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_server import MODEL, llama_server, ollama_front
from scripted_server import scripted

from phaselaw.engines import ollama, openai
from phaselaw.engines.prompts import Nonces
from phaselaw.records import Request, Timing
from phaselaw.study.model import ModelEntry, OllamaBackend, OpenaiBackend

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llama_server() as url:
        yield url


def ask(
    rep: int, *, prompt: str = "Explain the difference between latency and throughput.", gen_tokens: int = 24
) -> Request:
    return Request(
        prompt=prompt, prompt_tokens=None, gen_tokens=gen_tokens, batch_size=1, study_seed=42, seed=1, round=rep
    )


def agree(timings: list[Timing]) -> None:
    """Both clocks say the same of the call that a busy machine disturbed the least."""
    served = [timing.served for timing in timings if timing.served is not None]
    assert min(abs(each.decode_step_ms_server / each.decode_step_ms_client - 1) for each in served) < 0.03


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_openai_engine_agrees_with_the_servers_own_clock(server: str, api: Any) -> None:
    engine = openai.create(OpenaiBackend(name="o", kind="openai", url=server, api=api))
    model = engine.load(ModelEntry(name="smollm2", kind="openai"))
    timings = [model.generate(ask(rep)) for rep in range(3)]
    for timing in timings:
        assert (timing.gen_tokens_raw, timing.done_reason) == (24, "length")
        assert timing.served is not None and timing.served.cache_check == "fresh"
        assert timing.prompt_tokens >= 11
    agree(timings)


@pytest.fixture(scope="module")
def model(server: str) -> Iterator[ollama.OllamaModel]:
    """One for all tests: the probe of the server's cache, before its first call, takes longest."""
    with scripted(ollama_front(server)) as url:
        engine = ollama.create(OllamaBackend(name="o", kind="ollama", url=url))
        yield engine.load(ModelEntry(name=MODEL, kind="ollama"))


def test_the_ollama_engine_agrees_and_its_nonces_keep_the_cache_out(model: ollama.OllamaModel) -> None:
    # So long that a fresh prefill takes many times what a repeated one does, on a busy machine, too.
    prompt = "Explain the difference between latency and throughput. " * 6
    timings = [model.generate(ask(rep, prompt=prompt)) for rep in range(4)]
    assert model.probe is not None and model.probe["verdict"] == "found", "the server behind it remembers prompts"
    assert model.info.params_millions_measured == pytest.approx(134.52)
    served = [timing.served for timing in timings if timing.served is not None]
    assert [each.cache_check for each in served] == ["fresh"] * 4, [each.cache_reason for each in served]
    agree(timings)


def test_a_repeated_prompt_is_found_answered_from_the_cache(
    model: ollama.OllamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "Explain the difference between latency and throughput in simple terms for engineers. " * 12
    model.generate(ask(0, prompt=prompt, gen_tokens=2))
    monkeypatch.setattr(model, "_nonces", Nonces())
    model._nonces._left = ["Same"]
    first = model.generate(ask(1, prompt=prompt, gen_tokens=2)).served
    model._nonces._left = ["Same", "More"]
    again = model.generate(ask(2, prompt=prompt, gen_tokens=2)).served
    assert first is not None and again is not None
    assert (first.cache_check, again.cache_check) == ("fresh", "found"), (first.cache_reason, again.cache_reason)
    assert set(again.faults) == {"prefill", "e2e_kv"}
