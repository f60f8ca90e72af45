"""What the checks say of short, clean runs against stand-ins of real Ollama servers: how often each speaks up.

    PYTHONPATH=tests/support python benchmarks/standins.py [RUNS]      100 by default: about 25 minutes, a quiet machine

The stand-ins replay recordings of v0.13.5 and v0.33 at twice their pace. 'load in measured calls' is true of v0.13.5;
of the others that speak of a server ('server claim', 'prompt cache', 'shared server') none should speak up.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections import Counter
from pathlib import Path

from phaselaw import api
from phaselaw.measure import begin, replicates
from phaselaw.study.file import load_study

ollama_standin, recordings = (importlib.import_module(name) for name in ("ollama_standin", "recordings"))

STUDY = """
run_name: clean
gen_tokens: 16
repetitions: 5
warmup_repetitions: 1
replicates: 1
seed: {seed}
scenarios: [{{name: q, prompt: "What does this function return and why does it"}}]
backends: [{{name: srv, kind: ollama, url: "{url}"}}]
models: [{{name: "{model}", kind: ollama}}]
"""
SPEED = 2.0


def findings(version: str, seed: int, folder: Path) -> list[str]:
    """The checks that find something in one run."""
    with ollama_standin.standing_in(ollama_standin.OllamaStandIn(version, speed=SPEED)) as url:
        path = folder / "study.yaml"
        path.write_text(STUDY.format(seed=seed, url=url, model=recordings.SMOLLM2))
        study = load_study(str(path))
        with begin.new_run(study, out=folder / "run", argv=[], asked={}, available=False, tell=print) as directory:
            list(replicates.measure_run(directory, lambda: False)[2])
            directory.finish("complete")
    return sorted(set(api.load(folder / "run").tables["validity_findings"].filter(status="found")["check"]))


def main(runs: int) -> None:
    """Print how many runs of each version each check spoke up in."""
    for version in (recordings.OLD, recordings.NEW):
        counts: Counter[str] = Counter()
        for seed in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                counts.update(findings(version, seed, Path(folder)))
        print(f"{version}, {runs} runs: {dict(counts) or 'nothing found'}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
