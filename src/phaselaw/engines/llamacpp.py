"""The engine ``llamacpp``: llama.cpp's server, started by phaselaw for each model, or one that runs already.

A server of ours is stopped however phaselaw ends (`phaselaw.engines.llamacpp_guard`). A model is a GGUF file, one of
the ladder or a GPT-2 folder, which are exported on first use, or with ``url`` what that server holds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselaw.engines.gguf_header import Scalar, Table, read_header, read_tensors
from phaselaw.engines.http_client import Limits
from phaselaw.engines.llamacpp_api import LlamacppApi
from phaselaw.engines.llamacpp_model import LlamacppModel
from phaselaw.engines.llamacpp_process import PACKAGE, Server, find_server, nothing_to_start, package_version
from phaselaw.errors import EngineError, MissingExtraError, PhaselawError
from phaselaw.ladder.gguf_export import export, gguf_file, is_exported, ladder_refusal
from phaselaw.ladder.spec import ladder_model
from phaselaw.machine.peak_memory import PeakMemory
from phaselaw.records import EngineInfo, ModelInfo

if TYPE_CHECKING:
    from phaselaw.study.model import LlamacppBackend, ModelEntry

_QUICK = Limits(connect_s=5.0, idle_s=10.0, total_s=20.0)


def create(backend: LlamacppBackend) -> LlamacppEngine:
    """An engine with a backend's settings; starts nothing yet."""
    return LlamacppEngine(backend)


