"""What a load needs and costs: the plan's tables, in TR121's order (8.3 to 8.5), for the terminal and both reports.

A plan is the JSON document of ``phaselaw plan``: tables of rows, and the assumptions that they stand on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from phaselaw.report.columns import bracket, count, digits, fixed, percent, word
from phaselaw.report.document import Block, Paragraph, Section, Table
from phaselaw.tables import Col, Provenance, Row

Plan = Mapping[str, Any]


def capacity(plan: Plan) -> Section:
    """Workers and dollars of the load (TR121 8.3)."""
    rows = plan["rows"]
    columns = (
        *_names(rows),
        figure("tokens/s", "tokens_per_s", "measured" if _as_measured(rows) else "derived"),
        *(() if _as_measured(rows) else (word("that rate is", "rate_status"),)),
        figure("workers (lower bound)", "workers", text=fixed_2),
        figure("whole workers", "whole_workers", text=count),
        figure("$ per 1M tokens", "usd_per_1m", text=fixed),
        figure("$ a month, used", "usd_per_month", text=dollars),
        figure("$ a month, fleet", "usd_per_month_whole", text=dollars),
    )
    blocks: tuple[Block, ...] = (
        Paragraph(load_words(plan)),
        _table("What the load needs, by model.", columns=columns, rows=rows),
        Paragraph(
            "Workers as a fraction are a lower bound: busy all the time, no bursts, no queue, no spares. "
            + headroom_words(plan)
        ),
    )
    return Section(title="Capacity and price", blocks=blocks)


def deltas(plan: Plan) -> Section | None:
    """What each model costs more than a baseline (TR121 8.3.1): the cheapest of its backend where none is named."""
    rows = [row for row in plan["decision_deltas"] if _against_baseline(row, plan)]
    if not rows:
        return None
    columns = (
        *_names(rows),
        word("in place of", "than_model"),
        *((word("on", "than_backend"),) if any(row["backend"] != row["than_backend"] for row in rows) else ()),
        figure("$ a month more", "delta_usd_per_month", text=dollars),
        figure("workers more", "delta_workers", text=fixed_2),
        figure("price ratio", "price_ratio", text=fixed_2),
    )
    table = _table("What the dearer model costs more.", columns=columns, rows=rows)
    return Section(title="What choosing another model costs", blocks=(table,))


def _against_baseline(row: Row, plan: Plan) -> bool:
    baseline = plan["assumptions"].get("baseline")
    if baseline is not None:
        return baseline in (row["than_model"], row["model"])
    if row["backend"] != row["than_backend"]:
        return False
    same = ("backend", "batch_size", "gen_tokens")
    mates = [each for each in plan["rows"] if all(each[name] == row[name] for name in same)]
    cheapest = min(mates, key=lambda each: each["usd_per_1m"])
    return bool(row["than_model"] == cheapest["model"])


def mixes(plan: Plan) -> Section:
    """A thousand requests of each kind, token-linear, and by phases where that was measured (TR121 8.3.2, 8.3.3)."""
    kinds = list(dict.fromkeys(row["mix"] for row in plan["request_mixes"]))
    many = len(plan["assumptions"]["mixes"])
    whole = f" (the average of {many} kinds)" if many > len(kinds) else ""
    rows = pivot(plan["request_mixes"], "mix", "usd_per_1k_requests")
    columns = (*_names(rows), *(figure(kind, f"usd_per_1k_requests@{kind}", text=fixed) for kind in kinds))
    blocks: list[Block] = [
        Paragraph("Kinds of request (assumed): " + "; ".join(_kind_words(plan, kind) for kind in kinds) + whole + "."),
        _table(
            "$ per 1,000 requests, token-linear: every token at the run's price, whatever the prompt's length.",
            columns=columns,
            rows=rows,
        ),
        *_phase_split(plan),
    ]
    return Section(title="Requests", blocks=tuple(blocks))


def _kind_words(plan: Plan, kind: str) -> str:
    row = next(row for row in plan["request_mixes"] if row["mix"] == kind)
    return f"{kind} {row['prompt_tokens']:,.4g} in + {row['output_tokens']:,.4g} out"


def _phase_split(plan: Plan) -> list[Block]:
    rows = [row for row in plan["phase_split"] if row["status"] != "not measured"]
    reasons: dict[str, list[str]] = {}
    for row in plan["token_prices"]:
        if row["status"] == "not measured":
            reasons.setdefault(row["why"], []).append(f"{row['model']} ({row['backend']})")
    blocks: list[Block] = []
    if rows:
        columns = (
            *_names(rows),
            word("kind", "mix"),
            figure("prefill (s)", "prefill_s"),
            figure("decode (s)", "decode_s"),
            figure("$ per 1,000 requests", "usd_per_1k_requests", text=fixed),
            word("status", "status"),
        )
        blocks.append(_table("By phases: the seconds that such a request takes.", columns=columns, rows=rows))
    priced = [row for row in plan["token_prices"] if row["status"] != "not measured"]
    if priced:
        columns = (
            *_names(priced),
            figure("$ per 1M input tokens", "usd_per_1m_input", text=fixed),
            figure("$ per 1M output tokens", "usd_per_1m_output", text=fixed),
            figure("worker seconds a request", "worker_s_per_request"),
            word("status", "status"),
        )
        caption = "Input and output tokens apart, over these kinds in their shares."
        blocks.append(_table(caption, columns=columns, rows=priced))
    blocks += [Paragraph(f"By phases, not measured for {', '.join(models)}: {why}.") for why, models in reasons.items()]
    return blocks


def requests(plan: Plan) -> Section:
    """The load as requests: what a worker serves, and what one request costs."""
    rows = plan["requests"]
    columns = (
        *_names(rows),
        figure("requests/s a worker", "requests_per_s_per_worker"),
        figure("workers (lower bound)", "workers", text=fixed_2),
        figure("whole workers", "whole_workers", text=count),
        figure("$ a request, used", "usd_per_request"),
        figure("$ a request, fleet", "usd_per_request_whole"),
        figure("$ a month, fleet", "usd_per_month_whole", text=dollars),
    )
    table = _table("The load in requests.", columns=columns, rows=rows)
    return Section(title="Request economics", blocks=(Paragraph(load_words(plan)), table))


def sensitivity(plan: Plan) -> Section:
    """Prices by hourly rate, workers by volume (TR121 8.5)."""
    rows = plan["sensitivity"]
    tiers = {row["tier"]: row["usd_per_hour"] for row in rows}
    volumes = list(dict.fromkeys(row["tokens_per_month"] for row in rows))
    by_tier = pivot(rows, "tier", "usd_per_1m")
    by_volume = pivot(rows, "tokens_per_month", "workers")
    months = pivot(_at_first_volume(rows), "tier", "usd_per_month")
    said = ", ".join(f"{name} ${usd:g}" for name, usd in tiers.items())
    first = f"{volumes[0]:,.0f}"
    blocks = (
        Paragraph(f"Hourly rates (assumed): {said}. Dollars a month are the volume times the price of a token."),
        _table(
            "$ per 1M tokens by hourly rate.",
            columns=(*_names(by_tier), *(figure(name, f"usd_per_1m@{name}", text=fixed) for name in tiers)),
            rows=by_tier,
        ),
        _table(
            "Workers (lower bound) by tokens a month.",
            columns=(
                *_names(by_volume),
                *(figure(f"{volume:,.0f}", f"workers@{volume}", text=fixed_2) for volume in volumes),
            ),
            rows=by_volume,
        ),
        _table(
            f"$ a month for {first} tokens, by hourly rate; other volumes in proportion.",
            columns=(*_names(months), *(figure(name, f"usd_per_month@{name}", text=dollars) for name in tiers)),
            rows=months,
        ),
    )
    return Section(title="Sensitivity to volume and hourly rate", blocks=blocks)


def _at_first_volume(rows: Iterable[Row]) -> list[Row]:
    rows = list(rows)
    return [row for row in rows if row["tokens_per_month"] == rows[0]["tokens_per_month"]]


def quality(plan: Plan) -> Section | None:
    """Cost per success, and what a dearer model must do better (TR121 8.3.4); ``None`` without success rates."""
    rows = plan.get("cost_per_success")
    if not rows:
        return None
    blocks: list[Block] = [
        Paragraph(
            "Success rates are an input (assumed): the share of your requests that pass your own acceptance. "
            + _request_words(plan)
        ),
        _table(
            "What a success costs.",
            columns=(
                *_names(rows),
                figure("success rate", "success_rate", "assumed", text=percent),
                figure("$ a request", "usd_per_request"),
                figure("$ a success", "usd_per_success"),
            ),
            rows=rows,
        ),
    ]
    pairs = plan["break_even"]
    if pairs:
        blocks.append(
            _table(
                "What the dearer model must reach to pay.",
                columns=(
                    *_names(pairs),
                    word("in place of", "than_model"),
                    figure("cost ratio", "cost_ratio", text=fixed_2),
                    figure("success rate needed", "needed_success_rate", text=fixed),
                    word("on success alone", "on_success"),
                    figure("pays from $ a failure", "needed_failure_usd"),
                    word("on failure cost", "on_failure_cost"),
                ),
                rows=pairs,
            )
        )
    return Section(title="Quality that pays", blocks=tuple(blocks))


def tiering(plan: Plan) -> Section | None:
    """Two models in one service: routed tiers and the cascade (TR121 9.3); ``None`` where no backend has two."""
    rows = plan["tiering"]
    if not rows:
        return None
    default, model, *varied = _names(rows)
    names = (default, dataclasses.replace(model, title="default"), word("premium", "premium_model"), *varied)
    routed = _table(
        f"Routed: {rows[0]['premium_share']:.1%} of the requests (assumed) to the premium model.",
        columns=(
            *names,
            figure("$ per 1,000 requests", "usd_per_1k_requests", text=fixed),
            figure("workers (lower bound)", "workers", text=fixed_2),
            figure("whole, default", "whole_workers_default", text=count),
            figure("whole, premium", "whole_workers_premium", text=count),
            figure("$ a month, used", "usd_per_month", text=dollars),
            figure("saved a month", "saved_usd_per_month", text=dollars),
            figure("whole fleets pay up to a share of", "stops_paying_share", text=percent),
        ),
        rows=rows,
    )
    cascade = _table(
        "Cascade: every request to the default model first, its failures to the premium one as well.",
        columns=(
            *names,
            figure("pays while escalated below", "stops_paying_escalated_share", text=percent),
            figure("escalated", "escalated_share", "assumed", text=percent),
            figure("$ per 1,000 requests", "usd_per_1k_requests", text=fixed),
            figure("workers (lower bound)", "workers", text=fixed_2),
            figure("mean latency (s)", "mean_latency_s"),
            figure("escalated latency (s)", "escalated_latency_s"),
            word("verdict", "pays"),
        ),
        rows=plan["cascade"],
    )
    note = Paragraph(
        "Saved: against the premium model for all requests. Latencies are of the run's own requests. Which requests "
        "go where is the router's art; how often the default model fails is an input (--success-rates). "
        + _request_words(plan)
    )
    return Section(title="Tiers", blocks=(routed, cascade, note))


def _request_words(plan: Plan) -> str:
    return f"A request is of {plan['assumptions']['tokens_per_request']:,.0f} tokens, the average of --mixes (assumed)."


SECTIONS: Mapping[str, Callable[[Plan], Section | None]] = {
    "capacity": capacity,
    "requests": requests,
    "compare": deltas,
    "mixes": mixes,
    "sensitivity": sensitivity,
    "quality": quality,
    "tiers": tiering,
}
"""Each part of a plan by the name that ``phaselaw plan --show`` knows it by."""


def sections(plan: Plan, chosen: Iterable[str] = tuple(SECTIONS)) -> list[Section]:
    """The chosen parts of a plan, those that have something to say."""
    built = [SECTIONS[name](plan) for name in SECTIONS if name in set(chosen)]
    return [section for section in built if section is not None]


def of_report(plan: Plan) -> list[Section]:
    """What a report says of money: the parts of a plan that stand on no input of the user's beyond the defaults."""
    if not plan["rows"]:
        return [Section(title="Capacity and price", blocks=(Paragraph("Not computed: no end-to-end rates."),))]
    return sections(plan, ("capacity", "compare", "mixes", "sensitivity", "tiers"))


