"""phaselaw's llamacpp engine against ``llama-bench`` on the same file, threads and depth: the ratio, and what it is of.

Both decode the same number of steps from the same depth in the cache; they take turns, five rounds, so that a machine's
drift falls on both. ``llama-bench`` is a part of llama.cpp (never one of phaselaw); give its path, or have it on PATH.
The server is the ``llama-server`` beside it where there is one, so that both are one build.

    python benchmarks/llama_bench.py
    python benchmarks/llama_bench.py --llama-bench build/bin/llama-bench --model models/gpt2-100m --depth 128

A ratio below 1 is expected: llama-bench feeds tokens that it made up, so it neither samples from the vocabulary, nor
turns tokens into text, nor streams a reply; a server does all three between two steps. Printed too is that difference
in microseconds a token, which doesn't grow with the model, so that the ratio nears 1 on larger ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from phaselaw.engines import llamacpp
from phaselaw.engines.llamacpp_process import find_server, nothing_to_start
from phaselaw.ladder.gguf import export
from phaselaw.ladder.spec import ladder_model
from phaselaw.records import Request
from phaselaw.study.model import LlamacppBackend, ModelEntry

ROUNDS = 5
MISSING = 2
"""Exit code where there is nothing to compare with."""


class Ratio(NamedTuple):
    """A geometric mean of ratios over rounds with its 95 % t interval on the log."""

    value: float
    low: float
    high: float


def ratio_over_rounds(ours: list[float], theirs: list[float]) -> Ratio:
    """Rates of ours over theirs, paired by round; two rounds at least."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.mean(logs)
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def rate_of(output: str, steps: int) -> float:
    """Tokens/s of llama-bench's one generation of so many steps, by its raw samples (``-o json``)."""
    tests: list[dict[str, Any]] = json.loads(output)
    (test,) = [test for test in tests if test["n_gen"] == steps and test["n_prompt"] == 0]
    (sample_ns,) = test["samples_ns"]
    return float(1e9 * steps / sample_ns)


class Setting(NamedTuple):
    """What both are asked for."""

    file: Path
    threads: int
    depth: int
    steps: int


def by_llama_bench(program: str, asked: Setting) -> float:
    """Tokens/s by llama-bench."""
    command = [program, "-m", str(asked.file), "-t", str(asked.threads), "-p", "0", "-n", str(asked.steps),
               "-d", str(asked.depth), "-r", "1", "-fa", "1", "-o", "json"]  # fmt: skip
    # In a session of its own, as the server is: Linux shares a busy machine out between sessions.
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        sys.exit(f"{program} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return rate_of(done.stdout, asked.steps)


def rounds_of(program: str, server: str, asked: Setting) -> tuple[list[float], list[float], list[float]]:
    """Tokens/s of each round: by the server's clock, by the client's, by llama-bench; who goes first takes turns."""
    backend = LlamacppBackend(
        name="served", kind="llamacpp", server=server, threads=asked.threads, flash_attention=True
    )
    engine = llamacpp.create(backend)
    by_server: list[float] = []
    by_client: list[float] = []
    theirs: list[float] = []
    try:
        model = engine.load(ModelEntry(name=str(asked.file), kind="llamacpp"))

        def ours(seed: int) -> tuple[float, float]:
            # The first token comes with the prompt: one more than the steps that are timed.
            request = Request(
                prompt=None, prompt_tokens=asked.depth, gen_tokens=asked.steps + 1, batch_size=1, study_seed=42,
                seed=seed, round=seed,
            )  # fmt: skip
            served = model.generate(request).served
            assert served is not None and served.decode_step_ms_server and served.decode_step_ms_client
            return 1e3 / served.decode_step_ms_server, 1e3 / served.decode_step_ms_client

        ours(0)
        for number in range(ROUNDS):
            if number % 2:
                theirs.append(by_llama_bench(program, asked))
            server_rate, client_rate = ours(number + 1)
            by_server.append(server_rate)
            by_client.append(client_rate)
            if not number % 2:
                theirs.append(by_llama_bench(program, asked))
            print(
                f"round {number + 1}: server {server_rate:.1f}, llama-bench {theirs[-1]:.1f} tokens/s", file=sys.stderr
            )
    finally:
        engine.close()
    return by_server, by_client, theirs


def main() -> int:
    """Print the ratios with their intervals; 2 where there is no llama-bench or no server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", default="llama-bench", metavar="PATH", help="the program (default: PATH's)")
    parser.add_argument("--server", metavar="PATH", help="llama-server (default: beside llama-bench, else as found)")
    parser.add_argument("--model", default="models/gpt2-100m", help="a ladder model or a GGUF file (models/gpt2-100m)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of both (default: all cores)")
    parser.add_argument("--depth", type=int, default=32, help="tokens in the cache before the first step (default 32)")
    parser.add_argument("--steps", type=int, default=128, help="decode steps a round (default 128)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    program = shutil.which(args.llama_bench)
    if program is None:
        print(f"there is no {args.llama_bench} here; nothing was compared. Build llama.cpp and give --llama-bench PATH",
              file=sys.stderr)  # fmt: skip
        return MISSING
    server = args.server or shutil.which(str(Path(program).parent / "llama-server")) or find_server(None)
    if server is None:
        print(nothing_to_start(args.server), file=sys.stderr)
        return MISSING
    of_ladder = ladder_model(args.model) is not None
    file = export(args.model, "f32", every_byte=False).path if of_ladder else Path(args.model)
    asked = Setting(file, args.threads, args.depth, args.steps)
    by_server, by_client, theirs = rounds_of(program, server, asked)
    found = {"server's clock": ratio_over_rounds(by_server, theirs), "client's": ratio_over_rounds(by_client, theirs)}
    apart_us = [1e6 / ours - 1e6 / other for ours, other in zip(by_server, theirs, strict=True)]
    if args.json:
        print(json.dumps({
            "file": file.name, "threads": args.threads, "depth": args.depth, "steps": args.steps, "rounds": ROUNDS,
            "server": Path(server).name,
            "tokens_per_s": {"server": by_server, "client": by_client, "llama-bench": theirs},
            "ratio": {name: each._asdict() for name, each in found.items()},
            "microseconds_a_token": statistics.median(apart_us),
        }))  # fmt: skip
        return 0
    print(f"{file.name}, {args.threads} threads, {args.steps} steps from depth {args.depth}, {ROUNDS} rounds in turns")
    for name, each in found.items():
        print(f"by the {name:14}: {each.value:.3f} [{each.low:.3f}, {each.high:.3f}] of llama-bench's tokens/s (95 %)")
    print(
        f"A server's step takes {statistics.median(apart_us):+.0f} microseconds (median): it samples, makes text of "
        "the token and streams it, which llama-bench does not."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
