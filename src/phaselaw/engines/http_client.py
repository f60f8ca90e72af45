"""A streaming HTTP client for measuring: it says when each piece of a reply arrived, and how long connecting took.

The standard library's ``http.client`` connects, sends and parses. What it can't do is done by the stream it reads from:
`time.perf_counter_ns` is read straight after each ``recv``, before anything is parsed, and each ``recv`` is bound by
the limits of silence, total time and size. ``benchmarks/client_honesty.py`` is what this choice rests on.

Each fault becomes an `EngineError` of one line whose ``kind`` is a short word: ``refused``, ``unreachable``,
``timeout``, ``connection_lost``, ``tls``, ``redirects``, ``bad_reply``, ``too_large``, or ``http_404`` for a status.
Proxies are not used: a measurement goes to the server itself.
"""

import dataclasses
import http.client
import io
import json
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote, urljoin, urlsplit

from phaselaw import __version__
from phaselaw.errors import EngineError, ModelGoneError
from phaselaw.study.model import http_address

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_BYTES = 65_536
MAX_LINE_BYTES = 8 * 2**20
"""A line longer than this is no event of any engine."""
MAX_REDIRECTS = 3
NOT_YET = (502, 503, 504)
"""What a server, or a gateway before it, says that has started and is not ready."""
POLL_S = 0.2
BeforeSend = Callable[[], object] | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a request is given up. Times are seconds, sizes bytes."""

    connect_s: float = 10.0
    """TCP and TLS set-up."""
    idle_s: float = 300.0
    """The longest silence between two pieces of a reply, the first one's wait included."""
    total_s: float = 1800.0
    """From sending to the reply's end."""
    reply_bytes: int = 32 * 2**20


LIMITS = Limits()
QUICK = Limits(connect_s=5.0, idle_s=10.0, total_s=20.0)
"""For questions that need no model."""


class Line(NamedTuple):
    """A line of a reply, its end cut off, and the `time.perf_counter_ns` at which its last byte arrived."""

    received_ns: int
    data: bytes


class HttpClient:
    """Requests to one server, each on a connection of its own; threads may share a client."""

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str] = {}, limits: Limits = LIMITS, ca_file: str | None = None
    ) -> None:
        """``base_url`` is ``http[s]://host[:port][/prefix]``; ``headers`` go with every request to this server."""
        self.base_url = base_url.rstrip("/")
        self.limits = limits
        self._headers, self._ca_file = headers, ca_file
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.closed = threading.Event()
        self._origin = _origin(self.base_url, base=True)
        self._answered = False
        self.gone = False
        """Whether it answered once and now takes no connection."""
        self._waited = False

    def open(
        self, method: str, path: str, payload: Any = None, *, own: Limits | None = None, before_send: BeforeSend = None
    ) -> "Exchange":
        """Send a request, JSON where there is a ``payload``, and wait for the head of the reply.

        Its ``own`` limits replace the client's. ``before_send`` is called between connecting and sending. A 307 or
        308, and for GET any redirect, is followed at most `MAX_REDIRECTS` times; the exchange's times are the last
        request's. Any other status is returned as it is. Raises `EngineError`.
        """
        body = None if payload is None else json.dumps(payload).encode()
        home = url = urljoin(f"{self.base_url}/", path.lstrip("/"))
        left = own or self.limits
        until = time.monotonic() + left.total_s
        for _ in range(MAX_REDIRECTS + 1):
            left = dataclasses.replace(left, total_s=max(0.0, until - time.monotonic()))
            exchange = self._exchange(method, url, body, left, before_send=before_send)
            before_send = None
            location = exchange.headers.get("location")
            follows = exchange.status in (307, 308) or (method == "GET" and exchange.status in (301, 302, 303))
            if location is None or not follows:
                return exchange
            exchange.close()
            try:
                url = urljoin(url, location)
            except ValueError as error:
                what = f"{_without_secrets(url)}: no address: {quoted(location.encode())}"
                raise EngineError(what, kind="bad_url") from error
        message = f"{_without_secrets(home)}: more than {MAX_REDIRECTS} redirects, the last to {_without_secrets(url)}"
        raise EngineError(message, kind="redirects")

    def json(self, method: str, path: str, payload: Any = None) -> Any:
        """The JSON value that a request is answered with. Raises `EngineError`, also where the status is no success."""
        with self.open(method, path, payload) as exchange:
            exchange.raise_for_status()
            text = exchange.read()
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{exchange.url}: the reply is no JSON: {quoted(text)}", kind="bad_reply") from error

    def close(self) -> None:
        """Close every connection, those that other threads wait on among them; safe to call twice."""
        self.closed.set()
        for connected in list(self._open):
            with suppress(OSError):  # past TLS, whose state another thread may be reading
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def _exchange(
        self, method: str, url: str, body: bytes | None, limits: Limits, *, before_send: BeforeSend
    ) -> "Exchange":
        origin = _origin(url)
        headers = {"User-Agent": f"phaselaw/{__version__}", **(self._headers if origin == self._origin else {})}
        if body is not None:
            headers["Content-Type"] = "application/json"
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise EngineError(f"the value of the header {name} has characters that none may have", kind="bad_url")
        started_ns = time.perf_counter_ns()
        connection = self._connected(url, limits)
        self._open.add(connection.sock)
        connect_ms = (time.perf_counter_ns() - started_ns) / 1e6
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        request = (method, quote(target, safe="/?%:@!$&'()*+,;=~-._"), body, headers)
        if before_send is not None:
            before_send()
        exchange = Exchange(_without_secrets(url), connection, limits, request)
        exchange.connect_ms = connect_ms
        self._answered = True
        return exchange

    def _connected(self, url: str, limits: Limits) -> http.client.HTTPConnection:
        """An open connection; `ModelGoneError` where a server that has answered takes none any more."""
        (scheme, host, port), wait_s = _origin(url), limits.connect_s
        try:
            connection = http.client.HTTPConnection(host, port, timeout=wait_s)
            if scheme == "https":
                context = ssl.create_default_context(cafile=self._ca_file)
                connection = http.client.HTTPSConnection(host, port, timeout=wait_s, context=context)
            connection.connect()
        except (OSError, UnicodeError, http.client.InvalidURL) as error:
            kind, what = _fault(error, f"no connection after {wait_s:g} s", connecting=True)
            self.gone = self._answered and kind in ("refused", "unreachable")
            what = f"{_without_secrets(url)}: {what}"
            raise ModelGoneError(what, kind=kind) if self.gone else EngineError(what, kind=kind) from error
        return connection

    def check(self) -> None:
        """Raise `ModelGoneError` where a server that has answered takes no connection any more."""
        if self._answered:
            self._connected(self.base_url, QUICK).close()

    def await_return(self, wait_s: float) -> None:
        """Wait so long for a server that is gone, once an outage, until it answers; raises `EngineError`."""
        deadline = time.monotonic() + (0.0 if self._waited else wait_s)
        self._waited = self.gone
        while self.gone:
            with suppress(EngineError), self.open("GET", "") as exchange:
                self.gone = self._waited = exchange.status in NOT_YET
            if self.gone and time.monotonic() >= deadline:
                raise EngineError(f"{self.base_url}: gone, and not back after {wait_s:g} s", kind="refused")
            time.sleep(POLL_S if self.gone else 0.0)


