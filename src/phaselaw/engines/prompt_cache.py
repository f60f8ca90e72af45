"""Was a prompt answered from the server's cache? Told by its own count, else by the time of this model's fresh prompts.

Ollama's cache can't be switched off, and a hit does not show in its token count: only the duration falls. A call is
judged against prompts that this loaded model can't have seen, never against a cell's first call, which is slow for
other reasons. Where a fresh prefill would cost under two decode steps, a hit can't be told (method: section 2).
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from phaselaw.records import CacheCheck

HIT_SHARE = 0.5
"""A prefill that takes less than this share of a fresh one's time is a hit."""
TELLING_STEPS = 2.0
"""A fresh prefill must cost this many decode steps for a hit to show."""


class Verdict(NamedTuple):
    """Whether the cache answered, and the figures that decided."""

    check: CacheCheck
    reason: str


class FreshPrompts:
    """Prefill times of prompts that a model can't have seen, by their number of tokens."""

    def __init__(self) -> None:
        self._ms: dict[int, list[float]] = {}

    def add(self, tokens: int, prefill_ms: float) -> None:
        """One more fresh prompt."""
        self._ms.setdefault(tokens, []).append(prefill_ms)

    def expected_ms(self, tokens: int) -> float | None:
        """What a fresh prompt of so many tokens takes; ``None`` where there is none to compare with.

        Medians by length, joined by lines; outside the lengths seen, in proportion to the nearest.
        """
        known = sorted((length, median(times)) for length, times in self._ms.items())
        if not known:
            return None
        if tokens <= known[0][0] or tokens >= known[-1][0]:
            length, ms = known[0] if tokens <= known[0][0] else known[-1]
            return ms * tokens / length
        above = next(index for index, (length, _) in enumerate(known) if length >= tokens)
        (short, short_ms), (long, long_ms) = known[above - 1], known[above]
        return short_ms + (long_ms - short_ms) * (tokens - short) / (long - short)


def judge(tokens: int, prefill_ms: float | None, fresh: FreshPrompts, step_ms: float | None) -> Verdict:
    """Judge a prefill of ``tokens`` prompt tokens by the time it took."""
    expected = fresh.expected_ms(tokens)
    if prefill_ms is None or expected is None:
        return Verdict("undecidable", "no prefill time, or no fresh prompt of this model, to judge by")
    if step_ms is None or expected < TELLING_STEPS * step_ms:
        steps = "no decode step is known" if step_ms is None else f"{expected / step_ms:.1f} decode steps"
        return Verdict("undecidable", f"a fresh prefill of {tokens} tokens takes about {expected:.1f} ms: {steps}")
    share = prefill_ms / expected
    said = f"{prefill_ms:.1f} ms where a fresh prefill of {tokens} tokens takes about {expected:.1f} ms"
    return Verdict("found" if share < HIT_SHARE else "fresh", said)


def judge_by_count(tokens: int, cached_tokens: int, own_words: int) -> Verdict:
    """Judge by the server's own cached count: a hit where less was evaluated than the prompt's own words.

    A chat template's head is cached on every call but the first and is no hit.
    """
    evaluated = tokens - cached_tokens
    said = f"the server says that {cached_tokens} of {tokens} prompt tokens were cached"
    return Verdict("found" if evaluated < own_words else "fresh", said)
