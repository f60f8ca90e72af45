"""Text from outside (model names, server output) made fit to be shown: what can't be seen is spelled out."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff\ud800-\udfff]"
)
"""Control characters, which a terminal obeys; marks that turn the direction of what follows; nothing at all."""


def seen(text: str) -> str:
    """A text whose control and direction characters stand as ``<U+202E>``, so that none acts on what is around it."""
    return _UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)
