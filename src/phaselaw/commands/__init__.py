"""The commands, one file each. A command's file is loaded when it is chosen; all of them import lazily."""

from __future__ import annotations

import argparse
import importlib
from typing import Protocol, cast

COMMANDS = {
    "run": "measure a study, analyse it and report",
    "sweep": "measure a study along an axis",
    "analyze": "fit the laws and write every table",
    "report": "what a run says: laws, regimes, cold start, price",
    "predict": "the latency of a model that was not measured",
    "validate": "how good predictions are: each model left out in turn",
    "compare": "what became slower from some runs to others, with exit code 3",
    "plan": "workers, $/1M tokens and $/month for a volume",
    "traffic": "a request log or Prometheus page as a profile to plan with",
    "show": "what a run directory holds",
    "study": "check, list and show studies",
    "profile": "operators or kernels a token, and how busy the device is",
    "memory": "does a model fit, and the largest batch or context that does",
    "host": "measure this machine: bandwidth, FLOP/s, timer, jitter",
    "models": "build, list, verify and export the model ladder",
}
"""Each command with its line of ``phaselaw --help``, in the order of that; its file bears its name."""


class Command(Protocol):
    """What a file of this folder defines."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def load(name: str) -> Command:
    """The file of a command of `COMMANDS`."""
    return cast(Command, importlib.import_module(f"phaselaw.commands.{name}"))


def positive(text: str) -> int:
    """The value of an option that counts things: 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give a number from 1 on")
    return value
