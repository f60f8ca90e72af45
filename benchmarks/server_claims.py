"""How often does the check *server claim* speak up against servers that are honest?

Three kinds of runs with nothing wrong: replies with the instants at which their text came, drawn from a seed (`clean`:
fast and slow models, several tokens an event, text that is held back, loads, waits, late wake-ups, counts that span one
or two steps less, a long way to the server); stand-ins that replay recordings of two real Ollama versions; and a real
llama-server. Of the stand-ins' runs every check of servers and of the machine is counted.

    python benchmarks/server_claims.py
    python benchmarks/server_claims.py --runs 1000 --stand-ins 100 --llama-server 20
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from phaselaw import api
from phaselaw.engines.served import StreamedReply, timing_of
from phaselaw.ladder.spec import LADDER
from phaselaw.measure.begin import new_run
from phaselaw.measure.replicates import measure_run
from phaselaw.records import Call, Cell, Run, Served, Timing
from phaselaw.rundir.columns import rows_of, settled_calls
from phaselaw.rundir.read import normalised
from phaselaw.servers.caches import Verdict
from phaselaw.study.model import Study

KINDS: dict[str, Literal["none", "prefill", "both"]] = {"ollama": "prefill", "openai": "none", "llamacpp": "both"}
"""Kinds of servers, and the phases that the server times."""
OURS = ("server claim", "load in measured calls", "shared server", "busy machine")
"""Checks that are counted on the stand-ins' runs."""


