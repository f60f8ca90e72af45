"""The whole plan: its tables agree with each other, and say what they stand on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import SECONDS_PER_MONTH, Headroom, exact
from phaselaw.plan.economics import Question, Tables, answer, sensitivity
from phaselaw.plan.replicas import stated
from phaselaw.records import Mix

WORKERS = [
    stated("small", 141.3, 1.006), stated("big", 52.4, 1.006), stated("small", 400.0, 5.0, backend="gpu"),
]  # fmt: skip
MIXES = (Mix(name="a", prompt_tokens=256, output_tokens=128), Mix(name="b", prompt_tokens=20, output_tokens=20))


def plan(**asked: object) -> Tables:
    return answer(Question(**asked), WORKERS, {})


def test_a_load_in_requests_is_its_tokens() -> None:
    by_requests = plan(requests_per_s=2.0, mixes=MIXES)
    by_tokens = plan(tokens_per_month=2.0 * SECONDS_PER_MONTH * 212, mixes=MIXES)
    assert by_requests["rows"] == by_tokens["rows"]
    row = by_requests["requests"][0]
    assert row["requests_per_s"] == 2.0
    assert row["workers"] == pytest.approx(2.0 / row["requests_per_s_per_worker"])
    assert row["usd_per_request"] * row["requests_per_month"] == pytest.approx(row["usd_per_month"])


def test_tiers_are_the_cheapest_and_the_dearest_of_a_backend_unless_named() -> None:
    assert [(row["model"], row["premium_model"]) for row in plan()["tiering"]] == [("small", "big")]
    [row] = plan(tier_models=("gpu/small", "big"))["tiering"]
    assert (row["backend"], row["premium_backend"]) == ("gpu", "stated")
    with pytest.raises(UsageError, match="--tiers huge: not in this run"):
        plan(tier_models=("small", "huge"))


def test_success_rates_bring_their_tables_and_none_bring_none() -> None:
    assert "break_even" not in plan()
    tables = plan(success_rates={"small": exact(0.7)})
    assert {row["model"] for row in tables["cost_per_success"]} == {"small"}
    assert {(row["model"], row["than_model"]) for row in tables["break_even"]} == {("small", "small"), ("big", "small")}


def test_headroom_is_in_every_fleet() -> None:
    tables = plan(headroom=Headroom(utilisation=0.5, spares=1))
    assert tables["rows"][0]["whole_workers"] == 7  # 2.73 at half its time: 5.46, so 6, and a spare
    assert tables["requests"][0]["whole_workers"] == 7


def test_rates_by_phases_are_refused_where_none_is_measured() -> None:
    with pytest.raises(UsageError, match="--rates-by phases: not measured for any model here"):
        plan(phase_split_rates=True)


@given(rate=st.floats(1, 1e5), scale=st.floats(0.1, 100))
def test_workers_grow_with_the_volume_and_prices_with_the_hour(rate: float, scale: float) -> None:
    first, second = sensitivity(stated("m", rate, 1.0), Question(volumes=(1e9, scale * 1e9), tiers={"a": 1.0}))
    [dearer] = sensitivity(stated("m", rate, 1.0), Question(volumes=(1e9,), tiers={"b": scale}))
    assert second["workers"] == pytest.approx(scale * first["workers"])
    assert second["usd_per_1m"] == first["usd_per_1m"]
    assert dearer["usd_per_1m"] == pytest.approx(scale * first["usd_per_1m"])
    assert dearer["workers"] == first["workers"]


def test_other_volumes_and_rates_keep_the_same_headroom_and_the_fleets_price_of_a_token_is_told() -> None:
    question = Question(volumes=(1e9,), tiers={"a": 1.0}, headroom=Headroom(utilisation=0.5, burst=2.0, spares=1))
    replica = stated("m", 400.0, 1.0)
    [other], [planned] = sensitivity(replica, question), answer(question, [replica], {})["rows"]
    assert other["whole_workers"] == planned["whole_workers"] == 5
    assert planned["usd_per_1m_whole"] == pytest.approx(5 * 720 / 1000)
