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
from phaselaw.engines.llamacpp_process import find_server
from phaselaw.errors import EngineError
from phaselaw.ladder.build import CACHE_VARIABLE
from phaselaw.ladder.spec import LADDER
from phaselaw.records import Request, Timing
from phaselaw.study import HfBackend, LlamacppBackend, ModelEntry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_server(None) is None, reason="no llama-server here: install phaselaw[llamacpp]"),
]

EXACT = LlamacppBackend(name="f32", kind="llamacpp", weights="f32", kv_cache="f32", flash_attention=False, threads=1)
STEPS = 64


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model cache for one test, emptied after it: the ladder and its GGUF files are 2.4 GB together."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    yield tmp_path
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        file.unlink()


def asked(prompt_tokens: int = 9) -> Request:
    return Request(
        prompt=None, prompt_tokens=prompt_tokens, gen_tokens=STEPS, batch_size=1, study_seed=42, seed=1, round=0
    )


def by_llamacpp(name: str, backend: LlamacppBackend, *prompts: int) -> list[Timing]:
    engine = llamacpp.create(backend)
    try:
        model = engine.load(ModelEntry(name=name, kind="llamacpp"))
        return [model.generate(asked(prompt)) for prompt in prompts]
    finally:
        engine.close()


# Of the 18 cases of six models and prompts of 1, 9 and 17 tokens, two are left out: gpt2-75m at 9 and gpt2-5m at 17
# tokens, where the two best logits come within 0.002 and 0.036 of their standard deviation, and llama.cpp, whose GELU
# goes through a table in half precision, decides the other way.
PROMPTS = {"gpt2-5m": (1, 9), "gpt2-25m": (1, 9), "gpt2-45m": (1, 17), "gpt2-50m": (1, 9), "gpt2-75m": (1, 17),
           "gpt2-100m": (1, 9)}  # fmt: skip


def test_six_models_of_the_ladder_allow_it() -> None:
    assert PROMPTS.keys() == {model.name for model in LADDER} - {"tiny-gpt2"}


@pytest.mark.parametrize("name", PROMPTS)
def test_greedy_tokens_of_64_steps_equal_those_of_transformers(name: str, own_cache: Path) -> None:
    assert own_cache.is_dir()
    pytest.importorskip("torch")
    model = hf.create(HfBackend(name="h", kind="hf")).load(ModelEntry(name=f"models/{name}", kind="hf"))
    expected = [model.generate(asked(prompt)) for prompt in PROMPTS[name]]
    model.close()
    found = by_llamacpp(f"models/{name}", EXACT, *PROMPTS[name])
    assert [(each.prompt_tokens, each.gen_tokens_raw) for each in found] == [(n, STEPS) for n in PROMPTS[name]]
    assert [each.output_sha256 for each in found] == [each.output_sha256 for each in expected]
    assert len({each.output_sha256 for each in found} - {None}) == 2


def test_the_fingerprint_is_of_the_token_ids_themselves(own_cache: Path) -> None:
    # So that equal fingerprints are equal tokens: these are read from the server once more and hashed here.
    from phaselaw.engines.http_client import HttpClient
    from phaselaw.engines.prompts import token_ids

    assert own_cache.is_dir()
    engine = llamacpp.create(EXACT)
    try:
        model = engine.load(ModelEntry(name="models/gpt2-5m", kind="llamacpp"))
        timing = model.generate(asked())
        said = HttpClient(model._api.url).json("POST", "/completion", {
            "prompt": token_ids(9, 42, 50257), "n_predict": STEPS, "temperature": 0, "ignore_eos": True,
            "cache_prompt": False, "return_tokens": True,
        })  # fmt: skip
    finally:
        engine.close()
    assert len(said["tokens"]) == STEPS
    assert timing.output_sha256 == hashlib.sha256(struct.pack(f"<{STEPS}q", *said["tokens"])).hexdigest()


def test_tiny_gpt2_runs_by_default_and_with_flash_attention_off_fails_in_one_line(own_cache: Path) -> None:
    assert own_cache.is_dir()
    default = LlamacppBackend(name="default", kind="llamacpp")
    assert by_llamacpp("models/tiny-gpt2", default, 9)[0].gen_tokens_raw == STEPS
    with pytest.raises(EngineError) as caught:
        by_llamacpp("models/tiny-gpt2", EXACT, 9)
    assert caught.value.kind in {"start", "server_died"}
    assert "llama-server ended with exit code" in str(caught.value) and "\n" not in str(caught.value)
