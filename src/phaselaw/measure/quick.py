"""The study of ``phaselaw quick``: one model of a server that runs already, sized to about a minute by one call."""

from contextlib import closing
from typing import Any

from phaselaw.engines import module_for
from phaselaw.engines.local_servers import LocalServer
from phaselaw.errors import EngineError
from phaselaw.records import Request
from phaselaw.study.model import Study

REPLICATES, MOST_REPETITIONS = 3, 5
WANTED_S = 45.0
"""What the calls are to take; starting processes and the report come on top."""
TRIED = Request(prompt=None, prompt_tokens=128, gen_tokens=16, batch_size=1, study_seed=0, seed=0, round=None)
SIZES = (64, (64, 512), (1, 2, 4, 8)), (32, (32, 256), (1, 2, 4, 8)), (16, (32, 128), (1, 4, 8)), (8, (16, 64), (1, 8))
"""Tokens generated, tokens of the two prompts, and clients, from the most to the least work."""


def quick_study(server: LocalServer) -> tuple[Study, float]:
    """The largest of `SIZES` that takes about `WANTED_S` where calls are answered one by one; and its seconds.

    Makes one call. Raises `EngineError` where it fails, such as for want of a model's name.
    """
    first_ms, step_ms, api = _pace(server)
    fits = [size for size in SIZES if not server.context or max(size[1]) + size[0] <= server.context] or SIZES[-1:]
    for gen_tokens, prompts, clients in fits:
        calls_ms = (first_ms * tokens / 128 + step_ms * gen_tokens for tokens in prompts)
        turn_s = sum(clients) * sum(calls_ms) / 1e3
        if 2 * REPLICATES * turn_s <= WANTED_S:
            break
    repetitions = max(1, min(MOST_REPETITIONS, int(WANTED_S / REPLICATES / turn_s) - 1))
    keys = {"gen_tokens": gen_tokens, "repetitions": repetitions}
    return _study(server, api, prompts, clients, **keys), REPLICATES * turn_s * (1 + repetitions)


def _study(server: LocalServer, api: str, prompts: tuple[int, ...], clients: tuple[int, ...], **keys: Any) -> Study:
    backend = {"name": server.kind, "kind": server.kind, "url": server.url, "concurrency": clients}
    backend |= {"api": api} if server.kind == "openai" else {}
    named = zip(("short", "long"), prompts, strict=False)
    keys |= {"scenarios": tuple({"name": name, "prompt_tokens": tokens} for name, tokens in named)}
    keys |= {"backends": (backend,), "models": ({"name": server.models[0], "kind": server.kind},)}
    return Study.model_validate(keys | {"run_name": "quick", "replicates": REPLICATES})


def _pace(server: LocalServer) -> tuple[float, float, str]:
    """Milliseconds to a first token and between two tokens, by one call; and which of OpenAI's two calls it answers."""
    for api in ("completions", "chat"):
        study = _study(server, api, (128,), (1,))
        try:
            with closing(module_for(server.kind).create(study.backends[0])) as engine:
                timing = engine.load(study.models[0]).generate(TRIED)
        except EngineError as error:
            if api == "chat" or server.kind != "openai" or not error.kind.startswith("http_4"):
                raise
        else:
            break
    seen = timing.served
    assert seen is not None
    first_ms = seen.ttft_ms - (seen.load_ms or 0.0)
    return first_ms, (seen.e2e_ms - seen.ttft_ms) / max(1, timing.gen_tokens_raw - 1), api
