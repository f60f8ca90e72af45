"""What the tool says of runs that never change, as fingerprints: rebuilding the house must not move a figure.

Each output is kept as a few facts (`Fingerprint`), so that a changed figure, a changed word and a changed shape are
told apart, and no copied data stands in the repository.

``python tests/support/snapshot.py --keep FOLDER`` writes the whole outputs, to look at a difference; ``--write`` makes
the kept fingerprints anew, after a change that was meant.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import itertools
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from phaselaw.measure import replicates

HERE = Path(__file__).resolve().parents[1]
KEPT = HERE / "data" / "snapshot.json"
REFERENCE = Path(os.environ.get("PHASELAW_REFERENCE_DATA", HERE.parents[1] / "shared" / "data"))

_SECTIONS_OF_THIS_MACHINE = ("Environment", "How to reproduce", "Files")
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def outputs(folder: Path) -> Iterator[tuple[str, str]]:
    """Every output by name: made in ``folder``, which becomes the working directory."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHASELAW_CACHE", str(folder / "cache"))
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "160")
        # Simulated loads take no time that is simulated: by this clock each takes as long as the other.
        patch.setattr("time.perf_counter_ns", itertools.count(0, 10_000).__next__)
        # The page and its pictures are no part of it, and half of the time.
        patch.setattr("phaselaw.api.draw", lambda _: "")
        patch.setattr("phaselaw.report.page.to_html", lambda _: "")
        # What is patched here is not in another process: replicates are measured in this one.
        patch.setattr(replicates, "in_a_fresh_process", replicates._in_this_process)
        # A run that several commands ask about is read and analysed once.
        patch.setattr("phaselaw.api.load", loaded_once())
        _said("run --dry-run --out a --set run_name=snapshot --set seed=97")
        _measured("--dry-run --out b --set run_name=snapshot --set seed=98")
        _said("sweep decode-sweep-cpu --dry-run --out sweep")
        _measured("concurrency-sweep-llamacpp --dry-run --out clients")
        _measured("cross-engine --dry-run --out engines")
        _served_rows(Path("served.csv"))
        _request_log(Path("log.csv"))
        Path("pooled").mkdir()
        yield from _analysed("analyze a b --allow-different --out pooled", Path("pooled"))
        for name in ("a", "clients", "engines"):
            yield from _analysed(f"analyze {name}", Path(name) / "analysis")
        for path in sorted(Path("sweep").rglob("analysis/*.csv")):
            yield str(path), path.read_text()
        yield from _analysed("analyze served.csv --out served", Path("served"))
        yield from _reported("report served.csv --out served", Path("served/report.md"))
        yield from _reported("report a --with b --out both", Path("both/report.md"))
        yield from _documents("a", "b")
        reference = REFERENCE / "tr121" / "primary_run"
        if (reference / "metrics.csv").is_file():
            yield from _analysed(f"analyze {reference} --out tr121", Path("tr121"))
            yield from _reported(f"report {reference} --out tr121report", Path("tr121report/report.md"))
            for name, words in {"plan": "--tokens-per-month 5e9", "predict": "--params 30M"}.items():
                yield f"tr121/{name}.json", _said(f"{name} {reference} {words} --json")
            azure = REFERENCE / "traffic" / "azure_llm_2023_conv.csv"
            yield "tr121/traffic.json", _said(f"traffic {azure} --json")


def _measured(words: str) -> None:
    """A run without its own analysis and report: those are asked for by commands of their own."""
    with mock.patch("phaselaw.commands.run._reported", lambda *_, **__: 0):
        _said(f"run {words}")


def loaded_once() -> Callable[..., Any]:
    """`phaselaw.api.load`, by which several commands that ask about a run share what was read and analysed of it."""
    from phaselaw import api

    kept: dict[str, Any] = {}
    load = api.load

    def cached(*paths: Any, **how: Any) -> Any:
        options = how.pop("options", None) or api.Options(
            **{k: how.pop(k) for k in ("level", "models_table") if k in how}
        )
        key = repr(([str(path) for path in paths], options, sorted(name for name, given in how.items() if given)))
        if key not in kept:
            kept[key] = load(*paths, options=options, **how)
        return kept[key]

    return cached


