"""What a load needs and costs: the plan's tables, in TR121's order (8.3 to 8.5), for the terminal and both reports."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any

from phaselaw import tables
from phaselaw.laws.rates import another_run
from phaselaw.records import duration
from phaselaw.report.document import IN_BRACKETS, Axis, CurvePlot, Section, Table, curves, section
from phaselaw.tables import Row, alike, figure

_WHO = ("backend", "model", "batch_size", "gen_tokens", "suspect")


@dataclass(frozen=True)
class Plan:
    """A plan to show."""

    document: Mapping[str, Any]
    """What ``phaselaw plan --json`` prints: tables of rows, and ``assumptions``."""
    declared: Mapping[str, tables.Table]
    """Its tables by name (`phaselaw.plan.tables.TABLES`)."""
    planner: Callable[[], dict[str, Any]] = dict
    """Works out what a page plans with, which nobody else needs; empty without workers."""
    mark: str = "$"
    """What stands before an amount of money."""

    def rows(self, name: str) -> list[Row]:
        """The rows of a table; none where the plan lacks it."""
        return list(self.document.get(name, ()))

    def table(self, name: str, rows: Sequence[Row] | None = None, caption: str = "") -> Table:
        """A table with these rows (default: all), the cheapest first, less the columns that say nothing."""
        found = sorted(self.rows(name) if rows is None else rows, key=_dollars)
        return _shown(self.declared[name], found, caption)

    def side_by_side(self, name: str, rows: Sequence[Row], *, by: str, key: str, caption: str = "") -> Table:
        """One figure of each model, in a column for each value of ``by``."""
        table = self.declared[name]
        known = {column.key: column for column in table.columns}
        merged: dict[tuple[Any, ...], Row] = {}
        columns = {}
        for row in rows:
            at, who = f"{key}@{row[by]}", {name: row[name] for name in _WHO}
            line = merged.setdefault(tuple(who.values()), who)
            line |= {f"{at}{end}": row[f"{key}{end}"] for end in ("", "_low", "_high")} | {
                f"{at}_of": row["rate_status"]
            }
            columns[at] = _marked(at, row[by] if isinstance(row[by], str) else f"{row[by]:,.0f}", known[key].show)
        wide = replace(table, columns=(*(known[name] for name in _WHO), *columns.values()), shows="")
        return _shown(wide, list(merged.values()), caption)


_MARKS = {"interpolated": " int.", "extrapolated": " ext.", "given": " given"}
"""Behind a figure that was not measured, where there is no column that says so."""


def mark(row: Row) -> str:
    """What stands behind a price of a row that was not measured."""
    return _MARKS.get(row["rate_status"], "")


def _marked(key: str, title: str, show: tables.Show) -> tables.Col:
    """A figure that says what it stands on."""
    plain = figure(key, title, show)

    def text(row: Row) -> str:
        status = row.get(f"{key}_of")
        return "not possible" if status == "not_possible" else plain.text(row) + _MARKS.get(str(status), "")

    return replace(plain, of_row=text)


def _dollars(row: Row) -> tuple[float, float]:
    """What rows are sorted by: the fleet's dollars a month, then those of a token; what is not possible comes last."""
    first, then = (row.get(key) for key in ("usd_per_month_whole", "usd_per_1m"))
    return math.inf if first is None else first, math.inf if then is None else then


def _shown(table: tables.Table, rows: Sequence[Row], caption: str) -> Table:
    worked_out = any(row.get("rate_status", "measured") != "measured" for row in rows)
    says_something = {key: len({row[key] for row in rows}) > 1 for key in ("backend", "batch_size", "gen_tokens")}
    says_something["backend"] &= any(row["backend"] != row["model"] for row in rows)
    says_something["on_failure_cost"] = any(row.get("failure_usd") for row in rows)
    says_something["all_taken_share"] = any(row.get("all_taken_share") is not None for row in rows)
    says_something["than_backend"] = any(row.get("than_backend") != row["backend"] for row in rows)
    columns = tuple(
        replace(column, provenance="derived") if worked_out and column.key == "tokens_per_s" else column
        for column in table.reported(rows)
        if says_something.get(column.key, True)
    )
    return Table(caption=caption or table.caption, columns=columns, rows=tuple(rows), whole="phaselaw plan --json")