class Exchange:
    """One request and its reply; a context manager, so that an abandoned reply's connection is closed."""

    connect_ms: float
    """How long TCP and TLS set-up took before this request."""

    def __init__(self, url: str, connection: Any, limits: Limits, request: tuple[Any, ...]) -> None:
        """Send the request (method, target, body, headers) on an open connection, and read the reply's head.

        ``url`` is for messages.
        """
        self.url = url
        self._connection, self._limits = connection, limits
        pieces: list[bytes] = []
        connection.send = pieces.append  # head and body, so that one send carries both
        self._stream = _Stream(connection.sock, url, limits)
        read_from: Any = self._stream  # it has of a socket what the parser asks for
        connection.response_class = lambda _, **named: http.client.HTTPResponse(read_from, **named)
        with self._faults():
            connection.request(*request)
            self.sent_ns = time.perf_counter_ns()
            """Just before the request was sent on its open connection."""
            connection.sock.sendall(b"".join(pieces))
            reply: http.client.HTTPResponse = connection.getresponse()
        self._reply: http.client.HTTPResponse | None = reply
        self.framed = bool(reply.chunked) or reply.length is not None
        """Whether the reply says where it ends, so that one that was read to its end is whole."""
        self.status, self.headers, self.head_ns = reply.status, reply.headers, self._stream.received_ns

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The body as it arrives: (`time.perf_counter_ns`, bytes). Raises `EngineError` where it is cut off."""
        while (reply := self._reply) is not None:
            with self._faults():
                data = reply.read1(READ_BYTES)
                if not data and reply.length:
                    raise http.client.IncompleteRead(b"", reply.length)
            if data:
                yield self._stream.received_ns, data
                continue
            self.close()

    def lines(self) -> Iterator[Line]:
        """The body's lines as they arrive, without ``\\n`` or ``\\r\\n``; a last line may lack its end."""
        rest, received_ns = bytearray(), 0
        for received_ns, data in self.pieces():
            *complete, last = data.split(b"\n")
            for piece in complete:
                yield Line(received_ns, bytes(rest + piece).removesuffix(b"\r"))
                rest.clear()
            rest += last
            if len(rest) > MAX_LINE_BYTES:
                self.close()
                raise EngineError(f"{self.url}: a line of more than {MAX_LINE_BYTES} bytes", kind="too_large")
        if rest:
            yield Line(received_ns, bytes(rest).removesuffix(b"\r"))

    def read(self) -> bytes:
        return b"".join(data for _, data in self.pieces())

    def raise_for_status(self) -> None:
        """Raise `EngineError` of kind ``http_STATUS``, with what the reply says in short, unless it is a success."""
        if 200 <= self.status < 300:
            return
        body = self.read()
        text = quoted(body)
        with suppress(ValueError, RecursionError, AttributeError):
            error = json.loads(body).get("error")
            error = error.get("message") if isinstance(error, dict) else error
            if isinstance(error, str) and error:
                text = " ".join(error.split())[:300]
        wait = self.headers.get("retry-after")
        hint = f" (Retry-After: {wait[:40]})" if wait else ""
        if moved := self.headers.get("location"):
            hint = f" to {_without_secrets(moved)}"
        raise EngineError(f"{self.url}: HTTP {self.status}{hint}: {text}", kind=f"http_{self.status}")

    def close(self) -> None:
        """Close its connection, which gives up what of the reply was not read; safe to call twice."""
        self._reply = None
        self._connection.close()
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever breaks in here closes the connection; what a server or a network can break is an `EngineError`."""
        try:
            yield
        except BaseException as error:
            over = self._stream.seconds_left() <= 0
            self.close()
            if not isinstance(error, (OSError, http.client.HTTPException, ValueError)):
                raise
            silent = f"silent for {self._limits.idle_s:g} s"
            kind, what = _fault(error, f"not finished after {round(self._limits.total_s, 3):g} s" if over else silent)
            raise EngineError(f"{self.url}: {what}", kind=kind) from error


class _Stream(io.RawIOBase):
    """A reply's bytes: each ``recv`` is stamped, and bound by the limits of silence, total time and size."""

    received_ns = 0

    def __init__(self, connected: socket.socket, url: str, limits: Limits) -> None:
        self._socket, self._url, self._limits = connected, url, limits
        self._raw = connected.makefile("rb", buffering=0)
        self._bytes = 0
        self._deadline_ns = time.perf_counter_ns() + int(limits.total_s * 1e9)
        connected.settimeout(min(limits.idle_s, limits.total_s))

    def makefile(self, _: str) -> io.BufferedReader:
        """What ``http.client`` asks a socket for."""
        return io.BufferedReader(self, READ_BYTES)

    def seconds_left(self) -> float:
        return (self._deadline_ns - time.perf_counter_ns()) / 1e9

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        left_s = self.seconds_left()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(min(self._limits.idle_s, left_s))
        size = self._raw.readinto(buffer) or 0
        self.received_ns = time.perf_counter_ns()
        self._bytes += size
        if self._bytes > self._limits.reply_bytes:
            raise EngineError(f"{self._url}: a reply of more than {self._limits.reply_bytes} bytes", kind="too_large")
        return size

    def close(self) -> None:
        """Let go of the socket, which stays open for its connection."""
        self._raw.close()
        super().close()


