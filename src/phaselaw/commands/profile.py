"""Profile decode steps of a model under transformers: operators (CPU) or kernels (CUDA) a token and layer, and the
share of a step in which the device computes.

examples:
  phaselaw profile models/gpt2-5m                    operators a token and layer, and the device-busy share
  phaselaw profile models/gpt2-100m --device cuda --dtype fp16
  phaselaw profile model-folder --tokens 64 --json

A step whose device is busy a small part of the time waits for Python and dispatch: a faster device, or fewer weights,
won't make it faster. This pass is slowed by the profiler, and is no measurement for a law.
"""

import argparse
import dataclasses
from collections.abc import Iterator

from pydantic import ValidationError

from phaselaw.commands.console import notes_console
from phaselaw.commands.options import add_count, add_json, answer, option
from phaselaw.engines.hf_profile import Profile, profile_decode
from phaselaw.errors import UsageError
from phaselaw.study.model import HfBackend, ModelEntry


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "model", "MODEL", "a ladder model (models/NAME), or a model folder")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "fp16", "bf16"), help="number format (fp32)")
    add_count(parser, "--tokens", "decode steps to profile (32)", default=32)
    add_count(parser, "--prompt-tokens", "length of the prompt (32)", default=32)
    add_count(parser, "--batch", "sequences at once (1)", default=1)
    add_count(parser, "--threads", "threads (default: torch's own)")
    add_count(parser, "--top", "operators to show (12)", default=12)
    add_json(parser, "print one JSON document with every operator")


def run(args: argparse.Namespace) -> None:
    try:
        how = {name: getattr(args, name) for name in ("device", "dtype", "threads")}
        backend = HfBackend(name="profile", kind="hf", batch_size=args.batch, **how)
        model = ModelEntry(name=args.model, kind="hf")
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"--{fault['loc'][0]}: {fault['msg']}") from None
    with notes_console().status(f"profiling {args.model}"):
        found = profile_decode(backend, model, tokens=args.tokens, prompt_tokens=args.prompt_tokens)
    per_layer = {"calls_per_token_and_layer": found.calls_per_token_and_layer}
    document = {"schema_version": 1, **dataclasses.asdict(found), **per_layer}
    answer(args.json, document, _lines(found, args.top))


def _lines(found: Profile, top: int) -> Iterator[str]:
    at_most = "" if found.unit == "kernels" else "at most "
    per_layer = found.calls_per_token_and_layer
    layers = "" if per_layer is None else f", {per_layer:.1f} a layer ({found.n_layer} layers)"
    yield (
        f"{found.model} on {found.device}, {found.dtype}, batch {found.batch_size}: {found.step_ms:.3f} ms a step "
        f"({found.profiled_step_ms:.3f} ms under the profiler, {found.tokens} steps)"
    )
    yield f"{found.unit}: {found.calls_per_token:.0f} a token{layers}"
    yield (
        f"device busy: {at_most}{found.busy_share:.1%} of a step ({found.busy_ms:.3f} ms); the rest is Python, "
        "dispatch and waiting"
    )
    yield f"\n{'ms a token':>11} {'calls':>7}  {found.unit[:-1]}"
    for each in found.operators[:top]:
        idle = "" if each.computes else "  (computes nothing itself)"
        yield f"{each.ms_per_token:>11.4f} {each.calls_per_token:>7.1f}  {each.name[:90]}{idle}"