def capacity(plan: Plan) -> Section:
    """Workers and dollars of the load (TR121 8.3)."""
    given = plan.document["assumptions"]
    whole = (
        f"Whole workers: busy at most {given['utilisation']:.0%} of the time (--utilisation), at {given['burst']:.3g} "
        f"x the mean load (--burst), {given['spares']} spare (--spares)."
    )
    bound = "Workers as a fraction are a lower bound: busy all the time, no bursts, no queue, no spares."
    return section(
        "Capacity and price", regime_words(plan), _queue_words(plan), cheapest_words(plan), load_words(plan),
        given.get("models"), plan.table("rows"), why_words(plan.rows("rows")), f"{bound} {whole}",
    )  # fmt: skip


def _queue_words(plan: Plan) -> str | None:
    """What limits on waiting leave out; nothing where there are none."""
    taken = {row["model"]: row["all_taken_share"] for row in plan.rows("rows") if row["all_taken_share"] is not None}
    told = ", ".join(f"{tables.percent(share)} for {model}" for model, share in taken.items())
    queue = (
        "The limits hold while no more requests are there than clients x workers. Of such as come at random so many "
        f"find all these places taken, and wait longer (Erlang C): {told}. A lower --utilisation makes them fewer."
    )
    return queue if taken else None


def regime_words(plan: Plan) -> str:
    """How the rates were measured, which a reader must know first."""
    of_rows = ({row[of] for row in plan.rows("rows")} for of in ("batch_size", "clients", "clients_tried"))
    batches, at_once, tried = map(sorted, of_rows)
    if all(row["rate_status"] == "given" for row in plan.rows("rows")):
        return "Rates were given, not measured."
    if batches[-1] > 1:
        return f"Batches of {batches[0]:,} to {batches[-1]:,} requests at a time were measured; the best is first."
    kept = " within the limits on waiting" if plan.document["assumptions"].get("slo_ms") else ""
    if at_once[-1] > 1:
        best = ", ".join(f"{row['clients']} for {row['model']}" for row in plan.rows("rows"))
        return f"Several clients at once were measured; planned at the best number of them{kept}: {best}."
    if tried[-1] > 1:
        most = f"one at a time served the most{kept}" if at_once[-1] else "one alone waited longer than the limits"
        return f"Up to {tried[-1]} clients at once were measured; {most}."
    return "One request at a time: batching or more slots would lower this."


def cheapest_words(plan: Plan) -> str:
    """The answer in a sentence: the cheapest model, and the largest where that is another."""
    rows = sorted((row for row in plan.rows("rows") if row["usd_per_month_whole"] is not None), key=_dollars)
    sure = [row for row in rows if row["rate_status"] in _SURE and not row["suspect"] and not row["incomplete"]]
    if not rows:
        return "No model can serve this load." if plan.rows("rows") else "No price: no end-to-end rate was measured."
    if not sure:
        return f"No model is measured for this load without a doubt; the cheapest is {_told(plan, rows[0])}."
    large = max(sure, key=lambda row: row.get("params_millions") or 0.0)
    premium = "" if large["model"] == sure[0]["model"] else f" The largest: {_told(plan, large)}."
    measured = " that is measured" if sure[0]["rate_status"] in ("measured", "derived") else ""
    return f"Cheapest{measured} for this load: {_told(plan, sure[0])}.{premium}"


