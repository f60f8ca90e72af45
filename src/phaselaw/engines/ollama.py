"""The engine ``ollama``: an Ollama server by its native API (TR121 2.2; method: section 2).

Greedy unless the study says otherwise. How a call is judged to be real stands in `phaselaw.engines.prompt_cache`, what
the server's figures are worth in `phaselaw.engines.served_clock`. Nothing is ever pulled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phaselaw.engines.http_client import Limits
from phaselaw.engines.ollama_address import address
from phaselaw.engines.ollama_api import OllamaApi, full_name, model_info
from phaselaw.engines.ollama_model import OllamaModel
from phaselaw.errors import EngineError
from phaselaw.ladder.spec import ladder_model
from phaselaw.records import EngineInfo

if TYPE_CHECKING:
    from phaselaw.study.model import ModelEntry, OllamaBackend

QUICK = Limits(connect_s=5.0, idle_s=10.0, total_s=20.0)
"""For questions that need no model."""


def create(backend: OllamaBackend) -> OllamaEngine:
    """An engine with a backend's settings; asks the server nothing yet."""
    return OllamaEngine(backend)


def lacking(backend: OllamaBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server answers, and which models must be pulled first."""
    try:
        api = OllamaApi(address(backend.url, os.environ), limits=QUICK, ca_file=backend.ca_file)
        try:
            api.version()
            there = set(api.tags()) if models else set()
        finally:
            api.close()
    except EngineError as error:
        return [f"backend {backend.name}: no Ollama server: {error}; start one (ollama serve), or set its url"]
    return [
        f"model {model.name}: not on the Ollama server at {api.url}; {_how_to_get(model)}"
        for model in models
        if full_name(model.name) not in there
    ]


def _how_to_get(model: ModelEntry) -> str:
    """What a person does to have a model: it is pulled, but for one of the ladder, which no registry has."""
    ladder = ladder_model(model.identity)
    if ladder is None:
        return f"fetch it: ollama pull {model.name}"
    return f"make it: phaselaw models export {ladder.name}, and with the Modelfile: ollama create {model.name} -f FILE"


class OllamaEngine:
    """One Ollama server with a backend's settings."""

    holds_many_models = False
    """A server may hold several, but which ones is its own choice: calls are grouped by model."""

    def __init__(self, backend: OllamaBackend) -> None:
        self._backend = backend
        self._api = OllamaApi(
            address(backend.url, os.environ),
            limits=Limits(
                connect_s=backend.connect_timeout_s, idle_s=backend.idle_timeout_s, total_s=backend.timeout_s
            ),
            ca_file=backend.ca_file,
        )
        self._version: str | None = None
        self._models: dict[str, OllamaModel] = {}

    def describe(self) -> EngineInfo:
        """The server's version, the settings, and what the cache probes have found so far."""
        settings: dict[str, Any] = self._backend.model_dump(mode="json", exclude={"name", "kind"})
        settings |= {
            "url": self._api.url,
            "cache_probes": {name: m.probe for name, m in self._models.items() if m.probe},
        }
        return EngineInfo(kind="ollama", name=self._backend.name, version=self._version, settings=settings)

    def load(self, model: ModelEntry) -> OllamaModel:
        """Ask what the model is, and unload it once, so that it has seen no prompt. Raises `EngineError`.

        The weights are loaded by the first call, whose load time the server tells apart.
        """
        if model.name in self._models:
            return self._models[model.name]
        self._version = self._api.version()
        shown = self._api.show(model.name)
        info = model_info(shown, self._api.tags().get(full_name(model.name)))
        if full_name(model.name) in self._api.loaded():
            self._api.unload(model.name)
        self._models[model.name] = OllamaModel(
            self._api, self._backend, model.name, info, keeps_head=not self._backend.raw and _has_head(shown)
        )
        return self._models[model.name]

    def close(self) -> None:
        """Close the connections; the models stay as the server's ``keep_alive`` says."""
        self._api.close()


def _has_head(shown: Mapping[str, Any]) -> bool:
    """Whether a model's template puts tokens before the prompt, which then stay cached."""
    template = str(shown.get("template") or "")
    return template.strip() != "{{ .Prompt }}"
