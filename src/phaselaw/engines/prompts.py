"""Prompts that a server can't have cached.

Engines that take token ids get the same exact ones. Others get texts whose first word, a nonce, the loaded model has
not seen: common words are used, since each is one token for most tokenizers, and a word for which a model counts more
or fewer tokens than for the others is not used again.
"""

import random
from collections import Counter, defaultdict
from importlib import resources

from phaselaw.errors import EngineError
from phaselaw.ladder.weights import seeded_integers

WORDS = tuple(resources.files("phaselaw.engines").joinpath("words.txt").read_text(encoding="ascii").split())
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
