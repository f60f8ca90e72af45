"""Drift, throttling, repetitions against their spread, and cells of one name that are not one thing."""

import math
import random

import numpy as np
import polars as pl
import pytest
from rows import call, outcome, row_of, run_of

from phaselaw.laws.checks.calls import WANTED, _trend, known_to

REPETITIONS, COMPARABLE = "too few repetitions", "cells not comparable"


def spread(share: float, n: int, cells: int = 6) -> list[dict]:
    """Cells whose calls lie so far apart, evenly about one value."""
    steps = [math.exp(share * (2 * at / (n - 1) - 1)) if n > 1 else 1.0 for at in range(n)]
    return [
        row
        for cell in range(cells)
        for at, factor in enumerate(steps)
        for row in call(cell * n + at, scenario=f"s{cell}", kv_decode_ms=640 * factor, prefill_ms=12 * factor)
    ]


@pytest.mark.parametrize(("share", "n", "found"), [(0.01, 3, False), (0.3, 3, True), (0.3, 60, False)])
def test_a_spread_is_too_wide_for_few_calls_and_not_for_many(share: float, n: int, found: bool) -> None:
    findings = outcome(run_of(spread(share, n)), REPETITIONS).findings
    assert bool(findings) == found
    assert {each.status for each in findings} <= {"caution"}


def test_the_repetitions_it_asks_for_would_do() -> None:
    finding = outcome(run_of(spread(0.3, 3)), REPETITIONS).findings[0]
    asked = int(finding.next_step.split()[1])
    variance = math.log1p(finding.value) ** 2
    assert known_to(variance, asked) <= WANTED < known_to(variance, asked - 2)


def test_one_wild_cell_among_quiet_ones_is_named() -> None:
    rows = spread(0.002, 3) + [
        row for at, ms in enumerate((300.0, 640.0, 1300.0)) for row in call(90 + at, scenario="wild", kv_decode_ms=ms)
    ]
    found = outcome(run_of(rows), REPETITIONS).findings
    assert {each.where.get("scenario") for each in found if each.modes == ("kv_decode",)} <= {"wild", None}
    assert found


def test_one_call_a_cell_leaves_its_spread_unknown() -> None:
    [first, *_] = outcome(run_of(spread(0.1, 1)), REPETITIONS).findings
    assert "spread is unknown" in first.evidence


def in_rounds(drift: float, wild: float, seed: int):
    """Ten rounds of twelve cells that scatter by 3 %, drift so far from first to last, and have wild calls, 3 x."""
    draw, rows = random.Random(seed), []
    for rep in range(10):
        for cell in range(12):
            off = math.exp(draw.gauss(0, 0.03) + drift * (rep * 12 + cell) / 119 + (draw.random() < wild) * math.log(3))
            rows += call(rep * 12 + cell, rep=rep, scenario=f"s{cell}", kv_decode_ms=640 * off, prefill_ms=12 * off)
    return run_of(rows, manifest={"order": "rounds"})


def test_one_call_in_twenty_that_is_wild_makes_no_median_unknown() -> None:
    assert outcome(in_rounds(0.0, 0.05, seed=1), REPETITIONS).findings == ()


def test_wild_calls_neither_make_nor_hide_a_trend() -> None:
    place = np.arange(120.0)
    draw = np.random.default_rng(1)
    for grown, found in ((0.0, False), (0.1, True)):
        wild = draw.random(120) < 0.05
        latency = 100 * np.exp(grown * place / 119 + draw.normal(0, 0.03, 120) + wild * math.log(3))
        rows = pl.DataFrame({"place": place, "latency_ms": latency, "cell": np.arange(120) % 12})
        slope, p = _trend(rows, ["cell"])
        assert (p < 0.005) == found and slope == pytest.approx(grown, abs=0.04)


def reasons(run) -> list[str]:
    return [each.evidence for each in outcome(run, COMPARABLE).findings]


def test_one_model_measured_in_one_way_is_comparable() -> None:
    assert reasons(run_of(call(0) + call(1))) == []


def test_two_sizes_under_one_name_are_not() -> None:
    [reason] = reasons(run_of(call(0) + call(1, params_millions_measured=200.0)))
    assert "100 M, 200 M" in reason


def test_two_settings_of_one_backend_are_not() -> None:
    models = [{"model": "m", "kind": "ollama", "backend": "b", "quantization_level": level} for level in ("Q4", "Q8")]
    [reason] = reasons(run_of(call(0), models))
    assert "quantization_level" in reason and "Q4, Q8" in reason


def test_a_run_that_went_on_elsewhere_says_what_changed() -> None:
    processes = [{"study_sha256": "a", "host": {"cpu_model": cpu}} for cpu in ("one", "one", "other")]
    [reason] = reasons(run_of(call(0), manifest={"processes": processes}))
    assert "'one' became 'other'" in reason


DRIFT, THROTTLING = "drift", "throttling"
rng = np.random.default_rng(5)
NOISE = np.exp(rng.normal(0, 0.01, 200))
PLACES = rng.permutation(18)


