"""Where a decode step's time goes, by torch's profiler: operators or kernels a token, and how busy the device is.

The profiled pass is not timed for any law, since the profiler slows what it watches. A pass of few steps is taken from
a pass of more, so that what is left is decode steps alone. A small gap between wall clock and CUDA events can't rule
launch overhead out, because events count the device's waiting between two kernels as its own time; this can.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

from phaselaw.engines import hf
from phaselaw.records import Request

if TYPE_CHECKING:
    from phaselaw.engines.hf_model import HfModel
    from phaselaw.study.model import HfBackend, ModelEntry

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
    of_study = functools.partial(Request, prompt=None, study_seed=0, seed=0, round=None)
    request = functools.partial(of_study, prompt_tokens=prompt_tokens, batch_size=backend.batch_size)
    with closing(hf.create(backend)) as engine:
        loaded = engine.load(model)
        step_ms = _step_ms(loaded, request(gen_tokens=tokens))
        short, long = _profiled(loaded, request(gen_tokens=1)), _profiled(loaded, request(gen_tokens=tokens + 1))
    on_gpu = backend.device.startswith("cuda")
    operators = _difference(long, short, tokens, on_gpu=on_gpu)
    counted = [each for each in operators if on_gpu or each.name.startswith("aten::")]
    profiled_step_ms = (long.decode_ms - short.decode_ms) / tokens
    busy_ms = sum(each.ms_per_token for each in counted if each.computes)
    return Profile(
        model=model.name,
        device=backend.device,
        dtype=backend.dtype,
        n_layer=loaded.info.n_layer,
        batch_size=backend.batch_size,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        step_ms=step_ms,
        profiled_step_ms=profiled_step_ms,
        unit="kernels" if on_gpu else "operators",
        calls_per_token=sum(each.calls_per_token for each in counted),
        busy_ms=busy_ms,
        busy_share=busy_ms / (step_ms if on_gpu else profiled_step_ms),
        operators=operators,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Pass:
    decode_ms: float
    calls: Counter[str]
    own_us: Counter[str]


def _step_ms(loaded: HfModel, request: Request) -> float:
    times = [loaded.generate(request).kv_decode_ms or 0.0 for _ in range(WARMUPS + TIMED)]
    return median(times[WARMUPS:]) / request.gen_tokens


def _profiled(loaded: HfModel, request: Request) -> _Pass:
    """One call under the profiler: on a GPU its kernels, on the processor its operators."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to stderr when it starts
    import torch
    from torch.profiler import ProfilerActivity

    on_gpu = torch.cuda.is_available() and (loaded.info.device or "").startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        timing = loaded.generate(request)
    calls: Counter[str] = Counter()
    own_us: Counter[str] = Counter()
    for event in profiler.key_averages():
        of_gpu = not str(event.device_type).endswith("CPU")
        if of_gpu == on_gpu:
            calls[event.key] += event.count
            own_us[event.key] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return _Pass(timing.kv_decode_ms or 0.0, calls, own_us)


def _difference(long: _Pass, short: _Pass, tokens: int, *, on_gpu: bool) -> tuple[Operator, ...]:
    """What the steps that the longer pass has more are made of."""
    found = [
        Operator(
            name=name,
            calls_per_token=(calls - short.calls[name]) / tokens,
            ms_per_token=max(0.0, long.own_us[name] - short.own_us[name]) / tokens / 1e3,
            computes=on_gpu or name not in BOOKKEEPING,
        )
        for name, calls in long.calls.items()
        if calls > short.calls[name]
    ]
    return tuple(sorted(found, key=lambda each: each.ms_per_token, reverse=True))