def price_range(plan: Plan) -> str:
    """A million tokens of the cheapest and of the dearest model."""
    rows = sorted((row for row in plan.rows("rows") if row["usd_per_1m"]), key=lambda row: float(row["usd_per_1m"]))
    if not rows:
        return "No model has a price: no end-to-end rate was measured."
    price = plan.declared["rows"].columns
    [dollars] = [column for column in price if column.key == "usd_per_1m"]
    two = ((row, "" if row["rate_status"] == "measured" else f", {row['rate_status']}") for row in rows[:1] + rows[-1:])
    ends = dict.fromkeys(f"${dollars.text(row)} ({_named(plan, row)}{status})" for row, status in two)
    return f"A million tokens, prompt and generated, cost {' to '.join(ends)}, at {_hours(plan)} an hour (assumed)."


def _hours(plan: Plan) -> str:
    return " and ".join(f"${value:g}" for value in sorted({row["usd_per_hour"] for row in plan.rows("rows")}))


_SURE = ("measured", "derived", "interpolated", "given")


def _named(plan: Plan, row: Row) -> str:
    """A model with its backend, and with the tokens that it generates where the plan's rows differ in them."""
    where = "" if row["backend"] == row["model"] else f" on {row['backend']}"
    several = len({each["gen_tokens"] for each in plan.rows("rows")}) > 1
    return f"{row['model']}{where}" + (f", {row['gen_tokens']} tokens generated" if several else "")


def _told(plan: Plan, row: Row) -> str:
    dollars, whole = row["usd_per_month_whole"], row["whole_workers"]
    workers = f"{whole:,.0f} worker{'' if whole == 1 else 's'}"
    workers += f" at batch {row['batch_size']}" if row["batch_size"] > 1 else ""
    return f"{_named(plan, row)}, ${dollars:,.0f} a month ({workers}, {row['rate_status']})"


def why_words(rows: Sequence[Row]) -> list[str] | None:
    """What prices stand on, and why they are not measured, with the backends, or models, that it is about."""
    every, told = {(row["backend"], row["model"]) for row in rows}, []
    for (status, why), mine in alike((row for row in rows if row["why"]), "rate_status", "why").items():
        others = {backend for backend, _ in every.difference((row["backend"], row["model"]) for row in mine)}
        names = dict.fromkeys(row["model"] if row["backend"] in others else row["backend"] for row in mine)
        about = f" ({', '.join(names)})" if others else ""
        told.append(f"{status.replace('_', ' ').capitalize()}: {why}{about}.")
    if (more := len(told) - _REASONS) > 0:
        told[_REASONS:] = [f"And {more} more such reason{'s' * (more > 1)} (--json has them all)."]
    return told or None


_REASONS = 3
"""Reasons that are shown under a table."""


def deltas(plan: Plan) -> Section | None:
    """What a dearer model costs more (TR121 8.3.1): of the pairs that were named, or each against a baseline.

    That is the cheapest of its backend where none is named.
    """
    given, rows = plan.document["assumptions"], plan.rows("decision_deltas")
    baseline, compared = given.get("baseline"), given.get("compared")
    if compared:
        chosen = [*map(set, pairwise(compared))]
        rows = [row for row in rows if {row["than_model"], row["model"]} in chosen]
    elif baseline is not None:
        rows = [row for row in rows if baseline in (row["than_model"], row["model"])]
    else:
        kind = itemgetter("backend", "batch_size", "gen_tokens")
        cheapest: dict[tuple[Any, ...], tuple[str, str]] = {}
        for row in sorted(plan.rows("rows"), key=lambda row: _dollars(row)[1]):
            cheapest.setdefault(kind(row), (row["backend"], row["model"]))
        rows = [row for row in rows if (row["than_backend"], row["than_model"]) == cheapest[kind(row)]]
    return section("What choosing another model costs", plan.table("decision_deltas", rows)) if rows else None


