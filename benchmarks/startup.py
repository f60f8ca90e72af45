"""How long does ``phaselaw --help`` take, against Python with argparse alone?

Both are started as processes of their own, interleaved and in turn first, so that drift cancels. Printed are the
medians of their wall times and the ratio of the two, which must be at most 3.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 40 --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from statistics import median
from time import perf_counter

LIMIT = 3.0
HELP = (sys.executable, "-m", "phaselaw", "--help")
BARE = (sys.executable, "-c", "import argparse")


def wall_ms(command: Sequence[str]) -> float:
    """Milliseconds from the start of a process to its end; raises `CalledProcessError` where it fails."""
    begun = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (perf_counter() - begun) * 1e3


def compare(rounds: int) -> tuple[float, float]:
    """Median wall times in ms of the help and of bare argparse, after one round of warmup."""
    times: dict[Sequence[str], list[float]] = {HELP: [], BARE: []}
    for index in range(rounds + 1):
        for command in (HELP, BARE) if index % 2 else (BARE, HELP):
            times[command].append(wall_ms(command))
    return median(times[HELP][1:]), median(times[BARE][1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and return 0 within the limit, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="starts of each")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    help_ms, bare_ms = compare(args.rounds)
    ratio = help_ms / bare_ms
    if args.json:
        print(json.dumps({"help_ms": help_ms, "argparse_ms": bare_ms, "ratio": ratio, "limit": LIMIT}))
    else:
        print(
            f"phaselaw --help {help_ms:.1f} ms, import argparse {bare_ms:.1f} ms: {ratio:.2f} x (limit {LIMIT:.0f} x)"
        )
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
