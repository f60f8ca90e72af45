"""A traffic profile in words and tables: rate and bursts, lengths, latencies, agreement with the measured law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaselaw.report.columns import bracket, count, digits, fixed, number, word
from phaselaw.report.document import Block, Bullets, Paragraph, Section, Table
from phaselaw.tables import Col, Provenance, Row

Profile = Mapping[str, Any]


def section(profile: Profile) -> Section:
    """Everything that a profile says."""
    blocks: list[Block] = [Paragraph(line) for line in _facts(profile)]
    lengths = [
        {"of": name} | profile[key]
        for name, key in (("prompt tokens", "prompt_tokens"), ("output tokens", "output_tokens"))
        if profile[key] is not None
    ]
    if lengths:
        blocks.append(Table(caption="Lengths, of a request.", columns=_length_columns(lengths), rows=tuple(lengths)))
    blocks += _latencies(profile)
    return Section(title="Traffic", blocks=tuple(blocks))


def _facts(profile: Profile) -> list[str]:
    said = []
    requests, span = profile["requests"], profile["span_s"]
    over = f" over {_duration(span)}" if span else ""
    since = f" from {profile['starts_at']}" if profile.get("starts_at") else ""
    said.append(f"{'Requests not counted' if requests is None else f'{requests:,.0f} requests'}{over}{since}.")
    if profile["requests_per_s"] is not None:
        peak = profile["peak_minute"]
        busiest = (
            f"the busiest minute {digits(peak['requests_per_s'])} ({peak['over_mean']:.2f} x)"
            if peak
            else "no minute's peak is known"
        )
        said.append(f"{digits(profile['requests_per_s'])} requests/s on average (all over the whole span); {busiest}.")
    if profile["gap_cv"] is not None:
        said.append(f"The gaps between requests have a CV of {profile['gap_cv']:.2f}: 1 is random, more is bursts.")
    elif profile.get("gap_cv_unknown"):
        said.append(f"The gaps' CV is not known: {profile['gap_cv_unknown']}.")
    if profile["tokens_per_request"] is not None:
        linked = profile["correlation"]
        between = f"; prompt and output lengths correlate by {linked:.2f}" if linked is not None else ""
        said.append(f"{profile['tokens_per_request']:,.1f} tokens a request, prompt and output{between}.")
    if profile.get("timestamps"):
        said.append(f"Timestamps: {profile['timestamps']}.")
    if profile.get("basis"):
        said.append(f"From a Prometheus page: {profile['basis']}.")
        said += [_counted(profile, of) for of in ("prompt", "output") if profile[f"{of}_tokens_total"] is not None]
    return said


def _counted(profile: Profile, of: str) -> str:
    """What a page counts of one kind of tokens, and how fast, as far as it tells."""
    said = f"{profile[f'{of}_tokens_total']:,.0f} {of} tokens"
    if profile[f"{of}_tokens_per_s"] is not None:
        said += f", {digits(profile[f'{of}_tokens_per_s'])} a second"
    busy = profile["prompt_tokens_per_s_busy" if of == "prompt" else "decode_tokens_per_s_busy"]
    return said + (f", {digits(busy)} a second while at it." if busy is not None else ".")


def _length_columns(rows: list[Row]) -> tuple[Col, ...]:
    quantiles = [key for key in rows[0] if key.startswith("p") and key[1:].replace(".", "").isdigit()]
    derived: Provenance = "derived" if rows[0].get("basis") else "measured"
    return (
        word("of", "of"),
        number("mean", "mean", "derived", lambda value: fixed(value, 1)),
        *(number(key, key, derived, count if derived == "measured" else digits) for key in quantiles),
        *((number("max", "max", "measured", count),) if "max" in rows[0] else ()),
    )


def _latencies(profile: Profile) -> list[Block]:
    blocks: list[Block] = []
    told = [{"of": name} | row for name, row in (profile.get("latencies") or {}).items() if row]
    if told:
        blocks.append(
            Table(
                caption="Latencies in seconds, quantiles interpolated between histogram buckets.",
                columns=(word("of", "of"), *(number(k, k, "derived") for k in ("mean", "p50", "p90", "p95", "p99"))),
                rows=tuple(told),
            )
        )
    timings = profile.get("timings")
    if timings:
        blocks.append(
            Table(
                caption=f"Latencies by kind of request. Cold: {timings['cold_rule']}.",
                columns=(
                    word("start", "start"),
                    word("prompt", "prompt_tokens"),
                    word("output", "output_tokens"),
                    *((word("batch", "batch_size"),) if timings["batch_size_known"] else ()),
                    number("requests", "requests", "measured", count),
                    number("TTFT p50 (s)", "ttft_s_p50", "measured"),
                    number("TTFT p95 (s)", "ttft_s_p95", "measured"),
                    number("decode tok/s p50", "decode_tokens_per_s_p50", "derived"),
                    number("slowest 5 %", "decode_tokens_per_s_p5", "derived"),
                    number("end to end p50 (s)", "e2e_s_p50", "measured"),
                ),
                rows=tuple(timings["buckets"]),
            )
        )
        if timings["against"]:
            blocks.append(_against(timings["against"]))
    return blocks


def _against(against: Mapping[str, Any]) -> Bullets:
    lines = [
        f"{name}: logged / predicted by {against['law']} is {digits(row['ratio'])} "
        f"{bracket(row['ratio_low'], row['ratio_high'], digits)} over {row['requests']:,} requests: {row['verdict']}."
        for name, row in (("time to first token", against["ttft"]), ("decode step", against["decode_step"]))
    ]
    lines.append(
        f"{against['outside_the_measured_range']:,} of {against['times_compared']:,} times lie outside the measured "
        "range and are not compared. A logged time to first token holds the queue's wait, a predicted one does not."
    )
    return Bullets(tuple(lines))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
