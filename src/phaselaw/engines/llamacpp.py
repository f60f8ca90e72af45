"""The engine ``llamacpp``: llama.cpp's server, started by phaselaw for each model, or one that runs already.

A server of ours is stopped however phaselaw ends (`phaselaw.engines.llamacpp_guard`). A model is a GGUF file, one of
the ladder or a GPT-2 folder, which are exported on first use, or with ``url`` what that server holds.

A call is timed by the server's own ``timings``, with the client's clock beside it (method: section 2). The server
counts the first token as prompt time: ``predicted_ms`` spans one step less than ``predicted_n`` says. On a machine
whose cores the server fills, the client may be woken late; the server's clock doesn't see that.
"""

import dataclasses
import hashlib
import importlib.util
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from phaselaw.engines import served
from phaselaw.engines.gguf_header import Scalar, Table, architecture, read_header
from phaselaw.engines.http_client import QUICK, Line
from phaselaw.engines.llamacpp_process import LlamacppServer, ServerProcess, find_server, nothing_to_start, started
from phaselaw.engines.permits import refusal_to_start
from phaselaw.engines.prompts import token_ids
from phaselaw.engines.served import ServedEngine, ServedModel, StreamedReply
from phaselaw.errors import EngineError, MissingExtraError, ModelGoneError, PhaselawError
from phaselaw.ladder.gguf import export, is_exported, refusal
from phaselaw.ladder.spec import ladder_model
from phaselaw.machine.peak_memory import PeakMemory
from phaselaw.records import ModelInfo, Request, Timing
from phaselaw.servers.caches import Verdict
from phaselaw.study.model import LlamacppBackend, ModelEntry

GREEDY = {"temperature": 0, "top_k": 1, "samplers": ["top_k"]}
"""The likeliest token, found by the cheapest chain: nothing else is computed over the vocabulary."""
CLAIMS = ("cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms")
"""The server's figures that are kept with a call."""
_SERVER_GONE = {"refused", "connection_lost"}


def create(backend: LlamacppBackend) -> "LlamacppEngine":
    return LlamacppEngine(backend)


def lacking(backend: LlamacppBackend, models: Sequence[ModelEntry]) -> list[str]:
    """Whether a server is here or answers, and which models it can't have."""
    if backend.url is None:
        if (refused := refusal_to_start(backend.server or "")) is not None:
            return [f"backend {backend.name}: {refused}"]
        if find_server(backend.server) is None:
            return [f"backend {backend.name}: {nothing_to_start(backend.server)}"]
        return [f"model {model.name}: {fault}" for model in models for fault in _file_faults(model.name, backend)]
    try:
        with closing(LlamacppServer(backend.url, limits=QUICK, ca_file=backend.ca_file)) as server:
            server.health()
            props = server.props()
    except EngineError as error:
        return [f"backend {backend.name}: no llama-server: {error}; start one, or leave url out"]
    return [fault for model in models if (fault := _other_model(model.name, props, backend.url))]


def prepare(backend: LlamacppBackend, model: ModelEntry) -> None:
    """Export what has to be exported, so that no load time includes it. Raises `PhaselawError`."""
    if backend.url is None:
        _file_of(model.name, backend, every_byte=True)


def _other_model(name: str, props: Mapping[str, Any], url: str) -> str | None:
    """That a server holds another model, which may be called by its alias, its file, or its file's name."""
    path = str(props.get("model_path") or "")
    called = dict.fromkeys((str(props.get("model_alias") or ""), path, Path(path).name, Path(path).stem))
    held = [each for each in called if each]
    if name in held:
        return None
    return f"model {name}: the server at {url} holds {' or '.join(held) or 'no named model'}; name that"


def _file_faults(name: str, backend: LlamacppBackend) -> list[str]:
    ladder = ladder_model(name)
    if ladder is not None:
        if (refused := refusal(ladder.name, backend.weights, ladder.n_embd, ladder.inner_width)) is not None:
            return [refused]
        needs_export = not is_exported(ladder, backend.weights)
    else:
        needs_export = Path(name).is_dir()
        if not needs_export and not Path(name).is_file():
            return ["no such GGUF file; give a path, or a name that phaselaw models list prints"]
    if needs_export and importlib.util.find_spec("gguf") is None:
        return [str(MissingExtraError("llamacpp", "exporting it as GGUF"))]
    return []


def _file_of(name: str, backend: LlamacppBackend, *, every_byte: bool = False) -> Path:
    if ladder_model(name) is None and not Path(name).is_dir():
        return Path(name)
    return export(name, backend.weights, every_byte=every_byte).path


