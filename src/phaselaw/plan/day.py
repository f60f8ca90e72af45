"""A day of the traffic, hour by hour, under three fleets: the peak's all day, one that follows the load, and spot.

A fluid model: inside an hour requests come evenly, and none queues by bad luck. A fleet that follows the load asks for
workers when an hour's load comes. Until they have loaded, those of the hour before serve. What they can't carry makes a
queue, first come first served: who comes before it is worked off has waited. A spot worker that is taken away is
replaced, and its load waits until then.
"""

import dataclasses

import numpy as np

from phaselaw.errors import UsageError
from phaselaw.laws.regression import Floats
from phaselaw.plan.capacity import Headroom, exact, whole_workers
from phaselaw.plan.replicas import Replica
from phaselaw.plan.tables import row
from phaselaw.tables import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Day:
    """What a day brings: requests/s by the hour, and what is assumed of workers."""

    hours: tuple[float, ...]
    scale_out_s: float | None  # until a worker serves; None: each replica's load and first call
    spot_usd_per_hour: float | None
    interruptions: float  # share of the spot workers that are taken away in an hour


def _waits(rates: Floats, served: Floats, late_s: float) -> Floats:
    """By hour, the requests that come while a queue stands, at the ``rates`` that come and that the workers can serve.

    The day begins in its quietest hour, without a queue. Yesterday was like it.
    """
    queue, waited = np.zeros(served.shape[1]), np.zeros(served.shape)
    for hour in (np.arange(24) + rates.argmin()) % 24:
        first = np.minimum(served[hour], served[hour - 1])
        for can, seconds in ((first, late_s), (served[hour], 3600.0 - late_s)):
            grows = rates[hour] - can
            grows = np.where(abs(grows) < 1e-8 * can, 0.0, grows)  # but for rounding, all that comes is served
            stands = np.where(grows > 0, seconds, np.minimum(seconds, queue / np.maximum(-grows, 1e-12)))
            waited[hour] += rates[hour] * stands
            queue = np.maximum(0.0, queue + grows * seconds)
    return waited


def day_rows(
    replica: Replica, day: Day, requests_per_s: float, tokens_per_request: float, keeps: Headroom
) -> tuple[list[Row], list[Row]]:
    """One model's fleets over the day, and the hours of the one that follows the load; raises `UsageError`.

    The peak, the mean ``requests_per_s`` of the load times its burst, is in the busiest hour; each hour has a peak that
    stands as far over its own mean.
    """
    seconds = replica.scale_out_s if day.scale_out_s is None else day.scale_out_s
    if seconds is None:
        raise UsageError(f"--day: no load of {replica.model} was measured: give --scale-out-delay")
    if seconds > 3600:
        raise UsageError(f"--day: {replica.model} takes {seconds:,.0f} s to start: a day by the hour takes at most 1h")
    hours, carries = np.array(day.hours)[:, None], replica.tokens_per_s / tokens_per_request
    in_hour = max(1.0, keeps.burst * requests_per_s / hours.max())
    fleet = whole_workers(hours / carries, dataclasses.replace(keeps, burst=in_hour))
    most = np.broadcast_to(fleet.max(axis=0), fleet.shape)
    late = _waits(hours, carries * fleet, seconds)
    taken = day.interruptions * hours * seconds + 0 * late
    own, spot = replica, dataclasses.replace(replica, usd_per_hour=day.spot_usd_per_hour or 0.0)
    kinds = [("static peak", own, most, 0 * late), ("reactive", own, fleet, late)]
    kinds += [("spot, static", spot, most, taken)] if day.spot_usd_per_hour else []
    rows = []
    for name, each, built, waits in kinds:
        worst = int(np.argmax(waits[:, 0] if waits[:, 0].any() else hours[:, 0]))
        waited, worst_hour = waits.sum(axis=0), {"worst_hour": f"{worst:02d}:00", "waited_in_worst_hour": waits[worst]}
        figures = {"waited_requests": waited, "waited_share": waited / (3600.0 * hours.sum())} | worst_hour
        figures |= {"least_workers": built.min(axis=0), "whole_workers": built.max(axis=0)}
        figures |= {"usd_per_month_whole": 30 * built.sum(axis=0) * each.usd_per_hour}
        rows.append(row("day", each, load=replica.request, fleet=name, scale_out_s=seconds, **figures))
    by_hour = []
    for at, (rate, built, waits) in enumerate(zip(day.hours, fleet, late, strict=True)):
        figures = {"requests_per_s": exact(rate), "whole_workers": built, "waited_requests": waits}
        by_hour.append(row("day_hours", own, load=own.request, hour=f"{at:02d}:00", **figures))
    return rows, by_hour
