"""Does a model fit a memory, and what is the largest batch or context that does.

The model's shape is from what is on the disk: a ladder model's name, a model folder, a GGUF file, a run. Only heads of
files are read, never weights.
"""

import bisect
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phaselaw.engines.gguf_header import read_header
from phaselaw.engines.llamacpp import model_info
from phaselaw.errors import AnalysisError, UsageError, reading
from phaselaw.files import json_object
from phaselaw.ladder.spec import PREFIX, ladder_model
from phaselaw.ladder.weights import tensors_in
from phaselaw.machine.footprint import KV_BYTES, VALUE_BYTES, Architecture, Memory, memory
from phaselaw.machine.model_config import facts_of, is_of_experts
from phaselaw.rundir import read as runs

LARGEST = 1 << 24
"""Batch sizes and contexts beyond this are not looked for."""

_BITS = {"BOOL": 8, "BF16": 16} | {f"{kind}{bits}": bits for kind in "FIU" for bits in (8, 16, 32, 64)}
"""Bits a number, by safetensors' names; those with a suffix, such as ``F8_E4M3``, by what is before it."""
_PACKED = ("qweight", "weight_packed", "_blocks", ".weight")
"""Ends of the names of tensors that hold a quantised model's weights."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A model's need at one batch size and context, and how far each could go with the other as it is."""

    need: Memory
    reserve_bytes: float
    """What is kept for the runtime: interpreter, libraries, CUDA context, fragmentation."""
    memory_bytes: float
    largest_batch: int
    """At the asked context; 0 where not even one sequence fits."""
    largest_context: int
    """At the asked batch size, within the model's positions; 0 where none fits."""
    context_is_the_models: bool
    """Whether the model's positions, and not the memory, bound the context."""
    beyond_positions: bool
    """Whether the asked context is longer than the model's positions: no memory makes that fit."""

    @property
    def total_bytes(self) -> float:
        return self.need.total + self.reserve_bytes

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.memory_bytes and not self.beyond_positions


def fit(
    model: Architecture, *, memory_bytes: float, batch: int, context: int, reserve_bytes: float, **per_value: Any
) -> Fit:
    """The need of ``batch`` sequences of ``context`` tokens, all prompt (the widest prefill), and its bounds.

    ``per_value`` are ``value_bytes`` and ``kv_bytes``, as in `memory`.
    """

    def need(batch: int, context: int) -> Memory:
        return memory(model, batch=batch, context=context, prompt=context, **per_value)

    room, most = memory_bytes - reserve_bytes, model.n_positions or LARGEST
    beyond = context > most
    largest_context = largest(lambda tokens: need(batch, tokens).total <= room, most)
    return Fit(
        need=need(batch, context),
        reserve_bytes=reserve_bytes,
        memory_bytes=memory_bytes,
        largest_batch=0 if beyond else largest(lambda size: need(size, context).total <= room, LARGEST),
        largest_context=largest_context,
        context_is_the_models=largest_context == model.n_positions,
        beyond_positions=beyond,
    )


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that fits, 0 where 1 doesn't; what fits must fit below it, too."""
    return bisect.bisect_left(range(1, most + 1), True, key=lambda number: not fits(number))


def shapes_of(source: str, *, dtype: str | None) -> dict[str, tuple[Architecture, float] | str]:
    """The models of a source by name, with weights in ``dtype`` (``None``: as stored); or why one can't be told.

    Beside each are the bytes of a number: of its weights, where that is 2 or 4, else fp16's. Raises `UsageError` where
    the source is none, and `AnalysisError` where it can't be read.
    """
    ladder, path = ladder_model(source), Path(source)
    if ladder is not None and (source.startswith(PREFIX) or not path.exists()):
        looked_up = ladder.n_positions * ladder.n_embd  # its table of positions; all is fp32
        counted = {"params_millions_measured": ladder.params / 1e6, "weights_bytes": 4 * ladder.params}
        counted |= {"lookup_params": looked_up, "lookup_bytes": 4 * looked_up}
        stored = {f"{PREFIX}{ladder.name}": dataclasses.asdict(ladder) | counted}
    elif (path.suffix == ".gguf" and path.is_file()) or (path / "config.json").is_file():
        with reading(path, AnalysisError, OSError):
            stored = {path.name: _of_gguf(path) if path.is_file() else _of_folder(path)}
    elif (path / "metrics.csv").is_file():
        stored = {f"{row['model']} ({row.get('backend')})": row for row in runs.load(path).models.iter_rows(named=True)}
    else:
        raise UsageError(f"{source}: give a ladder model's name, a model folder, a GGUF file or a run directory")
    return {name: _sized(facts, None if dtype is None else VALUE_BYTES[dtype]) for name, facts in stored.items()}


