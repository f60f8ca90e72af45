"""Larger models with random weights, made on the device and never written: what governs a decode step, and its law.

Llama-like models in bf16, at batches of 1, 8 and 32 and prompts of 128 and 1,024 tokens. Each cell is timed eagerly,
one forward pass a step as the engine does it and by the engine's clock; and beside it, where that engages, with a
static cache and one decode step captured as a CUDA graph that is replayed, which leaves the launches out. One mixture
of experts follows; it enters no law, since what a token reads of it is not what it holds.

What governs a step, by rule: *launches* where the graph is at least `FASTER` times as fast; else *bandwidth* where
reading the least that a step must read takes at least half of it; else *neither*. Without a graph it is *bandwidth*, or
unknown.

    python benchmarks/gpu_models.py --out runs/larger --seconds 120
    python benchmarks/gpu_models.py --out runs/larger --dry      two tiny models on the CPU, float32, nothing captured

OUT gets metrics.csv (``phaselaw analyze OUT`` fits the laws) and cells.json.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from phaselaw.engines.hf_model import clock_of

if TYPE_CHECKING:
    import torch

Sizes = Mapping[str, Any]

FASTER, SHARE = 1.25, 0.5
WARMUPS, REPETITIONS, GEN_TOKENS = 1, 3, 32
SHORT_OF_TIME_S = 150.0
"""With less than this, two repetitions of 16 tokens."""


def _sizes(width: int, layers: int, inner: int, heads: int, kv_heads: int, vocabulary: int, **more: Any) -> Sizes:
    """A config's sizes; the output projection is tied to the embedding unless ``more`` says otherwise."""
    return {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "max_position_embeddings": 2048,
        "tie_word_embeddings": True, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    } | more  # fmt: skip


