"""The plan's formulas written out as JavaScript: from the functions themselves; what they work on. In a browser:
tests/report/test_planner.py.
"""

import re

import numpy as np
import pytest

from phaselaw.plan.economics import Question
from phaselaw.plan.formulas import Symbol, javascript, planner
from phaselaw.plan.replicas import stated
from phaselaw.records import Mix


def test_a_formula_is_what_the_function_does_with_numbers() -> None:
    [body] = re.findall(r"fleet\(of\) \{(.*?)return", javascript(), flags=re.DOTALL)
    assert "Math.ceil(" in body and "1e-09" in body and "of.utilisation" in body


def test_a_formula_that_decides_by_its_value_is_refused() -> None:
    with pytest.raises(TypeError, match="can't be written out"):
        max(Symbol("a", {}), 1.0)
    with pytest.raises(TypeError, match="sum can't be written out"):
        np.sum(Symbol("a", {}))


def test_the_fields_begin_at_the_plans_own_inputs() -> None:
    kinds = (
        Mix(name="a", prompt_tokens=90, output_tokens=60),
        Mix(name="b", prompt_tokens=10, output_tokens=20, share=3),
    )
    question = Question(requests_per_s=2.0, mixes=kinds, api=("An API", lambda _: (1.0, 4.0, 0.5)))
    data = planner(question, [stated("a", 10.0, 1.5), stated("b", 20.0, 1.5, context_tokens=300)])
    inputs = data["inputs"]
    assert (inputs["prompt"], inputs["output"], inputs["usd_per_hour"]) == (30.0, 30.0, 1.5)
    assert (inputs["api_in"], inputs["api_out"], inputs["api_cached"]) == (1.0, 4.0, 0.5)
    assert inputs["tokens_per_month"] == question.volume
    assert [(each["model"], each["most_tokens"]) for each in data["workers"]] == [("b", 300), ("a", 2**30 - 1)]
    assert planner(question, []) == {}


def test_prices_that_differ_by_backend_stay_with_their_workers() -> None:
    data = planner(Question(), [stated("a", 10.0, 1.5), stated("b", 20.0, 2.5)])
    assert data["inputs"]["usd_per_hour"] is None
    assert {each["model"]: each["usd_per_hour"] for each in data["workers"]} == {"a": 1.5, "b": 2.5}
