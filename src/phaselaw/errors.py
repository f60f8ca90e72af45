"""The exceptions that a person is told of in one line, with exit code 1 unless they have another.

Also the one place that takes secrets out of texts: of every message here, of what is kept, of command lines.
"""

import difflib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

DONE, FAILED, USAGE, BAD_ANSWER, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes, a contract; `BAD_ANSWER`: done, and calls failed, something is slower, damaged, or does not fit."""

HIDDEN = "***"

SHORTEST_SECRET = 8
"""Values of the environment that are shorter stand in too many words to be taken out."""

_NAME = r"(?:api[ _-]?key(?: provided)?|access[_-]?key|token|secret|passw(?:or)?d|authorization|credentials?)"
_NAMED_VALUE = re.compile(
    rf"(?i)({_NAME}(?![a-z])[^=:\s]*\s*(?:[=:](?=\S)|=\s*|:\s*(?:bearer|basic)\s+|:\s+(?=[^\s,;]*[0-9])))[^\s,;]+"
)
"""After a colon and a blank only what has a digit, since what is wrong with a key is told there."""
_KEY = re.compile(
    r"\b(?:sk-|[sp]k_|gsk_|xai-|nvapi-|glpat-|xox[a-z]-|github_pat_|AIza|eyJ)[\w.-]{16,}|\b(?:(?:hf|gh[a-z]|r8)_|AKIA)[0-9A-Za-z]{16,}"
)
"""What keys of well-known services begin with."""
_BEARER = re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_USER = re.compile(r"(://|\b)[^\s:/@'\"\[]+:[^\s/@]+@|(://)[^/@\s]+@")
_OPTION = re.compile(rf"(?i)^--?(?:[a-z0-9]+[_-])*{_NAME}$")
_VARIABLE = re.compile(r"(?i)(?:key|token|secret|passw|credential)")


def redacted(text: str) -> str:
    """A text without what looks like a secret's value, and without the values of variables named like secrets."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _VARIABLE.search(name):
            text = text.replace(value, HIDDEN)
    for pattern in (_NAMED_VALUE, _BEARER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    text = _KEY.sub(HIDDEN, text)
    return _USER.sub(lambda found: f"{found[1] or found[2] or ''}{HIDDEN}@", text)


def names_a_secret(key: str) -> bool:
    """Whether a key is called as secrets are: ``api_key``, ``authorization``, ``my_secret``; not ``max_tokens``."""
    called = r"(?i)(api|access|auth)[_-]?(key|token)|authorization|passw|secret|credential|bearer|(^|[_-])token$"
    return re.search(called, key) is not None


def redacted_words(words: Sequence[str]) -> list[str]:
    """A command line without its secrets: those within a word, and the word after an option that names one."""
    pairs = zip(("", *words), words, strict=False)
    return [HIDDEN if _OPTION.match(previous) else redacted(word) for previous, word in pairs]


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one may have meant; for a very long one none is looked for."""
    found = difflib.get_close_matches(word, list(known), n=1) if len(word) <= 200 else []
    return found[0] if found else None


def meant(word: str, known: Iterable[str]) -> str:
    """What a misspelt word may have meant, to end a message with; empty where nothing is near."""
    close = near(word, known)
    return f"; did you mean {close}?" if close else ""


class PhaselawError(Exception):
    """Something a person must know; its message is one line and its ``exit_code`` the process's."""

    exit_code = FAILED

    def __str__(self) -> str:
        return redacted(super().__str__())


_STUMBLES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, EOFError)


@contextmanager
def reading(what: object, error: Callable[[str], PhaselawError], *more: type[Exception]) -> Iterator[None]:
    """What a reader stumbles over in here, of a document from outside, is told as an ``error`` that names the document.

    ``more`` are the exceptions of a library that reads it.
    """
    stumbles: tuple[type[Exception], ...] = (*_STUMBLES, *more)
    try:
        yield
    except stumbles as fault:
        shown = ascii(" ".join(str(fault).split())[:200])[1:-1]
        raise error(f"{what}: it is damaged or of another kind ({type(fault).__name__}: {shown})") from fault


@contextmanager
def writing(what: object, then: str = "") -> Iterator[None]:
    """What the system refuses to write in here is a `RunError` that names the place, and says what to do ``then``."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what} can't be written: {error.strerror or error}{then}") from None


class UsageError(PhaselawError):
    """The command line can't be followed."""

    exit_code = USAGE


class StudyError(UsageError):
    """A study file is wrong; the message names file, line and key."""


class NotReadyError(PhaselawError):
    """The study is sound but this machine lacks a model, a server or a device."""


class MissingExtraError(PhaselawError):
    """An optional dependency is missing; the message names the extra that brings it."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an optional part: pip install 'phaselaw[{extra}]'")


class RunError(PhaselawError):
    """A run directory is absent, locked, damaged or belongs to another study."""


class AnalysisError(PhaselawError):
    """Rows can't be analysed; the message names the file and what is missing."""


class EngineError(PhaselawError):
    """One load or one call failed. ``kind`` is a short stable word for tables, such as ``timeout``."""

    def __init__(self, message: str, *, kind: str = "engine") -> None:
        super().__init__(message)
        self.kind = kind


class ModelGoneError(EngineError):
    """The model went with the call, as with a server that died: it must be loaded again before the next one."""


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """What is done in here may take so long: then `NotReadyError`, that it was not done, whatever it waits for.

    It goes by an alarm of the process, which only the main thread gets: in another one there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise NotReadyError(f"{what}: not done after {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, over)
    # Again and again, since a library may swallow the first.
    before = signal.setitimer(signal.ITIMER_REAL, seconds, min(seconds, 1.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)
