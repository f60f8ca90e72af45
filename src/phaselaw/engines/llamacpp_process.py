"""A llama-server of ours: found, started on a free loopback port, waited for, and stopped however phaselaw ends."""

import importlib.metadata
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psutil

from phaselaw.engines.http_client import HttpClient, Limits
from phaselaw.engines.permits import refusal_to_start
from phaselaw.engines.served import limits_of, mapping
from phaselaw.errors import EngineError
from phaselaw.study.model import LlamacppBackend

PACKAGE = "xllamacpp"
"""The Python package that carries the server."""
HOST = "127.0.0.1"

_POLL_S = 0.01
_QUICK = Limits(connect_s=1.0, idle_s=5.0, total_s=5.0)
_NOT_YET = {"refused", "connection_lost", "timeout", "http_503"}
_STARTS = 3
"""Another program may take the free port before the server does; then it is started anew on another one."""
_STOP_WAIT_S = 10.0


class LlamacppServer(HttpClient):
    """What measuring asks of one llama-server (tools/server/README.md of llama.cpp). All raise `EngineError`."""

    def health(self) -> None:
        """Return where the server is ready; error ``http_503`` while it loads."""
        self.json("GET", "/health")

    def props(self) -> Mapping[str, Any]:
        """The server's properties: build, model, context."""
        props = mapping(self.json("GET", "/props"))
        if "default_generation_settings" not in props:
            raise EngineError(f"{self.base_url}: what answers there is no llama-server", kind="bad_reply")
        return props

    def model_meta(self) -> Mapping[str, Any]:
        """What the server counted of its model: parameters, vocabulary, bytes; empty on servers that don't say."""
        models = mapping(self.json("GET", "/v1/models")).get("data")
        entry = models[0] if isinstance(models, list) and models else {}
        return mapping(mapping(entry).get("meta") or {})

    @property
    def pid(self) -> int | None:
        """The server's process where it is ours."""
        return None

    def died(self) -> str | None:
        """How a server of ours ended, in one line; ``None`` while it runs."""
        return None


def find_server(wanted: str | None) -> str | None:
    """The server to start: a path or `PACKAGE`; ``None`` where the one that is wanted, or any, is not here."""
    if wanted is not None and wanted != PACKAGE:
        return shutil.which(wanted)
    on_path = shutil.which("llama-server") if wanted is None else None
    return on_path or (PACKAGE if importlib.util.find_spec(PACKAGE) is not None else None)


