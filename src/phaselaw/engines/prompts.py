"""Prompts that a server can't have cached, and whether it answered one from its cache all the same.

Engines that take token ids get the same exact ones. Others get texts whose first word, a nonce, the loaded model has
not seen: common words are used, since each is one token for most tokenizers, and a word for which a model counts more
or fewer tokens than for the others is not used again.

Ollama's cache can't be switched off, and a hit does not show in its token count: only the duration falls. A call is
judged against prompts that this loaded model can't have seen, never against a cell's first call, which is slow for
other reasons. Where a fresh prefill would cost under two decode steps, a hit does not show (method: section 2).
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter, defaultdict
from statistics import median
from typing import NamedTuple

from phaselaw.errors import EngineError
from phaselaw.ladder.weights import seeded_integers
from phaselaw.records import CacheCheck

HIT_SHARE = 0.5
"""A prefill that takes less than this share of a fresh one's time is a hit."""
TELLING_STEPS = 2.0
"""A fresh prefill must cost this many decode steps for a hit to show."""

_WORDS = """
About Above Act Add After Again Age Air All Also An Animal Answer Any Apple Are Area Arm Art As Ask At Away Back Bad
Ball Bank Base Be Because Bed Been Before Began Being Best Better Big Bill Bird Black Blood Blue Board Boat Body Book
Both Box Boy Bring Brother Build Business But Buy By Call Came Can Car Card Care Case Cell Center Chair Change Check
Child City Class Clear Close Club Cold Color Come Common Could Count Country Course Cross Cut Dark Data Day Deal Death
Deep Did Do Dog Done Door Down Draw Dream Drive Drop Dry Each Early Earth East Easy Eat Edge End Energy Enough Even
Ever Every Eye Face Fact Fall Family Far Farm Fast Father Feel Few Field Fight Final Find Fire First Fish Five Floor
Follow Food Foot For Force Form Four Free Friend From Front Full Game Garden Gas Gave Get Girl Give Glass Go Gold Good
Got Great Green Ground Group Had Hair Half Hand Hard Has Have He Head Health Hear Heart Heat Help Her Here High Him
His Hold Home Hope Horse Hot Hour House How Human Ice Idea If In Into Iron Is It Job Join Just Keep Key Kind King Knew
Know Land Large Last Late Law Lead Learn Leave Left Let Letter Level Life Light Like Line List Live Local Long Look
Lost Love Low Made Main Make Man Many Map Mark Market May Me Mean Men Mind Money Month Moon More Most Mother Mountain
Move Much Music Must My Name Near Need Never New News Next Night No North Not Note Now Number Of Off Office Oil Old On
Once One Only Open Or Order Other Our Out Over Own Page Paper Part Party
"""
WORDS = tuple(_WORDS.split())
"""First words, in the order of their use."""


class Nonces:
    """The words that one loaded model has not seen yet."""

    def __init__(self) -> None:
        self._usable = list(WORDS)
        self._left = list(WORDS)
        self._counts: dict[str, dict[str, int]] = defaultdict(dict)

    @property
    def spent(self) -> bool:
        """Whether every word was sent since the model was loaded."""
        return not self._left

    def take(self) -> str:
        """The next word; `EngineError` where they are spent."""
        if not self._left:
            raise EngineError(f"more calls at once than the {len(WORDS)} first words there are", kind="no_nonce")
        return self._left.pop(0)

    def renew(self) -> None:
        """The model was unloaded: it has seen none of them any more."""
        self._left = list(self._usable)

    def counted(self, word: str, text: str, tokens: int) -> None:
        """A prompt of this word and text came out at so many tokens; the odd words out are dropped."""
        counts = self._counts[text]
        counts[word] = tokens
        usual, votes = Counter(counts.values()).most_common(1)[0]
        if votes >= 3:
            odd = {other for other, count in counts.items() if count != usual}
            self._usable = [each for each in self._usable if each not in odd]
            self._left = [each for each in self._left if each not in odd]


def token_ids(tokens: int, study_seed: int, vocab_size: int) -> list[int]:
    """A synthetic prompt of exactly so many tokens: the same ids on every engine, for one seed and vocabulary."""
    drawn = seeded_integers(f"phaselaw prompt 1: {study_seed}", tokens)
    return [int(number) % vocab_size for number in drawn]


def text_of(tokens: int, seed: int) -> str:
    """A text of about so many tokens, one common word for each: a target, since only the server can count."""
    draw = random.Random(f"{seed}/text/{tokens}")
    return " ".join(draw.choice(WORDS).lower() for _ in range(tokens))


class Verdict(NamedTuple):
    """Whether the cache answered, and the figures that decided."""

    check: CacheCheck
    reason: str


class FreshPrompts:
    """Prefill times of prompts that a model can't have seen, by their number of tokens."""

    def __init__(self) -> None:
        self._ms: dict[int, list[float]] = defaultdict(list)

    def add(self, tokens: int, prefill_ms: float) -> None:
        """One more fresh prompt."""
        self._ms[tokens].append(prefill_ms)

    def expected_ms(self, tokens: int) -> float | None:
        """What a fresh prompt of so many tokens takes; ``None`` where there is none to compare with.

        Medians by length, joined by lines; outside the lengths seen, in proportion to the nearest.
        """
        known = sorted((length, median(times)) for length, times in self._ms.items())
        if not known:
            return None
        above = bisect_left(known, (tokens,))
        if above in (0, len(known)):
            length, ms = known[min(above, len(known) - 1)]
            return ms * tokens / length
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
    reason = f"{prefill_ms:.1f} ms where a fresh prefill of {tokens} tokens takes about {expected:.1f} ms"
    return Verdict("found" if share < HIT_SHARE else "fresh", reason)


def judge_by_count(tokens: int, cached_tokens: int, own_words: int) -> Verdict:
    """Judge by the server's own cached count: a hit where less was evaluated than the prompt's own words.

    A chat template's head is cached on every call but the first and is no hit.
    """
    reason = f"the server says that {cached_tokens} of {tokens} prompt tokens were cached"
    return Verdict("found" if tokens - cached_tokens < own_words else "fresh", reason)
