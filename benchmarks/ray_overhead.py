"""What does scheduling by Ray cost a call, and how much of the default study's time is that?

A simulated study whose calls take no time is measured as ``phaselaw run`` measures it, and by ``--ray`` on one node of
this machine. Between two calls of a replicate lies all that is done for a call: the event goes to the process that
keeps the run, is fsynced, and the next one is asked for. The difference of the medians is what Ray adds to a call; the
start of Ray and of processes is not counted. The default study's calls, times that, over the time that they take, is
the share: ``--run`` names a finished run of it, else its time is taken for 180 s. Exit 3 where it is 2 % or more.

    python benchmarks/ray_overhead.py --run runs/demo          about a minute
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from phaselaw.rundir.journal import read_journal
from phaselaw.study.file import load_study

STUDY = """\
run_name: overhead
gen_tokens: 4
replicates: 2
repetitions: {repetitions}
warmup_repetitions: 1
scenarios: [{{name: a, prompt_tokens: 1}}]
backends: [{{name: sim, kind: simulated}}]
models: [{{name: m1, kind: simulated}}, {{name: m2, kind: simulated}}]
"""
MOST = 0.02
DEFAULT_S = 180.0
"""What the default study takes on two cores, where no run of it is named."""


def gaps_ms(study: Path, out: Path, *options: str) -> list[float]:
    """From the start of each call to that of the next one, in the same process."""
    command = [sys.executable, "-m", "phaselaw", "run", str(study), "--out", str(out), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    calls = read_journal(out / "journal.jsonl").calls
    processes = {call.process_idx for call in calls}
    starts = [[call.started_at_unix for call in calls if call.process_idx == each] for each in processes]
    return [1000 * (after - before) for each in starts for before, after in pairwise(sorted(each))]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the cost of a call and its share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="of each model, in each of two replicates")
    parser.add_argument("--run", type=Path, help="a finished run of the default study")
    args = parser.parse_args(argv)
    default = load_study("gpt2-ladder-cpu").calls_planned()
    took_s = DEFAULT_S
    if args.run is not None:
        made = read_journal(args.run / "journal.jsonl").calls
        default, took_s = len(made), made[-1].started_at_unix - made[0].started_at_unix
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        study.write_text(STUDY.format(repetitions=args.calls))
        here = gaps_ms(study, Path(folder) / "here")
        by_ray = gaps_ms(study, Path(folder) / "ray", "--ray")
    one, two = statistics.median(here), statistics.median(by_ray)
    share = default * (two - one) / 1000 / took_s
    print(f"from call to call, median: {one:.2f} ms as usual, {two:.2f} ms by Ray: {two - one:.2f} ms more a call")
    print(f"of the default study: {default} calls, {default * (two - one) / 1000:.2f} s of {took_s:.0f} s: {share:.2%}")
    return 3 if share >= MOST else 0


if __name__ == "__main__":
    sys.exit(main())
