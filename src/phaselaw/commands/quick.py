"""Measure one model of a server that runs already, for about a minute: speed, users it serves, trust.

examples:
  phaselaw quick                              the first server found on this machine
  phaselaw quick qwen2.5:7b                   a model that one of them has
  phaselaw quick http://gpu-box:8000 --slo-ttft 1s
                                              another server, and what its users wait at most
"""

import argparse
import re

from phaselaw.commands import run as measuring
from phaselaw.commands.options import a_path, duration, option
from phaselaw.engines import permits
from phaselaw.measure.quick import PORTS, serving


def add_options(parser: argparse.ArgumentParser) -> None:
    here = ", ".join(f"{name} ({port})" for port, name in PORTS.items())
    parser.epilog = f"{parser.epilog}\nLooked for here: {here}.\n"
    option(parser, "target", "URL or MODEL", "a server's address, or a model of a server here", nargs="?")
    option(parser, "--model", "NAME", "which of the server's models (default: the first that is loaded)")
    option(parser, "--out", "DIR", "run directory (default: runs/quick/TIME)", type=a_path)
    for name, of, usual in zip(("--slo-ttft", "--slo-tpot"), ("first", "next"), measuring.QUICK_SLO_MS, strict=True):
        wait = f"how long a user waits at most for the {of} token (default: {usual:g}ms)"
        option(parser, name, "TIME", wait, duration, default=usual / 1e3)


def run(args: argparse.Namespace) -> int:
    """Find the server, measure, print; returns 0, or 3 where some calls failed, or 130 where it was interrupted."""
    bare = re.fullmatch(r"[^/:]+:\d{4,5}(/.*)?", args.target or "")  # a model's tag has no four digits
    address = f"http://{args.target}" if bare else args.target if "://" in (args.target or "") else None
    permits.allow(key_hosts=(), settings=[f"url={address}"] if address else (), programs=False)
    server = serving(args.model or (None if address else args.target), address)
    return measuring.quick(server, out=args.out, slo_ms=(1e3 * args.slo_ttft, 1e3 * args.slo_tpot))
