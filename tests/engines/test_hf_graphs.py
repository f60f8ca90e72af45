"""CUDA graphs as a backend's setting: the same tokens, and proof that they engaged, or an error."""

from types import SimpleNamespace
from typing import Any

import pytest

from phaselaw.engines import hf, hf_model
from phaselaw.errors import EngineError
from phaselaw.measure.begin import lacks
from phaselaw.records import Request
from phaselaw.study.model import HfBackend, ModelEntry, Study

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("ladder_cache")
TINY = ModelEntry(name="models/tiny-gpt2", kind="hf")
SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
         "pad_token_id": None, "initializer_range": 0.3}  # fmt: skip


def ask(prompt_tokens: int = 7, gen_tokens: int = 6) -> Request:
    asked = {"prompt_tokens": prompt_tokens, "gen_tokens": gen_tokens, "batch_size": 2, "study_seed": 3, "seed": 1}
    return Request(prompt=None, round=0, **asked)


def on(device: str, execution: str = "cuda_graph") -> HfBackend:
    return HfBackend(name="x", kind="hf", threads=1, device=device, execution=execution)


class OnTheCpu(hf_model.Captured):
    """A stand-in for the capture: what is replayed is the step itself, on the tensors that stay in place."""

    def _captured(self, batch: hf_model.Batch, length: int) -> tuple[Any, ...]:
        cache = transformers.StaticCache(config=self._weights.config, max_cache_len=length)
        token, output = batch.ids[:, :1].clone(), {}

        def replay() -> None:
            step = self._weights(input_ids=token, past_key_values=cache, use_cache=True)
            output.update(logits=step.logits, past_key_values=step.past_key_values)

        return cache, token, Output(output), SimpleNamespace(replay=replay)


class Output:
    """What a model gives, by key and by name."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    @property
    def logits(self) -> Any:
        return self._values["logits"]


@pytest.fixture
def loaded() -> Any:
    model = hf.create(on("cpu", "eager")).load(TINY)
    model.compiled = OnTheCpu(model._weights)
    return model


def test_each_step_is_a_replay_and_a_shape_is_captured_once(loaded: Any) -> None:
    expected = hf.create(on("cpu", "eager")).load(TINY).generate(ask()).output_sha256
    assert [loaded.generate(ask()).output_sha256 for _ in range(2)] == [expected] * 2
    assert (loaded.compiled.graphs, loaded.compiled.ran) == (1, 12)
    loaded.generate(ask(prompt_tokens=8))
    assert (loaded.compiled.graphs, loaded.compiled.ran) == (2, 18)


def test_a_step_that_is_no_replay_is_an_error(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = loaded._weights
    monkeypatch.setattr(OnTheCpu, "__call__", lambda _, **given: weights(**given))
    with pytest.raises(EngineError, match="CUDA graphs did not engage: 0 graphs ran in 6 passes") as error:
        loaded.generate(ask())
    assert error.value.kind == "not_captured"


def test_replays_that_launch_no_graph_are_an_error_whatever_they_are_called(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISABLE_CUPTI_LAZY_REINIT", "TEARDOWN_CUPTI"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(EngineError, match="CUDA graphs did not engage: 0 were launched in 8 steps") as error:
        _ = loaded.launches
    assert error.value.kind == "not_captured"


def test_a_window_that_fills_and_a_padded_batch_cannot_be_captured() -> None:
    config = transformers.MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8)
    captured = hf_model.Captured(transformers.MistralForCausalLM(config).eval())
    with pytest.raises(EngineError, match="prompts of one length and no windows"):
        captured.prepare(hf_model.Batch(torch.ones(1, 4, dtype=torch.long), 4), 6)
    weights = hf.create(on("cpu", "eager")).load(TINY)._weights
    padded = hf_model.Batch(torch.ones(1, 4, dtype=torch.long), 3, torch.tensor([[0, 1, 1, 1]]))
    with pytest.raises(EngineError, match="prompts of one length and no windows"):
        hf_model.Captured(weights).prepare(padded, 6)


def test_on_another_device_it_is_refused_with_what_it_needs() -> None:
    with pytest.raises(EngineError, match="cuda_graph needs an NVIDIA GPU and device: cuda"):
        hf.create(on("cpu")).load(TINY)
    study = {"run_name": "x", "scenarios": [{"name": "s", "prompt_tokens": 3}], "models": [TINY.model_dump()],
             "backends": [on("cpu").model_dump()]}  # fmt: skip
    [lack] = lacks(Study.model_validate(study))
    assert "needs an NVIDIA GPU" in lack.what


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
def test_on_cuda_steps_are_graphs_by_the_profilers_count_and_tokens_are_the_same() -> None:
    """Not run where this was written: no CUDA device was at hand."""
    engine = hf.create(on("cuda"))
    loaded = engine.load(TINY)
    launches = engine.describe().settings["launches"][TINY.name]
    assert launches["graphs"] >= launches["steps"] > 0
    expected = hf.create(on("cuda", "eager")).load(TINY).generate(ask()).output_sha256
    assert [loaded.generate(ask()).output_sha256 for _ in range(2)] == [expected] * 2
    assert loaded.compiled.graphs >= 2
