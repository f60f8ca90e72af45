"""``phaselaw completion``: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse

import shtab

from phaselaw.commands.options import a_path

DESCRIPTION = "Print the script with which a shell completes phaselaw's commands and options."
EXAMPLES = """\
examples:
  phaselaw completion bash > ~/.local/share/bash-completion/completions/phaselaw
  phaselaw completion zsh > ~/.zfunc/_phaselaw             a folder of $fpath
  phaselaw completion fish > ~/.config/fish/completions/phaselaw.fish
"""
SHELLS = ("bash", "zsh", "fish")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")


def run(args: argparse.Namespace) -> int:
    """Print the script; returns 0."""
    parser: argparse.ArgumentParser = args.whole()
    _complete_files(parser)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have every option that takes a path complete with files."""
    for action in parser._actions:
        if action.type is a_path:
            vars(action)["complete"] = shtab.FILE
        for inner in action.choices.values() if isinstance(action.choices, dict) else ():
            _complete_files(inner)
