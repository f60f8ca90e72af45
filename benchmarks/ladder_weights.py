"""Does the ladder run all its tokens where Ollama would end a reply, and do its steps take what they took before?

Greedy random weights repeat themselves and break characters, and Ollama ends such replies without their last line. The
ladder's weights avoid both (`phaselaw.ladder.weights.UNSPEAKABLE`). First each model runs three prompts three times
through a stand-in of Ollama's API, in front of a real llama-server, that ends replies as Ollama does: printed is how
many were cut, with these weights and with the ones before. Then one decode step of each, the weights of before and
after interleaved, with the ratio and how far rounds scatter.

    python benchmarks/ladder_weights.py
    python benchmarks/ladder_weights.py --models gpt2-25m gpt2-100m --rounds 20
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

from phaselaw.engines import llamacpp, ollama
from phaselaw.ladder import build, weights
from phaselaw.ladder.spec import LADDER, LadderModel, ladder_model
from phaselaw.records import Request
from phaselaw.servers.streams import CUT_REASONS
from phaselaw.study.model import LlamacppBackend, ModelEntry, OllamaBackend

PROMPTS = ("Why?", "Explain the difference between latency and throughput.", "Tell me a story of a fox. " * 12)
TOKENS, CALLS = 64, 3


def ask(prompt: str, at: int) -> Request:
    """A call of 64 tokens."""
    return Request(prompt=prompt, prompt_tokens=None, gen_tokens=TOKENS, batch_size=1, study_seed=42, seed=1, round=at)


def before(model: LadderModel, folder: Path) -> Path:
    """The model with the weights that it had: noise in each embedding, the last layer norm at 1."""
    target = folder / model.name
    shutil.copytree(build.resolve(f"models/{model.name}"), target)
    with patch.object(weights, "UNSPEAKABLE", ()):
        data = bytearray(b"".join(weights.safetensors_chunks(model)))
    length = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + length])["transformer.ln_f.weight"]["data_offsets"]
    assert data[8 + length + start : 8 + length + end] == bytes.fromhex("000080bf") * model.n_embd
    data[8 + length + start : 8 + length + end] = bytes.fromhex("0000803f") * model.n_embd
    (target / build.WEIGHTS).write_bytes(data)
    return target


@contextlib.contextmanager
def serving(name: str) -> Iterator[Any]:
    """A model on a llama-server of ours, with one thread."""
    engine = llamacpp.create(LlamacppBackend(name="l", kind="llamacpp", threads=1))
    try:
        yield engine.load(ModelEntry(name=name, kind="llamacpp"))
    finally:
        engine.close()


def cut_replies(name: str, calls: int = CALLS) -> int:
    """How many of the replies through Ollama's API are cut, of so many calls with each prompt."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    front, scripted = importlib.import_module("llama_server"), importlib.import_module("scripted_server").scripted
    cut = 0
    with serving(name) as behind, scripted(front.ollama_front(behind.server.base_url, guards=True)) as url:
        engine = ollama.create(OllamaBackend(name="o", kind="ollama", url=url))
        model = engine.load(ModelEntry(name=front.MODEL, kind="ollama"))
        for at in range(calls):
            cut += sum(model.generate(ask(prompt, at)).done_reason in CUT_REASONS for prompt in PROMPTS)
        engine.close()
    return cut


def steps(names: Sequence[str], rounds: int) -> list[list[float]]:
    """One decode step in ms, of each name and round; all servers run side by side, and take turns."""
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(serving(name)) for name in names]
        found: list[list[float]] = [[] for _ in models]
        for at in range(rounds + 1):
            for model, times in zip(models, found, strict=True):
                timing = model.generate(ask(PROMPTS[1], at))
                times += [timing.served.decode_step_ms] if at else []
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print, and return 0 where no reply was cut, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[model.name for model in LADDER], help="default: all seven")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of step times (default: 10; 0: none)")
    args = parser.parse_args(argv)
    asked, cut_now = len(PROMPTS) * CALLS, 0
    print(f"{'model':12}{'cut before':>12}{'cut now':>10}{'step before':>14}{'step now':>11}{'ratio':>8}{'rounds':>14}")
    for name in args.models:
        model = ladder_model(name)
        assert model is not None, f"{name} is none of the ladder"
        with tempfile.TemporaryDirectory() as folder:
            old, new = str(before(model, Path(folder))), f"models/{model.name}"
            was, cut = cut_replies(old), cut_replies(new)
            told = f"{model.name:12}{f'{was} of {asked}':>12}{f'{cut} of {asked}':>10}"
            if args.rounds:
                first, second = steps([old, new], args.rounds)
                ratios = [later / earlier for earlier, later in zip(first, second, strict=True)]
                low, *_, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 2
                told += f"{median(first):11.3f} ms{median(second):8.3f} ms{median(ratios):8.3f}  {low:.3f}-{high:.3f}"
            print(told, flush=True)
            cut_now += cut
    return 1 if cut_now else 0


if __name__ == "__main__":
    sys.exit(main())
