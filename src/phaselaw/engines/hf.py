"""The engine ``hf``: transformers in this process, on the CPU, CUDA or Apple's MPS (TR121 2.1-2.3, 2.5).

How a call is timed stands in `phaselaw.engines.hf_model`, which imports torch and transformers: only when needed.
"""

import bisect
import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from phaselaw.errors import EngineError, MissingExtraError, within
from phaselaw.ladder.build import resolve
from phaselaw.ladder.spec import ladder_model
from phaselaw.ladder.weights import tensors_in
from phaselaw.machine.footprint import VALUE_BYTES
from phaselaw.machine.peak_memory import MB
from phaselaw.records import EngineInfo
from phaselaw.study.model import HfBackend, ModelEntry

if TYPE_CHECKING:
    from phaselaw.engines.hf_model import HfModel

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "GPTModel")
LONGEST_LOAD_S = 3600.0
FREE_SHARE = 0.8
"""Of the memory that is free at the start, for weights; the rest is for caches, activations and loading."""


def create(backend: HfBackend) -> "HfEngine":
    """An engine with a backend's settings; `MissingExtraError` where torch or transformers is absent."""
    if not _installed():
        raise MissingExtraError("hf", f"backend {backend.name}")
    return HfEngine(backend)


def lacking(backend: HfBackend, models: Sequence[ModelEntry]) -> list[str]:
    """What this machine lacks for these models; a ladder model never lacks, since it can be built here."""
    if not _installed():
        without = "the same models without torch: phaselaw run gpt2-ladder-llamacpp, with phaselaw[llamacpp]"
        return [f"{MissingExtraError('hf', f'backend {backend.name}')}; {without}"]
    missing = [f"backend {backend.name}: {fault}" for fault in _device_faults(backend)]
    missing += [f"model {model.name}: {fault}" for model in models for fault in _model_faults(model.name)]
    return missing


def _installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def _device_faults(backend: HfBackend) -> list[str]:
    kind, _, index = backend.device.partition(":")
    if backend.execution == "cuda_graph" and kind != "cuda":
        return ["execution: cuda_graph needs an NVIDIA GPU and device: cuda; on this device say execution: compile"]
    if kind == "cpu":
        return []
    import torch

    if kind == "mps" and not torch.backends.mps.is_available():
        return ["torch finds no Apple MPS device here; use device: cpu"]
    if kind == "cuda" and not torch.cuda.is_available():
        return [f"torch {torch.__version__} finds no CUDA device here; use device: cpu, or install torch for CUDA"]
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        return [
            f"there is no {backend.device}; this machine has {torch.cuda.device_count()} CUDA device(s), from cuda:0"
        ]
    return []


