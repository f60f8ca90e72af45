"""The whole plan: what a load needs and costs, as tables of plain rows (the JSON of ``phaselaw plan``).

One table a question; a table that was not asked for is absent. Every quantity has its ``_low`` and ``_high``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phaselaw.errors import UsageError
from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import StepTimes
from phaselaw.plan import DEFAULT_TOKENS_PER_MONTH, phase_split
from phaselaw.plan.capacity import (
    SECONDS_PER_MONTH,
    Headroom,
    capacity_row,
    usd_per_million_tokens,
    usd_per_month,
    whole_workers,
    workers_needed,
)
from phaselaw.plan.compare import decision_delta, pairs, price
from phaselaw.plan.estimate import flat
from phaselaw.plan.mixes import TR121_MIXES, mean_tokens, requests_per_s, tokens_per_month, usd_per_thousand_requests
from phaselaw.plan.quality import Priced, break_even, priced, success_row
from phaselaw.plan.sensitivity import TR121_TIERS, TR121_VOLUMES, sensitivity
from phaselaw.plan.tiering import Tiers, cascade_row, routed_row
from phaselaw.plan.workers import Worker
from phaselaw.records import Mix

DEFAULT_PREMIUM_SHARE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a plan; the defaults are TR121's, and every one of them is an assumption."""

    tokens_per_month: float = DEFAULT_TOKENS_PER_MONTH
    """Of no meaning where ``requests_per_s`` is given: then the requests' tokens count."""
    requests_per_s: float | None = None
    mixes: tuple[Mix, ...] = TR121_MIXES
    itemised: bool = True
    """Whether each kind of request gets its rows, or (the many kinds of a traffic profile) only the average one."""
    headroom: Headroom = dataclasses.field(default_factory=Headroom)
    volumes: tuple[float, ...] = TR121_VOLUMES
    tiers: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(TR121_TIERS))
    success_rates: Mapping[str, Floats] = dataclasses.field(default_factory=dict)
    failure_usd: float | None = None
    tier_models: tuple[str, str] | None = None
    """Default and premium model; ``None``: the cheapest and the dearest of each backend."""
    premium_share: float = DEFAULT_PREMIUM_SHARE
    batch: int | None = None
    """Requests served at once, for the phase-split price; ``None``: as each worker was measured."""
    extrapolate: bool = False
    phase_split_rates: bool = False
    """Whether every table goes by the mixture's phase-split rate instead of the run's own tokens/s."""

    @property
    def volume(self) -> float:
        """Tokens a month of the load."""
        if self.requests_per_s is None:
            return self.tokens_per_month
        return tokens_per_month(self.requests_per_s, mean_tokens(self.mixes))


Tables = dict[str, list[dict[str, Any]]]


def assumptions(question: Question, workers: Sequence[Worker]) -> dict[str, Any]:
    """Every input that the plan stands on, beside the measurements."""
    prices = {worker.usd_per_hour for worker in workers}
    return {
        "tokens_per_month": question.volume,
        "usd_per_hour": prices.pop() if len(prices) == 1 else None,
        "seconds_per_month": SECONDS_PER_MONTH,
        "requests_per_s": question.requests_per_s,
        "tokens_per_request": mean_tokens(question.mixes),
        "utilisation": question.headroom.utilisation,
        "burst": question.headroom.burst,
        "spares": question.headroom.spares,
        "failure_usd": question.failure_usd,
        "premium_share": question.premium_share,
        "phase_split_rates": question.phase_split_rates,
        "extrapolate": question.extrapolate,
        "mixes": [dataclasses.asdict(mix) for mix in question.mixes],
    }


def answer(question: Question, workers: Sequence[Worker], times: Mapping[tuple[str, str], StepTimes]) -> Tables:
    """Every table of the plan, by name; ``rows`` is the capacity.

    Raises `UsageError` for tiers whose models are not among the workers, and where phase-split rates are asked for that
    no worker has.
    """
    split, prices, at_mixture = _phase_split(question, workers, times)
    if question.phase_split_rates:
        if not at_mixture:
            raise UsageError(f"--rates-by phases: not measured for any model here: {prices[0]['why']}")
        workers = at_mixture
    return {
        "rows": [capacity_row(worker, question.volume, question.headroom) for worker in workers],
        "decision_deltas": [decision_delta(small, big, question.volume) for small, big in pairs(workers)],
        "request_mixes": [_mix_row(worker, mix) for worker in workers for mix in _told(question)],
        "phase_split": split,
        "token_prices": prices,
        "requests": [_load_row(worker, question) for worker in workers],
        "sensitivity": [row for worker in workers for row in sensitivity(worker, question.volumes, question.tiers)],
        **_on_quality(question, workers),
    }


def _told(question: Question) -> tuple[Mix, ...]:
    """The kinds of request that get rows of their own."""
    if question.itemised:
        return question.mixes
    total = sum(mix.share for mix in question.mixes)
    prompt = sum(mix.share * mix.prompt_tokens for mix in question.mixes) / total
    return (Mix(name="average", prompt_tokens=prompt, output_tokens=mean_tokens(question.mixes) - prompt),)


