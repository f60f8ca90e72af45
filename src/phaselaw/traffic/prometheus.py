"""An engine's Prometheus page as a traffic profile: vLLM's and llama-server's metric names.

One page gives averages since the engine started, two give the time between them. Lengths and latencies come from
histogram buckets: their quantiles are interpolated between bucket limits, as Prometheus itself does, and are as coarse
as those. A page has no bursts and no correlation: those stay unknown.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phaselaw.errors import AnalysisError, MissingExtraError, reading
from phaselaw.traffic.profile import SCHEMA_VERSION

BASIS = "interpolated between histogram buckets"

REQUESTS = ("vllm:request_success_total", "vllm:request_success", "vllm:e2e_request_latency_seconds_count")
PROMPT = ("vllm:prompt_tokens_total", "vllm:prompt_tokens", "llamacpp:prompt_tokens_total")
OUTPUT = ("vllm:generation_tokens_total", "vllm:generation_tokens", "llamacpp:tokens_predicted_total")
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

_STARTED = ("process_start_time_seconds", None)
_SAMPLE = re.compile(r"[A-Za-z_:][\w:]*(\{.*\})?\s+\S+(\s+-?\d+)?")

Page = Mapping[tuple[str, float | None], float]
"""What a page counts, summed over label sets, by a series' name and, of a histogram's cumulative bucket, its limit."""


def looks_like_a_page(text: str) -> bool:
    """Whether a text begins as a Prometheus page does."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return first.startswith(("# HELP", "# TYPE")) or bool(_SAMPLE.fullmatch(first.strip()))


def parse(text: str, *, model: str | None = None) -> Page:
    """A page in the text format; only series of ``model`` where they name one.

    Raises `MissingExtraError` without the package ``prometheus_client``, and `AnalysisError` for a page that can't be
    read or has none of the engines' metrics.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise MissingExtraError("traffic", "reading a Prometheus page") from None
    page: defaultdict[tuple[str, float | None], float] = defaultdict(float)
    with reading("the Prometheus page: a line of it", AnalysisError):
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        for sample in samples:
            if model in (None, sample.labels.get("model_name", model)) and math.isfinite(sample.value):
                limit = sample.labels.get("le") if sample.name.endswith("_bucket") else None
                page[sample.name, None if limit is None else float(limit)] += sample.value
    if not any(name.startswith(("vllm:", "llamacpp:")) for name, _ in page):
        raise AnalysisError("no metrics of vLLM's or llama-server's are on the page")
    return page


def scrape_profile(
    page: Page, *, earlier: Page | None = None, seconds: float | None = None, now: float
) -> dict[str, Any]:
    """The profile of a page: since the engine's start, or since an ``earlier`` page ``seconds`` before.

    ``now`` is the time of the scrape, in seconds since 1970. Raises `AnalysisError` where the engine restarted between
    two pages, or the page counts no tokens.
    """
    started = page.get(_STARTED)
    if earlier is None and seconds is None and started is not None:
        seconds = now - started
    if started not in (None, (earlier or page).get(_STARTED, started)):
        raise AnalysisError("the engine started anew between the two pages, or they are of two engines")
    counted = page if earlier is None else {key: value - earlier.get(key, 0.0) for key, value in page.items()}
    requests, prompt, output = (_total(counted, *names) for names in (REQUESTS, PROMPT, OUTPUT))
    if prompt is None and output is None:
        raise AnalysisError("the page counts no tokens")
    tokens = {"prompt_tokens": prompt, "output_tokens": output}
    means = {name: _ratio(total, requests) for name, total in tokens.items()}
    both = [mean for mean in means.values() if mean is not None]
    return {
        "schema_version": SCHEMA_VERSION,
        "source": "prometheus",
        "basis": "averages since the engine started" if earlier is None else "between two pages",
        "requests": requests,
        "span_s": seconds,
        "requests_per_s": _ratio(requests, seconds),
        **{f"{name}_total": total for name, total in tokens.items()},
        **{f"{name}_per_s": _ratio(total, seconds) for name, total in tokens.items()},
        **dict.fromkeys(("peak_minute", "gap_cv")),
        "gap_cv_unknown": "a page counts requests, it does not say when they came",
        **{
            name: None if mean is None else (_histogram(counted, name) or {}) | {"mean": mean}
            for name, mean in means.items()
        },
        "tokens_per_request": sum(both) if len(both) == 2 else None,
        **dict.fromkeys(("correlation", "correlation_of_logs")),
        "kinds": [{"share": 1.0, **means}] if len(both) == 2 else [],
        "latencies": {name: _histogram(counted, name) for name in ("ttft_s", "decode_step_s", "e2e_s")},
        **{name: _ratio(_total(counted, of), _total(counted, over)) for name, (of, over) in RATES.items()},
    }


def _total(page: Page, *names: str) -> float | None:
    """The first of some counters that the page has. Raises `AnalysisError` for one that went down."""
    return next((_grown(page[name, None]) for name in names if (name, None) in page), None)


def _histogram(page: Page, of: str) -> dict[str, Any] | None:
    """Mean and quantiles of a histogram; ``None`` where the page has none, or nothing in it."""
    for name in HISTOGRAMS[of]:
        series = {limit: n for (key, limit), n in page.items() if key == f"{name}_bucket" and limit is not None}
        total = _total(page, f"{name}_count")  # what a page without its last bucket, +Inf, has in all
        buckets = sorted((limit, _grown(n)) for limit, n in ({math.inf: total or 0.0} | series).items())
        if buckets[-1][1] > 0:
            limits, counts = zip(*buckets, strict=True)
            quantiles = {f"p{100 * q:g}": bucket_quantile(limits, counts, q) for q in (0.5, 0.9, 0.95, 0.99)}
            mean = _ratio(_total(page, f"{name}_sum"), total)
            return {"mean": mean, **quantiles, "basis": BASIS}
    return None


def bucket_quantile(limits: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """A quantile out of cumulative counts, linear inside its bucket; the last finite limit where it lies beyond."""
    rank = share * counts[-1]
    at = int(np.searchsorted(counts, rank))
    if not math.isfinite(limits[at]):
        return limits[at - 1] if at else None
    low, below = (limits[at - 1], counts[at - 1]) if at else (0.0, 0.0)
    inside = counts[at] - below
    return limits[at] if inside <= 0 else low + (limits[at] - low) * (rank - below) / inside


def _grown(value: float) -> float:
    if value < 0:
        raise AnalysisError("a counter is lower on the later page: the engine restarted, or the pages are swapped")
    return value


def _ratio(total: float | None, over: float | None) -> float | None:
    return None if total is None or not over else total / over
