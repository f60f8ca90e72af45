"""How long ``phaselaw traffic`` takes for a log, and how much memory, beside the plain DuckDB statements.

Logs of Azure's columns are written (random arrivals, log-normal lengths) as CSV and as Parquet. Each is summarised by
a fresh process, and by another that runs no more than `PLAIN`: the rate, exact quantiles of the lengths, and the CV of
the sorted gaps. Shown are CPU seconds (a busy machine does not move them), wall seconds and peak memory. Ours must not
take more than 3 times the CPU of the plain statements, nor more than 500 MB.

    python benchmarks/traffic.py
    python benchmarks/traffic.py --rows 1000000 --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMES, MEGABYTES = 3.0, 500.0
"""What ours may take of the plain statements' CPU time, and at most of memory."""
PLAIN = """
SELECT count(*) / (epoch(max(TIMESTAMP)) - epoch(min(TIMESTAMP))) FROM {log};
SELECT quantile_cont(ContextTokens, {shares}), quantile_cont(GeneratedTokens, {shares}) FROM {log};
SELECT stddev_pop(gap) / avg(gap) FROM
(SELECT epoch(TIMESTAMP) - lag(epoch(TIMESTAMP)) OVER (ORDER BY TIMESTAMP) AS gap FROM {log});
"""
SHARES = [0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
HEAD = "import json, resource, sys, time\nbegan = time.perf_counter()\n"
TAIL = """
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"cpu_s": cpu, "wall_s": time.perf_counter() - began, "peak_mb": peak, "figures": figures}))
"""
OURS = """
from phaselaw.traffic.profile import traffic_profile
from phaselaw.traffic.source import Reading
found = traffic_profile([sys.argv[1]], Reading())
figures = [found["requests_per_s"], found["prompt_tokens"]["p95"], found["output_tokens"]["p95"], found["gap_cv"]]
"""
STATEMENTS = """
import duckdb
db = duckdb.connect(config={"memory_limit": "400MB"})
db.execute("SET enable_progress_bar = false")
[(rate,)], [(prompt, output)], [(cv,)] = [db.execute(one).fetchall() for one in sys.argv[2].split(";") if one.strip()]
figures = [rate, prompt[5], output[5], cv]
"""
MAKE = """
COPY (SELECT make_timestamp((1.7e15 + sum(gap) OVER (ORDER BY i ROWS UNBOUNDED PRECEDING))::BIGINT) AS TIMESTAMP,
exp(6.5 + a)::INT + 1 AS ContextTokens, exp(5 + b)::INT + 1 AS GeneratedTokens FROM
(SELECT i, -2e4 * ln(1 - random()) AS gap, sqrt(-2 * ln(1 - random())) * cos(6.2832 * random()) AS a,
sqrt(-2 * ln(1 - random())) * cos(6.2832 * random()) AS b FROM range({rows}) AS t(i))) TO '{path}' ({form})
"""


def write_log(path: Path, rows: int) -> None:
    """A log of so many rows, 50 requests a second, in the form of its ending, by a process of its own."""
    statement = MAKE.format(rows=rows, path=path, form="FORMAT parquet" if path.suffix == ".parquet" else "FORMAT csv")
    make = f"import duckdb, sys\nduckdb.connect(config={{'temp_directory': {str(path.parent)!r}}}).execute(sys.argv[1])"
    subprocess.run([sys.executable, "-c", make, statement], check=True, stdout=subprocess.DEVNULL)


def measured(work: str, *words: str) -> dict[str, Any]:
    """What one fresh process took."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + work + TAIL, *words], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 where time and memory keep their bounds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10**7, help="rows of each log")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for form, reader in (("csv", "read_csv"), ("parquet", "read_parquet")):
            path = Path(folder) / f"log.{form}"
            write_log(path, args.rows)
            plain = PLAIN.format(log=f"{reader}('{path}')", shares=SHARES)
            row: dict[str, Any] = {"form": form, "rows": args.rows, "log_mb": path.stat().st_size / 2**20}
            row |= {"ours": measured(OURS, str(path)), "plain": measured(STATEMENTS, str(path), plain)}
            row["times"] = row["ours"]["cpu_s"] / row["plain"]["cpu_s"]
            apart = zip(row["ours"]["figures"], row["plain"]["figures"], strict=True)
            row["same_figures"] = all(abs(a / b - 1) < 1e-4 for a, b in apart)
            found.append(row)
            path.unlink()
    if args.json:
        print(json.dumps({"logs": found, "times_allowed": TIMES, "mb_allowed": MEGABYTES}))
    for row in () if args.json else found:
        same = "the same" if row["same_figures"] else "NOT the same"
        print(f"{row['form']}, {row['rows']:,} rows, {row['log_mb']:.0f} MB; figures are {same}")
        for name in ("ours", "plain"):
            took = row[name]
            print(f"  {name:6} {took['cpu_s']:7.1f} s CPU {took['wall_s']:7.1f} s wall {took['peak_mb']:6.0f} MB")
        print(f"  ours / plain {row['times']:.2f}")
    kept = (row["times"] <= TIMES and row["ours"]["peak_mb"] <= MEGABYTES and row["same_figures"] for row in found)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