def command_of(server: str, backend: LlamacppBackend, model: Path, alias: str, port: int) -> list[str]:
    """The command that runs the server; what the backend leaves out stays at the server's own default."""
    slots, context, flash = max(backend.concurrency), backend.context_length, backend.flash_attention
    settings: dict[str, Any] = {
        "model": str(model),
        "alias": alias,
        "host": HOST,
        "port": port,
        "parallel": slots,
        "threads": backend.threads,
        "ctx-size": None if context is None else context * slots,  # of all slots together
        "batch-size": backend.batch,
        "ubatch-size": backend.micro_batch,
        "n-gpu-layers": backend.gpu_layers,
        "cache-type-k": backend.kv_cache,
        "cache-type-v": backend.kv_cache,
        "flash-attn": None if flash is None else ("on" if flash else "off"),
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if server == PACKAGE:
        return [sys.executable, "-m", "phaselaw.engines.llamacpp_package", json.dumps(settings)]
    return [server, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


class ServerProcess(LlamacppServer):
    """A server of ours with one model, from its start on."""

    load_ms: float
    """From the start of its process to its first healthy answer."""
    weights_ms: float | None = None
    """The part of `load_ms` from its first answer, which says that it is loading, to the healthy one."""

    def __init__(self, executable: str, backend: LlamacppBackend, model: Path) -> None:
        with socket.create_server((HOST, 0)) as free:
            port: int = free.getsockname()[1]
        super().__init__(f"http://{HOST}:{port}", limits=limits_of(backend))
        self.executable, self._longest_s = executable, backend.start_timeout_s
        # The package that carries the server, whose own build may not know its number.
        self.package = PACKAGE if executable == PACKAGE else None
        if self.package is not None:
            with suppress(importlib.metadata.PackageNotFoundError):
                self.package += f" {importlib.metadata.version(PACKAGE)}"
        self._alias = f"phaselaw-{secrets.token_hex(4)}"
        self._log_file = tempfile.TemporaryFile()  # noqa: SIM115
        command = command_of(executable, backend, model, self._alias, port)
        self._started_ns = time.perf_counter_ns()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "phaselaw.engines.llamacpp_guard", *command],
            stdin=subprocess.PIPE,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            # Ours, less the variables by which llama-server takes settings that no study states.
            env={name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")},
            start_new_session=True,  # Ctrl-C is for phaselaw, which then stops the server in order
        )

    def is_ready(self) -> bool:
        """Wait until it is healthy; false where another program has its port. Raises `EngineError`."""
        deadline, loading_ns = time.monotonic() + self._longest_s, None
        with closing(LlamacppServer(self.base_url, limits=_QUICK)) as probe:
            while True:
                try:
                    probe.health()
                    break
                except EngineError as error:
                    if error.kind not in _NOT_YET:
                        raise
                    if error.kind == "http_503" and loading_ns is None:
                        loading_ns = time.perf_counter_ns()
                if (end := self.died()) is not None:
                    raise EngineError(end, kind="start")
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"llama-server is not healthy {self._longest_s:g} s after its start", kind="timeout"
                    )
                time.sleep(_POLL_S)
            healthy_ns = time.perf_counter_ns()
            ours = probe.props().get("model_alias", self._alias) == self._alias
        self.load_ms = (healthy_ns - self._started_ns) / 1e6
        self.weights_ms = None if loading_ns is None else (healthy_ns - loading_ns) / 1e6
        return ours and self._process.poll() is None

    def died(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        # The log's last line that tells of an error, else its last line.
        lines = [line.strip() for line in self._log().splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"error|fail|unable|\bE\b", line, re.IGNORECASE)]
        return f"llama-server ended with exit code {code}: {(telling or lines or ['it logged nothing'])[-1][:300]}"

    @property
    def pid(self) -> int | None:
        """The server's own process, the guard's child; ``None`` where it is gone."""
        with suppress(psutil.Error):
            return next((child.pid for child in psutil.Process(self._process.pid).children()), None)
        return None

    @property
    def threads(self) -> int | None:
        """The threads in force, as the server's log has them."""
        found = re.search(r"n_threads = (\d+)", self._log())
        return int(found.group(1)) if found else None

    def close(self) -> None:
        """Stop it and wait until it is gone; safe to call twice."""
        try:
            self._process.communicate(timeout=_STOP_WAIT_S)  # which closes the guard's standard input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log_file.close()
        super().close()

    def _log(self) -> str:
        return os.pread(self._log_file.fileno(), 1 << 20, 0).decode("utf-8", "replace")


def started(backend: LlamacppBackend, model: Path) -> ServerProcess:
    """A healthy server of ours with one model. Raises `EngineError`."""
    if (refused := refusal_to_start(backend.server or "")) is not None:
        raise EngineError(f"backend {backend.name}: {refused}", kind="not_allowed")
    executable = find_server(backend.server)
    if executable is None:
        raise EngineError(f"backend {backend.name}: {nothing_to_start(backend.server)}", kind="missing_server")
    for _ in range(_STARTS):
        with ExitStack() as undone:
            server = undone.enter_context(closing(ServerProcess(executable, backend, model)))
            if server.is_ready():
                undone.pop_all()
                return server
    raise EngineError(f"no free port for {executable} was still free when it started", kind="start")


def nothing_to_start(wanted: str | None) -> str:
    """What to do where no server is found, as a line."""
    if wanted is not None and wanted != PACKAGE:
        return f"there is no program {wanted}; give the path of a llama-server"
    return "no llama-server is here; put one on PATH, name it (server: ...), or: pip install 'phaselaw[llamacpp]'"
