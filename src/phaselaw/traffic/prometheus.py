"""An engine's Prometheus page as a traffic profile: vLLM's and llama-server's metric names.

One page gives averages since the engine started, two give the time between them. Lengths and latencies come from
histogram buckets: their quantiles are interpolated between bucket limits, as Prometheus itself does, and are as coarse
as those. A page has no bursts and no correlation: those stay unknown.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from phaselaw.errors import AnalysisError

SCHEMA_VERSION = 1
BASIS = "interpolated between histogram buckets"

_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+([^\s]+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

REQUESTS = ("vllm:request_success_total", "vllm:request_success", "vllm:e2e_request_latency_seconds_count")
PROMPT = ("vllm:prompt_tokens_total", "vllm:prompt_tokens", "llamacpp:prompt_tokens_total")
OUTPUT = ("vllm:generation_tokens_total", "vllm:generation_tokens", "llamacpp:tokens_predicted_total")
STARTED = ("process_start_time_seconds",)
HISTOGRAMS = {
    "prompt_tokens": ("vllm:request_prompt_tokens",),
    "output_tokens": ("vllm:request_generation_tokens",),
    "ttft_s": ("vllm:time_to_first_token_seconds",),
    "decode_step_s": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "e2e_s": ("vllm:e2e_request_latency_seconds",),
}
RATES = {
    "prompt_tokens_per_s_busy": ("llamacpp:prompt_tokens_total", "llamacpp:prompt_seconds_total"),
    "decode_tokens_per_s_busy": ("llamacpp:tokens_predicted_total", "llamacpp:tokens_predicted_seconds_total"),
}
"""llama-server's: tokens over the seconds it was busy with them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """One scrape: the values of each series, summed over label sets but for a bucket's limit."""

    values: Mapping[str, float]
    buckets: Mapping[str, Mapping[float, float]]
    """Cumulative counts by upper limit, by the histogram's name."""


