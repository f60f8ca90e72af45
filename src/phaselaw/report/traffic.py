"""A traffic profile in words and tables: rate and bursts, lengths, latencies, agreement with measured step times."""

from collections.abc import Mapping
from typing import Any

from phaselaw import tables
from phaselaw.records import duration
from phaselaw.report.document import Block, Section, display
from phaselaw.tables import Row, bracket, count, counted, derived, digits, fixed, measured, texts, words

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_LATENCIES = tables.Table(
    caption="Latencies in seconds, quantiles interpolated between histogram buckets.",
    columns=(words("of", "of"), *(derived(name, name) for name in ("mean", "p50", "p90", "p95", "p99"))),
)
_TIMINGS = (
    *texts(start="start", prompt_tokens="prompt", output_tokens="output", batch_size="batch"),
    counted("requests", "requests"),
    measured("ttft_s_p50", "TTFT p50 (s)"),
    measured("ttft_s_p95", "TTFT p95 (s)"),
    derived("decode_tokens_per_s_p50", "decode tok/s p50"),
    derived("decode_tokens_per_s_p5", "slowest 5 %"),
    measured("e2e_s_p50", "end to end p50 (s)"),
)


def section(profile: Mapping[str, Any]) -> Section:
    """A profile as a section."""
    lengths = {"prompt tokens": profile["prompt_tokens"], "output tokens": profile["output_tokens"]}
    blocks: list[Block] = [*(f"In doubt: {doubt}." for doubt in profile.get("doubts", ())), *_facts(profile)]
    if rows := _rows(lengths):
        blocks.append(display(_lengths(rows[0]), rows))
    if latencies := _rows(profile.get("latencies") or {}):
        blocks.append(display(_LATENCIES, latencies))
    if timings := profile.get("timings"):
        columns = tuple(each for each in _TIMINGS if timings["batch_size_known"] or each.key != "batch_size")
        caption = f"Latencies by kind of request. Cold: {timings['cold_rule']}."
        blocks.append(display(tables.Table(caption=caption, columns=columns), timings["buckets"]))
        if timings["against"]:
            blocks.append(_against(timings["against"]))
    return Section(title="", blocks=tuple(blocks))


def _rows(by_name: Mapping[str, Row | None]) -> list[Row]:
    return [{"of": name} | row for name, row in by_name.items() if row]


def _lengths(row: Row) -> tables.Table:
    """Lengths of a log are counted; those of a page are interpolated."""
    of_page = bool(row.get("basis"))
    quantiles = [key for key in row if key.startswith("p") and key[1:].replace(".", "").isdigit()]
    columns = [words("of", "of"), derived("mean", "mean", lambda value: fixed(value, 1))]
    columns += [derived(key, key) if of_page else measured(key, key, count) for key in quantiles]
    columns += [measured("max", "max", count)] if "max" in row else []
    return tables.Table(caption="Lengths, of a request.", columns=tuple(columns))


def _facts(profile: Mapping[str, Any]) -> list[str]:
    requests, span, peak = profile["requests"], profile["span_s"], profile["peak_minute"]
    over = f" over {duration(span)}" if span else ""
    since = f" from {profile['starts_at']}" if profile.get("starts_at") else ""
    facts = [f"{'Requests not counted' if requests is None else f'{requests:,.0f} requests'}{over}{since}."]
    if profile["requests_per_s"] is not None:
        busiest = "no minute's peak is known"
        if peak:
            bin_of = duration(peak["lasts_s"]) if "lasts_s" in peak else "minute"
            busiest = f"the busiest {bin_of} {digits(peak['requests_per_s'])} ({peak['over_mean']:.2f} x)"
        month = f"; a plan takes these {duration(span)} as a month" if span else ""
        facts.append(f"{digits(profile['requests_per_s'])} requests/s on average; {busiest}{month}.")
    if profile["gap_cv"] is not None:
        inside = profile.get("gap_cv_within_10_min")
        apart = f"; inside ten minutes, apart from day and night, {inside:.2f}" if inside is not None else ""
        facts.append(
            f"The gaps between requests have a CV of {profile['gap_cv']:.2f}{apart}: 1 is random, more is bursts."
        )
    elif profile.get("gap_cv_unknown"):
        facts.append(f"The gaps' CV is not known: {profile['gap_cv_unknown']}.")
    if profile["tokens_per_request"] is not None:
        linked = profile["correlation"]
        between = f"; prompt and output lengths correlate by {linked:.2f}" if linked is not None else ""
        facts.append(f"{profile['tokens_per_request']:,.1f} tokens a request, prompt and output{between}.")
    if rows := (profile.get("rows") or {}).get("apart"):
        each = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in rows.items() if name != "status_not_known")
        facts += [f"Counted apart, in no figure: {each}."] if each else []
    if (cached := profile.get("cached_prompt_share")) is not None:
        facts.append(f"{cached:.1%} of prompt tokens came from the prompt cache.")
    facts += _over_time(profile)
    if profile.get("timestamps"):
        facts.append(f"Timestamps: {profile['timestamps']}.")
    if profile.get("basis"):
        facts.append(f"From a Prometheus page: {profile['basis']}.")
        facts += [_counted(profile, of) for of in ("prompt", "output") if profile[f"{of}_tokens_total"] is not None]
    return facts


def _over_time(profile: Mapping[str, Any]) -> list[str]:
    """The busiest and the quietest hour of a day and day of a week, of a log that is as long."""
    facts = []
    for key, name, fewest in (("by_hour_of_day", "hour", 24), ("by_day_of_week", "day", 7)):
        rows = profile.get(key) or []
        if len(rows) == fewest and profile["span_s"] >= 86_400:
            low, high = (of(rows, key=lambda row: row["requests_per_s"]) for of in (min, max))
            named = [_DAYS[row["day"]] if name == "day" else f"{row['hour']}:00" for row in (high, low)]
            rates = [digits(row["requests_per_s"]) for row in (high, low)]
            clock = f" ({profile['hours_count_from']})" if name == "hour" else ""
            facts.append(
                f"By {name}{clock}: {rates[0]} requests/s at most ({named[0]}), {rates[1]} at least ({named[1]})."
            )
    return facts


def _counted(profile: Mapping[str, Any], of: str) -> str:
    """What a page counts of one kind of tokens, and how fast, as far as it says."""
    rate, busy = profile[f"{of}_tokens_per_s"], profile[f"{'prompt' if of == 'prompt' else 'decode'}_tokens_per_s_busy"]
    on_average = "" if rate is None else f", {digits(rate)} a second"
    while_at_it = "" if busy is None else f", {digits(busy)} a second while at it"
    return f"{profile[f'{of}_tokens_total']:,.0f} {of} tokens{on_average}{while_at_it}."


def _against(against: Mapping[str, Any]) -> tuple[str, ...]:
    compared = [
        f"{name}: logged / predicted by {against['law']} is {digits(row['ratio'])} "
        f"{bracket(row['ratio_low'], row['ratio_high'], digits)} over {row['requests']:,} requests: {row['verdict']}."
        if row["requests"]
        else f"{name}: not compared, since no logged time lies in the measured range."
        for name, row in (("time to first token", against["ttft"]), ("decode step", against["decode_step"]))
    ]
    outside = (
        f"{against['outside_the_measured_range']:,} of {against['times_compared']:,} times lie outside the measured "
        "range and are not compared. A logged time to first token holds the queue's wait, a predicted one does not."
    )
    return *compared, outside
