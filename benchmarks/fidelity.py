"""Does phaselaw's engine measure what a bare loop over transformers measures?

For two models of the ladder, prefill (with the logits of the last position, and with those of all) and decode are
timed by phaselaw's engine and by a loop of the same kind written here without phaselaw, interleaved in one process:
engine, loop, loop, engine (ABBA), so that slow drift cancels within a round. Printed are the median over rounds of
engine / loop, with the interval of order statistics that holds the true median with at least 95 %. A call decodes few
tokens, so that its round is over before this machine changes its speed; more rounds make up for it. Both run on the
same weights in memory, since two copies of one file differ in speed by 1-2 % here, this way or that; --own-weights
gives the loop its own.

Then phaselaw's own time a call around the engine, driving and journalling, as a share of the shortest cell,
and beside it the engine's own, which the timed phases leave out.

    python benchmarks/fidelity.py
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
from typing import Any, NamedTuple, Self

from phaselaw.engines import Model, hf
from phaselaw.ladder.build import resolve
from phaselaw.measure.calls import measure
from phaselaw.records import EngineInfo, ModelInfo, Request, Timing
from phaselaw.rundir.columns import phase_latency_ms
from phaselaw.rundir.write import RunDirectory
from phaselaw.study.model import HfBackend, ModelEntry, Study

MODELS = ("models/gpt2-25m", "models/gpt2-100m")
SHORTEST = "models/tiny-gpt2"
PROMPT = "Explain how backpressure works in an inference service and when to enable queueing."
TOLERANCE, OWN_SHARE = 0.02, 0.01
STUDY_GEN_TOKENS = 64  # of the default study, whose shortest cell own time is held against
OWN_TIME_CALLS = 40


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


def own_weights(model_name: str, *, device: str, dtype: str) -> Any:
    """A copy of a model's weights that the engine doesn't have."""
    import torch
    from transformers import AutoModelForCausalLM

    torch_dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    return AutoModelForCausalLM.from_pretrained(resolve(model_name), dtype=torch_dtype).to(device).eval()


PHASES = ("prefill", "prefill_all", "kv_decode")
"""What is compared: prefill with the logits of the last position, with those of all, and decode after the former."""


def bare_loop(model: Any, model_name: str, *, device: str, gen_tokens: int, phase: str) -> Callable[[], Phases]:
    """A timed greedy generation as a person would write it over transformers."""
    import torch
    from transformers import AutoTokenizer

    path = resolve(model_name)
    prompt = AutoTokenizer.from_pretrained(path)(PROMPT, return_tensors="pt").input_ids.to(device)
    positions = {} if phase == "prefill_all" else {"logits_to_keep": 1}

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return perf_counter()

    @torch.inference_mode()
    def call() -> Phases:
        start = now()
        out = model(prompt, use_cache=True, **positions)
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
        prompt=prompt, prompt_tokens=None, gen_tokens=gen_tokens, batch_size=1, study_seed=42, seed=42, round=None
    )


def engine_call(model: Model, gen_tokens: int) -> Callable[[], Phases]:
    """The same generation by phaselaw's engine."""
    asked = request(PROMPT, gen_tokens)

    def call() -> Phases:
        latencies = phase_latency_ms(model.generate(asked), gen_tokens)
        return Phases(latencies["prefill"], latencies["kv_decode"])

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
    model_name: str, engine: Callable[[], Phases], loop: Callable[[], Phases], *, phase: str, rounds: int
) -> Ratio:
    """One phase over rounds of engine, loop, loop, engine, after two rounds of warmup."""
    index = int(phase == "kv_decode")
    engine_ms, loop_ms = [], []
    for _ in range(rounds + 2):
        first = engine()
        second, third = loop(), loop()
        last = engine()
        engine_ms.append((first[index] + last[index]) / 2)
        loop_ms.append((second[index] + third[index]) / 2)
    ratios = [ours / theirs for ours, theirs in zip(engine_ms[2:], loop_ms[2:], strict=True)]
    low, high = median_interval(ratios)
    return Ratio(
        model=model_name,
        phase=phase,
        engine_ms=median(engine_ms[2:]),
        loop_ms=median(loop_ms[2:]),
        ratio=median(ratios),
        low=low,
        high=high,
        rounds=rounds,
    )


class Replay:
    """An engine and model whose calls take no time: each returns a timing that was really measured."""

    def most_loaded(self, models: Sequence[ModelEntry]) -> int | None:  # noqa: ARG002
        """All."""
        return None

    info = ModelInfo(params_millions_measured=None)

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def describe(self) -> EngineInfo:
        """Nothing in force."""
        return EngineInfo(kind="hf", name="replay", version=None)

    def load(self, model: ModelEntry) -> Self:  # noqa: ARG002
        """Itself."""
        return self

    def generate(self, request: Request) -> Timing:  # noqa: ARG002
        """The timing again."""
        return self._timing

    def close(self) -> None:
        """Nothing to free."""


