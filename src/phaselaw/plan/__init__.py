"""From measured seconds to workers and dollars."""
