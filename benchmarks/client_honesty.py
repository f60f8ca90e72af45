"""Does phaselaw's HTTP client measure what the server really did?

A server process on the loopback writes a reply's first token 50 ms after it got the request and one more every 5 ms,
and logs when it really got and wrote each. Against its log stand the client's TTFT (first token received minus sent)
and ITL, for 1 and for 8 clients at once (threads of one process), by phaselaw's client and by a bare socket that
searches the bytes for tokens, as the floor. Connecting is no part of either and is printed apart.

    python benchmarks/client_honesty.py
    python benchmarks/client_honesty.py --requests 50 --json

Exit 1 where phaselaw's median TTFT error is beyond 0.5 ms (1 client) or 1.5 ms (8 clients), or its ITL's beyond 0.05.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import multiprocessing
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import NamedTuple

from phaselaw.engines.http_client import HttpClient

FIRST_MS, GAP_MS, TOKENS = 50.0, 5.0, 40
TTFT_LIMIT_MS = {1: 0.5, 8: 1.5}
ITL_LIMIT_MS = 0.05
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


class Observed(NamedTuple):
    """One reply, by one clock: when the request was sent (or got) and each token received (or written)."""

    request_ns: int
    tokens_ns: list[int]
    connect_ms: float | None


def serve(pipe: Connection) -> None:
    """Answer ``POST /ID`` until the pipe says stop; then send the log, {ID: Observed}, through it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    pipe.send(listener.getsockname()[1])
    log: dict[str, Observed] = {}
    open_sockets: list[socket.socket] = [listener]
    due: list[tuple[int, int, str, socket.socket]] = []
    while True:
        while due and due[0][0] - time.perf_counter_ns() < 1_000_000:
            _write_when_due(*heapq.heappop(due), due, log)
        wait_s = max(0.0, (due[0][0] - time.perf_counter_ns() - 1_000_000) / 1e9) if due else None
        waited_for: list[socket.socket | Connection] = [*open_sockets, pipe]
        for ready in select.select(waited_for, [], [], wait_s)[0]:
            if isinstance(ready, Connection):
                pipe.send(log)
                return
            if ready is listener:
                accepted = listener.accept()[0]
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_sockets.append(accepted)
                continue
            request = ready.recv(65_536)
            if not request:
                open_sockets.remove(ready)
                continue
            name = request.split(b" ", 2)[1].decode()
            log[name] = Observed(time.perf_counter_ns(), [], None)
            heapq.heappush(due, (log[name].request_ns + int(FIRST_MS * 1e6), 0, name, ready))


def _write_when_due(
    at_ns: int, index: int, name: str, to: socket.socket, due: list[tuple[int, int, str, socket.socket]],
    log: dict[str, Observed],
) -> None:  # fmt: skip
    while time.perf_counter_ns() < at_ns:
        pass
    line = json.dumps({"response": f" token{index}", "done": index == TOKENS - 1}).encode() + b"\n"
    chunk = b"%x\r\n%s\r\n" % (len(line), line)
    last = index == TOKENS - 1
    message = (HEAD if index == 0 else b"") + chunk + (b"0\r\n\r\n" if last else b"")
    log[name].tokens_ns.append(time.perf_counter_ns())
    with contextlib.suppress(OSError):
        to.sendall(message)
    if not last:
        heapq.heappush(due, (at_ns + int(GAP_MS * 1e6), index + 1, name, to))


def by_phaselaw(port: int, names: list[str]) -> dict[str, Observed]:
    """The requests of one client, by phaselaw's `HttpClient`."""
    client = HttpClient(f"http://127.0.0.1:{port}")
    seen = {}
    for name in names:
        with client.open("POST", name, {"prompt": "x" * 200}) as exchange:
            tokens = [line.received_ns for line in exchange.lines()]
        seen[name] = Observed(exchange.sent_ns, tokens, exchange.connect_ms)
    client.close()
    return seen


def by_bare_socket(port: int, names: list[str]) -> dict[str, Observed]:
    """The same by a bare socket that only counts line ends: what any client must add to."""
    seen = {}
    started_ns = time.perf_counter_ns()
    with socket.create_connection(("127.0.0.1", port)) as bare:
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect_ms: float | None = (time.perf_counter_ns() - started_ns) / 1e6
        for name in names:
            sent_ns, tokens = time.perf_counter_ns(), list[int]()
            bare.sendall(f"POST {name} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            while len(tokens) < TOKENS:
                data = bare.recv(65_536)
                tokens += [time.perf_counter_ns()] * data.count(b"}\n")
            seen[name] = Observed(sent_ns, tokens, connect_ms)
            connect_ms = None
    return seen


class Errors(NamedTuple):
    """Client minus server, medians in ms."""

    client: str
    clients: int
    replies: int
    ttft_error_ms: float
    itl_error_ms: float
    gap_error_ms: float
    connect_ms: float


def compare(
    label: str, measure: Callable[[int, list[str]], dict[str, Observed]], clients: int, requests: int
) -> Errors:
    """One server process, ``clients`` threads with ``requests`` replies each."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    seen: dict[str, Observed] = {}

    def run(index: int) -> None:
        time.sleep(index * GAP_MS / 1e3 / clients)
        seen.update(measure(port, [f"/{index}-{number}" for number in range(requests)]))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ours.send("stop")
    log: dict[str, Observed] = ours.recv()
    server.join(5)
    pairs = [(seen[name], log[name]) for name in seen]
    ttft = [(got.tokens_ns[0] - got.request_ns) - (true.tokens_ns[0] - true.request_ns) for got, true in pairs]
    gaps = [(_gaps(got.tokens_ns), _gaps(true.tokens_ns)) for got, true in pairs]
    return Errors(
        label,
        clients,
        len(pairs),
        median(ttft) / 1e6,
        (median(g for got, _ in gaps for g in got) - median(t for _, true in gaps for t in true)) / 1e6,
        median(abs(g - t) for got, true in gaps for g, t in zip(got, true, strict=True)) / 1e6,
        median(got.connect_ms for got, _ in pairs if got.connect_ms is not None),
    )


def _gaps(instants: list[int]) -> list[int]:
    return [after - before for before, after in itertools.pairwise(instants)]


def main() -> int:
    """Print the errors; 1 where phaselaw's are beyond the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20, help="replies a client (default 20)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    found = [
        compare(label, measure, clients, args.requests)
        for clients in TTFT_LIMIT_MS
        for label, measure in (("bare socket", by_bare_socket), ("phaselaw", by_phaselaw))
    ]
    held = all(
        abs(each.ttft_error_ms) <= TTFT_LIMIT_MS[each.clients] and abs(each.itl_error_ms) <= ITL_LIMIT_MS
        for each in found
        if each.client == "phaselaw"
    )
    if args.json:
        print(json.dumps({"errors": [each._asdict() for each in found], "held": held}))
    else:
        print(f"{'ms':12} {'clients':>7} {'TTFT error':>11} {'ITL error':>10} {'|gap error|':>11} {'connect':>8}")
        for each in found:
            print(
                f"{each.client:12} {each.clients:7} {each.ttft_error_ms:+11.3f} {each.itl_error_ms:+10.4f} "
                f"{each.gap_error_ms:11.4f} {each.connect_ms:8.3f}"
            )
        print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