def load_words(plan: Plan) -> str:
    """The load and its price in a sentence, each input named as assumed."""
    given = plan["assumptions"]
    load = f"{given['tokens_per_month']:,.0f} tokens a month"
    if given.get("requests_per_s") is not None:
        load = (
            f"{given['requests_per_s']:,.4g} requests/s of {given['tokens_per_request']:,.1f} tokens on average, {load}"
        )
    prices = sorted({row["usd_per_hour"] for row in plan["rows"]})
    price = " and ".join(f"${value:g}" for value in prices)
    bases = " and ".join(dict.fromkeys(str(row["interval_basis"]) for row in plan["rows"]))
    return f"For {load} at {price} a worker's hour (assumed). In brackets: 95 % intervals ({bases or 'none'})."


def headroom_words(plan: Plan) -> str:
    """What whole workers keep free, in a sentence."""
    given = plan["assumptions"]
    if (given["utilisation"], given["burst"], given["spares"]) == (1, 1, 0):
        return "Whole workers are that, rounded up, with no headroom: set --utilisation, --burst and --spares."
    return (
        f"Whole workers: busy at most {given['utilisation']:.0%} of the time, at {given['burst']:.3g} x the mean load, "
        f"{given['spares']} spare (assumed)."
    )


def _as_measured(rows: Iterable[Row]) -> bool:
    """Whether rates are the run's own, not worked out for a mixture of requests."""
    return all(row["rate_status"] == "measured" for row in rows)