MODELS = {
    "llama-1b": _sizes(2048, 16, 8192, 32, 8, 128256),
    "llama-8b": _sizes(4096, 32, 14336, 32, 8, 128256, tie_word_embeddings=False),
    "llama-3b": _sizes(3072, 28, 8192, 24, 8, 128256),
    "llama-0.5b": _sizes(896, 24, 4864, 14, 2, 151936),
    "moe-8x0.4b": _sizes(2048, 16, 3584, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2),
}
"""In the order they are measured: where time runs out, a law still has the ends of the range."""
TINY = {
    "tiny-a": _sizes(32, 2, 64, 4, 2, 256),
    "tiny-b": _sizes(64, 2, 128, 4, 2, 256, tie_word_embeddings=False),
    "tiny-c": _sizes(128, 2, 256, 4, 2, 256),
    "moe-tiny": _sizes(32, 2, 64, 4, 2, 256, num_local_experts=4, num_experts_per_tok=2),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured where."""

    device: str
    dtype: str
    models: Mapping[str, Sizes]
    batches: tuple[int, ...]
    prompts: tuple[int, ...]
    gen_tokens: int
    repetitions: int


@dataclasses.dataclass(kw_only=True)
class Cell:
    """One model, batch and prompt: medians over repetitions, in ms."""

    model: str
    params_millions: float
    dtype: str
    batch: int
    prompt: int
    prefill_ms: float
    eager_step_ms: float
    gpu_peak_mb: float | None
    least_read_mb: float
    read_share: float | None = None
    """Of the eager step: the time that reading the least would take at the device's read bandwidth."""
    graph_step_ms: float | None = None
    graph_read_share: float | None = None
    same_tokens: float | None = None
    """Share of the tokens of both ways that are equal."""
    no_graph: str | None = None
    governs: str = "unknown"


class Call(NamedTuple):
    """One generation."""

    prefill_ms: float
    decode_ms: float
    gpu_peak_mb: float | None
    tokens: torch.Tensor


def made(sizes: Sizes, *, device: str, dtype: str) -> Any:
    """A model with random weights, made on the device. Raises `TypeError` where its parameters have another dtype."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

    torch.manual_seed(0)
    kind = MixtralConfig if "num_local_experts" in sizes else LlamaConfig
    wanted = getattr(torch, dtype)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(kind(**sizes), dtype=wanted).eval()
    model.config.pad_token_id = None
    found = {str(each.dtype) for each in model.parameters() if each.dtype != wanted}
    if found:
        raise TypeError(f"{wanted} was asked for; some parameters are {', '.join(sorted(found))}")
    return model


def least_read_bytes(model: Any, *, batch: int, context: float) -> float:
    """Bytes that a decode step must read: each weight once, of an untied embedding a row a sequence, and the cache.

    Of E experts, k a token, it is those that some token of B is sent to, if each chooses evenly: E (1 - (1 - k/E)^B).
    """
    config = model.config
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    if not config.tie_word_embeddings:
        table = model.get_input_embeddings().weight
        weights -= (len(table) - batch) * table.shape[1] * table.element_size()
    if experts := getattr(config, "num_local_experts", None):
        inside = sum(each.numel() * each.element_size() for name, each in model.named_parameters() if "experts" in name)
        weights -= inside * (1 - config.num_experts_per_tok / experts) ** batch
    width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    values = 2 * config.num_hidden_layers * width * context * batch
    return float(weights + values * next(model.parameters()).element_size())


def eager(model: Any, ids: torch.Tensor, gen_tokens: int) -> Callable[[], Call]:
    """A generation as the engine ``hf`` does it, by its clock."""
    import torch

    clock = clock_of(ids.device)

    @torch.inference_mode()
    def call() -> Call:
        chosen = []
        clock.prepare(n_marks=3 + gen_tokens)
        begun = clock.read_ns()
        clock.mark()
        output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
        clock.mark()
        prefilled = clock.read_ns()
        clock.mark()
        for _ in range(gen_tokens):
            chosen.append(token)
            output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
            clock.mark()
        decoded = clock.read_ns()
        peak = clock.readings().get("gpu_peak_mb")
        return Call((prefilled - begun) / 1e6, (decoded - prefilled) / 1e6, peak, torch.cat(chosen, 1).cpu())

    return call


def static(model: Any, ids: torch.Tensor, gen_tokens: int) -> Callable[[], Call]:
    """A generation on a static cache whose decode step is captured as a CUDA graph; on the CPU it is not captured.

    The step reads and writes tensors that stay in place: the cache with its own count of positions, and the token.
    """
    import torch
    from transformers import StaticCache

    clock = clock_of(ids.device)
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1] + gen_tokens + WARMUPS)
    token = torch.zeros_like(ids[:, :1])

    def prefill() -> None:
        cache.reset()
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token.copy_(output.logits[:, -1:].argmax(-1))

    def step() -> None:
        token.copy_(model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1))

    replay = step
    with torch.inference_mode():
        prefill()
        if ids.device.type == "cuda":
            replay = _captured(step)

    @torch.inference_mode()
    def call() -> Call:
        chosen = torch.empty(len(ids), gen_tokens, dtype=ids.dtype, device=ids.device)
        clock.prepare(n_marks=3)
        begun = clock.read_ns()
        clock.mark()
        prefill()
        clock.mark()
        prefilled = clock.read_ns()
        clock.mark()
        for at in range(gen_tokens):
            chosen[:, at : at + 1] = token
            replay()
        decoded = clock.read_ns()
        return Call((prefilled - begun) / 1e6, (decoded - prefilled) / 1e6, None, chosen.cpu())

    return call


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """A step as a CUDA graph, warmed up on a side stream as torch asks."""
    import torch

    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        for _ in range(WARMUPS):
            step()
    cuda.current_stream().wait_stream(stream)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay


def governs(cell: Cell) -> str:
    """What governs a decode step, by the module's rule."""
    if cell.graph_step_ms is None:
        return "bandwidth" if (cell.read_share or 0.0) >= SHARE else "unknown: no graph beside"
    if cell.eager_step_ms >= FASTER * cell.graph_step_ms:
        return "launches"
    return "bandwidth" if (cell.read_share or 0.0) >= SHARE else "neither"


def measured(plan: Plan, read_gb_per_s: float | None, deadline: float) -> Iterator[tuple[Cell | str, list[list[Any]]]]:
    """Each cell with its rows of metrics.csv; a line where a model or a cell could not be had."""
    for name, sizes in plan.models.items():
        if perf_counter() > deadline:
            yield f"{name}: no time was left", []
            continue
        gc.collect()
        model = None
        try:
            _let_go(plan.device)
            model = made(sizes, device=plan.device, dtype=plan.dtype)
            for batch in plan.batches:
                for prompt in plan.prompts:
                    if perf_counter() > deadline:
                        yield f"{name}, batch {batch}, prompt {prompt}: no time was left", []
                        continue
                    yield _cell(plan, name, model, batch, prompt, read_gb_per_s)
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0][:160]}", []
        del model


