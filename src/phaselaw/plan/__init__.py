"""From measured seconds to workers and dollars."""

from phaselaw.errors import UsageError
from phaselaw.files import amount
from phaselaw.records import LARGEST

DEFAULT_TOKENS_PER_MONTH = 1e9
DEFAULT_PREMIUM_SHARE = 0.2
TR121_USD_PER_HOUR = 1.006
"""TR121's shadow price of a worker's hour, in dollars (8.2). Here, since ``--help`` states it and loads nothing."""


def positive(name: str, given: float | str) -> float:
    """A number, as such or as typed; raises `UsageError` naming it where it is not positive, or beyond any fleet."""
    value = amount(given) if isinstance(given, str) else given
    if not 0 < value < LARGEST:
        raise UsageError(f"{name} {given}: give a positive number, below 1e18")
    return value
