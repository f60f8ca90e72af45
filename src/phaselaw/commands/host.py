"""``phaselaw host``: what this machine is, and what it can do at most."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from phaselaw.commands.console import notes_console, print_json
from phaselaw.commands.options import add_json, option, positive, switch
from phaselaw.machine import identity
from phaselaw.machine.limits import DeviceLimits, MachineLimits, Spread, limits_of

DESCRIPTION = (
    "Measure what this machine can do: read bandwidth by working-set size, FLOP/s by number format, "
    "the timer and its jitter."
)
EXAMPLES = """\
examples:
  phaselaw host                 what this machine can do; measured in a few seconds, then kept
  phaselaw host --refresh       measure it again
  phaselaw host --threads 1     the limits of one thread
  phaselaw host --json

Each figure is a median over repeats, with its quartiles in brackets. What is kept goes into the manifest of each run,
where reports set latencies against it. Measure on an idle machine: what other programs take is missing here.
"""

JSON_VERSION = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Whether to measure again, and with how many threads."""
    switch(parser, "--refresh", "measure again, whatever was kept")
    option(parser, "--threads", "N", "threads to use (default: all that there are)", type=positive)
    add_json(parser, "print one JSON document, full precision")


def run(args: argparse.Namespace) -> int:
    """Print the machine and its limits; returns 0."""
    host = identity.host()
    with notes_console().status("measuring this machine (a few seconds)"):
        limits = limits_of(host, threads=args.threads, refresh=args.refresh)
    if args.json:
        print_json({"schema_version": JSON_VERSION, "host": host, "limits": limits.to_json()})
        return 0
    print(*_lines(host, limits), sep="\n")
    return 0


def _lines(host: Mapping[str, Any], limits: MachineLimits) -> Iterator[str]:
    yield f"processor  {host['cpu_model']}: {host['cores_physical']} cores, {host['cores_logical']} logical"
    yield "caches     " + (
        ", ".join(f"L{each['level']} {_size(each['bytes'])}" for each in host["caches"]) or "unknown"
    )
    yield f"memory     {_size(host['memory_bytes'])}"
    yield "GPU        " + (", ".join(f"{gpu['name']} ({gpu['memory']})" for gpu in host["gpus"]) or "none")
    for device, each in limits.devices.items():
        yield ""
        yield f"{device}: {each.name}" + (f", {limits.threads} threads" if device == "cpu" else "")
        yield from _device_lines(each)
    clock = limits.clock
    yield ""
    yield f"timer      steps of {clock.resolution_ns:.0f} ns, {clock.read_ns:.0f} ns a reading"
    yield (
        f"jitter     {clock.taken_share:.2%} of {clock.watched_s:g} s taken by others (gaps over 10 us); "
        f"p99 {clock.gap_p99_us:.2f} us, longest {clock.gap_max_us:.0f} us"
    )
    yield f"measured in {limits.took_s:.1f} s; in brackets: quartiles over repeats"


def _device_lines(limits: DeviceLimits) -> Iterator[str]:
    yield "  read from a working set of"
    for point in limits.read:
        yield f"    {_size(point.working_set_bytes):>8} {_spread(point.gb_per_s)} GB/s"
    if limits.copy is not None:
        size = _size(limits.copy.working_set_bytes)
        yield f"  copy within {size} (bytes read and bytes written)\n             {_spread(limits.copy.gb_per_s)} GB/s"
    yield "  matrix product"
    for each in limits.compute:
        yield f"    {each.dtype:>8} {_spread(each.gflop_per_s)} GFLOP/s ({each.library})"


def _spread(spread: Spread) -> str:
    return f"{spread.median:>9.1f} [{spread.p25:.1f}, {spread.p75:.1f}]"


def _size(size_bytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes} B"
