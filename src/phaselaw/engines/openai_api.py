"""The calls of an OpenAI-compatible server, and which of our wishes it knows.

A key never reaches a message: whatever a server answers is told with the key cut out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from phaselaw.engines.http_client import Exchange, HttpClient, Limits, Line
from phaselaw.engines.openai_stream import Reply, is_last, read_stream
from phaselaw.errors import EngineError

WISHES = ("ignore_eos", "min_tokens", "cache_prompt", "cache_salt")
"""Keys that some servers know and others refuse: left away where they are refused."""
OPTIONAL = (*WISHES, "stream_options", "seed", "top_p", "temperature")
RENAMED = {"max_tokens": "max_completion_tokens"}
TURNED_AWAY = frozenset({"refused", "http_429", "http_502", "http_503", "http_504"})
LONGEST_WAIT_S = 60.0


class OpenaiApi:
    """One server, and what has been learnt of what it refuses."""

    def __init__(self, url: str, *, key: str | None, limits: Limits, ca_file: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._key, self._limits = key, limits
        base = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1"
        self._http = HttpClient(base, headers=headers, limits=limits, ca_file=ca_file)
        self._refused: set[str] = set()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._http.base_url

    @property
    def refused(self) -> frozenset[str]:
        """The keys that this server was found to refuse."""
        return frozenset(self._refused)

    def models(self) -> dict[str, Mapping[str, Any]] | None:
        """The server's models by id; ``None`` where it has no such list."""
        try:
            answer = self._http.json("GET", "models")
        except EngineError as error:
            if error.kind in ("http_404", "http_405"):
                return None
            raise self._without_key(error) from None
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise EngineError(f"{self.url}: what answers there does not speak OpenAI's protocol", kind="bad_reply")
        return {str(entry.get("id")): entry for entry in entries if isinstance(entry, dict)}

    def negotiate(self, path: str, request: Mapping[str, Any]) -> None:
        """Find out, by calls that are not measured, which keys of a request this server refuses.

        A refused key is one that the server's answer names; one that names none costs it all of `WISHES`.
        """
        for _ in range(len(OPTIONAL) + 2):
            try:
                self.complete(path, request, 8)
                return
            except EngineError as error:
                sent = self._accepted(request)
                named = {key for key in (*OPTIONAL, *RENAMED) if key in sent and key in str(error)}
                unnamed = {key for key in WISHES if key in sent}
                if error.kind not in ("http_400", "http_422") or not (named or unnamed):
                    raise
                self._refused |= named or unnamed

    def complete(
        self, path: str, request: Mapping[str, Any], gen_tokens: int, before_send: Callable[[], object] | None = None
    ) -> Reply:
        """One streamed call; raises `EngineError`."""
        enough = 1_000 + 8 * gen_tokens
        limits = dataclasses.replace(self._limits, reply_bytes=self._limits.reply_bytes + 4_000 * gen_tokens)
        lines: list[Line] = []
        try:
            sent = self._accepted(request)
            with self._http.open("POST", path, sent, limits=limits, fresh=True, before_send=before_send) as exchange:
                exchange.raise_for_status()
                _refuse_unstreamed(exchange)
                for line in exchange.lines():
                    lines.append(line)
                    if is_last(line.data):
                        break
                    if len(lines) > enough:
                        raise EngineError(f"{exchange.url}: {len(lines)} lines for {gen_tokens} tokens", kind="endless")
            return dataclasses.replace(
                read_stream(lines, exchange.sent_ns), connect_ms=exchange.connect_ms, sent_at_ms=exchange.sent_ns / 1e6
            )
        except EngineError as error:
            raise self._without_key(error) from None

    def close(self) -> None:
        """Close the kept connections."""
        self._http.close()

    def _accepted(self, request: Mapping[str, Any]) -> dict[str, Any]:
        sent = {}
        for key, value in request.items():
            if key not in self._refused:
                sent[key] = value
            elif key in RENAMED:
                sent[RENAMED[key]] = value
        return sent

    def _without_key(self, error: EngineError) -> EngineError:
        text = str(error) if not self._key else str(error).replace(self._key, "***")
        return EngineError(text, kind=error.kind)


def wait_before_retry(error: EngineError, tries: int) -> None:
    """Wait as long as a server that turned a call away asks for, else longer with each try; at most a minute."""
    wait_s = 0.5 * 2**tries
    with suppress(ValueError):
        wait_s = float(str(error).partition("Retry-After: ")[2].partition(")")[0])
    time.sleep(min(max(wait_s, 0.0), LONGEST_WAIT_S))


def _refuse_unstreamed(exchange: Exchange) -> None:
    kind = str(exchange.headers.get("content-type") or "")
    if kind.startswith("application/json"):
        raise EngineError(f"{exchange.url}: the server does not stream: {exchange.error_text()}", kind="not_streamed")
