"""Engines: what runs a model. A new engine is one file here, named as its kind, and a run of the contract test.

An engine module defines two functions:

``create(backend) -> Engine``
    an engine with the settings of one backend of a study; cheap, loads nothing.
``lacking(backend, models) -> list[str]``
    what this machine lacks to run these models on this backend, one line each, each ending in what to do;
    empty when all is there; a `Doubt` where that can't be asked. Never downloads, never loads weights.

An engine times, and never computes a metric; what measures never knows an engine's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from phaselaw.records import EngineInfo, ModelInfo, Request, Timing

if TYPE_CHECKING:
    from phaselaw.study.model import Backend, ModelEntry


class Doubt(str):
    """A line of ``lacking`` that is no lack: what could not be asked, so that the first call decides."""


class Model(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """What was measured of it."""

    def generate(self, request: Request) -> Timing:
        """Run one call: prefill, then exactly ``request.gen_tokens`` decode steps. Raises `EngineError`."""

    def close(self) -> None:
        """Free it; safe to call twice."""


class Engine(Protocol):
    """An engine with one backend's settings."""

    def most_loaded(self, models: Sequence[ModelEntry]) -> int | None:
        """How many of these models may be loaded at once; ``None`` for all, so that their calls may alternate freely.

        Asked before any is loaded. Where they are fewer, calls are grouped by model, and the one not needed for longest
        is closed before another is loaded.
        """

    def describe(self) -> EngineInfo:
        """Name, version and the settings really in force."""

    def load(self, model: ModelEntry) -> Model:
        """Load a model, ready to generate; the caller times it. Raises `EngineError`."""

    def close(self) -> None:
        """Stop what this engine started; safe to call twice."""


class EngineModule(Protocol):
    """What a file of this folder defines."""

    def create(self, backend: Backend) -> Engine: ...

    def lacking(self, backend: Backend, models: Sequence[ModelEntry]) -> list[str]: ...


def module_for(kind: str) -> EngineModule:
    """The engine module of a backend's kind."""
    return cast(EngineModule, importlib.import_module(f"{__name__}.{kind}"))
