"""Predict a model's memory from its shape: weights, cache and activations, against a memory.

examples:
  phaselaw memory models/gpt2-100m --memory 2GB
  phaselaw memory model-folder --memory 24GB --batch 8 --context 4096
  phaselaw memory model-q4_0.gguf --memory 8GB --kv-cache q8_0
  phaselaw memory runs/a --memory 16GB --json          every model of a run

Weights as counted in the file, without layers that predict a token more; the cache as the config says (windows, latent
vectors, states), or not known with the reason. Positions are a limit whatever the memory. The reserve is for what the
runtime itself takes. A run's report sets the same prediction beside the peak that was measured.
Exit code: 0 all fit, 3 one does not fit, 1 it is not known of any.
"""

import argparse
from typing import Any

from phaselaw.commands.options import add_count, add_json, answer, option, size
from phaselaw.errors import BAD_ANSWER, DONE, FAILED
from phaselaw.machine.footprint import KV_BYTES, VALUE_BYTES
from phaselaw.plan.memory import Fit, fit, shapes_of

DEFAULT_RESERVE = "0.5GB"


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "model", "MODEL", "a ladder model, a model folder, a GGUF file, or a run directory")
    option(parser, "--memory", "SIZE", "the memory, such as 16GB or 80GiB", type=size, required=True)
    add_count(parser, "--batch", "sequences at once (default: 1)", default=1)
    add_count(parser, "--context", "tokens of a sequence in all (default: 1024)", default=1024)
    of_numbers = "number format of the weights and of arithmetic (default: as stored)"
    option(parser, "--dtype", None, of_numbers, choices=("fp32", "fp16", "bf16"))
    of_cache = "format of the cache (default: that of the weights; f16 of quantised ones)"
    option(parser, "--kv-cache", None, of_cache, choices=("f32", "f16", "bf16", "q8_0", "q4_0"))
    kept = f"kept for the runtime (default: {DEFAULT_RESERVE}, an assumption)"
    option(parser, "--reserve", "SIZE", kept, type=size, default=DEFAULT_RESERVE)
    add_json(parser, "print one JSON document, in bytes")


def run(args: argparse.Namespace) -> int:
    kv_bytes = KV_BYTES.get(args.kv_cache)
    asked = {"batch": args.batch, "context_tokens": args.context, "memory_bytes": args.memory}
    asked |= {"reserve_bytes": args.reserve, "value_bytes": VALUE_BYTES.get(args.dtype), "kv_bytes": kv_bytes}
    rows: list[dict[str, Any]] = []
    lines = []
    for name, sized in shapes_of(args.model, dtype=args.dtype).items():
        if isinstance(sized, str):
            rows.append({"model": name, "fits": None, "not_known": sized})
            lines.append(f"{name}: not known: {sized}")
            continue
        model, value_bytes = sized
        formats = {"value_bytes": value_bytes, "kv_bytes": kv_bytes or value_bytes}
        sizes = {"memory_bytes": args.memory, "reserve_bytes": args.reserve, **formats}
        found = fit(model, batch=args.batch, context=args.context, **sizes)
        rows.append({"model": name, **_row(found), "positions": model.n_positions, **formats})
        lines.append(_text(name, found, args.batch, args.context))
        lines += [] if model.n_positions else ["  its positions are not stated: memory alone bounds its context"]
    answer(args.json, {"schema_version": 1, "assumptions": asked, "rows": rows}, lines)
    fits = {row["fits"] for row in rows}
    return BAD_ANSWER if False in fits else DONE if True in fits else FAILED


def _row(fit: Fit) -> dict[str, Any]:
    known: dict[str, Any] = {"fits": fit.fits, "total_bytes": fit.total_bytes}
    known |= {f"{of}_bytes": getattr(fit.need, of) for of in ("weights", "kv_cache", "activations")}
    known |= {"largest_batch": fit.largest_batch, "largest_context_tokens": fit.largest_context}
    bounded_by = "model" if fit.context_is_the_models else "memory"
    return known | {"context_bounded_by": bounded_by, "beyond_positions": fit.beyond_positions}


def _text(name: str, fit: Fit, batch: int, context: int) -> str:
    verdict = "fits" if fit.fits else "does not fit"
    why = " (more tokens than the model's positions)" if fit.beyond_positions else ""
    need, bound = fit.need, " (the model's positions)" if fit.context_is_the_models else ""
    return f"""\
{name}: batch {batch} at {context} tokens {verdict}{why}: {_gb(fit.total_bytes)} of {_gb(fit.memory_bytes)}
  weights {_gb(need.weights)}, cache {_gb(need.kv_cache)}, activations {_gb(need.activations)}
  reserve {_gb(fit.reserve_bytes)} (assumed)
  largest batch at {context} tokens: {fit.largest_batch or "none fits"}
  largest context at batch {batch}: {fit.largest_context or "none fits"}{bound}"""


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.3g} GB"