def quoted(data: bytes) -> str:
    """The beginning of some bytes as one printable line, for a message."""
    text = ascii(data[:120].decode("utf-8", "replace"))
    return text + ("..." if len(data) > 120 else "")


def _fault(error: Exception, timed_out: str, *, connecting: bool = False) -> tuple[str, str]:
    """The kind of a fault, and what it says in words; ``timed_out`` is what a timeout means."""
    if isinstance(error, TimeoutError):
        return "timeout", timed_out
    if isinstance(error, ConnectionRefusedError):
        return "refused", "connection refused; is the server running?"
    if isinstance(error, http.client.RemoteDisconnected):
        return "connection_lost", "the server closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "connection_lost", "the reply was cut off"
    if isinstance(error, ssl.SSLError):
        return "tls", f"TLS: {_reason(error)}"
    if connecting:
        kind = "connection_lost" if isinstance(error, ConnectionResetError) else "unreachable"
        return kind, f"can't connect: {_reason(error)}"
    if isinstance(error, OSError):
        return "connection_lost", f"connection lost: {_reason(error)}"
    return "bad_reply", f"the reply is no HTTP: {type(error).__name__} {quoted(str(error).encode())}"


def _reason(error: Exception) -> str:
    """What the operating system or OpenSSL says, in one line."""
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__


def _origin(url: str, *, base: bool = False) -> tuple[str, str, int]:
    """Scheme, host and port of an address; raises `EngineError` where it can't be the address of a server.

    That of a ``base`` is kept with a run: it has no query, which may hold a key.
    """
    try:
        parts = urlsplit(url)
        http_address(url if base else f"{parts.scheme}://{parts.netloc}")
    except ValueError as error:
        raise EngineError(f"{_without_secrets(url)}: no server's address: {error}", kind="bad_url") from None
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _without_secrets(url: str) -> str:
    """An address for a message: without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return quoted(url.partition("?")[0].encode(errors="replace"))  # the message's own redaction sees to the rest
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
