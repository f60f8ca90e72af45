"""A traffic profile: rate, bursts and lengths of a request log (method 5), and the format of all profiles.

Definitions: the mean rate is all requests over the whole span, first to last; the peak is the busiest of the 60 s bins
that begin with the first request; the CV of the gaps is their standard deviation over their mean.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from phaselaw.errors import AnalysisError, UsageError
from phaselaw.records import Mix
from phaselaw.traffic.log import Log, Reading
from phaselaw.traffic.sketches import BIN_S, WINDOW, Arrivals, Counts, Kinds, Moments
from phaselaw.traffic.timings import Timings

SCHEMA_VERSION = 1
"""Of every profile, whether from a request log or from a Prometheus page."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class _Reading:
    """What is kept of a log while it is read once."""

    def __init__(self, log: Log, timings: Timings, anchor: float | None = None) -> None:
        self.log, self.timings, self.arrivals = log, timings, Arrivals(anchor)
        self.lengths = {"prompt_tokens": Counts(), "output_tokens": Counts()}
        self.products, self.log_products, self.kinds = Moments(), Moments(), Kinds()
        for chunk in log:
            self.arrivals.add(chunk.sent_at)
            self.timings.add(chunk)
            lengths = np.stack([chunk.prompt_tokens, chunk.output_tokens])
            known = np.isfinite(lengths)
            for counts, values, are in zip(self.lengths.values(), lengths, known, strict=True):
                counts.add(values[are])
            prompt, output = lengths[:, known.all(axis=0)]
            self.products.add(prompt, output)
            self.log_products.add(np.log1p(prompt), np.log1p(output))
            self.kinds.add(prompt, output)
        self.arrivals.close()
        if not self.arrivals.count:
            first = "; ".join(log.faults.first[:2])
            why = f"{log.faults.count} rows can't be read, such as {first}" if first else "the log has no rows"
            raise AnalysisError(f"no request could be read: {why}")

    def document(self) -> dict[str, Any]:
        arrivals, first, span = self.arrivals, self.arrivals.first, self.arrivals.span_s
        mean = arrivals.count / span if span > 0 else None
        peak = why = None
        if mean is not None and span >= BIN_S:
            at, count = arrivals.busiest
            peak = {"requests_per_s": count / BIN_S, "over_mean": count / BIN_S / mean, "starts_after_s": at * BIN_S}
        if arrivals.late:
            why = f"{arrivals.late} requests were more than {WINDOW:,} rows out of order: sort the log by time"
        has_both = all(counts.n for counts in self.lengths.values())
        return {
            "schema_version": SCHEMA_VERSION,
            "source": "request log",
            "requests": arrivals.count,
            "rows_not_read": {"count": self.log.faults.count, "first": self.log.faults.first},
            "columns": dict(self.log.columns.names) if self.log.columns else {},
            "timestamps": self.log.timestamps,
            # In UTC; not known where the log counts from its own start.
            "starts_at": None if first < 1e8 else dt.datetime.fromtimestamp(first, tz=dt.UTC).isoformat(),
            "span_s": span,
            "requests_per_s": mean,
            "peak_minute": peak,
            "gap_cv": arrivals.gap_cv,
            "gap_cv_unknown": why,
            **{name: _distribution(counts) for name, counts in self.lengths.items()},
            "tokens_per_request": sum(counts.mean for counts in self.lengths.values()) if has_both else None,
            "correlation": self.products.correlation if has_both else None,
            "correlation_of_logs": self.log_products.correlation if has_both else None,
            "kinds": self.kinds.rows() if has_both else [],
            "timings": self.timings.document(),
        }


def traffic_profile(
    path: Path,
    reading: Reading,
    make_timings: Callable[[], Timings] = Timings,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The profile of a request log, read once; twice where its first rows are not its earliest by far.

    Raises as `Log` does, and `AnalysisError` where it has no readable request.
    """
    read = _Reading(Log(path, reading, progress), make_timings())
    if read.arrivals.misplaced_anchor:
        read = _Reading(Log(path, reading, progress), make_timings(), anchor=read.arrivals.first)
    return read.document()


def _distribution(counts: Counts) -> dict[str, float] | None:
    if not counts.n:
        return None
    quantiles = {f"p{share * 100:g}": counts.quantile(share) for share in QUANTILES}
    return {"mean": counts.mean, "sd": counts.sd, **quantiles, "max": counts.largest}


def read_profile(path: Path) -> dict[str, Any]:
    """A profile as ``phaselaw traffic --out`` wrote it. Raises `UsageError` for another file or a newer format."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise UsageError(f"{path}: no traffic profile that can be read ({reason})") from None
    if not isinstance(document, dict) or "kinds" not in document or "requests_per_s" not in document:
        raise UsageError(f"{path}: no traffic profile; make one with phaselaw traffic LOG --out {path.name}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{path}: a traffic profile of version {document.get('schema_version')}, not {SCHEMA_VERSION}")
    return document


def load_of(document: Mapping[str, Any], path: Path) -> tuple[float, tuple[Mix, ...], float]:
    """What a plan takes from a profile: requests/s, kinds of request, and the peak over the mean (1 where not known).

    Raises `UsageError` where the profile has no rate, or no lengths.
    """
    rate, kinds = document["requests_per_s"], document["kinds"]
    if not isinstance(rate, int | float) or not rate > 0 or not math.isfinite(rate):
        raise UsageError(f"{path}: the profile has no rate of requests to plan with")
    mixes = tuple(
        Mix(name=f"about {prompt:.0f} in, {output:.0f} out", prompt_tokens=prompt, output_tokens=output, share=share)
        for prompt, output, share in map(itemgetter("prompt_tokens", "output_tokens", "share"), kinds)
        if prompt + output > 0
    )
    if not mixes:
        raise UsageError(f"{path}: the profile has no lengths of prompts and answers to plan with")
    peak = document.get("peak_minute") or {}
    return float(rate), mixes, max(1.0, float(peak.get("over_mean", 1.0)))