class LlamacppEngine(ServedEngine):
    """llama.cpp with one backend's settings: a server a model, or the one at the backend's ``url``."""

    server: LlamacppServer | None
    """The one that is not ours."""

    def __init__(self, backend: LlamacppBackend) -> None:
        url, limits, ca_file = backend.url, served.limits_of(backend), backend.ca_file
        super().__init__(backend, None if url is None else LlamacppServer(url, limits=limits, ca_file=ca_file))
        self._started: list[ServerProcess] = []
        self._observed: dict[str, Any] = {"decoding": "greedy", "prompt_cache": "off", "starts": {}}

    def most_loaded(self, _: Sequence[ModelEntry]) -> int | None:
        """All, each in a server of its own, or one."""
        return 1 if self.backend.one_at_a_time else None

    def found(self) -> dict[str, Any]:
        return self._observed

    def load(self, model: ModelEntry) -> "LlamacppModel":
        """Start a server with the model, or ask the one at ``url`` what it holds. Raises `EngineError`."""
        if (server := self.server) is not None:
            server.await_return(self.backend.reconnect_s)
            server.health()
            props = server.props()
            if (other := _other_model(model.name, props, server.base_url)) is not None:
                raise EngineError(other, kind="missing_model")
            path = Path(str(props.get("model_path")))
            header, tables = read_header(path) if path.is_file() else ({}, {})
        else:
            for fault in _file_faults(model.name, self.backend):
                raise EngineError(f"model {model.name}: {fault}", kind="missing_model")
            try:
                path = _file_of(model.name, self.backend)
            except PhaselawError as error:
                raise EngineError(f"can't load {model.name}: {error}", kind="load") from error
            header, tables = read_header(path)
            server = ours = started(self.backend, path)
            self._started.append(ours)
            took = {"load_ms": ours.load_ms, "of_which_weights_ms": ours.weights_ms}
            self._observed["starts"][model.name] = took
            self._observed |= {"executable": ours.executable, "threads_in_force": ours.threads}
            self._observed |= {"package": ours.package} if ours.package else {}
            props = server.props()
        self._observed["build_info"] = props.get("build_info")
        self.version = self._observed.get("package") or served.name_or_none(props.get("build_info"))
        context = served.count(served.mapping(props["default_generation_settings"]).get("n_ctx"))
        info = model_info(server.model_meta(), props, header, tables)
        return LlamacppModel(server, self.backend, model.name, info, context=context)

    def close(self) -> None:
        while self._started:
            self._started.pop().close()


class LlamacppModel(ServedModel):
    """A model that a server holds."""

    server: LlamacppServer

    def __init__(
        self, server: LlamacppServer, backend: LlamacppBackend, name: str, info: ModelInfo, *, context: int | None
    ) -> None:
        """``context`` is in tokens."""
        super().__init__(server, backend, name, info)
        self._context, self._memory = context, PeakMemory(server.pid)
        self._prompts: dict[str, list[int]] = {}

    def generate(self, request: Request) -> Timing:
        """Time one call. Raises `EngineError`; where the server is gone it says how it ended."""
        steps = request.gen_tokens
        try:
            prompt = self._prompt_of(request)
            if self._context is not None and len(prompt) + steps > self._context:
                no_room = f"a prompt of {len(prompt)} tokens leaves no room for {steps} more"
                message = f"{self.name} has a context of {self._context}: {no_room}; give a larger context_length"
                raise EngineError(message, kind="too_long")
            self._memory.reset()  # by each of several clients, all before the first of them sends
            # One streamed, greedy completion that the server's prompt cache must not answer.
            asked = {**GREEDY, "prompt": prompt, "n_predict": steps, "ignore_eos": self.backend.ignore_eos}
            asked |= {"cache_prompt": False, "stream": True, "return_tokens": True}
            reply = served.stream(self.server, "/completion", asked, request, read_stream)
        except EngineError as error:
            end = self.server.died() if error.kind in _SERVER_GONE else None
            if end is None:
                raise
            raise ModelGoneError(end, kind="server_died") from error
        return dataclasses.replace(server_timing(reply, len(prompt), steps), rss_peak_mb=self._memory.read_mb())

    def close(self) -> None:
        """Stop the server where it is ours."""
        self.server.close()

    def _prompt_of(self, request: Request) -> list[int]:
        """A prompt's ids; in a template the names of control tokens are read as these."""
        if request.prompt is None:
            return token_ids(request.prompt_tokens or 1, request.study_seed, self.info.vocab_size or 1)
        if request.prompt not in self._prompts:
            text, templated = request.prompt, self.backend.chat_template
            if templated:
                asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
                text = served.mapping(self.server.json("POST", "/apply-template", asked)).get("prompt") or ""
            asked = {"content": text, "add_special": True, "parse_special": templated}
            ids = served.mapping(self.server.json("POST", "/tokenize", asked)).get("tokens")
            if not isinstance(ids, list) or not ids or not all(isinstance(each, int) for each in ids):
                raise EngineError(f"{self.name}'s tokenizer makes no token of this prompt", kind="prompt")
            self._prompts[request.prompt] = ids
        return self._prompts[request.prompt]


