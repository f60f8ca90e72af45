"""A byte-level BPE tokenizer of GPT-2's shape: 256 bytes, 50,000 merges, ``<|endoftext|>``; from no corpus.

The merges come in two parts. First byte-pair encoding is learnt from a list of words and word parts of our
own (``words.txt``, ``pieces.txt``), so that common English comes out in whole words and the rest in familiar
parts. Then the table is filled up by rule: UTF-8 characters, digits, punctuation, letter pairs and triples.
Any text round-trips, since every byte is a token; GPT-2's own merges are not reproduced.

``python benchmarks/ladder_tokenizer.py`` writes the file that the package ships.
"""

from __future__ import annotations

import heapq
import json
import lzma
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise, product
from pathlib import Path

from phaselaw.ladder import build
from phaselaw.ladder.build import END_OF_TEXT, TOKENIZER
from phaselaw.ladder.spec import VOCAB_SIZE

N_MERGES = VOCAB_SIZE - 256 - 1

Pair = tuple[str, str]


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte, indexed by byte (GPT-2's table, by its own rule).

    Bytes that are printable in Latin-1 stand for themselves, the others for the characters from U+0100 up.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_SYMBOLS = byte_symbols()


def symbols(text: str | bytes) -> str:
    """Text, or raw bytes, in the tokenizer's alphabet: one character a byte."""
    return "".join(_SYMBOLS[byte] for byte in (text.encode() if isinstance(text, str) else text))


def _listed(name: str) -> list[str]:
    lines = (Path(__file__).parent / "data" / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def _targets() -> dict[str, int]:
    """What must become one token, with its weight in learning, which falls along the word list."""
    targets: dict[str, int] = {}
    for piece in _listed("pieces.txt"):
        targets.setdefault(symbols(piece.replace("_", " ")), 100_000)
    for rank, word in enumerate(_listed("words.txt")):
        weight = 1_000_000 // (rank + 20)
        for form, share in ((f" {word}", 1), (word, 4), (f" {word.capitalize()}", 4), (word.capitalize(), 8)):
            targets.setdefault(symbols(form), weight // share)
    return targets


def learn_merges(targets: dict[str, int]) -> list[Pair]:
    """Byte-pair encoding: join the heaviest adjacent pair, over and over, until each target is one symbol.

    Ties go to the pair that sorts first. A pair whose joined string is already a symbol is passed over, so
    that each merge adds exactly one entry; a target that could only be finished by such a pair stays in
    parts.
    """
    words = [(list(target), weight) for target, weight in sorted(targets.items())]
    weights: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)
    for index, (parts, weight) in enumerate(words):
        for pair in pairwise(parts):
            weights[pair] += weight
            where[pair].add(index)
    heap = [(-weight, pair) for pair, weight in weights.items()]
    heapq.heapify(heap)
    known = set(_SYMBOLS)
    merges: list[Pair] = []
    while heap:
        negative, pair = heapq.heappop(heap)
        if weights[pair] != -negative or not negative or "".join(pair) in known:
            continue  # an outdated heap entry, or nothing new
        merges.append(pair)
        known.add("".join(pair))
        changed: set[Pair] = set()
        for index in where.pop(pair):
            changed |= _join(words[index], pair, weights=weights, where=where, index=index)
        for touched in changed:
            heapq.heappush(heap, (-weights[touched], touched))
    return merges


def _join(
    word: tuple[list[str], int], pair: Pair, *, weights: dict[Pair, int], where: dict[Pair, set[int]], index: int
) -> set[Pair]:
    """Join a pair wherever it stands in a word, keep the pair weights right, name the pairs that changed."""
    parts, weight = word
    before = list(pairwise(parts))
    position = 0
    while position < len(parts) - 1:
        if (parts[position], parts[position + 1]) == pair:
            parts[position : position + 2] = ["".join(pair)]
        position += 1
    after = list(pairwise(parts))
    for old in before:
        weights[old] -= weight
    for new in after:
        weights[new] += weight
        where[new].add(index)
    return {*before, *after}


def _fill() -> Iterator[Pair]:
    """Merges by rule, the more useful first; a few more than fit."""
    lower, upper, digits, marks = (
        [symbols(char) for char in alphabet]
        for alphabet in (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation)
    )
    space, newline, tab = symbols(" "), symbols("\n"), symbols("\t")
    for blank in (space, newline, tab):
        yield from ((blank * size, blank * size) for size in (1, 2, 4, 8))
    yield symbols("\r"), newline
    tails = [symbols(bytes([byte])) for byte in range(0x80, 0xC0)]
    yield from product([symbols(bytes([byte])) for byte in range(0xC2, 0xE0)], tails)  # letters up to U+07FF
    yield from product([symbols(bytes([byte])) for byte in range(0xE1, 0xF0)], tails)  # two thirds of the others
    yield from product([symbols(b"\xe2\x80"), symbols(b"\xe3\x81"), symbols(b"\xe3\x82")], tails)  # quotes, kana
    yield symbols(b"\xf0"), symbols(b"\x9f")  # emoji
    yield from product([space], [*lower, *upper, *marks])
    yield from product(marks, marks)
    yield from product(digits, digits)
    pairs = list(map("".join, product(digits, digits)))
    yield from product(pairs, digits)
    yield from product([space], [*digits, *pairs, *map("".join, product(pairs, digits))])
    for first, second in ((lower, lower), (upper, lower), (upper, upper)):
        yield from product(first, second)
        yield from product([space], map("".join, product(first, second)))
    pairs = list(map("".join, product(lower, lower)))
    yield from product(pairs, lower)
    yield from product([space], map("".join, product(pairs, lower)))


@cache
def merges() -> tuple[Pair, ...]:
    """The tokenizer's 50,000 merges, in order; each joins two earlier entries into a new one."""
    found = learn_merges(_targets())
    known = {*_SYMBOLS, *map("".join, found)}
    found += _new_only(_fill(), known, room=N_MERGES - len(found))
    return tuple(found)


def _new_only(candidates: Iterable[Pair], known: set[str], *, room: int) -> Iterator[Pair]:
    """The first ``room`` candidates that make a new entry of two known ones; the new ones become known."""
    for pair in candidates:
        if room == 0:
            return
        joined = "".join(pair)
        if joined not in known and known.issuperset(pair):
            known.add(joined)
            room -= 1
            yield pair


@cache
def tokenizer_json() -> bytes:
    """The tokenizer in the format of the `tokenizers` library: ``tokenizer.json``, exactly 50,257 entries."""
    entries = [*sorted(_SYMBOLS), *map("".join, merges()), END_OF_TEXT]  # sorted: printable bytes first, as GPT-2
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": len(entries) - 1,
                "content": END_OF_TEXT,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {entry: index for index, entry in enumerate(entries)},
            "merges": [" ".join(pair) for pair in merges()],
        },
    }
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    Path(build.__file__).with_name(TOKENIZER).write_bytes(lzma.compress(tokenizer_json(), preset=9))
