"""``phaselaw quick``: the model servers that run already, on their usual ports of this machine or at an address, and a
study of one model of such a server, sized to about a minute by one call.
"""

import dataclasses
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

from phaselaw.engines import module_for, openai, permits
from phaselaw.engines.http_client import QUICK, HttpClient
from phaselaw.engines.llamacpp_process import LlamacppServer
from phaselaw.engines.ollama import OllamaServer
from phaselaw.engines.served import count, mapping
from phaselaw.errors import EngineError, NotReadyError
from phaselaw.records import Request
from phaselaw.servers.streams import client_prefill_ms
from phaselaw.study.model import Study

PORTS = {11434: "Ollama", 8080: "llama.cpp", 1234: "LM Studio", 8000: "vLLM", 30000: "SGLang"}
"""The port that each server listens on unless it is told another."""
START = "ollama serve; llama-server -m MODEL.gguf; vllm serve MODEL; transformers serve; or LM Studio's server"
UNNAMED = "default"
"""What a model is called where a server names none: most servers of one model take any name."""
REPLICATES, MOST_REPETITIONS = 3, 5
WANTED_S = 45.0
"""What the calls are to take; starting processes and the report come on top."""
TRIED = Request(prompt=None, prompt_tokens=128, gen_tokens=16, batch_size=1, study_seed=0, seed=0, round=None)
SIZES: tuple[tuple[int, tuple[int, int], tuple[int, ...]], ...] = (
    (64, (64, 512), (1, 2, 4, 8)),
    (32, (32, 256), (1, 2, 4, 8)),
    (16, (32, 128), (1, 4, 8)),
    (8, (16, 64), (1, 8)),
    (8, (16, 64), (1, 2)),
)
"""Tokens generated, tokens of the two prompts, and clients, from the most to the least work."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """A server that answers, and the model of it that is meant."""

    kind: Literal["ollama", "llamacpp", "openai"]
    url: str
    models: tuple[str, ...]
    """Those that it has, the loaded ones first; none where it does not say."""
    context: int | None = None
    """Tokens that one request may have, where it says."""

    def __str__(self) -> str:
        return f"the {self.kind} server at {self.url}"


def serving(model: str | None = None, url: str | None = None) -> LocalServer:
    """The first server that has ``model`` (``None``: any), with it first in its list; at ``url``, or here.

    One that names no models is taken to have each, where no other has it. Raises `NotReadyError`, saying what to start.
    """
    urls = [url] if url else [f"http://127.0.0.1:{port}" for port in PORTS]
    where = url or f"the usual ports of this machine ({', '.join(map(str, PORTS))})"
    servers = sorted(filter(None, map(_at, urls)), key=lambda server: not server.models)
    for server in servers:
        name = model or next(iter(server.models), UNNAMED)
        named = [each for each in server.models if each in (name, f"{name}:latest")]
        if named or not server.models:
            others = [each for each in server.models if each not in named]
            return dataclasses.replace(server, models=(*(named or [name]), *others))
    if servers:
        has = "; ".join(f"{server}: {', '.join(server.models[:5])}" for server in servers)
        raise NotReadyError(f"no server at {where} has {model}; name a model that one has: {has}")
    raise NotReadyError(f"no model server answers at {where}; start one ({START}), or give its address and --model")


def _at(url: str) -> LocalServer | None:
    """What answers at an address: asked as Ollama, as llama.cpp, then by OpenAI's protocol; ``None`` for nothing."""
    for ask in (_ollama, _llamacpp, _openai):
        try:
            return ask(url.rstrip("/").removesuffix("/v1"))
        except EngineError as error:
            if error.kind == "bad_url":  # nothing was asked
                raise
    return None


def _ollama(url: str) -> LocalServer:
    server = OllamaServer(url, limits=QUICK)
    server.version()
    names: dict[str, None] = {}
    for listing in ("ps", "tags"):
        with suppress(EngineError):  # a list that fails says nothing
            names |= dict.fromkeys(server.models(listing))
    return LocalServer(kind="ollama", url=url, models=tuple(names))


def _llamacpp(url: str) -> LocalServer:
    props = LlamacppServer(url, limits=QUICK).props()
    path = str(props.get("model_path") or "")
    alias = str(props.get("model_alias") or path)
    name = Path(path).stem if alias == path else alias
    if not name:
        raise EngineError(f"{url}: it holds no model", kind="bad_reply")
    context = count(mapping(props["default_generation_settings"]).get("n_ctx"))
    return LocalServer(kind="llamacpp", url=url, models=(name,), context=context or None)


def _openai(url: str) -> LocalServer:
    """A server whose list of models can't be read is tried all the same; LM Studio says which of its are loaded."""
    key = permits.key_for(url, permits.DEFAULT_KEY)
    server = openai.OpenaiServer(url, key=key, limits=QUICK, ca_file=None)
    names: dict[str, None] = {}
    with suppress(EngineError):
        all_known = map(mapping, mapping(HttpClient(url, limits=QUICK).json("GET", "/api/v0/models")).get("data") or ())
        names |= {str(each.get("id")): None for each in all_known if each.get("state") == "loaded"}
    try:
        names |= dict.fromkeys(server.models())
    except EngineError as error:
        if error.kind in openai.NOTHING_THERE:
            raise
    return LocalServer(kind="openai", url=server.base_url, models=tuple(names))


def quick_study(server: LocalServer) -> tuple[Study, float]:
    """The largest of `SIZES` that takes about `WANTED_S` where calls are answered one by one; and its seconds.

    Makes one call. Raises `EngineError` where it fails, and `NotReadyError` where that is for want of a model's name.
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
            if api == "completions" and server.kind == "openai" and error.kind.startswith("http_4"):
                continue
            if server.models[0] == UNNAMED and error.kind in ("http_400", "http_404", "http_422", "http_500"):
                unnamed = f"{server} names no model: say which with --model NAME (asked for any: {error})"
                raise NotReadyError(unnamed) from None
            raise NotReadyError(f"{server}: {error}{openai.key_hint(error, server.url)}") from None
        else:
            break
    seen = timing.served
    assert seen is not None
    return client_prefill_ms(seen), (seen.e2e_ms - seen.ttft_ms) / max(1, timing.gen_tokens_raw - 1), api
