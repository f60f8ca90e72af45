"""Whether a server answered a prompt from its cache, told from all calls of a model together (method: section 2).

Ollama's cache can't be switched off, and a hit does not show in its token count: only the duration falls. A call is
held against the model's fresh prompts, robust figures by their number of tokens, and against a prompt that was sent
twice: other work may have slowed any single one. Where a fresh prefill costs under two decode steps, a hit does not
show. What is said while a run goes on is said again, of all its calls, when its rows are written.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from phaselaw.records import CacheCheck, Timing
from phaselaw.servers.streams import CUT_REASONS

HIT_SHARE = 0.5
"""A prefill that takes less than this share of a fresh one's time may be a hit."""
TELLING_STEPS = 2.0
"""A fresh prefill must cost this many decode steps for a hit to show."""
ENOUGH = 3
"""So many prompts of one length have a median that one slow call does not move."""


class Verdict(NamedTuple):
    """Whether the cache answered, and the figures that decided."""

    check: CacheCheck
    reason: str


FreshPrompts = Mapping[int, Sequence[float]]
"""Prefill times in ms of prompts that a model can't have seen, by their number of tokens."""


def expected_ms(fresh: FreshPrompts, tokens: int, repeated_ms: float | None) -> float | None:
    """What a fresh prompt of so many tokens takes at least; ``None`` where there is none to compare with.

    The median of its own length, where enough have that. Where they are few, or all took what a repeated prompt
    takes, other lengths say more: a prompt costs no less than a shorter one, and its share of a longer one.
    """
    own = fresh.get(tokens, ())
    enough = len(own) >= ENOUGH
    if enough and (repeated_ms is None or median(own) >= repeated_ms / HIT_SHARE):
        return median(own)
    known = [(length, times) for length, times in fresh.items() if len(times) >= (ENOUGH if enough else 1)]
    return max((median(times) * min(1.0, tokens / length) for length, times in known), default=None)


def judge(
    tokens: int, prefill_ms: float | None, fresh: FreshPrompts, step_ms: float | None, repeated_ms: float | None = None
) -> Verdict:
    """Judge a prefill of ``tokens`` prompt tokens by the time it took.

    ``repeated_ms`` is what a prompt took that was sent twice.
    """
    expected = expected_ms(fresh, tokens, repeated_ms)
    if prefill_ms is None or not expected:
        return Verdict("undecidable", "no prefill time, or no fresh prompt of this model, to judge by")
    if step_ms is None or expected < TELLING_STEPS * step_ms:
        steps = "no decode step is known" if step_ms is None else f"{expected / step_ms:.1f} decode steps"
        return Verdict("undecidable", f"a fresh prefill of {tokens} tokens takes about {expected:.1f} ms: {steps}")
    reason = f"{prefill_ms:.1f} ms where a fresh prefill of {tokens} tokens takes about {expected:.1f} ms"
    hit = prefill_ms < HIT_SHARE * expected
    if repeated_ms is not None and repeated_ms > 0 and prefill_ms > 0:
        reason += f", and a repeated prompt {repeated_ms:.1f} ms"
        hit = hit and abs(math.log(prefill_ms / repeated_ms)) < abs(math.log(prefill_ms / expected))
    return Verdict("found" if hit else "fresh", reason)


def judge_by_count(tokens: int, cached_tokens: int, own_words: int) -> Verdict:
    """Judge by the server's own cached count: a hit where less was evaluated than the prompt's own words.

    A chat template's head is cached on every call but the first and is no hit.
    """
    reason = f"the server says that {cached_tokens} of {tokens} prompt tokens were cached"
    return Verdict("found" if tokens - cached_tokens < own_words else "fresh", reason)


def judged(calls: Sequence[Timing], *, lone: Sequence[bool]) -> list[Timing]:
    """A model's calls in their order, with the verdict on those that only their time can tell of.

    ``lone``: whether a call was alone; those that were not are judged, and nothing is held against them.
    """
    fresh: defaultdict[int, list[float]] = defaultdict(list)
    steps: list[float] = []
    probe: dict[str, Any] = {}  # what its model's probe took: a short and a long fresh prompt, and the long one again
    for call, alone in zip(calls, lone, strict=True):
        served = call.served
        if served is None or not _told_by_time(call):
            continue
        if not probe.get("repeated_ms"):
            prefix = "cache_probe_"
            probe = {name.removeprefix(prefix): value for name, value in call.server.items() if name.startswith(prefix)}
        if alone and served.prefill_ms_server is not None:
            fresh[call.prompt_tokens].append(served.prefill_ms_server)
            # The lesser: a stall of this client makes its own figure too large.
            own = [ms for ms in (served.decode_step_ms_client, served.decode_step_ms_server) if ms is not None]
            steps += [min(own)] if own else []
    for tokens, ms in (("short_tokens", "short_ms"), ("tokens", "fresh_ms")):
        if probe.get(tokens) and probe.get(ms):
            fresh[probe[tokens]].append(probe[ms])
    step_ms = median(steps) if steps else None
    return [_judged(each, fresh, step_ms, probe) if _told_by_time(each) else each for each in calls]


def _told_by_time(call: Timing) -> bool:
    """Whether only its time tells if a call was answered from the cache: its server counts prompts in full on a hit."""
    served = call.served
    if served is None or served.server_times != "prefill" or call.done_reason in CUT_REASONS:
        return False
    counts = "prompt_eval_count" in call.server, "prompt_eval_cached_count" in call.server
    return bool(served.model_was_loaded) and counts == (True, False)


def _judged(call: Timing, fresh: FreshPrompts, step_ms: float | None, probe: Mapping[str, Any]) -> Timing:
    assert call.served is not None
    repeated_ms: float | None = probe.get("repeated_ms")
    verdict = judge(call.prompt_tokens, call.served.prefill_ms_server, fresh, step_ms, repeated_ms)
    slowed = (repeated_ms or 0.0) > (probe.get("fresh_ms") or math.inf) / HIT_SHARE
    if slowed and verdict.check == "found":
        verdict = Verdict("undecidable", f"other work slowed the probe of this server's cache: {verdict.reason}")
    served = dataclasses.replace(call.served, cache_check=verdict.check, cache_reason=verdict.reason)
    return dataclasses.replace(call, served=served)
