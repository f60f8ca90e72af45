"""The phase-split price: what the prefill and the decode of a request take, not what a token costs on average.

TR121's token-linear price pretends that a prompt token costs what a generated one does. Here a replica's seconds are
``prefill_s(prompt) + decode_s(prompt, output - 1)`` of that very request, from the step-time model of the run
(`phaselaw.laws.step_time`): the prefill gives the first token. (In imported rows, as in TR121, ``output`` steps
follow.) Over the kinds of request of a mixture, input tokens are priced by all prefill seconds and output tokens by all
decode seconds, so that ``input price x input tokens + output price x output tokens`` is the replica's time x its hourly
price, exactly.

It is valid inside the measured range: elsewhere it is *not possible*, or *extrapolated* where that is asked for. It is
never made beyond the model's context, or from prefill times that a validity check doubts.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from phaselaw.laws.regression import Floats
from phaselaw.laws.step_time import PhaseTime, StepTimes
from phaselaw.plan.capacity import UNKNOWN, exact
from phaselaw.plan.coverage import cannot_hold, near, of_kinds, span, within, worst
from phaselaw.plan.replicas import Coverage, RateStatus, Replica
from phaselaw.plan.tables import row
from phaselaw.records import Mix
from phaselaw.tables import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(Coverage):
    """Seconds of one replica that one request takes, by phase; NaN where they are not measured.

    The prefill's hold what a request waits for before it.
    """

    prefill_s: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    decode_s: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    status: RateStatus = "not_possible"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenPrices(Coverage):
    """Dollars for a million input and output tokens of a mixture; NaN where it has none, or they are not measured."""

    usd_per_1m_input: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    usd_per_1m_output: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    worker_s_per_request: Floats = dataclasses.field(default_factory=lambda: UNKNOWN)
    """Of the average request."""
    status: RateStatus = "not_possible"


def split(replica: Replica, times: StepTimes, mix: Mix, *, extrapolate: bool = False) -> Split:
    """Seconds by phase of one request, where as many of its kind are served at once as the replica's batch size says.

    A batch shares its decode steps. It shares its prefill as far as batches were measured there, else each prompt is
    prefilled alone. Prompt tokens that a cache holds are not prefilled.
    """
    batch = replica.batch_size
    if replica.suspect_prefill:
        return Split(why=f"its prefill times are doubted: {replica.suspect_prefill}")
    if (why := cannot_hold(replica, mix, batch)) is not None:
        return Split(why=why)
    prefill, decode = times.get("prefill"), times.get("kv_decode")
    if prefill is None or decode is None:
        return Split(why="no step-time model (it takes a run with prompts of several lengths)")
    together = max(1, min(batch, int(prefill.batch[1])))
    beyond = "; ".join(_beyond(replica, prefill, decode, mix, together)) or None
    if beyond and not extrapolate:
        return Split(why=beyond)
    steps = max(0.0, mix.output_tokens - 1) if replica.by_request else mix.output_tokens
    last = mix.prompt_tokens + max(steps - 1, 0)
    # A step is affine in context, so its middle counts.
    prefill_s = float(prefill.ms(together, _fresh(mix))) / 1e3
    decode_s = float(decode.ms(batch, (mix.prompt_tokens + last) / 2)) / 1e3 * steps
    asked_before = not replica.lengths or any(near(mix.prompt_tokens, each.prompt) for each in replica.lengths)
    return Split(
        prefill_s=prefill_s / together * replica.prefill_factor + replica.wait_s,
        decode_s=decode_s / batch * replica.decode_factor,
        status="extrapolated" if beyond else "derived" if asked_before else "interpolated",
        why=beyond,
    )


def _fresh(mix: Mix) -> float:
    """Prompt tokens that are prefilled: those that no cache holds."""
    return mix.prompt_tokens * (1 - mix.cached_share)


def _beyond(replica: Replica, prefill: PhaseTime, decode: PhaseTime, mix: Mix, together: int) -> Iterator[str]:
    """In what a request lies outside what was measured, in words."""
    prompt, batch = mix.prompt_tokens, replica.batch_size
    if not (prefill.inside(together, prefill.tokens[0]) and within(_fresh(mix), prefill.tokens)):
        yield f"prompt of {_fresh(mix):,.0f} tokens, prefill measured {_range(prefill.tokens)}"
    last = prompt + max(mix.output_tokens - 1, 0)
    known_batch = decode.inside(batch, decode.tokens[0])
    if mix.output_tokens and not (known_batch and within(prompt, decode.tokens) and within(last, decode.tokens)):
        at_batch = f" at batch {batch}" if batch > 1 else ""
        batches = "" if known_batch else f" and batch {_range(decode.batch)}"
        tokens = f"decode from {prompt:,.0f} to {last:,.0f} tokens"
        yield f"{tokens}{at_batch}, measured {_range(decode.tokens)}{batches}"


def _range(limits: tuple[float, float]) -> str:
    return f"at {span(limits)}" if limits[0] == limits[1] else span(limits)


def token_prices(mixes: Sequence[Mix], splits: Sequence[Split], usd_per_hour: float) -> TokenPrices:
    """Prices of input and output tokens over the kinds of request of a mixture, in the order of its splits.

    They are as sure as the least sure kind.
    """
    kinds, least = list(zip(mixes, splits, strict=True)), worst(splits)
    if least.status == "not_possible":
        return TokenPrices(why=of_kinds(kinds).why)
    prefill = sum((mix.share * each.prefill_s for mix, each in kinds), exact(0.0))
    decode = sum((mix.share * each.decode_s for mix, each in kinds), exact(0.0))
    inputs = sum(mix.share * mix.prompt_tokens for mix in mixes)
    outputs = sum(mix.share * mix.output_tokens for mix in mixes)
    usd_per_s = usd_per_hour / 3600.0
    # A mixture without output has no price of output tokens; what it takes then stands in the input's, and vice versa.
    return TokenPrices(
        usd_per_1m_input=(prefill if outputs else prefill + decode) * usd_per_s / inputs * 1e6 if inputs else UNKNOWN,
        usd_per_1m_output=(decode if inputs else prefill + decode) * usd_per_s / outputs * 1e6 if outputs else UNKNOWN,
        worker_s_per_request=(prefill + decode) / sum(mix.share for mix in mixes),
        status=least.status,
        why=least.why,
    )


def request_row(replica: Replica, mix: Mix, found: Split) -> Row:
    """What a thousand requests of one kind take and cost on one replica, by phases."""
    seconds = found.prefill_s + found.decode_s
    return row(
        "phase_split",
        replica,
        **dataclasses.asdict(mix) | vars(found),
        load=found,
        gen_tokens=None,
        mix=mix.name,
        usd_per_1k_requests=seconds * replica.usd_per_hour / 3.6,
        requests_per_s_per_worker=1 / seconds,
    )


def at_mixture(replica: Replica, found: TokenPrices, tokens_per_request: float) -> Replica:
    """The replica with the rate at which it serves this mixture, by phases; the mixture must be measured."""
    rate = tokens_per_request / found.worker_s_per_request
    by_phases = Coverage(status=found.status, why=found.why or "by phases")
    stands_on = replica.load if replica.load.status == "not_possible" else by_phases
    if found.status == "extrapolated":
        rate = rate[:1]
    took = found.worker_s_per_request * replica.batch_size
    return dataclasses.replace(replica, tokens_per_s=rate, e2e_s=took, load=stands_on, request=stands_on)
