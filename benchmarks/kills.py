"""kill -9 over every command that writes, and flipped bytes in every file of a run: what was lost, doubled or believed.

    python benchmarks/kills.py --kills 200 --flips 300       about 20 minutes on two cores

A third of the kills fall on ``phaselaw run`` and its resumes, a third on ``phaselaw sweep`` (tests/kill_driver.py:
after each, what the journal held must stand there still), and the rest on ``report``, ``traffic --out`` and ``models
build``, whose files must be whole or absent after each kill, and equal to those of an undisturbed command in the end
(figures of a profile to 12 digits: its sums are made in parallel). Then single bytes are changed in ``journal.jsonl``,
``manifest.json`` and ``metrics.csv`` of a finished run: a change is *refused* where reading the run fails, and *no
figure* where the run reads as before. *SILENT* ones must be none. Exit 3 where a kill or a flip did damage.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from phaselaw.errors import PhaselawError
from phaselaw.rundir import read
from phaselaw.rundir.derive import faults
from phaselaw.rundir.journal import read_journal

driver: Any = importlib.import_module("kill_driver")
DamageError: type[Exception] = driver.DamageError
PHASELAW = (sys.executable, "-m", "phaselaw")


def killed_run(out: Path, kills: int, verb: str, more: Sequence[str]) -> str:
    """Kill a run again and again, go on each time, and compare its calls with those of one that never was."""
    study = out / f"{verb}.yaml"
    study.write_text(driver.STUDY)
    victim = driver.Victim(study, out / verb, kills, (*PHASELAW, verb), more)
    for stage in driver.stages(kills):
        victim.kill_while(stage)
    victim.complete()
    calls = [call.call_id for call in read_journal(victim.out / "journal.jsonl").calls]
    lost = len(set(read.load(victim.out).unfinished))
    doubled = len(calls) - len(set(calls))
    found = [*faults(victim.out)]
    if lost or doubled or found:
        raise DamageError(f"{verb}: {lost} lost, {doubled} doubled, {found}")
    landed = ", ".join(f"{count} {stage}" for stage, count in victim.landed.items())
    return f"{sum(victim.landed.values())} kills ({landed}), {len(calls)} calls, none lost, none doubled"


def killed_command(words: Sequence[str], files: Sequence[Path], kills: int, draw: random.Random) -> str:
    """Kill a command that writes files at random moments; each is whole or absent, and in the end as it should be."""

    def hashes() -> dict[str, str]:
        there = [each for path in files for each in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        whole = [each for each in there if each.is_file() and not each.name.startswith(".")]
        return {str(each): hashlib.sha256(_content(each)).hexdigest() for each in whole}

    def clear() -> None:
        for path in files:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)

    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    took, wanted, landed = time.monotonic() - began, hashes(), 0
    while landed < kills:
        if draw.random() < 0.5:
            clear()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(took * draw.random())
            landed += process.poll() is None
            process.kill()
        if torn := [path for path, digest in hashes().items() if wanted.get(path) != digest]:
            raise DamageError(f"{words[3:]}: half written: {torn}")
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if hashes() != wanted:
        raise DamageError(f"{words[3:]}: not as an undisturbed command writes it")
    return f"{landed} kills, {len(wanted)} files, each whole or absent, equal in the end"


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".json":
        return raw
    return json.dumps(json.loads(raw, parse_float=lambda text: f"{float(text):.12g}")).encode()


def flipped(run: Path, flips: int, draw: random.Random) -> dict[str, Counter[str]]:
    """Change a byte of each file so many times: refused, of no figure, or silent."""
    rows, models, found = read.load(run).rows, read.load(run).models, {}
    for name in ("journal.jsonl", "manifest.json", "metrics.csv"):
        kept, outcomes = (run / name).read_bytes(), Counter[str]()
        for _ in range(flips):
            at = draw.randrange(len(kept))
            (run / name).write_bytes(kept[:at] + bytes([kept[at] ^ draw.randrange(1, 256)]) + kept[at + 1 :])
            try:
                now = read.load(run)
                same = now.rows.equals(rows) and now.models.equals(models)
                outcomes["no figure" if same else "SILENT"] += 1
            except PhaselawError:
                outcomes["refused"] += 1
            outcomes["found by --verify"] += bool([*faults(run)])
        (run / name).write_bytes(kept)
        found[name] = outcomes
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, flip, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="over all commands")
    parser.add_argument("--flips", type=int, default=300, help="of each file")
    args = parser.parse_args(argv)
    draw, third, ninth = random.Random(7), args.kills // 3, max(1, args.kills // 9)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        log = out / "log.csv"
        log.write_text(
            "timestamp,prompt_tokens,output_tokens\n" + "".join(f"{1.7e9 + n},9,{n % 7}\n" for n in range(20_000))
        )
        report = [out / "run" / name for name in ("analysis", "report.md", "report.html")]
        profile, models = out / "profile.json", out / "models"
        try:
            print("run, resume    ", killed_run(out, third, "run", ()), flush=True)
            print(
                "sweep, resume  ",
                killed_run(out, third, "sweep", ("--axis", "gen_tokens=4,8", "--set", "repetitions=39")),
            )
            for name, words, files in (
                ("report         ", ("report", str(out / "run")), report),
                ("traffic --out  ", ("traffic", str(log), "--out", str(profile)), [profile]),
                ("models build   ", ("models", "build", "tiny-gpt2", "--out", str(models)), [models / "tiny-gpt2"]),
            ):
                print(name, killed_command((*PHASELAW, *words), files, ninth, draw), flush=True)
            outcomes = flipped(out / "run", args.flips, draw)
        except DamageError as damage:
            print(damage)
            return 3
        for name, counts in outcomes.items():
            print(f"{args.flips} bytes changed in {name}:", json.dumps(counts))
    return 3 if any(counts["SILENT"] for counts in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
