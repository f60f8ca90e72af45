"""Our own recordings of real Ollama servers (tests/data/ollama), and a stand-in server that replays them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from phaselaw.engines.http_client import Line
from phaselaw.engines.ollama import read_stream
from phaselaw.engines.served import StreamedReply, timing_of
from phaselaw.records import Timing
from phaselaw.servers.caches import Verdict

FOLDER = Path(__file__).parent.parent / "data" / "ollama"
OLD, NEW = "v0.13.5", "v0.33.0-rc2"
SMOLLM2, GEMMA3 = "smollm2:135m-q4_1", "gemma3:270m-q4_k_m"


class Exchange(NamedTuple):
    """One recorded exchange."""

    label: str
    method: str
    path: str
    request: Any
    status: int
    content_type: str
    lines: list[tuple[float, str]]

    @property
    def reply(self) -> StreamedReply:
        """What the engine reads from the stream, with the recorded arrival times."""
        return read_stream([Line(int(ms * 1e6), text.encode()) for ms, text in self.lines], 0)

    @property
    def timing(self) -> Timing:
        """What this call alone comes to, had it been asked for as many tokens as were counted."""
        reply, known = self.reply, Verdict("fresh", "as recorded")
        asked = max(1, reply.served.tokens_counted or 0)
        return timing_of(reply, 1, asked, known, server_times="prefill", load_ms=reply.served.load_ms)


@cache
def recorded(version: str) -> dict[str, Exchange]:
    """The exchanges with a server, by label."""
    texts = (FOLDER / f"{version}.jsonl").read_text(encoding="utf-8").splitlines()
    exchanges = [Exchange(**json.loads(text)) for text in texts]
    return {exchange.label: exchange for exchange in exchanges}