def _let_go(device: str) -> None:
    """Give the memory of the last model back, for the next needs the room."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _cell(
    plan: Plan, name: str, model: Any, batch: int, prompt: int, read_gb_per_s: float | None
) -> tuple[Cell, list[list[Any]]]:
    import torch

    ids = torch.randint(0, model.config.vocab_size, (1, prompt), generator=torch.Generator().manual_seed(prompt))
    ids = ids.repeat(batch, 1).to(plan.device)
    params = sum(each.numel() for each in model.parameters()) / 1e6
    calls = _repeated(eager(model, ids, plan.gen_tokens), plan)
    least = least_read_bytes(model, batch=batch, context=prompt + plan.gen_tokens / 2)
    cell = Cell(
        model=name, params_millions=params, dtype=plan.dtype, batch=batch, prompt=prompt,
        prefill_ms=median(call.prefill_ms for call in calls),
        eager_step_ms=median(call.decode_ms for call in calls) / plan.gen_tokens,
        gpu_peak_mb=calls[-1].gpu_peak_mb, least_read_mb=least / 1e6,
    )  # fmt: skip
    rows = [_row(plan, cell, "eager", mode, call) for call in calls for mode in ("prefill", "kv_decode", "e2e_kv")]
    try:
        beside = _repeated(static(model, ids, plan.gen_tokens), plan)
    except Exception as error:  # whatever the libraries can't capture: the reason stands in the cell
        cell.no_graph = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        _let_go(plan.device)  # raises where the failure left the device unusable
    else:
        cell.graph_step_ms = median(call.decode_ms for call in beside) / plan.gen_tokens
        cell.same_tokens = float((beside[-1].tokens == calls[-1].tokens).double().mean())
        rows += [_row(plan, cell, "graph", "kv_decode", call) for call in beside]
    if read_gb_per_s:
        floor_ms = least / read_gb_per_s / 1e6
        cell.read_share = floor_ms / cell.eager_step_ms
        cell.graph_read_share = floor_ms / cell.graph_step_ms if cell.graph_step_ms else None
    cell.governs = governs(cell)
    return cell, rows if "num_local_experts" not in plan.models[name] else []


def _repeated(call: Callable[[], Call], plan: Plan) -> list[Call]:
    return [call() for _ in range(WARMUPS + plan.repetitions)][WARMUPS:]


COLUMNS = ("backend", "backend_kind", "model", "scenario", "mode", "status", "batch_size", "gen_tokens_target",
           "params_millions_measured", "latency_ms", "is_warmup")  # fmt: skip


def _row(plan: Plan, cell: Cell, way: str, mode: str, call: Call) -> list[Any]:
    latency = {"prefill": call.prefill_ms, "kv_decode": call.decode_ms, "e2e_kv": call.prefill_ms + call.decode_ms}
    return [f"{plan.dtype}_{way}_bs{cell.batch}", "hf", cell.model, f"prompt{cell.prompt}", mode, "ok", cell.batch,
            plan.gen_tokens, cell.params_millions, latency[mode], False]  # fmt: skip


def read_bandwidth(limits: Path | None, device: str) -> float | None:
    """GB/s of reading the largest working set, from what ``phaselaw host --json`` printed; ``None`` without."""
    try:
        lines = [line for line in (limits or Path()).read_text(encoding="utf-8").splitlines() if line.startswith("{")]
        found = json.loads(lines[-1])["limits"]["devices"][device]["read"][-1]["gb_per_s"]["median"]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return float(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 where at least one cell was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limits", type=Path, help="what phaselaw host --json printed")
    parser.add_argument("--seconds", type=float, default=300.0, help="no cell is begun after so long")
    parser.add_argument("--dry", action="store_true", help="tiny models, on the CPU")
    args = parser.parse_args(arguments)
    deadline = perf_counter() + args.seconds
    short = args.seconds < SHORT_OF_TIME_S
    plan = Plan(device="cuda:0", dtype="bfloat16", models=MODELS, batches=(1, 8, 32), prompts=(128, 1024),
                gen_tokens=GEN_TOKENS // (2 if short else 1), repetitions=REPETITIONS - short)  # fmt: skip
    if args.dry:
        import torch

        torch.set_num_threads(1)  # another part runs beside it
        plan = Plan(
            device="cpu", dtype="float32", models=TINY, batches=(1, 2), prompts=(8,), gen_tokens=4, repetitions=2
        )
    read = read_bandwidth(args.limits, "cuda:0" if plan.device == "cuda:0" else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    cells: list[Cell] = []
    faults: list[str] = []
    with (args.out / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for found, rows in measured(plan, read, deadline):
            table.writerows(rows)
            file.flush()
            if isinstance(found, Cell):
                cells.append(found)
                where = f"{found.model}, batch {found.batch}, prompt {found.prompt}"
                print(f"{where}: {found.eager_step_ms:.2f} ms a step, {found.governs}", flush=True)
            else:
                faults.append(found)
                print(found, flush=True)
            told = {"cells": list(map(dataclasses.asdict, cells)), "faults": faults, "read_gb_per_s": read}
            (args.out / "cells.json").write_text(json.dumps(told | {"tf32": _tf32()}, indent=1), encoding="utf-8")
    print(f"{len(cells)} cells measured, {len(faults)} not")
    return 0 if cells else 1


def _tf32() -> bool:
    import torch

    return bool(torch.backends.cuda.matmul.allow_tf32)


if __name__ == "__main__":
    sys.exit(main())
