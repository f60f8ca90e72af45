"""What the calls of a served cell come to: its server's claims, held against when the text arrived (method: section 2).

A server says how long it read the prompt, how long it decoded, and how many tokens it made. The client knows when each
event came. `settled` holds the one against the other over all calls of a cell: a claim is false where most of its calls
contradict it, since what a single call waited is a wait. Where a claim is false the client's figure serves, and both
are kept. A claim may be off by what honest servers are off by: two steps of a decode, some per cent, a late wake-up.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import median
from typing import Any

from phaselaw.records import PHASES, DecodeStepBasis, Served, Timing

CUT_REASONS = ("cut_by_server", "repetition_guard")
"""Why a reply ended whose transfer was whole and whose last line never came."""
INSTANT_SHARE, INSTANT_MS = 0.05, 0.15
"""Events closer than this share of the time that a token took, and than this, came at one instant."""
BURST_GAP_MS, BURSTS_SPAN_MS = 10.0, 40.0
"""Bursts lie so far apart, and so far from first to last: a client that is woken late sees events together, too."""
SHARING = 0.4
"""Events came in bursts where this share of them came with the one before; two a burst are half."""
SEVERAL = 4
"""So many tokens at one instant are a reply that was not streamed."""
STEPS_OFF, SHARE_OFF, MS_OFF = 2.0, 0.25, 20.0
"""What an honest decode time is off by at most: steps left out, a share of it, a late wake-up."""
EVEN = (0.6, 2.0)
"""The first event's text against the mean event's: outside of this it holds fewer, or more, tokens than others do."""
LATE_SHARE = 0.5
"""A first event is late where more than this share of its time were the steps of further tokens that it held."""
HEAD_TOKENS = 1024
"""A chat's template adds fewer tokens to a prompt, which has one a byte at most; one that is added unasked, an 8th."""
HONEST_SHARE, HONEST_MS = 2 / 3, 20.0
"""An honest prefill time is at least this share of what the client saw, or no further than this from it."""


class Stream:
    """One call: when its events came, and what can be said of its claims without the cell's other calls."""

    def __init__(self, timing: Timing, served: Served, budget: int) -> None:
        self.timing, self.served, self.budget = timing, served, budget
        self.at_ms, self.events = served.arrivals_ms, len(served.arrivals_ms)
        self.cut = timing.done_reason in CUT_REASONS

    @cached_property
    def bursts(self) -> list[list[float]]:
        """The events that came at one instant, together."""
        near_ms = min(INSTANT_MS, INSTANT_SHARE * self.served.e2e_ms / max(1, self.events))
        found: list[list[float]] = []
        for at_ms in self.at_ms:
            if found and at_ms - found[-1][-1] <= near_ms:
                found[-1].append(at_ms)
            else:
                found.append([at_ms])
        return found

    @property
    def miscounted(self) -> bool | None:
        """Whether the server counts more tokens than were asked for, or fewer than events came."""
        counted = self.served.tokens_counted
        return None if counted is None else not max(1, self.events - 1) <= counted <= self.budget

    @property
    def at_once(self) -> bool | None:
        """Whether the whole reply came at one instant."""
        if not self.events or max(self.events, self.served.tokens_counted or 0) < SEVERAL:
            return None
        span_ms = self.at_ms[-1] - self.at_ms[0]
        return span_ms <= min(INSTANT_MS * self.events, INSTANT_SHARE * self.served.e2e_ms)

    @property
    def in_bursts(self) -> bool | None:
        """Whether many events came with the one before, the first ones too: something on the way holds them back.

        Where the first one comes alone a server makes several at once (speculative decoding), and none is held back.
        """
        several = len(self.bursts)
        if self.events < SEVERAL or several < 2:
            return None
        span_ms = self.bursts[-1][0] - self.bursts[0][0]
        apart = span_ms >= max(BURSTS_SPAN_MS, BURST_GAP_MS * (several - 1))
        return len(self.bursts[0]) > 1 and apart and self.events - several >= SHARING * self.events


