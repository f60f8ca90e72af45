"""Replies of servers that are odd in one way each, as lines with the instants at which they come. No server, no wait.

The truth of each, unless it says otherwise: the first token 47 ms after the send, then 6.5 ms a token, 40 tokens.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from phaselaw.engines import ollama, openai
from phaselaw.engines.http_client import Line
from phaselaw.engines.served import StreamedReply, client_timing, timing_of
from phaselaw.records import Run, Timing
from phaselaw.servers.caches import Verdict
from server_claims import run_of

FIRST_MS, STEP_MS, TOKENS = 47.0, 6.5, 40
PROMPT_TOKENS = 30
Timed = list[tuple[float, dict[str, Any]]]


def due(token: int) -> float:
    """When a token is made."""
    return FIRST_MS + token * STEP_MS


def events(*, a_time: int = 1, first: int | None = None, tokens: int = TOKENS) -> list[tuple[float, str]]:
    """Texts of so many tokens each, the first of ``first``, each sent when its last token is made."""
    ends = list(range((first or a_time) - 1, tokens, a_time))
    ends += [tokens - 1] if ends[-1] != tokens - 1 else []
    starts = [0, *(end + 1 for end in ends)]
    return [
        (due(end), "".join(f" w{at}" for at in range(start, end + 1))) for start, end in zip(starts, ends, strict=False)
    ]


def chat(
    texts: Sequence[tuple[float, str]], *, usage: int | None = TOKENS, finish: str | None = "length", **last: Any
) -> StreamedReply:
    """A reply of OpenAI's protocol with these texts; ``last`` goes with the usage."""
    said: Timed = [(at_ms, {"choices": [{"delta": {"content": text}}]}) for at_ms, text in texts]
    return chat_of(said, usage=usage, finish=finish, **last)


def cut(texts: Sequence[tuple[float, str]], *, on_v1: bool = False, load_ms: float = 1.0) -> StreamedReply:
    """These texts, and then nothing: of Ollama's API, or of OpenAI's protocol."""
    if on_v1:
        said: Timed = [(at_ms, {"choices": [{"delta": {"content": text}}]}) for at_ms, text in texts]
        lines = [Line(int(at_ms * 1e6), b"data: " + json.dumps(event).encode()) for at_ms, event in said]
        return openai.read_stream(lines, 0)
    at = [(at_ms + load_ms - 1.0, {"response": text, "done": False}) for at_ms, text in texts]
    return ollama.read_stream([Line(int(ms * 1e6), json.dumps(event).encode()) for ms, event in at], 0)


def chat_of(said: Timed, *, usage: int | None = TOKENS, finish: str | None = "length", **last: Any) -> StreamedReply:
    """A reply of OpenAI's protocol with these events."""
    end_ms = said[-1][0] if said else FIRST_MS
    if finish is not None:
        said = [*said, (end_ms, {"choices": [{"delta": {}, "finish_reason": finish}]})]
    counted = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": usage, "total_tokens": PROMPT_TOKENS + (usage or 0)}
    said = [*said, (end_ms, {"choices": [], **last} | ({} if usage is None else {"usage": counted}))]
    lines = [Line(int(at_ms * 1e6), b"data: " + json.dumps(event).encode()) for at_ms, event in said]
    return openai.read_stream([*lines, Line(int(end_ms * 1e6), b"data: [DONE]")], 0)


def generate(
    texts: Sequence[tuple[float, str]], *, wait_ms: float = 0.0, load_ms: float = 1.0, **claims: Any
) -> StreamedReply:
    """A reply of Ollama's API; ``claims`` replace fields of its last line, durations in ms."""
    honest = {"load": load_ms, "prompt_eval": FIRST_MS - 2, "eval": (TOKENS - 1) * STEP_MS}
    said = {f"{name}_duration": int(claims.pop(name, ms) * 1e6) for name, ms in honest.items()}
    said |= {"prompt_eval_count": PROMPT_TOKENS, "eval_count": TOKENS, "done": True, "done_reason": "length"} | claims
    at = [(at_ms + wait_ms + load_ms - 1.0, {"response": text, "done": False}) for at_ms, text in texts]
    lines = [Line(int(ms * 1e6), json.dumps(event).encode()) for ms, event in [*at, (at[-1][0] + 0.5, said)]]
    return ollama.read_stream(lines, 0)


def by_client(reply: StreamedReply) -> Timing:
    """A call of the engine ``openai``."""
    return client_timing(reply, "x " * PROMPT_TOKENS, TOKENS, head_cached=False)


def by_ollama(reply: StreamedReply, *, probe: tuple[float, float, float] | None = None, **seen: Any) -> Timing:
    """A call of the engine ``ollama``, to a model that was loaded.

    ``probe`` is what its model's probe took: a short and a long fresh prompt, and the long one again.
    """
    known = Verdict("undecidable", "not judged yet")
    seen = {"load_ms": reply.served.load_ms, "model_was_loaded": True} | seen
    if probe is not None:
        short, long, again = probe
        said = {"short_tokens": 18, "short_ms": short, "tokens": 700, "fresh_ms": long, "repeated_ms": again}
        figures = {**reply.figures, **{f"cache_probe_{name}": value for name, value in said.items()}}
        reply = dataclasses.replace(reply, figures=figures)
    return timing_of(reply, PROMPT_TOKENS, TOKENS, known, server_times="prefill", **seen)


Make = Callable[[int], Timing]


def alike(make: Make, calls: int = 5) -> Run:
    """A run of calls that ``make`` makes, each from its place; of Ollama where that says a load."""
    timings = [make(at) for at in range(calls)]
    served = timings[0].served
    assert served is not None
    return run_of(timings, kind="ollama" if served.server_times == "prefill" else "openai", budget=TOKENS)
