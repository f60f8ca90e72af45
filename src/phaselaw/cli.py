"""The command line: one table of commands, one place where errors become one line and an exit code.

Each command is a file of `phaselaw.commands` with ``add_parser(subparsers)`` and ``run(args) -> exit code``. Only the
file of the chosen command is loaded, so ``phaselaw --help`` loads none.

Exit codes, a contract: 0 done; 1 failed; 2 usage; 3 done, but some calls failed (their rows are kept) or
``compare`` found a significant regression; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from phaselaw import __version__
from phaselaw.commands import COMMANDS, load
from phaselaw.errors import PhaselawError

EXAMPLES = """\
examples:
  phaselaw run                                measure the default study (seven GPT-2 sizes on this CPU) and report
  phaselaw run --dry-run                      the same with simulated latencies, in seconds
  phaselaw run my-study.yaml --out runs/a     measure your own study into runs/a
  phaselaw report runs/a                      what the run says: laws, regimes, cold start
  phaselaw plan runs/a --tokens-per-month 1e9 --usd-per-hour 1.006
"""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line as `argparse` sees it: whole, or with the options of ``only`` one command."""
    parser = argparse.ArgumentParser(
        prog="phaselaw",
        description="Measure LLM inference by phase, fit scaling laws with honest intervals, turn them into "
        "workers and dollars.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"phaselaw {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        if only in (None, name):
            load(name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=line)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    words = sys.argv[1:] if argv is None else argv
    # The options before a command take no values, so the first word that is none is the command.
    args = build_parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
    try:
        code: int = args.run(args)
    except PhaselawError as error:
        if args.debug:
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
