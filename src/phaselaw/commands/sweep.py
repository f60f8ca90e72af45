"""Measure a study along an axis: how laws, shares and times move with it.

examples:
  phaselaw sweep decode-sweep-cpu                              a shipped sweep, as it is
  phaselaw sweep gpt2-ladder-cpu --axis gen_tokens=8,32,64,128
  phaselaw sweep my-study.yaml --axis batch_size=1,8 --axis prompt_tokens=16,256
  phaselaw sweep my-llamacpp.yaml --axis concurrency=1,2,4,8
  phaselaw sweep --resume runs/a                               go on with an interrupted one

Axes: gen_tokens, batch_size (engines in process), prompt_tokens, threads (hf, llamacpp), concurrency (servers). Two
axes make a grid. Each value is a cell of one run directory; weights are loaded once for all values.
"""

import argparse

from phaselaw.commands import run as measuring
from phaselaw.commands.options import option
from phaselaw.errors import UsageError
from phaselaw.study.file import load_study

AXES = ("gen_tokens", "batch_size", "prompt_tokens", "threads", "concurrency")


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "--axis", "NAME=V1,V2", "an axis and its values", dest="axes", action="append", default=[])
    measuring.add_options(parser)


def run(args: argparse.Namespace) -> int:
    if len({axis.partition("=")[0] for axis in args.axes}) < len(args.axes):
        raise UsageError("--axis: one axis is given twice; give its values in one list")
    args.settings = [*args.settings, *(setting_of(axis) for axis in args.axes)]
    if args.resume is None and not args.axes:
        study = args.study or measuring.DEFAULT_STUDY
        if not any(values for _, values in load_study(study, settings=args.settings).axes):
            raise UsageError(f"{study} has no axis to sweep; give one: --axis gen_tokens=8,32,64,128")
    return measuring.run(args)


def setting_of(axis: str) -> str:
    """``--axis gen_tokens=8,32`` as ``--set`` says it; raises `UsageError`."""
    name, _, text = axis.partition("=")
    name = name.strip()
    if name not in AXES:
        raise UsageError(f"--axis {name or axis}: no such axis; one of {', '.join(AXES)}, as in gen_tokens=8,32")
    values = [value.strip() for value in text.split(",")]
    if not all(value.isascii() and value.isdigit() and int(value) > 0 for value in values):
        raise UsageError(f"--axis {name}: give whole numbers from 1, as in {name}=1,2,4")
    return f"axes.{name}=[{', '.join(values)}]"
