"""Validity checks: rules that say which rows, and so which laws, should not be trusted as they stand (method 3)."""