def pivot(rows: Iterable[Row], by: str, key: str) -> list[Row]:
    """Rows of one worker side by side: its figure ``key`` at each value of ``by``, as ``KEY@VALUE``."""
    merged: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        names = {name: row[name] for name in ("backend", "model", "batch_size", "gen_tokens", "suspect")}
        line = merged.setdefault(tuple(names.values()), names)
        for end in ("", "_low", "_high"):
            line[f"{key}@{row[by]}{end}"] = row[f"{key}{end}"]
    return list(merged.values())


def _names(rows: Iterable[Row]) -> tuple[Col, ...]:
    """Backend and model; the batch and the decode budget where they differ."""
    rows = list(rows)
    varied = [
        word(title, key)
        for title, key in (("batch", "batch_size"), ("tokens asked", "gen_tokens"))
        if len({row.get(key) for row in rows}) > 1
    ]
    return (word("backend", "backend"), word("model", "model"), *varied)


def _table(caption: str, *, columns: tuple[Col, ...], rows: Iterable[Row]) -> Table:
    """A table, with what speaks against its rows where anything does."""
    rows = tuple(rows)
    doubted = (word("suspect", "suspect"),) if any(row["suspect"] for row in rows) else ()
    return Table(caption=caption, columns=(*columns, *doubted), rows=rows)


def figure(title: str, key: str, provenance: Provenance = "derived", *, text: Callable[[Any], str] = digits) -> Col:
    """A figure with its interval behind it."""

    def show(row: Row) -> str:
        low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
        alone = text(row.get(key))
        return alone if low is None or high is None or low == high else f"{alone} {bracket(low, high, text)}"

    return Col(title=title, key=key, provenance=provenance, of_row=show)


def fixed_2(value: Any) -> str:
    """Two decimal places."""
    return fixed(value, 2)


def dollars(value: Any) -> str:
    """Whole dollars; cents where it is little."""
    return fixed(value, 0 if value is not None and abs(value) >= 100 else 2)
