"""A run directory: what stands in it, written and read."""