def _mix_row(worker: Worker, mix: Mix) -> dict[str, Any]:
    usd_per_1m = usd_per_million_tokens(worker.tokens_per_s, worker.usd_per_hour)
    return {
        **worker.names,
        "mix": mix.name,
        "prompt_tokens": mix.prompt_tokens,
        "output_tokens": mix.output_tokens,
        "tokens_per_request": mix.tokens,
        **flat(
            usd_per_1k_requests=usd_per_thousand_requests(usd_per_1m, mix.tokens),
            requests_per_s_per_worker=requests_per_s(worker.tokens_per_s, mix.tokens),
        ),
    }


def _load_row(worker: Worker, question: Question) -> dict[str, Any]:
    """The load in requests: its rate, what a worker serves of it, and what a request costs."""
    tokens = mean_tokens(question.mixes)
    load = question.requests_per_s or question.volume / SECONDS_PER_MONTH / tokens
    workers = workers_needed(question.volume, worker.tokens_per_s)
    whole = whole_workers(workers, question.headroom)
    month = usd_per_month(workers, worker.usd_per_hour)
    fleet = usd_per_month(whole, worker.usd_per_hour)
    requests = load * SECONDS_PER_MONTH
    return {
        **worker.names,
        "requests_per_s": load,
        "requests_per_month": requests,
        "tokens_per_request": tokens,
        **flat(
            requests_per_s_per_worker=requests_per_s(worker.tokens_per_s, tokens),
            workers=workers,
            whole_workers=whole,
            usd_per_request=month / requests,
            usd_per_month=month,
            usd_per_request_whole=fleet / requests,
            usd_per_month_whole=fleet,
        ),
    }


def _phase_split(
    question: Question, workers: Sequence[Worker], times: Mapping[tuple[str, str], StepTimes]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Worker]]:
    """Rows of requests, rows of token prices, and the workers at the mixture's rate."""
    split, prices, at_mixture = [], [], []
    for worker, batch in _once_a_batch(workers, question.batch):
        found = [
            phase_split.split(
                worker, times.get((worker.backend, worker.model)), mix, batch=batch, extrapolate=question.extrapolate
            )
            for mix in question.mixes
        ]
        if question.itemised:
            split += [
                phase_split.request_row(worker, mix, each, batch)
                for mix, each in zip(question.mixes, found, strict=True)
            ]
        token_prices = phase_split.token_prices(question.mixes, found, worker.usd_per_hour)
        prices.append(phase_split.price_row(worker, token_prices, batch))
        rated = phase_split.at_mixture(worker, token_prices, mean_tokens(question.mixes))
        at_mixture += [] if rated is None else [dataclasses.replace(rated, batch_size=batch)]
    return split, prices, at_mixture


def _once_a_batch(workers: Sequence[Worker], batch: int | None) -> Iterable[tuple[Worker, int]]:
    """Workers that differ in more than their decode budget, which the phase-split price does not depend on."""
    found: dict[tuple[str, str, int], Worker] = {}
    for worker in workers:
        found[worker.backend, worker.model, batch or worker.batch_size] = worker
    return [(worker, key[2]) for key, worker in found.items()]


def _on_quality(question: Question, workers: Sequence[Worker]) -> Tables:
    tokens = mean_tokens(question.mixes)
    known = [
        priced(
            worker,
            usd_per_million_tokens(worker.tokens_per_s, worker.usd_per_hour) * tokens / 1e6,
            question.success_rates,
        )
        for worker in workers
    ]
    by_worker = {id(each.worker): each for each in known}
    tiers = [
        Tiers(
            default=by_worker[id(default)],
            premium=by_worker[id(premium)],
            tokens_per_month=question.volume,
            headroom=question.headroom,
        )
        for default, premium in _tier_pairs(question, workers)
    ]
    tables: Tables = {
        "tiering": [routed_row(each, question.premium_share) for each in tiers],
        "cascade": [cascade_row(each) for each in tiers],
    }
    if question.success_rates:
        tables["cost_per_success"] = [success_row(each) for each in known if each.success_rate is not None]
        tables["break_even"] = _break_even(question, workers, by_worker)
    return tables


def _break_even(question: Question, workers: Sequence[Worker], by_worker: Mapping[int, Priced]) -> list[dict[str, Any]]:
    rows = (break_even(by_worker[id(small)], by_worker[id(big)], question.failure_usd) for small, big in pairs(workers))
    return [row for row in rows if row is not None]


def _tier_pairs(question: Question, workers: Sequence[Worker]) -> list[tuple[Worker, Worker]]:
    """The default and the premium worker: those that were named, else the cheapest and the dearest of each backend."""
    if question.tier_models is not None:
        default, premium = (_named(name, workers) for name in question.tier_models)
        return [(default, premium)]
    backends: dict[tuple[str, int, int | None], list[Worker]] = {}
    for worker in workers:
        backends.setdefault((worker.backend, worker.batch_size, worker.gen_tokens), []).append(worker)
    return [(min(group, key=price), max(group, key=price)) for group in backends.values() if len(group) > 1]


def _named(name: str, workers: Sequence[Worker]) -> Worker:
    """The worker of a model, or of ``BACKEND/MODEL``; the cheapest where several are."""
    fitting = [worker for worker in workers if name in (worker.model, f"{worker.backend}/{worker.model}")]
    if not fitting:
        known = ", ".join(dict.fromkeys(worker.model for worker in workers))
        raise UsageError(f"--tiers {name}: not in this run; it has: {known}")
    return min(fitting, key=price)
