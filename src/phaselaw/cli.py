"""The command line: one table of commands, one place where errors become one line and an exit code.

Each command is a file of `phaselaw.commands` (`Command`). Only the file of the chosen command is loaded, so
``phaselaw --help`` loads none.

Exit codes, a contract: 0 done; 1 failed; 2 usage; 3 done, but some calls failed (their rows are kept) or
``compare`` found a significant regression; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from phaselaw import __version__
from phaselaw.errors import PhaselawError

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

EXAMPLES = """\
examples:
  phaselaw run                                measure the default study (seven GPT-2 sizes on this CPU) and report
  phaselaw run --dry-run                      the same with simulated latencies, in seconds
  phaselaw run my-study.yaml --out runs/a     measure your own study into runs/a
  phaselaw report runs/a                      what the run says: laws, regimes, cold start
  phaselaw plan runs/a --tokens-per-month 1e9 --usd-per-hour 1.006
"""


class Command(Protocol):
    """What the file of a command defines."""

    DESCRIPTION: str
    EXAMPLES: str

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it and print what came out; returns the exit code."""
        ...


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line as `argparse` sees it: whole, or with the options of ``only`` one command."""
    plain = argparse.RawDescriptionHelpFormatter
    about = (
        "Measure LLM inference by phase, fit scaling laws with honest intervals, turn them into workers and dollars."
    )
    parser = argparse.ArgumentParser(prog="phaselaw", description=about, epilog=EXAMPLES, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"phaselaw {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        if only not in (None, name):
            subparsers.add_parser(name, help=line)
            continue
        command = cast(Command, importlib.import_module(f"phaselaw.commands.{name}"))
        of_command = subparsers.add_parser(
            name, help=line, description=command.DESCRIPTION, epilog=command.EXAMPLES, formatter_class=plain
        )
        command.add_options(of_command)
        of_command.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        # The options before a command take no values, so the first word that is none is the command.
        args = build_parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
        code: int = args.run(args)
    except PhaselawError as error:
        if "--debug" in words:
            raise
        sys.stderr.write(f"phaselaw: error: {' '.join(str(error).split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("phaselaw: interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong, and Python must not complain at exit.
        sys.stdout = open("/dev/null", "w") if sys.platform != "win32" else sys.stdout  # noqa: SIM115, PTH123
        return 0
    return code
