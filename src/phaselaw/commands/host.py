"""Measure what this machine can do: read bandwidth by working-set size, FLOP/s by number format, the timer and its
jitter.

examples:
  phaselaw host                 what this machine can do; measured in seconds where it is quiet, then kept
  phaselaw host --refresh       measure it again
  phaselaw host --threads 1     the limits of one thread
  phaselaw host --json

Each figure is a median over repeats, with its quartiles in brackets. What is kept goes into the manifest of each run,
where reports set latencies against it. Measure on an idle machine: what other programs take is missing here. Where they
take more than 10 % of the time (jitter), nothing is kept, and no report sets latencies against it.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from phaselaw.commands.console import notes_console
from phaselaw.commands.options import add_count, add_json, answer, switch
from phaselaw.machine import identity
from phaselaw.machine.limits import MachineLimits, Spread, limits_of


def add_options(parser: argparse.ArgumentParser) -> None:
    switch(parser, "--refresh", "measure again, whatever was kept")
    add_count(parser, "--threads", "threads to use (default: all that there are)")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    host = identity.host()
    with notes_console().status("measuring this machine (seconds; where it is busy up to two minutes)"):
        limits = limits_of(host, threads=args.threads, refresh=args.refresh)
    document = {"schema_version": 1, "host": host, "limits": asdict(limits), "doubt": limits.doubt}
    answer(args.json, document, _lines(host, limits))


def _lines(host: Mapping[str, Any], limits: MachineLimits) -> Iterator[str]:
    caches = ", ".join(f"L{each['level']} {_size(each['bytes'])}" for each in host["caches"])
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory']})" for gpu in host["gpus"])
    if limits.doubt:
        yield f"IN DOUBT   {limits.doubt}"
    yield f"processor  {host['cpu_model']}: {host['cores_physical']} cores, {host['cores_logical']} logical"
    yield f"caches     {caches or 'unknown'}"
    yield f"memory     {_size(host['memory_bytes'])}"
    yield f"GPU        {gpus or 'none'}"
    for device, each in limits.devices.items():
        yield f"\n{device}: {each.name}" + (f", {limits.threads} threads" if device == "cpu" else "")
        yield "  read from a working set of"
        for point in each.read:
            yield f"    {_size(point.working_set_bytes):>8} {_spread(point.gb_per_s)} GB/s"
        if each.copy is not None:
            yield f"  copy within {_size(each.copy.working_set_bytes)} (bytes read and bytes written)"
            yield f"             {_spread(each.copy.gb_per_s)} GB/s"
        yield "  matrix product"
        for rate in each.compute:
            yield f"    {rate.dtype:>8} {_spread(rate.gflop_per_s)} GFLOP/s ({rate.library})"
    clock = limits.clock
    yield f"\ntimer      steps of {clock.resolution_ns:.0f} ns, {clock.read_ns:.0f} ns a reading"
    yield (
        f"jitter     {clock.taken_share:.2%} of {clock.watched_s:g} s taken by others (gaps over 10 us); "
        f"p99 {clock.gap_p99_us:.2f} us, longest {clock.gap_max_us:.0f} us"
    )
    yield f"measured in {limits.took_s:.1f} s; in brackets: quartiles over repeats"


def _spread(spread: Spread) -> str:
    return f"{spread.median:>9.1f} [{spread.p25:.1f}, {spread.p75:.1f}]"


def _size(size_bytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes} B"