def mixes(plan: Plan) -> Section:
    """A thousand requests of each kind, token-linear, and by phases where that was measured (TR121 8.3.2, 8.3.3)."""
    rows, many = plan.rows("request_mixes"), len(plan.document["assumptions"]["mixes"])
    kinds = {row["mix"]: f"{row['prompt_tokens']:,.4g} in + {row['output_tokens']:,.4g} out" for row in rows}
    average = f" (the average of {many} kinds)" if many > len(kinds) else ""
    by_phases = ("phase_split", "token_prices")
    measured = {name: [row for row in plan.rows(name) if row["rate_status"] != "not_possible"] for name in by_phases}
    return section(
        "Requests",
        f"Kinds of request ({_whose(plan)}): {'; '.join(f'{kind} {words}' for kind, words in kinds.items())}{average}.",
        plan.side_by_side("request_mixes", rows, by="mix", key="usd_per_1k_requests"),
        why_words(rows),
        *(plan.table(name, found) for name, found in measured.items() if found),
        *(f"By phases: {told[:1].lower()}{told[1:]}" for told in why_words(plan.rows("token_prices")) or ()),
    )


def requests(plan: Plan) -> Section:
    """The load as requests: what a worker serves, and what one request costs."""
    return section("Request economics", load_words(plan), plan.table("requests"), why_words(plan.rows("requests")))


def budget(plan: Plan) -> Section:
    """What a sum a month carries."""
    rows = plan.rows("budget")
    most = sorted(rows, key=lambda row: -(row["carried_tokens_per_month"] or 0.0))
    load = f"${rows[0]['budget_usd']:,.0f} a month in whole workers, headroom kept. Fits: the load above."
    return section("Budget", load, replace(plan.table("budget"), rows=tuple(most)), why_words(rows))


def users(plan: Plan) -> Section:
    """How many users at once were measured to wait no longer than a limit."""
    rows, limits = plan.rows("users"), plan.document["assumptions"]["slo_ms"]
    limits = dict(zip(("the first token", "each other token"), limits, strict=True))
    waits = [f"{ms:,.0f} ms for {of}" for of, ms in limits.items() if ms is not None]
    fewest = [min(mine, key=itemgetter("users")) for mine in alike(rows, "model", "backend").values()]
    told = (
        f"{row['users']:,.0f}{'' if row['next_clients'] else ' or more'} of {row['model']} on {row['backend']}"
        for row in sorted(fewest, key=itemgetter("users"), reverse=True)
    )
    return section(
        "Users at once",
        f"On every prompt that was measured: {'; '.join(told)}.",
        f"Of so many at once 95 % wait at most {' and '.join(waits)}: measured, no queue model. Clients send together, "
        "and again when all have their answers.",
        plan.table("users"),
        why_words(rows),
    )


def hosted(plan: Plan) -> Section:
    """Own workers against a hosted API."""
    rows, given = plan.rows("api"), plan.document["assumptions"]
    cached = (
        f"{given['mixes'][0]['cached_share']:.1%} of the prompts' tokens are cached: at the API for its price of such; "
        "on own workers without their prefill, where they go by phases (--rates-by phases)."
    )
    return section("A hosted API", _hosted_words(plan), _by_volume(plan), plan.table("api"), why_words(rows), cached)


def _by_volume(plan: Plan) -> CurvePlot | None:
    """A month at the API and on own workers against the volume; ``None`` where no model can serve it."""
    rows = [row | {"named": f"{row['model']} on {row['backend']}"} for row in plan.rows("api_by_volume")]
    rows = [row for row in rows if row["usd_per_month_whole"] is not None]
    if not rows:
        return None
    at, whole = "tokens_per_month", "usd_per_month_whole"
    own = curves(rows, "named", at, whole, f"{whole}_low", f"{whole}_high")
    [api] = curves(rows[: len(own[0].points)], "backend", at, "usd_per_month_api")
    return CurvePlot(
        name="api-by-volume",
        caption="A month by volume: at the API, and on own whole workers, which pay where they lie below its line.",
        x=Axis(title="tokens a month", log=True),
        y=Axis(title="$ a month", log=True),
        curves=tuple(replace(each, dots=False) for each in (replace(api, label="the API", dashed=True), *own)),
    )


