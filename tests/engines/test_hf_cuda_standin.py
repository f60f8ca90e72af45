"""What the engine asks of CUDA, on a machine without one: torch.cuda is a stand-in that writes down what it is asked.

It shows order and number of the requests, never a time; the tests marked gpu show the rest.
"""

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from phaselaw.engines import hf, hf_model
from phaselaw.engines.hf_model import CudaClock
from phaselaw.errors import EngineError
from phaselaw.records import Request
from phaselaw.study.model import HfBackend, ModelEntry

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
TorchDispatchMode = pytest.importorskip("torch.utils._python_dispatch").TorchDispatchMode
pytestmark = pytest.mark.usefixtures("ladder_cache")


def load(dtype: str = "fp32") -> Any:
    return hf.create(HfBackend(name="b", kind="hf", dtype=dtype)).load(ModelEntry(name="models/tiny-gpt2", kind="hf"))


def ask(gen_tokens: int) -> Request:
    return Request(prompt=None, prompt_tokens=5, gen_tokens=gen_tokens, batch_size=2, study_seed=1, seed=1, round=0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stand-in was asked, in order. An event's time is the number of events recorded before it, in ms."""
    log: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None:  # noqa: ARG002
            log.append("record")
            self.at = log.count("record")

        def elapsed_time(self, later: "Event") -> float:
            log.append("elapsed")
            return float(later.at - self.at)

    def noted(name: str, answer: Any = None) -> Any:
        return lambda *_: log.append(name) or answer

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", noted("stream"))
    monkeypatch.setattr(torch.cuda, "synchronize", noted("synchronize"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", noted("reset peak"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", noted("peak", 3 << 20))
    return log


@pytest.fixture
def loaded(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model on the CPU under the clock of a CUDA device, whose forward passes are written down as well."""
    model = load()
    model._clock = CudaClock(torch.device("cuda:0"))
    forward = model._weights.forward

    def noted(**arguments: Any) -> Any:
        asked.append("forward")
        return forward(**arguments)

    monkeypatch.setattr(model._weights, "forward", noted)
    return model


def test_each_reading_waits_once_and_nothing_waits_inside_a_phase(asked: list[str], loaded: Any) -> None:
    loaded.generate(ask(gen_tokens=3))  # the first call makes its events
    asked.clear()
    loaded.generate(ask(gen_tokens=3))
    prefill = ["synchronize", "record", "forward", "record", "synchronize"]
    decode = ["record", *["forward", "record"] * 3, "synchronize"]
    assert asked[: asked.index("elapsed")] == ["stream", "reset peak", *prefill, *decode]


def test_events_are_made_before_the_clock_is_read_and_used_again(asked: list[str], loaded: Any) -> None:
    loaded.generate(ask(gen_tokens=3))
    assert asked[: asked.index("synchronize")] == ["stream", *["record"] * 6, "reset peak"]
    asked.clear()
    loaded.generate(ask(gen_tokens=1))
    assert asked[: asked.index("synchronize")] == ["stream", "reset peak"]


def test_each_phase_has_its_own_events_and_the_peak_is_this_calls(asked: list[str], loaded: Any) -> None:
    timing = loaded.generate(ask(gen_tokens=4))
    assert timing.prefill_cuda_event_ms == 1.0
    assert timing.kv_decode_cuda_event_ms == 4.0
    assert timing.decode_steps_ms == (1.0,) * 4
    assert timing.gpu_peak_mb == 3.0
    assert asked.count("reset peak") == asked.count("peak") == 1


def small(family: str) -> Any:
    """A model without values, on torch's device meta."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        if family == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2)).eval()
        else:
            sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
            model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)).eval()
    model.config.pad_token_id = None
    return model


class Moves(TorchDispatchMode):
    """Writes down each operator that brings a tensor from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operator(*args, **(kwargs or {}))
        given = {each.device for each in args if isinstance(each, torch.Tensor)}
        if isinstance(made, torch.Tensor) and given - {made.device}:
            self.seen.append(str(operator))
        return made


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_no_step_reads_the_device_back_or_sends_it_anything(family: str) -> None:
    """A stand-in for a device: tensors without values, of which nothing can be read, so that a read-back fails."""
    reads: list[str] = []
    bare = hf_model.HfModel.__new__(hf_model.HfModel)
    bare._weights, bare._memory, bare._prefill_more = small(family), hf_model.PeakMemory(), {"logits_to_keep": 1}
    bare._cache, bare.compiled = "past_key_values", None
    bare._clock = SimpleNamespace(
        prepare=lambda **_: None, mark=lambda: reads.append("mark"), read_ns=lambda: reads.append("read") or 0
    )
    prompt = torch.zeros(2, 5, dtype=torch.long, device="meta")
    with Moves() as moves, pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        bare._timed(hf_model.Batch(prompt, 10), 3)  # it fails where the tokens are read, after both phases
    assert reads == ["read", "mark", "mark", "read", "mark", "mark", "mark", "mark", "read"]
    assert moves.seen == []


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_number_format_is_that_of_the_parameters(dtype: str) -> None:
    assert load(dtype).info.dtype == hf_model.TORCH_DTYPES[dtype]


def test_weights_in_another_format_than_asked_for_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = hf_model._weights
    monkeypatch.setattr(hf_model, "_weights", lambda source, backend: deepcopy(kept(source, backend)).double())
    with pytest.raises(EngineError, match="fp32 was asked for, float64 came") as error:
        load()
    assert error.value.kind == "dtype"


def test_a_few_parameters_in_a_wider_format_are_the_librarys_own() -> None:
    few, many = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(100, dtype=torch.bfloat16))
    assert hf_model._dtype_in_use([few, many]) == "bfloat16"


def test_on_cuda_the_manifest_states_tf32_and_the_memory_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "stand-in")
    sizes = {"cuda:1": SimpleNamespace(total_memory=6 << 30)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", sizes.__getitem__)
    settings = hf.create(HfBackend(name="b", kind="hf", device="cuda:1")).describe().settings
    assert settings["tf32_in_matrix_products"] is False
    assert settings["device_memory_mb"] == 6 * 1024.0
