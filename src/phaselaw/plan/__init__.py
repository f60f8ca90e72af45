"""From measured seconds to workers and dollars."""

DEFAULT_TOKENS_PER_MONTH = 1e9
DEFAULT_PREMIUM_SHARE = 0.2
TR121_USD_PER_HOUR = 1.006
"""TR121's shadow price of a worker's hour, in dollars (8.2). Here, since ``--help`` states it and loads nothing."""