def _documents(a: str, b: str) -> Iterator[tuple[str, str]]:
    """The JSON documents of two dry runs, and what terminals are shown."""
    against = f"--against {a} --against-model models/gpt2-25m --against-backend hf_cpu_fp32"
    yield "traffic.json", _said(f"traffic log.csv {against} --json")
    yield "traffic.txt", _said(f"traffic log.csv --out profile.json {against}")
    for name, words in {
        "plan": f"plan {a} --tokens-per-month 2e9 --usd-per-hour 0.302",
        "plan-pooled": f"plan {a} {b} --allow-different",
        "plan-traffic": f"plan {a} --traffic profile.json",
        "plan-tiers": f"plan {a} --mixes --compare --utilisation 0.7 --burst 1.5 --spares 1 "
        "--tiers models/gpt2-5m,models/gpt2-50m",
        "predict": f"predict {a} --params 60M --layers 6",
        "predict-outside": f"predict {a} --params 3B --extrapolate",
        "validate": f"validate {a}",
        "compare": f"compare {a} {b} --allow-different",
        "memory": "memory models/gpt2-25m --memory 16GB",
    }.items():
        yield f"{name}.json", _said(f"{words} --json")
        yield f"{name}.txt", _said(words)
    yield "show.txt", _said(f"show {a}")


def _said(words: str) -> str:
    """What a command writes to stdout and stderr, and its exit code."""
    from phaselaw.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words.split())
        except SystemExit as stop:
            code = int(stop.code or 0)
    told = err.getvalue()
    if words.endswith("--json"):
        told = "" if code == 0 else told
    return f"{out.getvalue()}\n{told}\nexit {code}\n"


def _analysed(words: str, folder: Path) -> Iterator[tuple[str, str]]:
    yield f"{folder}/exit", _said(words).rsplit("\n", 2)[-2]
    tables = folder if any(folder.glob("*.csv")) else folder / "analysis"
    for path in sorted(tables.glob("*.csv")):
        yield f"{folder}/{path.name}", path.read_text()


def _reported(words: str, path: Path) -> Iterator[tuple[str, str]]:
    yield f"{path}.txt", _said(words)
    yield str(path), path.read_text()


def _served_rows(path: Path) -> None:
    """A run of two served engines, made up by a law: early stops, loads, a cache hit, two clocks."""
    from phaselaw.rundir.columns import COLUMNS

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        at = 0
        for kind in ("ollama", "llamacpp"):
            for number, size in enumerate((30.0, 100.0, 300.0, 1000.0)):
                for scenario, tokens in (("micro", 10), ("long", 80)):
                    for rep in range(-1, 4):
                        at += 1
                        for row in _served_call(kind, size, scenario, tokens, rep, at + number):
                            writer.writerow(row)


def _served_call(kind: str, size: float, scenario: str, tokens: int, rep: int, at: int) -> Iterator[dict[str, Any]]:
    wobble = 1 + 0.03 * math.sin(7.0 * at)
    counted = 64 if (at % 3 or kind != "ollama") else 20 + at % 7
    step = 0.9 * size**0.6 * wobble
    prefill, load = 0.3 * tokens * size**0.5 * wobble, 500.0 if rep < 0 else 30.0
    shared = {
        "task_idx": at, "scenario": scenario, "backend": f"{kind}_x", "backend_kind": kind, "model": f"m{size:g}",
        "model_kind": kind, "params_millions": size, "params_millions_measured": size, "gen_tokens_target": 64,
        "batch_size": 1, "call_idx": at, "is_warmup": rep < 0, "warmup_idx": 0 if rep < 0 else "",
        "rep": rep if rep >= 0 else "", "prompt_tokens_raw": tokens, "prefill_ms": prefill,
        "kv_decode_ms": step * (counted - 1), "gen_tokens_raw": counted, "decode_step_ms": step,
        "decode_step_basis": "client", "decode_step_ms_client": step, "decode_step_ms_server": step * 0.99,
        "ollama_load_ms": load if kind == "ollama" else "", "load_ms": load,
        "ollama_done_reason": ("length" if counted == 64 else "stop") if kind == "ollama" else "",
        "done_reason": "length" if counted == 64 else "stop", "ttft_ms": prefill + load + step,
        "client_e2e_ms": prefill + load + step * counted, "queue_ms": 2.0, "concurrency": 1, "client_idx": 0,
        "sent_at_ms": 1000.0 * at, "started_at_unix": 1.7e9 + at, "cache_check": "fresh" if at % 11 else "found",
        "kv_decode_ms_per_token": step * (counted - 1) / counted, "head_cached": False, "process_idx": 0,
        "kv_decode_ms_equiv": step * (counted - 1) / counted * 64, "prompt_chars": 4 * tokens,
    }  # fmt: skip
    for mode, ms, count in (
        ("prefill", prefill, tokens),
        ("kv_decode", step * 64, 64),
        ("e2e_kv", prefill + 64 * step, tokens + 64),
    ):
        status = "error" if shared["cache_check"] == "found" and mode != "kv_decode" else "ok"
        figures = {"latency_ms": ms, "tokens_total": count, "tokens_per_s": 1000 * count / ms}
        yield shared | {"mode": mode, "status": status} | (figures if status == "ok" else {"error": "cached"})