def read_stream(lines: Sequence[Line], sent_ns: int) -> StreamedReply:
    """What a stream's events say; raises `EngineError` where they stand for no call.

    The output's SHA-256 is of the token ids as 64-bit integers where the stream had them all, else of the text.
    """
    events = served.events_of(lines, sent_ns, is_last=lambda event: bool(event.get("stop")), server_sent=True)
    final = events[-1][1] if events else {}
    with_tokens = [event for _, event in events if any(_texts(event))]
    listed = [event["tokens"] for event in with_tokens if isinstance(event.get("tokens"), list)]
    ids = [each for tokens in listed for each in tokens if isinstance(each, int)]
    raw = "".join(str(event.get("content") or "") for event in with_tokens).encode(errors="replace")
    if len(ids) == final.get("tokens_predicted"):
        raw = struct.pack(f"<{len(ids)}q", *ids)
    timings = served.mapping(final.get("timings") or {})
    figures = {name: served.number(timings.get(name)) for name in CLAIMS}
    generated = served.count(figures["predicted_n"])
    reply = served.reply_of(
        events,
        _texts,
        ended=bool(final.get("stop")),
        output_sha256=hashlib.sha256(raw).hexdigest(),
        cached_tokens=served.count(figures["cache_n"]),
        claims={
            "tokens_counted": generated,
            "prefill_ms_server": figures["prompt_ms"],
            "decode_ms_server": figures["predicted_ms"],
        },
        tokens_by=lambda event: event.get("tokens_predicted"),
        figures=figures,
    )
    if not final.get("stop"):
        raise EngineError(f"the stream ended after {len(reply.served.arrivals_ms)} chunks", kind="connection_lost")
    if generated is None or figures["prompt_ms"] is None or figures["predicted_ms"] is None:
        raise EngineError("the server gave no timings; is it a llama-server?", kind="bad_reply")
    if not generated or not reply.served.arrivals_ms:
        raise EngineError("no token came", kind="no_tokens")
    if final.get("truncated"):
        raise EngineError("the server cut the prompt to its context", kind="prompt_cut")
    return reply


def _texts(event: Mapping[str, Any]) -> tuple[str, str]:
    """No hidden text, and the shown one: a chunk may hold a token whose text is held back."""
    return "", str(event.get("content") or "") or str(event.get("tokens") or "")


def server_timing(reply: StreamedReply, prompt_tokens: int, gen_tokens: int) -> Timing:
    """What a reply to a prompt of so many tokens says, by the server's clock."""
    done_reason = "length" if (reply.served.tokens_counted or 0) >= gen_tokens else "stop"
    reply = dataclasses.replace(reply, prompt_tokens=prompt_tokens, done_reason=done_reason)
    verdict = Verdict("off", "the server was told to use no cache, and evaluated every token of the prompt")
    evaluated = served.count(reply.figures["prompt_n"])
    if reply.cached_tokens:
        reason = f"{reply.cached_tokens} of {prompt_tokens} tokens were cached, by the server's own count"
        verdict = Verdict("found", reason)
    elif evaluated is not None and evaluated < prompt_tokens:
        verdict = Verdict("found", f"the server evaluated {evaluated} of {prompt_tokens} tokens")
    return served.timing_of(reply, prompt_tokens, gen_tokens, verdict, server_times="both", model_was_loaded=True)


def model_info(
    meta: Mapping[str, Any], props: Mapping[str, Any], header: Mapping[str, Scalar], tables: Mapping[str, Table]
) -> ModelInfo:
    """A model by the server's own counts, and for the architecture by its file's header and tensors."""
    # Of these a token reads but a row: positions, and the tokens' unless it is the output as well.
    names = ["position_embd.weight", "token_types.weight"]
    names += ["token_embd.weight"] if "output.weight" in tables else []
    looked_up = [tables[name] for name in names if name in tables]
    return ModelInfo(
        **architecture(header, tables) | served.counted_by_llama_server(meta),
        lookup_params=sum(numbers for numbers, _ in looked_up) if tables else None,
        lookup_bytes=sum(size for _, size in looked_up) if tables else None,
        family=served.name_or_none(header.get("general.architecture")),
        quantization_level=served.name_or_none(props.get("model_ftype") or meta.get("ftype")),
        config_path=served.name_or_none(props.get("model_path")),
    )
