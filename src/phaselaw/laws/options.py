"""What a person can choose about an analysis."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Choices of ``phaselaw analyze``; the defaults are TR121's."""

    draws: int = 1000
    """Resamples of models in the bootstraps."""
    seed: int = 42
    """Seed of the resamples."""
    level: float = 0.95
    """Level of every interval."""
    include_warmup: bool = False
    """Whether warmup calls are fitted too."""
    cold_start_slo_ms: float = 100.0
    """What a first call may add, in ms, before mean latency is unsafe under cold start (method 3)."""
    models_table: Path | None = None
    """A CSV (model, n_layer, n_embd, n_head, n_inner, vocab_size, n_positions, params) for models whose architecture
    is found nowhere else."""