def _request_log(path: Path) -> None:
    lines = ["timestamp,prompt_tokens,output_tokens,ttft_s,e2e_s"]
    for at in range(400):
        when = at * 1.7 + (at % 9) * 0.3
        lines.append(f"{when:.3f},{50 + at % 300},{10 + at % 90},{0.05 + at % 7 / 100:.3f},{0.5 + at % 90 / 50:.3f}")
    path.write_text("\n".join(lines) + "\n")


Fingerprint = list[Any]
"""Of figures: how many rows, hashes of the titles and of the words, and for each column with numbers a weighed sum; of
a text: for each section a hash of its numbers and one of its words."""


def fingerprint(name: str, text: str) -> Fingerprint:
    """The facts of one output."""
    if name.endswith(".csv"):
        rows = list(csv.reader(io.StringIO(text)))
        return _of_columns({title: [row[at] for row in rows[1:]] for at, title in enumerate(rows[0])})
    if name.endswith(".json"):
        return _of_columns(_columns_of(text))
    return [f"{title}: {_of_words(part)}" for title, part in _sections(text).items()]


def _of_columns(columns: dict[str, list[str]]) -> Fingerprint:
    words, sums = [], []
    for cells in columns.values():
        numbers = []
        for at, cell in enumerate(cells):
            try:
                numbers.append((at + 1) * float(cell))
            except ValueError:
                words.append(_masked(cell))
        if numbers:
            sums.append(math.fsum(number for number in numbers if math.isfinite(number)))
    return [max(map(len, columns.values()), default=0), _hash(list(columns)), _hash(words), *sums]


def _columns_of(text: str) -> dict[str, list[str]]:
    """The values of JSON documents by their path, and the exit code."""
    body, _, code = text.rpartition("\nexit ")
    parts: dict[str, list[str]] = {"exit": [code.strip()]}
    decoder, at = json.JSONDecoder(), 0
    while (start := body.find("{", at)) >= 0:
        document, at = decoder.raw_decode(body, start)
        _flatten(document, "", parts)
    return parts


def _flatten(value: Any, path: str, into: dict[str, list[str]]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, f"{path}/{key}", into)
    elif isinstance(value, list):
        for inner in value:
            _flatten(inner, f"{path}[]", into)
    else:
        into.setdefault(path, []).append("" if value is None else str(value))


def _sections(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    title = "(top)"
    for line in text.splitlines():
        title = line.strip("# ") if line.startswith(("## ", "### ")) else title
        found[title] = found.get(title, "") + line + "\n"
    return {title: part for title, part in found.items() if not title.startswith(_SECTIONS_OF_THIS_MACHINE)}


def _of_words(text: str) -> str:
    masked = _masked(text)
    return f"{_hash(_NUMBER.findall(masked))} {_hash([_NUMBER.sub('#', masked)])}"


def _masked(text: str) -> str:
    """A text without what differs from one machine, day or folder to another."""
    text = text.replace(str(REFERENCE), "DATA").replace(str(Path.cwd()), "HERE")
    text = re.sub(r"\b[0-9a-f]{7,64}\b", "HASH", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( ?UTC|Z)?", "TIME", text)
    return re.sub(r"phaselaw \d[\w.]*", "phaselaw VERSION", text)


def _hash(words: list[str]) -> str:
    return hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:12]


def differences(before: dict[str, Fingerprint], now: dict[str, Fingerprint]) -> list[str]:
    """Each output whose facts are no longer what they were; figures agree to 12 digits."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            found.append(f"{name}: {'is new' if old is None else 'is gone'}")
        elif len(old) != len(new):
            found.append(f"{name}: {len(old)} facts became {len(new)}")
        else:
            found += [f"{name}: {a} became {b}" for a, b in zip(old, new, strict=True) if not _same(a, b)]
    return found


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
    return bool(old == new)


def taken(folder: Path) -> dict[str, Fingerprint]:
    """The fingerprints of this version; ``folder`` is empty, and holds the outputs afterwards."""
    found = {}
    for name, text in outputs(folder):
        found[name] = fingerprint(name, text)
        whole = folder / "outputs" / name.replace("/", "__")
        whole.parent.mkdir(exist_ok=True)
        whole.write_text(text)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Fingerprints of what the tool says of runs that never change.")
    parser.add_argument("--write", action="store_true", help="keep this version's fingerprints")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the whole outputs go (default: nowhere)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as other:
        folder = Path(other) if args.keep is None else args.keep.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        now = taken(folder)
    if args.write:
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in sorted(now.items()))
        KEPT.write_text("{\n" + lines + "\n}\n")
        return 0
    found = differences(json.loads(KEPT.read_text()), now) if KEPT.exists() else ["nothing is kept"]
    sys.stdout.write("\n".join(found or ["no difference"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
