"""Kill a run with SIGKILL at random moments, resume it each time until it is complete, and say what came of it.

    python tests/kill_driver.py --out DIR --kills 50 --seed 1

The study is simulated in real time, so that a call is under way when a kill comes. A fifth of the kills fall while the
process starts, a tenth while it writes its tables and its report, and the others while it measures. After each, what
the journal held before must still stand there, whole and first. Printed is one JSON document; exit 1 where a kill did
damage. The run then lies in DIR/killed, and the same study never disturbed in DIR/whole.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

STUDY = """\
run_name: killed
gen_tokens: 8
repetitions: 79
warmup_repetitions: 1
seed: 7
scenarios: [{name: a, prompt_tokens: 1}, {name: b, prompt_tokens: 9}, {name: c, prompt_tokens: 17}]
backends:
  - {name: sim, kind: simulated, overhead_ms: 0.4, params_ms: 0.1, model_scatter: 0.1, failure_rate: 0.05,
     early_stop_rate: 0.1, real_time: true}
models:
  - {name: m1, kind: simulated, params_millions: 1}
  - {name: m2, kind: simulated, params_millions: 5}
  - {name: m3, kind: simulated, params_millions: 25}
  - {name: m4, kind: simulated, params_millions: 100}
"""
RUN = (sys.executable, "-m", "phaselaw", "run")
STARTING, MEASURING, WRITING = "starting", "measuring", "writing"
LONGEST_S = {STARTING: 0.6, MEASURING: 0.3, WRITING: 3.0}
"""Each kill comes after a share of this, drawn anew, from the beginning of its stage on."""


class DamageError(Exception):
    """A kill destroyed something."""


class Victim:
    """A run that is killed again and again."""

    def __init__(
        self, study: Path, out: Path, seed: int, command: Sequence[str] = RUN, more: Sequence[str] = ()
    ) -> None:
        """``command`` begins the run, with ``more``, and goes on with it."""
        self.study, self.out, self.begins, self.more = study, out, command, more
        self.draw = random.Random(seed)
        self.kept = b""
        self.landed: Counter[str] = Counter()
        self.torn = self.too_late = 0

    def journal(self, since: int = 0) -> bytes:
        """The journal's bytes from so many on; empty where there is none yet."""
        path = self.out / "journal.jsonl"
        if not path.exists():
            return b""
        with path.open("rb") as file:
            file.seek(since)
            return file.read()

    def command(self) -> list[str]:
        """Begins the run, or goes on with it once it has a journal."""
        begin = [str(self.study), "--out", str(self.out), *self.more]
        return [*self.begins, *(["--resume", str(self.out)] if self.journal() else begin)]

    def kill_while(self, stage: str) -> None:
        """Start the run and kill it within a stage; raises `DamageError` where the journal lost what it held.

        A process that had ended by itself before its kill is no kill, and is started again.
        """
        while not self._killed_while(stage):
            self.too_late += 1
            if self.too_late > 20:
                raise DamageError("the run ends before it can be killed")

    def _killed_while(self, stage: str) -> bool:
        before = len(self.journal())
        with subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            self._await(process, self._beginning(stage, before))
            time.sleep(self.draw.random() * LONGEST_S[stage])
            ended = process.poll() is not None
            process.kill()
        self._check()
        self.landed[stage] += not ended
        return not ended

    def _beginning(self, stage: str, before: int) -> Callable[[], bool]:
        """Whether a stage has begun, seen from outside."""
        if stage == MEASURING:
            return lambda: b'"event":"call"' in self.journal(before)
        if stage == WRITING:
            return lambda: b'"event":"end"' in self.journal()
        return lambda: True

    def _await(self, process: subprocess.Popen[bytes], begun: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not begun() and process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                raise DamageError("the process neither went on nor ended")
            time.sleep(0.005)

    def _check(self) -> None:
        now = self.journal()
        if not now.startswith(self.kept):
            raise DamageError("events that were on the disk are gone or changed")
        self.kept = now[: now.rfind(b"\n") + 1]
        self.torn += self.kept != now

    def complete(self) -> int:
        """Go on undisturbed to the end; the exit code."""
        return subprocess.run(self.command(), check=False, stdout=subprocess.DEVNULL).returncode


def stages(kills: int) -> list[str]:
    """What each kill is to hit: a tenth comes last, since writing follows measuring."""
    writing = kills // 10
    return [STARTING if index % 5 == 4 else MEASURING for index in range(kills - writing)] + [WRITING] * writing


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, resume, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--kills", type=int, default=50, help="how many kills")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    study = args.out / "study.yaml"
    study.write_text(STUDY)
    whole = (*RUN, str(study), "--out", str(args.out / "whole"), "--set", "backends.sim.real_time=false")
    whole_exit = subprocess.run(whole, check=False, stdout=subprocess.DEVNULL).returncode
    victim = Victim(study, args.out / "killed", args.seed)
    try:
        for stage in stages(args.kills):
            victim.kill_while(stage)
    except DamageError as damage:
        print(f"kill {sum(victim.landed.values())}: {damage}")
        return 1
    exits = {"whole": whole_exit, "killed": victim.complete()}
    print(json.dumps({"landed": victim.landed, "torn_lines": victim.torn, "exits": exits}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
