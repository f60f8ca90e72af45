"""The measuring client says when bytes arrived, and turns each fault into one line with a kind."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_server import (
    CHUNKED_HEAD,
    LAST_CHUNK,
    Script,
    answering,
    answering_once,
    chunk,
    read_request,
    reply,
    scripted,
)

from phaselaw.engines.http_client import HttpClient, Limits
from phaselaw.errors import EngineError

IMPATIENT = Limits(connect_s=1.0, idle_s=0.05, total_s=0.5, reply_bytes=100_000)


def failure(script: Script, *, limits: Limits = IMPATIENT, method: str = "POST") -> EngineError:
    with scripted(script) as url, pytest.raises(EngineError) as caught:
        HttpClient(url, limits=limits).json(method, "/api", {} if method == "POST" else None)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_chunked_stream_comes_line_by_line_with_its_arrival_times() -> None:
    wrote_ns = []

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED_HEAD)
        for line in (b"one\r\n", b"two\nthr", b"ee\n"):
            time.sleep(0.01)
            wrote_ns.append(time.perf_counter_ns())
            connection.sendall(chunk(line))
        connection.sendall(LAST_CHUNK)

    with scripted(script) as url, HttpClient(url).open("POST", "/", {"a": 1}) as exchange:
        lines = list(exchange.lines())
    assert [line.data for line in lines] == [b"one", b"two", b"three"]
    assert exchange.sent_ns < exchange.head_ns < lines[0].received_ns
    for line, wrote in zip(lines, wrote_ns, strict=True):
        assert 0 < line.received_ns - wrote < 5_000_000


def test_a_line_cut_over_many_pieces_is_one_line_stamped_by_its_last_piece() -> None:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED_HEAD)
        for piece in (b"a", b"b", b"c\nlast"):
            connection.sendall(chunk(piece))
            time.sleep(0.005)
        connection.sendall(LAST_CHUNK)

    with scripted(script) as url, HttpClient(url).open("GET", "/") as exchange:
        first, last = exchange.lines()
    assert (first.data, last.data) == (b"abc", b"last")
    assert first.received_ns - exchange.head_ns > 5_000_000


def test_each_request_has_a_connection_of_its_own_and_says_what_its_set_up_took() -> None:
    connections = []

    def script(connection: socket.socket) -> None:
        connections.append(connection)
        answering(reply(b"{}"))(connection)

    with scripted(script) as url:
        client = HttpClient(url)
        for _ in range(2):
            with client.open("GET", "/") as exchange:
                assert exchange.read() == b"{}"
            assert exchange.connect_ms > 0
        client.close()
    assert len(connections) == 2


def test_an_abandoned_reply_closes_its_connection_at_once() -> None:
    gone = threading.Event()

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED_HEAD + chunk(b"x\n"))
        if connection.recv(1) == b"":
            gone.set()

    with scripted(script) as url:
        with HttpClient(url).open("POST", "/", {}) as exchange:
            next(exchange.lines())
        assert gone.wait(1)


def test_what_a_base_address_adds_to_the_path_and_headers_go_along() -> None:
    seen = []

    def script(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(reply(b"{}"))

    with scripted(script) as url:
        HttpClient(url + "/prefix/v1/", headers={"Authorization": "Bearer k"}).json("POST", "/chat", {"ü": 1})
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/v1/chat HTTP/1.1\r\n")
    assert b"Authorization: Bearer k" in head and b"Accept-Encoding: identity" in head
    assert body == b'{"\\u00fc": 1}'


def test_a_redirect_is_followed_and_takes_the_key_to_no_other_server() -> None:
    seen = []

    def other(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(reply(b'"there"'))

    with scripted(other) as there:
        moved = reply(b"", status="307 Temporary Redirect", headers=f"Location: {there}/new\r\n")
        with scripted(answering_once(moved)) as here:
            client = HttpClient(here, headers={"Authorization": "Bearer secret"})
            assert client.json("POST", "/old", {"a": 1}) == "there"
    assert seen[0].startswith(b"POST /new ") and seen[0].endswith(b'{"a": 1}')
    assert b"secret" not in seen[0]


def test_a_redirect_loop_ends() -> None:
    loop = reply(b"", status="308 Permanent Redirect", headers="Location: /again\r\n")
    assert failure(answering(loop)).kind == "redirects"


def test_a_refused_connection_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EngineError, match="refused") as caught:
        HttpClient(f"http://127.0.0.1:{port}").json("GET", "/")
    assert caught.value.kind == "refused"


def test_an_unknown_host_is_unreachable() -> None:
    with pytest.raises(EngineError) as caught:
        HttpClient("http://no-such-host.invalid", limits=IMPATIENT).json("GET", "/")
    assert caught.value.kind == "unreachable"


def test_a_query_of_the_base_address_is_refused_and_not_told() -> None:
    with pytest.raises(EngineError, match="without user, password, query") as caught:
        HttpClient("http://127.0.0.1:9/v1/?k=pw")
    assert caught.value.kind == "bad_url" and "pw" not in str(caught.value)


def test_a_redirect_to_no_address_is_one_line_without_its_secrets() -> None:
    for target in ("http://u:pw@h/", "ftp://h/?k=pw", "http://[::1", "http://h:99999/"):
        error = failure(answering(reply(b"", status="307 Temporary Redirect", headers=f"Location: {target}\r\n")))
        assert error.kind == "bad_url"
        assert "pw" not in str(error) and len(str(error).splitlines()) == 1


@pytest.mark.parametrize("url", ["localhost:1", "ftp://h", "http://", "http://h:99999", "http://[::1", "http://u:pw@h"])
def test_an_address_that_is_none_is_refused_without_telling_a_password(url: str) -> None:
    with pytest.raises(EngineError) as caught:
        HttpClient(url)
    assert caught.value.kind == "bad_url"
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        ("404 Not Found", b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        ("500 Internal Server Error", b'{"error":{"message":"out\\nof memory"}}', "out of memory"),
        ("400 Bad Request", b"<html>\n nope", "<html>"),
        ("401 Unauthorized", b"", "HTTP 401"),
    ],
)
def test_a_refusal_keeps_its_status_and_what_it_says(status: str, body: bytes, said: str) -> None:
    error = failure(answering(reply(body, status=status)))
    assert error.kind == f"http_{status[:3]}"
    assert said in str(error)


def test_too_many_requests_says_how_long_to_wait() -> None:
    busy = reply(b"{}", status="429 Too Many Requests", headers="Retry-After: 7\r\n")
    error = failure(answering(busy))
    assert error.kind == "http_429"
    assert "Retry-After: 7" in str(error)


def test_a_hang_before_the_head_times_out() -> None:
    error = failure(lambda _: time.sleep(0.2))
    assert error.kind == "timeout"
    assert "silent for 0.05 s" in str(error)


def test_a_hang_inside_the_body_times_out() -> None:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CHUNKED_HEAD + chunk(b"x"))
        time.sleep(0.2)

    assert failure(script).kind == "timeout"


def endless(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(CHUNKED_HEAD)
    while True:
        connection.sendall(chunk(b"x\n"))
        time.sleep(0.005)


def test_an_endless_trickle_ends_with_the_total_time() -> None:
    limits = Limits(idle_s=1, total_s=0.1)
    error = failure(endless, limits=limits)
    assert error.kind == "timeout"
    assert "not finished after 0.1 s" in str(error)


def test_a_head_that_trickles_ends_with_the_total_time_too() -> None:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.01)

    assert failure(script, limits=Limits(idle_s=1, total_s=0.1)).kind == "timeout"


def test_a_flood_is_cut_at_the_size_limit() -> None:
    sent = 0

    def script(connection: socket.socket) -> None:
        nonlocal sent
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            sent += connection.send(b"x" * 100_000)

    assert failure(script).kind == "too_large"
    assert sent < 50_000_000


CUTS = {
    "no answer": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "half a chunk": CHUNKED_HEAD + b"5\r\nab",
    "a chunk of no length": CHUNKED_HEAD + b"zz\r\n",
    "no last chunk": CHUNKED_HEAD + chunk(b"{}"),
}


@pytest.mark.parametrize("answer", CUTS.values(), ids=CUTS.keys())
def test_a_connection_cut_anywhere_is_lost_or_no_reply(answer: bytes) -> None:
    assert failure(answering_once(answer)).kind in {"connection_lost", "bad_reply"}


def test_a_connection_reset_is_lost() -> None:
    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    assert failure(script).kind == "connection_lost"


GARBAGE = {
    "bytes": b"\x00\xff\x16garbage\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "long head": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "no JSON": reply(b"{nope"),
    "no text": reply(b"\xff\xfe\x00"),
    "deep JSON": reply(b"[" * 50_000),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_bad_reply(answer: bytes) -> None:
    error = failure(answering_once(answer))
    assert error.kind == "bad_reply"
    assert len(str(error)) < 400 and str(error).isprintable()


def test_a_server_without_tls_is_a_tls_error() -> None:
    with (
        scripted(lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as url,
        pytest.raises(EngineError) as caught,
    ):
        HttpClient(url.replace("http:", "https:"), limits=IMPATIENT).json("GET", "/")
    assert caught.value.kind == "tls"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate, signed by itself, for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    subprocess.run(
        [openssl, *command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextlib.contextmanager
def over_tls(certificate: Path, answer: bytes) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def script(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            answering(answer)(wrapped)

    with scripted(script) as url:
        yield url.replace("http:", "https:")


def test_a_certificate_nobody_vouches_for_is_a_tls_error(certificate: Path) -> None:
    with over_tls(certificate, reply(b"{}")) as url, pytest.raises(EngineError, match="self-signed") as caught:
        HttpClient(url).json("GET", "/")
    assert caught.value.kind == "tls"


def test_tls_works_with_the_right_authority(certificate: Path) -> None:
    with over_tls(certificate, reply(b"[1]")) as url:
        client = HttpClient(url, ca_file=f"{certificate}.crt")
        assert client.json("GET", "/") == [1]
        client.close()


def test_a_key_with_a_line_break_goes_nowhere_and_is_not_told() -> None:
    client = HttpClient("http://127.0.0.1:9", headers={"Authorization": "Bearer ab\nc"})
    with pytest.raises(EngineError, match="Authorization") as caught:
        client.json("GET", "/")
    assert "ab" not in str(caught.value)
