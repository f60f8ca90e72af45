"""The engine hf: the same tokens as generate, phases timed whole, faults told in one line."""

import gc
import hashlib
import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from time import perf_counter, sleep

import pytest

from phaselaw.engines import hf
from phaselaw.errors import EngineError, MissingExtraError
from phaselaw.ladder.spec import LADDER
from phaselaw.machine.probe import TORCH_DTYPES
from phaselaw.records import Request
from phaselaw.study.model import HfBackend, ModelEntry

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MEDIUM = "Explain how backpressure works in an inference service and when to enable queueing."
pytestmark = pytest.mark.usefixtures("ladder_cache")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")


def backend(**settings) -> HfBackend:
    return HfBackend(**{"name": "hf_test", "kind": "hf", "threads": 2} | settings)


def model(name: str) -> ModelEntry:
    return ModelEntry(name=name, kind="hf")


def ask(prompt: str | None = MEDIUM, **settings) -> Request:
    defaults = {"prompt": prompt, "prompt_tokens": None, "gen_tokens": 8, "batch_size": 1}
    defaults |= {"study_seed": 42, "seed": 7, "round": 0}
    return Request(**defaults | settings)


def sha256_of(tokens) -> str:
    return hashlib.sha256(tokens.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def generated_by_the_library(directory: Path, prompt: str, *, batch: int, new: int, device: str = "cpu"):
    """The token ids that transformers' own greedy generate makes of a text, without the prompt's."""
    weights = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer([prompt] * batch, return_tensors="pt").to(device)
    output = weights.generate(
        **inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return output[:, inputs["input_ids"].shape[1] :]


@pytest.fixture(scope="module")
def engine():
    made = hf.create(backend())
    yield made
    made.close()


@pytest.fixture(scope="module")
def tiny(engine):
    return engine.load(model("models/tiny-gpt2"))


@pytest.fixture(scope="module")
def small(engine):
    return engine.load(model("models/gpt2-5m"))


@pytest.mark.parametrize(
    ("name", "prompt", "batch"),
    [(entry.name, MEDIUM, 2) for entry in LADDER] + [(entry.name, "Hello", 1) for entry in LADDER[:3]],
)
def test_greedy_tokens_equal_generates_for_every_model_of_the_ladder(
    ladder_cache: Path, name: str, prompt: str, batch: int
) -> None:
    loaded = hf.create(backend()).load(model(f"models/{name}"))
    timing = loaded.generate(ask(prompt, gen_tokens=12, batch_size=batch))
    expected = generated_by_the_library(ladder_cache / name, prompt, batch=batch, new=12)
    assert expected.shape == (batch, 12)
    assert timing.output_sha256 == sha256_of(expected)


def test_greedy_tokens_equal_generates_where_they_differ_from_step_to_step(tmp_path: Path, ladder_cache: Path) -> None:
    """The ladder repeats itself; a model with larger weights doesn't, so that a wrong position would show."""
    lively = tmp_path / "lively"
    shutil.copytree(ladder_cache / "gpt2-5m", lively)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=3, n_embd=48, n_head=3, n_positions=64, initializer_range=0.4, pad_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(lively)
    expected = generated_by_the_library(lively, MEDIUM, batch=2, new=24)
    assert len(set(expected[0].tolist())) > 10
    timing = hf.create(backend()).load(model(str(lively))).generate(ask(gen_tokens=24, batch_size=2))
    assert timing.output_sha256 == sha256_of(expected)


def test_a_timing_counts_prompt_tokens_and_steps(small) -> None:
    timing = small.generate(ask(gen_tokens=5, batch_size=3))
    assert (timing.prompt_tokens, timing.prompt_tokens_total, timing.gen_tokens_raw) == (17, 51, 5)
    assert timing.done_reason is None


def test_steps_add_up_to_the_decode_phase_and_phases_to_the_call(small) -> None:
    small.generate(ask(gen_tokens=16))
    begun = perf_counter()
    timing = small.generate(ask(gen_tokens=16))
    wall_ms = (perf_counter() - begun) * 1000
    assert len(timing.decode_steps_ms) == 16
    assert min(timing.decode_steps_ms) > 0
    assert sum(timing.decode_steps_ms) == pytest.approx(timing.kv_decode_ms, rel=0.01)
    assert 0.5 * wall_ms < timing.prefill_ms + timing.kv_decode_ms <= wall_ms


def test_each_step_runs_the_model_on_one_token_with_the_cache(small, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, cached = [], []
    forward = small._weights.forward

    def watched(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        past = kwargs.get("past_key_values")
        cached.append(0 if past is None else past.get_seq_length())
        assert torch.is_inference_mode_enabled()
        output = forward(*args, **kwargs)
        assert output.logits.shape[1] == 1, "the vocabulary projection of one position only"
        return output

    monkeypatch.setattr(small._weights, "forward", watched)
    small.generate(ask(gen_tokens=4, batch_size=2))
    assert shapes == [(2, 17), (2, 1), (2, 1), (2, 1), (2, 1)]
    assert cached == [0, 17, 18, 19, 20]


@pytest.mark.parametrize(("asked", "positions"), [("last", 1), ("all", 17)])
def test_a_prefill_computes_the_logits_that_are_asked_for(asked: str, positions: int, monkeypatch) -> None:
    engine = hf.create(backend(prefill_logits=asked))
    loaded = engine.load(model("models/tiny-gpt2"))
    forward, seen = loaded._weights.forward, []

    def watched(*args, **kwargs):
        output = forward(*args, **kwargs)
        seen.append(output.logits.shape[1])
        return output

    monkeypatch.setattr(loaded._weights, "forward", watched)
    loaded.generate(ask(gen_tokens=2))
    assert seen == [positions, 1, 1]
    assert engine.describe().settings["prefill_logits"] == asked


PROMPTS = ("Hello", MEDIUM, "Why?", "Summarize RLHF in one sentence.")


def test_a_batch_of_different_prompts_gives_each_its_own_tokens_and_counts_padding_apart(
    tmp_path: Path, ladder_cache: Path
) -> None:
    lively = tmp_path / "lively"
    shutil.copytree(ladder_cache / "gpt2-5m", lively)
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=3, n_embd=48, n_head=3, n_positions=64, initializer_range=0.4)
    ).save_pretrained(lively)
    loaded = hf.create(backend()).load(model(str(lively)))
    timing = loaded.generate(ask(None, prompts=PROMPTS, batch_size=4, gen_tokens=12))
    alone = torch.cat([generated_by_the_library(lively, each, batch=1, new=12) for each in PROMPTS])
    assert len({tuple(row) for row in alone.tolist()}) == 4
    assert timing.output_sha256 == sha256_of(alone)
    single = [loaded.generate(ask(each, gen_tokens=1)).prompt_tokens for each in PROMPTS]
    assert (timing.prompt_tokens, timing.prompt_tokens_total) == (max(single), sum(single))


def test_a_model_that_projects_every_position_is_named_in_the_settings(ladder_cache: Path, monkeypatch) -> None:
    expected = generated_by_the_library(ladder_cache / "tiny-gpt2", MEDIUM, batch=1, new=4)
    plain = transformers.GPT2LMHeadModel.forward

    def forward(self, input_ids=None, past_key_values=None, use_cache=None):
        return plain(self, input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache)

    monkeypatch.setattr(transformers.GPT2LMHeadModel, "forward", forward)
    engine = hf.create(backend())
    timing = engine.load(model("models/tiny-gpt2")).generate(ask(gen_tokens=4))
    assert timing.output_sha256 == sha256_of(expected)
    assert engine.describe().settings["prefill_logits_of_all_positions"] == ["models/tiny-gpt2"]


def test_a_synthetic_prompt_has_exactly_the_asked_tokens_the_same_for_models_of_one_vocabulary(tiny, small) -> None:
    request = ask(None, prompt_tokens=37, gen_tokens=2)
    assert small.generate(request).prompt_tokens == 37
    ids = small._batch(request).ids
    assert torch.equal(ids, tiny._batch(request).ids)
    assert len(set(ids[0].tolist())) > 30
    assert 0 <= int(ids.min()) <= int(ids.max()) < 50257
    assert not torch.equal(ids, small._batch(ask(None, prompt_tokens=37, gen_tokens=2, study_seed=43)).ids)


def test_the_same_call_gives_the_same_output_and_another_prompt_another(small) -> None:
    first, again = small.generate(ask()), small.generate(ask())
    other = small.generate(ask(None, prompt_tokens=17))
    assert first.output_sha256 == again.output_sha256 != other.output_sha256


def test_a_prompt_that_leaves_no_room_is_an_error_that_names_the_limit(small) -> None:
    assert small.generate(ask(None, prompt_tokens=1022, gen_tokens=2)).prompt_tokens == 1022
    with pytest.raises(EngineError, match="1024 positions: a prompt of 1023 tokens leaves no room for 2 more") as error:
        small.generate(ask(None, prompt_tokens=1023, gen_tokens=2))
    assert error.value.kind == "too_long"


def test_a_prompt_without_tokens_is_an_error(tiny) -> None:
    with pytest.raises(EngineError, match="makes no token"):
        tiny.generate(ask(""))


def test_what_was_loaded_is_measured_not_taken_from_a_label(small, ladder_cache: Path) -> None:
    info = small.info
    assert info.params_millions_measured == 5.03672
    assert (info.n_layer, info.n_embd, info.n_head, info.n_inner) == (12, 80, 2, 320)
    assert (info.vocab_size, info.n_positions) == (50257, 1024)
    assert (info.weights_bytes, info.dtype, info.device, info.family) == (4 * 5_036_720, "float32", "cpu", "gpt2")
    assert info.config_path == str(ladder_cache / "gpt2-5m" / "config.json")
    weights = (ladder_cache / "gpt2-5m" / "model.safetensors").read_bytes()
    assert info.weights_sha256 == hashlib.sha256(weights).hexdigest()


def test_an_inner_width_left_to_the_default_stays_unstated(tiny) -> None:
    assert tiny.info.n_inner is None


def test_the_threads_in_force_are_told_and_come_back_to_the_default() -> None:
    default = hf.create(backend(threads=None)).describe().settings["threads"]
    one = hf.create(backend(threads=1))
    assert one.describe().settings["threads"] == 1
    loaded = one.load(model("models/tiny-gpt2"))
    torch.set_num_threads(2)
    loaded.generate(ask(gen_tokens=1))
    assert torch.get_num_threads() == 1
    assert hf.create(backend(threads=None)).describe().settings["threads"] == torch.get_num_threads() == default


@pytest.mark.usefixtures("tiny")
def test_an_engine_describes_itself_with_versions_and_settings(engine) -> None:
    info = engine.describe()
    assert (info.kind, info.name, info.version) == ("hf", "hf_test", transformers.__version__)
    assert info.settings["torch"] == torch.__version__
    assert info.settings["prefill_logits"] == "last"
    assert json.loads(json.dumps(dict(info.settings)))["attention"] == ["sdpa"]


def test_weights_are_shared_by_backends_of_one_device_and_dtype(tiny) -> None:
    twin = hf.create(backend(name="other", threads=1)).load(model("models/tiny-gpt2"))
    half = hf.create(backend(name="half", dtype="bf16")).load(model("models/tiny-gpt2"))
    assert twin._weights is tiny._weights
    assert half._weights is not tiny._weights
    assert (half.info.dtype, half.info.weights_bytes) == ("bfloat16", 2 * 102_714)
    twin.close()
    assert tiny.generate(ask(gen_tokens=1)).gen_tokens_raw == 1


def test_closing_an_engine_frees_its_models_and_may_be_done_twice() -> None:
    engine = hf.create(backend(dtype="fp16"))
    loaded = engine.load(model("models/tiny-gpt2"))
    weights = weakref.ref(loaded._weights)
    engine.close()
    engine.close()
    gc.collect()
    assert weights() is None
    with pytest.raises(EngineError, match="closed"):
        loaded.generate(ask())


def test_a_model_without_a_tokenizer_takes_exact_token_counts_only(tmp_path: Path, ladder_cache: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ladder_cache / "tiny-gpt2" / name, tmp_path)
    loaded = hf.create(backend()).load(model(str(tmp_path)))
    assert loaded.generate(ask(None, prompt_tokens=4, gen_tokens=2)).prompt_tokens == 4
    with pytest.raises(EngineError, match="no tokenizer; give the prompt as prompt_tokens"):
        loaded.generate(ask("Hello"))


def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path, ladder_cache: Path) -> None:
    shutil.copy(ladder_cache / "tiny-gpt2" / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(EngineError, match="no weights as safetensors"):
        hf.create(backend()).load(model(str(tmp_path)))


def test_a_model_whose_files_are_broken_is_one_line(tmp_path: Path, ladder_cache: Path) -> None:
    shutil.copy(ladder_cache / "tiny-gpt2" / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(EngineError, match="can't load") as error:
        hf.create(backend()).load(model(str(tmp_path)))
    assert "\n" not in str(error.value)
    assert error.value.kind == "load"


@pytest.mark.parametrize(
    ("name", "what"), [("org/absent", "hf download org/absent"), ("/no/such/folder", "no such folder")]
)
def test_a_model_that_is_not_here_says_what_to_do(name: str, what: str) -> None:
    with pytest.raises(EngineError, match=what) as error:
        hf.create(backend()).load(model(name))
    assert error.value.kind == "missing_model"
    [line] = hf.lacking(backend(), [model(name), model("models/gpt2-100m")])
    assert name in line
    assert what in line


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "out_of_memory"),
        (OSError(12, "Cannot allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (IndexError("index out of range\nsecond line"), "engine"),
    ],
)
def test_a_failure_inside_the_library_is_this_calls_error_of_one_line(
    tiny, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: str
) -> None:
    def fail(**_):
        raise raised

    monkeypatch.setattr(tiny._weights, "forward", fail)
    with pytest.raises(EngineError, match="models/tiny-gpt2 failed") as error:
        tiny.generate(ask())
    assert error.value.kind == kind
    assert "\n" not in str(error.value)


def test_a_load_that_takes_longer_than_its_limit_is_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phaselaw.engines.hf_model.HfModel", lambda *_: sleep(60))
    monkeypatch.setattr(hf, "LONGEST_LOAD_S", 0.1)
    with pytest.raises(EngineError, match=r"can't load .*its weights: not done after 0\.1 s") as told:
        hf.create(backend()).load(model("models/tiny-gpt2"))
    assert told.value.kind == "load"


def test_no_load_is_timed_with_what_the_library_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = hf.create(backend(keep_loaded="all"))
    made.most_loaded([model("models/tiny-gpt2")])  # asked before any load
    monkeypatch.setattr(made._library, "resident_runtime_mb", None)
    monkeypatch.delattr("phaselaw.engines.hf_model")
    monkeypatch.setitem(sys.modules, "phaselaw.engines.hf_model", None)  # an import of it fails from here on
    assert made.load(model("models/tiny-gpt2")).info.n_layer == 2


def test_an_interrupt_is_not_taken_for_a_failed_call(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny._weights, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.generate(ask())


def test_without_torch_the_engine_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'phaselaw\[hf\]'"):
        hf.create(backend())
    [line] = hf.lacking(backend(), [model("models/tiny-gpt2")])
    assert "phaselaw[hf]" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_told_before_and_at_the_load() -> None:
    [line] = hf.lacking(backend(name="gpu", device="cuda"), [model("models/tiny-gpt2")])
    assert line.startswith("backend gpu: ")
    assert "no CUDA device" in line
    with pytest.raises(EngineError, match="no CUDA device"):
        hf.create(backend(device="cuda:3")).load(model("models/tiny-gpt2"))


def test_nothing_is_lacking_for_the_ladder_on_the_cpu() -> None:
    assert hf.lacking(backend(), [model(f"models/{entry.name}") for entry in LADDER]) == []


def test_making_an_engine_loads_nothing_heavy_and_measuring_prints_nothing() -> None:
    script = (
        "import sys\nfrom phaselaw.engines import hf\nfrom phaselaw.study.model import HfBackend, ModelEntry\n"
        "from phaselaw.records import Request\n"
        "engine = hf.create(HfBackend(name='a', kind='hf'))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "loaded = engine.load(ModelEntry(name='models/tiny-gpt2', kind='hf'))\n"
        "loaded.generate(Request(prompt='Hello', prompt_tokens=None, gen_tokens=2, batch_size=1,"
        " study_seed=1, seed=1, round=None))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_pad_token_is_put_aside_so_that_no_step_looks_for_padding(tmp_path: Path, ladder_cache: Path) -> None:
    config = json.loads((ladder_cache / "tiny-gpt2" / "config.json").read_text()) | {"pad_token_id": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(ladder_cache / "tiny-gpt2" / "model.safetensors", tmp_path)
    loaded = hf.create(backend()).load(model(str(tmp_path)))
    assert loaded._weights.config.pad_token_id is None


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_on_cuda_events_and_memory_are_read_and_agree_with_the_wall_clock(dtype: str) -> None:
    loaded = hf.create(backend(device="cuda", dtype=dtype)).load(model("models/gpt2-5m"))
    for _ in range(3):
        timing = loaded.generate(ask(gen_tokens=32))
    assert len(timing.decode_steps_ms) == 32
    assert sum(timing.decode_steps_ms) == pytest.approx(timing.kv_decode_cuda_event_ms, rel=0.02)
    assert timing.kv_decode_cuda_event_ms == pytest.approx(timing.kv_decode_ms, rel=0.1)
    assert timing.prefill_cuda_event_ms <= timing.prefill_ms
    assert timing.gpu_peak_mb * 2**20 >= loaded.info.weights_bytes


@pytest.mark.gpu
@needs_cuda
def test_on_cuda_nothing_synchronises_inside_the_loop() -> None:
    loaded = hf.create(backend(device="cuda")).load(model("models/gpt2-5m"))
    loaded.generate(ask(gen_tokens=4))
    reads = 0
    clock = loaded._clock
    read_ns = clock.read_ns

    def counted() -> int:
        nonlocal reads
        reads += 1
        mode = "error" if reads == 2 else "default"  # from the end of prefill to the end of the decode loop
        now = read_ns()
        torch.cuda.set_sync_debug_mode(mode)
        return now

    clock.read_ns = counted
    try:
        loaded.generate(ask(gen_tokens=8, batch_size=2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert reads == 3


@pytest.mark.gpu
@needs_cuda
def test_on_cuda_greedy_tokens_equal_generates(ladder_cache: Path) -> None:
    loaded = hf.create(backend(device="cuda")).load(model("models/gpt2-5m"))
    expected = generated_by_the_library(ladder_cache / "gpt2-5m", MEDIUM, batch=2, new=16, device="cuda")
    assert loaded.generate(ask(gen_tokens=16, batch_size=2)).output_sha256 == sha256_of(expected)


def test_host_and_mps_clocks_never_invent_device_readings() -> None:
    from phaselaw.engines.hf_model import CpuClock, MpsClock, clock_of

    assert isinstance(clock_of(torch.device("cpu")), CpuClock)
    assert isinstance(clock_of(torch.device("mps")), MpsClock)
    assert MpsClock().readings() == {}


def test_the_words_of_a_study_name_torchs_number_formats() -> None:
    sizes = {"fp32": 4, "fp64": 8, "fp16": 2, "bf16": 2}
    assert {word: getattr(torch, name).itemsize for word, name in TORCH_DTYPES.items()} == sizes
