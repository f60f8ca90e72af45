"""What a stream's arrivals and a server's own figures say about one decode step (method: section 2).

Servers differ in how many steps their decode time spans: count - 1 on most, fewer on some, negative on others. So the
client's clock decides where a chunk is a token, and the server's figure stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from phaselaw.records import DecodeStepBasis


class DecodeStep(NamedTuple):
    """One decode step by each clock, and the one to use."""

    ms: float | None
    basis: DecodeStepBasis | None
    client_ms: float | None
    server_ms: float | None


def decode_step(
    arrivals_ms: Sequence[float], gen_tokens: int, *, server_ms: float | None, server_steps: int
) -> DecodeStep:
    """The decode step of a reply of ``gen_tokens`` tokens that came as chunks at ``arrivals_ms``.

    ``server_ms`` is the server's decode time over ``server_steps`` steps; ``None`` where it gave none that can be one.
    A chunk is a token where the chunks number the tokens or one less (an end token is counted, never sent). Elsewhere
    the server's figure serves, or without one the span of the arrivals over the tokens counted.
    """
    span_ms = arrivals_ms[-1] - arrivals_ms[0] if len(arrivals_ms) > 1 else 0.0
    client = span_ms / (len(arrivals_ms) - 1) if span_ms > 0 else None
    server = server_ms / server_steps if server_ms is not None and server_ms > 0 and server_steps > 0 else None
    if client is not None and gen_tokens - 1 <= len(arrivals_ms) <= gen_tokens:
        return DecodeStep(client, "client", client, server)
    if server is not None:
        return DecodeStep(server, "server", client, server)
    if client is not None and gen_tokens > 1:
        return DecodeStep(span_ms / (gen_tokens - 1), "client_usage", client, server)
    return DecodeStep(None, None, client, server)
