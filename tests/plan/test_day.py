"""A day under three fleets, by hand."""

import numpy as np
import pytest

from phaselaw.errors import UsageError
from phaselaw.plan.capacity import Headroom
from phaselaw.plan.day import Day, day_rows
from phaselaw.plan.replicas import Replica, stated

HOURS = (1.0,) * 8 + (3.5,) * 4 + (2.0,) * 12  # 1 request/s is one worker's: 100 tokens each, 100 tokens/s
MEAN = (8 * 1 + 4 * 3.5 + 12 * 2) / 24


def fleets(
    headroom: Headroom | None = None, replica: Replica | None = None, mean: float = MEAN, **of: object
) -> dict[str, dict]:
    day = Day(**({"hours": HOURS, "scale_out_s": 60.0, "spot_usd_per_hour": 0.25, "interruptions": 0.1} | of))
    rows, _ = day_rows(replica or stated("m", 100.0, 1.0), day, mean, 100.0, headroom or Headroom())
    return {row["fleet"]: row for row in rows}


def test_each_fleet_costs_its_workers_hours() -> None:
    found = fleets()
    assert found["static peak"]["usd_per_month_whole"] == 30 * 24 * 4
    assert found["reactive"]["usd_per_month_whole"] == 30 * (8 * 1 + 4 * 4 + 12 * 2)
    assert found["spot, static"]["usd_per_month_whole"] == 30 * 24 * 4 * 0.25
    assert (found["reactive"]["least_workers"], found["reactive"]["whole_workers"]) == (1, 4)


def test_all_who_come_while_a_queue_stands_wait_until_what_the_hour_before_could_not_carry_is_worked_off() -> None:
    found = fleets()["reactive"]
    queue = 60 * (3.5 - 1)  # at 8:00, of one worker where 3.5 requests/s come; at 0:00 two workers are enough
    assert found["waited_requests"] == pytest.approx(3.5 * (60 + queue / (4 - 3.5)))
    assert (found["worst_hour"], found["waited_in_worst_hour"]) == ("08:00", found["waited_requests"])
    assert found["waited_share"] == pytest.approx(1260 / (3600 * 24 * MEAN))
    assert fleets()["static peak"]["waited_requests"] == 0


def test_a_queue_that_an_hour_does_not_work_off_stands_in_the_next_one_too() -> None:
    by_hour = day_rows(
        stated("m", 100.0, 1.0), Day(hours=HOURS, scale_out_s=1800.0, spot_usd_per_hour=None, interruptions=0.0),
        MEAN, 100.0, Headroom(),
    )[1]  # fmt: skip
    waited = [row["waited_requests"] for row in by_hour]
    assert waited[8:11] == pytest.approx([3600 * 3.5] * 3)  # 4,500 wait at 8:30, and 0.5 a second are worked off
    assert waited[11] == pytest.approx(0, abs=1e-6) and sum(waited[:8]) == 0


def test_random_requests_wait_as_the_fluid_says() -> None:
    """Against a queue of one server that is as fast as all workers, in two hours of random arrivals."""
    ends, rng, late = [], np.random.default_rng(1), 300.0
    for _ in range(10):
        came = np.cumsum(rng.exponential(1 / 3.5, 14_000))
        free, waits = 0.0, 0
        for at in came[came < 3600]:
            start = max(at, free)
            waits += start > at + 5  # by chance many wait a moment
            free = start + 1 if start + 1 <= late else max(start, late) + (1 - max(0.0, late - start)) / 4
        ends.append(waits)
    fluid = fleets(scale_out_s=late)["reactive"]["waited_in_worst_hour"]
    assert np.mean(ends) == pytest.approx(fluid, rel=0.1)


def test_the_load_of_a_spot_worker_that_is_taken_away_waits() -> None:
    assert fleets()["spot, static"]["waited_requests"] == pytest.approx(0.1 * 60 * 24 * MEAN)
    assert "spot, static" not in fleets(spot_usd_per_hour=None)


def test_a_peak_beyond_the_busiest_hours_mean_is_kept_free_in_every_hour() -> None:
    peak = 7.0 / MEAN  # twice the busiest hour
    found = fleets(Headroom(burst=peak, spares=1))["reactive"]
    assert (found["least_workers"], found["whole_workers"]) == (2 + 1, 7 + 1)


def test_the_peak_is_over_the_loads_own_mean_whatever_part_of_the_day_its_log_saw_twice() -> None:
    found = fleets(Headroom(burst=7.0 / 3.0), mean=3.0)["static peak"]  # the log saw the busy hours more often
    assert found["whole_workers"] == 7


def test_what_waits_has_no_interval_where_the_rate_has_none() -> None:
    found = fleets()
    for fleet in ("reactive", "spot, static"):
        assert found[fleet]["waited_requests"] > 0
        assert (found[fleet]["waited_requests_low"], found[fleet]["waited_requests_high"]) == (None, None)


def test_a_start_of_more_than_an_hour_is_refused() -> None:
    assert fleets(scale_out_s=3600.0)["reactive"]["waited_requests"] >= 3600 * 3.5
    with pytest.raises(UsageError, match="m takes 7,200 s to start"):
        fleets(scale_out_s=7200.0)


def test_a_scale_out_that_was_not_measured_is_asked_for() -> None:
    with pytest.raises(UsageError, match="give --scale-out-delay"):
        fleets(scale_out_s=None)
