"""What choosing another model costs, in dollars, workers and as a ratio of prices (TR121 8.3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from phaselaw.laws.checks.checks import suspicions
from phaselaw.plan.capacity import usd_per_million_tokens, usd_per_month, workers_needed
from phaselaw.plan.estimate import flat
from phaselaw.plan.workers import Worker


def price(worker: Worker) -> float:
    """The point of a worker's $/1M, by which workers are ordered."""
    return float(usd_per_million_tokens(worker.tokens_per_s, worker.usd_per_hour)[0])


def pairs(workers: Sequence[Worker]) -> Iterator[tuple[Worker, Worker]]:
    """Every two workers of one batch size and decode budget, the cheaper first; from the cheapest pair up."""
    for small, big in combinations(sorted(workers, key=price), 2):
        if (small.batch_size, small.gen_tokens) == (big.batch_size, big.gen_tokens):
            yield small, big


def decision_delta(small: Worker, big: Worker, tokens_per_month: float) -> dict[str, Any]:
    """``big`` in place of ``small`` for a volume: dollars and workers more, and the ratio of $/1M.

    The draws of both are of the same rounds, so what slowed both in a round cancels.
    """
    workers = [workers_needed(tokens_per_month, worker.tokens_per_s) for worker in (small, big)]
    months = [usd_per_month(count, worker.usd_per_hour) for count, worker in zip(workers, (small, big), strict=True)]
    return {
        **big.names,
        "than_backend": small.backend,
        "than_model": small.model,
        "suspect": suspicions((small.suspect, big.suspect)),
        **flat(
            delta_usd_per_month=months[1] - months[0],
            delta_workers=workers[1] - workers[0],
            price_ratio=months[1] / months[0],
        ),
    }
