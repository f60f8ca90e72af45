"""Every figure that TR121 prints in 8.3 to 8.5, from its run's rows and from its printed rates."""

import json
from pathlib import Path
from typing import Any

import pytest
from tr121_economics import (
    CAPACITY,
    COST_RATIO,
    DELTAS,
    LOADS,
    MIXES,
    MODELS,
    NEEDED,
    P_SMALL,
    THOUSAND_CHATS,
    THOUSAND_REQUESTS,
    TIERS,
    UNITS,
)

from phaselaw.cli import main
from phaselaw.plan.capacity import SECONDS_PER_MONTH, exact
from phaselaw.plan.economics import Question, answer
from phaselaw.plan.replicas import stated

PRINTED_RATES = "printed rates"


@pytest.fixture(scope="module")
def from_rows(reference_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The plan of TR121's primary run, by the command line, with its one success rate."""
    rates = tmp_path_factory.mktemp("rates") / "rates.csv"
    rates.write_text(f"model,success_rate\nqwen2.5:7b,{P_SMALL}\n")
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        run = str(reference_data / "tr121" / "primary_run")
        assert main(["plan", run, "--success-rates", str(rates), "--json"]) == 0
    document: dict[str, Any] = json.loads(printed[-1])
    return document


@pytest.fixture(scope="module")
def from_printed_rates() -> dict[str, Any]:
    """The plan of the rates as TR121 prints them, to a tenth of a token a second."""
    workers = [
        stated(model, CAPACITY[name].tokens_per_s, 1.006, backend=backend) for name, (backend, model) in MODELS.items()
    ]
    return dict(answer(Question(success_rates={"qwen2.5:7b": exact(P_SMALL)}), workers, {}))


@pytest.fixture(params=["rows", PRINTED_RATES])
def plan(request: pytest.FixtureRequest) -> dict[str, Any]:
    fixture = "from_rows" if request.param == "rows" else "from_printed_rates"
    document: dict[str, Any] = request.getfixturevalue(fixture)
    return document


@pytest.fixture
def slack(request: pytest.FixtureRequest) -> float:
    """What the printed rate's own rounding moves a figure by: half a tenth of 51.9 and more tokens a second."""
    return 0.05 / 51.9 if PRINTED_RATES in request.node.callspec.id else 0.0


def row(rows: list[dict[str, Any]], **equal: Any) -> dict[str, Any]:
    [found] = [each for each in rows if all(each[key] == value for key, value in equal.items())]
    return found


def of(name: str) -> dict[str, str]:
    backend, model = MODELS[name]
    return {"backend": backend, "model": model}


def pair(big: str, small: str) -> dict[str, str]:
    return of(big) | {"than_backend": MODELS[small][0], "than_model": MODELS[small][1]}


@pytest.mark.parametrize("name", CAPACITY)
def test_the_planning_example(name: str, plan: dict[str, Any], slack: float) -> None:
    found = row(plan["rows"], **of(name))
    for key, printed in CAPACITY[name]._asdict().items():
        assert found[key] == pytest.approx(printed, abs=getattr(UNITS, key) + slack * printed)


@pytest.mark.parametrize(("big", "small", "dollars", "workers"), DELTAS)
def test_the_decision_deltas(
    big: str, small: str, dollars: float, workers: float, plan: dict[str, Any], slack: float
) -> None:
    found = row(plan["decision_deltas"], **pair(big, small))
    of_both = CAPACITY[big].usd_per_month + CAPACITY[small].usd_per_month
    assert found["delta_usd_per_month"] == pytest.approx(dollars, abs=1 + slack * of_both)
    assert found["delta_workers"] == pytest.approx(workers, abs=0.01 + slack * of_both / 724)


@pytest.mark.parametrize("name", THOUSAND_REQUESTS)
def test_the_four_mixes(name: str, plan: dict[str, Any], slack: float) -> None:
    for mix, printed in zip(MIXES, THOUSAND_REQUESTS[name], strict=True):
        found = row(plan["request_mixes"], **of(name), mix=mix)
        assert found["usd_per_1k_requests"] == pytest.approx(printed, abs=0.001 + slack * printed)


@pytest.mark.parametrize("name", THOUSAND_CHATS)
def test_a_thousand_chats(name: str, plan: dict[str, Any], slack: float) -> None:
    found = row(plan["request_mixes"], **of(name), mix="chat_default")
    printed = THOUSAND_CHATS[name]
    assert found["usd_per_1k_requests"] == pytest.approx(printed, abs=0.01 + slack * printed)


def test_the_break_even_on_success_is_impossible(plan: dict[str, Any], slack: float) -> None:
    found = row(plan["break_even"], **pair("20b", "7b"))
    assert found["cost_ratio"] == pytest.approx(COST_RATIO, abs=0.01 + 2 * slack * COST_RATIO)
    assert found["needed_success_rate"] == pytest.approx(NEEDED, abs=0.01 + 2 * slack * NEEDED)
    assert found["on_success"] == "impossible"


def test_volumes_and_hourly_rates(plan: dict[str, Any], slack: float) -> None:
    for volume, (load, unit) in LOADS.items():
        assert volume / SECONDS_PER_MONTH == pytest.approx(load, abs=unit)
        for tier, printed in TIERS.items():
            found = row(plan["sensitivity"], **of("7b"), tier=tier, tokens_per_month=volume)
            assert found["usd_per_1m"] == pytest.approx(printed, abs=0.001 + slack * printed)
            workers = CAPACITY["7b"].workers * volume / 1e9
            assert found["workers"] == pytest.approx(workers, abs=0.01 * volume / 1e9 + slack * workers)


def test_what_tr121_rounded_in_between_stands_here_in_full(from_rows: dict[str, Any]) -> None:
    """The differences that docs/economics.md lists, and no others: figures that round to another last digit."""
    differing = []
    for big, small, dollars, workers in DELTAS:
        found = row(from_rows["decision_deltas"], **pair(big, small))
        differing += [dollars] if round(found["delta_usd_per_month"]) != dollars else []
        differing += [workers] if round(found["delta_workers"], 2) != workers else []
    for name, printed in THOUSAND_REQUESTS.items():
        for mix, figure in zip(MIXES, printed, strict=True):
            found = row(from_rows["request_mixes"], **of(name), mix=mix)
            differing += [figure] if round(found["usd_per_1k_requests"], 3) != figure else []
    found = row(from_rows["break_even"], **pair("20b", "7b"))
    differing += [NEEDED] if round(found["needed_success_rate"], 2) != NEEDED else []
    assert differing == [4.63, 1074, 3.038, 4.557, 3.690, 1.389, 2.083, 1.88]
