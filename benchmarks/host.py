"""Does ``phaselaw host`` measure what independent tools measure?

Interleaved in rounds on the same threads and the same working set, with the order turned round in every other round:

- read bandwidth against likwid-bench (its load kernel for this processor: bytes loaded) and sysbench (its memory read:
  blocks of the working set over the threads, each byte once). sysbench loads 8 bytes an instruction, so that in a cache
  it is bound by its own loop: it is shown, and judged only where likwid is absent and the set is in memory.
- copy bandwidth against mbw's MEMCPY, one thread. mbw counts a copied byte once; here it is counted twice, read and
  written, as phaselaw does.
- matrix products against scipy's sgemm and dgemm, which are another copy of BLAS than numpy's and none of torch's.
  Which kernel it chose is printed; environment variables that choose one are left as they are.

A tool that is not installed is named: apt-get install likwid sysbench mbw.

    python benchmarks/host.py --rounds 7
    python benchmarks/host.py --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.linalg import blas

from phaselaw.machine.limits import Spread, all_threads
from phaselaw.machine.peak_memory import MB
from phaselaw.machine.probe import copy_rate, processor_products, read_curve

TOLERANCE = 0.15
READ_MB, IN_MEMORY_MB, COPY_MB, SIDE = (4, 64, 1024), 64, 512, 1024
Measure = Callable[[], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two measures of one thing."""

    what: str
    tool: str
    unit: str
    ours: Measure
    theirs: Measure
    judged: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The spread of both over the rounds, and of ours over theirs within each round."""

    what: str
    tool: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    judged: bool

    @property
    def agrees(self) -> bool:
        """Whether the median ratio is within the tolerance."""
        return abs(self.ratio.median - 1) <= TOLERANCE


def pairs(threads: int) -> Iterator[Pair]:
    """Everything that can be compared here."""
    likwid, sysbench, mbw = (shutil.which(name) for name in ("likwid-bench", "sysbench", "mbw"))
    for size in READ_MB:
        read = partial(Pair, what=f"read, {size} MiB, {threads} threads", unit="GB/s")
        read = partial(read, ours=partial(our_read, size, threads))
        if likwid:
            yield read(tool=f"likwid {load_kernel()}", judged=True, theirs=partial(likwid_read, size, threads))
        if sysbench:
            judged = not likwid and size >= IN_MEMORY_MB
            yield read(tool="sysbench", judged=judged, theirs=partial(sysbench_read, size, threads))
    if mbw:
        copy = partial(Pair, what=f"copy, {COPY_MB} MiB, 1 thread", unit="GB/s", judged=True)
        yield copy(tool="mbw MEMCPY x 2", ours=our_copy, theirs=mbw_copy)
    for dtype, gemm in (("fp32", "sgemm"), ("fp64", "dgemm")):
        product = partial(Pair, what=f"matrix product, {dtype}", unit="GFLOP/s", judged=True)
        yield product(tool=f"scipy {gemm}", ours=partial(our_product, dtype), theirs=partial(scipy_product, gemm))


def our_read(size_mb: int, threads: int) -> float:
    """GB/s as phaselaw host tells it."""
    return read_curve(threads, [size_mb * MB])[0].gb_per_s.median


def our_copy() -> float:
    """GB/s of copying as phaselaw host --threads 1 tells it."""
    return copy_rate(1, COPY_MB * MB).gb_per_s.median


def our_product(dtype: str) -> float:
    """GFLOP/s as phaselaw host tells it."""
    return next(each.gflop_per_s.median for each in processor_products() if each.dtype == dtype)


def scipy_product(name: str) -> float:
    """GFLOP/s of scipy's BLAS, the median of seven products."""
    gemm = getattr(blas, name)
    draw = np.random.default_rng(0)
    dtype = np.float32 if name == "sgemm" else np.float64
    a, b = (np.asfortranarray(draw.random((SIDE, SIDE)), dtype=dtype) for _ in range(2))
    gemm(1.0, a, b)
    rates = []
    for _ in range(7):
        begun = perf_counter()
        gemm(1.0, a, b)
        rates.append(2 * SIDE**3 / (perf_counter() - begun) / 1e9)
    return Spread.of(rates).median


