"""The plan's tables as a report shows them: every number with where it is from, hostile names as names."""

from pathlib import Path

import pytest

from phaselaw.plan import economics as plan
from phaselaw.plan.capacity import Headroom, exact
from phaselaw.plan.replicas import Replica, stated
from phaselaw.plan.tables import TABLES
from phaselaw.report.document import Section, Table
from phaselaw.report.economics import Plan, in_currency, load_words, of_report, sections

WORKERS = [stated("<b>small", 141.3, 1.006), stated("big", 52.4, 1.006)]


def document(**asked: object) -> Plan:
    return of(plan.Question(**asked), WORKERS)


def of(question: plan.Question, workers: list[Replica]) -> Plan:
    tables = plan.answer(question, workers, {})
    return Plan({"assumptions": plan.assumptions(question, workers), **tables}, TABLES)


def texts(section: Section) -> str:
    return " ".join(block for block in section.blocks if isinstance(block, str))


@pytest.mark.parametrize(("basis", "why"), [("not measured", ""), ("not measured: 2 runs", " (2 runs)")])
def test_that_the_next_run_is_not_measured_is_said_once(basis: str, why: str) -> None:
    row = {"rate_status": "measured", "interval_basis": basis, "tokens_per_s_low": None, "usd_per_hour": 1}
    words = load_words(Plan({"rows": [row], "assumptions": document().document["assumptions"]}, TABLES))
    assert f"What another run would give is not measured{why}, so counts" in words


def test_every_number_says_where_it_is_from() -> None:
    built = sections(document(success_rates={"big": exact(0.9), "<b>small": exact(0.7)}))
    assert [section.title for section in built] == [
        "Capacity and price", "Request economics", "What choosing another model costs", "Requests",
        "Sensitivity to volume and hourly rate", "Quality that pays", "Tiers",
    ]  # fmt: skip
    for section in built:
        for block in section.blocks:
            if isinstance(block, Table):
                assert block.rows
                for column in block.columns:
                    shown = [column.text(row) for row in block.rows]
                    assert column.provenance or not any(
                        text.replace(",", "").replace(".", "").isdigit() for text in shown
                    )


def test_a_report_shows_what_needs_no_input_of_the_users() -> None:
    assert [section.title for section in of_report(document())] == [
        "Capacity and price", "What choosing another model costs", "Requests",
        "Sensitivity to volume and hourly rate", "Tiers",
    ]  # fmt: skip


def test_the_inputs_are_called_assumed() -> None:
    capacity, *_ = of_report(document(headroom=Headroom(spares=2)))
    assert "1,000,000,000 tokens a month at $1.006 a worker's hour (assumed)" in texts(capacity)
    assert "lower bound" in texts(capacity)


def test_a_run_without_end_to_end_rates_says_so() -> None:
    [section] = of_report(of(plan.Question(), []))
    assert "no end-to-end rates" in texts(section)


def test_the_written_report_has_the_sections_and_no_markup_of_hostile_names(hostile_run: Path) -> None:
    text = (hostile_run / "report.md").read_text()
    page = (hostile_run / "report.html").read_text()
    for title in ("Capacity and price", "What choosing another model costs", "Tiers"):
        assert f"\n### {title}\n" in text and f">{title}</h3>" in page
    assert "<img onerror" not in page


def test_a_currency_without_a_sign_stands_one_blank_before_what_follows() -> None:
    texts = ("$ a month", "$1,006 a month", "in $")
    assert in_currency(texts, "JPY ") == ("JPY a month", "JPY 1,006 a month", "in JPY ")
    assert in_currency(texts, "€") == ("€ a month", "€1,006 a month", "in €")
