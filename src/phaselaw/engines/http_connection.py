"""Connections for `phaselaw.engines.http_client`: opened within a time, their bytes stamped and held to limits."""

from __future__ import annotations

import dataclasses
import io
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from phaselaw import __version__
from phaselaw.errors import EngineError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_BYTES = 65_536
_AS_THEY_ARE = "/?%:@!$&'()*+,;=~-._"


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


class Connection:
    """An open connection and the time it took to open."""

    connect_ms: float | None

    def __init__(self, url: str, limits: Limits, ca_file: str | None) -> None:
        self.origin = origin(url)
        scheme, host, port = self.origin
        started_ns = time.perf_counter_ns()
        with _connect_faults(shown(url), limits):
            self.socket = socket.create_connection((host, port), timeout=limits.connect_s)
            try:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if scheme == "https":
                    context = ssl.create_default_context(cafile=ca_file)
                    self.socket = context.wrap_socket(self.socket, server_hostname=host)
            except BaseException:
                self.socket.close()
                raise
        self.connect_ms = (time.perf_counter_ns() - started_ns) / 1e6

    def is_quiet(self) -> bool:
        """Whether the server neither closed a kept connection nor sent anything unasked."""
        try:
            self.socket.settimeout(0)
            self.socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it; safe to call twice."""
        self.socket.close()


class Stream(io.RawIOBase):
    """A reply's bytes: each ``recv`` is stamped, and held to the limits of silence, total time and size."""

    received_ns = 0

    def __init__(self, connected: socket.socket, url: str, limits: Limits) -> None:
        self._socket, self._url, self._limits = connected, url, limits
        self._bytes = 0
        self._deadline_ns = 0

    def start(self, sent_ns: int) -> None:
        """The clock of the total time starts."""
        self._deadline_ns = sent_ns + int(self._limits.total_s * 1e9)
        self._socket.settimeout(min(self._limits.idle_s, self._limits.total_s))

    def seconds_left(self) -> float:
        """Seconds until the total time is over."""
        return (self._deadline_ns - time.perf_counter_ns()) / 1e9

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """One ``recv``, stamped."""
        left_s = self.seconds_left()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(min(self._limits.idle_s, left_s))
        size = self._socket.recv_into(buffer)
        self.received_ns = time.perf_counter_ns()
        self._bytes += size
        if self._bytes > self._limits.reply_bytes:
            raise EngineError(f"{self._url}: a reply of more than {self._limits.reply_bytes} bytes", kind="too_large")
        return size


class AsSocket:
    """What the standard library's reply parser wants to read from."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> io.BufferedReader:
        """The stream, buffered; closing it leaves the socket open."""
        del mode
        return io.BufferedReader(self._stream, READ_BYTES)


def quoted(data: bytes) -> str:
    """The beginning of some bytes as one printable line, for a message."""
    text = ascii(data[:120].decode("utf-8", "replace"))
    return text + ("..." if len(data) > 120 else "")


@contextmanager
def _connect_faults(url: str, limits: Limits) -> Iterator[None]:
    try:
        yield
    except ConnectionRefusedError as error:
        raise EngineError(f"{url}: connection refused; is the server running?", kind="refused") from error
    except TimeoutError as error:
        raise EngineError(f"{url}: no connection after {limits.connect_s:g} s", kind="timeout") from error
    except ssl.SSLError as error:
        raise EngineError(f"{url}: TLS: {reason(error)}", kind="tls") from error
    except (OSError, UnicodeError) as error:
        raise EngineError(f"{url}: can't connect: {reason(error)}", kind="unreachable") from error


def reason(error: Exception) -> str:
    """What the operating system or OpenSSL says, in one line."""
    said = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(said).split()) or type(error).__name__


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address; raises `EngineError` where it is none that can be measured."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EngineError(f"not an address like http://host:port: {error}", kind="bad_url") from error
    if parts.username or parts.password:
        raise EngineError(f"{shown(url)}: an address may hold no user or password", kind="bad_url")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EngineError(f"{shown(url)}: not an address like http://host:port", kind="bad_url")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def joined(base: str, target: str) -> str:
    """The address that a path or a redirect's target means; raises `EngineError` where it means none."""
    try:
        return urljoin(base, target)
    except ValueError as error:
        raise EngineError(f"{shown(base)}: no address: {quoted(target.encode())}", kind="bad_url") from error


def shown(url: str) -> str:
    """An address for a message: without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def request_message(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    """A whole request, so that one ``send`` carries it."""
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe=_AS_THEY_ARE) + (
        f"?{quote(parts.query, safe=_AS_THEY_ARE)}" if parts.query else ""
    )
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    fields = {"Host": host, "Accept-Encoding": "identity", "User-Agent": f"phaselaw/{__version__}"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    for name, value in {**fields, **headers}.items():
        if not (value.isascii() and value.isprintable()):
            raise EngineError(f"the value of the header {name} has characters that none may have", kind="bad_url")
        fields[name] = value
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")