def load_kernel() -> str:
    """The widest load kernel of likwid-bench that this processor runs."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "load_avx512" if "avx512f" in flags else "load_avx" if "avx" in flags else "load"


def likwid_read(size_mb: int, threads: int) -> float:
    """GB/s loaded; likwid's MByte are 1e6 bytes, its MB of a working set 1e6 as well."""
    iterations = str(max(8, 6000 // size_mb))
    workgroup = f"N:{size_mb * MB // 1000}kB:{threads}"
    said = output(["likwid-bench", "-t", load_kernel(), "-w", workgroup, "-i", iterations])
    return found(r"MByte/s:\s+([\d.]+)", said) / 1e3


def sysbench_read(size_mb: int, threads: int) -> float:
    """GB/s read; each thread has a block of its own."""
    said = output(["sysbench", "memory", "--memory-oper=read", "--memory-scope=local", f"--threads={threads}",
                   f"--memory-block-size={size_mb * MB // threads}", "--memory-total-size=8G", "run"])  # fmt: skip
    return found(r"\(([\d.]+) MiB/sec\)", said) * MB / 1e9


def mbw_copy() -> float:
    """GB/s moved by memcpy between two arrays of half the working set each."""
    said = output(["mbw", "-q", "-n", "7", "-t", "0", str(COPY_MB // 2)])
    return 2 * found(r"AVG.*Copy: ([\d.]+) MiB/s", said) * MB / 1e9


def output(command: list[str]) -> str:
    """What a tool prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.stdout + done.stderr


def found(pattern: str, text: str) -> float:
    """The number that a tool's output holds."""
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"can't read a tool's output: {text[-300:]}")
    return float(match[1])


def compare(pair: Pair, rounds: int) -> Result:
    """Both in each round, after one that warms up."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + 1):
        for is_ours in (True, False) if number % 2 else (False, True):
            value = pair.ours() if is_ours else pair.theirs()
            if number:
                (ours if is_ours else theirs).append(value)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Result(what=pair.what, tool=pair.tool, unit=pair.unit, judged=pair.judged, ours=Spread.of(ours),
                  theirs=Spread.of(theirs), ratio=Spread.of(ratios))  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and return 0 where all that is judged agrees, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each comparison (7)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    missing = [name for name in ("likwid-bench", "sysbench", "mbw") if shutil.which(name) is None]
    chosen = {name: os.environ[name] for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ}
    results = []
    if not args.json:
        print(f"numpy {np.__version__}; set in the environment: {chosen or 'nothing'}")
        print(f"not installed: {', '.join(missing) or 'nothing'}\n")
        print(f"{'what':<30}{'tool':<20}{'ours':>10}{'theirs':>10}{'ratio':>8}  quartiles")
    for pair in pairs(all_threads()):
        result = compare(pair, args.rounds)
        results.append(result)
        if not args.json:
            spread = f"{result.ratio.p25:.3f}-{result.ratio.p75:.3f}"
            verdict = ("agrees" if result.agrees else "DIFFERS") if result.judged else "shown only"
            print(f"{result.what:<30}{result.tool:<20}{result.ours.median:>10.1f}{result.theirs.median:>10.1f}"
                  f"{result.ratio.median:>8.3f}  {spread} {verdict}", flush=True)  # fmt: skip
    if args.json:
        print(json.dumps({"blas": f"numpy {np.__version__}", "environment": chosen, "missing": missing,
                          "results": [dataclasses.asdict(each) for each in results]}, indent=1))  # fmt: skip
    return 0 if all(each.agrees for each in results if each.judged) else 1


if __name__ == "__main__":
    sys.exit(main())
