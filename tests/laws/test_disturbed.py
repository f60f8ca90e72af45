"""Calls that other work on the machine or another client disturbed: which they are, and the figures without them."""

import pytest
from rows import outcome, phases, run_of, table_of

from phaselaw.laws.analysis import Options, analyze
from phaselaw.laws.checks.frame import CheckResult
from phaselaw.laws.disturbed import BUSY, SHARED, disturbed_calls, without_disturbed
from phaselaw.plan.replicas import replicas_of

QUIET = {"own_cpus": 1.9, "other_cpus": 0.02, "idle_cpus": 0.08, "steal_cpus": 0.0}
CROWDED = {"own_cpus": 1.0, "other_cpus": 1.0, "idle_cpus": 0.0, "steal_cpus": 0.0}


def machine(*calls: tuple[float, dict[str, float]], **known) -> list[dict[str, object]]:
    """Calls of two cells by turns, each so many ms long beside such work."""
    return [
        row
        for at, (ms, beside) in enumerate(calls)
        for row in phases(ms / 10, 0.9 * ms, call_idx=at, rep=at // 2, scenario="ab"[at % 2], **beside | known)
    ]


def server(*ttfts: float, **known) -> list[dict[str, object]]:
    """Calls of one cell of a server: a step of 8 ms by both clocks, and such times to the first token."""
    steps = known.pop("steps", [8.0] * len(ttfts))
    return [
        row
        for at, (ttft, step) in enumerate(zip(ttfts, steps, strict=True))
        for row in phases(
            60.0,
            64 * step,
            backend_kind="ollama",
            call_idx=at,
            rep=at,
            ttft_ms=ttft,
            decode_step_ms_client=step,
            decode_step_ms_server=step * known.get("server", 1.0),
            **{name: known[name] for name in known if name != "server"},
        )
    ]


def found(rows, check: str) -> list[int]:
    calls = disturbed_calls(table_of(rows))
    return sorted(int(row["call_idx"]) for row in calls.iter_rows(named=True) if row["check"] == check)


def result(rows, check: str) -> CheckResult:
    return outcome(run_of(rows), check)


def test_calls_that_shared_their_cores_are_found_and_the_figures_without_them_stand_beside() -> None:
    rows = machine(*[(400.0, QUIET)] * 8, *[(760.0, CROWDED)] * 8)
    assert found(rows, BUSY) == list(range(8, 16))
    [finding] = result(rows, BUSY).findings
    assert finding.value == 0.5
    assert "8 of 16 calls shared their cores: other work took 1.0 processors" in finding.evidence
    table = without_disturbed(table_of(rows), disturbed_calls(table_of(rows)))
    e2e = table.filter(mode="e2e_kv").to_dicts()
    assert [(row["scenario"], row["n"], row["n_disturbed"]) for row in e2e] == [("a", 8, 4), ("b", 8, 4)]
    assert {(row["latency_median_ms"], row["latency_without_ms"]) for row in e2e} == {(580.0, 400.0)}


@pytest.mark.parametrize(
    "beside",
    [
        {"own_cpus": 2.0, "other_cpus": 3.0, "idle_cpus": 11.0, "steal_cpus": 0.0},  # room enough for both
        {"own_cpus": 1.7, "other_cpus": 0.15, "idle_cpus": 0.15, "steal_cpus": 0.0},
        dict.fromkeys(QUIET),
    ],
)
def test_work_that_leaves_room_or_is_little_or_unknown_is_no_busy_machine(beside) -> None:
    assert result(machine(*[(400.0, beside)] * 16), BUSY).findings == ()


def test_one_burst_in_a_long_run_is_left_alone() -> None:
    assert found(machine(*[(400.0, QUIET)] * 15, (700.0, CROWDED)), BUSY) == []


def test_short_calls_are_judged_together_since_the_kernel_counts_in_hundredths() -> None:
    rough = [QUIET | {"other_cpus": other, "idle_cpus": 0.0} for other in (0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)]
    assert found(machine(*[(20.0, each) for each in rough] * 8), BUSY) == []


def test_time_that_a_virtual_machine_lost_counts_even_where_processors_seem_idle() -> None:
    stolen = QUIET | {"own_cpus": 1.0, "steal_cpus": 0.4, "idle_cpus": 0.5}
    assert found(machine(*[(400.0, QUIET)] * 4, *[(500.0, stolen)] * 4), BUSY) == [4, 5, 6, 7]


def test_a_server_whose_work_another_process_does_leaves_whose_work_it_is_unknown() -> None:
    proxied = {"own_cpus": 0.2, "other_cpus": 1.75, "idle_cpus": 0.05, "steal_cpus": 0.0}
    assert found(machine(*[(400.0, proxied)] * 8, backend_kind="openai"), BUSY) == []
    assert len(found(machine(*[(400.0, proxied)] * 8, backend_kind="hf"), BUSY)) == 8


def test_waits_at_several_times_of_a_run_are_another_clients() -> None:
    rows = server(60, 61, 960, 60, 62, 961, 60, 60, 959, 61)
    assert found(rows, SHARED) == [2, 5, 8]
    [finding] = result(rows, SHARED).findings
    assert "3 of 10 calls waited or ran slowly" in finding.evidence
    assert "first token after 960 ms, in the others 60 ms" in finding.evidence


@pytest.mark.parametrize(
    "ttfts",
    [
        (60, 61, 960, 60, 62, 60, 60, 60, 61, 61),  # one wait
        (60, 61, 60, 60, 62, 60, 960, 961, 962, 963),  # one stretch: drift
        (60, 61, 110, 60, 62, 120, 60, 60, 115, 61),  # too short a wait to be a request
        (60, 70, 80, 90, 100, 110, 120, 130, 140, 150),
    ],
)
def test_one_wait_one_stretch_or_short_waits_are_no_shared_server(ttfts) -> None:
    assert found(server(*ttfts), SHARED) == []


def test_a_load_within_a_call_is_no_wait_for_another_client() -> None:
    rows = [
        row | {"ollama_load_ms": 900.0 if row["ttft_ms"] > 900 else 2.0}
        for row in server(60, 61, 960, 60, 62, 961, 60, 60, 959, 61)
    ]
    assert found(rows, SHARED) == []


@pytest.mark.parametrize(("server_says", "calls"), [(1.0, [2, 5]), (None, [])])
def test_steps_that_are_slow_by_both_clocks_ran_beside_another_request(server_says, calls) -> None:
    steps = [8.0, 8.1, 13.0, 8.0, 8.2, 12.5, 8.0, 8.1]
    rows = server(*[60.0] * 8, steps=steps)
    rows = [row if server_says else row | {"decode_step_ms_server": 8.0} for row in rows]
    assert found(rows, SHARED) == calls
    between = server(*[60.0] * 8, steps=[*steps[:-1], 10.3])
    assert found(between, SHARED) == []


def test_waits_beside_more_work_of_other_processes_are_a_busy_machine_instead() -> None:
    rows = [
        row | (CROWDED | {"idle_cpus": 0.3, "own_cpus": 0.7} if row["ttft_ms"] > 900 else QUIET)
        for row in server(60, 61, 960, 60, 62, 961, 60, 60, 959, 61)
    ]
    assert (found(rows, SHARED), found(rows, BUSY)) == ([], [2, 5, 8])


def loads(load_ms: float, **known) -> list[dict[str, object]]:
    """Warm calls of a server that spends so long in each before its prompt's 60 ms."""
    return [row | {"ollama_load_ms": load_ms} | known for row in server(*[60.0 + load_ms] * 5)]


@pytest.mark.parametrize(("load_ms", "found"), [(150.0, 1), (9.0, 0), (2.0, 0)])
def test_a_load_in_each_warm_call_is_found_where_its_user_feels_it(load_ms: float, found: int) -> None:
    findings = result(loads(load_ms), "load in measured calls").findings
    assert len(findings) == found
    assert all("warm calls spend 150 ms loading, of 210 ms to the first token" in each.evidence for each in findings)


def test_a_load_of_20_ms_is_nothing_beside_a_long_prompt() -> None:
    assert result(loads(20.0, ttft_ms=1000.0), "load in measured calls").findings == ()


def test_loads_are_what_a_study_of_cold_starts_asks_for() -> None:
    manifest = {"study": {"backends": [{"name": "b", "cold": True}]}}
    asked = outcome(run_of(loads(500.0), manifest=manifest), "load in measured calls")
    assert (asked.findings, asked.n_checked) == ((), 0)


def test_what_the_user_of_a_request_waits_for_is_in_rates_and_plans_and_no_phase_changes() -> None:
    rows = [
        row | {"prefill_ms": 60.0, "request_ms": 210.0 + 63 * 8.0, "tokens_total": 74.0, "gen_tokens_target": 64}
        for row in loads(150.0)
    ]
    run = run_of(rows)
    analysis = analyze(run, Options(draws=5))
    tables = analysis.tables
    [request] = tables["requests_by_model"].filter(mode="e2e_kv").to_dicts()
    [phases_of] = tables["summary_by_model_backend_mode_agg"].filter(mode="e2e_kv").to_dicts()
    assert (request["latency_geomean_ms"], phases_of["latency_geomean_ms"]) == pytest.approx((714.0, 60.0 + 64 * 8.0))
    [rate] = tables["throughput_intervals"].filter(mode="e2e_kv").to_dicts()
    assert rate["tokens_per_s"] == pytest.approx(74 / 0.714)
    [replica] = replicas_of(run, analysis, 1.0)
    assert (replica.e2e_s[0], replica.tokens_per_s[0], replica.wait_s) == pytest.approx((0.714, 74 / 0.714, 0.15))
