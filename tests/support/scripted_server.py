"""A stand-in server for tests: it answers each connection with what a test's script writes, right or wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket], None]
"""Handles one accepted connection, which is closed after it."""


def read_request(connection: socket.socket) -> bytes:
    """One whole request: head and body; empty where the client is gone."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65_536)
        if not piece:
            return b""
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", b"0")):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def reply(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """A reply with a length."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked reply."""
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@contextlib.contextmanager
def scripted(script: Script, port: int = 0) -> Iterator[str]:
    """A server on a free loopback port, or this one, that runs ``script`` for each connection; gives its address."""
    listener = socket.create_server(("127.0.0.1", port))
    running: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                connections.append(connection)
                thread = threading.Thread(target=handle, args=(connection,), daemon=True)
                running.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in [accepting, *running]:
            thread.join(2)


def answering(*answers: bytes) -> Script:
    """A script that answers the n-th request over all connections with the n-th bytes, the last ones for ever after."""
    left = list(answers)

    def script(connection: socket.socket) -> None:
        while read_request(connection):
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return script


def answering_once(answer: bytes) -> Script:
    """A script that answers one request and closes the connection."""

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return script
