"""Measure a study along an axis: how laws, shares and times move with it.

examples:
  phaselaw sweep decode-sweep-cpu                              a shipped sweep, as it is
  phaselaw sweep gpt2-ladder-cpu --axis gen_tokens=8,32,64,128
  phaselaw sweep gpt2-ladder-cpu --axis batch_size=1,2,4,8 --axis prompt_tokens=16,256
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


def add_options(parser: argparse.ArgumentParser) -> None:
    option(parser, "--axis", "NAME=V1,V2", "an axis and its values", dest="axes", action="append", default=[])
    measuring.add_options(parser)


def run(args: argparse.Namespace) -> int:
    if len({axis.partition("=")[0] for axis in args.axes}) < len(args.axes):
        raise UsageError("--axis: one axis is given twice; give its values in one list")
    named = (axis.partition("=") for axis in args.axes)
    args.settings += [f"axes.{name.strip()}=[{values}]" for name, _, values in named]  # the study's reader checks them
    if args.resume is None and not args.axes:
        study = args.study or measuring.DEFAULT_STUDY
        if not any(values for _, values in load_study(study, settings=args.settings).axes):
            raise UsageError(f"{study} has no axis to sweep; give one: --axis gen_tokens=8,32,64,128")
    return measuring.run(args)