def _hosted_words(plan: Plan) -> str:
    """What the API costs, and from where on own workers pay; nothing where none was named."""
    rows = plan.rows("api")
    if not rows:
        return ""
    own, pays = min(rows, key=lambda row: row["pays_from_tokens_per_month"] or math.inf), "never pay, at any volume"
    if (volume := own["pays_from_tokens_per_month"]) is not None:
        roughly = round(volume, 2 - int(math.log10(volume)))
        pays = f"pay from {roughly:,.0f} tokens a month on ({own['model']}, {own['pays_from_workers']:,.0f} of them)"
    dollars = f"${rows[0]['usd_per_month_api'] or 0:,.2f} a month"
    return f"{plan.document['assumptions']['api']}: {dollars}. Own workers {pays}."


def day(plan: Plan) -> Section:
    """A day, hour by hour."""
    rows, given = sorted(plan.rows("day"), key=_dollars), plan.document["assumptions"]["day"]
    hours = [row for row in plan.rows("day_hours") if all(row[name] == rows[0][name] for name in _WHO)]
    by_hour = plan.table("day_hours", hours, f"{rows[0]['model']}, following the load, by the hour.")
    lead = (
        f"A worker of {rows[0]['model']} serves {duration(rows[0]['scale_out_s'])} after it is asked for: its load and "
        "first call, not its machine's start, or --scale-out-delay. Of spot workers (--rates spot=USD) "
        f"{given['interruptions']:.1%} are taken away in an hour (assumed)."
    )
    return section("A day", lead, plan.table("day"), why_words(rows), replace(by_hour, rows=tuple(hours)))


def sensitivity(plan: Plan) -> Section:
    """Prices by hourly rate, workers by volume (TR121 8.5)."""
    rows = plan.rows("sensitivity")
    rates = ", ".join(f"{tier} ${usd:g}" for tier, usd in {row["tier"]: row["usd_per_hour"] for row in rows}.items())
    volume = rows[0]["tokens_per_month"]
    months = [row for row in rows if row["tokens_per_month"] == volume]
    said = f"$ a month of whole workers for {volume:,.0f} tokens, by hourly rate."
    views = (
        ("usd_per_1m", "tier", rows, "$ per 1M tokens (lower bound) by hourly rate."),
        ("workers", "tokens_per_month", rows, "Workers (lower bound) by tokens a month."),
        ("whole_workers", "tokens_per_month", rows, "Whole workers by tokens a month."),
        ("usd_per_month_whole", "tier", months, said),
    )
    return section(
        "Sensitivity to volume and hourly rate",
        f"Hourly rates (assumed): {rates}. Whole workers keep the headroom that was asked for.",
        *(plan.side_by_side("sensitivity", on, by=by, key=key, caption=text) for key, by, on, text in views),
    )


def quality(plan: Plan) -> Section | None:
    """Cost per success, and what a dearer model must do better (TR121 8.3.4); ``None`` without success rates."""
    names = [name for name in ("cost_per_success", "break_even") if plan.rows(name)]
    words = "Success rates are an input (assumed): the share of your requests that pass your own acceptance. "
    found = (plan.table(name) for name in names)
    return section("Quality that pays", words + _request_words(plan), *found) if names else None


def tiering(plan: Plan) -> Section:
    """Two models in one service: routed tiers and the cascade (TR121 9.3)."""
    rows = plan.rows("tiering")
    routed = f"Routed: {rows[0]['premium_share']:.1%} of the requests (assumed) to the premium model."
    return section(
        "Tiers",
        plan.table("tiering", rows, routed),
        plan.table("cascade"),
        why_words(rows),
        "Saved: against the premium model alone. Latencies are of the run's own requests, or by phases. Which requests "
        "go where is the router's art; how often the default model fails is an input (--success-rates). "
        + _request_words(plan),
    )


def _request_words(plan: Plan) -> str:
    tokens = plan.document["assumptions"]["tokens_per_request"]
    return f"A request is of {tokens:,.0f} tokens, the average of its kinds ({_whose(plan)})."


def _whose(plan: Plan) -> str:
    return "assumed" if plan.document["assumptions"]["itemised"] else "of the traffic profile"


