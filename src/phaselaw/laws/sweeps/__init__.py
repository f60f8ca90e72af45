"""Sweeps: how shares, exponents, rates and times move along an axis, and where something changes (method 4)."""
