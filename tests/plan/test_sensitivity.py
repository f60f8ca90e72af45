"""Volume and hourly rate: both linear, and typed on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.errors import UsageError
from phaselaw.plan.sensitivity import TR121_TIERS, read_tiers, read_volumes, sensitivity
from phaselaw.plan.workers import stated


@given(rate=st.floats(1, 1e5), scale=st.floats(0.1, 100))
def test_workers_grow_with_the_volume_and_prices_with_the_hour(rate: float, scale: float) -> None:
    first, second = sensitivity(stated("m", rate, 1.0), (1e9, scale * 1e9), {"a": 1.0})
    [dearer] = sensitivity(stated("m", rate, 1.0), (1e9,), {"b": scale})
    assert second["workers"] == pytest.approx(scale * first["workers"])
    assert second["usd_per_1m"] == first["usd_per_1m"]
    assert dearer["usd_per_1m"] == pytest.approx(scale * first["usd_per_1m"])
    assert dearer["workers"] == first["workers"]


def test_the_default_tiers_are_tr121s_and_its_predecessors() -> None:
    assert TR121_TIERS == {"on-demand": 1.006, "spot": 0.302, "reserved 1 y": 0.704, "reserved 3 y": 0.503}


def test_tiers_and_volumes_are_typed() -> None:
    assert read_tiers("spot=0.3, big = 4") == {"spot": 0.3, "big": 4.0}
    assert read_tiers("2.5") == {"2.5": 2.5}
    assert read_volumes("1e8,2e9") == (1e8, 2e9)


@pytest.mark.parametrize("text", ["spot=cheap", "spot=", "a=0", "a=-1", "a=nan"])
def test_a_tier_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--rates"):
        read_tiers(text)


@pytest.mark.parametrize("text", ["lots", "", "0", "1e9,-1"])
def test_a_volume_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--volumes"):
        read_volumes(text)
