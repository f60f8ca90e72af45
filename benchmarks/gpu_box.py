"""The steps of ``benchmarks/gpu.sh``: each a process with a time limit of its own, its result kept whatever follows.

The first step, within `FIRST_S` seconds: the tests marked gpu, the models, the machine's limits, TR121's ladder in
fp16, its boundary studies of batch 8 and of 512 tokens. The second, in the time that is left: larger models
(`benchmarks/gpu_models.py`). After each part the page ``gpu.md`` and the archives are written anew, so that a machine
that is taken away in the middle leaves what was done. A part at its limit is interrupted as by Ctrl-C, which keeps
every call measured so far.

--dry runs the same parts, tiny, on a CPU: three models, few tokens, float32. No figure of it is a GPU's.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import IO, Any

import gpu_page
from gpu_page import FAILED, LEFT_OUT, OK, STOPPED, Part

TOP = Path(__file__).resolve().parents[1]
TOTAL_S, FIRST_S = 560.0, 480.0
"""A lent machine ends a command after 600 s; the first step is to be over in 8 minutes."""
GRACE_S = 20.0
"""From the interrupt to the kill of a part at its limit."""
MOST_BYTES = 16 * 10**6
LADDER = ("tiny-gpt2", "gpt2-5m", "gpt2-25m", "gpt2-45m", "gpt2-50m", "gpt2-75m", "gpt2-100m")
RUN_S, START_S = {"ladder": 150.0, "batch8": 120.0, "gen512": 180.0}, 25.0
"""What each study may take, and what of it goes to imports, analysis and report."""
STUDIES = {"ladder": "tr121-scaling", "batch8": "boundary-batch8", "gen512": "boundary-gen512"}
REPETITIONS = 3


class Box:
    """One visit to a machine: where its parts write, how much time is left, what became of each."""

    def __init__(self, *, work: Path, out: Path, dry: bool, seconds: float) -> None:
        self.work, self.out, self.dry = work, out, dry
        self._begun, self._seconds = perf_counter(), seconds
        self.parts: list[Part] = []
        self.models = LADDER[:3] if dry else LADDER
        for folder in (self.logs, self.runs, out):
            folder.mkdir(parents=True, exist_ok=True)
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of a shell's background job: no part would heed it
            signal.signal(signal.SIGINT, signal.default_int_handler)  # here, since only the main thread may

    @property
    def logs(self) -> Path:
        """What each part printed."""
        return self.work / "logs"

    @property
    def runs(self) -> Path:
        """The run directories."""
        return self.work / "runs"

    def left_s(self, name: str) -> float:
        """Seconds until the step of a part must be over."""
        end = self._seconds if name == "larger" else min(FIRST_S, self._seconds)
        return end - (perf_counter() - self._begun)

    def part(self, name: str, limit_s: float, *command: str) -> Part:
        """Run a part to its end or its limit, and keep what became of it."""
        limit_s = min(limit_s, self.left_s(name) - GRACE_S)
        if limit_s < 5:
            return self._kept(Part(name, LEFT_OUT, 0.0, "no time was left"))
        begun, log = perf_counter(), self.logs / f"{name}.txt"
        with log.open("w", encoding="utf-8") as output:
            code = _ended(command, output, limit_s)
        seconds = perf_counter() - begun
        said = _last_line(log)
        if code is None:
            return self._kept(Part(name, STOPPED, seconds, f"stopped at its limit of {limit_s:.0f} s; {said}"))
        if code == 0:
            return self._kept(Part(name, OK, seconds, said))
        return self._kept(Part(name, FAILED, seconds, f"exit code {code}: {said}", _failures(log)))

    def _kept(self, part: Part) -> Part:
        self.parts.append(part)
        print(f"{part.name}: {part.status} after {part.seconds:.0f} s; {part.said}", flush=True)
        return part

    def keep(self) -> None:
        """Write the archives and the page as things stand."""
        for name in ("ladder", "batch8", "gen512", "larger"):
            if (self.runs / name).is_dir():
                archive(self.runs / name, self.out / f"{name}.tar.gz")
        archive(self.logs, self.out / "logs.tar.gz")
        (self.out / "gpu.md").write_text(
            gpu_page.page(self.runs, self.logs / "host.txt", self.parts, dry=self.dry), encoding="utf-8"
        )


def _ended(command: Sequence[str], output: IO[str], limit_s: float) -> int | None:
    """A command's exit code; ``None`` where it was stopped at its limit, with all that it started."""
    process = subprocess.Popen(
        list(command),
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd=TOP,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    """The last thing that a part said, on one line without machine paths; a JSON document is told elsewhere."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if lines and lines[-1].startswith("{"):
        return ""
    return re.sub(r"/\S*/", "", lines[-1])[:200].replace("|", "/") if lines else "it said nothing"


def _failures(log: Path) -> tuple[str, ...]:
    """What pytest's summary says of each test that failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line[:300] for line in lines if line.startswith(("FAILED ", "ERROR ")))[:20]


def archive(folder: Path, target: Path) -> None:
    """A folder as a ``.tar.gz``; plots and pages stay out where it would be over 16 MB."""
    for left_out in ((), (".svg", ".png", ".html"), (".svg", ".png", ".html", ".jsonl")):
        with tarfile.open(f"{target}.part", "w:gz") as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix not in left_out:
                    tar.add(path, arcname=str(Path(folder.name) / path.relative_to(folder)))
        if Path(f"{target}.part").stat().st_size <= MOST_BYTES:
            break
    Path(f"{target}.part").replace(target)


def phaselaw(*arguments: str) -> tuple[str, ...]:
    """A command line of phaselaw."""
    return (sys.executable, "-m", "phaselaw", *arguments)


def tests(box: Box) -> None:
    """The tests marked gpu."""
    marked = [str(path) for path in sorted((TOP / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    box.part("tests", 180, sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *marked)


def models(box: Box) -> None:
    """The ladder, built."""
    box.part("models", 120, *phaselaw("models", "build", ",".join(box.models)))


def host(box: Box) -> None:
    """What the machine can do: reading, copying, products, of the processor and of the GPU."""
    box.part("host", 90, *phaselaw("host", "--json"))


def study(box: Box, name: str) -> None:
    """One study of the first step, analysed and reported, also where it was stopped at its limit."""
    out, file = box.runs / name, box.work / f"{name}.json"
    told = subprocess.run(
        phaselaw("study", "show", STUDIES[name], "--json"), capture_output=True, text=True, check=False, cwd=TOP
    )
    if told.returncode != 0:
        (box.logs / f"{name}.txt").write_text(told.stderr)
        box.part(name, RUN_S[name], sys.executable, "-c", f"raise SystemExit({told.stderr[-200:]!r})")
        return
    asked = wanted(json.loads(told.stdout), box, name)
    file.write_text(json.dumps(asked), encoding="utf-8")
    part = box.part(name, RUN_S[name], *phaselaw("run", str(file), "--out", str(out)))
    if part.status == STOPPED and (out / "metrics.csv").is_file():
        for command in ("analyze", "report"):
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(phaselaw(command, str(out)), capture_output=True, check=False, cwd=TOP, timeout=GRACE_S)


def wanted(study: dict[str, Any], box: Box, name: str) -> dict[str, Any]:
    """A shipped study as it is measured here: on the GPU alone; dry, on the CPU and tiny."""
    backends = [each for each in study["backends"] if each["kind"] == "hf" and each["device"] == "cuda"]
    ladder = {f"models/{model}" for model in box.models}
    chosen = study | {"backends": backends, "models": [each for each in study["models"] if each["name"] in ladder]}
    if name == "gen512":
        chosen["repetitions"] = repetitions(box.runs / "ladder", min(RUN_S[name], box.left_s(name) - GRACE_S))
    if box.dry:
        on_cpu = {"device": "cpu", "dtype": "fp32", "threads": 1}
        tiny = [each | on_cpu | {"batch_size": min(each["batch_size"], 2)} for each in backends]
        chosen |= {"backends": tiny, "gen_tokens": 4 if name == "gen512" else 2, "repetitions": 1}
    chosen.pop("axes", None)
    return chosen


def repetitions(ladder: Path, seconds: float) -> int:
    """How many repetitions of 512 tokens a time allows, by the ladder's decode of 64: TR121's three, or fewer."""
    took: dict[str, list[float]] = defaultdict(list)
    with suppress(OSError, ValueError, KeyError), (ladder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["mode"] == "kv_decode" and row["status"] == "ok" and row["scenario"] == "medium":
                took[row["model"]].append(float(row["latency_ms"]) / 1e3)
    once = sum(median(each) for each in took.values()) * 512 / 64
    fit = int((seconds - START_S) / once) - 1 if once else REPETITIONS  # one more is the warmup
    return max(1, min(REPETITIONS, fit))


def larger(box: Box) -> None:
    """The second step."""
    seconds, script = box.left_s("larger") - 2 * GRACE_S, str(TOP / "benchmarks" / "gpu_models.py")
    box.part(
        "larger", seconds, sys.executable, script, "--out", str(box.runs / "larger"),
        "--limits", str(box.logs / "host.txt"), "--seconds", f"{seconds - GRACE_S:.0f}", *["--dry"] * box.dry,
    )  # fmt: skip
    if (box.runs / "larger" / "metrics.csv").is_file():
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                phaselaw("analyze", str(box.runs / "larger")), capture_output=True, check=False, timeout=GRACE_S
            )


STEPS: dict[str, Callable[[Box], None]] = {
    "tests": tests, "models": models, "host": host, **{name: partial(study, name=name) for name in STUDIES},
    "larger": larger,
}  # fmt: skip
ONE_BY_ONE = tuple((name,) for name in STEPS)
DRY = (("tests", "models"), ("host",), ("ladder", "batch8"), ("gen512", "larger"))
"""Where nothing is timed, two parts run at once."""


def main() -> int:
    """Run the parts; 0 where each ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("gpu-results"), metavar="OUT")
    parser.add_argument("--work", type=Path, required=True, help="a folder for models, runs and logs")
    parser.add_argument("--dry", action="store_true", help="the same steps, tiny, on a CPU")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help=f"time for everything (default {TOTAL_S:g})")
    parser.add_argument("--only", default=",".join(STEPS), metavar="A,B", help=f"of {','.join(STEPS)}")
    args = parser.parse_args()
    unknown = set(only := args.only.split(",")) - set(STEPS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    box = Box(work=args.work, out=args.out.resolve(), dry=args.dry, seconds=args.seconds)
    begun = perf_counter()
    for together in DRY if args.dry else ONE_BY_ONE:
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(STEPS[name], box) for name in together if name in only]:
                done.result()
        box.keep()
    bad = [part.name for part in box.parts if part.status != OK]
    print(f"{perf_counter() - begun:.0f} s; {'not well: ' + ', '.join(bad) if bad else 'all well'}; {args.out}/gpu.md")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
