"""A model of the engine ``hf``: one call, timed by phase.

Prefill is one forward pass over the prompt that ends when its greedy token is chosen; decode is exactly
``gen_tokens`` steps on the KV cache, the first of which consumes that token. The tokens counted are the one
that prefill chose and those of all steps but the last, so they equal ``model.generate``'s.

Where every prompt of a batch has the same length no attention mask is passed: each token sees all before it and the
library counts positions from the cache. (A mask of ones would be read back from the device in each step.) Prompts of
different lengths are padded at their beginning, with a mask and positions of their own.
"""

import ctypes
import gc
import hashlib
import inspect
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
import transformers
from torch._dynamo.backends.registry import lookup_backend
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel  # noqa: F401

from phaselaw.engines.prompts import token_ids
from phaselaw.errors import EngineError
from phaselaw.ladder.build import WEIGHTS, shipped_checksums
from phaselaw.ladder.spec import ladder_model
from phaselaw.machine.model_config import facts_of, is_of_experts
from phaselaw.machine.peak_memory import PeakMemory, free_bytes, resident_mb
from phaselaw.machine.probe import TORCH_DTYPES
from phaselaw.records import ModelInfo, Request, Timing
from phaselaw.study.model import HfBackend

COMPILER = "inductor"
"""What `torch.compile` hands its graphs to."""
_TRIAL, _TRIAL_STEPS, _WARMUP_STEPS = 4, 8, 3
"""Tokens and steps of the call that proves what is executed; steps before a CUDA graph is captured, as torch asks."""

_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_DEFAULT_THREADS = torch.get_num_threads()
"""What torch takes by itself, before any backend sets another number."""