def run_of(timings: Sequence[Timing], *, kind: str, budget: int, concurrency: int = 1) -> Run:
    """The calls of one cell as a run that is read for analysis."""
    cell = Cell(backend="srv", backend_kind=kind, model="m", scenario="s", batch_size=1, gen_tokens=budget,
                concurrency=concurrency)  # fmt: skip
    calls = [
        Call(call_id=f"c{at}", call_idx=at, cell=cell, task_idx=0, is_warmup=False, warmup_idx=None, rep=at,
             status="ok", error=None, started_at_unix=0.0, process_idx=0, calls_since_process_start=at,
             calls_since_model_load=at, calls_since_shape_first_seen=at, load_ms=None, timing=timing)
        for at, timing in enumerate(timings)
    ]  # fmt: skip
    known: dict[str, Any] = {"prompt": "x", "params_millions_config": None, "params_millions_measured": 10.0}
    rows = [row for call in settled_calls(calls) for row in rows_of(call, **known)]
    table = normalised(pl.DataFrame(rows, infer_schema_length=None), where="rows")
    return Run(path=Path("calls"), rows=table, models=pl.DataFrame(), manifest={"phaselaw_version": "1"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HonestServer:
    """What a server that tells the truth is like."""

    kind: str
    budget: int
    step_ms: float
    prefill_ms: float
    load_ms: float
    way_ms: float
    """There and back."""
    an_event: int
    """Tokens of an event, but the first, which has one."""
    held_back: float
    """Share of the tokens whose text comes with the next."""
    steps_short: int
    share_short: float
    """What its decode time leaves out: steps, and a share of it."""
    jitter: float
    late: float
    """Share of the events that the client is late to read."""
    waits: int
    """Of five calls, how many wait for another client's."""
    counts: bool

    @classmethod
    def drawn(cls, draw: random.Random) -> HonestServer:
        """One of the many."""
        step_ms = 10 ** draw.uniform(-0.7, 2.0)
        kind, an_event = draw.choice([*KINDS]), draw.choice([1, 1, 1, 2, 4])
        return cls(
            kind=kind,
            budget=max(8 * an_event, draw.choice([8, 16, 64, 128])),
            step_ms=step_ms,
            prefill_ms=step_ms * draw.uniform(1.0, 2.0) + 10 ** draw.uniform(0.0, 3.3),
            load_ms=draw.choice([0.0, 1.0, 40.0, 170.0]) if kind == "ollama" else 0.0,
            way_ms=draw.choice([0.1, 0.1, 1.0, 30.0, 150.0]),
            an_event=an_event,
            held_back=draw.choice([0.0, 0.0, 0.1, 0.4]) if an_event == 1 else 0.0,
            steps_short=draw.choice([1, 1, 2]),
            share_short=draw.choice([0.0, 0.03, 0.05]),
            jitter=draw.choice([0.02, 0.1, 0.3]),
            late=draw.choice([0.0, 0.02, 0.1]),
            waits=draw.choice([0, 0, 1, 2]),
            counts=kind != "openai" or draw.random() < 0.8,
        )

    def call(self, at: int, draw: random.Random) -> Timing:
        """One call: when its events came, and what the server says of it."""
        tokens = self.budget if draw.random() < 0.8 else draw.randint(4, self.budget)
        wait_ms = draw.uniform(50, 2000) if at < self.waits else 0.0
        first_ms = wait_ms + self.load_ms + self.prefill_ms + self.way_ms + draw.uniform(0.2, 4.0)
        made = [first_ms]
        for _ in range(tokens - 1):
            made.append(made[-1] + self.step_ms * max(0.2, draw.gauss(1.0, self.jitter)))
        arrivals: list[float] = []
        for ready_ms in [
            made[0],
            *(ms for ms in made[self.an_event :: self.an_event] if draw.random() >= self.held_back),
        ]:
            late_ms = draw.uniform(1, 20) if draw.random() < self.late else draw.uniform(0.0, 0.05)
            arrivals.append(max(ready_ms + late_ms, arrivals[-1] if arrivals else 0.0))
        steps_ms = (made[-1] - made[0]) / (tokens - 1) * max(0, tokens - self.steps_short)
        claims: dict[str, Any] = {"tokens_counted": tokens} if self.counts else {}
        if self.kind != "openai":
            claims |= {"prefill_ms_server": self.prefill_ms * draw.uniform(0.97, 1.0)}
            claims |= {"decode_ms_server": steps_ms * (1 - self.share_short)}
        served = Served(
            sent_at_ms=0.0, ttft_ms=arrivals[0], e2e_ms=arrivals[-1], wall_ms=arrivals[-1], connect_ms=self.way_ms,
            arrivals_ms=tuple(arrivals), decode_step_ms=None, decode_step_basis=None, **claims,
        )  # fmt: skip
        reply = StreamedReply(
            served=served, output_sha256="", prompt_tokens=20, done_reason="length" if tokens == self.budget else "stop"
        )
        known = Verdict("undecidable", "no cache here")
        return timing_of(
            reply, 20, self.budget, known, server_times=KINDS[self.kind], load_ms=self.load_ms, model_was_loaded=True
        )


def clean(seed: int) -> Run:
    """Five calls of an honest server."""
    draw = random.Random(seed)
    server = HonestServer.drawn(draw)
    return run_of([server.call(at, draw) for at in range(5)], kind=server.kind, budget=server.budget)


def found(run: Run) -> list[str]:
    """The false claims that are found in a run."""
    return sorted({each for names in run.rows["false_claims"].drop_nulls() for each in names.split(", ")})


def measured(study: dict[str, Any], look: Callable[[api.Loaded], list[str]]) -> list[str]:
    """What is to be seen in a study's run, measured now."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Study.model_validate({"run_name": "honest", "repetitions": 3, "replicates": 1, **study})
        place = Path(folder) / "run"
        with new_run(asked, out=place, argv=[], asked={}, available=False, tell=lambda _: None) as directory:
            for _ in measure_run(directory, lambda: False)[2]:
                pass
            directory.finish("complete")
        return look(api.load(place))


def findings(loaded: api.Loaded) -> list[str]:
    """The checks of servers and of the machine that found something."""
    table = loaded.tables["validity_findings"].filter(pl.col("status") == "found")
    return sorted({name for name in table["check"].to_list() if name in OURS})


def stand_ins(runs: int, speed: float) -> dict[str, Counter[str]]:
    """Runs against replays of both Ollama versions, half each, and what was found in how many."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    names = ("ollama_standin", "recordings")
    standin, recordings = (importlib.import_module(name) for name in names)
    versions, models = (recordings.OLD, recordings.NEW), (recordings.SMOLLM2, recordings.GEMMA3)
    counts = {version: Counter[str]() for version in versions}
    for at in range(runs):
        version, model = versions[at % 2], models[at // 2 % 2]
        with standin.standing_in(standin.OllamaStandIn(version, speed=speed)) as url:
            study = {
                "gen_tokens": 16,
                "scenarios": [{"name": "medium", "prompt": "Explain why a cache makes some of the calls quicker."}],
                "backends": [{"name": "ollama", "kind": "ollama", "url": url}],
                "models": [{"name": model, "kind": "ollama"}],
            }
            counts[version].update(measured(study, findings))
    return counts


def llama_server(runs: int) -> Counter[str]:
    """Runs of the ladder's smaller models on a real llama-server."""
    counts = Counter[str]()
    for at in range(runs):
        study = {
            "gen_tokens": (8, 64)[at % 2],
            "scenarios": [{"name": "s", "prompt_tokens": (9, 200)[at // 2 % 2]}],
            "backends": [{"name": "llamacpp", "kind": "llamacpp"}],
            "models": [{"name": f"models/{LADDER[at % 3].name}", "kind": "llamacpp"}],
        }
        counts.update(measured(study, findings))
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, and return 0 where no honest server was said to be false, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="drawn runs (default: 200)")
    parser.add_argument("--stand-ins", type=int, default=0, help="runs against replays of Ollama (default: 0)")
    parser.add_argument("--speed", type=float, default=5.0, help="how much faster they replay (default: 5)")
    parser.add_argument("--llama-server", type=int, default=0, help="runs on a real llama-server (default: 0)")
    args = parser.parse_args(argv)
    false = {seed: claims for seed in range(args.runs) if (claims := found(clean(seed)))}
    print(
        f"drawn: {len(false)} of {args.runs} runs say server claim",
        *(f"{key}: {value}" for key, value in false.items()),
    )
    alarms = len(false)
    if args.stand_ins:
        for version, counts in stand_ins(args.stand_ins, args.speed).items():
            print(f"stand-in of Ollama {version}, {args.stand_ins // 2} runs: {dict(counts) or 'nothing found'}")
            alarms += counts["server claim"]
    if args.llama_server:
        counts = llama_server(args.llama_server)
        print(f"llama-server, {args.llama_server} runs: {dict(counts) or 'nothing found'}")
        alarms += counts["server claim"]
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