def own_time(engine: hf.HfEngine, gen_tokens: int, *, calls: int) -> dict[str, float]:
    """Medians in ms a call: the shortest cell, and what phaselaw adds to it in its engine and around it."""
    model = engine.load(ModelEntry(name=SHORTEST, kind="hf"))
    asked = request("Hello", gen_tokens)
    untimed, e2e = [], []
    for index in range(calls + 3):
        begun = perf_counter()
        timing = model.generate(asked)
        wall_ms = (perf_counter() - begun) * 1e3
        if index >= 3:  # the first ones are warmups
            e2e.append(phase_latency_ms(timing, gen_tokens)["e2e_kv"])
            untimed.append(wall_ms - e2e[-1])
    times = {
        "shortest_cell_ms": median(e2e),
        "engine_ms": median(untimed),
        "journal_ms": journal_time(timing, gen_tokens, calls=max(calls, 100)),
    }
    times["share"] = times["journal_ms"] / times["shortest_cell_ms"]
    times["share_with_engine"] = (times["journal_ms"] + times["engine_ms"]) / times["shortest_cell_ms"]
    return times


def journal_time(timing: Timing, gen_tokens: int, *, calls: int) -> float:
    """Milliseconds a call of driving and journalling (fsync on this folder's disk), by replayed calls."""
    study = Study.model_validate(
        {
            "run_name": "fidelity",
            "gen_tokens": gen_tokens,
            "repetitions": calls,
            "warmup_repetitions": 0,
            "scenarios": ({"name": "micro", "prompt": "Hello"},),
            "backends": ({"name": "replay", "kind": "hf"},),
            "models": ({"name": SHORTEST, "kind": "hf"},),
        }
    )
    spent = []
    with tempfile.TemporaryDirectory(prefix=".fidelity-", dir=Path.cwd()) as folder:
        path = Path(folder) / "run"
        with RunDirectory.create(path, study=study, argv=[], host={}) as directory:
            begun = perf_counter()
            for event in measure(study, engines={"replay": Replay(timing)}):
                directory.append(event)
                ended = perf_counter()
                spent.append((ended - begun) * 1e3)
                begun = ended
    return median(spent)


def report(ratios: Sequence[Ratio], overhead: dict[str, float]) -> bool:
    """Print both tables; returns whether they keep to the tolerances."""
    print(f"{'model':<18}{'phase':<12}{'engine ms':>11}{'loop ms':>11}{'ratio':>9}   95 % interval    rounds")
    for row in ratios:
        print(
            f"{row.model:<18}{row.phase:<12}{row.engine_ms:>11.3f}{row.loop_ms:>11.3f}{row.ratio:>9.4f}"
            f"   {row.low:.4f}-{row.high:.4f}   {row.rounds:>5}"
        )
    print(f"\nphaselaw's own time a call, outside the timed phases; the shortest cell is {SHORTEST}, micro:")
    print(f"  shortest cell        {overhead['shortest_cell_ms']:>9.3f} ms")
    print(f"  driving, journalling {overhead['journal_ms']:>9.3f} ms = {overhead['share']:.2%}")
    print(f"  within the engine    {overhead['engine_ms']:>9.3f} ms; both {overhead['share_with_engine']:.2%}")
    within = all(abs(row.ratio - 1) <= TOLERANCE for row in ratios)
    small = overhead["share"] < OWN_SHARE
    print(f"\nratios within {TOLERANCE:.0%}: {within}; own time below {OWN_SHARE:.0%}: {small}")
    return within and small


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and return 0 within the tolerances, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="rounds of engine, loop, loop, engine a phase")
    parser.add_argument("--gen-tokens", type=int, default=16, help="decode steps of a compared call")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "fp16", "bf16"), help="number format")
    parser.add_argument("--own-weights", action="store_true", help="the loop loads weights of its own")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    args = parser.parse_args(argv)
    where = {"kind": "hf", "device": args.device, "dtype": args.dtype}
    engine = hf.create(HfBackend(name="fidelity", **where))
    of_all = hf.create(HfBackend(name="fidelity_all", prefill_logits="all", **where))
    ratios: list[Ratio] = []
    for model_name in MODELS:
        entry = ModelEntry(name=model_name, kind="hf")
        loaded, loaded_all = engine.load(entry), of_all.load(entry)
        weights = own_weights(model_name, device=args.device, dtype=args.dtype) if args.own_weights else loaded._weights
        for phase in PHASES:
            steps = args.gen_tokens if phase == "kv_decode" else 1
            ours = engine_call(loaded_all if phase == "prefill_all" else loaded, steps)
            loop = bare_loop(weights, model_name, device=args.device, gen_tokens=steps, phase=phase)
            ratios.append(compare(model_name, ours, loop, phase=phase, rounds=args.rounds))
    overhead = own_time(engine, STUDY_GEN_TOKENS, calls=OWN_TIME_CALLS)
    if args.json:
        document: dict[str, Any] = {"ratios": [row._asdict() for row in ratios], "overhead": overhead}
        print(json.dumps(document, indent=1))
        return 0
    return 0 if report(ratios, overhead) else 1


if __name__ == "__main__":
    sys.exit(main())