_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|can(no|')t allocate memory", re.IGNORECASE)

_LOADED: WeakValueDictionary[tuple[str, str, str], torch.nn.Module] = WeakValueDictionary()
"""Weights in memory by source, device and dtype: backends that differ in other settings share them."""


class Batch(NamedTuple):
    """The prompts of a call on the device."""

    ids: torch.Tensor
    """Token ids, of shape (batch, tokens of the longest)."""
    real_tokens: int
    """Tokens of all prompts, padding left out."""
    mask: torch.Tensor | None = None
    """Which ids are no padding; ``None`` where none is."""

    def passes(self, gen_tokens: int) -> list[dict[str, torch.Tensor]]:
        """What the prefill and each step are given beside ids: with padding, a mask of all and positions of the new."""
        if self.mask is None:
            return [{}] * (1 + gen_tokens)
        mask = torch.cat([self.mask, self.mask.new_ones(len(self.ids), gen_tokens)], dim=1)
        at = (mask.cumsum(1) - 1).clamp(min=0)
        ends = range(self.ids.shape[1], mask.shape[1] + 1)
        begins = [0, *(end - 1 for end in ends[1:])]
        return [
            {"attention_mask": mask[:, :end], "position_ids": at[:, begin:end]}
            for begin, end in zip(begins, ends, strict=True)
        ]


class CpuClock:
    """How a device is timed: a wall clock with the device at rest, and marks that wait for nothing.

    A call is marked before and after prefill, before decode and after each step. The CPU does each thing at once, so
    that its marks are readings of the wall clock.
    """

    def prepare(self, *, n_marks: int) -> None:  # noqa: ARG002
        """Be ready for a call; not timed."""
        self._marks: list[int] = []

    def read_ns(self) -> int:
        """The wall clock, once the device has done all that it was asked."""
        return perf_counter_ns()

    def mark(self) -> None:
        """Note this moment on the device's timeline without waiting for it."""
        self._marks.append(perf_counter_ns())

    def readings(self) -> dict[str, Any]:
        """What the marks of a call say beside its wall clock, as fields of `Timing`; after the call."""
        return {"decode_steps_ms": tuple((after - before) / 1e6 for before, after in pairwise(self._marks[2:]))}


class MpsClock(CpuClock):
    """Apple's GPU: the wall clock only, since a mark in the loop would wait for the device; marks tell nothing."""

    def read_ns(self) -> int:
        torch.mps.synchronize()
        return perf_counter_ns()

    def readings(self) -> dict[str, Any]:
        return {}


class CudaClock(CpuClock):
    """CUDA: a mark is an event in the stream, read when the call is over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []

    def prepare(self, *, n_marks: int) -> None:
        self._stream = torch.cuda.current_stream(self._device)
        new_event: Callable[..., torch.cuda.Event] = torch.cuda.Event
        for _ in range(n_marks - len(self._events)):
            event = new_event(enable_timing=True)
            event.record(self._stream)  # an event is made when first recorded: not inside the timed loop
            self._events.append(event)
        self._n_marks, self._unmarked = n_marks, iter(self._events)
        torch.cuda.reset_peak_memory_stats(self._device)

    def read_ns(self) -> int:
        torch.cuda.synchronize(self._device)
        return perf_counter_ns()

    def mark(self) -> None:
        next(self._unmarked).record(self._stream)

    def readings(self) -> dict[str, Any]:
        begun, prefilled, *steps = self._events[: self._n_marks]
        return {
            "decode_steps_ms": tuple(before.elapsed_time(after) for before, after in pairwise(steps)),
            "prefill_cuda_event_ms": begun.elapsed_time(prefilled),
            "kv_decode_cuda_event_ms": steps[0].elapsed_time(steps[-1]),
            "gpu_peak_mb": torch.cuda.max_memory_allocated(self._device) / 2**20,
        }


def clock_of(device: torch.device) -> CpuClock:
    if device.type == "cuda":
        return CudaClock(device)
    return MpsClock() if device.type == "mps" else CpuClock()


class Compiled:
    """A forward pass compiled by torch, with counts of what was compiled and ran: the proof that it engaged."""

    name, not_engaged = "torch.compile", "not_compiled"

    def __init__(self, weights: Any) -> None:
        self.graphs = self.ran = 0
        self._forward: Callable[..., Any] = torch.compile(weights.forward, dynamic=True, backend=self._counted)

    def prepare(self, batch: Batch, steps: int) -> int:  # noqa: ARG002
        """How many graphs a call has to run: each pass is one or more."""
        return 1 + steps

    def __call__(self, **given: Any) -> Any:
        return self._forward(**given)

    def _counted(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = lookup_backend(COMPILER)(graph, inputs)
        self.graphs += 1

        def run(*values: Any) -> Any:
            self.ran += 1
            return compiled(*values)

        return run


class Captured:
    """Decode steps on a cache that stays in place, captured once a shape as a CUDA graph and replayed, with counts."""

    name, not_engaged = "CUDA graphs", "not_captured"

    def __init__(self, weights: Any) -> None:
        self.graphs = self.ran = 0
        self._weights = weights
        self._shapes: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def prepare(self, batch: Batch, steps: int) -> int:
        """Capture a step of this shape unless it is, before the clock is read; how many graphs the call has to run."""
        shape = (*batch.ids.shape, steps, batch.mask is None)
        if shape not in self._shapes:
            self._shapes[shape] = self._captured(batch, batch.ids.shape[1] + steps + _WARMUP_STEPS)
            self.graphs += 1
        self._now = self._shapes[shape]
        return steps

    def __call__(self, *, input_ids: torch.Tensor, past_key_values: Any = None, **given: Any) -> Any:
        cache, token, output, graph = self._now
        if past_key_values is None:  # the prefill, as ever
            cache.reset()
            return self._weights(input_ids=input_ids, past_key_values=cache, **given)
        token.copy_(input_ids)
        graph.replay()
        self.ran += 1
        return output

    def _captured(self, batch: Batch, length: int) -> tuple[Any, ...]:
        cache = transformers.StaticCache(config=self._weights.config, max_cache_len=length)
        if batch.mask is not None or any(getattr(layer, "max_cache_len", 0) < length for layer in cache.layers):
            raise EngineError("a CUDA graph takes prompts of one length and no windows", kind=self.not_engaged)
        token, given = batch.ids[:, :1].clone(), {"past_key_values": cache, "use_cache": True}
        self._weights(input_ids=batch.ids, **given)
        cuda: Any = torch.cuda
        graph, stream = cuda.CUDAGraph(), cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(_WARMUP_STEPS):
                self._weights(input_ids=token, **given)
        cuda.current_stream().wait_stream(stream)
        with cuda.graph(graph):
            output = self._weights(input_ids=token, **given)
        return cache, token, output, graph


class HfModel:
    """A loaded model with its tokenizer."""

    def __init__(self, name: str, source: Path | str, backend: HfBackend) -> None:
        self.name = name
        self._weights: Any = _weights(source, backend)
        self._tokenizer = _tokenizer(source)
        self._threads = backend.threads
        self._clock = clock_of(self._weights.device)
        self._memory = PeakMemory()
        self._batches: dict[tuple[Any, ...], Batch] = {}
        keeps_last = "logits_to_keep" in inspect.signature(self._weights.forward).parameters
        self.last_only: dict[str, Any] | None = {"logits_to_keep": 1} if keeps_last else None
        """What asks for the logits of one position; ``None`` where the model always computes all."""
        states = "cache_params" in inspect.signature(self._weights.forward).parameters
        self._cache = "cache_params" if states else "past_key_values"
        """What the model calls what it carries from step to step."""
        self._prefill_more = {} if backend.prefill_logits == "all" else self.last_only or {}
        self.attention = str(getattr(self._weights.config, "_attn_implementation", "unknown"))
        self.info = _measure(name, source, self._weights)
        if self.info.dtype != TORCH_DTYPES[backend.dtype]:
            raise EngineError(f"{backend.dtype} was asked for, {self.info.dtype} came", kind="dtype")
        how: Any = {"compile": Compiled, "cuda_graph": Captured}.get(backend.execution)
        self.compiled: Compiled | Captured | None = how(self._weights) if how else None
        if self.compiled:  # a part of loading, so that what was compiled can be told
            self._trial()

    def generate(self, request: Request) -> Timing:
        """Time one call on ``request.batch_size`` rows: equal ones, or a prompt each. Raises `EngineError`."""
        if self._weights is None:
            raise EngineError(f"{self.name} was closed", kind="closed")
        use_threads(self._threads)
        with failures_as_engine_errors(f"{self.name} failed", kind="engine"):
            return self._timed(self._batch(request), request.gen_tokens)

    @cached_property
    def launches(self) -> dict[str, int]:
        """What a call of `_TRIAL_STEPS` steps launches, by torch's profiler; `EngineError` where not a graph a step."""
        os.environ |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}  # else graphs and profiler don't agree
        with torch.profiler.profile() as profiler:
            self._trial()
        events = profiler.key_averages()
        kernels, graphs = (sum(e.count for e in events if of in e.key) for of in ("LaunchKernel", "GraphLaunch"))
        if graphs < _TRIAL_STEPS:
            what = f"{self.name}: CUDA graphs did not engage: {graphs} were launched in {_TRIAL_STEPS} steps"
            raise EngineError(f"{what}; say execution: eager", kind="not_captured")
        return {"steps": _TRIAL_STEPS, "kernels": kernels, "graphs": graphs}

    def _trial(self) -> None:
        ids = torch.zeros(1, _TRIAL, dtype=torch.long, device=self._weights.device)
        self._timed(Batch(ids, _TRIAL), _TRIAL_STEPS)

    def close(self) -> None:
        """Let go of the weights; they are freed, back to the system, when no other backend uses them."""
        device, self._weights, self._tokenizer = getattr(self._weights, "device", None), None, None
        self.compiled = None
        self._batches.clear()
        if device is not None:
            give_back(device)

    def _batch(self, request: Request) -> Batch:
        if not self._batches:  # the first call: what loading left behind is no part of its peak
            give_back(self._weights.device)
        key = (request.prompt, request.prompts, request.prompt_tokens, request.study_seed, request.batch_size)
        if key not in self._batches:
            texts = request.prompts or (request.prompt,)
            rows = [self._prompt_ids(request, text) for text in texts] * (request.batch_size // len(texts))
            self._batches[key] = _padded(rows, self._weights.device)
        length, limit = self._batches[key].ids.shape[1], self.info.n_positions
        if limit is not None and length + request.gen_tokens > limit:
            no_room = f"a prompt of {length} tokens leaves no room for {request.gen_tokens} more"
            raise EngineError(f"{self.name} has {limit} positions: {no_room}", kind="too_long")
        return self._batches[key]

    def _prompt_ids(self, request: Request, text: str | None) -> list[int]:
        if request.prompt_tokens is not None:
            return token_ids(request.prompt_tokens, request.study_seed, self.info.vocab_size or 1)
        if self._tokenizer is None:
            raise EngineError(f"{self.name} has no tokenizer; give the prompt as prompt_tokens", kind="prompt")
        ids: list[int] = self._tokenizer(text)["input_ids"]
        if not ids:
            raise EngineError(f"{self.name}'s tokenizer makes no token of this prompt", kind="prompt")
        return ids

    def _timed(self, batch: Batch, gen_tokens: int) -> Timing:
        model, clock, cache = self.compiled or self._weights, self._clock, self._cache
        first, *steps = batch.passes(gen_tokens)
        generated: list[torch.Tensor] = []
        self._memory.reset()
        with torch.inference_mode():
            ran, to_run = (self.compiled.ran, self.compiled.prepare(batch, gen_tokens)) if self.compiled else (0, 0)
            clock.prepare(n_marks=3 + gen_tokens)
            mark = clock.mark
            begun = clock.read_ns()
            mark()
            output = model(input_ids=batch.ids, use_cache=True, **first, **self._prefill_more)
            token = output.logits[:, -1:].argmax(-1)
            mark()
            prefilled = clock.read_ns()
            mark()
            for step in steps:
                generated.append(token)
                output = model(input_ids=token, use_cache=True, **{cache: output[cache]}, **step)
                token = output.logits[:, -1:].argmax(-1)
                mark()
            decoded = clock.read_ns()
            tokens = torch.cat(generated, dim=1).cpu().numpy().astype("<i8")
        if self.compiled and self.compiled.ran - ran < to_run:
            what = f"{self.compiled.name} did not engage: {self.compiled.ran - ran} graphs ran in {to_run} passes"
            raise EngineError(f"{self.name}: {what}; say execution: eager", kind=self.compiled.not_engaged)
        return Timing(
            prefill_ms=(prefilled - begun) / 1e6,
            kv_decode_ms=(decoded - prefilled) / 1e6,
            prompt_tokens=batch.ids.shape[1],
            prompt_tokens_total=batch.real_tokens,
            gen_tokens_raw=gen_tokens,
            rss_peak_mb=self._memory.read_mb(),
            output_sha256=hashlib.sha256(tokens.tobytes()).hexdigest(),
            **clock.readings(),
        )


def _padded(rows: list[list[int]], device: torch.device) -> Batch:
    """Rows of token ids as one batch, the shorter ones padded at their beginning (with ids that the mask hides)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    real = sum(map(len, rows))
    return Batch(ids, real) if real == ids.numel() else Batch(ids, real, mask)


def _weights(source: Path | str, backend: HfBackend) -> Any:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    key = (str(source), backend.device, backend.dtype)
    model: Any = _LOADED.get(key)
    if model is None:
        dtype = getattr(torch, TORCH_DTYPES[backend.dtype])
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True, **_LOCAL)
        model = model.to(torch.device(backend.device)).eval()
        # With a pad token the library looks for padding in each step, and waits for the device; we never pad.
        model.config.pad_token_id = None
        _LOADED[key] = model
    return model


def _tokenizer(source: Path | str) -> Any | None:
    """The model's own tokenizer; ``None`` where it has none, which exact token counts don't need."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **_LOCAL)
    except (OSError, ValueError):
        return None
    return tokenizer if tokenizer.vocab_size else None  # newer versions make up an empty one


def _measure(name: str, source: Path | str, weights: Any) -> ModelInfo:
    """What was counted of the loaded weights, with the architecture that the model's own config states."""
    config = weights.config.get_text_config()
    # Some families have names of their own, and the usual ones as other ways to ask for the same.
    named = config.to_dict() | {name: getattr(config, name, None) for name in config.attribute_map}
    stated, tensors = facts_of(named), list(weights.parameters())  # tied ones once
    ladder, head = ladder_model(name), weights.get_output_embeddings()
    # The embeddings that are no output projection as well: of these a token reads but a row.
    embeddings = {module.weight for module in weights.modules() if isinstance(module, torch.nn.Embedding)}
    tables = [table for table in embeddings if head is None or table is not head.weight]
    experts = [
        tensor for of, tensor in weights.named_parameters() if is_of_experts(of, tensor.shape, stated["n_experts"])
    ]
    counted = {
        "params_millions_measured": sum(tensor.numel() for tensor in tensors) / 1e6,
        "weights_bytes": _bytes(tensors),
        "lookup_params": sum(table.numel() for table in tables),
        "lookup_bytes": _bytes(tables),
        "expert_params": sum(expert.numel() for expert in experts) or None,
        "expert_bytes": _bytes(experts) or None,
    }
    if not experts:  # families of mixtures have dense members
        stated |= {"n_experts": None, "n_experts_used": None}
    return ModelInfo(
        **stated | counted,
        family=str(config.model_type),
        dtype=_dtype_in_use(tensors),
        device=str(weights.device),
        config_path=str(source / "config.json") if isinstance(source, Path) else None,
        weights_sha256=shipped_checksums()[ladder.name][WEIGHTS].sha256 if ladder else None,
    )


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _dtype_in_use(tensors: list[torch.Tensor]) -> str:
    """The number format of most parameters: a library may keep a few small ones in a wider one."""
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return elements.most_common(1)[0][0]


def give_back(device: torch.device) -> None:
    """Give memory that nothing uses back to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what tensors took otherwise


@cache
def resident_runtime_mb() -> float:
    """What Python and the libraries take of this process's memory (2^20 bytes); asked before any model is loaded.

    What loads a model is imported above, and a product multiplied, so that what the libraries set up then is counted.
    """
    torch.mm(torch.ones(256, 256), torch.ones(256, 256))
    give_back(torch.device("cpu"))
    return resident_mb()


def free_bytes_of(device: str) -> int:
    """What a device's memory still takes."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else free_bytes()


def use_threads(wanted: int | None) -> None:
    """Put a backend's thread count in force (it is the process's) unless it is already."""
    threads = wanted or _DEFAULT_THREADS
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@contextmanager
def failures_as_engine_errors(what: str, *, kind: str) -> Iterator[None]:
    """Whatever the libraries raise becomes one `EngineError` of one line: only this load or call failed."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(reason):
            kind = "out_of_memory"
        raise EngineError(f"{what}: {type(error).__name__}: {reason}", kind=kind) from error
