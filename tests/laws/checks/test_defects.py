"""Each defect put into a clean simulated run is caught by its check, and the clean run is not."""

import dataclasses
import functools

import polars as pl
import pytest
from scipy import stats

import false_alarms
from phaselaw.laws.analysis import analyze
from phaselaw.laws.checks.frame import CheckResult
from phaselaw.records import Run
from simulated_runs import DEFECTS, as_served, ladder_study, simulated, slow_first_calls

QUIET = {"call_noise": 0.02, "model_scatter": 0.05, "prefill_steps": 1.15, "cold_start_ms": 100.0, "overhead_ms": 0.0}
OF_SERVERS = false_alarms.SERVED_DEFECTS
STATEMENTS = ("label contradicts measurement", "heterogeneous law", "contradictory rows", "cells not comparable")


@functools.cache
def clean(kind: str = "in process") -> Run:
    """A clean run of each kind."""
    if kind == "of many rounds":
        return simulated(ladder_study(QUIET, 5, order="rounds"))
    if kind == "served":
        settings = QUIET | {"early_stop_rate": 0.4, "call_noise": 0.005, "cold_start_ms": 0.0}
        return as_served(simulated(ladder_study(settings, 3, order="cells")))
    return simulated(ladder_study(QUIET, 3, order="cells"))


def kind_for(check: str) -> str:
    """The kind of run in which the check has something to look at."""
    return "of many rounds" if check == "off as a whole" else "served" if check in OF_SERVERS else "in process"


def outcomes(run: Run) -> dict[str, CheckResult]:
    return {each.check: each for each in false_alarms.checked(run)}


@functools.cache
def of_clean(kind: str) -> dict[str, CheckResult]:
    return outcomes(clean(kind))


@functools.cache
def of_defect(defect: str) -> dict[str, CheckResult]:
    return outcomes(DEFECTS[defect](clean(kind_for(defect))))


@pytest.mark.parametrize("check", DEFECTS)
def test_a_defect_is_caught_and_its_absence_is_clear(check: str) -> None:
    assert of_clean(kind_for(check))[check].findings == ()
    findings = of_defect(check)[check].findings
    assert findings
    for finding in findings:
        assert finding.evidence and finding.next_step
        assert finding.status != "suspected" or finding.other_reading


@pytest.mark.parametrize("check", DEFECTS)
def test_every_check_was_tried_and_says_how_often_it_errs(check: str) -> None:
    found = of_defect(check)[check]
    assert found.n_checked > 0
    assert found.false_alarms
    assert (found.false_alarm_rate == 0) == (check in (*STATEMENTS, "prompt cache", "prompt cut", "spill"))


def test_a_defect_touches_no_other_check() -> None:
    for check in ("far off the law", *STATEMENTS):
        assert [name for name, found in of_defect(check).items() if found.findings] == [check]


@pytest.mark.parametrize(
    ("noise", "study"),
    [({"round_noise": 0.05}, {}), ({"run_noise": 0.3, "model_run_noise": 0.01}, {"replicates": 3, "repetitions": 1})],
)
def test_a_drift_is_told_from_the_noise_of_rounds_and_of_replicates(noise: dict, study: dict) -> None:
    run = simulated(ladder_study(QUIET | noise, 5, order="rounds", **study))
    assert outcomes(run)["drift"].findings == ()
    [found] = outcomes(DEFECTS["drift"](run))["drift"].findings
    assert found.value == pytest.approx(0.3, abs=0.15)


def test_clean_runs_raise_no_more_false_alarms_than_stated() -> None:
    for name, count in false_alarms.false_alarms(24, first=5000).items():
        assert count["found"] <= stats.binom.ppf(0.9999, int(count["looked_at"]), count["stated"]), name


def test_short_prefills_after_slow_first_calls_are_no_cache_in_process_or_where_the_engine_looked() -> None:
    run = slow_first_calls(simulated(ladder_study(QUIET, 4)), 4)
    assert outcomes(run)["prompt cache"].findings == ()
    ours = dataclasses.replace(as_served(run), manifest=run.manifest)
    assert outcomes(ours)["prompt cache"].findings == ()
    assert {each.status for each in outcomes(as_served(run))["prompt cache"].findings} == {"suspected"}


def test_the_marks_of_a_defect_are_on_the_laws_of_its_phases_alone() -> None:
    laws = analyze(DEFECTS["prompt cache"](clean("served"))).tables["scaling_fits"]
    marked = laws.group_by("mode").agg((pl.col("suspect") == "prompt cache suspected").all()).sort("mode")
    assert marked.rows() == [("e2e_kv", True), ("kv_decode", False), ("prefill", True)]
    assert laws.filter(pl.col("mode") == "kv_decode")["suspect"].unique().to_list() == [""]
