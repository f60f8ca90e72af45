"""Does phaselaw's engine measure what a bare loop over transformers measures?

For two models of the ladder, prefill and decode are timed by phaselaw's engine and by a loop written here
without phaselaw, interleaved in one process: engine, loop, loop, engine (ABBA), so that slow drift cancels
within a round. Printed are the median over rounds of engine / loop, with the interval of order statistics that
holds the true median with at least 95 %. Then phaselaw's own time a call, outside the timed phases, against the
shortest cell.

    python benchmarks/fidelity.py --rounds 40
    python benchmarks/fidelity.py --device cuda --dtype fp16 --json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from phaselaw.engines import hf, module_for
from phaselaw.ladder.build import resolve
from phaselaw.measure import measure
from phaselaw.records import Request, Timing
from phaselaw.store import RunDirectory
from phaselaw.study import HfBackend, ModelEntry, Study

MODELS = ("models/gpt2-25m", "models/gpt2-100m")
SHORTEST = "models/tiny-gpt2"
PROMPT = "Explain how backpressure works in an inference service and when to enable queueing."
TOLERANCE, OWN_SHARE = 0.02, 0.01


class Phases(NamedTuple):
    """What one call took."""

    prefill_ms: float
    decode_ms: float


class Ratio(NamedTuple):
    """Engine over loop for one model and phase."""

    model: str
    phase: str
    engine_ms: float
    loop_ms: float
    ratio: float
    low: float
    high: float
    rounds: int


def bare_loop(model_name: str, *, device: str, dtype: str, gen_tokens: int) -> Callable[[], Phases]:
    """A timed greedy generation as a person would write it over transformers, with weights of its own."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve(model_name)
    torch_dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch_dtype).to(device).eval()
    prompt = AutoTokenizer.from_pretrained(path)(PROMPT, return_tensors="pt").input_ids.to(device)

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return perf_counter()

    @torch.inference_mode()
    def call() -> Phases:
        start = now()
        out = model(prompt, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        prefilled = now()
        for _ in range(gen_tokens):
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        decoded = now()
        return Phases((prefilled - start) * 1e3, (decoded - prefilled) * 1e3)

    return call


def request(prompt: str, gen_tokens: int) -> Request:
    """What the engine is asked for."""
    return Request(
        prompt=prompt,
        prompt_tokens=None,
        gen_tokens=gen_tokens,
        batch_size=1,
        study_seed=42,
        seed=42,
        round=None,
    )


def engine_call(engine: hf.HfEngine, model_name: str, gen_tokens: int) -> Callable[[], Phases]:
    """The same generation by phaselaw's engine."""
    model = engine.load(ModelEntry(name=model_name, kind="hf"))
    asked = request(PROMPT, gen_tokens)

    def call() -> Phases:
        timing = model.generate(asked)
        return Phases(timing.prefill_ms, timing.kv_decode_ms)

    return call


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest symmetric pair of order statistics that holds the true median with at least 95 %."""
    ordered, n = sorted(values), len(values)
    rank, tail = 0, 0.0
    while rank < n // 2:
        tail += math.comb(n, rank) / 2**n
        if tail > 0.025:
            break
        rank += 1
    return ordered[max(rank - 1, 0)], ordered[n - max(rank, 1)]


def compare(
    model_name: str, engine: Callable[[], Phases], loop: Callable[[], Phases], *, rounds: int
) -> list[Ratio]:
    """Rounds of engine, loop, loop, engine; the first two rounds are warmups."""
    seen: list[tuple[Phases, Phases, Phases, Phases]] = []
    for _ in range(rounds + 2):
        first = engine()
        second, third = loop(), loop()
        seen.append((first, second, third, engine()))
    results = []
    for index, phase in enumerate(("prefill", "kv_decode")):
        engine_ms = [(a[index] + d[index]) / 2 for a, _, _, d in seen[2:]]
        loop_ms = [(b[index] + c[index]) / 2 for _, b, c, _ in seen[2:]]
        ratios = [ours / theirs for ours, theirs in zip(engine_ms, loop_ms, strict=True)]
        low, high = median_interval(ratios)
        results.append(
            Ratio(model_name, phase, median(engine_ms), median(loop_ms), median(ratios), low, high, rounds)
        )
    return results


def engine_overhead(engine: hf.HfEngine, gen_tokens: int, *, calls: int) -> dict[str, float]:
    """What a call of the shortest cell costs beyond its timed phases, inside the engine."""
    model = engine.load(ModelEntry(name=SHORTEST, kind="hf"))
    asked = request("Hello", gen_tokens)
    spent, e2e = [], []
    for index in range(calls + 3):
        begun = perf_counter()
        timing: Timing = model.generate(asked)
        wall_ms = (perf_counter() - begun) * 1e3
        if index >= 3:
            e2e.append(timing.prefill_ms + timing.kv_decode_ms)
            spent.append(wall_ms - e2e[-1])
    return {"shortest_cell_ms": median(e2e), "engine_ms": median(spent)}


def journal_overhead(*, calls: int) -> float:
    """Milliseconds a call of driving and journalling, by simulated calls, in this folder."""
    study = Study.model_validate(
        {
            "run_name": "fidelity",
            "gen_tokens": 64,
            "repetitions": calls,
            "warmup_repetitions": 0,
            "seed": 42,
            "order": "rounds",
            "scenarios": ({"name": "micro", "prompt": "Hello"},),
            "backends": ({"name": "simulated", "kind": "simulated"},),
            "models": ({"name": "any", "kind": "simulated"},),
        }
    )
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in study.backends}
    with tempfile.TemporaryDirectory(prefix=".fidelity-", dir=Path.cwd()) as folder:
        directory = RunDirectory.create(Path(folder) / "run", study=study, argv=[], host={})
        with directory:
            spent, begun = [], perf_counter()
            for event in measure(study, engines=engines):
                directory.append(event)
                ended = perf_counter()
                spent.append((ended - begun) * 1e3)
                begun = ended
    return median(spent)


def report(ratios: Sequence[Ratio], overhead: dict[str, float]) -> bool:
    """Print both tables; returns whether they keep to the tolerances."""
    print(f"{'model':<18}{'phase':<11}{'engine ms':>11}{'loop ms':>11}{'ratio':>9}   95 % interval    rounds")
    for row in ratios:
        print(
            f"{row.model:<18}{row.phase:<11}{row.engine_ms:>11.3f}{row.loop_ms:>11.3f}{row.ratio:>9.4f}"
            f"   {row.low:.4f}-{row.high:.4f}   {row.rounds:>5}"
        )
    print(f"\nphaselaw's own time a call, outside the timed phases; the shortest cell is {SHORTEST}, micro:")
    for name in ("engine_ms", "journal_ms", "total_ms", "shortest_cell_ms"):
        print(f"  {name.removesuffix('_ms').replace('_', ' '):<15}{overhead[name]:>9.3f} ms")
    print(f"  {'share':<15}{100 * overhead['share']:>9.3f} %")
    within = all(abs(row.ratio - 1) <= TOLERANCE for row in ratios)
    small = overhead["share"] < OWN_SHARE
    print(f"\nratios within {TOLERANCE:.0%}: {within}; own time below {OWN_SHARE:.0%}: {small}")
    return within and small


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and return 0 within the tolerances, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="rounds of engine, loop, loop, engine a model")
    parser.add_argument("--gen-tokens", type=int, default=64, help="decode steps of a call")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "fp16", "bf16"), help="number format")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    args = parser.parse_args(argv)
    engine = hf.create(HfBackend(name="fidelity", kind="hf", device=args.device, dtype=args.dtype))
    ratios: list[Ratio] = []
    for model_name in MODELS:
        ours = engine_call(engine, model_name, args.gen_tokens)
        loop = bare_loop(model_name, device=args.device, dtype=args.dtype, gen_tokens=args.gen_tokens)
        ratios += compare(model_name, ours, loop, rounds=args.rounds)
    overhead = engine_overhead(engine, args.gen_tokens, calls=args.rounds)
    overhead["journal_ms"] = journal_overhead(calls=max(args.rounds, 100))
    overhead["total_ms"] = overhead["engine_ms"] + overhead["journal_ms"]
    overhead["share"] = overhead["total_ms"] / overhead["shortest_cell_ms"]
    if args.json:
        document: dict[str, Any] = {"ratios": [row._asdict() for row in ratios], "overhead": overhead}
        print(json.dumps(document, indent=1))
        return 0
    return 0 if report(ratios, overhead) else 1


if __name__ == "__main__":
    sys.exit(main())
