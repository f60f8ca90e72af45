"""Does ``phaselaw traffic`` keep its memory, however long the log?

Logs of 10^5, 10^6 and 10^7 requests are written (random arrivals, log-normal lengths), each is summarised by a fresh
process, and shown are that process's peak resident memory and its time for a million rows, both also relative to the
first log's. Memory must not grow with the log beyond the million requests that are held back to put them in order.

    python benchmarks/traffic.py
    python benchmarks/traffic.py --rows 100000 1000000 --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 100_000
WORK = (
    "import resource, sys\n"
    "from pathlib import Path\n"
    "from phaselaw.traffic.log import Reading\n"
    "from phaselaw.traffic.profile import traffic_profile\n"
    "found = traffic_profile(Path(sys.argv[1]), Reading())\n"
    "print(found['requests'], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
)
GROWTH = 2.0
"""How much more memory the longest log may take than the shortest: what is held back for order, and no more."""


def write_log(path: Path, rows: int) -> None:
    """A log of Azure's columns: 50 requests a second."""
    generator = np.random.default_rng(1)
    at = 1.7e9
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            moments = at + np.cumsum(generator.exponential(0.02, n))
            lengths = generator.lognormal([6.5, 5.0], 1.0, (n, 2)).astype(int)
            dates = (moments * 1e6).astype("datetime64[us]").astype(str)
            file.writelines(f"{date.replace('T', ' ')}0,{p},{g}\n" for date, (p, g) in zip(dates, lengths, strict=True))
            at = float(moments[-1])


def measured(path: Path, rows: int) -> dict[str, Any]:
    """Peak memory and time of one process that summarises a log."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", WORK, str(path)], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    requests, peak = map(int, done.stdout.split())
    assert requests == rows
    # Linux tells KiB, macOS bytes.
    peak_mib = peak / (1024 if sys.platform != "darwin" else 1024**2)
    return {"rows": rows, "log_mib": path.stat().st_size / 2**20, "peak_mib": peak_mib, "seconds": seconds}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 where memory keeps its bound, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7], help="rows of each log")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in args.rows:
            path = Path(folder) / f"{rows}.csv"
            write_log(path, rows)
            found.append(measured(path, rows))
            path.unlink()
    first = found[0]
    for row in found:
        row["peak_over_first"] = row["peak_mib"] / first["peak_mib"]
        row["s_per_million_rows"] = row["seconds"] / row["rows"] * 1e6
    if args.json:
        print(json.dumps({"logs": found, "growth_allowed": GROWTH}))
    else:
        for row in found:
            print(
                f"{row['rows']:>11,} rows, {row['log_mib']:8.1f} MiB: peak {row['peak_mib']:6.1f} MiB "
                f"({row['peak_over_first']:.2f} x the first), {row['s_per_million_rows']:.1f} s a million rows"
            )
    return 0 if found[-1]["peak_over_first"] <= GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
