"""The page's planner in a real Chromium: it reckons as Python does, on 500 random inputs, and does what it is told."""

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
from documents import document

from browser import Opener
from phaselaw.plan.capacity import SECONDS_PER_MONTH, Headroom
from phaselaw.plan.decisions import Tiers, break_even, routed_row
from phaselaw.plan.economics import Question, capacity_row
from phaselaw.plan.formulas import planner
from phaselaw.plan.hosted import api_row, usd_per_token
from phaselaw.plan.replicas import Length, Replica
from phaselaw.records import Mix
from phaselaw.report.page import to_html

DRAWS = 79
"""Of so few, too, the ends of a 95 % interval are two of them."""
PRICES = (0.2, 0.9, 0.05)


def worker(model: str, rate: float, *, several: bool, **more: Any) -> Replica:
    spread = np.exp(np.random.default_rng(round(rate)).normal(size=DRAWS) / 20)
    runs = rate * spread if several else np.full(DRAWS, np.nan)
    rates = np.concatenate([[rate], runs, runs, rate * spread**0.3])
    return Replica(backend="sim <b>", model=model, tokens_per_s=rates, usd_per_hour=1.0, **more)


TWO, OTHER_RATE = (Length(10, 64), Length(90, 64)), (Length(50, 50), Length(400, 400, 0.6))
WORKERS = {
    each.model: each
    for each in (
        worker("<img onerror=alert(1)>", 900.0, several=True, lengths=TWO, context_tokens=1024),
        worker("one run", 300.0, several=False, lengths=OTHER_RATE, params_millions=50.0, suspect="drift"),
        worker("</script><script>alert(2)</script>", 80.0, several=True, context_tokens=300, params_millions=100.0),
        worker("turned \u202e around", 33.3, several=True, lengths=(Length(200, 20),), params_millions=120.0),
    )
}  # fmt: skip
KINDS = (Mix(name="a", prompt_tokens=90, output_tokens=64), Mix(name="b", prompt_tokens=10, output_tokens=300, share=3))
QUESTION = Question(requests_per_s=2.0, mixes=KINDS, api=("An API", lambda _: PRICES), failure_usd=0.5)