SECTIONS: Mapping[str, Callable[[Plan], Section | None]] = {
    "capacity": capacity,
    "requests": requests,
    "budget": budget,
    "users": users,
    "api": hosted,
    "day": day,
    "compare": deltas,
    "mixes": mixes,
    "sensitivity": sensitivity,
    "quality": quality,
    "tiers": tiering,
}
"""Each part of a plan by the name that ``phaselaw plan --show`` knows it by."""


def sections(plan: Plan, chosen: Iterable[str] = tuple(SECTIONS)) -> list[Section]:
    """The chosen parts of a plan, those that are not empty, in its currency."""
    asked = (name for name in SECTIONS if name in set(chosen) and plan.rows(_OF.get(name, "rows")))
    return [in_currency(found, plan.mark) for name in asked if (found := SECTIONS[name](plan)) is not None]


_OF = {"budget": "budget", "users": "users", "api": "api", "day": "day", "tiers": "tiering"}  # tables of an option


def of_report(plan: Plan) -> list[Section]:
    """What a report shows of a plan: the parts that need no input beyond the defaults, and all of the reader's own."""
    if not plan.rows("rows"):
        return [section("Capacity and price", "Not computed: no end-to-end rates.")]
    if plan.document["assumptions"].get("whose") is None:
        return sections(plan, ("capacity", "compare", "mixes", "sensitivity", "tiers"))
    first, *others = sections(plan)
    return [replace(first, blocks=(*first.blocks, *filter(None, [tuple(plan.document["notes"])]))), *others]


def in_currency(part: Any, mark: str) -> Any:
    """A section, or a first screen, whose amounts are in a currency with this mark: in place of the dollar's."""
    if type(part) is tuple:
        return tuple(in_currency(each, mark) for each in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{each.name: in_currency(getattr(part, each.name), mark) for each in fields(part)})
    return part.replace("$ ", f"{mark.strip()} ").replace("$", mark) if isinstance(part, str) else part


def load_words(plan: Plan) -> str:
    """The load and its price, each input named as assumed; and what stands in brackets, or why nothing does."""
    load = f"For {_load_and_price(plan)}."
    if all(row["rate_status"] == "given" for row in plan.rows("rows")):
        return f"{load} A given rate has no interval."
    told = {str(row["interval_basis"]): row["tokens_per_s_low"] is not None for row in plan.rows("rows")}
    brackets = [f"{IN_BRACKETS} {basis}." for basis, known in told.items() if known]
    lacking = [basis for basis, known in told.items() if not known]
    nothing = (
        f"{another_run(lacking)}, so counts and prices have no interval: measure replicates, pool runs, or assume how "
        "far runs differ (--between-runs 20%)."
    )
    return " ".join([load, *brackets, *([nothing] if lacking else [])])


def _load_and_price(plan: Plan) -> str:
    given = plan.document["assumptions"]
    load = f"{given['tokens_per_month']:,.0f} tokens a month"
    if (rate := given.get("requests_per_s")) is not None:
        load = f"{rate:,.4g} requests/s of {given['tokens_per_request']:,.1f} tokens on average, {load}"
    offers = [
        f"price of {offer['date'] or 'an unknown date'}: {offer['provider']}, {offer['accelerator']}, {offer['taken']}"
        for offer in given.get("prices", ())
    ]
    return f"{load} at {_hours(plan)} a worker's hour ({'; '.join(offers) or 'assumed'})"


def in_short(plan: Plan) -> str:
    """The load and its price, where there is one, and the answer: what the chapter on cost opens with."""
    return f"For {_load_and_price(plan)}. {cheapest_words(plan)}" if plan.rows("rows") else cheapest_words(plan)


def own_load(plan: Plan) -> list[str]:
    """What the reader's own load needs, for the first screen; empty where the load is the default one."""
    if (whose := plan.document["assumptions"].get("whose")) is None:
        return []
    return [f"{whose} (assumed): {_load_and_price(plan)}. {cheapest_words(plan)} {_hosted_words(plan)}".strip()]