class Cell:
    """The calls of a cell: which claims most of them contradict, and the one way in which its steps are counted."""

    def __init__(self, streams: Sequence[Stream], *, lone: bool) -> None:
        """``lone``: one client called at a time, so that nothing of ours waited for anything of ours."""
        self.false: list[str] = []
        self._streams, self._lone = streams, lone
        self._hold("count", lambda each: each.miscounted)
        self._hold("prompt", lambda each: each.served.prompt_tokens_claimed is not None)
        self._hold("said twice", lambda each: bool(each.served.events_repeated))
        self._hold("not streamed", lambda each: each.at_once)
        self._hold("bursts", lambda each: each.in_bursts)
        whole = [each for each in streams if each.events and not each.cut]
        counted = [each.timing.prompt_tokens for each in whole if each.served.tokens_basis == "server"]
        self._prompt_tokens = round(median(counted)) if counted else None
        warm = [
            each.served.load_ms for each in whole if each.served.model_was_loaded and each.served.load_ms is not None
        ]
        self._warm_load_ms = median(warm) if warm else None
        self._tokens_an_event = median([self.tokens(each) / each.events for each in whole]) if whole else 1.0
        firsts = [share * each.events for each in whole if (share := each.served.first_text_share) is not None]
        self._first_is_even = not firsts or EVEN[0] <= median(firsts) <= EVEN[1]
        spread = [(self._seen_tokens(each), each.events) for each in streams if each.events > 1]
        self._each_a_token = all(tokens - 1 <= events <= tokens for tokens, events in spread)
        self._hold("decode", self._decode_is_false, at_least=2)
        self._hold("prefill", self._prefill_is_false, at_least=2)
        seen = {client_prefill_ms(each.served): each for each in streams if each.events}
        if "prefill" in self.false and self._prefill_is_false(seen[min(seen)]) is False:
            self.false.remove("prefill")  # most calls waited, for another's request or the like: no claim is false

    def _hold(self, claim: str, contradicts: Callable[[Stream], bool | None], *, at_least: int = 1) -> None:
        """Note a claim that most calls contradict; of times, one call's may be a wait."""
        answers = [answer for each in self._streams if (answer := contradicts(each)) is not None]
        if 2 * sum(answers) > len(answers) >= at_least:
            self.false.append(claim)

    def tokens(self, call: Stream) -> float:
        """Tokens of a reply: the server's count where it can be, else all that were asked for, or its events."""
        counted = call.served.tokens_counted
        if counted is not None and not call.miscounted and "count" not in self.false:
            return counted
        if call.timing.done_reason == "length" and 0 < call.events <= call.budget:
            return call.budget  # several may have come in one event
        return call.events * (self._tokens_an_event if call.cut else 1.0)

    def first_tokens(self, call: Stream) -> float | None:
        """Tokens that the first event, or the first burst, held."""
        return None if not call.events else self.tokens(call) - self._tokens_after_first(call)

    def _seen_tokens(self, call: Stream) -> float:
        """Its tokens, without those of reasoning that no event stands for."""
        tokens = self.tokens(call)
        seen = tokens - (0 if call.served.thinking_tokens else call.served.tokens_unseen or 0)
        return seen if seen >= max(1, call.events - 1) else tokens

    def _tokens_after_first(self, call: Stream) -> float:
        if "bursts" in self.false:
            return self._seen_tokens(call) * (1 - len(call.bursts[0]) / call.events)
        if call.served.tokens_between is not None and "count" not in self.false:
            return call.served.tokens_between
        if self._each_a_token:
            return call.events - 1
        share = None if self._first_is_even else call.served.first_text_share
        seen = self._seen_tokens(call)
        return seen - max(1.0, seen * (share or 1 / call.events))

    def client_step_ms(self, call: Stream) -> float | None:
        """One step: the span of the arrivals over the tokens that came after the first of them."""
        if call.events < 2 or call.at_once or "not streamed" in self.false:
            return None
        ends = (call.bursts[0][0], call.bursts[-1][0]) if "bursts" in self.false else (call.at_ms[0], call.at_ms[-1])
        span_ms, tokens = ends[1] - ends[0], self._tokens_after_first(call)
        return span_ms / tokens if span_ms > 0 and tokens > 0 else None

    def server_step_ms(self, call: Stream) -> float | None:
        """One step by the server's decode time, which spans one less than the tokens on most servers."""
        claimed, steps = call.served.decode_ms_server, self.tokens(call) - 1
        return claimed / steps if claimed is not None and claimed > 0 and steps > 0 else None

    def _decode_is_false(self, call: Stream) -> bool | None:
        step_ms, claimed, steps = self.client_step_ms(call), call.served.decode_ms_server, self.tokens(call) - 1
        if step_ms is None or claimed is None or steps <= 0:
            return None
        span_ms = step_ms * steps
        nothing_like_it = claimed < span_ms / 4 and span_ms - claimed > MS_OFF and steps > STEPS_OFF
        return nothing_like_it or abs(claimed - span_ms) > SHARE_OFF * span_ms + STEPS_OFF * step_ms + MS_OFF

    def _prefill_is_false(self, call: Stream) -> bool | None:
        claimed = call.served.prefill_ms_server
        if claimed is None or not call.events or "not streamed" in self.false:
            return None
        seen_ms = client_prefill_ms(call.served)
        if claimed > (1 + SHARE_OFF) * seen_ms + HONEST_MS:
            return True
        if not self._lone:
            return None  # it may have waited for another of our clients
        # What the client saw holds the first event's steps, and the way there and back, which connecting took as well.
        seen_ms -= (self.client_step_ms(call) or 0.0) * (self.first_tokens(call) or 1.0)
        seen_ms -= call.served.connect_ms or 0.0
        return claimed < HONEST_SHARE * seen_ms and seen_ms - claimed > HONEST_MS

    def step_of(self, call: Stream) -> tuple[float | None, DecodeStepBasis | None]:
        """The step that serves: the client's, or the server's where it times decodes and no clock contradicts it."""
        client_ms, server_ms = self.client_step_ms(call), self.server_step_ms(call)
        if "decode" in self.false or "not streamed" in self.false:
            server_ms = None
        if server_ms is not None and call.served.server_times == "both":
            return server_ms, "server"
        if client_ms is not None:
            by_token: DecodeStepBasis = "client" if self._each_a_token else "client_usage"
            return client_ms, "bursts" if "bursts" in self.false else by_token
        upheld = any(self._decode_is_false(each) is False for each in self._streams)
        return (server_ms, "server") if server_ms is not None and upheld else (None, None)

    def _late_ms(self, call: Stream) -> float:
        """What of the first event's time were steps of the further tokens that it held, where that is most of it."""
        steps_ms = ((self.first_tokens(call) or 1.0) - 1) * (self.client_step_ms(call) or 0.0)
        return steps_ms if LATE_SHARE * call.served.ttft_ms < steps_ms < call.served.ttft_ms else 0.0

    def prefill_of(self, call: Stream) -> tuple[float | None, bool]:
        """The prefill time that serves, and whether it is the client's."""
        if call.served.server_times == "none":
            return client_prefill_ms(call.served) - self._late_ms(call), True
        if call.cut:
            # The last line has the load: a warm call's is as long as the others'.
            known = self._warm_load_ms if call.served.model_was_loaded else None
            return None if known is None else call.served.ttft_ms - known, True
        none_for_one = call.budget == 1 and call.served.prefill_ms_server is None
        if "prefill" in self.false or none_for_one:
            return client_prefill_ms(call.served), True
        return call.served.prefill_ms_server, False

    def settled(self, call: Stream) -> Timing:
        """The call with the figures that serve, and what can't be told of it as its faults."""
        step_ms, basis = self.step_of(call)
        prefill_ms, by_client = self.prefill_of(call)
        first, served = self.first_tokens(call), call.served
        queue_ms = None
        if prefill_ms is not None and not by_client:
            queue_ms = max(0.0, served.ttft_ms - (served.load_ms or 0.0) - prefill_ms)
        kept = dataclasses.replace(
            served,
            decode_step_ms=step_ms,
            decode_step_basis=basis,
            decode_step_ms_client=self.client_step_ms(call),
            decode_step_ms_server=self.server_step_ms(call),
            queue_ms=queue_ms,
            prefill_basis="ttft" if by_client else "server",
            first_event_tokens=first,
            false_claims=", ".join(self.false) or None,
            faults=self._faults(call, step_ms, prefill_ms, by_client=by_client),
        )
        decode_ms = served.decode_ms_server
        if served.server_times == "none" or "decode" in self.false:
            decode_ms = None if not call.events else call.at_ms[-1] - call.at_ms[0]
        own: dict[str, Any] = {"prefill_ms": prefill_ms, "kv_decode_ms": decode_ms}
        if call.cut and self._prompt_tokens is not None:
            own |= dict.fromkeys(("prompt_tokens", "prompt_tokens_total"), self._prompt_tokens)
        return dataclasses.replace(call.timing, gen_tokens_raw=round(self.tokens(call)), served=kept, **own)

    def _faults(
        self, call: Stream, step_ms: float | None, prefill_ms: float | None, *, by_client: bool
    ) -> Mapping[str, str]:
        """The phases that a call gives no valid time for, each with the reason."""
        faults: dict[str, str] = {}
        of_one_instant = PHASES if by_client else PHASES[1:]
        if "not streamed" in self.false:
            faults |= dict.fromkeys(of_one_instant, "not_streamed: the reply came at once, so no token can be timed")
        elif step_ms is None and call.budget > 1:
            lost = of_one_instant if call.at_once else PHASES[1:]
            faults |= dict.fromkeys(lost, "no_decode_step: too few tokens came, or all at once, to time one")
        elif "bursts" in self.false and by_client:
            held = "arrivals_in_bursts: the first token was held back with others; go round the proxy"
            faults["prefill"] = faults["e2e_kv"] = held
        elif by_client and self._late_ms(call):
            held = f"first_event_late: it held {self.first_tokens(call):.3g} tokens, and came with the last of them"
            faults["prefill"] = held
        if prefill_ms is None:
            why = "would have come with the last line" if call.cut else "is absent, zero or negative"
            faults["prefill"] = faults["e2e_kv"] = f"no_prefill_time: the server's figure {why}"
        if call.served.cache_check == "found":
            why = f"prompt_cache: answered from the server's cache: {call.served.cache_reason}"
            faults["prefill"] = faults["e2e_kv"] = why
        return faults


def client_prefill_ms(served: Served) -> float:
    """The first token's time without the load, where that can be one."""
    load_ms = served.load_ms or 0.0
    return served.ttft_ms - (load_ms if load_ms < served.ttft_ms else 0.0)


def settled(timings: Sequence[Timing], budget: int, *, lone: bool) -> list[Timing]:
    """The calls of a cell, in their order, with the figures that serve; calls in process stay as they are.

    ``budget`` is the tokens asked for; ``lone``: one client called at a time. What is settled again comes out the same.
    """
    streams = {
        at: Stream(each, each.served, budget)
        for at, each in enumerate(timings)
        if each.served is not None and each.served.server_times is not None
    }
    cell = Cell([*streams.values()], lone=lone)
    return [cell.settled(streams[at]) if at in streams else each for at, each in enumerate(timings)]
