"""phaselaw: measure LLM inference by phase, fit scaling laws with honest intervals, plan fleets from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from phaselaw.api import Loaded

__version__ = "0.1.0"


def load(
    *paths: Path | str, level: float = 0.95, models_table: Path | str | None = None, allow_different: bool = False
) -> Loaded:
    """Read runs for use in Python; see `phaselaw.api.load`, which is imported when this is called."""
    from phaselaw import api

    return api.load(*paths, level=level, models_table=models_table, allow_different=allow_different)