@pytest.fixture(scope="module")
def page(opener: Opener, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("planner")
    cost = dataclasses.replace(document().chapters[0], title="Cost")
    data = planner(QUESTION, list(WORKERS.values())) | {"mark": "$"}
    (folder / "report.html").write_text(to_html(dataclasses.replace(document(), chapters=(cost,), planner=data)))
    opened = opener(folder, 1280)
    opened.locator("summary", has_text="Plan your own load").click()
    return opened


def some_inputs(chance: random.Random, order: list[str]) -> dict[str, Any]:
    """Inputs of the planner; of some the load fills whole workers to the last token."""
    prompt, output = chance.choice(
        [(10, 64), (90, 64), (55, 60), (400, 400), (9, 30), (700, 324), (30, 90.5), (210, 21)]
    )
    busy, burst = chance.randint(10, 100) / 100, chance.randint(100, 500) / 100
    volume = 10 ** chance.uniform(5, 12)
    if chance.random() < 0.3:
        rate = chance.choice(list(WORKERS.values())).tokens_per_s[0]
        volume = chance.randint(1, 400) * rate * SECONDS_PER_MONTH * busy / burst
    requests = volume / SECONDS_PER_MONTH / (prompt + output) if chance.random() < 0.5 else None
    return {
        "tokens_per_month": volume, "requests_per_s": requests, "prompt": prompt, "output": output,
        "cached": chance.choice([0.0, chance.random()]),
        "usd_per_hour": chance.choice([None, 10 ** chance.uniform(-1, 1)]),
        "utilisation": busy, "burst": burst, "spares": chance.randint(0, 3),
        **{name: 10 ** chance.uniform(-2, 2) for name in ("api_in", "api_out", "api_cached")},
        "default": order.index("one run"), "premium": order.index("turned \u202e around"),
        "premium_share": chance.choice([0.0, 1.0, chance.random()]),
        "success": chance.random(), "premium_success": chance.random(), "failure_usd": 1.0,
    }  # fmt: skip


def by_python(given: dict[str, Any], chosen: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the ``chosen`` models, by the tables of ``phaselaw plan``; and the two models in one service."""
    mix = Mix(name="x", prompt_tokens=given["prompt"], output_tokens=given["output"], cached_share=given["cached"])
    load = {name: given[name] for name in ("tokens_per_month", "requests_per_s")}
    question, keeps = (
        Question(mixes=(mix,), **load),
        Headroom(**{name: given[name] for name in ("utilisation", "burst", "spares")}),
    )
    price = usd_per_token(lambda _: (given["api_in"], given["api_out"], given["api_cached"]), (mix,))
    known = {}
    for name, each in WORKERS.items():
        rate = np.array([given["premium_success" if "turned" in name else "success"]])
        known[name] = dataclasses.replace(
            question.covered(each), usd_per_hour=given["usd_per_hour"] or each.usd_per_hour, success_rate=rate
        )
    rows = [
        api_row(known[name], price, question.volume, keeps) | capacity_row(known[name], question.volume, keeps)
        for name in chosen
    ]
    small, big = known["one run"], known["turned \u202e around"]
    thin = [dataclasses.replace(each, tokens_per_s=each.tokens_per_s[:1]) for each in (small, big)]
    # Nothing else of it depends on the search for the share at which tiers stop paying, which takes a thousand tries.
    tiers = Tiers(*thin, question.volume, mix.tokens, keeps)
    return rows, {**break_even(*thin, mix.tokens, None), **routed_row(tiers, given["premium_share"])}


OF_ROWS = (
    "usd_per_1m_whole", "workers", "whole_workers", "usd_per_1m", "usd_per_month", "usd_per_month_whole",
    "saved_usd_per_month_whole", "pays_from_tokens_per_month", "pays_from_workers", "always_from_tokens_per_month",
)  # fmt: skip
OF_TWO = (
    "usd_per_1k_requests", "usd_per_month", "workers", "usd_per_month_whole", "whole_workers_default",
    "whole_workers_premium", "saved_usd_per_month_whole", "needed_success_rate", "needed_failure_usd",
)  # fmt: skip


def same(found: float | None, expected: float | None) -> bool:
    return found == expected or (None not in (found, expected) and math.isclose(found, expected, rel_tol=1e-10))


def test_the_planner_reckons_as_python_does_on_500_random_inputs(page) -> None:
    chance, order = random.Random(22), page.evaluate("known.workers.map((each) => each.model)")
    order = [name.replace("<U+202E>", "\u202e") for name in order]
    inputs = [some_inputs(chance, order) for _ in range(500)]
    told = page.evaluate(
        """(all) => all.map((each) => {
             const { rows, two } = planned(each);
             const told = rows.map((row) => ({ ...row, worker: null, status: STATUS[row.status] }));
             return [told, { ...two, small: null, big: null }];
           })""",
        inputs,
    )
    seen = {"measured": 0, "interpolated": 0, "extrapolated": 0, "not possible": 0}
    for given, (rows, two) in zip(inputs, told, strict=True):
        expected, both = by_python(given, chosen := chance.sample(order, 2))
        for name, mine in zip(chosen, expected, strict=True):
            row = rows[order.index(name)]
            seen[row["status"]] += 1
            assert row["status"] == mine["rate_status"].replace("_", " "), (given, name)
            within = "" if mine["tokens_per_s_low"] is not None else "_within"
            for key in OF_ROWS:
                ends = {"": "", "_low": f"{within}_low", "_high": f"{within}_high"}
                for end, of in ends.items():
                    assert same(row.get(f"{key}{end}"), mine[f"{key}{of}"]), (given, name, f"{key}{of}")
            assert same(row.get("usd_per_month_api"), mine["usd_per_month_api"])
        assert all(same(two.get(key), both[key]) for key in OF_TWO), (given, two, both)
    assert min(seen.values()) > 20, seen


def test_a_load_of_many_kinds_is_as_sure_as_its_least_sure_kind(page) -> None:
    status = page.evaluate("planned(inputsNow()).rows.map((row) => [row.worker.model, STATUS[row.status]])")
    for name, found in status:
        replica = QUESTION.covered(WORKERS[name.replace("<U+202E>", "\u202e")])
        assert found == replica.request.status.replace("_", " ")


def test_a_price_outside_of_what_was_measured_is_marked_and_beyond_the_context_there_is_none(page) -> None:
    page.get_by_label("prompt tokens", exact=True).fill("2000")
    cells = page.locator("#planner tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((td) => td.textContent))"
    )
    assert len(cells) == len(WORKERS)
    for model, dollars, status, *others in cells:
        beyond = "onerror" in model or "script" in model
        assert status == ("not possible" if beyond else "extrapolated")
        assert ({dollars, *others} == {"–"}) == beyond
        assert not any("[" in text for text in (dollars, *others))
    page.get_by_label("prompt tokens", exact=True).fill("90")
    page.get_by_label("output tokens", exact=True).fill("64")
    assert "[" in page.locator("#planner tbody tr", has_text="<img onerror=alert(1)>").inner_text()


def test_names_are_text_and_a_value_that_is_none_is_told(page) -> None:
    text = page.locator("#planner").inner_text()
    assert all(name in text for name in ("<img onerror=alert(1)>", "turned <U+202E> around", "⚠ drift"))
    assert page.locator("#planner img, #planner script").count() == 0
    page.get_by_label("spare workers", exact=True).fill("1.5")
    assert page.locator("#plan-said").inner_text() == "Not a value: spare workers."
    page.get_by_label("spare workers", exact=True).fill("1")
    assert "Cheapest for" in page.locator("#plan-said").inner_text()


def test_sliders_go_by_the_keyboard_and_the_address_brings_the_plan_back(page) -> None:
    share = page.get_by_label("busy at most (share), slider")
    share.focus()
    for _ in range(3):
        page.keyboard.press("PageDown")
    busy = page.get_by_label("busy at most (share)", exact=True).input_value()
    assert float(busy) < 0.9
    page.get_by_label("default", exact=True).select_option(index=1)
    page.get_by_label("tokens a month", exact=True).fill("3e10")
    page.keyboard.press("Tab")
    said = page.locator("#plan-said").inner_text()
    page.wait_for_url(lambda url: "3e10" in url and f"utilisation={busy}" in url)
    again = page.context.new_page()
    again.goto(page.url + "&burst=javascript:alert(3)&nobody=1&default_=9")
    assert again.locator("#plan-said").inner_text() == said
    assert again.locator("#planner").get_attribute("open") is not None
    assert again.get_by_label("peak over mean load", exact=True).input_value() == "1"


def test_the_chart_names_its_lines_and_says_where_own_workers_pay(page) -> None:
    page.get_by_label("output", exact=True).fill("90")
    page.get_by_label("tokens a month", exact=True).fill("2e7")
    plot = page.locator("#planner svg.plot")
    assert {"the API", "one run on sim <b>"} <= set(plot.locator("text").all_text_contents())
    points = plot.locator(".point").evaluate_all("(all) => all.map((each) => each.getAttribute('aria-label'))")
    assert points and all("pays from" in point for point in points)