def run(order: str, *, drifts: float = 0.0, rises: float = 0.0, steps: float = 0.0):
    """Six models, three scenarios and three repetitions, back to back or in rounds, both in a shuffled order."""
    rows, n = [], 0
    blocks = [(cell, None) for cell in PLACES] if order == "cells" else [
        (cell, rep) for rep in range(3) for cell in np.random.default_rng(rep).permutation(18)
    ]  # fmt: skip
    for cell, round_ in blocks:
        for rep in range(3) if round_ is None else (round_,):
            slower = NOISE[n] * (1 + drifts * n / 53) * (1 + rises * rep) * (1 + steps * (rep == 1))
            model, scenario = divmod(int(cell), 3)
            rows += call(
                n, rep=rep, model=f"m{model}", scenario=f"s{scenario}", backend_kind="hf",
                params_millions_measured=2.0**model, kv_decode_ms=100.0 * 2**model * slower, prefill_ms=0.001,
            )  # fmt: skip
            n += 1
    return run_of(rows)


@pytest.mark.parametrize("order", ["cells", "rounds"])
def test_a_drift_is_found_in_either_order_and_measured(order: str) -> None:
    assert outcome(run(order), DRIFT).findings == ()
    [found] = outcome(run(order, drifts=0.3), DRIFT).findings
    assert found.value == pytest.approx(0.26, abs=0.08)
    assert found.modes == ("prefill", "kv_decode", "e2e_kv")


def test_a_round_that_was_slower_as_a_whole_is_no_drift() -> None:
    assert outcome(run("rounds", steps=0.2), DRIFT).findings == ()


def test_a_small_drift_is_left_alone() -> None:
    assert outcome(run("cells", drifts=0.03), DRIFT).findings == ()


def test_calls_that_slow_down_in_their_cell_throttle_and_ones_that_speed_up_do_not() -> None:
    assert outcome(run("cells", rises=-0.05), THROTTLING).findings == ()
    [found] = outcome(run("cells", rises=0.05), THROTTLING).findings
    assert found.value == pytest.approx(0.1, abs=0.02)


def test_the_order_is_told_by_the_calls_places_not_by_a_manifest() -> None:
    in_rounds = outcome(run("rounds", rises=0.05), THROTTLING)
    assert in_rounds.n_checked == 0
    assert "rounds" in str(in_rounds.not_checked)


def test_rows_without_an_order_are_not_checked() -> None:
    rows = [row | {"call_idx": None} for row in call(0) + call(1)]
    assert outcome(run_of(rows), DRIFT).not_checked
    assert outcome(run_of(rows), THROTTLING).not_checked


def test_a_machine_that_had_more_to_do_than_processors_is_told_beside_the_scatter() -> None:
    """Calls that scatter threefold, on two processors with five processes that want to run."""
    beside = {"own_cpus": 0.8, "other_cpus": 1.2, "idle_cpus": 0.0, "steal_cpus": 0.0}
    latencies = (10.0, 30.0, 90.0, 12.0)

    def evidence(load: float) -> str:
        calls = [
            row_of("e2e_kv", ms, scenario=scenario, rep=rep, call_idx=rep, load_average=load, **beside)
            for scenario in "ab"
            for rep, ms in enumerate(latencies)
        ]
        return outcome(run_of(calls), REPETITIONS).findings[0].evidence

    assert evidence(5.0).endswith("; the machine's load was 5.0 on 2 processors")
    assert "processors" not in evidence(1.5)


def stated(**changed) -> list[dict]:
    """Two calls whose figures agree: 12 ms of prefill, 64 steps of 10 ms; ``changed`` are functions of each row."""
    rows = call(0) + call(1)
    for row in rows:
        row |= {"tokens_total": 64, "tokens_per_s": 64e3 / row["latency_ms"], "request_ms": 12.0 + 63 * 10.0}
    return [row | {name: new(row) for name, new in changed.items()} for row in rows]


SWAPPED = {"prefill": "e2e_kv", "e2e_kv": "prefill", "kv_decode": "kv_decode"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"latency_ms": lambda row: 1.04 * row["latency_ms"]}, []),
        ({"prefill_ms": lambda _: 11.2, "tokens_per_s": lambda row: 64e3 / (row["latency_ms"] - 0.8)}, []),
        ({"prefill_ms": lambda _: 10.2}, ["their prefill_ms"]),
        ({"latency_ms": lambda row: row["latency_ms"] / 1e3}, ["request_ms", "their prefill_ms", "tokens_per_s"]),
        ({"mode": lambda row: SWAPPED[row["mode"]]}, ["what e2e_kv, their sum,", "request_ms", "their prefill_ms"]),
        ({"tokens_per_s": lambda row: 2 * row["tokens_per_s"]}, ["0.5 times tokens_per_s"]),
        ({"tokens_per_s": lambda _: None}, []),
        ({"request_ms": lambda _: 0.0}, []),
        ({"ttft_ms": lambda _: 1000.0, "request_ms": lambda _: 1630.0}, []),
        ({"prompt_tokens_raw": lambda _: 1300}, []),
        ({"prompt_tokens_raw": lambda _: 12_000}, ["8.93 times the tokens"]),
        ({"status": lambda row: "error" if row["mode"] == "prefill" else "ok"}, []),
    ],
)
def test_figures_that_contradict_each_other_are_found(changed: dict, said: list[str]) -> None:
    told = outcome(run_of(stated(**changed)), "contradictory rows")
    assert told.n_checked == 1
    assert all(part in each.evidence for part, each in zip(said, told.findings, strict=True))
    assert [each.status for each in told.findings] == [
        "suspected" if "the tokens" in part else "found" for part in said
    ]
