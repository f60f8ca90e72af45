"""Replicas of a run: their rates, their doubts, their context."""

from pathlib import Path

import numpy as np
import pytest
from rows import phases, run_of

from phaselaw.cli import main
from phaselaw.laws.analysis import Analysis, analyze
from phaselaw.laws.concurrency import CONCURRENCY_THROUGHPUT
from phaselaw.laws.step_time import step_times
from phaselaw.plan.replicas import pairs, replicas_of, stated
from phaselaw.records import Run
from phaselaw.rundir import read as runs


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Analysis]:
    path = tmp_path_factory.mktemp("replicas") / "run"
    assert main(["run", "--dry-run", "--set", "replicates=1", "--set", "repetitions=3", "--out", str(path)]) == 0
    run = runs.load(path)
    return run, analyze(run)


def test_every_end_to_end_rate_is_a_replica_with_the_tables_rate(simulated: tuple[Run, Analysis]) -> None:
    run, analysis = simulated
    replicas = replicas_of(run, analysis, 2.0)
    table = analysis.tables["throughput_intervals"].filter(mode="e2e_kv")
    printed = {row["model"]: row["tokens_per_s"] for row in table.iter_rows(named=True)}
    assert {replica.model: replica.tokens_per_s[0] for replica in replicas} == pytest.approx(printed)
    assert all(
        replica.usd_per_hour == 2.0 and replica.interval_basis == "this run only, over rounds" for replica in replicas
    )


def test_the_step_time_models_own_error_widens_the_phases(simulated: tuple[Run, Analysis]) -> None:
    run, analysis = simulated
    [first, *_] = replicas_of(run, analysis, 1.0)
    assert (first.backend, first.model) in step_times(analysis.tables["step_time_model"])
    none = analysis.tables["step_time_model"].clear()
    without = Analysis(tables=analysis.tables | {"step_time_model": none}, notes={}, options=analysis.options)
    [narrow, *_] = replicas_of(run, without, 1.0)
    assert first.decode_factor is not None and narrow.decode_factor is not None
    assert first.decode_factor[0] == narrow.decode_factor[0] == 1
    assert np.nanstd(np.log(first.decode_factor)) >= np.nanstd(np.log(narrow.decode_factor))


def test_a_price_for_each_backend_is_that_backends(simulated: tuple[Run, Analysis]) -> None:
    run, analysis = simulated
    [backend] = run.rows["backend"].unique()
    assert {replica.usd_per_hour for replica in replicas_of(run, analysis, {backend: 3.0})} == {3.0}


def test_of_many_models_the_fastest_the_smallest_and_the_largest_are_planned_as_they_would_be_among_all(
    simulated: tuple[Run, Analysis],
) -> None:
    every = {each.model: each for each in replicas_of(*simulated, 1.0)}
    some = {each.model: each for each in replicas_of(*simulated, 1.0, most=1)}
    by_size = sorted(every.values(), key=lambda each: each.params_millions or 0.0)
    fastest = max(every.values(), key=lambda each: each.tokens_per_s[0])
    assert set(some) == {fastest.model, by_size[0].model, by_size[-1].model} < set(every)
    for name, each in some.items():
        assert each.tokens_per_s[0] == every[name].tokens_per_s[0]
        assert np.nanstd(np.log(each.tokens_per_s)) == pytest.approx(
            np.nanstd(np.log(every[name].tokens_per_s)), rel=0.02
        )
    assert replicas_of(*simulated, 1.0, most=len(every)) and len(replicas_of(*simulated, 1.0, most=len(every))) == len(
        every
    )


def test_doubted_prefills_of_tr121s_servers_are_known(reference_data: Path, tr121: Analysis) -> None:
    replicas = replicas_of(runs.load(reference_data / "tr121" / "primary_run"), tr121, 1.006)
    doubted = {replica.backend for replica in replicas if replica.suspect_prefill}
    assert doubted == {"ollama"}
    assert all("prompt cache" in str(replica.suspect_prefill) for replica in replicas if replica.backend == "ollama")


def test_every_two_models_are_compared_the_cheaper_first() -> None:
    found = [
        (a.model, b.model)
        for a, b in pairs([stated("mid", 50, 1.0), stated("dear", 10, 1.0), stated("cheap", 90, 1.0)])
    ]
    assert found == [("cheap", "mid"), ("cheap", "dear"), ("mid", "dear")]


def test_a_run_that_swept_clients_is_planned_at_the_number_that_was_fastest(simulated: tuple[Run, Analysis]) -> None:
    run, analysis = simulated
    alone, *_ = replicas_of(run, analysis, 1.0)
    about = {"backend": alone.backend, "model": alone.model, "gen_tokens_target": alone.gen_tokens}
    rates = {1: 100.0, 2: 180.0, 4: 150.0, 8: 400.0}
    swept = CONCURRENCY_THROUGHPUT.frame(
        about
        | {"scenario": scenario, "concurrency": clients, "n_groups": 3, "n_groups_with_failures": int(clients == 8)}
        | {f"output_tokens_per_s_{of}": by * rate for of, by in (("median", 1.0), ("ci_low", 0.9), ("ci_high", 1.1))}
        for clients, rate in rates.items()
        for scenario in ("a", "b")
    )
    tables = analysis.tables | {"concurrency_throughput": swept}
    best, *others = replicas_of(run, Analysis(tables=tables, notes={}, options=analysis.options), 1.0)
    assert (best.clients, {each.clients for each in others}) == (2, {1})
    assert best.tokens_per_s[0] == pytest.approx(1.8 * alone.tokens_per_s[0])
    assert best.e2e_s[0] == pytest.approx(alone.e2e_s[0] * 2 / 1.8)
    spread = [np.nanstd(np.log(each.tokens_per_s[1:])) for each in (alone, best)]
    assert spread[0] < spread[1]


def test_a_new_worker_serves_after_a_load_that_was_one_and_the_first_call() -> None:
    cold = {"calls_since_model_load": 0, "tokens_per_s": 9.0}
    warm = cold | {"calls_since_model_load": 1}
    ollama = {"backend": "o", "backend_kind": "ollama"}  # which loads within the call, and says 30 ms of warm ones
    rows = [
        *phases(100, 400, **cold, load_ms=2000.0),
        *phases(100, 400, **cold, **ollama, load_ms=9000.0, request_ms=9500.0),
        *(row for at in range(3) for row in phases(100, 400, **warm, **ollama, rep=at, load_ms=30.0, request_ms=530.0)),
    ]
    run = run_of(rows)
    assert {each.backend: each.scale_out_s for each in replicas_of(run, analyze(run), 1.0)} == {"b": 2.5, "o": 9.5}
