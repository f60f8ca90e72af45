"""Ollama's native HTTP API: what is asked, and what a stream's lines say (https://docs.ollama.com/api).

Nothing is ever pulled. Durations are nanoseconds; a field that is zero may be absent, and one that is negative (down
to -2^63 where a server divided by nothing) is no duration.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from phaselaw.engines.http_client import HttpClient, Limits, Line, quoted
from phaselaw.errors import EngineError
from phaselaw.records import ModelInfo

LONGEST_NS = 1e18
"""Thirty years: what is longer is no duration, nor is infinity."""
UNLOAD_WAIT_S = 60.0
UNLOAD_POLL_S = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A streamed generation: when its chunks came, in ms since the send, and its last line."""

    arrivals_ms: tuple[float, ...]
    """Of the chunks that hold text, hidden reasoning included."""
    wall_ms: float
    thinking_chunks: int
    output_sha256: str
    final: Mapping[str, Any]
    sent_at_ms: float = 0.0
    """When it was sent, by the process's monotonic clock."""
    connect_ms: float | None = None
    """Set-up of its connection, before the send."""

    def ms(self, field: str) -> float | None:
        """A duration of the last line, in ms; ``None`` where it is absent, zero or negative."""
        value = self.final.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LONGEST_NS:
            return None
        return value / 1e6

    def count(self, field: str) -> int | None:
        """A count of the last line; ``None`` where it is absent or no count."""
        value = self.final.get(field)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class OllamaApi:
    """The calls of one server that measuring needs."""

    def __init__(self, url: str, *, limits: Limits, ca_file: str | None = None) -> None:
        self._http = HttpClient(url, limits=limits, ca_file=ca_file)
        self._limits = limits

    @property
    def url(self) -> str:
        """The server's address."""
        return self._http.base_url

    def version(self) -> str:
        """The server's version; raises `EngineError` where what answers is no Ollama."""
        version = _mapping(self._http.json("GET", "/api/version")).get("version")
        if not isinstance(version, str):
            raise EngineError(f"{self.url}: what answers there is no Ollama", kind="bad_reply")
        return version[:100]

    def tags(self) -> dict[str, Mapping[str, Any]]:
        """The models that the server has, by full name."""
        return _by_name(self._http.json("GET", "/api/tags"))

    def loaded(self) -> dict[str, Mapping[str, Any]]:
        """The models that the server holds in memory now, by full name."""
        return _by_name(self._http.json("GET", "/api/ps"))

    def show(self, model: str) -> Mapping[str, Any]:
        """What the server says of a model; `EngineError` with the command to fetch it where it has none such."""
        try:
            return _mapping(self._http.json("POST", "/api/show", {"model": model}))
        except EngineError as error:
            raise _missing(error, model, self.url) from error

    def unload(self, model: str) -> None:
        """Have a model unloaded, and wait until the server no longer lists it."""
        self._http.json("POST", "/api/generate", {"model": model, "keep_alive": 0})
        deadline = time.monotonic() + UNLOAD_WAIT_S
        while full_name(model) in self.loaded():
            if time.monotonic() > deadline:
                raise EngineError(f"{self.url}: {model} is still loaded {UNLOAD_WAIT_S:g} s after its unload was asked",
                                  kind="timeout")  # fmt: skip
            time.sleep(UNLOAD_POLL_S)

    def preload(self, request: Mapping[str, Any]) -> None:
        """Load a model with the options of a request, generating nothing."""
        self._http.json("POST", "/api/generate", {**request, "prompt": "", "stream": False})

    def generate(
        self, request: Mapping[str, Any], gen_tokens: int, before_send: Callable[[], object] | None = None
    ) -> Reply:
        """One streamed generation; raises `EngineError`."""
        enough = 1_000 + 4 * gen_tokens
        limits = dataclasses.replace(self._limits, reply_bytes=self._limits.reply_bytes + 4_000 * gen_tokens)
        lines: list[Line] = []
        try:
            asked = {**request, "stream": True}
            with self._http.open(
                "POST", "/api/generate", asked, limits=limits, fresh=True, before_send=before_send
            ) as exchange:
                exchange.raise_for_status()
                for line in exchange.lines():
                    lines.append(line)
                    if len(lines) > enough:
                        raise EngineError(f"{exchange.url}: {len(lines)} lines for {gen_tokens} tokens", kind="endless")
        except EngineError as error:
            raise _missing(error, str(request["model"]), self.url) from error
        return dataclasses.replace(
            read_stream(lines, exchange.sent_ns), connect_ms=exchange.connect_ms, sent_at_ms=exchange.sent_ns / 1e6
        )

    def close(self) -> None:
        """Close the kept connections."""
        self._http.close()


