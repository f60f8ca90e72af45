"""Where a decode step's time goes, by torch's profiler: operators or kernels a token, and how busy the device is.

The profiled pass is not timed for any law, since the profiler slows what it watches. A pass of few steps is taken from
a pass of more, so that what is left is decode steps alone. A small gap between wall clock and CUDA events can't rule
launch overhead out, because events count the device's waiting between two kernels as its own time; this can.
"""

import dataclasses
import functools
import os
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING, Any

from phaselaw.engines import hf
from phaselaw.records import Request
from phaselaw.study.model import HfBackend, ModelEntry

if TYPE_CHECKING:
    from phaselaw.engines.hf_model import HfModel

WARMUPS, TIMED = 2, 3

_BOOKKEEPING = """
as_strided alias chunk contiguous detach detach_ empty empty_like empty_strided expand flatten layer_norm lift_fresh
linear matmul narrow new_empty permute reshape resize_ scaled_dot_product_attention select slice softmax split
split_with_sizes squeeze t to _to_copy transpose unfold unsqueeze view _reshape_alias _unsafe_view embedding result_type
item _local_scalar_dense
"""
BOOKKEEPING = frozenset(f"aten::{name}" for name in _BOOKKEEPING.split())
"""Operators that compute nothing themselves: they make views, allocate, or call others."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """An operator on the processor, or a kernel on a GPU, in one decode step."""

    name: str
    calls_per_token: float
    ms_per_token: float
    """Its own time, without that of what it calls; under the profiler."""
    computes: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What a decode step of a model is made of."""

    model: str
    device: str
    dtype: str
    n_layer: int | None
    batch_size: int
    prompt_tokens: int
    tokens: int
    """Decode steps that were profiled."""
    step_ms: float
    """A decode step without the profiler: the median of a few calls."""
    profiled_step_ms: float
    """The same under the profiler."""
    unit: str
    """``operators`` (processor) or ``kernels`` (GPU): what `calls_per_token` counts."""
    calls_per_token: float
    busy_ms: float
    """Time a step in which the device computes: of operators that compute, or of kernels."""
    busy_share: float
    """Of the step: on a GPU without the profiler, on the processor with it, and there at most so much, since a small
    operator's time is mostly its own dispatch."""
    operators: tuple[Operator, ...]
    """By time, the longest first."""

    @property
    def calls_per_token_and_layer(self) -> float | None:
        """Calls of one step over the layers; ``None`` where these aren't known."""
        return self.calls_per_token / self.n_layer if self.n_layer else None


def profile_decode(backend: HfBackend, model: ModelEntry, *, tokens: int, prompt_tokens: int) -> Profile:
    """Profile decode steps of a model. Raises `EngineError` and `MissingExtraError` as the engine does."""
    on_gpu = backend.device.startswith("cuda")
    common: dict[str, Any] = {"prompt_tokens": prompt_tokens, "batch_size": backend.batch_size}
    ask = functools.partial(Request, prompt=None, study_seed=0, seed=0, round=None, **common)
    with closing(hf.create(backend)) as engine:
        loaded = engine.load(model)
        times = [loaded.generate(ask(gen_tokens=tokens)).kv_decode_ms or 0.0 for _ in range(WARMUPS + TIMED)]
        short_ms, short = _profiled(loaded, ask(gen_tokens=1), on_gpu=on_gpu)
        long_ms, long = _profiled(loaded, ask(gen_tokens=tokens + 1), on_gpu=on_gpu)
    step_ms, profiled_step_ms = median(times[WARMUPS:]) / tokens, (long_ms - short_ms) / tokens
    operators = []  # what the steps that the longer pass has more are made of
    for name, (calls, own_us) in long.items():
        before, before_us = short.get(name, (0, 0.0))
        ms = max(0.0, own_us - before_us) / tokens / 1e3
        computes = on_gpu or name not in BOOKKEEPING
        if calls > before:
            per_token = (calls - before) / tokens
            operators.append(Operator(name=name, calls_per_token=per_token, ms_per_token=ms, computes=computes))
    operators.sort(key=lambda each: each.ms_per_token, reverse=True)
    counted = [each for each in operators if on_gpu or each.name.startswith("aten::")]
    busy_ms = sum(each.ms_per_token for each in counted if each.computes)
    return Profile(
        model=model.name,
        device=backend.device,
        dtype=backend.dtype,
        n_layer=loaded.info.n_layer,
        tokens=tokens,
        step_ms=step_ms,
        profiled_step_ms=profiled_step_ms,
        unit="kernels" if on_gpu else "operators",
        calls_per_token=sum(each.calls_per_token for each in counted),
        busy_ms=busy_ms,
        busy_share=busy_ms / (step_ms if on_gpu else profiled_step_ms),
        operators=tuple(operators),
        **common,
    )


def _profiled(loaded: "HfModel", request: Request, *, on_gpu: bool) -> tuple[float, dict[str, tuple[int, float]]]:
    """A call under the profiler: its decode in ms, and the calls and own time (us) of each kernel or operator."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to stderr when it starts
    import torch
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        timing = loaded.generate(request)
    found: dict[str, tuple[int, float]] = {}
    for event in profiler.key_averages():
        if str(event.device_type).endswith("CPU") != on_gpu:
            calls, own_us = found.get(event.key, (0, 0.0))
            more_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found[event.key] = calls + event.count, own_us + more_us
    return timing.kv_decode_ms or 0.0, found
