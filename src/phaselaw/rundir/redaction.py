"""Taking secrets out of what a run directory keeps: command lines and error messages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

HIDDEN = "***"

SHORTEST_SECRET = 8
"""Values of the environment that are shorter stand in too many words to be taken out."""

_NAME = r"(?:api[_-]?key|access[_-]?key|token|secret|passw(?:or)?d|authorization|credentials?)"
_NAMED_VALUE = re.compile(rf"(?i)({_NAME}(?![a-z])[^=:\s]*\s*[=:]\s*(?:(?:bearer|basic)\s+)?)[^\s,;]+")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_URL_USER = re.compile(r"(://)[^/@\s]+@")
_OPTION = re.compile(rf"(?i)^--?(?:[a-z0-9]+[_-])*{_NAME}$")
_VARIABLE = re.compile(r"(?i)(?:key|token|secret|passw|credential)")


def redacted(text: str) -> str:
    """A text without what looks like a secret's value, and without the values of variables named like secrets."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _VARIABLE.search(name):
            text = text.replace(value, HIDDEN)
    for pattern in (_NAMED_VALUE, _BEARER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _URL_USER.sub(rf"\1{HIDDEN}@", text)


def redacted_words(words: Sequence[str]) -> list[str]:
    """A command line without its secrets: those within a word, and the word after an option that names one."""
    before = ("", *words)
    return [
        HIDDEN if _OPTION.match(previous) else redacted(word) for previous, word in zip(before, words, strict=False)
    ]
