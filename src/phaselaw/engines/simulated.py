"""The simulated engine: seeded latencies from a stated law. It measures nothing, and its rows say so.

It is the tests' ground truth (the analysis must recover the exponents put in), what ``phaselaw run --dry-run`` uses,
and the measure of phaselaw's own overhead. The law stands in `phaselaw.study.model.SimulatedBackend`.
"""

import hashlib
import math
import random
import time
from collections.abc import Sequence

from phaselaw.errors import EngineError
from phaselaw.records import EngineInfo, ModelInfo, Request, Timing
from phaselaw.study.model import ModelEntry, SimulatedBackend

DEFAULT_PARAMS_MILLIONS = 100.0
"""Parameters of a simulated model whose study states none."""
DEFAULT_LAYERS = 12


def create(backend: SimulatedBackend) -> "SimulatedEngine":
    return SimulatedEngine(backend)


def lacking(*_: object) -> list[str]:
    """Nothing is ever lacking for a simulation."""
    return []


def step_ms(backend: SimulatedBackend, params_millions: float, n_layer: int) -> float:
    """The law's decode step in ms of one sequence without a context, before noise."""
    growing: float = backend.params_ms * params_millions**backend.params_exponent * n_layer**backend.depth_exponent
    return backend.overhead_ms + growing * (backend.serial_share + (1 - backend.serial_share) / (backend.threads or 1))


class SimulatedEngine:
    """One simulated backend."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = backend

    def most_loaded(self, _: Sequence[ModelEntry]) -> int | None:
        return None

    def describe(self) -> EngineInfo:
        law = self._backend
        return EngineInfo(kind="simulated", name=law.name, version="1", settings=law.model_dump(mode="json"))

    def load(self, model: ModelEntry) -> "SimulatedModel":
        return SimulatedModel(self._backend, model)

    def close(self) -> None:
        """Nothing to stop."""


class SimulatedModel:
    """One model of a simulated backend."""

    def __init__(self, backend: SimulatedBackend, model: ModelEntry) -> None:
        self._backend = backend
        self._name = model.name
        self._cold = True
        params, layers = model.params_millions or DEFAULT_PARAMS_MILLIONS, model.n_layer or DEFAULT_LAYERS
        self.info = ModelInfo(params_millions_measured=params, n_layer=layers, family="simulated")
        self._step_ms = step_ms(backend, params, layers)

    def generate(self, request: Request) -> Timing:
        """The law's times for one call; the same request gives the same times, whatever ran before."""
        law = self._backend
        draw = self._generator("call", request.seed)
        failed, stopped = draw.random() < law.failure_rate, draw.random() < law.early_stop_rate
        if failed:
            raise EngineError("a simulated failure", kind="simulated")
        replicate = f"/replicate {request.replicate}" if request.replicate else ""
        noise = math.exp(
            self._generator("model", request.study_seed).gauss(0, law.model_scatter)
            + random.Random(f"{law.name}/run/{request.study_seed}{replicate}").gauss(0, law.run_noise)
            + self._generator(f"run{replicate}", request.study_seed).gauss(0, law.model_run_noise)
            + random.Random(f"{law.name}/round/{request.study_seed}/{request.round}{replicate}").gauss(
                0, law.round_noise
            )
            + draw.gauss(0, law.call_noise)
        )
        steps = draw.randint(1, request.gen_tokens) if stopped else request.gen_tokens
        texts = request.prompts or (request.prompt or "",) * request.batch_size
        of_texts = [request.prompt_tokens or max(1, len(text) // 4) for text in texts]
        prompt_tokens = max(of_texts)
        of_prompt = request.batch_size * prompt_tokens * (law.prompt_ms + law.prompt_pair_ms * prompt_tokens)
        prefill = noise * (law.prefill_steps * self._step_ms + of_prompt)
        prefill += law.cold_start_ms if self._cold else 0.0
        self._cold = False
        first = noise * (self._step_ms + request.batch_size * (law.sequence_ms + law.context_ms * prompt_tokens))
        longer = noise * request.batch_size * law.context_ms
        decode = steps * (first + longer * (steps - 1) / 2)
        if law.real_time:
            time.sleep((prefill + decode) / 1e3)
        done_reason = None if law.early_stop_rate == 0 else ("stop" if steps < request.gen_tokens else "length")
        return Timing(
            prefill_ms=prefill,
            kv_decode_ms=decode,
            prompt_tokens=prompt_tokens,
            prompt_tokens_total=sum(of_texts),
            gen_tokens_raw=steps,
            # Where all steps are alike, their sum is enough.
            decode_steps_ms=tuple(first + longer * index for index in range(steps)) if longer else None,
            done_reason=done_reason,
            output_sha256=hashlib.sha256(
                f"{self._name}/{request.prompts or request.prompt}/{prompt_tokens}/{steps}".encode()
            ).hexdigest(),
        )

    def close(self) -> None:
        """Nothing to free."""

    def _generator(self, purpose: str, seed: int) -> random.Random:
        return random.Random(f"{self._backend.name}/{self._name}/{purpose}/{seed}")