def read_stream(lines: Iterable[Line], sent_ns: int) -> Reply:
    """What the lines of a stream say; raises `EngineError` for an error told mid-stream or a stream without its end."""
    arrivals: list[float] = []
    text = hashlib.sha256()
    thinking = 0
    for line in lines:
        if not line.data.strip():
            continue
        said = _event(line.data)
        at_ms = (line.received_ns - sent_ns) / 1e6
        if said.get("error"):
            raise EngineError(
                f"the server ended the stream: {quoted(str(said['error']).encode())}", kind="server_error"
            )
        hidden, shown = said.get("thinking"), said.get("response")
        if hidden or shown:
            arrivals.append(at_ms)
            text.update(f"{hidden or ''}\0{shown or ''}".encode("utf-8", "surrogatepass"))
            thinking += bool(hidden)
        if said.get("done") is True:
            return Reply(
                arrivals_ms=tuple(arrivals),
                wall_ms=at_ms,
                thinking_chunks=thinking,
                output_sha256=text.hexdigest(),
                final=said,
            )
    raise EngineError(f"the stream ended after {len(arrivals)} chunks without its last line", kind="connection_lost")


def model_info(shown: Mapping[str, Any], listed: Mapping[str, Any] | None) -> ModelInfo:
    """A model as measured: the exact parameter count where the server gives it, else its rounded label."""
    details, info = _mapping(shown.get("details") or {}), _mapping(shown.get("model_info") or {})
    architecture = info.get("general.architecture")

    def of_architecture(key: str) -> int | None:
        value = info.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    label = details.get("parameter_size")
    exact = info.get("general.parameter_count")
    params = exact / 1e6 if isinstance(exact, int) and exact > 0 else parameter_millions(label)
    size = (listed or {}).get("size")
    weights = re.search(r"^FROM .*sha256-([0-9a-f]{64})", str(shown.get("modelfile") or ""), re.MULTILINE)
    return ModelInfo(
        params_millions_measured=params,
        n_layer=of_architecture("block_count"),
        n_embd=of_architecture("embedding_length"),
        n_head=of_architecture("attention.head_count"),
        n_inner=of_architecture("feed_forward_length"),
        vocab_size=of_architecture("vocab_size"),
        n_positions=of_architecture("context_length"),
        family=_text_or_none(details.get("family")),
        quantization_level=_text_or_none(details.get("quantization_level")),
        parameter_size_raw=_text_or_none(label),
        weights_bytes=size if isinstance(size, int) else None,
        weights_sha256=weights.group(1) if weights else None,
    )


def parameter_millions(label: object) -> float | None:
    """Millions of parameters of a label such as ``268.10M``, ``7.6B``, ``137M`` or ``1.2T``; ``None`` if it is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMBT]?)\s*", label, re.IGNORECASE) if isinstance(label, str) else None
    if found is None:
        return None
    scale = {"": 1e-6, "K": 1e-3, "M": 1.0, "B": 1e3, "T": 1e6}[found.group(2).upper()]
    return float(found.group(1)) * scale or None


def full_name(model: str) -> str:
    """A model's name as the server lists it: the tag ``latest`` where none is given."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _missing(error: EngineError, model: str, url: str) -> EngineError:
    if error.kind != "http_404":
        return error
    return EngineError(f"{url} has no model {model}; fetch it: ollama pull {model}", kind="missing_model")


def _by_name(answer: object) -> dict[str, Mapping[str, Any]]:
    models = _mapping(answer).get("models") or []
    if not isinstance(models, list):
        raise EngineError("the server's list of models is none", kind="bad_reply")
    entries = [_mapping(entry) for entry in models]
    return {full_name(str(entry.get("name") or entry.get("model"))): entry for entry in entries}


def _event(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise EngineError(f"a line of the stream is no JSON: {quoted(data)}", kind="bad_reply") from error


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EngineError(f"a JSON object was expected, not {quoted(repr(value).encode())}", kind="bad_reply")
    return value


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
