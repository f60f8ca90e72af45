"""The plan's tables, the JSON of ``phaselaw plan``: what each column is, what a table has, and how a row is made.

A quantity with intervals is a `figure`: in a row ``workers``, then ``workers_low`` and ``workers_high`` (one more run),
``workers_mean_low`` and ``_high`` (the long-run mean), ``workers_within_low`` and ``_high`` (this run only).
"""

import dataclasses
from typing import Any

from phaselaw import tables as col
from phaselaw.plan.capacity import estimate
from phaselaw.plan.coverage import worst
from phaselaw.plan.replicas import Replica
from phaselaw.tables import Col, Provenance, Row, Show, Table, count, digits, figure, fixed, flag, percent, texts, words
from phaselaw.tables import two_places as hundredths


def dollars(value: Any) -> str:
    """Whole dollars; cents where it is little."""
    return fixed(value, 0 if value is not None and abs(value) >= 100 else 2)


def count_roughly(value: Any) -> str:
    """A large number to three digits."""
    return fixed(None if value is None else float(f"{value:.3g}"), 0)


def _figures(show: Show, provenance: Provenance = "derived", **titles: str) -> tuple[Col, ...]:
    """Columns of figures that read alike, by key."""
    return tuple(figure(key, title, show, provenance) for key, title in titles.items())


_NAMES = (
    *texts(backend="backend", model="model", batch_size="batch", gen_tokens="output tokens", suspect=""),
    flag("incomplete"),
    *texts(rate_status="price is", status="", why="", params_millions="", clients=""),
)
"""Who a row is about, the checks that speak against its rates, whether it lacks a scenario that others have, and what
its prices and counts stand on (`phaselaw.plan.coverage`); ``status`` is the older name of ``rate_status``."""
_PER_REQUEST = (
    *("usd_per_request", "usd_per_request_whole", "usd_per_1k_requests", "requests_per_s_per_worker"),
    *("usd_per_success", "usd_per_success_at_least", "needed_failure_usd", "carried_requests_per_s"),
)
"""Figures of one request; the others are of the load, or of the run's own calls."""
_COLUMNS = (
    *_NAMES,
    *texts(than_model="in place of", than_backend="on", premium_model="premium", mix="kind", pays="verdict"),
    *texts(on_success="on success alone", on_failure_cost="on failure cost", fits="fits"),
    *_figures(digits, "measured", tokens_per_s="tokens/s"),
    *_figures(digits, prefill_s="prefill (s)", decode_s="decode (s)", worker_s_per_request="worker seconds a request"),
    *_figures(digits, mean_latency_s="mean latency (s)", escalated_latency_s="escalated latency (s)"),
    *_figures(digits, usd_per_request="$ a request (lower bound)", usd_per_request_whole="$ a request, fleet"),
    *_figures(digits, requests_per_s_per_worker="requests/s a worker", usd_per_success="$ a success"),
    *_figures(digits, needed_failure_usd="pays from $ a failure", usd_per_success_at_least=""),
    *_figures(count_roughly, carried_tokens_per_month="tokens a month"),
    *_figures(digits, carried_requests_per_s="requests/s", requests_per_s="requests/s"),
    *_figures(hundredths, workers="workers (lower bound)", delta_workers="workers more"),
    *_figures(hundredths, price_ratio="price ratio", cost_ratio="cost ratio"),
    *_figures(count, whole_workers="whole workers", least_workers="at least", pays_from_workers="in workers"),
    *_figures(count, whole_workers_default="whole, default", whole_workers_premium="whole, premium"),
    *_figures(col.unit_price, usd_per_1m="$ per 1M tokens", usd_per_1m_whole="$ per 1M, whole fleet"),
    *_figures(col.unit_price, usd_per_1k_requests="$ per 1,000 requests"),
    *_figures(col.unit_price, usd_per_1m_input="$ per 1M input tokens", usd_per_1m_output="$ per 1M output tokens"),
    *_figures(fixed, needed_success_rate="success rate needed"),
    *_figures(dollars, usd_per_month="$ a month (lower bound)", usd_per_month_whole="$ a month"),
    *_figures(dollars, delta_usd_per_month="", saved_usd_per_month="", delta_usd_per_month_whole="$ a month more"),
    *_figures(dollars, saved_usd_per_month_whole="saved a month", usd_per_month_api="$ a month, API"),
    *_figures(count_roughly, waited_requests="requests that waited", waited_in_worst_hour="in its worst hour"),
    *texts(fleet="fleet", hour="hour", worst_hour="worst hour"),
    *_figures(count_roughly, pays_from_tokens_per_month="pays from tokens a month"),
    *_figures(count_roughly, always_from_tokens_per_month="always from tokens a month"),
    *texts(scenario="prompt"),
    *_figures(count, "measured", users="users", next_clients="the next", n_calls="calls"),
    *_figures(digits, "measured", ttft_ms_p95="first token p95 (ms)", step_ms_p95="token p95 (ms)"),
    *_figures(digits, "measured", next_ttft_ms_p95="first token p95 (ms)", next_step_ms_p95="token p95 (ms)"),
    *_figures(percent, "assumed", success_rate="success rate", escalated_share="escalated"),
    *_figures(percent, waited_share="waited", all_taken_share="find all taken"),
    *_figures(percent, stops_paying_share="whole fleets pay up to a share of", success_rate_at_most="success, at most"),
    *_figures(percent, stops_paying_escalated_share="pays while escalated below"),
)
"""Each column that is shown or has an interval; the others are inputs and words of the JSON alone."""


