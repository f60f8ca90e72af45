"""The exceptions that a person is told of in one line, with exit code 1 unless they have another."""

from __future__ import annotations


class PhaselawError(Exception):
    """Something a person must know; its message is one line and its ``exit_code`` the process's."""

    exit_code = 1


class UsageError(PhaselawError):
    """The command line can't be followed."""

    exit_code = 2


class StudyError(UsageError):
    """A study file is wrong; the message names file, line and key."""


class NotReadyError(PhaselawError):
    """The study is sound but this machine lacks a model, a server or a device."""


class MissingExtraError(PhaselawError):
    """An optional dependency is missing; the message names the extra that brings it."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an optional part: pip install 'phaselaw[{extra}]'")
        self.extra = extra


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
