"""phaselaw: measure LLM inference by phase, fit scaling laws with honest intervals, plan fleets from them."""

__version__ = "0.1.0"
