"""How far a run's measurements reach: what a price or a count of some requests stands on.

A request is *measured* where one of its lengths was (within `NEAR`) at the rate that it is priced by, *interpolated*
between measured lengths or where its own rate is another, *extrapolated* beyond them, and *not possible* where the
model can't hold it or nothing tells its time. A price by phases is *derived*. A rate that a person gave is *given*.
"""

from collections.abc import Iterable, Sequence
from typing import Any, get_args

from phaselaw.machine.footprint import VALUE_BYTES, memory
from phaselaw.plan.replicas import Coverage, RateStatus, Replica
from phaselaw.records import Mix

NEAR = 0.1
"""A length, or a rate, that is off by no more than this share of a measured one counts as that."""


def worst(found: Iterable[Coverage]) -> Coverage:
    """The least sure of several."""
    return max(found, key=lambda each: get_args(RateStatus).index(each.status))


def near(asked: float, known: float) -> bool:
    """Whether a length, or a rate, is as good as measured."""
    return abs(asked - known) <= NEAR * known


def within(asked: float, limits: tuple[float, float]) -> bool:
    """Whether a length lies in a measured range, or near its ends."""
    return (limits[0] * (1 - NEAR) <= asked) & (asked <= limits[1] * (1 + NEAR))


def span(limits: tuple[float, float]) -> str:
    """A range in words."""
    return f"{limits[0]:,.0f}" if limits[0] == limits[1] else f"{limits[0]:,.0f} to {limits[1]:,.0f}"


def cannot_hold(replica: Replica, mix: Mix, at_once: int) -> str | None:
    """Why the model, or the memory of its worker, can't hold so many such requests; ``None`` where nothing tells.

    Memory is predicted from the model's shape, without what the runtime takes: the least that is needed.
    """
    if replica.context_tokens is not None and mix.tokens > replica.context_tokens:
        return f"{mix.tokens:,.0f} tokens, the model's context is {replica.context_tokens:,}"
    shape, has = replica.shape, replica.machine.memory_bytes
    if shape is None or shape.kind not in ("hf", "llamacpp") or has is None:
        return None
    formats: dict[str, Any] = {"value_bytes": VALUE_BYTES[shape.dtype], "kv_bytes": shape.kv_bytes}
    formats |= {"all_logits": shape.all_logits}
    needs = memory(shape.model, batch=at_once, context=mix.tokens, prompt=mix.prompt_tokens, **formats).total
    asked = f"{at_once:,} at once of {mix.tokens:,.0f} tokens take {needs / 1e9:,.3g} GB"
    return None if needs <= has else f"{asked}, a worker has {has / 1e9:,.3g} GB of memory"


def of_kind(replica: Replica, mix: Mix) -> Coverage:
    """What the token-linear price of one kind of request stands on."""
    if (why := cannot_hold(replica, mix, replica.batch_size * replica.clients)) is not None:
        return Coverage(status="not_possible", why=why)
    if replica.load.status in ("given", "derived"):
        return replica.load
    if not replica.lengths:
        return Coverage(status="extrapolated", why="the lengths of the run's requests are not known")
    alike = [
        each
        for each in replica.lengths
        if near(mix.prompt_tokens, each.prompt) and near(mix.output_tokens, each.output)
    ]
    if alike:
        at_mean = None if len(replica.lengths) == 1 else f"at the mean rate of {_measured(replica)}"
        if any(near(each.relative, 1.0) for each in alike):
            return Coverage(why=at_mean)
        alone = f"alone, such requests ran at {alike[0].relative:.2g} times that (--rates-by phases)"
        return Coverage(status="interpolated", why=f"{at_mean}; {alone}")
    prompts, outputs = _ranges(replica)
    inside = within(mix.prompt_tokens, prompts) and within(mix.output_tokens, outputs)
    asked = f"{mix.prompt_tokens:,.0f} in and {mix.output_tokens:,.0f} out"
    return Coverage(
        status="interpolated" if inside else "extrapolated", why=f"{asked}, measured were {_measured(replica)}"
    )


def of_load(replica: Replica, mixes: Sequence[Mix]) -> Coverage:
    """What the token-linear price of a mixture stands on: its least sure kind."""
    return of_kinds([(mix, of_kind(replica, mix)) for mix in mixes])


def of_kinds(kinds: Sequence[tuple[Mix, Coverage]]) -> Coverage:
    """The least sure of some kinds of request, and which share of all requests is no surer."""
    found = worst(coverage for _, coverage in kinds)
    alike = [(mix, coverage.why) for mix, coverage in kinds if coverage.status == found.status]
    share = sum(mix.share for mix, _ in alike) / sum(mix.share for mix, _ in kinds)
    if found.why is None or len(kinds) == 1 or (share == 1 and len({why for _, why in alike}) == 1):
        return found
    commonest, why = max(alike, key=lambda each: each[0].share)
    return Coverage(status=found.status, why=f"{share:.1%} of requests, such as {commonest.name}: {why}")


def own_requests(replica: Replica) -> str:
    """The requests that a rate rests on, in words."""
    return "requests whose lengths are not known" if not replica.lengths else f"requests of {_measured(replica)}"


def _measured(replica: Replica) -> str:
    prompts, outputs = _ranges(replica)
    return f"{span(prompts)} in and {span(outputs)} out"


def _ranges(replica: Replica) -> tuple[tuple[float, float], tuple[float, float]]:
    prompts, outputs, _ = zip(*replica.lengths, strict=True)
    return (min(prompts), max(prompts)), (min(outputs), max(outputs))
