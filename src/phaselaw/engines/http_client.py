"""A streaming HTTP/1.1 client for measuring: it says when each piece of a reply arrived, and how long connecting took.

Every instant is ``time.perf_counter_ns`` read straight after the ``recv`` that brought the bytes, before anything is
parsed. Connecting (TCP and TLS) is over before the request is sent and is reported apart. The standard library parses
the reply (chunks, lengths, keep-alive); ``benchmarks/client_honesty.py`` is what this choice rests on.

Each fault becomes an `EngineError` of one line whose ``kind`` is a short word: ``refused``, ``unreachable``,
``timeout``, ``connection_lost``, ``tls``, ``redirects``, ``bad_reply``, ``too_large``, or ``http_404`` for a status.
Proxies are not used: a measurement goes to the server itself.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from phaselaw.engines.http_connection import (
    READ_BYTES,
    AsSocket,
    Connection,
    Limits,
    Stream,
    joined,
    origin,
    quoted,
    reason,
    request_message,
    shown,
)
from phaselaw.errors import EngineError

__all__ = ["Exchange", "HttpClient", "Limits", "Line", "quoted"]

MAX_LINE_BYTES = 8 * 2**20
"""A line longer than this is no event of any engine."""
MAX_REDIRECTS = 3


class Line(NamedTuple):
    """A line of a reply, its end cut off, and the `time.perf_counter_ns` at which its last byte arrived."""

    received_ns: int
    data: bytes


class HttpClient:
    """Requests to one server. Connections are kept and used again; threads may share a client."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        ca_file: str | None = None,
    ) -> None:
        """``base_url`` is ``http[s]://host[:port][/prefix]``; ``headers`` go with every request to this server."""
        self._base = base_url.rstrip("/") + "/"
        self._headers = dict(headers or {})
        self._limits = limits or Limits()
        self._ca_file = ca_file
        self._idle: list[Connection] = []
        self._origin = origin(self._base)

    @property
    def base_url(self) -> str:
        """The address, without a slash at its end."""
        return self._base.rstrip("/")

    def open(
        self,
        method: str,
        path: str,
        payload: Any = None,
        *,
        limits: Limits | None = None,
        fresh: bool = False,
        before_send: Callable[[], object] | None = None,
    ) -> Exchange:
        """Send a request, JSON where there is a ``payload``, and wait for the head of the reply.

        ``fresh`` opens a connection for it, as every measured call does: a kept one may be closed under it, which only
        GET survives. ``before_send`` is called between connecting and sending. A 307 or 308, and for GET any redirect,
        is followed at most `MAX_REDIRECTS` times; the exchange's times are the last request's. Any other status is
        returned as it is. Raises `EngineError`.
        """
        body = None if payload is None else json.dumps(payload).encode()
        home = url = joined(self._base, path.lstrip("/"))
        for _ in range(MAX_REDIRECTS + 1):
            headers = self._headers if origin(url) == self._origin else {}
            message = request_message(method, url, body, headers)
            exchange = self._exchange(
                method, url, message, limits or self._limits, fresh=fresh, before_send=before_send
            )
            before_send = None
            location = exchange.headers.get("location")
            follows = exchange.status in (307, 308) or (method == "GET" and exchange.status in (301, 302, 303))
            if location is None or not follows:
                return exchange
            exchange.close()
            url = joined(url, location)
        raise EngineError(f"{shown(home)}: more than {MAX_REDIRECTS} redirects, the last to {shown(url)}",
                          kind="redirects")  # fmt: skip

    def json(self, method: str, path: str, payload: Any = None) -> Any:
        """The JSON value that a request is answered with. Raises `EngineError`, also for a status of no success."""
        with self.open(method, path, payload) as exchange:
            exchange.raise_for_status()
            text = exchange.read()
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{exchange.url}: the reply is no JSON: {quoted(text)}", kind="bad_reply") from error

    def close(self) -> None:
        """Close the kept connections; safe to call twice."""
        while self._idle:
            self._idle.pop().close()

    def _exchange(
        self, method: str, url: str, message: bytes, limits: Limits, *, fresh: bool,
        before_send: Callable[[], object] | None = None,
    ) -> Exchange:  # fmt: skip
        kept = None if fresh else self._kept(origin(url))
        exchange = Exchange(shown(url), kept or Connection(url, limits, self._ca_file), self._idle, limits)
        try:
            if before_send is not None:
                before_send()
            exchange.send(method, message)
        except EngineError as error:
            if kept is None or method != "GET" or error.kind != "connection_lost":
                raise
            return self._exchange(method, url, message, limits, fresh=True)
        return exchange

    def _kept(self, origin: tuple[str, str, int]) -> Connection | None:
        """A connection of an earlier request that the server still holds open."""
        while self._idle:
            connection = self._idle.pop()
            if connection.origin == origin and connection.is_quiet():
                connection.connect_ms = None
                return connection
            connection.close()
        return None