def _sized(facts: Mapping[str, Any], value_bytes: float | None) -> tuple[Architecture, float] | str:
    model = Architecture.of(facts)
    if model is None:
        names = ("params_millions_measured", "weights_bytes", "n_layer", "n_embd", "vocab_size", "n_head")
        absent = [name for name in names if not facts.get(name)]
        return f"its shape can't be told ({', '.join(absent)} not stated)"
    if isinstance(model.cache, str):
        return f"what it caches is not known: {model.cache}"
    stored = round(model.weights_bytes / model.params, 1)
    kept = stored if stored in (2.0, 4.0) else KV_BYTES["f16"]
    if value_bytes is not None:
        in_format = {f"{of}_bytes": getattr(model, f"{of}_params") * value_bytes for of in ("lookup", "expert")}
        model = dataclasses.replace(model, weights_bytes=model.params * value_bytes, **in_format)
    return model, value_bytes or kept


def _of_gguf(path: Path) -> dict[str, Any]:
    header, tables = read_header(path)
    numbers, size = (sum(each[at] for each in tables.values()) for at in (0, 1))
    width = header.get(f"{header.get('general.architecture')}.embedding_length")
    vocabulary = tables.get("token_embd.weight", (0, 0))[0] // (width if isinstance(width, int) and width else 1)
    meta = {"n_params": numbers, "size": size, "n_vocab": vocabulary}
    return dataclasses.asdict(model_info(meta, {}, header, tables))


def _of_folder(folder: Path) -> dict[str, Any]:
    config = json_object(folder / "config.json", AnalysisError)
    facts, packed = facts_of(config), _packed_bits(config)
    further = facts["n_layer"] if config.get("num_nextn_predict_layers") else None
    tensors = {name: each for name, each in tensors_in(folder).items() if not _predicts_further(name, further)}
    sizes = {name: _size(name, each, packed) for name, each in tensors.items()}
    # Weights that are tied are stored once, under either name.
    has_head = any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in sizes)
    of_tokens = ("wte.weight", "embed_tokens.weight", "embed_in.weight", "word_embeddings.weight") if has_head else ()
    looked_up = ("wpe.weight", "embed_positions.weight", *of_tokens)
    tables = [size for name, size in sizes.items() if name.endswith(looked_up)]
    experts = [int(index) for name in sizes for index in re.findall(r"\.experts\.(\d+)\.", name)]
    facts["n_experts"] = facts["n_experts"] or (1 + max(experts) if experts else None)
    mixture = [size for name, size in sizes.items() if is_of_experts(name, tensors[name]["shape"], facts["n_experts"])]
    if not mixture:
        facts |= {"n_experts": None, "n_experts_used": None}
    counted = {"all": list(sizes.values()), "lookup": tables, "expert": mixture}
    params, held = ({of: sum(each[at] for each in those) for of, those in counted.items()} for at in (0, 1))
    facts |= {"params_millions_measured": params.pop("all") / 1e6, "weights_bytes": held.pop("all")}
    return facts | {f"{of}_params": params[of] for of in params} | {f"{of}_bytes": held[of] for of in held}


def _predicts_further(name: str, n_layer: int | None) -> bool:
    """Whether a tensor is of the layers beyond a model's own, which predict a token more and aren't loaded to serve."""
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    return name.startswith("mtp.") or bool(n_layer and layer and int(layer[1]) >= n_layer)


def _packed_bits(config: Mapping[str, Any]) -> int | None:
    """Bits a weight of a model whose weights are packed into whole numbers; ``None`` where it isn't quantised."""
    how = json.dumps(config.get("quantization_config") or {})
    stated = [int(bits) for bits in re.findall(r'"(?:num_)?bits": ([1-8])\b', how)]
    usual = 4 if re.search(r'fp4|"load_in_4bit": true', how, re.IGNORECASE) else 8
    return None if how == "{}" else min([*stated, usual])


def _size(name: str, tensor: Mapping[str, Any], packed_bits: int | None) -> tuple[int, int]:
    """A tensor's weights and bytes; what whole numbers a quantised model has beside its weights are none."""
    numbers, bits = math.prod(tensor["shape"]), _BITS[tensor["dtype"].split("_")[0]]
    size = numbers * bits // 8
    if packed_bits and tensor["dtype"][0] in "IU":
        numbers = 8 * size // packed_bits if name.endswith(_PACKED) else 0
    return numbers, size
