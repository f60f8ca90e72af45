"""``phaselaw memory``: does a model fit a memory, and the largest batch or context that does."""

from __future__ import annotations

import argparse
import re
from typing import Any

from phaselaw.commands.options import add_json, answer, option, positive
from phaselaw.machine.footprint import KV_BYTES, VALUE_BYTES
from phaselaw.plan.memory import Fit, fit, shapes_of

DESCRIPTION = "Predict a model's memory from its shape: weights, cache and activations, against a memory."
EXAMPLES = """\
examples:
  phaselaw memory models/gpt2-100m --memory 2GB
  phaselaw memory model-folder --memory 24GB --dtype bf16 --batch 8 --context 4096
  phaselaw memory model-q4_0.gguf --memory 8GB --kv-cache q8_0
  phaselaw memory runs/a --memory 16GB --json          every model of a run

Weights as counted in the file, the cache of keys and values and the activations from the model's shape. The reserve is
for what the runtime itself takes. A run's report sets the same prediction beside the peak that was measured.
"""

JSON_VERSION = 1
DEFAULT_RESERVE = "0.5GB"
_UNITS: dict[str, int] = {"": 1, **{f"{prefix}B": 1000**power for power, prefix in enumerate(("", "K", "M", "G", "T"))}}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", start=1)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The model, the memory, and what is to fit."""
    option(parser, "model", "MODEL", "a ladder model, a model folder, a GGUF file, or a run directory")
    option(parser, "--memory", "SIZE", "the memory, such as 16GB or 80GiB", type=size, required=True)
    option(parser, "--batch", "N", "sequences at once (default: 1)", type=positive, default=1)
    option(parser, "--context", "N", "tokens of a sequence in all (default: 1024)", type=positive, default=1024)
    numbers = ("fp32", "fp16", "bf16")
    option(parser, "--dtype", None, "number format of the weights (default: as stored)", choices=numbers)
    formats = ("f32", "f16", "bf16", "q8_0", "q4_0")
    option(parser, "--kv-cache", None, "format of the cache (default: that of --dtype; f32 without)", choices=formats)
    kept = f"kept for the runtime (default: {DEFAULT_RESERVE}, an assumption)"
    option(parser, "--reserve", "SIZE", kept, type=size, default=DEFAULT_RESERVE)
    add_json(parser, "print one JSON document, in bytes")


def size(text: str) -> float:
    """``16GB`` (1e9) or ``16GiB`` (2^30) in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)", text.strip().upper())
    unit = None if found is None else found[2] if found[2].endswith("B") or not found[2] else found[2] + "B"
    if found is None or unit not in _UNITS or (float(found[1]) == 0 and text != "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 16GB or 16GiB")
    return float(found[1]) * _UNITS[unit]


def run(args: argparse.Namespace) -> int:
    """Print each model's need and bounds; returns 0 whether it fits or not."""
    value_bytes = VALUE_BYTES[args.dtype or "fp32"]
    kv_bytes = value_bytes if args.kv_cache is None else KV_BYTES[args.kv_cache]
    asked = {"batch": args.batch, "context_tokens": args.context, "memory_bytes": args.memory}
    asked |= {"reserve_bytes": args.reserve, "value_bytes": value_bytes, "kv_bytes": kv_bytes}
    inputs = {name.removesuffix("_tokens"): value for name, value in asked.items()}
    fits = {name: fit(model, **inputs) for name, model in shapes_of(args.model, dtype=args.dtype).items()}
    rows = [{"model": name, **_row(each)} for name, each in fits.items()]
    document = {"schema_version": JSON_VERSION, "assumptions": asked, "rows": rows}
    answer(args.json, document, (_text(name, each, args.batch, args.context) for name, each in fits.items()))
    return 0


def _row(fit: Fit) -> dict[str, Any]:
    return {
        "fits": fit.fits,
        "total_bytes": fit.total_bytes,
        "weights_bytes": fit.need.weights,
        "kv_cache_bytes": fit.need.kv_cache,
        "activations_bytes": fit.need.activations,
        "largest_batch": fit.largest_batch,
        "largest_context_tokens": fit.largest_context,
        "context_bounded_by": "model" if fit.context_is_the_models else "memory",
    }


def _text(name: str, fit: Fit, batch: int, context: int) -> str:
    verdict = "fits" if fit.fits else "does not fit"
    need, bound = fit.need, " (the model's positions)" if fit.context_is_the_models else ""
    return f"""\
{name}: batch {batch} at {context} tokens {verdict}: {_gb(fit.total_bytes)} of {_gb(fit.memory_bytes)}
  weights {_gb(need.weights)}, cache {_gb(need.kv_cache)}, activations {_gb(need.activations)}, \
reserve {_gb(fit.reserve_bytes)} (assumed)
  largest batch at {context} tokens: {fit.largest_batch or "none fits"}
  largest context at batch {batch}: {fit.largest_context or "none fits"}{bound}"""


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.3g} GB"