def lacking(backend: LlamacppBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server is here or answers, and which models it can't have."""
    if backend.url is not None:
        return _lacking_at(backend, backend.url, models)
    if find_server(backend.server) is None:
        return [f"backend {backend.name}: {nothing_to_start(backend.server)}"]
    return [f"model {model.name}: {fault}" for model in models for fault in _file_faults(model.name, backend)]


def prepare(backend: LlamacppBackend, model: ModelEntry) -> None:
    """Export what has to be exported, so that a load time never holds it. Raises `PhaselawError`."""
    if backend.url is None:
        _file_of(model.name, backend)


def _lacking_at(backend: LlamacppBackend, url: str, models: Sequence[ModelEntry]) -> list[str]:
    api = LlamacppApi(url, limits=_QUICK, ca_file=backend.ca_file)
    try:
        api.health()
        held = _names_of(api.props())
    except EngineError as error:
        return [f"backend {backend.name}: no llama-server: {error}; start one, or leave url out"]
    finally:
        api.close()
    return [fault for model in models if (fault := _other_model(model.name, held, url))]


def _other_model(name: str, held: Sequence[str], url: str) -> str | None:
    if name in held:
        return None
    return f"model {name}: the server at {url} holds {' or '.join(held) or 'no named model'}; name that"


def _names_of(props: Mapping[str, Any]) -> list[str]:
    """What the model of a server may be called: its alias, its file, its file's name with and without the end."""
    path = str(props.get("model_path") or "")
    return [name for name in dict.fromkeys((str(props.get("model_alias") or ""), path, Path(path).name,
                                            Path(path).stem)) if name]  # fmt: skip


def _file_faults(name: str, backend: LlamacppBackend) -> list[str]:
    ladder = ladder_model(name)
    if ladder is not None:
        refused = ladder_refusal(ladder, backend.weights)
        if refused is not None:
            return [refused]
        needs_export = not is_exported(ladder, backend.weights)
    else:
        needs_export = Path(name).is_dir()
        if not needs_export and not Path(name).is_file():
            return ["no such GGUF file; give a path, or the name of one of: phaselaw models list"]
    if needs_export and importlib.util.find_spec("gguf") is None:
        return [str(MissingExtraError("llamacpp", "exporting it as GGUF"))]
    return []


def _file_of(name: str, backend: LlamacppBackend) -> Path:
    if ladder_model(name) is not None:
        return gguf_file(name, backend.weights)
    return export(name, backend.weights).path if Path(name).is_dir() else Path(name)


class LlamacppEngine:
    """llama.cpp with one backend's settings: a server a model, or the one at the backend's ``url``."""

    holds_many_models: bool

    def __init__(self, backend: LlamacppBackend) -> None:
        self.holds_many_models = not backend.one_at_a_time
        self._backend = backend
        self._servers: list[Server] = []
        self._version: str | None = None
        self._observed: dict[str, Any] = {}
        self._starts: dict[str, dict[str, float | None]] = {}

    def describe(self) -> EngineInfo:
        """The build, the settings, what is in force of them, and how long each server took to start."""
        settings: dict[str, Any] = self._backend.model_dump(mode="json", exclude={"name", "kind"})
        settings |= {**self._observed, "decoding": "greedy", "prompt_cache": "off", "starts": self._starts}
        return EngineInfo(kind="llamacpp", name=self._backend.name, version=self._version, settings=settings)

    def load(self, model: ModelEntry) -> LlamacppModel:
        """Start a server with the model, or ask the one at ``url`` what it holds. Raises `EngineError`."""
        if self._backend.url is not None:
            return self._at(self._backend.url, model)
        for fault in _file_faults(model.name, self._backend):
            raise EngineError(f"model {model.name}: {fault}", kind="missing_model")
        try:
            path = _file_of(model.name, self._backend)
        except PhaselawError as error:
            raise EngineError(f"can't load {model.name}: {error}", kind="load") from error
        header, tables = read_header(path), read_tensors(path)
        server = Server(self._backend, path)
        self._servers.append(server)
        self._starts[model.name] = {"load_ms": server.load_ms, "of_which_weights_ms": server.weights_ms}
        self._observed |= {"executable": server.executable, "threads_in_force": server.threads}
        if server.executable == PACKAGE:
            self._observed["package"] = f"{PACKAGE} {package_version()}"
        return self._model(
            server.api, model.name, header, tables, died=server.died, stop=server.stop, memory=PeakMemory(server.pid)
        )

    def close(self) -> None:
        """Stop every server that was started."""
        while self._servers:
            self._servers.pop().stop()

    def _at(self, url: str, model: ModelEntry) -> LlamacppModel:
        backend = self._backend
        limits = Limits(connect_s=backend.connect_timeout_s, idle_s=backend.idle_timeout_s, total_s=backend.timeout_s)
        api = LlamacppApi(url, limits=limits, ca_file=backend.ca_file)
        api.health()
        props = api.props()
        other = _other_model(model.name, _names_of(props), url)
        if other is not None:
            raise EngineError(other, kind="missing_model")
        path = Path(str(props.get("model_path")))
        header, tables = (read_header(path), read_tensors(path)) if path.is_file() else ({}, {})
        return self._model(api, model.name, header, tables, died=lambda: None, stop=api.close, memory=None)

    def _model(
        self, api: LlamacppApi, name: str, header: Mapping[str, Scalar], tables: Mapping[str, Table], **ends: Any
    ) -> LlamacppModel:
        props = api.props()
        self._observed["build_info"] = props.get("build_info")
        self._version = self._observed.get("package") or _text(props.get("build_info"))
        generation = props.get("default_generation_settings") or {}
        context = generation.get("n_ctx") if isinstance(generation, dict) else None
        info = model_info(api.model_meta(), props, header, tables)
        return LlamacppModel(
            api, self._backend, name, info, context=context if isinstance(context, int) else None, **ends
        )


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def model_info(
    meta: Mapping[str, Any], props: Mapping[str, Any], header: Mapping[str, Scalar], tables: Mapping[str, Table]
) -> ModelInfo:
    """A model by the server's own counts, and for the architecture by its file's header and tensors."""
    family = header.get("general.architecture")
    looked_up = looked_up_tables(tables)

    def of_file(key: str) -> int | None:
        value = header.get(f"{family}.{key}")
        return value if isinstance(value, int) else None

    def of_server(key: str) -> int | None:
        value = meta.get(key)
        return value if isinstance(value, int) and value > 0 else None

    params, kept = of_server("n_params"), props.get("model_ftype") or meta.get("ftype")
    return ModelInfo(
        params_millions_measured=None if params is None else params / 1e6,
        n_layer=of_file("block_count"),
        n_embd=of_server("n_embd") or of_file("embedding_length"),
        n_head=of_file("attention.head_count"),
        n_inner=of_file("feed_forward_length"),
        vocab_size=of_server("n_vocab"),
        n_positions=of_server("n_ctx_train") or of_file("context_length"),
        n_kv_head=of_file("attention.head_count_kv"),
        head_dim=of_file("attention.key_length"),
        n_experts=of_file("expert_count"),
        lookup_params=sum(numbers for numbers, _ in looked_up) if tables else None,
        lookup_bytes=sum(size for _, size in looked_up) if tables else None,
        family=_text(family),
        quantization_level=_text(kept),
        weights_bytes=of_server("size"),
        config_path=_text(props.get("model_path")),
    )


def looked_up_tables(tables: Mapping[str, Table]) -> list[Table]:
    """The tables of which a token reads but a row: positions, and the tokens' unless it is the output as well."""
    names = ["position_embd.weight", "token_types.weight"]
    names += ["token_embd.weight"] if "output.weight" in tables else []
    return [tables[name] for name in names if name in tables]
