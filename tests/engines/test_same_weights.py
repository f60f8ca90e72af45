"""The same weights on transformers and on a real llama-server: 64 greedy tokens, equal on the six models that allow it.

llama.cpp in float32 with the KV cache in float32 and flash attention off, as transformers computes. The seventh model,
tiny-gpt2, has heads of one value: with flash attention off llama.cpp aborts on it, which is held here too.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from phaselaw.engines import hf, llamacpp
from phaselaw.engines.http_client import HttpClient
from phaselaw.engines.llamacpp import GREEDY, LlamacppModel
from phaselaw.engines.llamacpp_process import find_server
from phaselaw.engines.prompts import token_ids
from phaselaw.errors import EngineError
from phaselaw.files import CACHE_VARIABLE
from phaselaw.ladder.build import cache_directory
from phaselaw.ladder.spec import LADDER, VOCAB_SIZE
from phaselaw.records import Request, Timing
from phaselaw.study.model import HfBackend, LlamacppBackend, ModelEntry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server(None) is None, reason="no llama-server here: install phaselaw[llamacpp]"),
]

EXACT = LlamacppBackend(name="f32", kind="llamacpp", weights="f32", kv_cache="f32", flash_attention=False, threads=1)
STEPS = 64
PROMPTS = {"gpt2-5m": (1, 9, 17), "gpt2-25m": (1, 9, 17)}
"""Prompt lengths; one for each of the larger models, whose steps take longest. The first is a measured call's."""
SIX = [model.name for model in LADDER if model.name != "tiny-gpt2"]


@pytest.fixture
def own_cache(tmp_path: Path, ladder_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache for one test's GGUF files, emptied after it: they are 1.2 GB together. The models are all tests'."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    cache_directory().symlink_to(ladder_cache)
    yield tmp_path
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        file.unlink()


def asked(prompt_tokens: int) -> Request:
    return Request(
        prompt=None, prompt_tokens=prompt_tokens, gen_tokens=STEPS, batch_size=1, study_seed=42, seed=1, round=0
    )


def tokens_of(model: LlamacppModel, prompt_tokens: int) -> list[int]:
    """The ids that the server generates, asked for whole: a stream lacks those of text that it holds back."""
    said = HttpClient(model.server.base_url).json("POST", "/completion", {
        "prompt": token_ids(prompt_tokens, 42, VOCAB_SIZE), "n_predict": STEPS, "ignore_eos": True,
        "cache_prompt": False, "return_tokens": True, **GREEDY,
    })  # fmt: skip
    tokens: list[int] = said["tokens"]
    return tokens


def fingerprint(tokens: list[int]) -> str:
    return hashlib.sha256(struct.pack(f"<{len(tokens)}q", *tokens)).hexdigest()


def test_six_models_of_the_ladder_allow_it() -> None:
    assert len(SIX) == 6


@pytest.mark.parametrize("name", SIX)
def test_greedy_tokens_of_64_steps_equal_those_of_transformers(name: str, own_cache: Path) -> None:
    assert own_cache.is_dir()
    pytest.importorskip("torch")
    reference = hf.create(HfBackend(name="h", kind="hf", threads=1)).load(ModelEntry(name=f"models/{name}", kind="hf"))
    prompts = PROMPTS.get(name, (9,))
    expected = [reference.generate(asked(prompt)).output_sha256 for prompt in prompts]
    reference.close()
    engine = llamacpp.create(EXACT)
    try:
        model = engine.load(ModelEntry(name=f"models/{name}", kind="llamacpp"))
        measured = model.generate(asked(prompts[0]))
        found = [tokens_of(model, prompt) for prompt in prompts[1:]]
    finally:
        engine.close()
    assert [measured.gen_tokens_raw, *map(len, found)] == [STEPS] * len(prompts)
    assert [measured.output_sha256, *map(fingerprint, found)] == expected


def called(backend: LlamacppBackend) -> Timing:
    """One call of tiny-gpt2."""
    engine = llamacpp.create(backend)
    try:
        return engine.load(ModelEntry(name="models/tiny-gpt2", kind="llamacpp")).generate(asked(9))
    finally:
        engine.close()


def test_tiny_gpt2_runs_by_default_and_with_flash_attention_off_fails_in_one_line(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_cache.is_dir()
    monkeypatch.setenv("GGML_NO_BACKTRACE", "1")  # by gdb, where there is one, which takes seconds
    default = LlamacppBackend(name="default", kind="llamacpp")
    assert called(default).gen_tokens_raw == STEPS
    with pytest.raises(EngineError) as caught:
        called(EXACT)
    assert caught.value.kind in {"start", "server_died"}
    assert "llama-server ended with exit code" in str(caught.value) and "\n" not in str(caught.value)
