"""Measure LLM inference by phase, fit scaling laws with honest intervals, turn them into workers and dollars.

examples:
  phaselaw run                                measure the default study (seven GPT-2 sizes on this CPU) and report
  phaselaw quick                              one model of a server that runs here, in a minute
  phaselaw run my-study.yaml --out runs/a     measure your own study into runs/a
  phaselaw report runs/a                      what the run says: laws, regimes, cold start
  phaselaw plan runs/a --tokens-per-month 1e9 --usd-per-hour 1.006

exit codes: 0 done; 1 failure; 2 usage; 3 done, and the answer is the bad one (calls failed, regression, does not fit,
damage found); 130 interrupted.
"""

import argparse
import contextlib
import importlib
import io
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Protocol, TextIO, cast

from phaselaw import __version__
from phaselaw.errors import DONE, FAILED, INTERRUPTED, PhaselawError, meant

COMMANDS = {
    "quick": "one model of a server that runs already, in a minute",
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
    "completion": "the script with which bash, zsh or fish completes all this",
}
"""Each command with its line of ``phaselaw --help``, in the order of that; its file bears its name, and is loaded where
the command is chosen."""


class Command(Protocol):
    """What the file of a command defines; its docstring is what ``--help`` says: what it does, then examples."""

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int | None:
        """Do it and print what came out; returns the exit code, or nothing where that is 0."""
        ...


class _Help(argparse.RawDescriptionHelpFormatter):
    """Prose as wide as the terminal; where an example and what it does don't fit into a line, the latter below it."""

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Iterable[Any], prefix: str | None = None
    ) -> None:
        """What must be given; all that may be stands below."""
        needed = [each for each in actions if each.required or not each.option_strings]
        if prefix != "":  # else it is how the commands below are called
            needed.insert(0, argparse.Action([], "options", metavar="[OPTIONS]"))
        super().add_usage(usage, needed, groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return indent + "\n\n".join(self._fitted(part, width) for part in text.strip().split("\n\n"))

    def _fitted(self, part: str, width: int) -> str:
        if "\n  " not in part:
            return textwrap.fill(" ".join(part.split()), width)
        fits = max(map(len, part.splitlines())) <= width
        return part if fits else re.sub(r"(?<=\S)(?: {2,}|\n {9,})(?=\S)", "\n      ", part)


class _Parser(argparse.ArgumentParser):
    """A parser that says what a misspelt command or option may have meant."""

    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=_Help, **how)

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: ([^\s=]+)", message)
        super().error(message + (meant(wrong[1] or wrong[2], self._words()) if wrong else ""))

    def _words(self) -> list[str]:
        """The commands and choices here, and the options of this parser and of the chosen command."""
        found: list[str] = []
        for action in self._actions:
            found += [*action.option_strings, *map(str, action.choices or ())]
            if isinstance(action.choices, dict):
                found += [word for each in action.choices.values() for word in each._option_string_actions]
        return found


def _about(docstring: str | None) -> dict[str, Any]:
    """What ``--help`` says before and behind the options: what a command does, then examples."""
    return dict(zip(("description", "epilog"), (docstring or "").split("\n\n", maxsplit=1), strict=False))


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line as `argparse` sees it: whole, or with the options of ``only`` one command."""
    parser = _Parser(prog="phaselaw", **_about(__doc__))
    parser.add_argument("--version", action="version", version=f"phaselaw {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        if only not in (None, name):
            subparsers.add_parser(name, help=line)
            continue
        command = cast(Command, importlib.import_module(f"phaselaw.commands.{name}"))
        of_command = subparsers.add_parser(name, help=line, **_about(command.__doc__))
        command.add_options(of_command)
        of_command.set_defaults(run=command.run, whole=build_parser)  # for who completes it all
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    # The reader of our output (head, less) may go away: the answer, and the exit code that says it, stay what they are.
    out, err = _Unfailing(sys.stdout, (BrokenPipeError,)), _Unfailing(sys.stderr)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(cast(TextIO, out)),
        contextlib.redirect_stderr(cast(TextIO, err)),
    ):
        if "--debug" not in words:  # a library's warning is not for who uses the tool
            warnings.simplefilter("ignore")
            logging.getLogger().addHandler(logging.NullHandler())
        try:
            # The options before a command take no values, so the first word that is none is the command.
            args = build_parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
            code: int = args.run(args) or DONE
            sys.stdout.flush()
        except (PhaselawError, OSError, MemoryError) as error:
            if "--debug" in words:
                raise
            sys.stderr.write(f"phaselaw: error: {_line_of(error)}\n")
            if isinstance(error, OSError):  # a full disk under our output: Python must not complain of it at exit
                with contextlib.suppress(OSError):
                    sys.stdout.flush()
                    return FAILED
                _silence(sys.stdout)
            return error.exit_code if isinstance(error, PhaselawError) else FAILED
        except KeyboardInterrupt:
            sys.stderr.write("phaselaw: interrupted\n")
            return INTERRUPTED
    return code


def _line_of(error: Exception) -> str:
    """What a person is told of an error."""
    if isinstance(error, MemoryError):
        return "not enough memory for this; close other programs, or ask for less at once"
    if isinstance(error, OSError):
        return f"{error.filename or 'the output'}: {error.strerror or error}"
    return " ".join(str(error).split())


def _open_standard_streams() -> None:
    """See to it that the three standard descriptors are open, so that no file of ours becomes one of them, and that
    any name can be printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Unfailing:
    """A stream as a display: where it can't be written (a full disk, a closed pipe), work goes on without."""

    def __init__(self, stream: TextIO | None, faults: tuple[type[Exception], ...] = (OSError, ValueError)) -> None:
        self._stream, self._faults = stream, faults

    def write(self, text: str) -> int:
        self._do("write", text)
        return len(text)

    def flush(self) -> None:
        self._do("flush")

    def _do(self, what: str, *arguments: str) -> None:
        try:
            getattr(self._stream, what)(*arguments)
        except self._faults:
            _silence(self._stream)
        except AttributeError:  # the process was started without it
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _silence(stream: TextIO | None) -> None:
    """Have what is written to a stream go nowhere, what it still holds included."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, cast(TextIO, stream).fileno())
        os.close(nowhere)
