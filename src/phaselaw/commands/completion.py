"""Print the script with which a shell completes phaselaw's commands, options and files.

examples:
  phaselaw completion bash > ~/.local/share/bash-completion/completions/phaselaw
"""

import argparse

import shtab

from phaselaw.commands.options import a_path


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that is to complete")


def run(args: argparse.Namespace) -> None:
    parsers: list[argparse.ArgumentParser] = [args.whole()]
    for parser in parsers:  # which grows by the commands, and their actions
        for action in parser._actions:
            parsers += action.choices.values() if isinstance(action.choices, dict) else ()
            if action.type is a_path:
                vars(action)["complete"] = shtab.FILE
    print(shtab.complete(parsers[0], shell=args.shell))