def _folder(name: str) -> Path | None:
    """Where a model's files are: its folder, or its place in the hub's cache; ``None`` where it is neither."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        cached = try_to_load_from_cache(name, "config.json")
        return Path(cached).parent if isinstance(cached, str) else None
    return None


def _model_faults(name: str) -> list[str]:
    """Why a model can't be measured here, one line each, each ending in what to do."""
    if ladder_model(name) is not None:
        return []
    folder = _folder(name)
    if folder is None:
        known = "give the path of a model, or a name that phaselaw models list prints"
        fetch = f"not on this machine; give a folder, or fetch it first: hf download {name}"
        return [fetch if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else f"no such folder; {known}"]
    if not (folder / "config.json").is_file():
        return ["its folder has no config.json; put it there"]
    faults = []
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin"))
        how = ", only .bin files, which could run code; convert them" if pickled else "; put it there"
        faults.append(f"its folder has no weights as safetensors{how}")
    with suppress(OSError, ValueError):
        faults += _config_faults(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return faults


def _config_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What in a config says that the model is none that this engine runs."""
    made_as = [str(each) for each in config.get("architectures") or ()]
    if config.get("is_encoder_decoder"):
        yield "it is an encoder with a decoder, no causal language model; give one of these"
    elif made_as and not any(each.endswith(_CAUSAL) for each in made_as):
        yield f"it is a {made_as[0]}, no causal language model; give one of these"
    elif "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if config.get("model_type") not in CONFIG_MAPPING_NAMES:
            yield "it runs only by code of its own, which is never run here; give a model that transformers knows"


def no_tokenizer(name: str) -> list[str]:
    """That a model here has no tokenizer for texts, in a line; empty where it has one or is not here."""
    folder = None if ladder_model(name) is not None else _folder(name)
    if folder is None or any(path for glob in ("*token*", "*.model", "vocab*") for path in folder.glob(glob)):
        return []
    return [f"model {name}: its folder has no tokenizer for a text; give prompts as prompt_tokens, or put it there"]


def weights_bytes(name: str, dtype: str) -> float:
    """Bytes of a model's weights in a number format, by its files' heads; 0 where they can't be read."""
    ladder, folder = ladder_model(name), _folder(name)
    if ladder is not None:
        return ladder.params * VALUE_BYTES[dtype]
    try:
        tensors = tensors_in(folder) if folder else {}
        return float(sum(math.prod(each["shape"]) for each in tensors.values()) * VALUE_BYTES[dtype])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0.0


class HfEngine:
    """transformers with one backend's settings; as many models stay loaded side by side as its memory holds."""

    open: ClassVar[WeakSet["HfEngine"]] = WeakSet()
    """The engines of this process, which share its memory."""

    def __init__(self, backend: HfBackend) -> None:
        self._backend = backend
        self._models: list[HfModel] = []
        self._most: int | None = None
        self.open.add(self)

    @cached_property
    def _library(self) -> ModuleType:
        """What loads models, with torch: asked for before any load, which is timed, since that takes seconds."""
        from phaselaw.engines import hf_model

        hf_model.use_threads(self._backend.threads)
        hf_model.resident_runtime_mb()
        return hf_model

    def most_loaded(self, models: Sequence[ModelEntry]) -> int | None:
        """As the backend says; for ``auto`` so many that any of them fit, the largest too."""
        library, keep = self._library, self._backend.keep_loaded
        most = keep if isinstance(keep, int) else len(models)
        if keep == "auto":
            budget = (self._backend.memory_mb or 0) * MB
            if not budget:
                beside = sum(each._backend.device == self._backend.device for each in self.open)
                budget = FREE_SHARE * library.free_bytes_of(self._backend.device) / beside
            sizes = sorted((weights_bytes(model.name, self._backend.dtype) for model in models), reverse=True)
            most = max(1, bisect.bisect_right(list(accumulate(sizes)), budget))
        self._most = most if most < len(models) else None
        return self._most

    def describe(self) -> EngineInfo:
        import torch
        import transformers

        backend = self._backend
        self._library.use_threads(backend.threads)
        every_position = {model.name for model in self._models if model.last_only is None}
        settings: dict[str, Any] = {
            "resident_runtime_mb": self._library.resident_runtime_mb(),
            "device": backend.device,
            "dtype": backend.dtype,
            "batch_size": backend.batch_size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "decoding": "greedy, never stopped early",
            "attention": sorted({model.attention for model in self._models}),
            "keep_loaded": self._most or "all",
            "execution": backend.execution,
            "compiled_graphs": {model.name: model.compiled.graphs for model in self._models if model.compiled},
            "launches": {model.name: model.launches for model in self._models if backend.execution == "cuda_graph"},
            "prefill_logits": backend.prefill_logits,
            "prefill_logits_of_all_positions": sorted(every_position),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }
        if backend.device.startswith("cuda") and torch.cuda.is_available():
            settings |= {
                "device_name": torch.cuda.get_device_name(backend.device),
                "device_memory_mb": torch.cuda.get_device_properties(backend.device).total_memory / 2**20,
                "cuda": torch.version.cuda,
                "tf32_in_matrix_products": torch.backends.cuda.matmul.allow_tf32,
            }
        return EngineInfo(kind="hf", name=backend.name, version=transformers.__version__, settings=settings)

    def load(self, model: ModelEntry) -> "HfModel":
        """Load a model's weights and tokenizer, ready to generate. Raises `EngineError`.

        Weights are loaded once per model, device and dtype: those that another backend holds are shared.
        """
        library = self._library
        library.use_threads(self._backend.threads)
        for fault in _device_faults(self._backend):
            raise EngineError(f"backend {self._backend.name}: {fault}", kind="missing_device")
        for fault in _model_faults(model.name):
            raise EngineError(f"model {model.name}: {fault}", kind="missing_model")
        what = f"can't load {model.name}"
        with library.failures_as_engine_errors(what, kind="load"), within(LONGEST_LOAD_S, "its weights"):
            loaded: HfModel = library.HfModel(model.name, resolve(model.name), self._backend)
        self._models.append(loaded)
        return loaded

    def close(self) -> None:
        self.open.discard(self)
        while self._models:
            self._models.pop().close()
