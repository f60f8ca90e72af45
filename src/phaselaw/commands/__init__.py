"""The commands, one file each, in the order ``phaselaw --help`` shows them. All of them import lazily."""

from __future__ import annotations

import argparse
from typing import Protocol

from phaselaw.commands import analyze, models, plan, report, run, show, study


class Command(Protocol):
    """What a file of this folder defines."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


COMMANDS: tuple[Command, ...] = (run, analyze, report, plan, show, study, models)
