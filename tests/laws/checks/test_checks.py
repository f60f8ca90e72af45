"""The marks: which rows a finding touches, and how marks of several rows are joined."""

import polars as pl
import pytest

from phaselaw.laws.checks.frame import CheckResult, Finding, marked, suspicions


def outcome(check: str = "drift", status: str = "found", modes=("e2e_kv",), **where) -> CheckResult:
    finding = Finding({"backend": "b"} | where, 1.0, "e", status=status, modes=modes, next_step="n")
    return CheckResult(check=check, unit="u", n_checked=1, findings=(finding,))


ROW = {"backend": "b", "batch_size": 1, "gen_tokens_target": 64, "model": "m", "scenario": "s", "mode": "e2e_kv"}


def mark(row: dict, *outcomes: CheckResult) -> str:
    return marked(pl.DataFrame([row], infer_schema_length=None), outcomes)["suspect"].item()


@pytest.mark.parametrize("name", ["backend", "batch_size", "gen_tokens_target", "model", "scenario"])
def test_a_finding_touches_the_rows_whose_properties_it_names(name: str) -> None:
    same, other = outcome(**{name: ROW[name]}), outcome(**{name: 2 if isinstance(ROW[name], int) else "x"})
    assert mark(ROW, same) == "drift"
    assert mark(ROW, other) == ""


def test_a_row_of_another_phase_is_not_touched_and_one_of_no_phase_is() -> None:
    assert mark(ROW | {"mode": "prefill"}, outcome()) == ""
    assert mark({**ROW, "mode": None}, outcome()) == "drift"
    assert mark({"backend": "b"}, outcome()) == "drift"


def test_a_law_over_all_scenarios_stands_on_each_and_a_law_on_each_of_its_models() -> None:
    assert mark(ROW | {"scenario": "__all__"}, outcome(scenario="s")) == "drift"
    assert mark({name: ROW[name] for name in ("backend", "mode")}, outcome(model="m")) == "drift"


def test_a_claim_about_two_backends_stands_on_both() -> None:
    assert mark(ROW | {"backend": "a", "other_backend": "b"}, outcome()) == "drift"


def test_a_caution_marks_nothing_and_a_suspicion_says_that_it_is_one() -> None:
    assert mark(ROW, outcome(status="caution")) == ""
    assert mark(ROW, outcome(status="suspected")) == "drift suspected"
    assert mark(ROW, outcome(modes=())) == ""


def test_several_checks_are_named_once_each_in_order() -> None:
    both = (outcome("a"), outcome("b", model="m"), outcome("b", scenario="s"))
    assert mark(ROW, *both) == "a, b"
    assert suspicions(["a, b", None, "", "b, c suspected"]) == "a, b, c suspected"


def test_the_count_convention_spares_laws_by_the_steps_that_ran() -> None:
    convention = outcome("count convention")
    assert mark(ROW | {"latency_basis": "step_true"}, convention) == ""
    assert mark(ROW | {"latency_basis": "tr121"}, convention) == "count convention"


def test_a_table_without_a_backend_and_one_without_findings_keep_their_rows() -> None:
    assert marked(pl.DataFrame({"model": ["m"]}), [outcome()]).columns == ["model"]
    assert marked(pl.DataFrame([ROW]), [])["suspect"].to_list() == [""]