def _table(name: str, caption: str, shows: str, more: str = "", **titles: str) -> Table:
    """A table that shows these columns, after those that say who a row is about; its JSON has more."""
    known = {column.key: column for column in _COLUMNS}
    others = [key for key in f"{shows} {more}".split() if key not in {column.key for column in _NAMES}]
    columns = (*_NAMES, *(known.get(key, words(key)) for key in others))
    return Table(
        name=name,
        caption=caption,
        columns=tuple(dataclasses.replace(each, title=titles.get(each.key, each.title)) for each in columns),
        shows=f"model backend batch_size gen_tokens {shows}",
    )


TABLES = {
    table.name: table
    for table in (
        _table(
            "rows",
            "What the load needs, by model.",
            "usd_per_month_whole rate_status whole_workers all_taken_share usd_per_1m_whole usd_per_1m tokens_per_s "
            "workers",
            "usd_per_month usd_per_hour interval_basis clients_tried",
            usd_per_1m="$ per 1M (lower bound)",
        ),
        _table(
            "decision_deltas",
            "What the dearer model costs more.",
            "than_model than_backend delta_usd_per_month_whole rate_status delta_workers price_ratio",
            "delta_usd_per_month",
        ),
        _table(
            "request_mixes",
            "$ per 1,000 requests, token-linear: every token at the run's price, whatever the prompt's length (int.: "
            "interpolated, ext.: extrapolated).",
            "mix prompt_tokens output_tokens tokens_per_request usd_per_1k_requests requests_per_s_per_worker",
        ),
        _table(
            "phase_split",
            "By phases: the seconds that such a request takes.",
            "mix usd_per_1k_requests rate_status prefill_s decode_s",
            "prompt_tokens output_tokens requests_per_s_per_worker",
        ),
        _table(
            "token_prices",
            "Input and output tokens apart, over these kinds in their shares.",
            "usd_per_1m_input usd_per_1m_output rate_status worker_s_per_request",
        ),
        _table(
            "requests",
            "The load in requests.",
            "usd_per_month_whole rate_status whole_workers usd_per_request_whole usd_per_request "
            "requests_per_s_per_worker workers",
            "requests_per_s requests_per_month tokens_per_request usd_per_month",
        ),
        _table(
            "budget",
            "What a sum a month carries.",
            "carried_tokens_per_month fits rate_status whole_workers usd_per_month_whole carried_requests_per_s",
            "budget_usd",
        ),
        _table(
            "users",
            "The most users at once within the limits, and the next number that was tried and is not within them.",
            "scenario users n_calls ttft_ms_p95 step_ms_p95 next_clients next_ttft_ms_p95 next_step_ms_p95",
        ),
        _table(
            "api",
            "Own workers in place of the API, whole and all month.",
            "usd_per_month_whole rate_status usd_per_month_api pays pays_from_tokens_per_month pays_from_workers "
            "always_from_tokens_per_month",
            "saved_usd_per_month_whole whole_workers usd_per_hour",
        ),
        _table("api_by_volume", "", "tokens_per_month usd_per_month_whole usd_per_month_api"),
        _table(
            "day",
            "Fleets over the day.",
            "fleet usd_per_month_whole rate_status whole_workers waited_requests waited_share worst_hour "
            "waited_in_worst_hour least_workers",
            "usd_per_hour scale_out_s",
        ),
        _table("day_hours", "The day by the hour.", "hour requests_per_s whole_workers waited_requests"),
        _table(
            "sensitivity",
            "",
            "tokens_per_month tier usd_per_hour workers usd_per_1m usd_per_month whole_workers usd_per_1m_whole "
            "usd_per_month_whole",
        ),
        _table(
            "cost_per_success",
            "What a success costs.",
            "success_rate usd_per_success rate_status usd_per_request",
            usd_per_request="$ a request",
        ),
        _table(
            "break_even",
            "What the dearer model must reach to pay.",
            "than_model rate_status on_success on_failure_cost needed_success_rate needed_failure_usd cost_ratio",
            "than_backend success_rate failure_usd",
        ),
        _table(
            "tiering",
            "Routed: a share of the requests to the premium model.",
            "premium_model usd_per_month_whole rate_status success_rate whole_workers_default whole_workers_premium "
            "saved_usd_per_month_whole stops_paying_share usd_per_1k_requests workers",
            "premium_backend premium_share usd_per_month saved_usd_per_month usd_per_success",
            model="default",
        ),
        _table(
            "cascade",
            "Cascade: every request to the default model first, its failures to the premium one as well.",
            "premium_model usd_per_month_whole rate_status success_rate_at_most pays whole_workers_default "
            "whole_workers_premium stops_paying_escalated_share escalated_share usd_per_1k_requests mean_latency_s "
            "escalated_latency_s workers",
            "premium_backend usd_per_month usd_per_success_at_least",
            model="default",
        ),
    )
}
"""Every table of a plan by its name in the JSON."""


def row(table: str, replica: Replica, **values: Any) -> Row:
    """A row of a table about one kind of replica: the table's columns, from these values or else the replica's own.

    What is absent is ``None``; a figure is an array (`phaselaw.plan.capacity`) and becomes its value and its ends. What
    is worked out for requests that are not possible is ``None`` too; for those outside the range it has no interval,
    since how far the rate goes wrong there was not measured.
    """
    known = vars(replica) | values
    columns, load = TABLES[table].columns, known["load"]
    request = values.get("request", values.get("load", replica.request))
    parts = (load, request) if any(column.key in _PER_REQUEST for column in columns) else (load,)
    stands_on = worst([part for part in parts if part.status != "not_possible"] or parts)
    why = next((part.why for part in parts if part.status == "not_possible"), stands_on.why)
    known |= {"rate_status": stands_on.status, "status": stands_on.status, "why": why}
    found: Row = {}
    for column in columns:
        value = known.get(column.key)
        if column.high and column.provenance == "derived" and value is not None:
            of = request if column.key in _PER_REQUEST and request.status == "not_possible" else load
            value = None if of.status == "not_possible" else value[:1] if stands_on.status == "extrapolated" else value
        found |= estimate(value).named(column.key) if column.high else {column.key: value}
    return found
