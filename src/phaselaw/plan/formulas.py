"""The plan's formulas as JavaScript, for the planner of a report's page, and what of a run it works on.

No formula is written twice: the functions that a plan calls are called once more, with `Symbol`s in place of numbers,
and what they compute is written out, operation by operation. Page and Python both count in IEEE doubles.
"""

import dataclasses
import json
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from phaselaw.plan import coverage
from phaselaw.plan.capacity import estimate, mean_tokens
from phaselaw.plan.decisions import Tiers, needed_failure_usd, needed_success_rate
from phaselaw.plan.economics import Question
from phaselaw.plan.hosted import against, usd_per_token
from phaselaw.plan.replicas import Replica, price
from phaselaw.records import Mix
from phaselaw.tables import MOST_ROWS

_BETWEEN = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<="}
_BETWEEN |= {"greater": ">", "equal": "===", "bitwise_and": "&&", "bitwise_or": "||"}
_WRITTEN = {name: f"{{}} {sign} {{}}" for name, sign in _BETWEEN.items()}
_WRITTEN |= {"absolute": "Math.abs({})", "ceil": "Math.ceil({})", "maximum": "Math.max({}, {})"}
"""Each operation of numpy that a formula may have, in JavaScript."""


class Symbol(NDArrayOperatorsMixin):
    """A number that is not known yet, or an object of such: arithmetic with it is written among the ``steps``, once."""

    def __init__(self, text: str, steps: dict[str, str]) -> None:
        self.text, self.steps = text, steps

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **_: Any) -> "Symbol":
        return self._step(_WRITTEN[ufunc.__name__], inputs)

    def __array_function__(self, function: Any, types: Any, inputs: Any, named: Any) -> "Symbol":
        if function is not np.where:
            raise TypeError(f"{function.__name__} can't be written out")
        return self._step("{} ? {} : {}", inputs)

    def _step(self, written: str, inputs: Sequence[Any]) -> "Symbol":
        expression = written.format(*map(_text, inputs))
        return Symbol(self.steps.setdefault(expression, f"v{len(self.steps)}"), self.steps)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Symbol(f"{self.text}.{name}", self.steps)

    def __bool__(self) -> bool:
        raise TypeError("a formula that decides by a value can't be written out: numpy.where can")


def _text(value: Any) -> str:
    return value.text if isinstance(value, Symbol) else json.dumps(np.asarray(value).tolist())


def _replica(of: Any, tier: str = "") -> Replica:
    named = {name: getattr(of, tier + name) for name in ("tokens_per_s", "usd_per_hour")}
    return Replica(backend="", model="", **named)


def _request(of: Any) -> Mix:
    return Mix(name="", prompt_tokens=of.prompt, output_tokens=of.output, cached_share=of.cached)


def _api(of: Any) -> dict[str, Any]:
    price = usd_per_token(lambda _: (of.api_in, of.api_out, of.api_cached), [_request(of)])
    return against(_replica(of), price, of.tokens_per_month, of) | {"usd_per_month_api": price * of.tokens_per_month}


def _two(of: Any) -> dict[str, Any]:
    """Two models in one service: routed, and what the premium one must reach to pay."""
    default, premium, tokens = _replica(of), _replica(of, "premium_"), mean_tokens([_request(of)])
    tiers = Tiers(default, premium, of.tokens_per_month, tokens, of)
    alone = premium.fleet(of.tokens_per_month, of)["usd_per_month_whole"]
    costs = tiers.costs((1 - of.premium_share, of.premium_share))
    less, more = (each.usd_per_request(tokens) for each in (default, premium))
    return costs | {
        "saved_usd_per_month_whole": alone - costs["usd_per_month_whole"],
        "needed_success_rate": needed_success_rate(of.success, less, more),
        "needed_failure_usd": needed_failure_usd(more - less, of.premium_success - of.success),
    }


FORMULAS: Mapping[str, Callable[[Any], Any]] = {
    "tokens_per_month": lambda of: Question(requests_per_s=of.requests_per_s, mixes=(_request(of),)).volume,
    "fleet": lambda of: _replica(of).fleet(of.tokens_per_month, of),
    "api": _api,
    "two": _two,
    "near": lambda of: coverage.near(of.asked, of.known),
    "within": lambda of: coverage.within(of.asked, (of.least, of.most)),
}
"""What the planner works out, by name."""


def javascript() -> str:
    """The formulas as functions of one object that holds their inputs by name."""
    written = []
    for name, formula in FORMULAS.items():
        found = formula(of := Symbol("of", {}))
        steps = [f"const {step} = {expression};" for expression, step in of.steps.items()]
        figures = [f"{key}: {_text(each)}" for key, each in found.items()] if isinstance(found, dict) else []
        answer = f"{{ {', '.join(figures)} }}" if figures else _text(found)
        written.append("\n    ".join([f"  {name}(of) {{", *steps, f"return {answer};"]) + "\n  },\n")
    return f"const formulas = {{\n{''.join(written)}}};\n"


def planner(question: Question, workers: Sequence[Replica]) -> dict[str, Any]:
    """The workers of a plan, and its inputs, where the planner's fields begin; empty without workers.

    A load without kinds of request is of one that was measured.
    """
    if not workers:
        return {}
    kinds, hours = question.mixes, {each.usd_per_hour for each in workers}
    if question.of_own_requests and (known := workers[0].lengths):
        prompt, output, _ = known[len(known) // 2]
        kinds = (Mix(name="", prompt_tokens=prompt, output_tokens=output, cached_share=kinds[0].cached_share),)
    average = sum(mix.share * mix.prompt_tokens for mix in kinds) / sum(mix.share for mix in kinds)
    prices = question.api[1](average) if question.api else (None, None, None)
    inputs = {name: getattr(question, name) for name in ("requests_per_s", "premium_share", "failure_usd")}
    inputs |= dataclasses.asdict(question.headroom) | {"tokens_per_month": question.volume, "prompt": average}
    inputs |= {"output": mean_tokens(kinds) - average, "cached": kinds[0].cached_share}
    inputs |= {"usd_per_hour": hours.pop() if len(hours) == 1 else None}
    inputs |= dict(zip(("api_in", "api_out", "api_cached"), prices, strict=True))
    some = [_worker(each) for each in sorted(workers, key=price)[:MOST_ROWS]]
    lengths = [(mix.prompt_tokens, mix.output_tokens) for mix in kinds]
    return {"formulas": javascript(), "inputs": inputs, "kinds": lengths, "workers": some}


def _worker(replica: Replica) -> dict[str, Any]:
    """What the planner must know of a worker; of its rate also the interval: of one more run, else of this one."""
    rate = estimate(replica.tokens_per_s)
    names = ("backend", "model", "batch_size", "gen_tokens", "usd_per_hour", "lengths", "suspect", "incomplete")
    known = {name: getattr(replica, name) for name in (*names, "params_millions")}
    # What context and memory hold, however short the prompt.
    asked, at_once = partial(Mix, name="", prompt_tokens=0.0), replica.batch_size * replica.clients
    held = bisect(
        range(1, 2**30), 0, key=lambda n: bool(coverage.cannot_hold(replica, asked(output_tokens=n), at_once))
    )
    known["most_tokens"] = held
    return known | {"tokens_per_s": (rate.value, *(rate.reach or ())), "one_more_run": rate.low is not None}
