"""torch.compile as a backend's setting: the same tokens, and proof that it engaged, or an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from phaselaw.engines import hf, hf_model
from phaselaw.errors import EngineError
from phaselaw.records import Request
from phaselaw.study.model import HfBackend, ModelEntry

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("ladder_cache")
TINY = ModelEntry(name="models/tiny-gpt2", kind="hf")
REQUEST = Request(prompt=None, prompt_tokens=7, gen_tokens=6, batch_size=1, study_seed=3, seed=1, round=0)


@pytest.fixture(scope="module", autouse=True)
def quick_compiler() -> Iterator[None]:
    """Graphs are captured as ever, and run as they are: inductor takes half a minute for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_model, "COMPILER", "eager")
        yield


def engine(execution: str) -> hf.HfEngine:
    return hf.create(HfBackend(name="x", kind="hf", threads=1, execution=execution))


@pytest.fixture(scope="module")
def compiled(ladder_cache: Path) -> hf.HfEngine:
    assert ladder_cache.is_dir()
    return engine("compile")


@pytest.fixture(scope="module")
def loaded(compiled: hf.HfEngine) -> "hf_model.HfModel":
    return compiled.load(TINY)


def test_a_compiled_model_gives_the_same_tokens_and_says_what_was_compiled(compiled, loaded) -> None:
    assert loaded.generate(REQUEST).output_sha256 == engine("eager").load(TINY).generate(REQUEST).output_sha256
    settings = compiled.describe().settings
    assert settings["execution"] == "compile"
    assert settings["compiled_graphs"][TINY.name] >= 2, "a prefill and a step"
    before = loaded.compiled.ran
    loaded.generate(REQUEST)
    assert loaded.compiled.ran - before >= 7, "each pass ran a compiled graph"


def test_what_did_not_engage_is_an_error_not_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    with pytest.raises(EngineError, match=r"torch\.compile did not engage: 0 graphs ran in 9 passes") as error:
        engine("compile").load(TINY)
    assert error.value.kind == "not_compiled"


def test_a_model_that_falls_back_in_a_call_is_an_error_of_that_call(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded.compiled, "_forward", loaded._weights.forward)
    with pytest.raises(EngineError, match="0 graphs ran in 7 passes"):
        loaded.generate(REQUEST)
