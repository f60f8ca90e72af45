"""Rows in, tables out: summaries, scaling laws with intervals, structure, cold start, verdicts."""
