"""A traffic profile: rate, bursts, lengths and shape over time of a request log (method 5), and its format.

Definitions: the mean rate is all requests over the whole span, first to last; the peak is the busiest of the 60 s bins
that begin with the first request; the CV of the gaps is their standard deviation over their mean; a quantile lies
between the two nearest values in proportion (linear interpolation, rank ``share * (n - 1)``).
"""

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from phaselaw.errors import AnalysisError, UsageError, reading
from phaselaw.files import json_object
from phaselaw.records import Mix, duration, finite
from phaselaw.traffic import columns as of
from phaselaw.traffic.log import Log, opened
from phaselaw.traffic.source import FATES, Reading
from phaselaw.traffic.timings import ReferenceTimes, timings

SCHEMA_VERSION = 2
"""Of every profile, whether from a request log or from a Prometheus page. Version 1 knew no doubts and no hours."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
HOUR, DAY = 3600.0, 86_400.0
BIN_S, WINDOW_S = 60.0, 600.0
"""Bins of the peak, and the windows inside which bursts are told apart from day and night."""
FEWEST_GAPS = 30
"""Gaps that a window needs to tell of bursts."""
FEW = 30
"""Requests up to which a rate is a doubtful one."""
QUIETER = 3.0
"""A log is of two rates where one part of it is quieter than the rest by this."""
_PARTS = 1000
_GAPS = """
SELECT slot, min(gap), count(gap), avg(gap), stddev_pop(gap), max(gap), count(*) FILTER (gap = 0),
count(*) FILTER (gap = 0 AND alike), count(*) FILTER (gap > 0 AND alike), count(*) FILTER (sent <> floor(sent)),
count(inside), stddev_pop(inside) / avg(inside) FROM (
SELECT sent, slot, gap, alike, CASE WHEN sent - gap >= {first} + {window} * slot THEN gap END AS inside FROM (
SELECT sent, floor((sent - {first}) / {window}) AS slot, sent - lag(sent) OVER ({order}) AS gap,
prompt = lag(prompt) OVER ({order}) AND output = lag(output) OVER ({order}) AS alike FROM requests))
GROUP BY GROUPING SETS (slot, ())"""


def traffic_profile(
    paths: Sequence[str | Path], reading: Reading, reference: ReferenceTimes | None = None
) -> dict[str, Any]:
    """The profile of a request log. Raises as `Log` does, and `AnalysisError` where it has no request to plan with."""
    with opened(paths, reading) as log:
        sums = "count(*), min(sent), max(sent), sum(cached), sum(prompt) FILTER (cached IS NOT NULL)"
        [(n, first, end, cached, prompts)] = log.ask(f"SELECT {sums} FROM requests")
        if not n:
            rest = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in log.rows.items() if count)
            raise AnalysisError(f"{log.path}: no request to plan with (rows: {rest or 'none'})")
        of_buckets = of.BUCKET in log.columns.names
        figures = _of_buckets(log) if of_buckets else _of_requests(log, first, end)
        absolute = not any(source.relative for source in log.sources)
        hours = _hours(log, first, first + (figures["span_s"] or 0.0), absolute)
        apart = {name: log.rows[name] for name in FATES[1:] if log.rows[name]}
        document = {
            "schema_version": SCHEMA_VERSION,
            "source": "usage by the hour" if of_buckets else "request log",
            "doubts": [],
            **figures,
            "rows": {"in_log": sum(log.rows.values()), "apart": apart},
            "rows_not_read": {"count": log.rows["not_read"], "first": log.faults},
            "columns": dict(log.columns.names),
            "timestamps": log.timestamps,
            # In UTC; not known where the log counts from its own start.
            "starts_at": dt.datetime.fromtimestamp(first, tz=dt.UTC).isoformat() if absolute else None,
            "cached_prompt_share": cached / prompts if prompts else None,
            **hours,
            "timings": None if of_buckets else timings(log, reference),
        }
        return document | {"doubts": [*log.doubts, *_doubts(log, document, first)]}


def _of_requests(log: Log, first: float, end: float) -> dict[str, Any]:
    """The figures of a log whose rows are requests."""
    linked = "count(*), corr(prompt, output), corr(ln(prompt), ln(output))"
    [(n, *correlations)] = log.ask(f"SELECT {linked} FROM requests")
    span = end - first
    mean = n / span if span > 0 else None
    peak = None
    if mean is not None and span >= BIN_S:
        bins = f"SELECT floor((sent - {first!r}) / {BIN_S}) AS slot, count(*) AS n FROM requests GROUP BY slot"
        [(at, most)] = log.ask(f"{bins} ORDER BY n DESC, slot LIMIT 1")
        peak = {"requests_per_s": most / BIN_S, "over_mean": most / BIN_S / mean, "starts_after_s": at * BIN_S}
    lengths = {name: _distribution(log, name) for name in ("prompt", "output")}
    return {
        "requests": n,
        "span_s": span,
        "requests_per_s": mean,
        "peak_minute": peak,
        **_bursts(log, first),
        **{f"{name}_tokens": found for name, found in lengths.items()},
        "tokens_per_request": sum(found["mean"] for found in lengths.values()),
        **dict(zip(("correlation", "correlation_of_logs"), map(finite, correlations), strict=True)),
        "kinds": [
            {"share": count / n, "prompt_tokens": prompt, "output_tokens": output}
            for count, prompt, output in log.ask(
                "SELECT count(*), avg(prompt), avg(output) FROM requests GROUP BY floor(log2(prompt)), "
                "floor(log2(output)) ORDER BY floor(log2(min(prompt))), floor(log2(min(output)))"
            )
        ],
    }


def _of_buckets(log: Log) -> dict[str, Any]:
    """The figures of an export of usage, whose rows count the requests of a time: no lengths of single requests."""
    if any(name not in log.columns.names for name in (of.ENDED_AT, of.BUCKET)):
        raise UsageError(f"{log.path}: buckets of requests without an end: no rate can be told")
    sums = "sum(requests), min(sent), max(until), sum(prompt), sum(output)"
    [(n, first, end, prompt, output)] = log.ask(f"SELECT {sums} FROM requests")
    if not n or not end > first:
        raise AnalysisError(f"{log.path}: its buckets hold no requests, or no time")
    rates = "SELECT sent, max(until) - sent AS took, sum(requests) / took AS rate FROM requests GROUP BY sent"
    [(at, took, rate)] = log.ask(f"{rates} ORDER BY rate DESC, sent LIMIT 1")
    mean, means = n / (end - first), {"prompt_tokens": prompt / n, "output_tokens": output / n}
    peak = {"requests_per_s": rate, "over_mean": rate / mean, "starts_after_s": at - first, "lasts_s": took}
    return {
        "requests": int(n),
        "span_s": end - first,
        "requests_per_s": mean,
        "peak_minute": peak,
        **dict.fromkeys(("gap_cv", "gap_cv_within_10_min", "longest_gap_s", "correlation", "correlation_of_logs")),
        "gap_cv_unknown": "buckets count requests, they do not say when they came",
        **{name: {"mean": value} for name, value in means.items()},
        "tokens_per_request": sum(means.values()),
        "kinds": [{"share": 1.0, **means}],
    }


def _distribution(log: Log, name: str) -> dict[str, float]:
    """Exact, from how often each length occurs."""
    counted = log.ask(f"SELECT {name}, count(*) FROM requests GROUP BY 1 ORDER BY 1")
    values, counts = np.array(counted, dtype=np.int64).T
    n, mean = counts.sum(), float(np.average(values, weights=counts))
    ranks = np.array(QUANTILES) * (n - 1)
    below, above = (values[np.searchsorted(np.cumsum(counts), at(ranks), side="right")] for at in (np.floor, np.ceil))
    between = below + (above - below) * (ranks % 1)
    quantiles = {f"p{share * 100:g}": float(value) for share, value in zip(QUANTILES, between, strict=True)}
    sd = math.sqrt(float(np.average((values - mean) ** 2, weights=counts)))
    return {"mean": mean, "sd": sd, **quantiles, "max": int(values[-1])}


def _bursts(log: Log, first: float) -> dict[str, Any]:
    """The CV of all gaps between requests, that inside windows of ten minutes, the longest gap, and rows said twice.

    Requests of one moment that mostly have one length, where neighbours in time do not, are rows of one request.
    """
    for order in ("", "ORDER BY sent, prompt, output"):  # most logs are in order, and sorting takes the most of it all
        found = {slot: row for slot, *row in log.ask(_GAPS.format(first=repr(first), window=WINDOW_S, order=order))}
        least, n, mean, sd, longest, at_once, twice, by_chance, finer, *_ = found.pop(None)  # of all windows
        if not (least or 0) < 0:
            break
    inside, cvs = np.array([row[-2:] for row in found.values()], dtype=float).T
    enough = (inside >= FEWEST_GAPS) & np.isfinite(cvs)
    bursts = math.sqrt(np.average(cvs[enough] ** 2, weights=inside[enough])) if enough.any() else None
    told = twice > at_once / 2 and by_chance < (n - at_once) / 10
    coarse = at_once > n / 2 and not finer
    return {
        "gap_cv": sd / mean if n > 1 and mean > 0 and not coarse else None,
        "gap_cv_unknown": "timestamps are whole seconds, most of them of several requests" if coarse else None,
        "gap_cv_within_10_min": None if coarse else bursts,
        "longest_gap_s": longest,
        "rows_said_twice": twice if told else 0,
    }


def _hours(log: Log, first: float, end: float, absolute: bool) -> dict[str, Any]:
    """Requests and time covered by hour of day (UTC, or from the log's start) and, of a week and more, by weekday.

    Not where requests are counted by longer times: nobody knows in which hour, or on which day, they came.
    """
    if end - first < HOUR:
        return {"by_hour_of_day": None, "by_day_of_week": None, "hours_count_from": None}
    origin = 0.0 if absolute else first
    count, longest = "count(*)", 0.0
    if of.BUCKET in log.columns.names:
        count, [(longest,)] = "sum(requests)", log.ask("SELECT max(until - sent) FROM requests")
    rows = log.ask(f"SELECT floor((sent - {origin!r}) / {HOUR}) AS slot, {count} FROM requests GROUP BY slot")
    at = np.arange(math.floor((first - origin) / HOUR), math.floor((end - origin) / HOUR) + 1)
    covered = np.minimum(end - origin, (at + 1) * HOUR) - np.maximum(first - origin, at * HOUR)
    requests = np.zeros(len(at))
    for hour, n in rows:
        requests[int(hour) - at[0]] = n

    def by(index: Any, name: str) -> list[dict[str, Any]]:
        sums = [np.bincount(index, weights) for weights in (requests, covered)]
        return [
            {name: hour, "requests": int(n), "covered_s": float(time), "requests_per_s": float(n / time)}
            for hour, (n, time) in enumerate(zip(*sums, strict=True))
            if time > 0
        ]

    # The first of January 1970 was a Thursday; Monday is 0.
    week = by((at // 24 + 3) % 7, "day") if absolute and longest <= DAY <= (end - first) / 7 else None
    clock, hours = "UTC" if absolute else "the log's start", by(at % 24, "hour") if longest <= HOUR else None
    return {"by_hour_of_day": hours, "by_day_of_week": week, "hours_count_from": clock}


def _doubts(log: Log, document: Mapping[str, Any], first: float) -> Iterator[str]:
    """What makes a figure doubtful, each with what to do."""
    span, rate, n = document["span_s"], document["requests_per_s"], document["requests"]
    if rate is None:
        yield "all requests have the same time: no rate can be told"
        return
    if rate > 1000:
        yield f"{rate:,.0f} requests/s are more than most services see: is the unit of the timestamps right?"
    if n <= FEW:
        low, high = special.gammaincinv([n, n + 1], [0.025, 0.975])
        yield f"{n} requests are few: on average as long a time may bring {low:.1f} to {high:.1f}; give a longer log"
    if (over := (document["peak_minute"] or {}).get("lasts_s", BIN_S)) > BIN_S:
        yield f"its peak is that of a whole {duration(over)}: a minute of it may be busier (--burst of a plan)"
    if (twice := document.get("rows_said_twice", 0)) > 0.01 * n:
        yield f"{twice:,} of {n:,} rows have the time and lengths of another: a part of the log may be in it twice"
    if of.BUCKET not in log.columns.names and n > FEW:
        yield from _two_rates(log, first, span)
        if document["longest_gap_s"] > span / 2:
            gap = duration(document["longest_gap_s"])
            yield f"one gap of {gap} is most of the log: a wrong date, or two logs in one?"
    if unknown := log.rows["status_not_known"]:
        yield f"{unknown:,} rows have a status that is not known here; they count as served"
    for meaning, column, most, per in ((of.TTFT, "ttft", 10, ""), (of.E2E, "e2e / output", 1, " an output token")):
        if any(source.seconds(meaning) is None for source in log.sources if meaning in source.columns.names):
            [(median,)] = log.ask(f"SELECT median(x) FROM (SELECT {column} AS x FROM requests LIMIT 100000)")
            if median is not None and median > most:
                name = log.columns.names[meaning]
                yield f"{name}: a median of {duration(median)}{per} as seconds: say --duration-unit ms where it is that"


def _two_rates(log: Log, first: float, span: float) -> Iterator[str]:
    """Whether the log's head or tail is much quieter than the rest: where two Poisson rates fit best."""
    part = f"least(floor((sent - {first!r}) / {span!r} * {_PARTS}), {_PARTS - 1})"
    counts = np.zeros(_PARTS)
    for at, n in log.ask(f"SELECT {part} AS slot, count(*) FROM requests GROUP BY slot"):
        counts[int(at)] = n
    cuts = np.arange(_PARTS // 20, _PARTS - _PARTS // 20 + 1)
    head = np.cumsum(counts)[cuts - 1]
    tail = counts.sum() - head
    heads, tails = head / cuts, tail / (_PARTS - cuts)
    with np.errstate(divide="ignore", invalid="ignore"):
        fit = np.nan_to_num(head * np.log(heads)) + np.nan_to_num(tail * np.log(tails))
    best = int(np.argmax(fit))
    low, high = sorted((float(heads[best]), float(tails[best])))
    if high < QUIETER * low:
        return
    quiet_head = heads[best] < tails[best]
    hours = cuts[best] / _PARTS * span / HOUR
    share = cuts[best] / _PARTS if quiet_head else 1 - cuts[best] / _PARTS
    times = f"{high / low:.3g} times quieter" if low else "without requests, unlike"
    where, busy = ("first", f"{hours:.4g}:") if quiet_head else ("last", f"0:{hours:.4g}")
    rest = f"{times} than the rest (a ramp, a quiet part, or day and night); plan with the busy part by --part {busy}"
    yield f"the rate is not one rate: the {where} {share:.0%} of the log are {rest}"


def read_profile(path: Path) -> dict[str, Any]:
    """A profile as ``phaselaw traffic --out`` wrote it. Raises `UsageError` for another file or a newer format."""
    document = json_object(path, UsageError, "traffic profile")
    if not {"kinds", "requests_per_s"} <= document.keys():
        raise UsageError(f"{path}: no traffic profile; make one with phaselaw traffic LOG --out {path.name}")
    if document.get("schema_version") not in (1, SCHEMA_VERSION):
        raise UsageError(f"{path}: a traffic profile of version {document.get('schema_version')}, not {SCHEMA_VERSION}")
    with reading(path, UsageError):
        doubts_of(document)
    return document


def doubts_of(document: Mapping[str, Any]) -> list[str]:
    """What a plan must say of a profile: its doubts, what it left out, and how long the log was."""
    doubts = list(document.get("doubts", ()))
    dropped = (document.get("rows_not_read") or {}).get("count", 0)
    if dropped and document.get("schema_version") == 1:
        doubts.append(f"{dropped:,} rows of the log could not be read and are left out of every figure")
    if document.get("span_s"):
        doubts.append(f"{duration(document['span_s'])} of traffic, taken as a month")
    if not document.get("peak_minute"):
        doubts.append("no peak is known: without --burst a plan carries the mean load alone")
    return [f"traffic: {doubt}" for doubt in doubts]


def day_of(document: Mapping[str, Any], path: Path) -> tuple[float, ...]:
    """Requests/s in each of the 24 hours of a day; raises `UsageError` where not all are there, or not at its rate."""
    with reading(path, UsageError):
        rows, rate = document.get("by_hour_of_day") or (), document["requests_per_s"]
        hours = {each["hour"]: float(each["requests_per_s"]) for each in rows}
        if sorted(hours) != list(range(24)):
            raise UsageError(
                f"--day: {path} covers {len(hours)} of the 24 hours of a day; give a profile of a whole day"
            )
        mean = float(np.average([*hours.values()], weights=[each["covered_s"] for each in rows]))
        if not math.isclose(mean, rate, rel_tol=0.05):
            said = f"by_hour_of_day comes to {mean:.4g} requests/s, requests_per_s is {rate:.4g}"
            raise UsageError(f"--day: {path}: {said}; they are of one log: change both alike")
    return tuple(hours[hour] for hour in range(24))


def load_of(document: Mapping[str, Any], path: Path) -> tuple[float, tuple[Mix, ...], float]:
    """What a plan takes from a profile: requests/s, kinds of request, and the peak over the mean (1 where not known).

    Raises `UsageError` where the profile has no rate, or no lengths.
    """
    rate, kinds = document["requests_per_s"], document["kinds"]
    if not isinstance(rate, int | float) or not rate > 0 or not math.isfinite(rate):
        raise UsageError(f"{path}: the profile has no rate of requests to plan with")
    with reading(path, UsageError):
        mixes = tuple(
            Mix(name=f"about {prompt:.0f} in, {out:.0f} out", prompt_tokens=prompt, output_tokens=out, share=share)
            for prompt, out, share in map(itemgetter("prompt_tokens", "output_tokens", "share"), kinds)
            if 0 < prompt + out < math.inf
        )
        peak = max(1.0, float((document.get("peak_minute") or {}).get("over_mean", 1.0)))
    if not mixes:
        raise UsageError(f"{path}: the profile has no lengths of prompts and answers to plan with")
    return float(rate), mixes, peak