def looks_like_a_page(text: str) -> bool:
    """Whether a text begins as an exposition does."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return first.startswith(("# HELP", "# TYPE")) or bool(_LINE.match(first.strip()))


def parse(text: str, *, model: str | None = None) -> Page:
    """A page in the text format (0.0.4 and OpenMetrics); only series of ``model`` where they name one.

    Raises `AnalysisError` where it has none of the engines' metrics.
    """
    values: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    for line in text.splitlines():
        found = _LINE.match(line.strip())
        if found is None or line.startswith("#"):
            continue
        labels = dict(_LABEL.findall(found[2] or ""))
        if model is not None and labels.get("model_name", model) != model:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        name = found[1]
        if name.endswith("_bucket") and "le" in labels:
            limits = buckets.setdefault(name.removesuffix("_bucket"), {})
            limit = float(labels["le"])
            limits[limit] = limits.get(limit, 0.0) + value
        elif math.isfinite(value):
            values[name] = values.get(name, 0.0) + value
    if not any(name.startswith(("vllm:", "llamacpp:")) for name in (*values, *buckets)):
        raise AnalysisError("no metrics of vLLM's or llama-server's are on the page")
    return Page(values=values, buckets=buckets)


def profile(page: Page, *, earlier: Page | None = None, seconds: float | None = None, now: float) -> dict[str, Any]:
    """The profile of a page: since the engine's start, or since an ``earlier`` page ``seconds`` before.

    ``now`` is the time of the scrape, in seconds since 1970. Raises `AnalysisError` where the engine restarted between
    two pages, or nothing was served.
    """
    counted = _Window(page, earlier)
    started = page.values.get(STARTED[0])
    if earlier is None and seconds is None and started is not None:
        seconds = now - started
    requests = counted.total(REQUESTS)
    prompt, output = counted.histogram("prompt_tokens"), counted.histogram("output_tokens")
    means = {
        "prompt_tokens": _mean(counted.total(PROMPT), requests),
        "output_tokens": _mean(counted.total(OUTPUT), requests),
    }
    if counted.total(PROMPT) is None and counted.total(OUTPUT) is None:
        raise AnalysisError("the page counts no tokens")
    both = [mean for mean in means.values() if mean is not None]
    has_both = len(both) == 2
    return {
        "schema_version": SCHEMA_VERSION,
        "source": "prometheus",
        "basis": "averages since the engine started" if earlier is None else "between two pages",
        "requests": requests,
        "span_s": seconds,
        "requests_per_s": None if requests is None or not seconds else requests / seconds,
        "prompt_tokens_total": counted.total(PROMPT),
        "output_tokens_total": counted.total(OUTPUT),
        "prompt_tokens_per_s": _rate(counted.total(PROMPT), seconds),
        "output_tokens_per_s": _rate(counted.total(OUTPUT), seconds),
        "peak_minute": None,
        "gap_cv": None,
        "gap_cv_unknown": "a page counts requests, it does not say when they came",
        "prompt_tokens": _lengths(means["prompt_tokens"], prompt),
        "output_tokens": _lengths(means["output_tokens"], output),
        "tokens_per_request": sum(both) if has_both else None,
        "correlation": None,
        "correlation_of_logs": None,
        "kinds": [{"share": 1.0, **means}] if has_both else [],
        "latencies": {name: counted.histogram(name) for name in ("ttft_s", "decode_step_s", "e2e_s")},
        **{name: _mean(counted.total((of,)), counted.total((over,))) for name, (of, over) in RATES.items()},
    }


class _Window:
    """What was counted on a page, less what an earlier one had."""

    def __init__(self, page: Page, earlier: Page | None) -> None:
        self._page, self._earlier = page, earlier

    def total(self, names: tuple[str, ...]) -> float | None:
        """The first of some counters that the page has."""
        for name in names:
            if name in self._page.values:
                return self._less(self._page.values[name], 0.0 if not self._earlier else self._earlier.values.get(name))
        return None

    def histogram(self, of: str) -> dict[str, Any] | None:
        """Mean and quantiles of a histogram; ``None`` where the page has none, or nothing in it."""
        name = next((name for name in HISTOGRAMS[of] if name in self._page.buckets), None)
        if name is None:
            return None
        before = {} if self._earlier is None else self._earlier.buckets.get(name, {})
        limits = sorted(self._page.buckets[name])
        counts = [self._less(self._page.buckets[name][limit], before.get(limit, 0.0)) for limit in limits]
        if not counts or not counts[-1] > 0:
            return None
        quantiles = {f"p{100 * q:g}": bucket_quantile(limits, counts, q) for q in (0.5, 0.9, 0.95, 0.99)}
        total, n = self.total((f"{name}_sum",)), self.total((f"{name}_count",))
        return {"mean": _mean(total, n), **quantiles, "basis": BASIS}

    def _less(self, value: float, before: float | None) -> float:
        if value < (before or 0.0):
            raise AnalysisError("a counter is lower on the later page: the engine restarted, or the pages are swapped")
        return value - (before or 0.0)


def bucket_quantile(limits: list[float], counts: list[float], share: float) -> float | None:
    """A quantile out of cumulative counts, linear inside its bucket; the last finite limit where it lies beyond."""
    rank = share * counts[-1]
    at = next(index for index, count in enumerate(counts) if count >= rank)
    if not math.isfinite(limits[at]):
        return limits[at - 1] if at else None
    low, below = (limits[at - 1], counts[at - 1]) if at else (0.0, 0.0)
    inside = counts[at] - below
    return limits[at] if inside <= 0 else low + (limits[at] - low) * (rank - below) / inside


def _mean(total: float | None, n: float | None) -> float | None:
    return None if total is None or not n else total / n


def _rate(total: float | None, seconds: float | None) -> float | None:
    return None if total is None or not seconds else total / seconds


def _lengths(mean: float | None, histogram: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if mean is None else (histogram or {}) | {"mean": mean}