class Exchange:
    """One request and its reply; a context manager, so that an abandoned reply's connection is closed."""

    status: int
    headers: http.client.HTTPMessage
    sent_ns: int
    """When sending began."""
    head_ns: int
    """When the end of the reply's head had arrived."""

    def __init__(self, url: str, connection: Connection, idle: list[Connection], limits: Limits) -> None:
        self.url = url
        self._connection, self._idle, self._limits = connection, idle, limits
        self._stream = Stream(connection.socket, url, limits)
        self._reply: http.client.HTTPResponse | None = None

    @property
    def connect_ms(self) -> float | None:
        """How long TCP and TLS set-up took before this request; ``None`` where a kept connection served."""
        return self._connection.connect_ms

    def send(self, method: str, message: bytes) -> None:
        """Send the request and read the reply's head; called once, by the client."""
        self.sent_ns = time.perf_counter_ns()
        with self._faults():
            self._stream.start(self.sent_ns)
            self._connection.socket.sendall(message)
            self._reply = http.client.HTTPResponse(AsSocket(self._stream), method=method)  # type: ignore[arg-type]
            self._reply.begin()
        self.status, self.headers, self.head_ns = self._reply.status, self._reply.headers, self._stream.received_ns

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The body as it arrives: (`time.perf_counter_ns`, bytes). Raises `EngineError` where it is cut off."""
        while True:
            with self._faults():
                reply = self._reply
                if reply is None:
                    return
                data = reply.read1(READ_BYTES)
                if not data and reply.length:
                    raise http.client.IncompleteRead(b"", reply.length)
            if not data:
                self._finish()
                return
            yield self._stream.received_ns, data

    def lines(self) -> Iterator[Line]:
        """The body's lines as they arrive, without ``\\n`` or ``\\r\\n``; a last line may lack its end."""
        rest = b""
        received_ns = 0
        for received_ns, data in self.pieces():
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield Line(received_ns, line.removesuffix(b"\r"))
            if len(rest) > MAX_LINE_BYTES:
                self.close()
                raise EngineError(f"{self.url}: a line of more than {MAX_LINE_BYTES} bytes", kind="too_large")
        if rest:
            yield Line(received_ns, rest.removesuffix(b"\r"))

    def read(self) -> bytes:
        """The rest of the body."""
        return b"".join(data for _, data in self.pieces())

    def error_text(self) -> str:
        """What the body of a refusal says, in one short line: its JSON error message, else its beginning."""
        body = self.read()
        with suppress(ValueError, RecursionError, AttributeError):
            error = json.loads(body).get("error")
            error = error.get("message") if isinstance(error, dict) else error
            if isinstance(error, str) and error:
                return " ".join(error.split())[:300]
        return quoted(body)

    def raise_for_status(self) -> None:
        """Raise `EngineError` of kind ``http_STATUS`` unless the status is a success."""
        if 200 <= self.status < 300:
            return
        wait = self.headers.get("retry-after")
        hint = f" (Retry-After: {wait[:40]})" if wait else ""
        raise EngineError(f"{self.url}: HTTP {self.status}{hint}: {self.error_text()}", kind=f"http_{self.status}")

    def close(self) -> None:
        """Give the reply up and close its connection, unless it was read to its end; safe to call twice."""
        if self._reply is not None:
            self._reply = None
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever breaks in here closes the connection; what a server or a network can break is an `EngineError`."""
        try:
            yield
        except BaseException as error:
            self._reply = None
            self._connection.close()
            told = self._told(error)
            if told is None:
                raise
            raise told from error

    def _told(self, error: BaseException) -> EngineError | None:
        limits = self._limits
        if isinstance(error, TimeoutError):
            over = self._stream.seconds_left() <= 0
            what = f"not finished after {limits.total_s:g} s" if over else f"silent for {limits.idle_s:g} s"
            return EngineError(f"{self.url}: {what}", kind="timeout")
        if isinstance(error, http.client.RemoteDisconnected):
            return EngineError(
                f"{self.url}: the server closed the connection without an answer", kind="connection_lost"
            )
        if isinstance(error, http.client.IncompleteRead):
            return EngineError(f"{self.url}: the reply was cut off", kind="connection_lost")
        if isinstance(error, (http.client.HTTPException, ValueError)):
            said = quoted(str(error).encode())
            return EngineError(f"{self.url}: the reply is no HTTP: {type(error).__name__} {said}", kind="bad_reply")
        if isinstance(error, ssl.SSLError):
            return EngineError(f"{self.url}: {reason(error)}", kind="tls")
        if isinstance(error, OSError):
            return EngineError(f"{self.url}: connection lost: {reason(error)}", kind="connection_lost")
        return None

    def _finish(self) -> None:
        reply, self._reply = self._reply, None
        if reply is None or reply.will_close:
            self._connection.close()
        else:
            self._idle.append(self._connection)
