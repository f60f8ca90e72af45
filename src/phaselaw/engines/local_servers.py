"""Model servers that run already: on their usual ports of this machine, or at an address; what each holds."""

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Literal

from phaselaw.engines import openai, permits
from phaselaw.engines.http_client import QUICK, HttpClient
from phaselaw.engines.llamacpp_process import LlamacppServer
from phaselaw.engines.ollama import OllamaServer
from phaselaw.engines.served import count, mapping
from phaselaw.errors import EngineError, NotReadyError

PORTS = {11434: "Ollama", 8080: "llama.cpp", 1234: "LM Studio", 8000: "vLLM", 30000: "SGLang"}
"""The port that each server listens on unless it is told another."""
START = "ollama serve; llama-server -m MODEL.gguf; vllm serve MODEL; transformers serve; or LM Studio's server"
UNNAMED = "default"
"""What a model is called where a server names none: most servers of one model take any name."""


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
        with suppress(EngineError):
            return ask(url.rstrip("/").removesuffix("/v1"))
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
