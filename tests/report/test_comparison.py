"""Runs side by side, and run against run: they and their models bear their own names."""

from types import SimpleNamespace

import polars as pl
from rows import phases, run_of

from phaselaw.laws.analysis import DECLARED, Analysis, Options
from phaselaw.laws.law_differences import LAWS_SIDE_BY_SIDE
from phaselaw.laws.regression_test import FASTER, NOT_REGRESSED
from phaselaw.report.comparison import run_against_run, side_by_side
from phaselaw.report.subject import Companion, Subject


def test_a_first_run_without_laws_bears_its_own_name() -> None:
    tables = {name: table.frame() for name, table in DECLARED.items()}
    tables[LAWS_SIDE_BY_SIDE.name] = LAWS_SIDE_BY_SIDE.frame([{"run": "b", "backend": "x", "mode": "prefill"}])
    known = {"run": run_of(phases(1, 2)), "analysis": Analysis(tables=tables, notes={}, options=Options())}
    runs, *_ = side_by_side(Subject(name="a", plan=None, beside=(Companion(name="b", **known),), **known))
    assert [row["run"] for row in runs.rows] == ["a", "b"]


def test_a_model_keeps_its_letters_where_it_became_faster() -> None:
    row = {"backend": "HF", "model": "Qwen/Big", "mode": "e2e_kv", "batch_size": 1, "gen_tokens_target": 8}
    models = pl.DataFrame([row | {"verdict": FASTER, "ratio": 0.5, "scenario": "s"}])
    tables = {"cells": models.clear(), "models": models, "whole": models.clear()}
    lacking = {"only_in_a": models.clear(), "only_in_b": models.clear()}
    about = {"basis": "between runs", "judged": 1, "n_not_judged": 0, "n_slower": 0, "threshold": 0.05, "level": 0.95}
    found = run_against_run(SimpleNamespace(**tables, **lacking, **about, outcome=NOT_REGRESSED))
    outcome = next(block for block in found.blocks if isinstance(block, str))
    assert outcome.endswith("And Qwen/Big on HF, 8 tokens, end to end, is faster by 2.00 x.")
